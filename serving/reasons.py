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
# Pairs of a song of the sequence and a recommended one that are compared at a time.
MOST_PAIRS = 1_000_000
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


def shared_facts(facts: SongFacts, sequence: KnownSongs, songs: np.ndarray) -> list[list[Reason]]:
    """The cheap reasons for song numbers (k,): album and artist shared with the newest such song, else close features.

    Empty where nothing is shared.
    """
    if not len(songs) or not len(sequence):
        return [[] for _ in songs]
    at_once = max(1, MOST_PAIRS // len(sequence))
    parts = (songs[first : first + at_once] for first in range(0, len(songs), at_once))
    return [reasons for part in parts for reasons in _shared_by(facts, sequence, part)]


def _shared_by(facts: SongFacts, sequence: KnownSongs, songs: np.ndarray) -> list[list[Reason]]:
    albums = _newest_alike(facts.albums, sequence.numbers, songs)
    artists = _newest_alike(facts.artists, sequence.numbers, songs)
    nearest, close = _nearest_sound(facts, sequence.numbers, songs)
    names = list(facts.features)
    reasons: list[list[Reason]] = []
    for album, artist, near, are_close in zip(albums.tolist(), artists.tolist(), nearest.tolist(), close.T.tolist(), strict=True):
        if album >= 0:
            reasons.append([Reason(kind=ReasonKind.SAME_ALBUM, song_id=sequence.ids[album])])
        elif artist >= 0:
            reasons.append([Reason(kind=ReasonKind.SAME_ARTIST, song_id=sequence.ids[artist])])
        elif any(are_close):
            features = tuple(name for name, is_close in zip(names, are_close, strict=True) if is_close)
            reasons.append([Reason(kind=ReasonKind.CLOSE_FEATURES, song_id=sequence.ids[near], features=features)])
        else:
            reasons.append([])
    return reasons


def _newest_alike(column: np.ndarray, sequence: np.ndarray, songs: np.ndarray) -> np.ndarray:
    """The place in the sequence (n,) of the newest song with the artist (album) of each song, -1 where there is none: (k,)."""
    # Songs without an artist or album all carry a special number, which they do not share.
    alike = (column[sequence[::-1], None] == column[songs]) & (column[songs] >= FIRST_NUMBER)  # (n, k)
    return np.where(alike.any(axis=0), len(sequence) - 1 - alike.argmax(axis=0), -1)


def _nearest_sound(facts: SongFacts, sequence: np.ndarray, songs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of the song that sounds most like each song (k,), and which of the features are close to it: (F, k)."""
    if not facts.features:
        return np.zeros(len(songs), np.int64), np.zeros((0, len(songs)), bool)
    gaps = np.stack([np.abs(column[sequence, None] - column[songs]) for column in facts.features.values()])  # (F, n, k)
    close = gaps <= CLOSE_STANDARD_DEVIATIONS  # False where a value is missing
    # Most close features first, then the smallest gaps among them (together below F), then the newest song.
    likeness = len(gaps) * close.sum(axis=0) - np.where(close, gaps, 0).sum(axis=0)  # (n, k)
    nearest = len(sequence) - 1 - likeness[::-1].argmax(axis=0)
    return nearest, close[:, nearest, np.arange(len(songs))]


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
