"""The whole chain on one data set: import, preprocess, train for two minutes, evaluate, serve, POST.

    python -m benchmarks.main_job PATH/TO/playlists        (or: make bench-main DATA=PATH/TO)

The last line is one JSON object; `first_answer_s` counts from the start of the service's process.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chain import run_chain, store
from errors import DataError, exit_code_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chain and print its figures."""
    parser = argparse.ArgumentParser(description="The main job, timed.")
    parser.add_argument("data", type=Path, help="a folder with songs, sequences and playlists as CSV")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time (default 2)")
    arguments = parser.parse_args(argv)
    if not arguments.data.is_dir():
        raise DataError(f"no data in {arguments.data}: name a folder with sequences.csv.gz and songs.csv.gz")
    chain = run_chain(arguments.data, minutes=arguments.minutes)
    figures = {
        **{f"{step}_s": chain.steps[step].seconds for step in ("import", "preprocess", "train", "evaluate")},
        "first_answer_s": chain.first_answer_seconds,
        "hr10": chain.results["BERT4Rec"]["hr10"],
        "ndcg10": chain.results["BERT4Rec"]["ndcg10"],
        "popularity_hr10": chain.results["popularity"]["hr10"],
        "markov_hr10": chain.results["Markov"]["hr10"],
        "cooccurrence_hr10": chain.results["co-occurrence"]["hr10"],
    }
    store("main_job", {"data": chain.name, **figures})
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
