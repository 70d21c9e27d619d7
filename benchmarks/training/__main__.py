"""How fast training and validation are, each party in a process of its own, in turn, several times.

    python -m benchmarks.training                        (or: make bench-train)        about 20 minutes on two cores
    python -m benchmarks.training --only reference rectools_2k --rounds 1 --seconds 10
    python -m benchmarks.training --device cuda --only products

    reference        the trainer that one would write first (reference.py), 20,000 made-up songs with all their parts
    validation       the same two, judging validation tasks
    *_100k           both with 100,000 songs
    rectools_*       RecTools 0.19's BERT4Rec at 2,000, 20,000 and 100,000 made-up songs, and on the data set `playlists`
    products         a step beside its matrix products alone; also the share of places that hold songs
    large            the default model over 1,000,000 songs: the largest resident size, a validation and a checkpoint included

Figures are medians over the rounds, ratios those of rounds, paired.  The last line of the output is one JSON object.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chain import WORK, store
from benchmarks.quality.splits import build, read
from benchmarks.training.material import made_up_snapshot, write_for_others
from config import PROJECT_ROOT
from errors import BERT4MusicRecError, SnapshotError, exit_code_of
from snapshot import open_snapshot

log = logging.getLogger("training")

MADE_UP = {"2k": (2_000, 400_000), "20k": (20_000, 400_000), "100k": (100_000, 600_000), "1m": (1_000_000, 10_000_000)}
CLAIMS = (
    "reference",
    "validation",
    "reference_100k",
    "validation_100k",
    "rectools_2k",
    "rectools_20k",
    "rectools_100k",
    "rectools_playlists",
    "products",
    "large",
)
SEQ_LEN = 50
LARGE_BATCH = 256
NAME_OF_RATIO = {
    "reference": "vs_reference",
    "validation": "validation_vs_reference",
    "reference_100k": "vs_reference_100k",
    "validation_100k": "validation_vs_reference_100k",
    **{f"rectools_{name}": f"vs_rectools_{name}" for name in ("2k", "20k", "100k", "playlists")},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the claims and print them."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    summary: dict[str, float] = {}
    for claim in arguments.only or CLAIMS:
        if claim.startswith("rectools") and arguments.peers_python is None:
            log.warning("%s: skipped, name the python that has RecTools with --peers-python (make bench-train does)", claim)
        elif claim == "rectools_playlists" and not (arguments.data / "playlists").is_dir():
            log.warning("%s: skipped, there is no folder %s", claim, arguments.data / "playlists")
        else:
            summary |= run_claim(claim, arguments)
    print(json.dumps(summary))
    return 0


def run_claim(claim: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One claim's part of the last line; all figures are stored, and told in a line or two."""
    folder = material(claim, arguments.data)
    if claim == "products":
        rounds = [ours(folder, "products", "default", arguments) for _ in range(arguments.rounds)]
        figures = {name: statistics.median(of_round[name] for of_round in rounds) for name in ("flops_fraction", "gflops")}
        fill = ours(folder, "train", "default", arguments)["padding_fill"]
        summary = {"flops_fraction": round(figures["flops_fraction"], 3), "padding_fill": round(fill, 3)}
    elif claim == "large":
        rounds = [ours(folder, "large", "default", arguments, "--batch-size", str(LARGE_BATCH))]
        summary = {"peak_mb_1m_songs": round(rounds[0]["peak_mb"])}
    else:
        rounds, ratio = in_turn(claim, folder, arguments)
        summary = {NAME_OF_RATIO[claim]: round(ratio, 2)}
    kept = {"claim": claim, "device": arguments.device, "seconds": arguments.seconds, "rounds": rounds, **summary}
    store("training", kept)
    log.info("%s: %s\n  %s", claim, json.dumps(summary), "\n  ".join(json.dumps(of_round) for of_round in rounds))
    return summary


def in_turn(claim: str, folder: Path, arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], float]:
    """Ours and the other party, one after the other, as often as there are rounds; the median of the rounds' ratios."""
    what, rate = ("validate", "tasks_per_s") if claim.startswith("validation") else ("train", "sequences_per_s")
    if claim.startswith("rectools"):
        architecture, other = "rectools", [str(arguments.peers_python), "-m", "benchmarks.training.rectools_side"]
        other.append(str(folder / "lists.npz"))
    else:
        architecture, other = "reference", [sys.executable, "-m", "benchmarks.training.reference_side", str(folder), what]
    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        said = {}
        for party in ("ours", "other") if number % 2 == 0 else ("other", "ours"):
            said[party] = ours(folder, what, architecture, arguments) if party == "ours" else asked(other, arguments)
        rounds.append({**said, "ratio": said["ours"][rate] / said["other"][rate]})
    return rounds, statistics.median(of_round["ratio"] for of_round in rounds)


def ours(folder: Path, what: str, architecture: str, arguments: argparse.Namespace, *more: str) -> dict[str, float]:
    """One figure of ours."""
    command = [sys.executable, "-m", "benchmarks.training.ours", str(folder), what, "--architecture", architecture]
    return asked([*command, "--device", arguments.device, *more], arguments)


def asked(command: Sequence[str], arguments: argparse.Namespace) -> dict[str, float]:
    """Run a party for its seconds and read what it prints last."""
    command = [*command, "--seconds", str(arguments.seconds), "--threads", str(arguments.threads)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BERT4MusicRecError(f"{' '.join(command)} failed: {done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def material(claim: str, data: Path) -> Path:
    """The folder of a claim's snapshot, made where it is not there."""
    name = {"large": "1m", "reference": "20k", "validation": "20k", "products": "20k"}.get(claim, claim.partition("_")[2])
    folder = WORK / "training" / name
    try:
        open_snapshot(folder / "snapshot")
    except SnapshotError:
        log.info("making %s", folder)
        snapshot = build(read(data / name), folder).snapshot if name == "playlists" else made_up_snapshot(folder, *MADE_UP[name])
        write_for_others(snapshot, folder / "lists.npz", {"seq_len": SEQ_LEN})
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Throughput of training.")
    parser.add_argument("--data", type=Path, default=PROJECT_ROOT.parent / "shared" / "data", help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=CLAIMS, help="these claims only")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each party")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each turn, after a warm-up")
    parser.add_argument("--threads", type=int, default=2, help="torch threads of each party")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where ours runs; the others stay on the CPU")
    parser.add_argument("--peers-python", type=Path, default=os.environ.get("PEERS_PYTHON"), help="python with RecTools")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
