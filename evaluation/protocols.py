"""Protocols: which songs of held-out sequences are asked for, and how a score function is judged on them.  Rests on metrics.py.

A recommender is known by its score function alone, so that a network, a count and an oracle are judged by the same lines:

    tasks = next_song_tasks(sequences, offsets, test_sequences)
    evaluation = evaluate(recommender.score, tasks, n_songs=V, allow_repeats=False)
    evaluation.metrics["ndcg10"]

Every song of the catalogue is ranked.  A metric is averaged over the tasks of a sequence first and then over sequences, so that
a long sequence has no more say than a short one.

Letters: B prefixes in a batch, V song numbers with the specials, n tasks, S sequences that have tasks.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import FIRST_NUMBER
from errors import DataError
from evaluation.metrics import Mask, Numbers, Ranks, hit_rate_at, ndcg_at, rank_without, reciprocal_rank
from evaluation.sequences import Offsets, Prefix, Songs, lengths_of

Score = Callable[[Sequence[Prefix]], NDArray[Any]]
"""A batch of B prefixes (song numbers, oldest first) -> (B, V) real numbers; a higher score is a better next song."""

BATCHES = (64, 256)  # prefixes: a matrix product needs some rows
SCORES_AT_ONCE, MOST_SCORES = 2**22, 2**26

Progress = Callable[[int], object]
"""Called after each batch with the number of tasks that were scored in it; `tqdm.update` fits."""

METRICS: Mapping[str, Callable[[Ranks], Numbers]] = MappingProxyType(
    {
        "hr1": partial(hit_rate_at, k=1),
        "hr5": partial(hit_rate_at, k=5),
        "hr10": partial(hit_rate_at, k=10),
        "ndcg5": partial(ndcg_at, k=5),
        "ndcg10": partial(ndcg_at, k=10),
        "mrr": reciprocal_rank,
    }
)
"""What is reported of every evaluation, by its name in Python and JSON."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NextSongTask:
    """The questions of one protocol: which song stands at `position` of a sequence, given all songs before it?"""

    songs: Songs
    """All sequences behind each other, as in a snapshot; not copied."""
    offsets: Offsets
    """(sequences + 1,) where each sequence begins and ends in `songs`."""
    sequence: NDArray[np.int64]
    """(n,) the sequence that each question is about."""
    position: NDArray[np.int64]
    """(n,) the place of the target within its sequence, at least 1."""
    targets: Songs
    """(n,) the song at that place."""

    def __len__(self) -> int:
        return len(self.targets)

    def prefixes(self, start: int = 0, stop: int | None = None) -> list[Prefix]:
        """The songs before the targets of questions `start` to `stop`, as views of `songs`."""
        begins = self.offsets[self.sequence[start:stop]]
        ends = begins + self.position[start:stop]
        return [self.songs[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]

    def with_history(self, history_starts: NDArray[np.int64]) -> "NextSongTask":
        """The same targets with longer prefixes, from the row of `songs` on where the history of each sequence begins."""
        longer = self.offsets[self.sequence] - history_starts[self.sequence]
        offsets = np.concatenate([history_starts, self.offsets[-1:]])
        return dataclasses.replace(self, offsets=offsets, position=np.asarray(self.position + longer))

    def select(self, chosen: NDArray[Any]) -> "NextSongTask":
        """The questions of a boolean mask or index array."""
        return dataclasses.replace(
            self, sequence=self.sequence[chosen], position=self.position[chosen], targets=self.targets[chosen]
        )

    @cached_property
    def repeats(self) -> Mask:
        """(n,) whether a target is a song of its own prefix; an unknown song is never a repeat."""
        heard = [bool((prefix == target).any()) for prefix, target in zip(self.prefixes(), self.targets, strict=True)]
        return np.array(heard, dtype=np.bool_) & (self.targets >= FIRST_NUMBER)


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """What was measured on a set of tasks."""

    sequences: NDArray[np.int64]
    """(S,) the sequences that have tasks in the set, ascending."""
    n_tasks: int
    """Questions asked."""
    per_sequence: Mapping[str, Numbers]
    """Each metric as (S,) means over the tasks of a sequence; paired with those of another recommender in `paired_bootstrap`."""

    @property
    def n_sequences(self) -> int:
        """S, the number of sequences with at least one task."""
        return len(self.sequences)

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """Each metric averaged over sequences."""
        return {name: float(values.mean()) for name, values in self.per_sequence.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Figures):
    """A recommender judged on a protocol."""

    allow_repeats: bool
    """Whether songs of the prefix were candidates."""
    n_left_out: int
    """Tasks not asked, because their target stands in its prefix and repeats are not allowed."""
    seconds: float
    """Wall time of scoring and ranking."""
    parts: Mapping[str, Figures]
    """The same for targets that are "warm" or "cold", and "repeat" or "explore"; a part without tasks is absent."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How far recommender a is ahead of b, each figure with the bounds of its bootstrap interval."""

    difference: float
    """Mean of a minus mean of b."""
    difference_low: float
    """Lower bound; above 0, a is better."""
    difference_high: float
    """Upper bound."""
    ratio: float
    """Mean of a over mean of b; infinite where b has 0, 1 where both have."""
    ratio_low: float
    """Lower bound; above 1, a is better."""
    ratio_high: float
    """Upper bound."""
    level: float
    """Share of the resamples between the bounds."""
    n_groups: int
    """Groups that were resampled; few groups make an interval that means little."""


def next_song_tasks(sequences: Songs, offsets: Offsets, sequence_numbers: NDArray[Any], last_share: float = 0.2) -> NextSongTask:
    """Ask for every song in the last part of each held-out sequence, each from all songs before it.

    The targets of a sequence of m songs are its last floor(last_share · m), at least one and never the first song; a sequence of
    fewer than two songs has no task.  `sequence_numbers` are the held-out ones.  Raises DataError for a share outside (0, 1].

    >>> tasks = next_song_tasks(np.array([5, 6, 7, 8, 9, 5]), np.array([0, 5, 6]), np.array([0, 1]), last_share=0.4)
    >>> tasks.position, tasks.targets, tasks.prefixes()[0]
    (array([3, 4]), array([8, 9]), array([5, 6, 7]))
    """
    if not 0 < last_share <= 1:
        raise DataError(f"last_share must be above 0 and at most 1 (got {last_share})")
    held_out, lengths = _held_out(sequences, offsets, sequence_numbers)
    share = np.floor(lengths * last_share + 1e-9).astype(np.int64)  # 100 * 0.29 is 28.999999999999996
    counts = np.minimum(np.maximum(share, 1), np.maximum(lengths - 1, 0))
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... in each sequence
    return _tasks(sequences, offsets, np.repeat(held_out, counts), np.repeat(lengths - counts, counts) + within)


def leave_one_out_tasks(sequences: Songs, offsets: Offsets, sequence_numbers: NDArray[Any], from_end: int = 1) -> NextSongTask:
    """Ask for one song of each sequence: its last (`from_end` 1, the test) or the one before it (2, the validation).

    The protocol of SASRec and BERT4Rec (Sun et al., CIKM 2019, section 4.2), but ranked among all songs.  Songs after the target
    are not shown; a sequence with nothing before its target has no task.

    >>> leave_one_out_tasks(np.array([5, 6, 7]), np.array([0, 3]), np.array([0]), from_end=2).targets
    array([6])
    """
    if from_end < 1:
        raise DataError(f"from_end must be at least 1, the last song (got {from_end})")
    held_out, lengths = _held_out(sequences, offsets, sequence_numbers)
    position = lengths - from_end
    return _tasks(sequences, offsets, held_out[position >= 1], position[position >= 1])


def evaluate(
    score: Score,
    tasks: NextSongTask,
    *,
    n_songs: int,
    allow_repeats: bool,
    trained: Mask | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Rank every target among all songs and average over the tasks of a sequence, then over sequences.

    `n_songs` is V, the specials included, which are never candidates.  Without repeats, the songs of a prefix are no candidates
    either, and tasks whose target stands in its prefix are left out and counted.  A target that is UNKNOWN stays a task: it is
    a miss, worth 0 in every metric.  `trained` (V,) marks the songs that occur in training, and splits the figures into warm
    and cold targets; where repeats are allowed, they are split into repeat and explore targets too.  Memory is bounded by one
    (batch_size, V) block of scores; None takes what `batch_within` says.

    Raises DataError when no task remains, when a song number is not below V, and for scores of another shape or with NaN.
    """
    asked = answerable(tasks, n_songs, allow_repeats)
    begin = time.perf_counter()
    ranks = _ranks(score, asked, n_songs, allow_repeats, batch_size or batch_within(n_songs), progress)
    seconds = time.perf_counter() - begin
    kinds = _kinds(asked, trained, n_songs, allow_repeats)
    parts = {name: _figures(ranks[kind], asked.sequence[kind], n_songs) for name, kind in kinds.items() if kind.any()}
    overall = _figures(ranks, asked.sequence, n_songs)
    return Evaluation(
        sequences=overall.sequences,
        n_tasks=overall.n_tasks,
        per_sequence=overall.per_sequence,
        allow_repeats=allow_repeats,
        n_left_out=len(tasks) - len(asked),
        seconds=seconds,
        parts=parts,
    )


def paired_bootstrap(
    a: Numbers, b: Numbers, groups: NDArray[Any] | None = None, *, n: int = 2000, rng: np.random.Generator, level: float = 0.95
) -> Interval:
    """Compare two recommenders on the same sequences: percentile intervals of the difference and of the ratio of their means.

    `a` and `b` (S,) are one metric of the two per sequence, in the same order.  `groups` (S,) names what was drawn from the world
    independently, such as the user or the list whose versions the sequences are: whole groups are drawn with replacement, `n`
    times, since sequences of one group go up and down together.  None takes each sequence for itself.  Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 13.3.  Raises DataError for arrays that do not pair up, and for NaN.
    """
    sums = _group_sums(a, b, np.arange(len(a)) if groups is None else groups)
    differences, ratios = _compared(np.stack([_resampled(sums, rng) for _ in range(n)], axis=1))
    (difference,), (ratio,) = _compared(sums.sum(axis=1, keepdims=True))
    # An order statistic, not an interpolation: a ratio can be infinite.
    tails = [(1 - level) / 2, (1 + level) / 2]
    difference_low, difference_high = np.quantile(differences, tails, method="inverted_cdf")
    ratio_low, ratio_high = np.quantile(ratios, tails, method="inverted_cdf")
    return Interval(
        difference=float(difference),
        difference_low=float(difference_low),
        difference_high=float(difference_high),
        ratio=float(ratio),
        ratio_low=float(ratio_low),
        ratio_high=float(ratio_high),
        level=level,
        n_groups=sums.shape[1],
    )


def answerable(tasks: NextSongTask, n_songs: int, allow_repeats: bool) -> NextSongTask:
    """Leave out what the rules cannot answer, without repeats targets of their own prefix; DataError when no task is left."""
    if len(tasks) and (largest := int(tasks.songs.max())) >= n_songs:
        raise DataError(
            f"song number {largest} is outside the catalogue of {n_songs} numbers: tasks and catalogue do not belong together"
        )
    asked = tasks if allow_repeats else tasks.select(~tasks.repeats)
    if not len(asked):
        raise DataError(
            f"nothing to evaluate: all {len(tasks)} tasks are left out because their target repeats a song: "
            "hold out sequences of at least two songs, or allow repeats"
        )
    return asked


def batch_within(n_songs: int) -> int:
    """How many prefixes are scored at once: few enough for their scores of V songs to stay near the processor, where V allows.

    >>> batch_within(2_000), batch_within(50_000), batch_within(1_000_000), batch_within(10**9)
    (256, 83, 64, 1)
    """
    wanted = min(max(SCORES_AT_ONCE // n_songs, BATCHES[0]), BATCHES[1])
    return max(1, min(wanted, MOST_SCORES // n_songs))


def candidates_of(prefixes: Sequence[Prefix], n_songs: int, allow_repeats: bool) -> Mask:
    """Mark the songs that may come next: (B, V), or (V,) where repeats are allowed and all prefixes have the same."""
    real = np.arange(n_songs) >= FIRST_NUMBER
    if allow_repeats or not len(prefixes):
        return real
    candidates = np.tile(real, (len(prefixes), 1))
    rows = np.repeat(np.arange(len(prefixes)), [len(prefix) for prefix in prefixes])
    candidates[rows, np.concatenate(prefixes)] = False
    return candidates


def excluded_of(prefixes: Sequence[Prefix], allow_repeats: bool) -> list[Songs]:
    """The songs that cannot come next after each prefix: the specials and, without repeats, the prefix itself; none twice.

    >>> excluded_of([np.array([7, 5, 7])], allow_repeats=False)
    [array([0, 1, 2, 5, 7])]
    """
    specials = np.arange(FIRST_NUMBER)
    if allow_repeats:
        return [specials] * len(prefixes)
    return [np.union1d(specials, prefix) for prefix in prefixes]


def sequence_means(values: Numbers, sequence: NDArray[np.int64]) -> tuple[NDArray[np.int64], Numbers]:
    """Average the values of the tasks of each sequence: the sequences, ascending, and their means.

    >>> sequence_means(np.array([1.0, 0.0, 0.5]), np.array([7, 7, 3]))
    (array([3, 7]), array([0.5, 0.5]))
    """
    sequences, place = np.unique(sequence, return_inverse=True)
    return sequences, np.bincount(place, weights=values) / np.bincount(place)


def _group_sums(a: Numbers, b: Numbers, groups: NDArray[Any]) -> Numbers:
    """Sums of a, sums of b and counts of the sequences of each group: (3, groups)."""
    if not len(a) or not len(a) == len(b) == len(groups):
        raise DataError(
            f"a paired bootstrap needs as many values of a, b and groups, at least one (got {len(a)}, {len(b)}, {len(groups)})"
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise DataError("a paired bootstrap needs numbers: a metric of some sequence is NaN")
    group = np.unique(groups, return_inverse=True)[1]
    return np.stack([np.bincount(group, weights=values) for values in (a, b, np.ones(len(a)))]).astype(np.float64)


def _resampled(sums: Numbers, rng: np.random.Generator) -> Numbers:
    """Draw as many groups as there are, with replacement, and add up their columns: (3,)."""
    n_groups = sums.shape[1]
    return np.asarray(sums[:, rng.integers(n_groups, size=n_groups)].sum(axis=1))


def _compared(sums: Numbers) -> tuple[Numbers, Numbers]:
    """Differences and ratios of the means, from sums of a, sums of b and counts, (3, n)."""
    of_a, of_b, counts = sums
    infinite = np.where(of_a > 0, np.inf, 1.0)
    return (of_a - of_b) / counts, np.divide(of_a, of_b, out=infinite, where=of_b > 0)


def _held_out(songs: Songs, offsets: Offsets, numbers: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the held-out sequences and their lengths, checked."""
    lengths = lengths_of(songs, offsets)
    numbers = np.asarray(numbers, dtype=np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(lengths):
        raise DataError(f"sequence numbers {numbers.min()} to {numbers.max()} reach beyond the {len(lengths)} sequences")
    return numbers, lengths[numbers]


def _tasks(songs: Songs, offsets: Offsets, sequence: NDArray[np.int64], position: NDArray[np.int64]) -> NextSongTask:
    return NextSongTask(
        songs=songs,
        offsets=offsets,
        sequence=sequence,
        position=position,
        targets=np.asarray(songs[offsets[sequence] + position]),
    )


def _ranks(
    score: Score, tasks: NextSongTask, n_songs: int, allow_repeats: bool, batch_size: int, progress: Progress | None
) -> NDArray[np.int64]:
    # Short prefixes first: those of a batch are padded to the longest of them.
    order = np.argsort(tasks.position, kind="stable")
    tasks = tasks.select(order)
    ranks = np.empty(len(tasks), dtype=np.int64)
    for start in range(0, len(tasks), batch_size):
        prefixes = tasks.prefixes(start, start + batch_size)
        scores = _checked_scores(score(prefixes), len(prefixes), n_songs)
        asked = zip(scores, tasks.targets[start : start + batch_size].tolist(), excluded_of(prefixes, allow_repeats), strict=True)
        ranks[order[start : start + batch_size]] = [rank_without(*of_row) for of_row in asked]
        if progress is not None:
            progress(len(prefixes))
    return ranks


def _checked_scores(scores: NDArray[Any], n_prefixes: int, n_songs: int) -> NDArray[Any]:
    if scores.shape != (n_prefixes, n_songs):
        wanted = (n_prefixes, n_songs)
        raise DataError(f"scores have the shape {scores.shape}, wanted is {wanted}: a row a prefix, a column a song number")
    return scores


def _kinds(tasks: NextSongTask, trained: Mask | None, n_songs: int, allow_repeats: bool) -> dict[str, Mask]:
    kinds: dict[str, Mask] = {}
    if trained is not None:
        if trained.shape != (n_songs,):
            raise DataError(f"trained has the shape {trained.shape}, wanted is ({n_songs},): one truth value a song number")
        kinds |= {"warm": trained[tasks.targets], "cold": ~trained[tasks.targets]}
    if allow_repeats:
        kinds |= {"repeat": tasks.repeats, "explore": ~tasks.repeats}
    return kinds


def _figures(ranks: Ranks, sequence: NDArray[np.int64], n_songs: int) -> Figures:
    found = ranks <= n_songs  # a miss is worth nothing, also where the catalogue is so small that V + 1 is a good rank
    per_sequence = {name: sequence_means(metric(ranks) * found, sequence)[1] for name, metric in METRICS.items()}
    return Figures(sequences=np.unique(sequence), n_tasks=len(ranks), per_sequence=per_sequence)
