"""EASE: a linear model of songs by songs with a closed form, as a recommender of `evaluation.baselines`."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from config import FIRST_NUMBER
from errors import DataError
from evaluation.metrics import Songs
from evaluation.sequences import sequence_of_each

MOST_SONGS = 12_000  # the matrix has that many rows and columns: 576 MB


class Ease:
    """Reconstructs a sequence from its other songs: B minimises |X - XB|² + λ|B|² with an empty diagonal.

    B = I - P / diag(P), P the inverse of XᵀX + λI, X (sequences, songs) of 0 and 1: Steck, "Embarrassingly Shallow Autoencoders
    for Sparse Data", WWW 2019, section 3.1.  A song scores the sum of the weights from the distinct songs of the prefix.  Of a
    larger catalogue the `most_songs` most played songs have weights; the others stand below them, by popularity.
    """

    def __init__(self, regularisation: float = 200.0, most_songs: int = MOST_SONGS) -> None:
        if not regularisation > 0:
            raise DataError(f"regularisation must be above 0 (got {regularisation})")
        self.regularisation = regularisation
        self.most_songs = most_songs

    def fit(self, sequences: Songs, offsets: NDArray[Any], n_songs: int) -> Self:
        """Invert the songs that occur together."""
        counts = np.bincount(sequences, minlength=n_songs).astype(np.float32)
        counts[:FIRST_NUMBER] = 0
        order = np.argsort(-counts, kind="stable")
        self._songs = np.sort(order[: min(self.most_songs, np.count_nonzero(counts))])
        self._column = np.full(n_songs, -1)
        self._column[self._songs] = np.arange(len(self._songs))
        columns = self._column[sequences]
        inside = columns >= 0
        shape = (len(offsets) - 1, len(self._songs))
        ones = np.ones(np.count_nonzero(inside), np.float32)
        held = sparse.csr_array((ones, (sequence_of_each(sequences, offsets)[inside], columns[inside])), shape=shape)
        held.data[:] = 1
        self._weights = _weights((held.T @ held).toarray(), self.regularisation)
        self._popularity = counts / (counts.max() + 1)
        return self

    def score(self, prefixes: Sequence[Songs]) -> NDArray[np.float32]:
        """Add up the weights from the songs of each prefix: (B, V)."""
        scores = np.empty((len(prefixes), len(self._column)), np.float32)
        for row, prefix in zip(scores, prefixes, strict=True):
            columns = np.unique(self._column[prefix])
            known = self._weights[columns[columns >= 0]].sum(axis=0)
            row[:] = self._popularity + known.min(initial=0) - 1  # popularity lies below 1
            row[self._songs] = known if known.any() else self._popularity[self._songs]
        scores[:, :FIRST_NUMBER] = -np.inf
        return scores


def _weights(gram: NDArray[np.float32], regularisation: float) -> NDArray[np.float32]:
    """Turn XᵀX into B, in place: LAPACK's Cholesky needs half the memory and time of a general inverse."""
    gram[np.diag_indices_from(gram)] += regularisation
    factor, failed = lapack.spotrf(gram.T, overwrite_a=True)
    inverse, failed_too = lapack.spotri(factor, overwrite_c=True)
    if failed or failed_too:
        raise DataError(f"EASE cannot invert its matrix with regularisation {regularisation}: raise it")
    upper = np.triu(inverse, 1)
    diagonal = np.diag(inverse).copy()
    weights: NDArray[np.float32] = upper + upper.T
    weights /= -diagonal
    return weights
