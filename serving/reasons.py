"""Why a song is in an answer: what it shares with the sequence, and which songs of the sequence speak for it.

Cheap reasons look at facts: the same album, the same artist, or, when neither is shared, tempo and energy.  Dear ones leave each
song of the context out in turn and look at how far the recommended song falls: one forward pass of at most seq_len rows.

A reason is fields for machines plus one sentence for people (`Reason.sentence`), with titles where they are known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import torch

from config import FIRST_NUMBER
from serving.catalogue import SongCatalogue
from serving.index import ContextEncoder, ScoringIndex, read_contexts

SongId = int | str | UUID

COMPARED_FEATURES = ("tempo", "energy")
# A quarter of a standard deviation: about 7 beats a minute for the tempo of popular music.
CLOSE_STANDARD_DEVIATIONS = 0.25
# More songs than this make no sentence; the first ones carry nearly all of the score.
MOST_CONTRIBUTORS = 3


class ReasonKind(StrEnum):
    """What speaks for a song."""

    BECAUSE_OF = "because_of"  # its lead falls by `weight` without that song
    SAME_ALBUM = "same_album"
    SAME_ARTIST = "same_artist"
    CLOSE_FEATURES = "close_features"  # the named features are within a quarter of a standard deviation
    WHOLE_SEQUENCE = "whole_sequence"  # nothing of the above: no single song or fact explains it
    POPULAR = "popular"  # nothing is known of the sequence


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason; `song_id` is the song of the sequence that it points at."""

    kind: ReasonKind
    song_id: SongId | None = None
    weight: float | None = None  # score points, only for BECAUSE_OF
    features: tuple[str, ...] = ()  # only for CLOSE_FEATURES

    def sentence(self, titles: Mapping[SongId, str] | None = None) -> str:
        """The reason in words, with the song's title where `titles` has it, else with its id.

        >>> Reason(kind=ReasonKind.SAME_ARTIST, song_id=17).sentence({17: "Blue Train"})
        'same artist as "Blue Train"'
        """
        title = (titles or {}).get(self.song_id) if self.song_id is not None else None
        song = f"song {self.song_id}" if title is None else f'"{title}"'
        match self.kind:
            case ReasonKind.BECAUSE_OF:
                return f"because of {song}"
            case ReasonKind.SAME_ALBUM:
                return f"same album as {song}"
            case ReasonKind.SAME_ARTIST:
                return f"same artist as {song}"
            case ReasonKind.CLOSE_FEATURES:
                return f"{' and '.join(self.features)} close to {song}"
            case ReasonKind.WHOLE_SEQUENCE:
                return "goes with the sequence as a whole"
            case ReasonKind.POPULAR:
                return "popular: nothing is known of the songs of this sequence"

    def as_json(self) -> dict[str, Any]:
        """Plain values for an answer or a jsonb column; fields that say nothing are left out."""
        fields = {
            "kind": self.kind.value,
            "song_id": plain_id(self.song_id),
            "weight": self.weight,
            "features": list(self.features),
        }
        return {name: value for name, value in fields.items() if value not in (None, [])} | {"text": self.sentence()}


def plain_id(song_id: SongId | None) -> int | str | None:
    """An id as JSON can hold it: a UUID as text, the rest as it is."""
    return str(song_id) if isinstance(song_id, UUID) else song_id


@dataclass(frozen=True, kw_only=True)
class SongFacts:
    """What is known of each song by number, V rows each."""

    artists: np.ndarray  # (V,) artist numbers
    albums: np.ndarray  # (V,) album numbers
    features: Mapping[str, np.ndarray]  # name -> (V,) in standard deviations, NaN where missing

    @classmethod
    def of(cls, catalogue: SongCatalogue) -> "SongFacts":
        """Keep the columns that reasons compare, in standard deviations over the songs that have them."""
        columns = {name: catalogue.features[name] for name in COMPARED_FEATURES if name in catalogue.features}
        compared = {name: _standardised(column) for name, column in columns.items()}
        return cls(artists=catalogue.artists, albums=catalogue.albums, features=compared)


