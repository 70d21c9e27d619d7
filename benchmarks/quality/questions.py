"""What is asked of every party, and what it answers: ranks of hidden songs, and lists.  Rests on numpy and `evaluation` alone.

The peers from RecTools answer in a process of another virtual environment; they load the same questions from a file and rank with
the same lines, so that no difference can come from the judging.

Letters: S sequences, V song numbers with the specials, n questions, m lists, k length of a list.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import Mask, Songs, ndcg_at, rank_of_target
from evaluation.protocols import METRICS, Figures, NextSongTask, Score, answerable, candidates_of, sequence_means

BATCH = 128
LIST_LENGTH = 10  # at least; as many as were hidden where that is more
ALL = "all"
COLUMNS = ("songs", "offsets", "sequence", "position", "targets", "groups", "trained", "history_starts")

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """The hidden songs of one part of a data set, and the rules under which all parties are judged on them."""

    every: NextSongTask
    """All questions of the protocol, also those that the rules leave out."""
    history_starts: Ints
    """(S,) the row at which the history before each sequence begins; its own first row where there is none."""
    groups: Ints
    """(S,) what is resampled together: the list that a sequence is a version of, or the user."""
    trained: Mask
    """(V,) whether a song occurs in training."""
    allow_repeats: bool
    """Whether songs of the prefix are candidates."""

    @property
    def n_songs(self) -> int:
        """V, the specials included."""
        return len(self.trained)

    @property
    def has_history(self) -> bool:
        """Whether any sequence has something before it that a party may look at."""
        return bool((self.history_starts < self.every.offsets[:-1]).any())

    @cached_property
    def asked(self) -> NextSongTask:
        """The questions that count: without repeats, those whose target is new to its sequence."""
        return answerable(self.every, self.n_songs, self.allow_repeats)

    def tasks(self, *, history: bool) -> NextSongTask:
        """The questions that count, with prefixes that begin with the sequence, or with the history before it."""
        return self.asked.with_history(self.history_starts) if history else self.asked

    @cached_property
    def continued(self) -> NextSongTask:
        """The first question of each sequence: what stands before it is the list to continue, (m,)."""
        first = np.flatnonzero(np.diff(self.every.sequence, prepend=-1))
        return self.every.select(first)

    @cached_property
    def hidden(self) -> list[Songs]:
        """The songs that each continued list has lost, in their order; without repeats, those that it does not hold already."""
        edges = np.flatnonzero(np.diff(self.every.sequence, prepend=-1))[1:]
        lost = np.split(self.every.targets, edges)
        if self.allow_repeats:
            return lost
        return [songs[~np.isin(songs, prefix)] for songs, prefix in zip(lost, self.continued.prefixes(), strict=True)]

    @cached_property
    def kinds(self) -> Mapping[str, Mask]:
        """Which questions that count are of which kind, (n,) each; a repeat is of the sequence or of the history before it."""
        warm = self.trained[self.asked.targets]
        kinds = {ALL: np.ones(len(self.asked), np.bool_), "warm": warm, "cold": ~warm}
        if self.allow_repeats:
            repeats = self.tasks(history=True).repeats
            kinds |= {"repeat": repeats, "explore": ~repeats}
        return {name: chosen for name, chosen in kinds.items() if chosen.any()}

    def thinned(self, most: int) -> "Questions":
        """At most that many questions, evenly spaced, for a search."""
        if len(self.every) <= most:
            return self
        return dataclasses.replace(self, every=self.every.select(np.linspace(0, len(self.every) - 1, most).astype(np.int64)))

    def where(self, chosen: Mask) -> "Questions":
        """Only some of all questions."""
        return dataclasses.replace(self, every=self.every.select(chosen))

    def save(self, path: Path) -> None:
        """Write the questions for a process of another environment."""
        tasks = self.every
        columns = (tasks.songs, tasks.offsets, tasks.sequence, tasks.position, tasks.targets, self.groups, self.trained)
        arrays = dict(zip(COLUMNS, (*columns, self.history_starts), strict=True))
        np.savez(path, allow_pickle=False, **arrays, allow_repeats=np.array(self.allow_repeats))

    @classmethod
    def load(cls, path: Path) -> "Questions":
        """Read questions back."""
        with np.load(path) as file:
            songs, offsets, sequence, position, targets, groups, trained, history_starts = (file[name] for name in COLUMNS)
            allow_repeats = bool(file["allow_repeats"])
        every = NextSongTask(songs=songs, offsets=offsets, sequence=sequence, position=position, targets=targets)
        return cls(every=every, history_starts=history_starts, groups=groups, trained=trained, allow_repeats=allow_repeats)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What one party, trained with one seed, said to one part of a data set."""

    party: str
    seed: int
    settings: Mapping[str, Any]
    """What the search over its settings has chosen."""
    history: bool
    """Whether it looked at what came before the sequence, which it chose on validation."""
    validation_ndcg10: float
    search_seconds: float
    fit_seconds: float
    ranks: Ints
    """(n,) place of each target, in the order of `Questions.asked`."""
    lists: Ints
    """(m, k) the best songs for each list of `Questions.continued`."""

    def save(self, path: Path, questions: str) -> None:
        """Keep the answers to the questions with that digest."""
        described = {
            setting.name: getattr(self, setting.name)
            for setting in dataclasses.fields(self)
            if setting.name not in ("ranks", "lists")
        }
        text = json.dumps({**described, "questions": questions})
        np.savez(path, ranks=self.ranks, lists=self.lists, described=np.array(text))

    @classmethod
    def load(cls, path: Path, questions: str) -> "Answers | None":
        """Answers of an earlier run; None where there are none to the questions with that digest."""
        if not path.is_file():
            return None
        with np.load(path) as file:
            described = json.loads(str(file["described"]))
            if described.pop("questions") != questions:
                return None
            return cls(**described, ranks=file["ranks"], lists=file["lists"])


