"""Ways to score songs for a sequence: the model, counts where there is no model, popularity where nothing is known.

Shape letters: B sequences, V songs by number (the specials included), k songs asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from config import FIRST_NUMBER
from errors import CheckpointError
from model import BERT4Rec
from serving.index import Contexts, Ranked, ScoringIndex, choose_index, read_contexts
from serving.reasons import leave_one_out

Masks = Sequence[np.ndarray | None]  # (V,) bool each: which songs may be found; None for all


class Scorer(Protocol):
    """Reads sequences, then finds the best songs for them."""

    def read(self, prefixes: Sequence[np.ndarray]) -> Any:
        """B sequences of song numbers, oldest first, in the form in which `top` compares them with songs."""
        ...

    def top(self, contexts: Any, counts: Sequence[int], excluded: Sequence[np.ndarray], allowed: Masks) -> list[Ranked]:
        """The `counts[b]` best songs for each context within `allowed[b]`, without `excluded[b]`; fewer where they end."""
        ...

    def confidences(self, contexts: Any, ranked: Sequence[Ranked]) -> list[np.ndarray]:
        """The probability (k,) with which each ranked song is expected next."""
        ...


class ModelScorer:
    """The model with an index over its songs."""

    def __init__(self, model: BERT4Rec, which: Literal["auto", "fp32", "int8"] = "auto"):
        """Raises CheckpointError for a model that scores nothing, as one does that has diverged in training."""
        self.model = model.eval()
        with torch.inference_mode():
            embeddings, bias = model.output_embeddings(), model.output_bias()
            if not (embeddings.isfinite().all() and bias[FIRST_NUMBER:].isfinite().all() and self._reads_a_song()):
                raise CheckpointError("the model's weights give no finite scores, it has diverged in training: train again")
            self.index: ScoringIndex = choose_index(embeddings, bias, which)

    def _reads_a_song(self) -> bool:
        """Whether what it makes of a sequence is finite."""
        contexts = self.read([np.array([min(FIRST_NUMBER, self.model.n_songs - 1)])])
        bonus = contexts.queries if contexts.looked_up is None else contexts.looked_up.bonus
        return bool(contexts.queries.isfinite().all() and bonus.isfinite().all())

    def in_training(self) -> np.ndarray:
        """Whether each song occurs in training, (V,) bool."""
        return self.model.embedding.are_fitted().numpy(force=True)

    def read(self, prefixes: Sequence[np.ndarray]) -> Contexts:
        """See Scorer; only the newest `model.row_len` - 1 songs are read."""
        return read_contexts(self.model, prefixes, self.model.row_len)

    def top(self, contexts: Contexts, counts: Sequence[int], excluded: Sequence[np.ndarray], allowed: Masks) -> list[Ranked]:
        """See Scorer."""
        with torch.inference_mode():
            return self.index.top(contexts, counts, excluded, allowed)

    def confidences(self, contexts: Contexts, ranked: Sequence[Ranked]) -> list[np.ndarray]:
        """See Scorer: the softmax over all songs, which the model was trained with."""
        with torch.inference_mode():
            return self.index.confidences(contexts, ranked)

    def leave_one_out(self, context: np.ndarray, songs: np.ndarray) -> np.ndarray:
        """By how much the lead of each song (k,) falls without one of the newest songs of the context: (n, k) score points."""
        read = context[-(self.model.row_len - 1) :]
        return leave_one_out(self.model, self.index, read, songs, min(len(read), self.explained_songs))

    @property
    def explained_songs(self) -> int:
        """How many of the newest songs `leave_one_out` leaves out in turn, at most."""
        return self.model.songs_read

    def similar(self, number: int, count: int, allowed: np.ndarray | None) -> Ranked:
        """The songs whose embeddings point most nearly where that of one song does, by cosine (-1 to 1).

        A model whose encoder has no say in its scores has no embeddings to compare: then those that it puts behind the one.
        """
        song = np.array([number])
        if not float(self.model.encoder_weight):
            return self.top(self.read([song]), [count], [song], [allowed])[0]
        with torch.inference_mode():
            cosines = self.index.cosines(number)
        return best_of(cosines, count, song, allowed)


@dataclass(frozen=True, kw_only=True)
class DenseScores:
    """What `DenseScorer` reads: the scores themselves."""

    scores: np.ndarray  # (B, V) float32

    def part(self, rows: slice) -> "DenseScores":
        """Those of some of the sequences."""
        return DenseScores(scores=self.scores[rows])


class DenseScorer:
    """Songs by scores of every song, 0 and above: counts or popularity."""

    def __init__(self, score: Callable[[Sequence[np.ndarray]], np.ndarray]):
        self._score = score

    def read(self, prefixes: Sequence[np.ndarray]) -> DenseScores:
        """See Scorer."""
        return DenseScores(scores=self._score(prefixes))

    def top(self, contexts: DenseScores, counts: Sequence[int], excluded: Sequence[np.ndarray], allowed: Masks) -> list[Ranked]:
        """See Scorer."""
        rows = zip(contexts.scores, counts, excluded, allowed, strict=True)
        return [best_of(scores, count, numbers, mask) for scores, count, numbers, mask in rows]

    def confidences(self, contexts: DenseScores, ranked: Sequence[Ranked]) -> list[np.ndarray]:
        """See Scorer: a song's share of all scores."""
        totals = contexts.scores[:, FIRST_NUMBER:].clip(min=0).sum(axis=1)
        return [best.scores / total if total > 0 else 0 * best.scores for best, total in zip(ranked, totals, strict=True)]


def best_of(scores: np.ndarray, count: int, excluded: np.ndarray, allowed: np.ndarray | None) -> Ranked:
    """The best songs of one row of scores (V,), ties by number, without specials, excluded ones and what is not allowed."""
    scores = scores.astype(np.float32, copy=True)
    scores[:FIRST_NUMBER] = -np.inf
    scores[excluded] = -np.inf
    if allowed is not None:
        scores[~allowed] = -np.inf
    possible = np.flatnonzero(np.isfinite(scores))
    if len(possible) > count:
        worst = np.partition(scores[possible], len(possible) - count)[len(possible) - count]
        possible = possible[scores[possible] >= worst]
    order = possible[np.argsort(-scores[possible], kind="stable")][:count]
    return Ranked(numbers=order, scores=scores[order])
