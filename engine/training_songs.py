"""The known songs of a training part: in which list and fold each stands, and what the editions withhold.

Counts are kept by fold, so that every edition of a table (see `sources`) is the whole minus one fold.

Shape letters: r songs of the training part, S sequences, G lists (of which sequences are versions), V songs of the catalogue, E
editions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from config import FIRST_NUMBER
from engine.sorted_arrays import distinct_keys, starts_of
from snapshot import Snapshot
from splits import TRAIN, fold_of_lists, numbered_lists

# About so many are made of one block of `Places`, whoever makes them.
PAIRS_AT_ONCE = 2**21  # 16 MB of keys and six times as much beside them


@dataclass(frozen=True, kw_only=True)
class TrainingSongs:
    """The known songs of the training part, r in order, and where each stands."""

    songs: np.ndarray  # (r,) int32
    sequence: np.ndarray  # (r,) int32 in which sequence each stands
    list_of_sequence: np.ndarray  # (S,) int64 0..G-1
    fold_of_list: np.ndarray  # (G,) int64 0..folds-1
    n_songs: int  # V
    folds: int
    withheld: np.ndarray  # (folds, V) bool songs that the edition without a fold treats as if no list held them

    @classmethod
    def of(cls, snapshot: Snapshot, folds: int, withheld: float = 0.0) -> "TrainingSongs":
        """The training part of a snapshot; each fold withholds so large a share of the songs, each song at most once."""
        songs, offsets = snapshot.part(TRAIN)
        sequence = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
        known = songs >= FIRST_NUMBER
        list_of_sequence = numbered_lists(np.asarray(snapshot.lists)[snapshot.indices(TRAIN)])
        return cls(
            songs=songs[known].astype(np.int32, copy=False),
            sequence=sequence[known],
            list_of_sequence=list_of_sequence,
            fold_of_list=fold_of_lists(int(list_of_sequence.max()) + 1, folds),
            n_songs=snapshot.n_songs,
            folds=folds,
            withheld=withheld_songs(snapshot.n_songs, folds, withheld),
        )

    @cached_property
    def places(self) -> "Places":
        """Where each song stands."""
        return Places.of(self.songs, self.n_songs)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the known songs of each sequence begin, (S + 1,) int64."""
        return starts_of(self.sequence, len(self.list_of_sequence))

    def lists_at(self, places: np.ndarray) -> np.ndarray:
        """The list that holds each of some places."""
        return self.list_of_sequence[self.sequence[places]]

    def folds_at(self, places: np.ndarray) -> np.ndarray:
        """The fold of each of some places."""
        return self.fold_of_list[self.lists_at(places)]

    @cached_property
    def lists_by_fold(self) -> np.ndarray:
        """How many lists of each fold hold each song, (folds, V)."""
        return self.lists_with(self.songs, self.n_songs)

    def plays(self) -> np.ndarray:
        """The lists that hold each song, in each edition: (E, V) float32."""
        plays = _editions(self.lists_by_fold)
        plays[_with_full(self.withheld)] = 0
        return plays

    def lists_of(self, key_of_song: np.ndarray) -> np.ndarray:
        """The lists that hold an artist (or album), in each edition, given that of each song (V,): (E, n_keys) float32."""
        keys, n_keys = key_of_song[self.songs], int(key_of_song.max()) + 1
        editions = _editions(self.lists_with(keys, n_keys))
        for fold in np.flatnonzero(self.withheld.any(axis=1)):
            by_fold = self.lists_with(keys, n_keys, ~self.withheld[fold, self.songs])
            editions[1 + fold] = by_fold.sum(axis=0) - by_fold[fold]
        return editions

    def mean_within(self, window: int) -> float:
        """How many songs follow one within `window` places, on average."""
        lengths = np.diff(self.starts)
        longest = np.minimum(lengths, window + 1)
        pairs = longest * (longest - 1) / 2 + np.maximum(0, lengths - window - 1) * float(window)
        return float(pairs.sum() / max(1, len(self.songs)))

    def lists_with(self, keys: np.ndarray, n_keys: int, kept: np.ndarray | None = None) -> np.ndarray:
        """How many lists of each fold hold a song with each key (r,): (folds, n_keys); of the `kept` songs (r,) bool alone."""
        G = len(self.fold_of_list)
        pairs = keys * np.int64(G)
        pairs += self.list_of_sequence[self.sequence]
        pairs = distinct_keys(pairs if kept is None else pairs[kept])
        return np.bincount(self.fold_of_list[pairs % G] * n_keys + pairs // G, minlength=self.folds * n_keys).reshape(
            self.folds, n_keys
        )


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where each song stands among the songs of a training part."""

    order: np.ndarray  # (r,) int32 places, song after song, rising within each
    starts: np.ndarray  # (V + 1,) int64 where those of each song begin

    @classmethod
    def of(cls, songs: np.ndarray, n_songs: int) -> "Places":
        """The index of songs (r,)."""
        pairs = songs.astype(np.int64) << 32
        pairs |= np.arange(len(songs))
        pairs.sort()  # twice as fast as a stable argsort
        return cls(order=(pairs & 0xFFFFFFFF).astype(np.int32), starts=starts_of(songs, n_songs))

    def blocks(self, most_places: int, most_songs: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """The places of some songs at a time, and the first of the songs; one with more than `most_places` comes alone."""
        song, V = 0, len(self.starts) - 1
        while song < V:
            after = int(np.searchsorted(self.starts, self.starts[song] + most_places, side="right")) - 1
            after = min(max(song + 1, after), V if most_songs is None else song + most_songs)
            yield song, self.order[self.starts[song] : self.starts[after]]
            song = after


def withheld_songs(n_songs: int, folds: int, share: float) -> np.ndarray:
    """Which songs each fold withholds, (folds, n_songs) bool; a song's draw does not depend on how many songs there are."""
    draws = np.random.default_rng(0).random(n_songs)
    draws[:FIRST_NUMBER] = 1
    edges = share * np.arange(folds + 1)
    return (draws >= edges[:-1, None]) & (draws < edges[1:, None])


def _with_full(withheld: np.ndarray) -> np.ndarray:
    """What each edition withholds, the full one nothing: (folds, V) to (E, V)."""
    return np.concatenate([np.zeros_like(withheld[:1]), withheld])


def _editions(by_fold: np.ndarray) -> np.ndarray:
    """The whole, then the whole without each fold: (folds, n) to (E, n) float32."""
    whole = by_fold.sum(axis=0)
    return np.concatenate([whole[None], whole - by_fold]).astype(np.float32)
