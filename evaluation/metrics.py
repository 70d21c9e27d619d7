"""Ranking metrics: pure functions of ranks, or of one recommended list.  Rests on numpy alone.

Two kinds of question are asked.  With *one* hidden song, all that counts is its rank among the candidates (1 = best):
`rank_of_target` finds it, `hit_rate_at`, `ndcg_at` and `reciprocal_rank` judge it.  With *several* hidden songs, or none, a list
of song numbers is judged: how much of what was hidden it found (`recall_at`, `r_precision`, `ndcg_of_list`), and what it is like
(`catalogue_coverage`, `distinct_artists`, `popularity_ratio`, `novelty`, `intra_list_diversity`).

Every candidate is ranked.  Metrics over a sample of negatives put recommenders in another order than metrics over all songs do
(Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020).

Letters: B questions in a batch, V song numbers (the specials included), k length of a list.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import FIRST_NUMBER
from errors import DataError

Songs = NDArray[np.integer[Any]]  # song numbers
Ranks = NDArray[np.integer[Any]]  # 1 = best
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

ARTIST_CREDIT = 0.25  # what a right artist is worth beside a right song; Zamani et al. 2018


def rank_of_target(scores: NDArray[Any], targets: Songs, candidates: Mask) -> NDArray[np.int64]:
    """Find the place of each target among the candidates when they are sorted by falling score.

    Ties are broken as a stable sort does: of two songs with one score, the smaller number comes first, so a rank never depends on
    luck.  `scores` is (B, V) of any real type, -inf allowed; `targets` (B,); `candidates` (V,) for all rows alike, or (B, V).  A
    target that is no candidate is a miss and has rank V + 1.  Raises DataError for NaN, which has no place in an order.

    >>> scores = np.array([[0.1, 0.5, 0.5, 0.9], [0.1, 0.5, 0.5, 0.9]])
    >>> rank_of_target(scores, np.array([2, 2]), np.array([[True, True, True, True], [True, True, True, False]]))
    array([3, 2])
    """
    n_rows, n_songs = scores.shape
    rows = np.broadcast_to(candidates, (n_rows, n_songs))
    # Row by row: one row stays in the processor's cache, and nothing of the size of the block is made.
    return np.fromiter(map(_rank_in_row, scores, targets, rows), dtype=np.int64, count=n_rows)


def _rank_in_row(scores: NDArray[Any], target: int, candidates: Mask) -> int:
    if np.isnan(scores.max()):  # the largest of numbers with NaN among them is NaN
        raise DataError(f"score of song number {int(np.isnan(scores).argmax())} is NaN: scores must be numbers or -inf")
    if not candidates[target]:
        return len(scores) + 1
    greater = np.count_nonzero((scores > scores[target]) & candidates)
    tied_before = np.count_nonzero((scores[:target] == scores[target]) & candidates[:target])
    return int(1 + greater + tied_before)


def rank_without(scores: NDArray[Any], target: int, excluded: Songs) -> int:
    """The rank of a target among all songs but some, as `rank_of_target` finds it, for one row of scores (V,).

    `excluded` (n,) are the few songs, none twice, that are no candidates: they are looked at instead of a mask of all.

    >>> rank_without(np.array([0.1, 0.5, 0.5, 0.9]), 2, np.array([3]))
    2
    """
    if np.isnan(scores.max()):
        raise DataError(f"score of song number {int(np.isnan(scores).argmax())} is NaN: scores must be numbers or -inf")
    if (excluded == target).any():
        return len(scores) + 1
    own, of_excluded = scores[target], scores[excluded]
    ahead = np.count_nonzero(scores > own) + np.count_nonzero(scores[:target] == own)
    not_meant = np.count_nonzero(of_excluded > own) + np.count_nonzero((of_excluded == own) & (excluded < target))
    return int(1 + ahead - not_meant)


def hit_rate_at(ranks: Ranks, k: int) -> Numbers:
    """Tell for each rank whether it is among the first k (1.0) or not (0.0); the mean is HR@k, with one target also Recall@k.

    Sun et al., "BERT4Rec", CIKM 2019, section 4.2.

    >>> hit_rate_at(np.array([1, 2, 3]), k=2)
    array([1., 1., 0.])
    """
    return (_checked(ranks) <= _at_least_one(k)).astype(np.float64)


def ndcg_at(ranks: Ranks, k: int) -> Numbers:
    """Discounted gain of a single relevant song: 1 / log2(1 + rank) within the first k, else 0.

    The ideal list has the song in front, whose gain is 1, so nothing is left to normalise: He et al., "Neural Collaborative
    Filtering", WWW 2017, section 4.1.

    >>> ndcg_at(np.array([1, 3, 11]), k=10)
    array([1. , 0.5, 0. ])
    """
    return hit_rate_at(ranks, k) / np.log2(1 + _checked(ranks))


def reciprocal_rank(ranks: Ranks) -> Numbers:
    """1 / rank without a cut; the mean is MRR (Voorhees, "The TREC-8 Question Answering Track Report", 1999).

    >>> reciprocal_rank(np.array([1, 2, 4]))
    array([1.  , 0.5 , 0.25])
    """
    return 1 / _checked(ranks).astype(np.float64)


def recall_at(recommended: Songs, relevant: Songs, k: int) -> float:
    """Share of the relevant songs that are among the first k recommended ones.

    `recommended` holds song numbers, best first, none twice; `relevant` is a set, so what is in it twice counts once.

    >>> recall_at(np.array([7, 5, 9]), np.array([5, 8]), k=2)
    0.5
    """
    wanted = _relevant(relevant)
    return float(np.isin(wanted, _top(recommended, k)).sum() / len(wanted))


def r_precision(recommended: Songs, relevant: Songs, song_artist: Songs | None = None) -> float:
    """Share of the R relevant songs found among the first R recommended ones, plus a credit of 0.25 for each artist found.

    (|top R ∩ songs| + 0.25 · |artists of top R ∩ artists of songs|) / R, as in the RecSys Challenge 2018 (Zamani et al.,
    "An Analysis of Approaches Taken in the ACM RecSys Challenge 2018", arXiv:1810.01520, evaluation metrics); it may exceed 1.
    Without `song_artist` (V,), only songs count.  Unknown artists match nothing.

    >>> artists = np.array([0, 1, 2, 3, 3, 4])  # of the songs 0 to 5
    >>> r_precision(np.array([5, 3, 4]), np.array([4, 5]))
    0.5
    >>> r_precision(np.array([5, 3, 4]), np.array([4, 5]), artists)
    0.75
    """
    wanted = _relevant(relevant)
    top = _top(recommended, len(wanted))
    found = float(np.isin(wanted, top).sum())
    if song_artist is not None:
        artists = np.intersect1d(song_artist[top], song_artist[wanted])
        found += ARTIST_CREDIT * int((artists >= FIRST_NUMBER).sum())
    return found / len(wanted)


def ndcg_of_list(recommended: Songs, relevant: Songs, k: int) -> float:
    """Discounted gain of the relevant songs among the first k, as a share of what the ideal list of k songs has.

    A relevant song at rank r gains 1 / log2(1 + r): Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques",
    TOIS 20(4) 2002, section 2, with the usual base and binary relevance.

    >>> ndcg_of_list(np.array([5, 7, 8]), np.array([5, 8]), k=2)  # 1 / (1 + 1 / log2(3))
    0.6131471927654584
    """
    wanted = _relevant(relevant)
    gains = 1 / np.log2(2 + np.arange(k))  # (k,)
    hits = np.isin(_top(recommended, k), wanted)
    return float(gains[: len(hits)][hits].sum() / gains[: len(wanted)].sum())


def catalogue_coverage(lists: Iterable[Songs], n_candidates: int) -> float:
    """Share of the catalogue that is recommended at least once; `n_candidates` counts the songs that could have been.

    Ge, Delgado-Battenfeld and Jannach, "Beyond Accuracy", RecSys 2010 (catalogue coverage).

    >>> catalogue_coverage([np.array([3, 4]), np.array([4, 5])], n_candidates=6)
    0.5
    """
    seen: set[int] = set()
    for songs in lists:
        seen.update(songs.tolist())
    return len(seen) / _at_least_one(n_candidates, "n_candidates")


def distinct_artists(recommended: Songs, song_artist: Songs) -> float:
    """Artists in the list per song of the list: 1 when every song is by another artist.

    Songs whose artist is unknown are left out of both counts; a list without any known artist has the value 1.

    >>> distinct_artists(np.array([0, 1, 2, 3]), song_artist=np.array([7, 7, 8, 9]))
    0.75
    """
    artists = song_artist[recommended]
    known = artists[artists >= FIRST_NUMBER]
    return len(np.unique(known)) / len(known) if len(known) else 1.0


def popularity_ratio(recommended: Songs, history: Songs, song_counts: Songs) -> float:
    """Mean popularity of the recommended songs over that of the history: above 1 the list leans to hits.

    `song_counts` (V,) says how often each song occurs in training.  ΔGAP of Abdollahpouri et al., "The Unfairness of Popularity
    Bias in Recommendation", RMSE 2019, is this ratio minus 1.  Raises DataError where the history was never seen in
    training.

    >>> popularity_ratio(np.array([0, 1]), np.array([1, 2]), song_counts=np.array([9, 3, 1]))
    3.0
    """
    profile = float(song_counts[history].mean()) if len(history) else 0.0
    if profile == 0:
        raise DataError(
            f"popularity ratio needs a history with songs of the training part ({len(history)} songs, none of them in it)"
        )
    return float(song_counts[recommended].mean()) / profile


def novelty(recommended: Songs, song_sequences: Songs, n_sequences: int) -> float:
    """Mean inverse user frequency (MIUF) in bits: the mean of -log2(share of the sequences that hold the song).

    `song_sequences` (V,) says in how many of the `n_sequences` training sequences each song occurs; a song in none of them counts
    as in one, for its surprise would be without bound.  Castells, Vargas and Wang, "Novelty and Diversity Metrics for Recommender
    Systems", DDR at ECIR 2011, equation 1.

    >>> novelty(np.array([0, 1]), song_sequences=np.array([8, 1]), n_sequences=8)
    1.5
    """
    share = np.maximum(song_sequences[recommended], 1) / _at_least_one(n_sequences, "n_sequences")
    return float(-np.log2(share).mean())


def intra_list_diversity(vectors: NDArray[np.floating[Any]]) -> float:
    """Mean cosine distance over all pairs of a list: 0 when all songs point one way, 1 when they are unrelated, at most 2.

    `vectors` (k, F) describe the songs of the list, by audio features or embeddings.  A vector of zeros is unrelated to all
    others; a list of fewer than two songs has no pairs and the value 0.  Ziegler et al., "Improving Recommendation Lists Through
    Topic Diversification", WWW 2005 (intra-list similarity), as a distance and averaged over pairs.

    >>> intra_list_diversity(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])).__round__(6)
    0.666667
    """
    k = len(vectors)
    if k < 2:
        return 0.0
    length = np.linalg.norm(vectors, axis=1, keepdims=True)  # (k, 1)
    unit = np.divide(vectors, length, out=np.zeros(vectors.shape), where=length > 0)  # (k, F)
    # The squared length of the sum is the sum of all cosines, each song's with itself included.
    pairs = np.square(unit.sum(axis=0)).sum() - np.square(unit).sum()
    return float(1 - pairs / (k * (k - 1)))


def _checked(ranks: Ranks) -> Ranks:
    if len(ranks) and ranks.min() < 1:
        raise DataError(f"rank {ranks.min()} is below 1: the best place has rank 1")
    return ranks


def _relevant(songs: Songs) -> Songs:
    if not len(songs):
        raise DataError("no relevant song: a list can only be judged against at least one hidden song")
    return np.unique(songs)


def _top(recommended: Songs, k: int) -> Songs:
    top = recommended[: _at_least_one(k)]
    if len(np.unique(top)) < len(top):
        raise DataError(f"the first {len(top)} recommended songs hold one twice: a list must name a song once")
    return top


def _at_least_one(value: int, name: str = "k") -> int:
    if value < 1:
        raise DataError(f"{name} must be at least 1 (got {value})")
    return value