def _standardised(column: np.ndarray) -> np.ndarray:
    known = column[~np.isnan(column)]
    spread = float(known.std()) if known.size else 0.0
    return (column - known.mean()) / spread if spread > 0 else np.full(len(column), np.nan, np.float32)


@dataclass(frozen=True, kw_only=True)
class KnownSongs:
    """The songs of a sequence that the model knows, oldest first."""

    numbers: np.ndarray  # (n,) int64
    ids: tuple[SongId, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def last(self, n: int) -> "KnownSongs":
        """The n newest songs."""
        return KnownSongs(numbers=self.numbers[-n:], ids=self.ids[-n:])


def shared_facts(facts: SongFacts, sequence: KnownSongs, song: int) -> list[Reason]:
    """The cheap reasons for a song number: album and artist shared with the newest such song, else close features.

    Empty when nothing is shared.
    """
    albums = np.flatnonzero(_same(facts.albums, sequence.numbers, song))
    artists = np.flatnonzero(_same(facts.artists, sequence.numbers, song))
    if albums.size:
        return [Reason(kind=ReasonKind.SAME_ALBUM, song_id=sequence.ids[albums[-1]])]
    if artists.size:
        return [Reason(kind=ReasonKind.SAME_ARTIST, song_id=sequence.ids[artists[-1]])]
    return _close_features(facts, sequence, song)


def _same(column: np.ndarray, sequence: np.ndarray, song: int) -> np.ndarray:
    # Songs without an artist or album all carry a special number, which they do not share.
    return (column[sequence] == column[song]) & (column[song] >= FIRST_NUMBER)


def _close_features(facts: SongFacts, sequence: KnownSongs, song: int) -> list[Reason]:
    if not facts.features:
        return []
    names = list(facts.features)
    gaps = np.stack([np.abs(column[sequence.numbers] - column[song]) for column in facts.features.values()], axis=1)  # (n, F)
    close = gaps <= CLOSE_STANDARD_DEVIATIONS  # False where a value is missing
    if not close.any():
        return []
    # Most close features first, then the smallest gaps among them, then the newest song.
    nearest = np.lexsort((-np.arange(len(sequence)), np.where(close, gaps, 0).sum(axis=1), -close.sum(axis=1)))[0]
    features = tuple(name for name, is_close in zip(names, close[nearest], strict=True) if is_close)
    return [Reason(kind=ReasonKind.CLOSE_FEATURES, song_id=sequence.ids[nearest], features=features)]


def leave_one_out(
    model: ContextEncoder, index: ScoringIndex, context: np.ndarray, songs: np.ndarray, n_newest: int | None = None
) -> np.ndarray:
    """By how much the lead of each of `songs` (k,) falls when one song of `context` is left out: (n, k) score points.

    The `n_newest` newest songs of the context (None: all) are left out in turn; n is their number.  Positive: that song speaks
    for the recommended one.  One forward pass of n + 1 rows.
    """
    first = 0 if n_newest is None else max(0, len(context) - n_newest)
    without = [np.delete(context, place) for place in range(first, len(context))]
    contexts = read_contexts(model, [*without, context], row_len=len(context) + 1)
    with torch.inference_mode():
        leads = index.leads(contexts, songs)  # (n + 1, k)
    return leads[-1] - leads[:-1]


def contributors(context: KnownSongs, weights: np.ndarray) -> list[Reason]:
    """The songs of the context that speak most for one recommended song, given its column (n,) of `leave_one_out`."""
    strongest = np.argsort(-weights, kind="stable")[:MOST_CONTRIBUTORS]
    return [
        Reason(kind=ReasonKind.BECAUSE_OF, song_id=context.ids[place], weight=float(weights[place]))
        for place in strongest
        if weights[place] > 0
    ]
