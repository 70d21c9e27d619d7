"""Songs that nobody has played yet: removed from training, then asked for.

A drawn share of the songs (or of the artists, with all their songs) leaves the training lists; their metadata stays.  Every
question of the test whose target is one of them is asked, against the whole catalogue; one draw has few such questions, so
several are put together.  The figures to beat: a random order, and the songs nearest to the prefix by features and artist.

What new songs cost known ones is measured twice, on the questions about known songs: against the same model with new songs left
out of the candidates, and against a model that was trained with all songs, whose sequences have lost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.network import settings_of, trained_score
from benchmarks.quality.questions import Ints, Questions, choose_history, figures, ranks_of
from benchmarks.quality.splits import DataSet, Rows, build
from config import FIRST_NUMBER, Config
from evaluation.baselines import Random
from evaluation.metrics import Songs
from evaluation.protocols import Score
from snapshot import Snapshot
from splits import TEST, VALIDATION

SONGS_REMOVED = 0.05
ARTISTS_REMOVED = 0.03
SAME_ARTIST = 0.5  # what sharing an artist with the whole prefix adds to a cosine, which is at most 1
SEARCH_TASKS = 1000
DRAWS = 3


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one draw of withheld songs gave."""

    hits: Mapping[str, NDArray[np.bool_]]
    """Whether each question about a withheld song has it among the first ten, (n,) by who answered."""
    ndcg10: float
    """On known songs."""
    ndcg10_without_new: float
    """The same model's on the same questions, with new songs left out of the candidates."""
    ndcg10_with_all: float
    """That of the model that was trained with all songs."""


def cold_figures(rows: Rows, folder: Path, minutes: float | None, seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """Train with everything, and for each draw without some songs and without some artists, and compare."""
    whole = build(rows, folder / "whole")
    with_all = trained_score(whole, _settings(rows, folder / "whole", minutes, seed))

    def drawn(kind: str, draw: int) -> Draw:
        removed = WITHHELD[kind](rows, draw)
        return _answered(rows, removed, whole, with_all, folder / f"{kind}-{draw}", minutes, seed)

    expected = 10 / len(rows.catalogue)  # of a random order, without the luck of a draw
    return {kind: together([drawn(kind, draw) for draw in range(draws)], expected) for kind in WITHHELD}


def drawn_songs(rows: Rows, share: float, draw: int = 0) -> Ints:
    """A share of the songs that occur in training, drawn at random, as rows of the catalogue."""
    return _drawn(np.unique(rows.songs[rows.training_rows()]), share, draw)


def songs_of_drawn_artists(rows: Rows, share: float, draw: int = 0) -> Ints:
    """All songs of a share of the artists that occur in training, drawn at random."""
    artists = rows.catalogue["artist_id"]
    heard = artists.iloc[np.unique(rows.songs[rows.training_rows()])].dropna().unique()
    return np.flatnonzero(artists.isin(heard[_drawn(np.arange(len(heard)), share, draw)]))


WITHHELD: Mapping[str, Callable[[Rows, int], Ints]] = {
    "songs": lambda rows, draw: drawn_songs(rows, SONGS_REMOVED, draw),
    "artists": lambda rows, draw: songs_of_drawn_artists(rows, ARTISTS_REMOVED, draw),
}


def _drawn(values: Ints, share: float, draw: int) -> Ints:
    return np.sort(np.random.default_rng(draw).choice(values, max(1, round(share * len(values))), replace=False))


def _answered(rows: Rows, removed: Ints, whole: DataSet, with_all: Score, folder: Path, minutes: float | None, seed: int) -> Draw:
    """Train without the removed songs, and ask for them and for the others."""
    data, config = build(rows.without(removed), folder), _settings(rows, folder, minutes, seed)
    score = trained_score(data, config)
    asked = about(data.questions(TEST, config.evaluation), data.number[removed])
    parties: Mapping[str, Score] = {
        "model": score,
        "random": Random().fit(*data.training(), data.snapshot.n_songs).score,
        "nearest": Nearest(data.snapshot).score,
    }
    known = about(data.questions(TEST, config.evaluation), data.number[removed], others=True)
    known_to_whole = about(whole.questions(TEST, config.evaluation), whole.number[removed], others=True)
    return Draw(
        hits={name: ranks_of(one, asked.tasks(history=False), asked) <= 10 for name, one in parties.items()},
        ndcg10=_ndcg10(score, known, data, config),
        ndcg10_without_new=_ndcg10(without_new(score, known), known, data, config),
        ndcg10_with_all=_ndcg10(with_all, known_to_whole, whole, config),
    )


def without_new(score: Score, questions: Questions) -> Score:
    """The same scores, with minus infinity for songs that no training sequence holds."""

    def of_known(prefixes: Sequence[Songs]) -> NDArray[np.float32]:
        scores = score(prefixes)
        scores[:, ~questions.trained] = -np.inf
        return scores

    return of_known


def together(draws: Sequence[Draw], expected: float) -> dict[str, Any]:
    """Recall@10 over the questions of all draws, and what known songs have lost, on average over the draws."""
    recalls = {name: float(np.concatenate([draw.hits[name] for draw in draws]).mean()) for name in draws[0].hits}
    return {
        "recall10": recalls["model"],
        "random": recalls["random"],
        "nearest": recalls["nearest"],
        "random_expected": expected,
        "times_random": recalls["model"] / expected,
        "n_tasks": sum(len(draw.hits["model"]) for draw in draws),
        "draws": [
            {
                "n_tasks": len(draw.hits["model"]),
                "recall10": float(draw.hits["model"].mean()),
                "nearest": float(draw.hits["nearest"].mean()),
                "warm_ndcg10": draw.ndcg10,
                "warm_ndcg10_without_new": draw.ndcg10_without_new,
                "warm_ndcg10_with_all": draw.ndcg10_with_all,
            }
            for draw in draws
        ],
        "warm_price": float(np.mean([draw.ndcg10 / draw.ndcg10_without_new - 1 for draw in draws])),
        "warm_change": float(np.mean([draw.ndcg10 / draw.ndcg10_with_all - 1 for draw in draws])),
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
