"""The transformers of RecTools 0.19 as score functions of prefixes; imported in the peers' own environment only.

A prefix is no user of the training part.  RecTools answers for such users with `recommend` on a dataset of their interactions;
what that does inside (its data preparator makes the batch, its network encodes it, the dot product with all songs ranks) is done
here for whole rows of scores.  peers_check.py holds both against each other.

eSASRec is SASRec's shifted sequence with LiGR blocks and sampled softmax: Tikhonovich et al., "eSASRec: Enhancing
Transformer-based Recommendations in a Modular Fashion", RecSys 2025 (arXiv:2508.06450).
"""

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer, seed_everything  # type: ignore[import-not-found,unused-ignore]
from rectools import Columns  # type: ignore[import-not-found,unused-ignore]
from rectools.dataset import Dataset  # type: ignore[import-not-found,unused-ignore]
from rectools.models import BERT4RecModel, SASRecModel  # type: ignore[import-not-found,unused-ignore]
from rectools.models.nn.transformers.ligr import LiGRLayers  # type: ignore[import-not-found,unused-ignore]

from benchmarks.quality.questions import Questions, choose_history
from evaluation.protocols import Score
from evaluation.sequences import Offsets, Songs, lengths_of

PATIENCE = 5  # epochs without a better validation NDCG@10
LOGIT_BYTES = 1e8  # of the largest tensor of a step; bounds the batch
LARGEST_BATCH = 64


class TransformerScore:
    """Scores of all songs after prefixes, from a fitted model of RecTools."""

    def __init__(self, module: Any, popularity: NDArray[np.float32]) -> None:
        """`module` is the lightning module; `popularity` (V,) answers prefixes without a known song."""
        self._network, self._preparator = module.torch_model, module.data_preparator
        self._popularity = popularity
        self._known = np.array(self._preparator.get_known_item_ids(), dtype=np.int64)  # song numbers, by number in the model
        self._first = self._preparator.n_item_extra_tokens
        self._number = np.zeros(len(popularity), np.int64)
        self._number[self._known] = self._first + np.arange(len(self._known))

    def __call__(self, prefixes: Sequence[Songs]) -> NDArray[np.float32]:
        """(B, V); songs that the model does not know have -inf."""
        scores = np.full((len(prefixes), len(self._popularity)), -np.inf, np.float32)
        numbers = [self._number[prefix] for prefix in prefixes]
        sessions = [known[known > 0].tolist() for known in numbers]
        has_songs = np.array([bool(session) for session in sessions])
        scores[np.ix_(~has_songs, self._known)] = self._popularity[self._known]
        if has_songs.any():
            scores[np.ix_(has_songs, self._known)] = self._logits([session for session in sessions if session])
        return scores

    def _logits(self, sessions: Sequence[list[int]]) -> NDArray[np.float32]:
        batch = self._preparator._collate_fn_recommend([(session, [1.0] * len(session), {}) for session in sessions])
        self._network.eval()
        with torch.inference_mode():
            embeddings = self._network.item_model.get_all_embeddings()  # (extra tokens + known, D)
            batch = {name: values.to(embeddings.device) for name, values in batch.items()}
            last = self._network.encode_sessions(batch, embeddings)[:, -1, :]  # (B, D)
            logits: NDArray[np.float32] = (last @ embeddings[self._first :].T).cpu().numpy()
        return logits


class BestEpoch(Callback):  # type: ignore[misc,unused-ignore]
    """Validates after each epoch, keeps the best weights, and ends the training in time."""

    def __init__(self, validation: Questions, popularity: NDArray[np.float32], seconds: float) -> None:
        self._validation, self._popularity = validation, popularity
        self._deadline = time.monotonic() + seconds
        self._best, self._without_gain = -1.0, 0
        self.weights: dict[str, Any] = {}

    def __deepcopy__(self, memo: object) -> "BestEpoch":
        """RecTools copies its trainer before it fits; the copy must report here."""
        return self

    def on_train_batch_end(self, trainer: Any, *_: object) -> None:
        """Stop at the deadline, also within an epoch."""
        trainer.should_stop = trainer.should_stop or time.monotonic() > self._deadline

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Judge the weights of this moment."""
        quality = choose_history(TransformerScore(module, self._popularity), self._validation)[1]
        module.torch_model.train()
        self._without_gain = 0 if quality > self._best else self._without_gain + 1
        if quality > self._best:
            self._best, self.weights = quality, copy.deepcopy(module.torch_model.state_dict())
        trainer.should_stop = trainer.should_stop or self._without_gain >= PATIENCE


def fit_transformer(party: str, settings: Mapping[str, Any], material: Any, seconds: float, seed: int) -> Score:
    """Train a model of RecTools for at most so long and return the score function of its best epoch."""
    seed_everything(seed)
    options = dict(settings)
    offsets = material.offsets[options.pop("joined")]
    popularity = np.bincount(material.songs, minlength=material.asked.n_songs).astype(np.float32)
    model = make_model(party, options, int((popularity > 0).sum()))
    best = BestEpoch(material.validation, popularity, seconds)
    model._trainer = Trainer(
        max_epochs=1000,
        callbacks=[best],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    piece = options["session_max_len"] + model.data_preparator.train_session_max_len_addition
    model.fit(Dataset.construct(interactions(material.songs, offsets, piece)))
    model.lightning_model.torch_model.load_state_dict(best.weights)
    return TransformerScore(model.lightning_model, popularity)


def make_model(party: str, options: Mapping[str, Any], n_known: int) -> Any:
    """A model with a batch that fits into memory."""
    widest = n_known if options["loss"] == "softmax" else options["n_negatives"] * options["n_factors"]
    batch_size = int(np.clip(LOGIT_BYTES / (4 * options["session_max_len"] * widest), 4, LARGEST_BATCH))
    if party == "RecTools BERT4Rec":
        return BERT4RecModel(**options, batch_size=batch_size)
    if party == "RecTools eSASRec":
        return SASRecModel(**options, batch_size=batch_size, transformer_layers_type=LiGRLayers)
    return SASRecModel(**options, batch_size=batch_size)


def interactions(songs: Songs, offsets: Offsets, longest: int) -> pd.DataFrame:
    """Training sequences as RecTools reads them: pieces of at most `longest` songs, each a user of its own."""
    within = np.arange(len(songs)) - np.repeat(offsets[:-1], lengths_of(songs, offsets))
    users = np.cumsum(within % longest == 0)
    times = pd.to_datetime(np.arange(len(songs)), unit="s")
    return pd.DataFrame({Columns.User: users, Columns.Item: songs, Columns.Datetime: times, Columns.Weight: 1.0})
