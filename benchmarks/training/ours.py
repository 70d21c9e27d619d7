"""One figure of ours, in a process of its own: prints a JSON object.

    python -m benchmarks.training.ours FOLDER train --seconds 20 --architecture rectools
    python -m benchmarks.training.ours FOLDER validate|products|large ...

FOLDER holds a snapshot and its encoders.  What is timed is the training loop as it is, batches made and weights updated, in the
middle of a run.  Architectures: "rectools" (ids alone, no memory: what RecTools' BERT4Rec has), "reference" (song, artist, album
and features, no memory), "default" (the settings' defaults, the memory included).
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.products import Products
from config import PAD, Config, MemoryConfig, ModelConfig, PreprocessingConfig, TrainingConfig
from engine.comparison import held_out
from engine.feeding import Part
from engine.processes import process_group
from engine.progress import Scalars
from engine.scoring import score_function
from snapshot import open_snapshot
from splits import VALIDATION
from train import Trainer

NO_MEMORY = MemoryConfig(
    lists=0, **dict.fromkeys(("after_reach", "before_reach", "next_reach", "near_reach", "same_reach"), 0),
    **dict.fromkeys(("again_reach", "artist_reach", "album_reach", "track_reach"), 0),
)  # fmt: skip
SHAPE: dict[str, Any] = {"seq_len": 50, "d_ff": 512, "N": 2, "heads": 2, "dropout_prob": 0.1}
CLOZE: dict[str, Any] = {"cloze_probability": 0.15, "last_item_probability": 0.0, "unknown_song_probability": 0.0}
ARCHITECTURES: dict[str, tuple[ModelConfig, MemoryConfig, dict[str, Any]]] = {
    "rectools": (ModelConfig(d_songs=128, d_albums=0, d_artists=0, use_features=False, **SHAPE), NO_MEMORY, CLOZE),
    "reference": (ModelConfig(**SHAPE), NO_MEMORY, CLOZE),
    "default": (ModelConfig(seq_len=50), MemoryConfig(), {}),
}
PROFILED_STEPS = 8
TASKS_OF_LARGE = 128  # two batches of a million songs


@contextmanager
def trainer_of(folder: Path, arguments: argparse.Namespace) -> Iterator[Trainer]:
    """A trainer over the folder's snapshot, whose run is thrown away."""
    model, memory, objective = ARCHITECTURES[arguments.architecture]
    chosen = {"negatives": arguments.negatives, "precision": arguments.precision, **objective}
    config = Config(
        model=model,
        memory=memory,
        training=TrainingConfig(
            batch_size=arguments.batch_size, threads=arguments.threads, device=arguments.device, model_folder=folder / "models",
            num_epochs=10_000, map_songs=0, **chosen,
        ),
        preprocessing=PreprocessingConfig(encoders_folder=folder / "encoders", snapshot=folder / "snapshot"),
    )  # fmt: skip
    with process_group(config.training) as process:
        trainer = Trainer(config, open_snapshot(folder / "snapshot"), process, show_progress=False)
        try:
            yield trainer
        finally:
            shutil.rmtree(folder / "models", ignore_errors=True)


class Steps:
    """The steps of a trainer, epoch after epoch, as its own loop takes them."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.model = trainer.model.train()
        self._parts = self._endless()

    def take(self) -> Part:
        """One step; returns what was trained on."""
        part, trainer = next(self._parts), self.trainer
        trainer.random.begin_step(trainer.progress.epoch, trainer.progress.step_of_epoch)
        trainer._step(part, trainer.random.negatives)
        trainer.progress.count_step(part.n_places)
        return part

    def _endless(self) -> Iterator[Part]:
        while True:
            with closing(self.trainer._parts()) as parts:
                yield from parts
            self.trainer.progress.end_epoch(0.0)


def timed(steps: Steps, warm_up: float, seconds: float) -> dict[str, float]:
    """Sequences, predictions and places a second, the share of the encoder's places that hold songs, and the mean step."""
    _for(steps, warm_up)
    synchronize(steps.trainer)
    begin = time.perf_counter()
    parts = _for(steps, seconds)
    synchronize(steps.trainer)
    elapsed = time.perf_counter() - begin
    batches = [part.batch for part in parts]
    read = [batch.songs[:, -steps.model.config.seq_len :] for batch in batches]  # by the encoder
    return {
        "sequences_per_s": sum(len(batch.songs) for batch in batches) / elapsed,
        "predictions_per_s": sum(len(batch.targets) for batch in batches) / elapsed,
        "padding_fill": sum(int((songs != PAD).sum()) for songs in read) / sum(songs.numel() for songs in read),
        "step_ms": 1000 * elapsed / len(parts),
    }