def ranks_of(score: Score, tasks: NextSongTask, questions: Questions) -> Ints:
    """Place of each target among the candidates, ties broken as a stable sort does: (n,)."""
    pieces = [np.empty(0, np.int64)]
    for prefixes, targets in _batches(tasks):
        candidates = candidates_of(prefixes, questions.n_songs, questions.allow_repeats)
        pieces.append(rank_of_target(score(prefixes), targets, candidates))
    return np.concatenate(pieces)


def lists_of(score: Score, tasks: NextSongTask, questions: Questions, length: int) -> Ints:
    """The best `length` songs for each prefix, best first, ties broken as a stable sort does: (m, length).

    Every prefix must leave as many candidates.
    """
    lists = [np.empty((0, length), np.int64)]
    for prefixes, _ in _batches(tasks):
        candidates = candidates_of(prefixes, questions.n_songs, questions.allow_repeats)
        rows = zip(score(prefixes), np.broadcast_to(candidates, (len(prefixes), questions.n_songs)), strict=True)
        lists.append(np.stack([best_songs(scores, allowed, length) for scores, allowed in rows]))
    return np.concatenate(lists)


def best_songs(scores: NDArray[Any], candidates: Mask, length: int) -> Ints:
    """The candidates with the highest scores, best first; of two with one score, the smaller number comes first.

    >>> best_songs(np.array([9.0, 1.0, 2.0, 2.0]), np.array([False, True, True, True]), 2)
    array([2, 3])
    """
    songs = np.flatnonzero(candidates)
    values = scores[songs]
    if len(songs) > length:
        kept = values >= np.partition(values, -length)[-length]
        songs, values = songs[kept], values[kept]
    return np.asarray(songs[np.argsort(-values, kind="stable")[:length]])


def ask(score: Score, questions: Questions, *, history: bool) -> tuple[Ints, Ints]:
    """Ranks of all targets and continuations of all lists, as `Answers` holds them."""
    lists = questions.continued.with_history(questions.history_starts) if history else questions.continued
    ranks = ranks_of(score, questions.tasks(history=history), questions)
    return ranks, lists_of(score, lists, questions, longest_list(questions))


def quality_of(score: Score, questions: Questions, *, history: bool) -> float:
    """What every search maximises: NDCG@10, averaged over the questions of a sequence, then over sequences."""
    tasks = questions.tasks(history=history)
    ranks = ranks_of(score, tasks, questions)
    return float(sequence_means(ndcg_at(ranks, 10) * (ranks <= questions.n_songs), tasks.sequence)[1].mean())


def choose_history(score: Score, questions: Questions) -> tuple[bool, float]:
    """Whether a party is better with the history before a sequence, and the NDCG@10 that it then has."""
    qualities = {history: quality_of(score, questions, history=history) for history in histories_of(questions)}
    best = max(qualities, key=lambda history: qualities[history])
    return best, qualities[best]


def histories_of(questions: Questions) -> tuple[bool, ...]:
    """What a party may choose from: no history, and the history where there is one."""
    return (False, True) if questions.has_history else (False,)


def figures(ranks: Ints, questions: Questions) -> dict[str, Figures]:
    """All metrics of the answers, over all questions and over those of each kind."""
    return {name: _figures(ranks[chosen], questions.asked.sequence[chosen], questions.n_songs)
            for name, chosen in questions.kinds.items()}  # fmt: skip


def _figures(ranks: Ints, sequence: Ints, n_songs: int) -> Figures:
    found = ranks <= n_songs
    per_sequence = {name: sequence_means(metric(ranks) * found, sequence)[1] for name, metric in METRICS.items()}
    return Figures(sequences=np.unique(sequence), n_tasks=len(ranks), per_sequence=per_sequence)


def longest_list(questions: Questions) -> int:
    """How many songs a list must hold to be judged by R-precision."""
    return max(LIST_LENGTH, max(map(len, questions.hidden)))


def _batches(tasks: NextSongTask) -> Iterator[tuple[list[Songs], Songs]]:
    for start in range(0, len(tasks), BATCH):
        yield tasks.prefixes(start, start + BATCH), tasks.targets[start : start + BATCH]
