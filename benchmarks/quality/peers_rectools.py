"""Runs in the peers' own environment: implicit ALS, and BERT4Rec, SASRec and eSASRec of RecTools 0.19.

    PEERS_PYTHON -m benchmarks.quality.peers_rectools FOLDER --party "RecTools SASRec" --minutes 30 --seeds 0 1 2

A search trains every setting of a small grid for an equal share of the minutes and takes the best on validation; then one model
a seed is trained with it, for as many minutes again.  After every epoch validation NDCG@10 is looked at: the best epoch answers,
and PATIENCE epochs without a better one end the training.

RecTools trains on the last `session_max_len` songs of a user and nothing before: to lose nothing, longer sequences are cut into
adjoining pieces, each a user of its own.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.als import Als
from benchmarks.quality.questions import Answers, Questions, ask, choose_history
from benchmarks.quality.transformers import fit_transformer
from evaluation.protocols import Score
from evaluation.sequences import Offsets, Songs

Settings = Mapping[str, Any]
SHAPE: Settings = {
    "n_factors": 128,
    "n_blocks": 2,
    "n_heads": 2,
    "dropout_rate": 0.2,
    "lr": 1e-3,
    "session_max_len": 50,
    "joined": False,
}
LONG: Settings = {**SHAPE, "session_max_len": 100, "joined": True}
# Negatives and t as in the configuration for MovieLens-1M of gSASRec's authors (Petrov and Macdonald, RecSys 2023).
GBCE: Settings = {"loss": "gBCE", "n_negatives": 256, "gbce_t": 0.75}
SAMPLED: Settings = {"loss": "sampled_softmax", "n_negatives": 256}
SOFTMAX: Settings = {"loss": "softmax"}
GRIDS: Mapping[str, Sequence[Settings]] = {
    "implicit ALS": [
        {"factors": factors, "regularization": strength, "alpha": alpha}
        for factors, strength, alpha in ((64, 0.01, 1.0), (128, 0.01, 1.0), (128, 0.1, 10.0), (256, 1.0, 10.0), (256, 0.1, 40.0))
    ],
    "RecTools BERT4Rec": [
        {**SHAPE, **SOFTMAX, "mask_prob": 0.2},
        {**LONG, **SOFTMAX, "mask_prob": 0.4},
        {**LONG, **GBCE, "mask_prob": 0.4},
    ],
    "RecTools SASRec": [{**SHAPE, **SOFTMAX}, {**LONG, **SOFTMAX}, {**SHAPE, **SOFTMAX, "n_factors": 256, "dropout_rate": 0.4}],
    "RecTools eSASRec": [
        {**SHAPE, **SAMPLED},
        {**LONG, **SAMPLED},
        {**LONG, **SAMPLED, "n_factors": 256, "n_blocks": 4, "n_heads": 8},
    ],
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What the folder holds."""

    songs: Songs
    offsets: Mapping[bool, Offsets]
    """Where sequences begin and end; under True, those that share a history are one."""
    validation: Questions
    asked: Questions

    @classmethod
    def load(cls, folder: Path) -> "Material":
        """Read what `write_questions` wrote."""
        with np.load(folder / "training.npz") as file:
            songs, offsets = file["songs"], {False: file["offsets"], True: file["joined"]}
        validation, asked = (Questions.load(folder / f"{name}.npz") for name in ("validation", "asked"))
        return cls(songs=songs, offsets=offsets, validation=validation, asked=asked)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A trained peer."""

    score: Score
    history: bool
    quality: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Search, train a model a seed, and write the answers."""
    parser = argparse.ArgumentParser(description="Peers of another environment.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--party", choices=GRIDS, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore")  # Lightning's advice on workers and loggers
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    material, party = Material.load(arguments.folder), arguments.party
    settings, search_seconds = search(party, material, arguments.minutes, arguments.seeds[0])
    for seed in arguments.seeds:
        fitted = fit(party, settings, material, arguments.minutes, seed)
        ranks, lists = ask(fitted.score, material.asked, history=fitted.history)
        answers = Answers(
            party=party, seed=seed, settings=dict(settings), history=fitted.history, validation_ndcg10=fitted.quality,
            search_seconds=search_seconds, fit_seconds=fitted.seconds, ranks=ranks, lists=lists,
        )  # fmt: skip
        answers.save(arguments.folder / "answers" / f"seed{seed}.npz", questions=party)
    return 0


def search(party: str, material: Material, minutes: float, seed: int) -> tuple[Settings, float]:
    """The setting of the grid with the best validation NDCG@10, and the seconds that it took to find it."""
    begin = time.perf_counter()
    grid = GRIDS[party]
    qualities = [fit(party, settings, material, minutes / len(grid), seed).quality for settings in grid]
    return grid[int(np.argmax(qualities))], time.perf_counter() - begin


def fit(party: str, settings: Settings, material: Material, minutes: float, seed: int) -> Fitted:
    """Train one model, and choose on validation whether it looks at histories."""
    begin = time.perf_counter()
    train: Callable[..., Score] = fit_als if party == "implicit ALS" else fit_transformer
    score = train(party, settings, material, minutes * 60, seed)
    seconds = time.perf_counter() - begin
    history, quality = choose_history(score, material.validation)
    print(f"{party}, seed {seed}, {dict(settings)}: validation NDCG@10 {quality:.4f} after {seconds:.0f} s", flush=True)
    return Fitted(score=score, history=history, quality=quality, seconds=seconds)


def fit_als(party: str, settings: Settings, material: Material, seconds: float, seed: int) -> Score:
    """A fixed number of iterations: a matter of seconds, so that the limit is never met."""
    als = Als(**settings, seed=seed).fit(material.songs, material.offsets[False], material.asked.trained)
    return als.score


if __name__ == "__main__":
    raise SystemExit(main())
