import numpy as np
import pytest

from errors import DataError
from splits import LEFT_OUT, TEST, TRAIN, VALIDATION, fold_of_lists, numbered_lists, split_by_sequence, split_by_time


def rng_of(seed=0):
    return np.random.default_rng(seed)


def test_the_newest_lists_are_held_out_and_no_later_version_of_a_training_list_is_seen():
    times = np.arange(10)
    lists = np.array([0, 1, 2, 3, 4, 5, 0, 6, 7, 7])  # list 0 has a second version, before the moment
    assert split_by_time(times, lists, 0.7, rng_of()).tolist() == [TRAIN] * 7 + [TEST, VALIDATION, VALIDATION]
    # Now its second version comes after the moment (7), which moves back to 4 to hold enough out; the list itself trains.
    lists = np.array([0, 1, 2, 3, 4, 5, 8, 6, 0, 7])
    expected = [TRAIN] * 4 + [TEST, VALIDATION, TEST, VALIDATION, LEFT_OUT, TEST]
    assert split_by_time(times, lists, 0.7, rng_of()).tolist() == expected


def test_of_lists_on_both_sides_a_share_is_held_out_whole():
    times, lists = np.tile([0, 100], 20), np.repeat(np.arange(20), 2)  # twenty lists, each with an early and a late version
    early, late = split_by_time(times, lists, 0.9, rng_of()).reshape(20, 2).T
    held_out = (late == TEST) | (late == VALIDATION)
    assert held_out.sum() == 6  # three in ten
    assert (early[held_out] == LEFT_OUT).all()
    assert (early[~held_out] == TRAIN).all()
    assert (late[~held_out] == LEFT_OUT).all()
    assert (late == TEST).sum() == (late == VALIDATION).sum() == 3


def test_a_held_out_list_that_was_saved_every_day_does_not_outweigh_the_others():
    times = np.concatenate([np.arange(90), np.full(3, 95), np.arange(95, 125)])
    lists = np.concatenate([np.arange(90), np.arange(100, 103), np.full(30, 200)])
    split = split_by_time(times, lists, 90 / 123, rng_of())
    kept = np.flatnonzero((split != LEFT_OUT) & (lists == 200))
    assert times[kept].tolist() == [95, 101, 107, 113, 119]


def test_validation_and_test_come_from_the_same_time_and_are_of_like_size():
    times = np.arange(100)
    split = split_by_time(times, times, 0.8, rng_of())
    assert [(split == part).sum() for part in (TRAIN, VALIDATION, TEST)] == [80, 10, 10]
    assert abs(times[split == VALIDATION].mean() - times[split == TEST].mean()) == 1


def test_a_list_never_stands_on_both_sides():
    rng = np.random.default_rng(0)
    lists, times = rng.integers(0, 40, 300), rng.integers(0, 10_000, 300)
    for split in (split_by_time(times, lists, 0.8, rng), split_by_sequence(lists, 0.8, rng)):
        kept = split != LEFT_OUT
        sides = [set(split[kept & (lists == one)]) for one in range(40)]
        assert all(len(side) <= 1 for side in sides)
        assert {TRAIN, VALIDATION, TEST} <= set(split)


def test_training_never_sees_the_time_of_the_held_out():
    rng = np.random.default_rng(1)
    lists, times = rng.integers(0, 40, 300), rng.integers(0, 10_000, 300)
    split = split_by_time(times, lists, 0.8, rng)
    assert times[split == TRAIN].max() < times[(split == VALIDATION) | (split == TEST)].min()


def test_a_seed_fixes_which_lists_are_held_out():
    times, lists = np.tile([0, 100], 20), np.repeat(np.arange(20), 2)
    splits = [split_by_time(times, lists, 0.9, rng_of(seed)).tolist() for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_lists_that_all_begin_at_once_cannot_be_split_by_time():
    for lists in (np.zeros(5, np.int64), np.arange(5)):
        with pytest.raises(DataError, match="set split to sequence"):
            split_by_time(np.zeros(5), lists, 0.9, rng_of())


def test_two_lists_are_the_fewest_that_split():
    assert sorted(split_by_sequence(np.array([4, 9]), 0.9, np.random.default_rng(0)).tolist()) == [TRAIN, TEST]
    with pytest.raises(DataError, match="1 list cannot be split"):
        split_by_sequence(np.array([4, 4]), 0.9, np.random.default_rng(0))


def test_lists_are_numbered_by_their_order_and_dealt_into_folds_of_one_size():
    assert numbered_lists(np.array([8, 8, 2, 30, 2])).tolist() == [1, 1, 0, 2, 0]
    assert fold_of_lists(10, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]  # neighbours, which are close in time, go together
    assert set(np.bincount(fold_of_lists(1003, 8)).tolist()) == {125, 126}
    assert fold_of_lists(2, 4).tolist() == [0, 2]
    assert fold_of_lists(0, 4).tolist() == []
