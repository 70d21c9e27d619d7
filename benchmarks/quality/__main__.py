"""The whole table of quality: our model beside everything that can be installed, on the same questions.

    python -m benchmarks.quality PATH/TO/DATA                            (or: make bench-quality DATA=PATH/TO)
    python -m benchmarks.quality --sets playlists listening              (or: make bench-quality SETS="playlists listening")
    python -m benchmarks.quality --sets playlists --only peers           seconds: the peers that count
    python -m benchmarks.quality --sets playlists --only model --part validation    while tuning: the test part stays unseen

What a party answered is kept below .local/benchmarks/quality: with --only, the others stand in the table as they last answered
the same questions.  Every look at the test part is a line of benchmarks/results/quality.jsonl, and counted.  The last line of the
output is one JSON object.
"""

import argparse
import json
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chain import WORK, store
from benchmarks.quality.cold import cold_figures
from benchmarks.quality.network import network_answers, settings_of, variants_of
from benchmarks.quality.oracle import oracle_share
from benchmarks.quality.peers import BLEND, GRIDS, counting_answers
from benchmarks.quality.peers_process import PARTIES, rectools_answers
from benchmarks.quality.questions import Answers
from benchmarks.quality.splits import DataSet, build, read
from benchmarks.quality.table import MODEL, is_ours, judge, last_line, looks, stored, tables
from config import PROJECT_ROOT
from errors import DataError, exit_code_of
from splits import TEST, VALIDATION

log = logging.getLogger("quality")

SETS = ("playlists", "playlists_large", "listening", "ml-1m", "ml-100k")
STEPS = ("peers", "rectools", "model", "variants", "cold", "oracle")
PARTY_STEPS = frozenset(STEPS) - {"cold", "oracle"}  # those that answer the questions of a set
PARTS = {"validation": VALIDATION, "test": TEST}
COLD_SET = "playlists"  # the one set whose songs all have features; asked of the test part alone
RESULTS = PROJECT_ROOT / "benchmarks" / "results" / "quality.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for, print the tables, and the JSON line at last."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("train").setLevel(logging.INFO)
    steps = arguments.only or STEPS
    summary: dict[str, Any] = {}
    for name in arguments.sets if PARTY_STEPS.intersection(steps) else ():
        summary[name] = run_set(name, steps, arguments)
    if "cold" in steps and COLD_SET in arguments.sets and arguments.part == "test":
        rows = read(arguments.data / COLD_SET)
        figures = cold_figures(rows, WORK / "quality" / f"{COLD_SET}-cold", arguments.minutes, arguments.seeds[0])
        store("quality", {"data": f"{COLD_SET}-cold", "part": "test", "minutes": arguments.minutes, **figures})
        summary["cold"] = figures
    if "oracle" in steps:
        summary["oracle_share"] = oracle_share()
    print(json.dumps(summary))
    return 0


def run_set(name: str, steps: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """All parties on one data set; returns its part of the last line."""
    folder, part = WORK / "quality" / name, PARTS[arguments.part]
    data = build(read(arguments.data / name), folder)
    kept = folder / "answers" / arguments.part
    kept.mkdir(parents=True, exist_ok=True)
    for answers in new_answers(data, part, steps, arguments):
        log.info("%s: %s answered, seed %d", name, answers.party, answers.seed)
        answers.save(kept / f"{answers.party.replace(' ', '_')}-seed{answers.seed}.npz", data.digest(part))
    answered = kept_answers(kept, data.digest(part), arguments.seeds)
    if not answered:
        raise DataError(f"no party has answered the questions of {name} yet: run it with --only peers")
    judged = judge(data, data.questions(part, settings_of(name, folder).evaluation), answered)
    if arguments.part == "test":
        content = {
            "data": name,
            "part": "test",
            "test_run": looks_until_now(name) + 1,
            "ran": list(steps),
            "minutes": arguments.minutes,
        }
        store("quality", {**content, **stored(judged)})
        print(f"Look number {looks_until_now(name)} at the test part of {name}.\n")
    print(tables(judged), end="\n\n")
    return last_line(judged)


def new_answers(data: DataSet, part: int, steps: Sequence[str], arguments: argparse.Namespace) -> Iterator[Answers]:
    """Let the parties of the chosen steps answer."""
    folder = data.encoders_folder.parent
    config = settings_of(data.name, folder, minutes=arguments.minutes)
    if "peers" in steps:
        yield from counting_answers(data, part, config.evaluation)
    if "rectools" in steps:
        yield from rectools_answers(data, part, config, arguments.seeds, arguments.peers_python)
    if "model" in steps:
        for seed in arguments.seeds:
            yield network_answers(data, part, settings_of(data.name, folder, minutes=arguments.minutes, seed=seed))
    for variant in variants_of(data.name) if "variants" in steps else ():
        for seed in arguments.seeds:
            config = settings_of(data.name, folder, variant=variant, minutes=arguments.minutes, seed=seed)
            yield network_answers(data, part, config, variant)


def kept_answers(folder: Path, digest: str, seeds: Sequence[int]) -> Mapping[str, Sequence[Answers]]:
    """What the parties said to the questions with that digest, ours first, by party; the peers that count have no seed."""
    found: dict[str, list[Answers]] = defaultdict(list)
    for path in sorted(folder.glob("*.npz")):
        answers = Answers.load(path, digest)
        if answers is not None and (answers.seed in seeds or answers.party in (*GRIDS, BLEND)):
            found[answers.party].append(answers)
    order = (MODEL, *sorted(filter(is_ours, found)), *GRIDS, BLEND, *PARTIES)
    return {party: found[party] for party in dict.fromkeys(order) if party in found}


def looks_until_now(name: str) -> int:
    """How often the test part of a data set was looked at."""
    if not RESULTS.is_file():
        return 0
    return looks(map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines()), name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="The table of quality.")
    parser.add_argument(
        "data", type=Path, nargs="?", default=PROJECT_ROOT.parent / "shared" / "data", help="folder of the data sets"
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS[:3], help="data sets (default: those of music)")
    parser.add_argument("--only", nargs="+", choices=STEPS, help="run these parties and figures only")
    parser.add_argument("--minutes", type=float, help="training time of one model instead of the settings file's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="a model for each of them")
    parser.add_argument("--part", choices=sorted(PARTS), default="test", help="validation leaves the test part unseen")
    parser.add_argument("--peers-python", type=Path, default=os.environ.get("PEERS_PYTHON"), help="python with RecTools")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
