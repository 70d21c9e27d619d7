"""RecTools 0.19's BERT4Rec, timed in its own environment: prints a JSON object.

    PEERS_PYTHON -m benchmarks.training.rectools_side LISTS.npz --seconds 20

The same sequences as ours, cut into pieces of `seq_len` songs, each a user of its own (RecTools trains on the last songs of a
user and nothing before); the same width, blocks, heads, dropout, batch, threads and share of masked places; full softmax.
"""

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer  # type: ignore[import-not-found,unused-ignore]
from rectools.dataset import Dataset  # type: ignore[import-not-found,unused-ignore]
from rectools.models import BERT4RecModel  # type: ignore[import-not-found,unused-ignore]

from benchmarks.quality.transformers import interactions


class Clock(Callback):  # type: ignore[misc,unused-ignore]
    """Counts what is trained on between the warm-up and the end, to whole batches."""

    def __init__(self, warm_up: float, seconds: float) -> None:
        self.warm_up, self.seconds = warm_up, seconds
        self.started = self.begun = self.last = 0.0
        self.sequences = self.predictions = self.steps = 0

    def __deepcopy__(self, memo: object) -> "Clock":
        """RecTools copies its trainer before it fits; the copy must report here."""
        return self

    def on_train_start(self, *_: Any) -> None:
        """The first batch begins."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Count a batch, or begin to."""
        self.last = time.perf_counter()
        if not self.begun:
            self.begun = self.last if self.last - self.started >= self.warm_up else 0.0
            return
        self.steps += 1
        self.sequences += len(batch["x"])
        self.predictions += int((batch["y"] > 0).sum())
        trainer.should_stop = self.last - self.begun >= self.seconds


def main() -> int:
    """Train for so long and print the rates."""
    parser = argparse.ArgumentParser(description="The training throughput of RecTools' BERT4Rec.")
    parser.add_argument("lists")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    with np.load(arguments.lists) as file:
        songs, offsets, seq_len = file["songs"], file["offsets"], int(file["seq_len"])
    model = BERT4RecModel(
        n_factors=128, n_blocks=2, n_heads=2, dropout_rate=0.1, mask_prob=0.15, session_max_len=seq_len, loss="softmax",
        batch_size=arguments.batch_size, lr=1e-3,
    )  # fmt: skip
    clock = Clock(arguments.warm_up, arguments.seconds)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    model._trainer = Trainer(max_epochs=1000, callbacks=[clock], accelerator="cpu", **quiet)
    model.fit(Dataset.construct(interactions(songs, offsets, seq_len)))
    elapsed = clock.last - clock.begun
    rates = {"sequences_per_s": clock.sequences / elapsed, "predictions_per_s": clock.predictions / elapsed}
    print(json.dumps({**rates, "step_ms": 1000 * elapsed / clock.steps}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
