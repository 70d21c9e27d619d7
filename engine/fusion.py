"""How much the encoder's scores count beside the memory's: chosen on held-out lists, as the weights of a blend are.

Training cannot tell: the encoder's embeddings have seen the very lists that they are trained on, while the memory looks each of
them up as if it were new.
"""

import numpy as np
import torch

from dataset import inference_batch
from engine.comparison import HeldOut
from evaluation.metrics import ndcg_at, rank_of_target
from evaluation.protocols import answerable, batch_within, candidates_of, sequence_means
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
    batch = -(-batch_within(held.n_songs) // 2)  # the memory's scores and the encoder's
    for start in range(0, len(tasks), batch):
        prefixes = tasks.prefixes(start, start + batch)
        targets = tasks.targets[start : start + batch]
        candidates = candidates_of(prefixes, held.n_songs, held.allow_repeats)
        remembered, encoded = _scores_of_both(model, prefixes, device)
        for number, weight in enumerate(WEIGHTS):
            ranks[number, start : start + batch] = rank_of_target(remembered + weight * encoded, targets, candidates)
    quality = [sequence_means(ndcg_at(of_weight, 10), tasks.sequence)[1].mean() for of_weight in ranks]
    best = WEIGHTS[int(np.argmax(quality))]
    model.encoder_weight.data.fill_(best)
    return best


@torch.inference_mode()
def _scores_of_both(model: BERT4Rec, prefixes: list[np.ndarray], device: torch.device | str) -> tuple[np.ndarray, np.ndarray]:
    """The memory's scores and the encoder's with weight 1, (B, V) each; 0 at the specials, which are no candidates."""
    was_training = model.training
    model.eval()
    rows = inference_batch(prefixes, model.row_len).to(device)
    queries = model.encode_last(rows)
    weight = model.encoder_weight.clone()
    model.encoder_weight.data.fill_(0.0)
    base = model.output_bias()
    remembered = model.add_looked_up(base.expand(len(rows), -1), model.look_up(rows, queries))
    model.encoder_weight.data.fill_(1.0)
    encoded = torch.addmm(model.output_bias() - base, queries, model.output_embeddings().T)
    model.encoder_weight.data.copy_(weight)
    model.train(was_training)
    return tuple(torch.nan_to_num(scores, nan=0.0, neginf=0.0).float().cpu().numpy() for scores in (remembered, encoded))  # type: ignore[return-value]
