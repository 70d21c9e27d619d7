"""Runs in the peers' environment: our lists and metrics beside what the libraries answer themselves, as one JSON object.

PEERS_PYTHON -m benchmarks.quality.peers_check
"""

import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pytorch_lightning import Trainer, seed_everything  # type: ignore[import-not-found,unused-ignore]
from rectools import Columns  # type: ignore[import-not-found,unused-ignore]
from rectools.dataset import Dataset  # type: ignore[import-not-found,unused-ignore]
from rectools.metrics import MRR, NDCG, HitRate, calc_metrics  # type: ignore[import-not-found,unused-ignore]

from benchmarks.quality.als import Als
from benchmarks.quality.questions import Ints, Questions, figures, lists_of, ranks_of
from benchmarks.quality.transformers import TransformerScore, interactions, make_model
from evaluation.protocols import leave_one_out_tasks

N_SONGS, LENGTH, K = 43, 8, 10
SESSION = 6
OPTIONS: Mapping[str, Any] = {"n_factors": 16, "n_blocks": 1, "n_heads": 2, "session_max_len": SESSION, "lr": 1e-2}
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "RecTools BERT4Rec": {"loss": "softmax", "mask_prob": 0.3},
    "RecTools SASRec": {"loss": "softmax"},
    "RecTools eSASRec": {"loss": "sampled_softmax", "n_negatives": 8},
}


def main() -> None:
    """Compare on made-up sequences."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rng = np.random.default_rng(0)
    training = np.concatenate([3 + rng.permutation(N_SONGS - 3)[:LENGTH] for _ in range(80)])
    offsets = np.arange(0, len(training) + 1, LENGTH)
    asked = questions(rng)
    found = {party: compared(party, training, offsets, asked) for party in LOSSES}
    print(json.dumps({**found, "implicit ALS": compared_als(training, offsets, asked)}))


def questions(rng: np.random.Generator) -> Questions:
    """One question about each of forty sequences that training has not seen."""
    songs = np.concatenate([3 + rng.permutation(N_SONGS - 3)[:LENGTH] for _ in range(40)])
    offsets = np.arange(0, len(songs) + 1, LENGTH)
    every = leave_one_out_tasks(songs, offsets, np.arange(40))
    trained = np.arange(N_SONGS) >= 3
    return Questions(every=every, history_starts=offsets[:-1], groups=np.arange(40), trained=trained, allow_repeats=False)


def compared(party: str, training: Ints, offsets: Ints, asked: Questions) -> dict[str, object]:
    """A model's own recommendations and metrics, beside ours."""
    seed_everything(0)
    model = make_model(party, {**OPTIONS, **LOSSES[party]}, N_SONGS - 3)
    model._trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model.fit(Dataset.construct(interactions(training, offsets, SESSION)))
    prefixes = asked.asked.prefixes()
    ends = np.cumsum([0, *map(len, prefixes)])
    frame = interactions(np.concatenate(prefixes), ends, LENGTH)
    recommended = model.recommend(frame[Columns.User].unique(), Dataset.construct(frame), k=K, filter_viewed=True)
    targets = pd.DataFrame({Columns.User: frame[Columns.User].unique(), Columns.Item: asked.asked.targets})
    metrics = {"hr10": HitRate(k=K), "ndcg10": NDCG(k=K, divide_by_achievable=True), "mrr10": MRR(k=K)}
    score = TransformerScore(model.lightning_model, np.zeros(N_SONGS, np.float32))
    ranks = ranks_of(score, asked.asked, asked)
    ours = figures(ranks, asked)["all"].metrics
    return {
        "their_lists": recommended.groupby(Columns.User)[Columns.Item].agg(list).tolist(),
        "our_lists": lists_of(score, asked.asked, asked, K).tolist(),
        "their_metrics": calc_metrics(metrics, recommended, targets),
        "our_metrics": {"hr10": ours["hr10"], "ndcg10": ours["ndcg10"], "mrr10": float(np.mean((ranks <= K) / ranks))},
    }


def compared_als(training: Ints, offsets: Ints, asked: Questions) -> dict[str, object]:
    """The same for implicit, which folds a user in when told to recalculate it."""
    ours = Als(factors=8, regularization=0.1, alpha=5.0, seed=0).fit(training, offsets, asked.trained)
    prefixes = asked.asked.prefixes()
    rows = np.repeat(np.arange(len(prefixes)), [len(prefix) for prefix in prefixes])
    held = ours._held(rows, np.concatenate(prefixes), len(prefixes))
    lists, _ = ours._model.recommend(np.arange(len(prefixes)), held, N=K, recalculate_user=True, filter_items=[0, 1, 2])
    return {"their_lists": lists.tolist(), "our_lists": lists_of(ours.score, asked.asked, asked, K).tolist()}


if __name__ == "__main__":
    main()
