"""Songs that nobody has played yet: removed from training, then asked for.

A drawn share of the songs (or of the artists, with all their songs) leaves the training lists; their metadata stays.  Every
question of the test whose target is one of them is asked, against the whole catalogue.  What it costs is measured on the other
questions, against the model that was trained with all songs.

The figures to beat: a random order, and the songs nearest to the prefix by features and artist.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.network import settings_of, trained_score
from benchmarks.quality.questions import Ints, Questions, choose_history, figures, ranks_of
from benchmarks.quality.splits import DataSet, Rows, build
from config import FIRST_NUMBER, Config
from dataset import TEST, VALIDATION, Snapshot
from evaluation.baselines import Random
from evaluation.metrics import Songs
from evaluation.protocols import Score

SONGS_REMOVED = 0.05
ARTISTS_REMOVED = 0.03
SAME_ARTIST = 0.5  # what sharing an artist with the whole prefix adds to a cosine, which is at most 1
SEARCH_TASKS = 1000


def cold_figures(rows: Rows, folder: Path, minutes: float | None, seed: int) -> dict[str, Any]:
    """Train with everything, without some songs and without some artists, and compare."""
    whole = build(rows, folder / "whole")
    with_all = trained_score(whole, _settings(rows, folder / "whole", minutes, seed))
    withheld = {"songs": drawn_songs(rows, SONGS_REMOVED), "artists": songs_of_drawn_artists(rows, ARTISTS_REMOVED)}
    return {kind: _figures(rows, removed, whole, with_all, folder / kind, minutes, seed) for kind, removed in withheld.items()}


def drawn_songs(rows: Rows, share: float) -> Ints:
    """A share of the songs that occur in training, drawn at random, as rows of the catalogue."""
    return _drawn(np.unique(rows.songs[rows.training_rows()]), share)


def songs_of_drawn_artists(rows: Rows, share: float) -> Ints:
    """All songs of a share of the artists that occur in training, drawn at random."""
    artists = rows.catalogue["artist_id"]
    heard = artists.iloc[np.unique(rows.songs[rows.training_rows()])].dropna().unique()
    return np.flatnonzero(artists.isin(heard[_drawn(np.arange(len(heard)), share)]))


def _drawn(values: Ints, share: float) -> Ints:
    return np.sort(np.random.default_rng(0).choice(values, max(1, round(share * len(values))), replace=False))


def _figures(
    rows: Rows, removed: Ints, whole: DataSet, with_all: Score, folder: Path, minutes: float | None, seed: int
) -> dict[str, Any]:
    """Recall@10 on removed songs beside the two baselines, and how NDCG@10 on the others has changed."""
    data, config = build(rows.without(removed), folder), _settings(rows, folder, minutes, seed)
    score = trained_score(data, config)
    asked = about(data.questions(TEST, config.evaluation), data.number[removed])
    others = [(with_all, whole), (score, data)]
    before, after = (
        _ndcg10(one, about(where.questions(TEST, config.evaluation), where.number[removed], others=True), where, config)
        for one, where in others
    )
    recalls = {
        name: figures(ranks_of(one, asked.tasks(history=False), asked), asked)["all"].metrics["hr10"]
        for name, one in {
            "recall10": score,
            "random": Random().fit(*data.training(), data.snapshot.n_songs).score,
            "nearest": Nearest(data.snapshot).score,
        }.items()
    }
    expected = 10 / (data.snapshot.n_songs - FIRST_NUMBER)  # of a random order, without the luck of one draw
    return {
        **recalls,
        "random_expected": expected,
        "times_random": recalls["recall10"] / expected,
        "n_tasks": len(asked.asked),
        "warm_ndcg10_with_all": before,
        "warm_ndcg10": after,
        "warm_change": after / before - 1,
    }


def about(questions: Questions, songs: Songs, *, others: bool = False) -> Questions:
    """Only the questions whose target is one of these songs; `others`: only those about other songs that occur in training."""
    targets = questions.every.targets
    chosen = np.isin(targets, songs)
    return questions.where(~chosen & questions.trained[targets] if others else chosen)


def _ndcg10(score: Score, asked: Questions, data: DataSet, config: Config) -> float:
    history = choose_history(score, data.questions(VALIDATION, config.evaluation).thinned(SEARCH_TASKS))[0]
    return figures(ranks_of(score, asked.tasks(history=history), asked), asked)["all"].metrics["ndcg10"]


def _settings(rows: Rows, folder: Path, minutes: float | None, seed: int) -> Config:
    return settings_of(rows.name, folder, minutes=minutes, seed=seed)


class Nearest:
    """Songs that sound like the prefix: the cosine to the mean of its features, and a bonus for its artists.

    The bonus of a song is SAME_ARTIST times the share of the prefix that is by its artist.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._features = _unit(np.asarray(snapshot.song_features, dtype=np.float32))  # (V, F)
        self._artist = np.asarray(snapshot.song_artist)

    def score(self, prefixes: Sequence[Songs]) -> NDArray[np.float32]:
        """(B, V), the specials at -inf."""
        means = np.stack([self._features[prefix].mean(axis=0) for prefix in prefixes])  # (B, F)
        scores = _unit(means) @ self._features.T
        for row, prefix in zip(scores, prefixes, strict=True):
            artists = self._artist[prefix]
            shares = np.bincount(artists, minlength=int(self._artist.max()) + 1) / len(prefix)
            shares[:FIRST_NUMBER] = 0  # an unknown artist is no artist shared
            row += SAME_ARTIST * shares[self._artist].astype(np.float32)
        scores[:, :FIRST_NUMBER] = -np.inf
        return np.asarray(scores, dtype=np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))
