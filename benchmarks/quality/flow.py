"""How a continuation sounds beside its history: steps of tempo and energy, and keys that mix.  Rests on numpy.

A flow is the list in its order.  For a continuation it begins with the last song of the history, since that is what is heard
before its first song.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]

MAJOR = 1.0  # the value of `mode`; 0 is minor
HOURS = 12  # on the Camelot wheel
FIFTH = 7  # semitones from one hour to the next
HOUR_OF_C_MAJOR, HOUR_OF_C_MINOR = 8, 5


def mean_step(values: Numbers) -> float:
    """Mean absolute difference of neighbours; NaN where no two neighbours are known.

    >>> mean_step(np.array([120.0, 126.0, np.nan, 90.0, 100.0]))
    8.0
    """
    steps = np.abs(np.diff(values))
    steps = steps[~np.isnan(steps)]
    return float(steps.mean()) if len(steps) else float("nan")


def camelot_hours(keys: Numbers, modes: Numbers) -> Numbers:
    """The place of each key on the Camelot wheel, 1 to 12; NaN where key or mode is unknown.

    C major is 8B and A minor, its relative, 8A; each fifth upwards (7 semitones) is the next hour.

    >>> camelot_hours(np.array([0.0, 9.0, 7.0, -1.0]), np.array([1.0, 0.0, 1.0, 1.0]))
    array([ 8.,  8.,  9., nan])
    """
    known = (keys >= 0) & ~np.isnan(modes)
    first = np.where(modes == MAJOR, HOUR_OF_C_MAJOR, HOUR_OF_C_MINOR)
    # A key is 7 * n semitones above C; 7 is its own inverse modulo 12.
    hours = (first - 1 + FIFTH * np.where(known, keys, 0)) % HOURS + 1
    return np.where(known, hours, np.nan)


def camelot_share(keys: Numbers, modes: Numbers) -> float:
    """Share of the neighbours whose keys mix: the same, the next or previous hour in one mode, or the same hour in the other.

    NaN where no two neighbours have known keys.

    >>> camelot_share(np.array([0.0, 9.0, 4.0, 6.0]), np.array([1.0, 0.0, 0.0, 1.0])).__round__(3)  # 8B 8A 9A 2B
    0.667
    """
    hours = camelot_hours(keys, modes)
    around = np.abs(np.diff(hours))
    around = np.minimum(around, HOURS - around)
    same_mode = np.diff(modes) == 0
    mixes = (around == 0) | ((around == 1) & same_mode)
    known = ~np.isnan(around)
    return float(mixes[known].mean()) if known.any() else float("nan")