def _for(steps: Steps, seconds: float) -> list[Part]:
    begin, parts = time.perf_counter(), list[Part]()
    while not parts or time.perf_counter() - begin < seconds:
        parts.append(steps.take())
    return parts


def synchronize(trainer: Trainer) -> None:
    """Wait until the device has done what it was told."""
    if trainer.process.device.type == "cuda":
        torch.cuda.synchronize()


def validated(trainer: Trainer) -> dict[str, float]:
    """Validation tasks a second, as they are scored after an epoch."""
    held = held_out(trainer.snapshot, VALIDATION, trainer.config.evaluation)
    begin = time.perf_counter()
    evaluation = held.judge(score_function(trainer.model, trainer.process.device))
    elapsed = time.perf_counter() - begin
    return {"tasks_per_s": evaluation.n_tasks / elapsed, "n": evaluation.n_tasks, "ndcg10": evaluation.metrics["ndcg10"]}


def products(steps: Steps, seconds: float) -> dict[str, float]:
    """Share of a step's time that its matrix products need by themselves, the two timed in turn."""
    _for(steps, 2.0)
    recorded = Products()
    with recorded:
        for _ in range(PROFILED_STEPS):
            steps.take()
    shares, rates = [], []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        step_ms = timed(steps, 0.0, 1.0)["step_ms"]
        bare_ms = 1000 * recorded.seconds(steps.trainer.process.device) / PROFILED_STEPS
        shares.append(bare_ms / step_ms)
        rates.append(recorded.flops / PROFILED_STEPS / step_ms / 1e6)
    shares.sort()
    return {
        "flops_fraction": shares[len(shares) // 2],
        "gflops": max(rates),
        "gflop_per_step": recorded.flops / PROFILED_STEPS / 1e9,
    }


def large(steps: Steps, warm_up: float, seconds: float) -> dict[str, float]:
    """What `timed` says, and then what ends an epoch: a validation (of few tasks) and a checkpoint, whose memory counts too."""
    figures = timed(steps, warm_up, seconds)
    trainer = steps.trainer
    trainer.validation = held_out(trainer.snapshot, VALIDATION, trainer.config.evaluation, max_tasks=TASKS_OF_LARGE)
    begin = time.perf_counter()
    trainer._finish_epoch(0.0, Scalars(trainer.folder, first_step=1, enabled=False))
    return {**figures, "end_of_epoch_s": time.perf_counter() - begin}


def peak_mb(field: str = "VmHWM") -> float:
    """Largest resident size of this process so far, in MB (10**6 bytes)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One figure of ours.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("train", "validate", "products", "large"))
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="default")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--negatives", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    with trainer_of(arguments.folder, arguments) as trainer:
        figures: dict[str, float] = {"setup_s": time.perf_counter() - begin}
        if arguments.what == "validate":
            figures |= validated(trainer)
        elif arguments.what == "products":
            figures |= products(Steps(trainer), arguments.seconds)
        else:
            measure = large if arguments.what == "large" else timed
            figures |= measure(Steps(trainer), arguments.warm_up, arguments.seconds)
    print(json.dumps({**figures, "peak_mb": peak_mb()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
