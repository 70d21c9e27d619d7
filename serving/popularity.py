"""How popular the recommended songs are, beside those of the training lists and of the whole catalogue.

A song's popularity is the number of training lists that hold it, as the model's memory has it.

Letters: V song numbers, B bins.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from config import FIRST_NUMBER, UNKNOWN
from errors import InvalidSequence
from serving.answers import Answer
from serving.catalogue import SongCatalogue
from serving.reasons import plain_id

# The highest popularity of each bin but the last one.
BOUNDS = (0, 3, 10, 30, 100, 300, 1_000)
TOP_ARTISTS = 10
FIRST_SONGS = 10  # of an answer, in which artists are counted
NO_COUNTS = "the model has no counts of its training lists, so how popular a song is cannot be told"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recommended:
    """What was recommended: how often each song, and how varied."""

    counts: np.ndarray  # (V,) int64
    n_answers: int  # with FIRST_SONGS songs or more
    n_artists: int  # different ones among the first songs of each of these answers, summed up

    def and_lists(self, lists: Sequence[np.ndarray], artists: np.ndarray) -> "Recommended":
        """With more lists of song numbers, the best song first."""
        counts = self.counts.copy()
        for songs in lists:
            np.add.at(counts, songs, 1)
        whole = [songs[:FIRST_SONGS] for songs in lists if len(songs) >= FIRST_SONGS]
        n_artists = self.n_artists + sum(_n_artists(artists[songs]) for songs in whole)
        return Recommended(counts=counts, n_answers=self.n_answers + len(whole), n_artists=n_artists)


class RecommendedTally:
    """Counts the songs that this process recommends, by song number; memory is bounded by the catalogue.

    Counting takes some microseconds an answer.  When another model or more songs come into service, what was counted is numbered
    anew, by the first answer after that.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._catalogue: SongCatalogue | None = None  # whose numbers count
        self._counts = np.zeros(0, np.int64)
        self._n_answers = 0
        self._n_artists = 0
        self.since = datetime.now(UTC)

    def add(self, catalogue: SongCatalogue, answer: Answer) -> None:
        """Count the songs of an answer; those that the catalogue does not know are passed over."""
        try:
            numbers = catalogue.songs.encode([song.song_id for song in answer.songs])
        except InvalidSequence:  # of a challenger whose ids are of another type
            return
        numbers = numbers[numbers != UNKNOWN]
        first = numbers[:FIRST_SONGS]
        n_artists = _n_artists(catalogue.artists[first])
        with self._guard:
            self._number_by(catalogue)
            self._counts[numbers] += 1  # an answer holds no song twice
            if len(first) == FIRST_SONGS:
                self._n_answers += 1
                self._n_artists += n_artists

    def recommended(self, catalogue: SongCatalogue) -> Recommended:
        """What was counted, by the numbers of a catalogue."""
        with self._guard:
            self._number_by(catalogue)
            return Recommended(counts=self._counts.copy(), n_answers=self._n_answers, n_artists=self._n_artists)

    def _number_by(self, catalogue: SongCatalogue) -> None:
        before = self._catalogue
        if before is catalogue:
            return
        counts = np.zeros(len(catalogue), np.int64)
        if before is not None:
            counted = np.flatnonzero(self._counts)
            try:
                numbers = catalogue.songs.encode(before.songs.decode(counted))
            except InvalidSequence:  # another type of ids
                numbers = np.full(len(counted), UNKNOWN)
            known = numbers != UNKNOWN
            counts[numbers[known]] = self._counts[counted[known]]
        self._catalogue, self._counts = catalogue, counts


