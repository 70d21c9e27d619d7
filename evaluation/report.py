"""Evaluations side by side: a table to read and plain values for JSON.  Rests on protocols.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.protocols import METRICS, Evaluation, Figures, Interval

TITLES: Mapping[str, str] = {"hr1": "HR@1", "hr5": "HR@5", "hr10": "HR@10", "ndcg5": "NDCG@5", "ndcg10": "NDCG@10", "mrr": "MRR"}
"""What a metric is called where people read it."""


def comparison_table(
    rows: Mapping[str, Figures],
    *,
    metrics: Sequence[str] = tuple(METRICS),
    intervals: Mapping[str, Interval] | None = None,
    reference: str = "reference",
    digits: int = 4,
) -> str:
    """Draw a Markdown table with aligned columns: a row a recommender, a column a metric, the best of each column in bold.

    Rows with the same figure as printed are best together.  The numbers of sequences and tasks stand at the end of each row, for
    only rows with the same ones compare.  `intervals` adds the ratio to the recommender named `reference`, with the bounds of
    `paired_bootstrap`, for the rows that have one.

    Without rows, the table has a head only.
    """
    columns = [["recommender", *rows]]
    columns += [
        [TITLES.get(metric, metric), *_marked([row.metrics[metric] for row in rows.values()], digits)] for metric in metrics
    ]
    if intervals is not None:
        columns.append([f"ratio to {reference}", *(_ratio(intervals.get(name)) for name in rows)])
    columns.append(["sequences", *(str(row.n_sequences) for row in rows.values())])
    columns.append(["tasks", *(str(row.n_tasks) for row in rows.values())])
    return _drawn(columns)


def as_json(rows: Mapping[str, Evaluation]) -> dict[str, dict[str, Any]]:
    """Turn evaluations into plain values for `json.dumps`, by name; the arrays per sequence are left out."""
    return {name: _plain(row) for name, row in rows.items()}


def _plain(row: Evaluation) -> dict[str, Any]:
    return {
        **_plain_figures(row),
        "n_left_out": row.n_left_out,
        "allow_repeats": row.allow_repeats,
        "seconds": row.seconds,
        "parts": {name: _plain_figures(part) for name, part in row.parts.items()},
    }


def _plain_figures(row: Figures) -> dict[str, Any]:
    return {**row.metrics, "n_sequences": row.n_sequences, "n_tasks": row.n_tasks}


def _marked(values: Sequence[float], digits: int) -> list[str]:
    printed = [f"{value:.{digits}f}" for value in values]
    best = max(printed, key=float, default="")
    return [f"**{figure}**" if figure == best else figure for figure in printed]


def _ratio(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.ratio:.2f} [{interval.ratio_low:.2f}, {interval.ratio_high:.2f}]"


def _drawn(columns: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table: the first column to the left, figures to the right."""
    widths = [max(3, *map(len, column)) for column in columns]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [rule] + [
        [cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in zip(*columns, strict=True)
    ]
    lines[0], lines[1] = lines[1], lines[0]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
