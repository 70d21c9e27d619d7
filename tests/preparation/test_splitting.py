"""How far back the history of each sequence reaches: worked out by hand, and walked back row by row on random sequences."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from config import PreprocessingConfig
from preparation.reading import Reading
from preparation.splitting import HELD_OUT_OF_EACH, clean, history_starts, list_numbers, split_sequences
from splits import LEFT_OUT, TEST, TRAIN, VALIDATION

# Sequences of two songs: three of one history, one of its own, and three of another history.
OFFSETS = np.arange(8) * 2
HISTORIES = np.array([4, 4, 4, 9, 5, 5, 5])


@pytest.mark.parametrize(
    ("policy", "parts", "starts"),
    [
        ("time", [TRAIN] * 7, [0, 0, 0, 6, 8, 8, 8]),
        ("time", [TRAIN, TEST, VALIDATION, TEST, TEST, TEST, VALIDATION], [0, 0, 0, 6, 8, 8, 8]),
        ("sequence", [TRAIN] * 7, [0, 0, 0, 6, 8, 8, 8]),
        ("sequence", [TRAIN, TEST, TRAIN, TEST, TRAIN, TRAIN, VALIDATION], [0, 0, 4, 6, 8, 8, 8]),
        ("sequence", [TRAIN, TEST, VALIDATION, TRAIN, VALIDATION, TRAIN, TRAIN], [0, 0, 4, 6, 8, 10, 10]),
        ("leave_one_out", [TRAIN] * 7, [0, 2, 4, 6, 8, 10, 12]),
    ],
)
def test_a_history_reaches_back_as_far_as_no_training_row_holds_what_is_held_out(policy, parts, starts):
    assert history_starts(OFFSETS, HISTORIES, np.array(parts, np.uint8), policy).tolist() == starts


def random_reading(seed: int) -> Reading:
    """Sequences of one to six songs, a third without a history, a third with versions, in random order."""
    rng = np.random.default_rng(seed)
    n = 60
    lengths = rng.integers(1, 7, n)
    ends = np.cumsum(lengths)
    none = rng.random((2, n)) < [[2 / 3], [1 / 3]]
    groups, histories = rng.integers(0, 8, n), rng.integers(0, 6, n)
    return Reading.of(
        songs=np.arange(ends[-1], dtype=np.int32),
        ids=pa.array([f"s{number}" for number in rng.permutation(n)]),
        group_ids=pa.array(groups, mask=none[0]),
        history_ids=pa.array([f"h{number}" for number in histories], mask=none[1]),
        starts=ends - lengths,
        ends=ends,
        times=rng.integers(0, 40, n),  # so some are equal
    )


@pytest.mark.parametrize("policy", ["time", "sequence", "leave_one_out"])
@pytest.mark.parametrize("seed", range(8))
def test_no_history_holds_what_is_later_somebody_elses_or_held_out_from_training(policy, seed):
    settings = PreprocessingConfig(split=policy, train_size=0.6, split_seed=seed)
    _, read = clean(random_reading(seed).sequences, settings.min_sequence_length, Counter())
    split = split_sequences(read, settings, Counter())
    sequences, parts = read.where(split.parts != LEFT_OUT), split.parts[split.parts != LEFT_OUT]
    lengths = sequences.ends - sequences.starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts = history_starts(offsets, sequences.histories, parts, policy)

    owner = np.repeat(np.arange(len(lengths)), lengths)  # the sequence of each row
    back = HELD_OUT_OF_EACH if policy == "leave_one_out" else 0
    is_held_out = (parts[owner] != TRAIN) | (np.arange(len(owner)) >= offsets[owner + 1] - back)
    n_reaching = 0
    for number, (start, first, end) in enumerate(zip(starts, offsets[:-1], offsets[1:], strict=True)):
        before = np.unique(owner[start:first])
        assert (sequences.histories[before] == sequences.histories[number]).all()
        assert (sequences.times[before] <= sequences.times[number]).all()
        if parts[number] == TRAIN:
            assert not is_held_out[start : max(start, end - back)].any()
        elif policy != "time":
            assert not is_held_out[start:first].any()
        allowed = walked_back(number, sequences.histories, parts, policy)
        assert before.tolist() == allowed
        n_reaching += len(before) > 0
    assert (n_reaching == 0) == (policy == "leave_one_out")


def walked_back(number: int, histories: np.ndarray, parts: np.ndarray, policy: str) -> list[int]:
    """The sequences before one that it may reach, oldest first: as the rule says it, one after the other."""
    reached: list[int] = []
    while policy != "leave_one_out" and (before := number - 1 - len(reached)) >= 0:
        is_held_out_both = policy == "time" and parts[before] != TRAIN and parts[number] != TRAIN
        if histories[before] != histories[number] or not (parts[before] == TRAIN or is_held_out_both):
            break
        reached.insert(0, before)
    return reached


def test_lists_are_numbered_in_the_order_of_their_first_versions():
    groups, times = np.array([3, 1, 3, 8, 1]), np.array([50, 20, 10, 30, 70])
    assert list_numbers(groups, times, "time").tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("policy", ["sequence", "leave_one_out"])
def test_without_a_split_by_time_neighbours_in_number_are_no_neighbours_in_id(policy):
    """Playlists and plays come one after the other by their ids; each quarter of the numbers holds some of both."""
    groups = np.repeat(np.arange(400), 2)
    numbers = list_numbers(groups, np.zeros(800, np.int64), policy)
    assert sorted(numbers.tolist()) == sorted(groups.tolist())
    assert (numbers[::2] == numbers[1::2]).all()
    quarters = [(numbers[::2][groups[::2] < 100] // 100 == quarter).mean() for quarter in range(4)]
    assert all(0.1 < share < 0.4 for share in quarters)
    assert (numbers == list_numbers(groups, np.arange(800), policy)).all()
