"""One figure of the reference, in a process of its own: prints a JSON object.

python -m benchmarks.training.reference_side FOLDER train|validate --seconds 20
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.training.ours import ARCHITECTURES, CLOZE
from benchmarks.training.reference import Reference
from config import EvaluationConfig
from engine.comparison import held_out
from snapshot import open_snapshot
from splits import VALIDATION


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One figure of the reference.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("train", "validate"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    snapshot = open_snapshot(arguments.folder / "snapshot")
    reference = Reference(snapshot, ARCHITECTURES["reference"][0], arguments.batch_size, CLOZE["cloze_probability"])
    if arguments.what == "train":
        figures = reference.train(arguments.warm_up, arguments.seconds)
    else:
        tasks = held_out(snapshot, VALIDATION, EvaluationConfig()).tasks
        figures = reference.validate(snapshot, tasks, arguments.seconds)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
