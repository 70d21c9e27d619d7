"""The tables of the model's memory: the neighbours of each song, artist or album, strongest first, in every edition.

Which neighbours are looked at is decided by all training lists; each edition (see `sources`) has its own strongest ones among
them.  The pairs of a few source songs are cut to these before the next ones are counted.

Shape letters: V songs of the catalogue, E editions, n entries of a table.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from config import FIRST_NUMBER, PAD
from engine.pairs import Pairs, supports
from engine.sorted_arrays import rank_among_equals, starts_of
from engine.training_songs import TrainingSongs
from newcomers import Groups
from sources import NOTHING, Relations

# Times as many neighbours as a row may have, the strongest of all lists, are looked at for the editions.
LOOKED_AT = 4
LARGEST_HALF = 60_000.0  # float16 ends at 65,504


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Entries of a table, row after row."""

    rows: np.ndarray  # (n,) int32
    songs: np.ndarray  # (n,) int32
    counts: np.ndarray  # (n,) float32
    fold_counts: np.ndarray  # (n, folds) float16, or float32 where one is too large

    @classmethod
    def of(cls, rows: np.ndarray, songs: np.ndarray, by_fold: np.ndarray) -> "Entries":
        """From the support by each fold (n, folds).

        The whole is the sum of the rounded parts: without the only fold that supports a pair nothing is left.
        """
        half = by_fold.astype(np.float16 if by_fold.sum(axis=1).max(initial=0) < LARGEST_HALF else np.float32)
        counts = half.sum(axis=1, dtype=np.float32)
        return cls(rows=rows.astype(np.int32), songs=songs.astype(np.int32), counts=counts, fold_counts=half)

    @classmethod
    def nothing(cls, folds: int) -> "Entries":
        """No entry."""
        return cls.of(np.zeros(0), np.zeros(0), np.zeros((0, folds), np.float16))

    @classmethod
    def joined(cls, parts: list["Entries"]) -> "Entries":
        """Entries of rising rows; the parts are used up, so that each column is held twice only one at a time."""
        columns: dict[str, np.ndarray] = {}
        for name in ("rows", "songs", "counts", "fold_counts"):
            columns[name] = np.concatenate([part.__dict__.pop(name) for part in parts])
        return cls(**columns)

    def without(self, withheld: np.ndarray) -> "Entries":
        """The same without the entries that the edition without a fold withholds, (folds, n) bool."""
        if not withheld.any():
            return self
        everything = _at_least(self.counts, self.fold_counts.dtype)[:, None]
        return replace(self, fold_counts=np.where(withheld.T, everything, self.fold_counts))

    def strongest(self, strength: np.ndarray, most: int) -> "Entries":
        """At most so many entries of each row, in the order of their strength (n,); equal ones stay in theirs."""
        order = np.argsort(self.rows.astype(np.int64) << 32 | _falling(strength), kind="stable")
        order = order[rank_among_equals(self.rows) < most]
        return Entries(**{name: column[order] for name, column in vars(self).items()})

    def with_editions_of(self, most: int, roots: np.ndarray) -> "Entries":
        """Let each edition have its own strongest entries of a row, so many at most, and drop those that no edition has.

        The roots (E, V) are those by which strength is measured.  Where an edition has no use for an entry, the entry counts as
        supported by the edition's fold alone.
        """
        place = rank_among_equals(self.rows)
        is_long = np.bincount(self.rows)[self.rows] > most if len(self.rows) else np.zeros(0, bool)
        long = np.flatnonzero(is_long)
        rows, place_of_long = self.rows[long].astype(np.int64) << 32, place[long]
        is_used, fold_counts = place < most, self.fold_counts.copy()
        for edition in range(1, len(roots)):
            left = self.counts[long] - fold_counts[long, edition - 1]
            order = np.argsort(rows | _falling(left / roots[edition, self.songs[long]]), kind="stable")
            is_strong = np.zeros(len(long), bool)
            is_strong[order] = place_of_long < most
            is_used[long] |= is_strong & (left > NOTHING)
            weak = long[~is_strong]
            fold_counts[weak, edition - 1] = _at_least(self.counts[weak], fold_counts.dtype)
        columns = {**vars(self), "fold_counts": fold_counts}
        return Entries(**{name: column[is_used] for name, column in columns.items()})

    def relation(self, name: str, reach: int, most: int, row_of_song: np.ndarray, totals: np.ndarray) -> Relations:
        """The table with these entries, with a row for each of `totals` (E, rows)."""
        n_rows = totals.shape[1]
        return Relations(
            names=(name,),
            reaches=(reach,),
            rows=(n_rows,),
            most=most,
            row_of_song=torch.from_numpy(row_of_song)[None],
            starts=torch.from_numpy(starts_of(self.rows, n_rows)),
            songs=torch.from_numpy(self.songs),
            counts=torch.from_numpy(self.counts),
            totals=torch.from_numpy(totals),
            fold_counts=torch.from_numpy(np.ascontiguousarray(self.fold_counts.T)),
        )


