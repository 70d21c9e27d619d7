"""What is chosen on held-out lists, as the weights of a blend are: how much the encoder counts, and what new songs are given.

Training cannot tell either.  The encoder's embeddings have seen the very lists that they are trained on, while the memory looks
each of them up as if it were new; and lists that come later hold more songs that are new to training than its own folds do.
"""

from collections.abc import Sequence

import numpy as np
import torch

from config import FIRST_NUMBER
from dataset import inference_batch
from engine.comparison import HeldOut
from evaluation.metrics import ndcg_at, rank_without
from evaluation.protocols import answerable, batch_within, excluded_of, sequence_means
from model import BERT4Rec

WEIGHTS = (0.0, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
BONUSES = (-3.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
NO_BONUS = BONUSES.index(0.0)
# A song that is never recommended is never played: so large a share of the quality is given away for new songs, and of that on
# questions about known ones so large a share of what it would be without any.
GIVEN_AWAY, PRICE = 0.005, 0.01
LIST_LENGTH = 10  # ranks beyond it count nothing


def weigh(model: BERT4Rec, held: HeldOut, device: torch.device | str = "cpu") -> tuple[float, float]:
    """Give the model an encoder weight and a newcomer bonus, chosen on held-out tasks; returns both.

    The weight is that with the best NDCG@10, among equals the smallest; the bonus the largest that costs no more than GIVEN_AWAY
    and PRICE, above 0 only where one gains.  It may be below 0, where new songs are overrated.  Held-out tasks without new songs
    do not tell what one would cost elsewhere: then there is none.  Without a memory the encoder is alone: its weight is 1, and no
    song has a bonus.
    """
    if model.memory is None:
        return _give(model, 1.0, 0.0)
    tasks = answerable(held.tasks, held.n_songs, held.allow_repeats)
    ranks = np.empty((len(WEIGHTS), len(BONUSES), len(tasks)), np.int64)
    tasks = tasks.select(np.argsort(tasks.position, kind="stable"))  # rows of a batch are padded to the longest
    batch = -(-batch_within(held.n_songs) // 2)  # the memory's scores and the encoder's
    scores_of_both = ScoresOfBoth(model, device)
    is_new = (~model.embedding.are_fitted()).cpu().numpy()
    is_new[:FIRST_NUMBER] = False
    for start in range(0, len(tasks), batch):
        prefixes = tasks.prefixes(start, start + batch)
        targets = tasks.targets[start : start + batch]
        excluded = excluded_of(prefixes, held.allow_repeats)
        remembered, encoded = scores_of_both(prefixes)
        asked = zip(remembered, encoded, targets.tolist(), excluded, strict=True)
        for at, (known, learned, target, without) in enumerate(asked, start):
            for row, weight in zip(ranks, WEIGHTS, strict=True):
                row[:, at] = _ranks(known + np.float32(weight) * learned, is_new, target, without)
    each = ndcg_at(ranks.reshape(-1, len(tasks)), LIST_LENGTH).reshape(ranks.shape)
    is_known = ~is_new[tasks.targets]
    quality = _means(each, tasks.sequence)
    if is_known.all():
        return _give(model, WEIGHTS[int(np.argmax(quality[:, NO_BONUS]))], 0.0)
    number = int(np.argmax(quality.max(axis=1)))
    known = _means(each[number][:, is_known], tasks.sequence[is_known]) if is_known.any() else np.zeros(len(BONUSES))
    return _give(model, WEIGHTS[number], _bonus(quality[number], known))


def _means(each: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """The mean over sequences of what each task has, (..., n) to (...)."""
    flat = [sequence_means(row, sequence)[1].mean() for row in each.reshape(-1, each.shape[-1])]
    return np.reshape(flat, each.shape[:-1])


def _bonus(quality: np.ndarray, known: np.ndarray) -> float:
    """The bonus, given the quality with each of BONUSES (B,), over all tasks and over those about known songs.

    >>> [_bonus(np.full(13, 0.5), 0.5 - np.arange(13) * step) for step in (0.0, 0.0006, 0.002)]
    [0.0, 0.0, -1.0]
    """
    best = int(np.argmax(quality))
    affordable = (quality >= (1 - GIVEN_AWAY) * quality[best]) & (known >= (1 - PRICE) * known[0])
    if quality[NO_BONUS:].max() <= quality[NO_BONUS]:
        affordable[NO_BONUS + 1 :] = False
    return BONUSES[int(np.flatnonzero(affordable)[-1])] if affordable.any() else BONUSES[best]


def _give(model: BERT4Rec, weight: float, bonus: float) -> tuple[float, float]:
    model.encoder_weight.data.fill_(weight)
    model.newcomer_bonus.data.fill_(bonus)
    return weight, bonus


def _ranks(scores: np.ndarray, is_new: np.ndarray, target: int, excluded: np.ndarray) -> np.ndarray:
    """The rank of a target with each of BONUSES (any,) given to the new songs (V,); one beyond the list need not be exact."""
    # A bonus moves known songs down and new ones up: where the best of them does not bring a target into the list, none does.
    best = BONUSES[-1] if is_new[target] else BONUSES[0]
    rank = rank_without(scores + np.float32(best) * is_new, target, excluded)
    if rank > LIST_LENGTH:
        return np.full(len(BONUSES), rank)
    ranks = [rank if bonus == best else rank_without(scores + np.float32(bonus) * is_new, target, excluded) for bonus in BONUSES]
    return np.array(ranks)


class ScoresOfBoth:
    """The memory's scores and the encoder's with weight 1, from a model's weights of this moment."""

    @torch.inference_mode()
    def __init__(self, model: BERT4Rec, device: torch.device | str = "cpu"):
        """`model` has a memory."""
        assert model.memory is not None
        self.model, self.device = model, device
        self.table, self.bias, self.prior = model.embedding_table(), model.encoder_bias(), model.memory.prior()[0]

    @torch.inference_mode()
    def __call__(self, prefixes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(B, V) each; what stands at the specials, which are no candidates, means nothing."""
        was_training = self.model.training
        self.model.eval()
        rows = inference_batch(prefixes, self.model.row_len).to(self.device)
        queries = self.model.encode_last(rows, self.table)
        remembered = self.model.add_looked_up(self.prior.expand(len(rows), -1), self.model.look_up(rows, queries))
        encoded = torch.addmm(self.bias, queries, self.table.T)
        self.model.train(was_training)
        return remembered.float().cpu().numpy(), encoded.float().cpu().numpy()
