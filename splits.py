"""Which sequences train and which are held out, by time or by sequence; and the folds that training deals its lists into.

Shape letters: S sequences, G lists, of which a sequence is a version.
"""

import numpy as np

from errors import DataError

TRAIN, VALIDATION, TEST = 0, 1, 2
LEFT_OUT = 3  # dated versions of a training list from after the cut, which would let training see the future

MOST_VERSIONS = 5  # of one held-out list
ROUNDING = 1e-9  # 10 * (1 - 2 * 0.3) is 3.9999999999999996


def split_by_time(times: np.ndarray, groups: np.ndarray, train_size: float, rng: np.random.Generator) -> np.ndarray:
    """Train on what comes before a moment, hold out what comes after it: (S,) uint8 of TRAIN, VALIDATION, TEST and LEFT_OUT.

    `times` (S,) are seconds, `groups` (S,) numbers shared by the versions of one list.  The moment is where `train_size` of the
    sequences have passed.  Where lists have versions before and after it, it is moved back to leave twice as many sequences
    after it, and a drawn share of those lists is held out whole, so that no list stands on both sides: earlier versions of
    held-out lists and later versions of training lists are LEFT_OUT.  Of each held-out list at most MOST_VERSIONS versions are
    kept, or a list that was saved every day would outweigh all others.  Held-out lists are dealt in turn to test and
    validation, so that both come from the same time.  Raises DataError when nothing comes before or after.
    """
    first, last, index = _spans(times, groups)
    moment = _moment(times, train_size)
    both_sides = (first < moment) & (last >= moment)
    if both_sides.any():
        moment = _moment(times, max(train_size / 2, 1 - 2 * (1 - train_size)))
        both_sides = (first < moment) & (last >= moment)
    else:  # two new lists at least, where there are three in all: one to validate, one to test
        moment = min(moment, int(np.sort(first)[-2 if len(first) > 2 else -1]))
    drawn = rng.permutation(np.flatnonzero(both_sides))
    new = np.flatnonzero(first >= moment)
    held_out = np.concatenate(
        [new[np.argsort(first[new], kind="stable")], drawn[: int(len(drawn) * _share_drawn(train_size) + ROUNDING)]]
    )
    after = times >= moment
    kept = after & _evenly_spaced(times, index, after, MOST_VERSIONS)

    side_of_list = np.full(len(first), TRAIN, np.uint8)
    side_of_list[held_out] = _dealt_in_turn(np.bincount(index[kept], minlength=len(first))[held_out])
    is_training = side_of_list[index] == TRAIN
    side = np.where(is_training, np.where(after, LEFT_OUT, TRAIN), np.where(kept, side_of_list[index], LEFT_OUT)).astype(np.uint8)
    if not (side == TRAIN).any() or not len(held_out):
        raise DataError(f"all {len(first)} lists begin at the same time: set split to sequence")
    return side


def _spans(times: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last time of each list, (G,) each, and the list of each sequence, (S,) in 0..G-1."""
    _, index = np.unique(groups, return_inverse=True)
    first, last = np.full(index.max() + 1, np.iinfo(np.int64).max), np.full(index.max() + 1, np.iinfo(np.int64).min)
    np.minimum.at(first, index, times.astype(np.int64))
    np.maximum.at(last, index, times.astype(np.int64))
    return first, last, index


def _moment(times: np.ndarray, share_before: float) -> int:
    """The time before which that share of the sequences lies."""
    return int(np.sort(times)[min(int(len(times) * share_before + ROUNDING), len(times) - 1)])


def _share_drawn(train_size: float) -> float:
    """The share of the lists on both sides that is held out: three in ten for a train_size of 0.9, never over half.

    Each one costs training its earlier versions, each one less makes validation and test smaller.
    """
    return min(0.5, 3 * (1 - train_size))


def _evenly_spaced(times: np.ndarray, index: np.ndarray, eligible: np.ndarray, most: int) -> np.ndarray:
    """Mark at most `most` of the eligible sequences of each list, evenly spaced in time order, (S,) bool."""
    order = np.lexsort((times, index))
    order = order[eligible[order]]
    begins = np.concatenate([[True], np.diff(index[order]) != 0]) if len(order) else np.zeros(0, bool)
    number = np.cumsum(begins) - 1
    place = np.arange(len(order)) - np.flatnonzero(begins)[number]
    size = np.bincount(number)[number] if len(order) else place
    step = (place * most) // np.maximum(size, most)
    first_of_step = np.concatenate([[True], (np.diff(step) != 0) | begins[1:]]) if len(order) else begins
    marked = np.zeros(len(times), bool)
    marked[order[first_of_step | (size <= most)]] = True
    return marked


def _dealt_in_turn(sizes: np.ndarray) -> np.ndarray:
    """TEST or VALIDATION for held-out lists of these sizes, each to the part that has fewer sequences so far."""
    sides, ahead = [], 0  # ahead: by how many sequences the test leads
    for size in sizes.tolist():
        sides.append(TEST if ahead <= 0 else VALIDATION)
        ahead += size if ahead <= 0 else -size
    return np.array(sides, np.uint8)


def split_by_sequence(groups: np.ndarray, train_size: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out lists at random, versions of one list together: (S,) uint8 of TRAIN, VALIDATION and TEST.

    With at least three lists each part gets one.  Raises DataError with fewer than two lists.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(f"{len(sizes)} list cannot be split into training and held-out parts: at least two are needed")
    order = rng.permutation(len(sizes))
    side = np.empty(len(sizes), np.uint8)
    side[order] = _sides_in_order(sizes[order], train_size)
    return side[index]


def _sides_in_order(sizes: np.ndarray, train_size: float) -> np.ndarray:
    """Deal lists of these sizes, in this order, to TRAIN, VALIDATION and TEST; of three lists or more each part gets one."""
    share_before = (np.cumsum(sizes) - sizes) / sizes.sum()
    sides = np.select([share_before < train_size, share_before < (1 + train_size) / 2], [TRAIN, VALIDATION], TEST)
    sides[-1] = TEST
    if len(sizes) > 2 and VALIDATION not in sides:
        sides[-2] = VALIDATION
    return sides


def numbered_lists(lists: np.ndarray) -> np.ndarray:
    """The lists of the training sequences (S,) numbered 0..G-1, as everybody who counts or trains numbers them."""
    return np.unique(lists, return_inverse=True)[1].astype(np.int64)


def fold_of_lists(n_lists: int, folds: int) -> np.ndarray:
    """Deal lists into folds of equal size, neighbours into one: (G,) int64 in 0..folds-1.

    Where lists come in the order of time, leaving a fold out is then like the time after training: with what is close in time go
    songs that were new, and a memory learns what to make of songs that nobody has played.
    """
    return np.arange(n_lists) * folds // max(1, n_lists)
