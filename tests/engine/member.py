"""One process of a group that a test started: trains as train.py does and writes down what its rank saw.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT stand in the environment, as torchrun would set them.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import torch

import train
from engine.processes import process_group
from engine.schedule import Schedule
from errors import exit_code_of
from snapshot import open_snapshot
from tests.engine.small import small_config


class Witness(train.Trainer):
    """Keeps loss, places asked for and rate of each step, and dies at the step that it is told to."""

    def __init__(self, *arguments, dies_at=None, **named):
        super().__init__(*arguments, **named)
        self.steps, self.dies_at = [], dies_at

    def _step(self, part, generator):
        if len(self.steps) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        loss, rate = super()._step(part, generator)
        self.steps.append({"loss": loss.item(), "places": len(part.batch.targets), "rate": rate})
        return loss, rate


def main(argv):
    folder, out, told = Path(argv[0]), Path(argv[1]), json.loads(argv[2])
    config = small_config(folder, model_folder=out / "models", **told["training"])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout_prob=0.0, **told.get("model", {})))
    rank = os.environ.get("RANK", "0")
    if "seconds_per_look" in told:  # each process has a clock of its own, and that of rank 1 has stopped
        seconds = iter(range(0, 10**6, told["seconds_per_look"]))
        clock = (lambda schedule: float(next(seconds))) if rank == "0" else (lambda schedule: 0.0)
        mock.patch.object(Schedule, "seconds_used", clock).start()
    with process_group(config.training) as process:
        dies_at = told.get("dies_at") if rank == "1" else None
        trainer = Witness(config, open_snapshot(folder / "snapshot"), process, show_progress=False, dies_at=dies_at)
        trainer.run()
        torch.save(dict(trainer.model.named_parameters()), out / f"weights-{process.rank}.pt")
        seen = {"steps": trainer.steps, "broadcasts": getattr(trainer.wrapped, "broadcast_buffers", None)}
        (out / f"seen-{process.rank}.json").write_text(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main, sys.argv[1:]))
