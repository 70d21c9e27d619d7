"""Arrays of rising numbers, in which equal ones stand side by side: where they begin, how many there are, which are distinct."""

import numpy as np


def starts_of(rising: np.ndarray, n: int) -> np.ndarray:
    """Where each of the numbers 0..n-1 begins in an array of rising ones, or would: (n + 1,) int64.

    >>> starts_of(np.array([0, 0, 2, 2, 2]), 4).tolist()
    [0, 2, 2, 5, 5]
    """
    return np.concatenate([[0], np.cumsum(np.bincount(rising, minlength=n))])


def rank_among_equals(rising: np.ndarray) -> np.ndarray:
    """How many equal ones stand before each in an array of rising numbers.

    >>> rank_among_equals(np.array([3, 3, 3, 5, 9, 9])).tolist()
    [0, 1, 2, 0, 0, 1]
    """
    return np.arange(len(rising)) - np.searchsorted(rising, rising)


def is_new(rising: np.ndarray) -> np.ndarray:
    """True where a number differs from the one before it.

    >>> is_new(np.array([3, 3, 5, 9, 9])).tolist()
    [True, False, True, True, False]
    """
    return np.concatenate([[True], rising[1:] != rising[:-1]]) if len(rising) else np.zeros(0, bool)


def distinct_keys(keys: np.ndarray) -> np.ndarray:
    """The distinct keys in rising order; sorts `keys` in place.

    >>> distinct_keys(np.array([9, 3, 5, 3])).tolist()
    [3, 5, 9]
    """
    keys.sort()
    return keys[is_new(keys)]
