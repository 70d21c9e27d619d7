"""From answers to figures: means over seeds, the lists judged, and what lists are like beside the history they continue."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from benchmarks.quality.flow import camelot_share, mean_step
from benchmarks.quality.questions import LIST_LENGTH, Answers, Questions, figures
from benchmarks.quality.splits import FLOW_COLUMNS, DataSet
from errors import DataError
from evaluation.metrics import (
    Songs,
    catalogue_coverage,
    distinct_artists,
    ndcg_of_list,
    novelty,
    popularity_ratio,
    r_precision,
    recall_at,
)
from evaluation.protocols import Figures, Interval, paired_bootstrap
from splits import TRAIN

HISTORY = "the history's own"
CONTINUATION = ("recall10", "r_precision", "ndcg10")
RESAMPLES = 2000


def over_seeds(answers: Sequence[Answers], questions: Questions) -> dict[str, Figures]:
    """The figures of one party, each value a mean over its seeds, by kind of question."""
    runs = [figures(one.ranks, questions) for one in answers]
    return {kind: _mean_figures([run[kind] for run in runs]) for kind in runs[0]}


def _mean_figures(runs: Sequence[Figures]) -> Figures:
    first = runs[0]
    means = {name: np.mean([run.per_sequence[name] for run in runs], axis=0) for name in first.per_sequence}
    return Figures(sequences=first.sequences, n_tasks=first.n_tasks, per_sequence=means)


def compared(a: Figures, b: Figures, questions: Questions, metric: str = "ndcg10") -> Interval:
    """How far a is ahead of b, resampled by list or user."""
    groups = questions.groups[a.sequences]
    rng = np.random.default_rng(0)
    return paired_bootstrap(a.per_sequence[metric], b.per_sequence[metric], groups, n=RESAMPLES, rng=rng)


def continuation(answers: Sequence[Answers], questions: Questions) -> dict[str, float]:
    """Recall@10, R-precision and NDCG@10 of lists continued as a whole, over lists and seeds; songs count, not artists."""
    values = [
        (recall_at(songs, hidden, LIST_LENGTH), r_precision(songs, hidden), ndcg_of_list(songs, hidden, LIST_LENGTH))
        for one in answers
        for songs, hidden in zip(one.lists, questions.hidden, strict=True)
        if len(hidden)
    ]
    return dict(zip(CONTINUATION, np.mean(values, axis=0).tolist(), strict=True))


class Beyond:
    """What lists of ten are like beyond accuracy, and the same of the last ten songs before them."""

    def __init__(self, data: DataSet, questions: Questions) -> None:
        songs, offsets = data.training()
        self.n_songs = data.snapshot.n_songs
        self.artist = np.asarray(data.snapshot.song_artist)
        self.plays = np.bincount(songs, minlength=self.n_songs)
        self.n_sequences = len(data.snapshot.indices(TRAIN))
        held = np.unique(np.stack([np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), songs]), axis=1)[1]
        self.sequences = np.bincount(held, minlength=self.n_songs)
        self.flow: Mapping[str, Songs] = {name: data.flow[name].to_numpy() for name in FLOW_COLUMNS}
        self.n_candidates = int((np.arange(self.n_songs) >= 3).sum())
        self.prefixes = questions.continued.prefixes()

    def of(self, answers: Sequence[Answers]) -> dict[str, float]:
        """The figures of a party, averaged over its seeds."""
        runs = [self._measured(list(one.lists[:, :LIST_LENGTH]), self.prefixes) for one in answers]
        return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}

    def of_history(self) -> dict[str, float]:
        """The figures of the last ten songs before each list, the ten before them as their history."""
        lists = [prefix[-LIST_LENGTH:] for prefix in self.prefixes]
        return self._measured(lists, [prefix[:-LIST_LENGTH] for prefix in self.prefixes])

    def _measured(self, lists: Sequence[Songs], before: Sequence[Songs]) -> dict[str, float]:
        flows = [np.concatenate([prefix[-1:], songs]) for prefix, songs in zip(before, lists, strict=True)]
        per_list: Mapping[str, Callable[[int], float]] = {
            "distinct_artists": lambda i: distinct_artists(lists[i], self.artist),
            "popularity_ratio": lambda i: self._popularity(lists[i], self.prefixes[i]),
            "novelty": lambda i: novelty(lists[i], self.sequences, self.n_sequences),
            "tempo_step": lambda i: mean_step(self.flow["tempo"][flows[i]]),
            "energy_step": lambda i: mean_step(self.flow["energy"][flows[i]]),
            "camelot_share": lambda i: camelot_share(self.flow["key"][flows[i]], self.flow["mode"][flows[i]]),
        }
        means = {name: _known_mean([measure(i) for i in range(len(lists))]) for name, measure in per_list.items()}
        return {"coverage": catalogue_coverage(lists, self.n_candidates), **means}

    def _popularity(self, songs: Songs, history: Songs) -> float:
        try:
            return popularity_ratio(songs, history, self.plays)
        except DataError:
            return float("nan")  # nothing of this history occurs in training


def _known_mean(values: Sequence[float]) -> float:
    """Mean of the lists for which the figure exists; NaN where it exists for none."""
    known = pd.Series(values).dropna()
    return float(known.mean()) if len(known) else float("nan")
