"""How much the encoder's scores count beside the memory's: chosen on held-out lists, as the weights of a blend are.

Training cannot tell: the encoder's embeddings have seen the very lists that they are trained on, while the memory looks each of
them up as if it were new.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dataset import inference_batch
from engine.comparison import HeldOut
from evaluation.metrics import ndcg_at, rank_without
from evaluation.protocols import answerable, batch_within, excluded_of, sequence_means
from model import BERT4Rec

WEIGHTS = (0.0, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def weigh_encoder(model: BERT4Rec, held: HeldOut, device: torch.device | str = "cpu") -> float:
    """Give the model the encoder weight with the best NDCG@10 on held-out tasks, among equals the smallest; returns it.

    Without a memory the encoder is alone, and its weight stays 1.
    """
    if model.memory is None:
        return 1.0
    tasks = answerable(held.tasks, held.n_songs, held.allow_repeats)
    ranks = np.empty((len(WEIGHTS), len(tasks)), np.int64)
    tasks = tasks.select(np.argsort(tasks.position, kind="stable"))  # rows of a batch are padded to the longest
    batch = -(-batch_within(held.n_songs) // 2)  # the memory's scores and the encoder's
    scores_of_both = ScoresOfBoth(model, device)
    for start in range(0, len(tasks), batch):
        prefixes = tasks.prefixes(start, start + batch)
        targets = tasks.targets[start : start + batch]
        excluded = excluded_of(prefixes, held.allow_repeats)
        remembered, encoded = scores_of_both(prefixes)
        for number, weight in enumerate(WEIGHTS):
            asked = zip(remembered, encoded, targets.tolist(), excluded, strict=True)
            ranks[number, start : start + batch] = [
                rank_without(known + np.float32(weight) * learned, target, without) for known, learned, target, without in asked
            ]
    quality = [sequence_means(ndcg_at(of_weight, 10), tasks.sequence)[1].mean() for of_weight in ranks]
    best = WEIGHTS[int(np.argmax(quality))]
    model.encoder_weight.data.fill_(best)
    return best


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
