"""Which sequences are too short, which part each of the others stands in, what of it training may see, and its history.

Letters: V song numbers, the three specials included; S sequences.
"""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

import splits
from config import PreprocessingConfig
from errors import DataError
from preparation.reading import UNKNOWN_TIME, Sequences
from preprocessing_utils import count_repeats
from splits import LEFT_OUT, TEST, TRAIN, VALIDATION

log = logging.getLogger(__name__)

HELD_OUT_OF_EACH = 2  # leave_one_out: the last song of a sequence tests, the one before validates


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which sequence stands in which part."""

    policy: str  # "time", "sequence" or "leave_one_out"
    parts: np.ndarray  # (S,) uint8: TRAIN, VALIDATION, TEST or LEFT_OUT
    cut_time: int | None  # seconds of the first held-out sequence; None unless split by time


@dataclass(frozen=True, kw_only=True)
class TrainingPart:
    """What the encoders may learn from."""

    counts: np.ndarray  # (V,) int64: how often the training part holds each provisional number
    n_sequences: int
    n_repeats: int  # rows whose song occurred earlier in the same sequence

    @property
    def n_rows(self) -> int:
        """Training rows."""
        return int(self.counts.sum())


def clean(sequences: Sequences, min_sequence_length: int, left_out: Counter[str]) -> tuple[np.ndarray, Sequences]:
    """Leave out, and count, the sequences that are too short: which ones stay, (S,) bool, and they alone.

    Raises DataError unless two remain.
    """
    is_long = sequences.ends - sequences.starts >= min_sequence_length
    kept = sequences.where(is_long)
    left_out[f"sequences of fewer than {min_sequence_length} songs"] += len(sequences) - len(kept)
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(sequences)} sequences have at least {min_sequence_length} songs, two are needed: "
            "load more sequences, or lower min_sequence_length"
        )
    log.info("clean: %d sequences in, %d out; %d rows in, %d out", len(sequences), len(kept), sequences.n_rows, kept.n_rows)
    return is_long, kept


def split_sequences(sequences: Sequences, settings: PreprocessingConfig, left_out: Counter[str]) -> Split:
    """Put each sequence into a part, by the policy that the settings name; `auto` takes time where every sequence has one.

    Raises DataError when the policy cannot be followed.
    """
    if settings.split == "leave_one_out":
        split = Split(policy="leave_one_out", parts=np.full(len(sequences), TRAIN, np.uint8), cut_time=None)
    elif settings.split == "time":
        split = _split_by_time(sequences, settings)
    elif settings.split == "auto" and (sequences.times != UNKNOWN_TIME).all():
        try:
            split = _split_by_time(sequences, settings)
        except DataError as exc:
            log.warning("split: not by time (%s), so by sequence", exc)
            split = _split_by_sequence(sequences, settings)
    else:
        split = _split_by_sequence(sequences, settings)
    n_training, n_validation, n_test, n_left_out = np.bincount(split.parts, minlength=LEFT_OUT + 1).tolist()
    left_out["sequences outside the split"] += n_left_out
    log.info("split by %s: %d sequences in; %d for training, %d for validation, %d for the test, %d left out",
             split.policy, len(sequences), n_training, n_validation, n_test, n_left_out)  # fmt: skip
    return split


def _split_by_time(sequences: Sequences, settings: PreprocessingConfig) -> Split:
    n_unknown = int((sequences.times == UNKNOWN_TIME).sum())
    if n_unknown:
        raise DataError(
            f"{n_unknown} of {len(sequences)} sequences have no listened_at, which a split by time needs: "
            "fill it in sequences.sql, or set split to sequence"
        )
    parts = splits.split_by_time(
        sequences.times, sequences.groups, settings.train_size, np.random.default_rng(settings.split_seed)
    )
    held_out = (parts == VALIDATION) | (parts == TEST)
    return Split(policy="time", parts=parts, cut_time=int(sequences.times[held_out].min()))


def _split_by_sequence(sequences: Sequences, settings: PreprocessingConfig) -> Split:
    rng = np.random.default_rng(settings.split_seed)
    parts = splits.split_by_sequence(sequences.groups, settings.train_size, rng)
    return Split(policy="sequence", parts=parts, cut_time=None)


def list_numbers(groups: np.ndarray, times: np.ndarray, policy: str) -> np.ndarray:
    """A number for each list, equal for the sequences (S,) of one group: (S,) int64.

    Training deals neighbouring numbers into one fold (`splits.fold_of_lists`).  Split by time, they are neighbours in time, by
    the first of their `times`; else numbers are drawn at random, always alike, since ids say nothing of what belongs together.

    >>> list_numbers(np.array([5, 9, 5, 2]), np.array([40, 20, 30, 10]), "time").tolist()
    [2, 1, 2, 0]
    """
    _, index = np.unique(groups, return_inverse=True)
    n_lists = int(index.max(initial=-1)) + 1
    if policy == "time":
        earliest = np.full(n_lists, np.iinfo(np.int64).max)
        np.minimum.at(earliest, index, times)
        order = np.argsort(earliest, kind="stable")
    else:
        order = np.random.default_rng(0).permutation(n_lists)
    number = np.empty(n_lists, np.int64)
    number[order] = np.arange(n_lists)
    return np.asarray(number[index])


def history_starts(offsets: np.ndarray, histories: np.ndarray, parts: np.ndarray, policy: str) -> np.ndarray:
    """The row at which the history before each sequence begins, (S,) int64; its own first row where it has none.

    `offsets` (S + 1,) are rows, `histories` (S,) numbers shared by sequences that stand side by side, oldest first, `parts` (S,)
    TRAIN, VALIDATION or TEST.  What is too short or left out is no longer among the sequences: a history passes over it.

    No training row may hold a song that is held out.  Split by time, a history's training sequences all come before its held-out
    ones, so each sequence reaches back to the first.  Split by sequence, it reaches back over training sequences alone, as far as
    they directly follow each other.  With leave_one_out every sequence has held-out songs, so none reaches back.

    >>> offsets, parts = np.array([0, 2, 4, 6, 8]), np.array([TRAIN, TRAIN, TEST, VALIDATION])
    >>> [history_starts(offsets, np.array([7, 7, 7, 7]), parts, policy).tolist() for policy in ("time", "sequence")]
    [[0, 0, 0, 0], [0, 0, 0, 6]]
    """
    if policy == "leave_one_out":
        return offsets[:-1]
    begins = np.diff(histories, prepend=-1) != 0
    if policy != "time":
        begins[1:] |= parts[:-1] != TRAIN
    return np.asarray(offsets[:-1][np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))])


def training_part(sequences: Sequences, split: Split, n_numbers: int) -> TrainingPart:
    """Count what training may see; with leave_one_out that is all but the last two songs of each sequence.

    Raises DataError when no training sequence has two songs.
    """
    training = sequences.where(split.parts == TRAIN)
    if split.policy == "leave_one_out":
        training = training.without_last(HELD_OUT_OF_EACH)
    training = training.where(training.ends > training.starts)
    if not (training.ends - training.starts >= 2).any():
        raise DataError(
            f"no training sequence has two songs (split by {split.policy}, {len(sequences)} sequences): "
            "load more sequences, or change split or train_size"
        )
    counts, n_repeats = np.zeros(n_numbers, np.int64), 0
    for songs, offsets in training.blocks():
        counts += np.bincount(songs, minlength=n_numbers)
        n_repeats += count_repeats(songs, offsets)
    return TrainingPart(counts=counts, n_sequences=len(training), n_repeats=n_repeats)