def popularity_json(catalogue: SongCatalogue, recommended: Recommended) -> dict[str, Any]:
    """Bins, artists and measures as plain values; what cannot be told is None."""
    popularity = catalogue.popularity.astype(np.int64)
    popularity[:FIRST_NUMBER] = 0
    counts = recommended.counts.copy()
    counts[:FIRST_NUMBER] = 0
    n_recommended = int(counts.sum())
    if not popularity.any():
        nothing: dict[str, Any] = {"bins": [], "catalogue": [], "history": [], "recommended": None, "artists": []}
        return {**nothing, "n_recommended": n_recommended, "measures": _measures(catalogue, popularity, counts, recommended)}
    bins = list(_bins(int(popularity.max())))
    bin_of = np.searchsorted(BOUNDS[: len(bins) - 1], popularity)  # (V,)
    weights = (catalogue.is_available, popularity, counts)
    of_songs, of_history, of_recommended = (_shares(np.bincount(bin_of, weight, len(bins))) for weight in weights)
    return {
        "bins": bins,
        "catalogue": of_songs,
        "history": of_history,
        "recommended": of_recommended if n_recommended else None,
        "n_recommended": n_recommended,
        "artists": _artists(catalogue, popularity, counts),
        "measures": _measures(catalogue, popularity, counts, recommended),
    }


def _bins(highest: int) -> Iterator[dict[str, Any]]:
    """The bins up to the most popular song: label, and the lowest and highest popularity."""
    yield {"label": "in no training list", "low": 0, "high": 0}
    for below, bound in pairwise(BOUNDS):
        if below < highest:
            yield {"label": f"in {below + 1:,} to {bound:,} lists", "low": below + 1, "high": bound}
    if highest > BOUNDS[-1]:
        yield {"label": f"in over {BOUNDS[-1]:,} lists", "low": BOUNDS[-1] + 1, "high": highest}


def _shares(sums: np.ndarray) -> list[float]:
    total = float(sums.sum())
    return [round(float(one) / total, 6) if total else 0.0 for one in sums]


def _artists(catalogue: SongCatalogue, popularity: np.ndarray, counts: np.ndarray) -> list[dict[str, Any]]:
    """Shares of the artists that are played most and of those that are recommended most, the most played first."""
    weights = (catalogue.is_available, popularity, counts)
    sums = np.array([np.bincount(catalogue.artists, weight) for weight in weights])  # (3, artists)
    totals = sums.sum(axis=1, keepdims=True)
    shares = np.divide(sums, totals, out=np.zeros(sums.shape), where=totals > 0)
    shares[:, :FIRST_NUMBER] = 0  # songs whose artist is not known
    _, history, recommended = shares
    top = {*np.argsort(-history, kind="stable")[:TOP_ARTISTS], *np.argsort(-recommended, kind="stable")[:TOP_ARTISTS]}
    shown = sorted((n for n in map(int, top) if history[n] or recommended[n]), key=lambda n: (-history[n], -recommended[n], n))
    is_recommended = bool(totals[2, 0])
    return [
        {
            "artist": _name_of(catalogue, number),
            "catalogue": round(float(shares[0, number]), 6),
            "history": round(float(history[number]), 6),
            "recommended": round(float(recommended[number]), 6) if is_recommended else None,
        }
        for number in shown
    ]


def _name_of(catalogue: SongCatalogue, artist: int) -> str:
    songs = np.flatnonzero(catalogue.artists == artist)[:100]
    names = [name for name in catalogue.artist_names.take(songs).to_pylist() if name]
    return names[0] if names else str(plain_id(catalogue.encoders.artists.decode([artist])[0]))


def _measures(
    catalogue: SongCatalogue, popularity: np.ndarray, counts: np.ndarray, recommended: Recommended
) -> dict[str, float | None]:
    usual, ours = _median(popularity, popularity), _median(popularity, counts)
    n_available = int(catalogue.is_available.sum())
    n_seen = int((catalogue.is_available & (counts > 0)).sum())
    answers = recommended.n_answers
    return {
        "median_popularity_ratio": round(ours / usual, 4) if usual and ours is not None else None,
        "artists_at_10": round(recommended.n_artists / answers, 4) if answers else None,
        "coverage": round(n_seen / n_available, 6) if n_available and counts.any() else None,
    }


def _median(values: np.ndarray, weights: np.ndarray) -> float | None:
    """The lower median of values that each count `weights` times; None where none counts."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(sums, sums[-1] / 2)]]) if len(sums) and sums[-1] else None


def _n_artists(artists: np.ndarray) -> int:
    """Different artists, those that are not known aside."""
    return len({artist for artist in artists.tolist() if artist >= FIRST_NUMBER})
