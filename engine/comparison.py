"""A model beside the baselines, on the held-out part of one snapshot: the same tasks, candidates and metrics for all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from config import FIRST_NUMBER, EvaluationConfig
from errors import DataError
from evaluation.baselines import Baseline, Blend, CoOccurrence, ItemKNN, Markov, Popularity, Random
from evaluation.protocols import Evaluation, NextSongTask, evaluate, leave_one_out_tasks, next_song_tasks
from preprocessing_utils import count_repeats
from snapshot import Snapshot
from splits import TEST, TRAIN, VALIDATION

Score = Callable[[Sequence[np.ndarray]], np.ndarray]

REPEATS_MATTER_FROM = 0.01  # share of training songs that occurred earlier in their sequence
BLEND_TASKS = 1000  # validation tasks on which the blend's weights are chosen


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The tasks of one part, and the rules under which all scores are judged on them."""

    tasks: NextSongTask
    n_songs: int
    allow_repeats: bool
    trained: np.ndarray  # (V,) whether a song occurs in training

    def judge(self, score: Score, progress: Callable[[int], None] | None = None) -> Evaluation:
        """Metrics of a score function on these tasks."""
        return evaluate(
            score, self.tasks, n_songs=self.n_songs, allow_repeats=self.allow_repeats, trained=self.trained, progress=progress
        )


def held_out(snapshot: Snapshot, part: int, config: EvaluationConfig, max_tasks: int | None = None) -> HeldOut:
    """The tasks of a part: with leave_one_out its one hidden song per sequence, else every song of the last share.

    `max_tasks` thins them evenly, for a quick look after each epoch.
    """
    if snapshot.policy == "leave_one_out":
        tasks = leave_one_out_tasks(
            snapshot.sequences, snapshot.offsets, snapshot.indices(part), from_end=2 if part == VALIDATION else 1
        )
    else:
        tasks = next_song_tasks(snapshot.sequences, snapshot.offsets, snapshot.indices(part), config.last_share)
    if max_tasks is not None and len(tasks) > max_tasks:
        tasks = tasks.select(np.linspace(0, len(tasks) - 1, max_tasks).astype(np.int64))
    allow_repeats = repeats_allowed(snapshot, config)
    if allow_repeats:  # else what was heard before the sequence would count as a part of it, which cannot come again
        tasks = tasks.with_history(np.asarray(snapshot.history_starts))
    return HeldOut(
        tasks=tasks,
        n_songs=snapshot.n_songs,
        allow_repeats=allow_repeats,
        trained=_trained(snapshot),
    )


def validation_part(snapshot: Snapshot, config: EvaluationConfig, max_tasks: int) -> HeldOut:
    """The tasks to validate with after each epoch; DataError when the snapshot leaves none, so that training need not begin."""
    held = held_out(snapshot, VALIDATION, config, max_tasks=max_tasks)
    if not len(held.tasks) or (held.tasks.repeats.all() and not held.allow_repeats):
        training, validation, test = (len(snapshot.indices(part)) for part in (TRAIN, VALIDATION, TEST))
        raise DataError(
            f"no song to validate with: the snapshot has {training} training, {validation} validation and {test} test sequences "
            f"with {len(held.tasks)} songs to predict for validation, none of them new to its sequence: "
            "import more or longer sequences and preprocess again"
        )
    return held


def _trained(snapshot: Snapshot) -> np.ndarray:
    """Whether each song occurs in training, (V,) bool; an unknown song does not."""
    trained = np.zeros(snapshot.n_songs, bool)
    plays = snapshot.training_plays()
    trained[: len(plays)] = plays > 0
    trained[:FIRST_NUMBER] = False
    return trained


def repeats_allowed(snapshot: Snapshot, config: EvaluationConfig) -> bool:
    """Whether a song of the prefix is a candidate: as set, or by how often songs repeat within training sequences."""
    if config.allow_repeats != "auto":
        return config.allow_repeats == "yes"
    songs, offsets = snapshot.part(TRAIN)
    return count_repeats(songs, offsets) > REPEATS_MATTER_FROM * len(songs)


def baseline_scores(snapshot: Snapshot, config: EvaluationConfig, seed: int = 0) -> dict[str, Score]:
    """Random, popularity, Markov, co-occurrence, kNN, and a blend of the last three weighed on validation tasks."""
    sequences, offsets = snapshot.part(TRAIN)
    parts: dict[str, Baseline] = {
        "random": Random(seed),
        "popularity": Popularity(),
        "Markov": Markov(),
        "co-occurrence": CoOccurrence(),
        "item kNN": ItemKNN(),
    }
    scores: dict[str, Score] = {name: part.fit(sequences, offsets, snapshot.n_songs).score for name, part in parts.items()}
    validation = held_out(snapshot, VALIDATION, config, max_tasks=BLEND_TASKS)
    if len(validation.tasks):
        blend = Blend({name: parts[name] for name in ("Markov", "co-occurrence", "item kNN")})
        blend.choose_weights(validation.tasks, n_songs=snapshot.n_songs, allow_repeats=validation.allow_repeats)
        scores["blend of the three"] = blend.score
    return scores


def compare(
    scores: Mapping[str, Score],
    snapshot: Snapshot,
    config: EvaluationConfig,
    *,
    part: int = TEST,
    report: Callable[[str], None] = lambda name: None,
) -> dict[str, Evaluation]:
    """Judge every score function on one part; `report` is called with the name before each."""
    judged = held_out(snapshot, part, config)
    results = {}
    for name, score in scores.items():
        report(name)
        results[name] = judged.judge(score)
    return results
