"""The table of docs/results.md: the main job on several data sets, model beside baselines, with seconds and peak memory.

    python -m benchmarks.results PATH/TO/DATA              (or: make bench-results DATA=PATH/TO)
    python -m benchmarks.results PATH/TO/DATA --only listening

Each data set's figures replace its own section of docs/results.md, between its markers.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.chain import Chain, machine, run_chain, store
from config import PROJECT_ROOT
from errors import DataError, exit_code_of

PAGE = PROJECT_ROOT / "docs" / "results.md"
METRICS = {"hr1": "HR@1", "hr5": "HR@5", "hr10": "HR@10", "ndcg5": "NDCG@5", "ndcg10": "NDCG@10", "mrr": "MRR"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one data set is run."""

    title: str
    source: str
    minutes: float
    note: str = ""
    preprocessing: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


PLANS: Mapping[str, Plan] = {
    "playlists": Plan(
        title="Public playlists with audio features",
        source="public lists from the git history of mackorone/spotify-playlist-archive, joined with public feature tables",
        minutes=5,
    ),
    "listening": Plan(
        title="Listening histories",
        source="Xiami listening histories from HduDBSI/GASM: ids, artists and albums, no audio features",
        minutes=25,
        note="Chunks of one user stand on both sides. The service never returns a song of the sequence, so what repeats is found "
        "here and not in an answer.",
    ),
    "ml-100k": Plan(
        title="MovieLens-100K",
        source="GroupLens; movies as songs, genre and year in place of artist and album",
        minutes=5,
        preprocessing=("--split", "leave_one_out"),
        training=("--seq-len", "64"),
    ),
}
PROTOCOLS = {
    "time": "training before a moment, held out after it; no list has versions on both sides, and at most five versions of a "
    "held-out list count; every song of the last 20 % of one is asked for, from all songs before it",
    "sequence": "5 % of the sequences held out at random for the test; every song of the last 20 % of one is asked for, from all "
    "songs before it",
    "leave_one_out": "the last song of every sequence is asked for, the one before it validates",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plans and write their sections."""
    parser = argparse.ArgumentParser(description="Make the table of docs/results.md.")
    parser.add_argument("data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--only", choices=sorted(PLANS), help="one data set")
    parser.add_argument("--minutes", type=float, help="training time instead of the plan's")
    arguments = parser.parse_args(argv)
    for name in [arguments.only] if arguments.only else list(PLANS):
        plan, folder = replace(PLANS[name], minutes=arguments.minutes or PLANS[name].minutes), arguments.data / name
        if not folder.is_dir():
            raise DataError(f"no data set {name} in {arguments.data}")
        chain = run_chain(folder, minutes=plan.minutes, preprocessing=plan.preprocessing, training=plan.training)
        steps = {step: {"seconds": cost.seconds, "peak_mb": cost.peak_mb} for step, cost in chain.steps.items()}
        store("results", {"data": name, "steps": steps, "counts": dict(chain.counts), "results": dict(chain.results)})
        write_section(name, section(plan, chain))
        print(section(plan, chain))
    return 0


def section(plan: Plan, chain: Chain) -> str:
    """One data set's part of the page."""
    counts, first = chain.counts, next(iter(chain.results.values()))
    repeats = "songs of the prefix may come again" if first["allow_repeats"] else "songs of the prefix are no candidates"
    lines = [
        f"## {plan.title} (`{chain.name}`)",
        "",
        f"Data: {plan.source}. {counts['sequences']:,} sequences, {counts['rows']:,} rows, {counts['songs'] - 3:,} songs "
        f"({counts['songs'] - counts['fitted_songs']:,} of them in no training sequence).",
        "",
        f"Protocol: {chain.policy.replace('_', ' ')}: {PROTOCOLS[chain.policy]}. Full ranking over the catalogue; {repeats}. n = "
        f"{first['n_sequences']:,} sequences, {first['n_tasks']:,} questions. One seed. {plan.note}".rstrip(),
        "",
        results_table(chain.results),
        "",
        verdict(chain.results),
        "",
        "| step | seconds | peak memory (MB) |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {cost.seconds:.1f} | {cost.peak_mb:,.0f} |" for name, cost in chain.steps.items()),
        f"| start of the service to its first answer | {chain.first_answer_seconds:.1f} | |",
        "",
        f"Settings: {changed(plan)}. {described_machine(machine())}",
    ]
    return "\n".join(lines)


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Model and baselines in rows, metrics in columns, the best of each column in bold."""
    best = {metric: max(row[metric] for row in results.values()) for metric in METRICS}
    lines = ["| recommender | " + " | ".join(METRICS.values()) + " |", "| --- |" + " ---: |" * len(METRICS)]
    for name, row in results.items():
        cells = [f"**{row[metric]:.4f}**" if row[metric] == best[metric] else f"{row[metric]:.4f}" for metric in METRICS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on NDCG@10 that names what is ahead of the model, if anything is."""
    own, popularity = results["BERT4Rec"]["ndcg10"], results["popularity"]["ndcg10"]
    ahead = [name for name, row in results.items() if row["ndcg10"] > own]
    times = f"{own / popularity:.1f} times popularity" if popularity else "popularity finds nothing"
    return f"NDCG@10 of the model is {own:.4f} ({times}). " + (
        f"Ahead of it: {', '.join(ahead)}." if ahead else "No baseline is ahead of it."
    )


def changed(plan: Plan) -> str:
    """The options that differ from the defaults."""
    return "the defaults, " + " ".join([f"--minutes {plan.minutes:g}", *plan.preprocessing, *plan.training])


def described_machine(facts: Mapping[str, Any]) -> str:
    """Where the figures were measured."""
    return f"Measured on {facts['date']}: {facts['cores']} cores of {facts['processor']}, CPU only, torch {facts['torch']}."


def write_section(name: str, text: str) -> None:
    """Replace a data set's section of the page, or add it at the end."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Results on real data\n"
    block = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
    pattern = re.compile(f"<!-- {re.escape(name)} -->.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    page = pattern.sub(lambda _: block, page) if pattern.search(page) else f"{page.rstrip()}\n\n{block}\n"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
