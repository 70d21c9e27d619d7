"""implicit's ALS as a score function of prefixes; imported in the peers' own environment only."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray
from scipy import sparse

from evaluation.metrics import Mask
from evaluation.sequences import Offsets, Songs, sequence_of_each

ITERATIONS = 15


class Als:
    """Sequences as users; a prefix is folded in as a user that was not there (Hu, Koren and Volinsky, ICDM 2008, equation 4)."""

    def __init__(self, factors: int, regularization: float, alpha: float, seed: int) -> None:
        self._model = AlternatingLeastSquares(
            factors=factors, regularization=regularization, alpha=alpha, iterations=ITERATIONS, random_state=seed
        )

    def fit(self, songs: Songs, offsets: Offsets, trained: Mask) -> Self:
        """Factorise which sequence holds which song."""
        self._trained = trained
        self._popularity = np.bincount(songs, minlength=len(trained)).astype(np.float32)
        self._model.fit(self._held(sequence_of_each(songs, offsets), songs, len(offsets) - 1), show_progress=False)
        return self

    def score(self, prefixes: Sequence[Songs]) -> NDArray[np.float32]:
        """Fold each prefix in and multiply: (B, V); a prefix without a known song is answered with what is popular."""
        row = np.repeat(np.arange(len(prefixes)), [len(prefix) for prefix in prefixes])
        held = self._held(row, np.concatenate(prefixes), len(prefixes))
        users = self._model.recalculate_user(np.arange(len(prefixes)), held)  # (B, factors)
        scores: NDArray[np.float32] = users @ self._model.item_factors.T
        scores[np.diff(held.indptr) == 0] = self._popularity
        scores[:, ~self._trained] = -np.inf
        return scores

    def _held(self, row: NDArray[Any], songs: NDArray[Any], n_rows: int) -> Any:
        known = self._trained[songs]
        ones = np.ones(np.count_nonzero(known), np.float32)
        held = sparse.csr_matrix((ones, (row[known], songs[known])), shape=(n_rows, len(self._trained)))
        held.data[:] = 1
        return held
