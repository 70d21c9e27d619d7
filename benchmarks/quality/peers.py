"""The peers that count: each with a small search over its own settings on validation, then fitted and asked.

Random, popularity, recent popularity, first-order Markov, co-occurrence, ItemKNN and a blend of these three come from
`evaluation.baselines`, EASE from beside.  Where sequences have a history, every point of a grid is tried with and without it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.quality.ease import Ease
from benchmarks.quality.questions import Answers, Questions, ask, choose_history, histories_of, quality_of
from benchmarks.quality.splits import DataSet
from config import EvaluationConfig
from evaluation.baselines import Baseline, Blend, CoOccurrence, ItemKNN, Markov, Popularity, Random, RecentPopularity
from splits import VALIDATION

SEARCH_TASKS = 2000  # validation questions that a search looks at
BLENDED = ("Markov", "co-occurrence", "item kNN")
BLEND = "blend of the three"
BLEND_STEPS = 10  # weights are multiples of a tenth

Settings = Mapping[str, Any]
GRIDS: Mapping[str, tuple[Callable[..., Baseline], Sequence[Settings]]] = {
    "random": (Random, [{}]),
    "popularity": (Popularity, [{}]),
    "recent popularity": (RecentPopularity, [{"half_life": share} for share in (0.03, 0.1, 0.3, 1.0)]),
    "Markov": (Markov, [{"prefix_weight": weight} for weight in (0, 1, 3, 10)]),
    "co-occurrence": (
        CoOccurrence,
        [
            {"last": last, "decay": decay, "window": window}
            for last, decay, window in (
                (10, 0.8, 50), (20, 0.9, 50), (30, 0.95, 50), (20, 0.9, 15), (50, 0.98, 200), (5, 0.6, 15),
            )
        ],
    ),
    "item kNN": (
        ItemKNN,
        [
            {"neighbours": neighbours, "shrink": shrink, "window": window}
            for neighbours, shrink, window in (
                (50, 10, 100), (200, 10, 100), (200, 0, 100), (200, 50, 100), (500, 10, 25), (500, 10, 400),
            )
        ],
    ),
    "EASE": (Ease, [{"regularisation": strength} for strength in (20.0, 100.0, 500.0, 2500.0)]),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """A peer after its search."""

    peer: Baseline
    settings: Settings
    history: bool
    validation_ndcg10: float
    search_seconds: float
    fit_seconds: float


def counting_answers(data: DataSet, part: int, config: EvaluationConfig) -> Iterator[Answers]:
    """Search, fit and ask every peer that counts; they have no seed, so each answers once."""
    validation = data.questions(VALIDATION, config).thinned(SEARCH_TASKS)
    asked = data.questions(part, config)
    found: dict[str, Found] = {}
    for name in (*GRIDS, BLEND):
        found[name] = search_blend(found, data, validation) if name == BLEND else search(name, data, validation)
        yield answers_of(name, found[name], asked)


def search(name: str, data: DataSet, validation: Questions) -> Found:
    """The best point of a peer's grid."""
    make, grid = GRIDS[name]
    begin = time.perf_counter()
    best: Found | None = None
    for settings in grid:
        fitted = time.perf_counter()
        peer = make(**settings).fit(*data.training(), data.snapshot.n_songs)
        fit_seconds = time.perf_counter() - fitted
        history, quality = choose_history(peer.score, validation)
        if best is None or quality > best.validation_ndcg10:
            best = Found(
                peer=peer,
                settings=settings,
                history=history,
                validation_ndcg10=quality,
                search_seconds=0,
                fit_seconds=fit_seconds,
            )
    assert best is not None
    return _timed(best, time.perf_counter() - begin)


def search_blend(found: Mapping[str, Found], data: DataSet, validation: Questions) -> Found:
    """The best weights of the three peers as they were found, chosen with and without history."""
    begin = time.perf_counter()
    tried = []
    for history in histories_of(validation):
        blend = Blend({name: found[name].peer for name in BLENDED})
        tasks = validation.tasks(history=history)
        blend.choose_weights(tasks, n_songs=data.snapshot.n_songs, allow_repeats=validation.allow_repeats, steps=BLEND_STEPS)
        tried.append((quality_of(blend.score, validation, history=history), history, blend))
    quality, history, blend = max(tried, key=lambda one: one[0])
    fit_seconds = sum(found[name].fit_seconds for name in BLENDED)
    best = Found(
        peer=blend, settings=blend.weights, history=history, validation_ndcg10=quality, search_seconds=0, fit_seconds=fit_seconds
    )
    return _timed(best, time.perf_counter() - begin + sum(found[name].search_seconds for name in BLENDED))


def answers_of(name: str, found: Found, asked: Questions) -> Answers:
    """Ask a peer everything."""
    ranks, lists = ask(found.peer.score, asked, history=found.history)
    return Answers(
        party=name,
        seed=0,
        settings=dict(found.settings),
        history=found.history,
        validation_ndcg10=found.validation_ndcg10,
        search_seconds=found.search_seconds,
        fit_seconds=found.fit_seconds,
        ranks=ranks,
        lists=lists,
    )


def _timed(found: Found, seconds: float) -> Found:
    return replace(found, search_seconds=seconds)
