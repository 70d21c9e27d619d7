"""The tables of one data set: every party's figures over the seeds, and the model beside the best peer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.judging import HISTORY, Beyond, compared, continuation, over_seeds
from benchmarks.quality.questions import ALL, Answers, Questions
from benchmarks.quality.splits import DataSet
from evaluation.protocols import Figures, Interval
from evaluation.report import comparison_table

MODEL = "BERT4Rec (ours)"
"""The party that is compared with the best peer; what is "BERT4Rec (ours), ..." are our models of other settings."""
METRICS = ("hr10", "ndcg10", "mrr")
CONTINUATION_TITLES = {"recall10": "Recall@10", "r_precision": "R-precision", "ndcg10": "NDCG@10"}
BEYOND_TITLES = {
    "coverage": "coverage",
    "distinct_artists": "distinct artists@10",
    "popularity_ratio": "popularity ratio",
    "novelty": "novelty (bits)",
    "tempo_step": "tempo step (BPM)",
    "energy_step": "energy step",
    "camelot_share": "Camelot share",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """All figures of one data set."""

    name: str
    parties: Mapping[str, Mapping[str, Figures]]
    """By party and kind of question."""
    best_peer: str
    """By NDCG@10 on the part that is judged, which is the choice most in favour of the peers."""
    interval: Interval | None
    """The model against the best peer; None without a model."""
    continuations: Mapping[str, Mapping[str, float]]
    """Empty where only one song of a list is hidden."""
    beyond: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, Sequence[Answers]]


def judge(data: DataSet, questions: Questions, answers: Mapping[str, Sequence[Answers]]) -> Judged:
    """Judge the answers of all parties."""
    parties = {name: over_seeds(runs, questions) for name, runs in answers.items()}
    peers = [name for name in parties if not is_ours(name)] or list(parties)
    best_peer = max(peers, key=lambda name: parties[name][ALL].metrics["ndcg10"])
    has_model = MODEL in parties and not is_ours(best_peer)
    several = max(map(len, questions.hidden)) > 1
    beyond = Beyond(data, questions)
    return Judged(
        name=data.name,
        parties=parties,
        best_peer=best_peer,
        interval=compared(parties[MODEL][ALL], parties[best_peer][ALL], questions) if has_model else None,
        continuations={name: continuation(runs, questions) for name, runs in answers.items()} if several else {},
        beyond={HISTORY: beyond.of_history(), **{name: beyond.of(runs) for name, runs in answers.items()}},
        answers=answers,
    )


def looks(lines: Iterable[Mapping[str, Any]], name: str) -> int:
    """How often the test part of a data set was looked at, for cold songs too, by the stored lines."""
    return sum(line["data"] in (name, f"{name}-cold") and line["part"] == "test" for line in lines)


def is_ours(party: str) -> bool:
    """Whether a party is a model of this project."""
    return party == MODEL or party.startswith(f"{MODEL}, ")


def tables(judged: Judged) -> str:
    """Everything as Markdown, to read."""
    rows = {name: kinds[ALL] for name, kinds in judged.parties.items()}
    intervals = {MODEL: judged.interval} if judged.interval is not None else None
    parts = [f"## {judged.name}", comparison_table(rows, metrics=METRICS, intervals=intervals, reference=judged.best_peer)]
    parts.append("By kind of target, HR@10 / NDCG@10 / MRR:\n\n" + _by_kind(judged))
    if judged.continuations:
        parts.append("The last fifth of a list as one hidden set:\n\n" + _drawn(judged.continuations, CONTINUATION_TITLES))
    parts.append("Beyond accuracy:\n\n" + _drawn(judged.beyond, BEYOND_TITLES))
    parts.append("What the searches chose, on validation:\n\n" + _chosen(judged))
    return "\n\n".join(parts)


def last_line(judged: Judged) -> dict[str, Any]:
    """What the last line of the output says of a data set; None where the model or the peers did not run."""
    model = judged.parties.get(MODEL)
    peer = judged.parties[judged.best_peer][ALL].metrics["ndcg10"] if not is_ours(judged.best_peer) else None
    return {
        "ndcg10": model[ALL].metrics["ndcg10"] if model else None,
        "hr10": model[ALL].metrics["hr10"] if model else None,
        "best_peer": judged.best_peer if peer is not None else None,
        "best_peer_ndcg10": peer,
        "ratio": judged.interval.ratio if judged.interval else None,
        "ratio_low": judged.interval.ratio_low if judged.interval else None,
    }


def stored(judged: Judged) -> dict[str, Any]:
    """Everything as plain values, for the line in benchmarks/results/quality.jsonl."""
    parties = {
        name: {
            "kinds": {
                kind: {**one.metrics, "n_tasks": one.n_tasks, "n_sequences": one.n_sequences} for kind, one in kinds.items()
            },
            "continuation": judged.continuations.get(name),
            "beyond": _known(judged.beyond[name]),
            "seeds": [_described(run) for run in judged.answers[name]],
        }
        for name, kinds in judged.parties.items()
    }
    interval = vars(judged.interval) if judged.interval else None
    return {"parties": parties, "interval": interval, "history": _known(judged.beyond[HISTORY]), **last_line(judged)}


def _known(figures: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _described(run: Answers) -> dict[str, Any]:
    names = ("seed", "settings", "history", "validation_ndcg10", "search_seconds", "fit_seconds")
    return {name: getattr(run, name) for name in names}


def _by_kind(judged: Judged) -> str:
    kinds = [kind for kind in next(iter(judged.parties.values())) if kind != ALL]
    first = next(iter(judged.parties.values()))
    titles = ["", *(f"{kind} (n = {first[kind].n_tasks:,})" for kind in kinds)]
    rows = [
        [name, *(" / ".join(f"{figures[kind].metrics[metric]:.4f}" for metric in METRICS) for kind in kinds)]
        for name, figures in judged.parties.items()
    ]
    return markdown(titles, rows)


def _drawn(values: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    rows = [[name, *(f"{figures[key]:.4g}" for key in titles)] for name, figures in values.items()]
    return markdown(["", *titles.values()], rows)


def _chosen(judged: Judged) -> str:
    rows = [
        [
            name,
            ", ".join(f"{key} {value}" for key, value in runs[0].settings.items()) or "-",
            "yes" if runs[0].history else "no",
            f"{runs[0].validation_ndcg10:.4f}",
            f"{runs[0].search_seconds:.0f}",
            f"{runs[0].fit_seconds:.0f}",
        ]
        for name, runs in judged.answers.items()
    ]
    return markdown(["", "settings", "history", "validation NDCG@10", "search (s)", "fit (s)"], rows)


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: names to the left, figures to the right.

    >>> print(markdown(["", "HR@10"], [["random", "0.1"]]))
    |  | HR@10 |
    | --- | ---: |
    | random | 0.1 |
    """
    rule = "| --- |" + " ---: |" * (len(titles) - 1)
    return "\n".join([f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])
