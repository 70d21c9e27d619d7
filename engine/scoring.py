"""A trained model as a score function over prefixes, for the protocols of `evaluation`."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dataset import inference_batch
from model import BERT4Rec

Score = Callable[[Sequence[np.ndarray]], np.ndarray]


def score_function(model: BERT4Rec, device: torch.device | str = "cpu") -> Score:
    """Score prefixes (B arrays of song numbers, oldest first) with the weights of this moment: (B, V) float32.

    The output side is computed once, here; call again after the weights have changed.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        table, bias = model.embedding_table(), model.output_bias()  # (V, D), (V,)
        embeddings = (model.encoder_weight * table).T.contiguous()  # (D, V)
    model.train(was_training)

    def score(prefixes: Sequence[np.ndarray]) -> np.ndarray:
        model.eval()
        with torch.inference_mode():
            songs = inference_batch(prefixes, model.row_len).to(device)
            queries = model.encode_last(songs, table)
            scores = model.add_looked_up(torch.addmm(bias, queries, embeddings), model.look_up(songs, queries))  # (B, V)
        model.train(was_training)
        return scores.float().cpu().numpy()

    return score
