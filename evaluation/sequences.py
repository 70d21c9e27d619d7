"""Sequences as one flat array with offsets: the few questions that protocols and baselines ask of it.  Rests on numpy.

Sequence number s holds `songs[offsets[s]:offsets[s + 1]]`, oldest first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import DataError

Songs = NDArray[np.integer[Any]]  # song numbers
Offsets = NDArray[np.integer[Any]]  # (n_sequences + 1,)
Prefix = Songs  # the songs before a place, oldest first


def lengths_of(songs: Songs, offsets: Offsets) -> NDArray[np.int64]:
    """Count the songs of each sequence; raises DataError where the offsets do not divide `songs` into sequences.

    >>> lengths_of(np.array([5, 6, 7]), np.array([0, 2, 2, 3]))
    array([2, 0, 1])
    """
    lengths = np.diff(offsets).astype(np.int64)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(songs) or (lengths < 0).any():
        raise DataError(
            f"offsets must rise from 0 to the number of songs, {len(songs)} (got {np.array2string(offsets, threshold=6)})"
        )
    return lengths


def sequence_of_each(songs: Songs, offsets: Offsets) -> NDArray[np.int32]:
    """Number of the sequence that each song of the flat array stands in.

    >>> sequence_of_each(np.array([5, 6, 7]), np.array([0, 2, 2, 3]))
    array([0, 0, 2], dtype=int32)
    """
    lengths = lengths_of(songs, offsets)
    return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