def _falling(strength: np.ndarray) -> np.ndarray:
    """Numbers below 2 ** 31 that fall as strengths of 0 and above rise: the bits of a float rise with it."""
    return np.int64(0x7FFFFFFF) - strength.astype(np.float32).view(np.int32)


def _at_least(counts: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The least numbers of a floating-point type that are not below the counts, so that nothing is left without them."""
    rounded = counts.astype(dtype)
    return np.where(rounded < counts, np.nextafter(rounded, dtype.type(np.inf)), rounded)


def song_relation(name: str, pairs: Pairs, training: TrainingSongs, plays: np.ndarray, reach: int, neighbours: int) -> Relations:
    """Keep the strongest neighbours of each song by support over the square root of the neighbour's lists (cosine)."""
    V, roots = training.n_songs, np.sqrt(np.maximum(plays, 1))  # (E, V)
    parts = [Entries.nothing(training.folds)]
    for source, other, by_fold in supports(pairs, V, training.folds):
        entries = Entries.of(source, other, by_fold).without(training.withheld[:, source] | training.withheld[:, other])
        best = entries.strongest(by_fold.sum(axis=1) / roots[0, other], LOOKED_AT * neighbours)
        parts.append(best.with_editions_of(neighbours, roots))
    entries = Entries.joined(parts)
    return entries.relation(name, reach, neighbours, known_numbers(np.arange(V)), plays)


def group_relation(
    name: str, key: np.ndarray, training: TrainingSongs, plays: np.ndarray, reach: int, neighbours: int
) -> Relations:
    """The songs of each artist (or album) that stand in training lists, most played first, in every edition."""
    members = np.flatnonzero((key >= FIRST_NUMBER) & (plays[0] > 0))
    members = members[np.argsort(key[members], kind="stable")]
    entries = Entries.of(key[members].astype(np.int64), members, training.lists_by_fold[:, members].T)
    entries = entries.without(training.withheld[:, members])
    best = entries.strongest(entries.counts, LOOKED_AT * neighbours).with_editions_of(neighbours, np.ones_like(plays))
    return best.relation(name, reach, neighbours, known_numbers(key), training.lists_of(key))


def unheard_groups(key: np.ndarray, plays: np.ndarray, most: int) -> Groups:
    """The songs of each artist (or album) that some edition lacks: of those that no list holds and of the others so many each.

    `plays` (E, V).  Were both counted together, an artist of many unheard songs would teach nothing.  Of the former the highest
    numbers are taken, which came last; of the others any, for theirs fall with their plays.
    """
    members, n_keys = np.flatnonzero((key >= FIRST_NUMBER) & (plays == 0).any(axis=0)), int(key.max()) + 1
    never = plays[0, members] == 0
    kinds = 2 * key[members].astype(np.int64) + ~never  # of each artist first those that no list holds
    order = np.lexsort((np.where(never, -members, np.random.default_rng(1).permutation(len(members))), kinds))
    kept = order[rank_among_equals(kinds[order]) < most]
    kept = kept[np.lexsort((members[kept], kinds[kept]))]
    members, never = members[kept], never[kept]
    return Groups(
        row_of_song=torch.from_numpy(known_numbers(key)),
        starts=torch.from_numpy(starts_of(key[members], n_keys)),
        songs=torch.from_numpy(members.astype(np.int32)),
        n_unheard=torch.from_numpy(np.bincount(key[members[never]], minlength=n_keys)),
        lacking=torch.from_numpy(plays[1:, members] == 0),
    )


def certain_relation(name: str, target: np.ndarray, reach: int) -> Relations:
    """A relation with one neighbour at most, which rests on no count."""
    return Relations(
        names=(name,),
        reaches=(reach,),
        rows=(len(target),),
        most=1,
        row_of_song=torch.arange(len(target), dtype=torch.int32)[None],
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(target != PAD)])),
        songs=torch.from_numpy(target[target != PAD].astype(np.int32)),
        counts=torch.ones(int((target != PAD).sum())),
        totals=torch.ones(1, len(target)),
    )


def known_numbers(numbers: np.ndarray) -> np.ndarray:
    """The numbers of known songs (or artists, or albums) as they are, as int32, and PAD in place of the others."""
    return np.where(numbers >= FIRST_NUMBER, numbers, PAD).astype(np.int32)
