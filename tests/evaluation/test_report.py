import json

import numpy as np

from evaluation.protocols import METRICS, Evaluation, Figures, Interval
from evaluation.report import as_json, comparison_table


def evaluation(ndcg10, *, parts=None, **figures):
    """Two sequences with three tasks, every metric 0 but the named ones."""
    figures = {**dict.fromkeys(METRICS, 0.0), "ndcg10": ndcg10, **figures}
    return Evaluation(
        sequences=np.array([4, 7]),
        n_tasks=3,
        per_sequence={name: np.array([value, value]) for name, value in figures.items()},
        allow_repeats=False,
        n_left_out=1,
        seconds=0.5,
        parts=parts or {},
    )


def test_the_table_aligns_its_columns_and_marks_the_best():
    rows = {"model": evaluation(0.25, hr10=0.5), "popularity": evaluation(0.125, hr10=0.5)}
    assert comparison_table(rows, metrics=["hr10", "ndcg10"]).splitlines() == [
        "| recommender |      HR@10 |    NDCG@10 | sequences | tasks |",
        "| ----------- | ---------: | ---------: | --------: | ----: |",
        "| model       | **0.5000** | **0.2500** |         2 |     3 |",
        "| popularity  | **0.5000** |     0.1250 |         2 |     3 |",
    ]


def test_the_table_shows_the_ratio_where_there_is_one():
    bounds = Interval(
        difference=0.1, difference_low=0, difference_high=0.2, ratio=2, ratio_low=1.5, ratio_high=2.25, level=0.95, n_groups=9
    )
    rows = {"model": evaluation(0.25), "blend": evaluation(0.125)}
    table = comparison_table(rows, metrics=["ndcg10"], intervals={"model": bounds}, reference="blend", digits=3)
    assert table.splitlines() == [
        "| recommender |   NDCG@10 |    ratio to blend | sequences | tasks |",
        "| ----------- | --------: | ----------------: | --------: | ----: |",
        "| model       | **0.250** | 2.00 [1.50, 2.25] |         2 |     3 |",
        "| blend       |     0.125 |                   |         2 |     3 |",
    ]


def test_parts_of_an_evaluation_stand_in_a_table_too():
    cold = Figures(sequences=np.array([7]), n_tasks=1, per_sequence={name: np.array([0.5]) for name in METRICS})
    assert (
        comparison_table({"cold": cold}, metrics=["mrr"]).splitlines()[-1] == "| cold        | **0.5000** |         1 |     1 |"
    )


def test_no_rows_leave_the_head():
    assert comparison_table({}, metrics=["mrr"]).splitlines()[0] == "| recommender | MRR | sequences | tasks |"


def test_json_holds_every_figure_and_part():
    cold = Figures(sequences=np.array([7]), n_tasks=1, per_sequence={name: np.array([0.5]) for name in METRICS})
    zeros = {"hr1": 0.0, "hr5": 0.0, "hr10": 0.0, "ndcg5": 0.0, "ndcg10": 0.25, "mrr": 0.0}
    assert json.loads(json.dumps(as_json({"model": evaluation(0.25, parts={"cold": cold})}))) == {
        "model": {
            **zeros,
            "n_sequences": 2,
            "n_tasks": 3,
            "n_left_out": 1,
            "allow_repeats": False,
            "seconds": 0.5,
            "parts": {"cold": {**dict.fromkeys(zeros, 0.5), "n_sequences": 1, "n_tasks": 1}},
        }
    }
