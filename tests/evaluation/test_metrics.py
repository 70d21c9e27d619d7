import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from errors import DataError
from evaluation.metrics import (
    catalogue_coverage,
    distinct_artists,
    hit_rate_at,
    intra_list_diversity,
    ndcg_at,
    ndcg_of_list,
    novelty,
    popularity_ratio,
    r_precision,
    rank_of_target,
    rank_without,
    recall_at,
    reciprocal_rank,
)

# Few different values make many ties; -inf is a score like any other.
few_scores = arrays.arrays(np.float32, (4, 9), elements=st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 3.0]))
masks = arrays.arrays(np.bool_, (4, 9))
nine_songs = arrays.arrays(np.int64, 4, elements=st.integers(0, 8))


@given(few_scores, nine_songs, masks)
def test_a_rank_is_the_place_in_a_stable_sort_of_the_candidates(scores, targets, candidates):
    expected = []
    for row, target, allowed in zip(scores, targets, candidates, strict=True):
        songs = np.flatnonzero(allowed)
        order = songs[np.argsort(-row[songs], kind="stable")].tolist()
        expected.append(order.index(target) + 1 if target in order else 10)
    assert rank_of_target(scores, targets, candidates).tolist() == expected


@given(few_scores, nine_songs, masks)
def test_one_mask_for_all_rows_ranks_like_the_same_mask_in_each(scores, targets, candidates):
    one = candidates[0]
    np.testing.assert_array_equal(
        rank_of_target(scores, targets, one), rank_of_target(scores, targets, np.tile(one, (len(scores), 1)))
    )


def test_of_tied_songs_the_smaller_number_comes_first():
    scores = np.full((3, 5), 7.0)
    assert rank_of_target(scores, np.array([3, 4, 2]), np.array([False, False, True, True, True])).tolist() == [2, 3, 1]


def test_a_target_that_is_no_candidate_is_a_miss_behind_all_songs():
    scores = np.array([[9.0, 1.0, 2.0]])
    assert rank_of_target(scores, np.array([0]), np.array([False, True, True])).tolist() == [4]


def test_a_target_that_scores_minus_infinity_is_last_among_candidates():
    scores = np.array([[-np.inf, 1.0, -np.inf, 2.0]])
    assert rank_of_target(scores, np.array([2]), np.array([True, True, True, True])).tolist() == [4]


def test_nan_is_refused_with_the_song_that_has_it():
    with pytest.raises(DataError, match="song number 2 is NaN"):
        rank_of_target(np.array([[0.0, 1.0, np.nan]]), np.array([0]), np.ones(3, dtype=bool))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32])
def test_scores_of_any_real_type_rank_alike(kind):
    scores = np.array([[3, 1, 2, 2]], dtype=kind)
    assert rank_of_target(scores, np.array([3]), np.ones(4, dtype=bool)).tolist() == [3]


def test_the_scores_are_left_as_they_are():
    scores = np.array([[3.0, 1.0, 2.0]])
    rank_of_target(scores, np.array([1]), np.array([False, True, True]))
    assert scores.tolist() == [[3.0, 1.0, 2.0]]


def test_rank_metrics_are_the_fractions_worked_by_hand():
    ranks = np.array([1, 2, 3, 6, 7, 20])
    assert hit_rate_at(ranks, 5).mean() == pytest.approx(3 / 6)
    assert ndcg_at(ranks, 5).mean() == pytest.approx(1 / 6 * (1 + 1 / math.log2(3) + 1 / 2))
    assert ndcg_at(ranks, 7).mean() == pytest.approx(1 / 6 * (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(7) + 1 / 3))
    assert reciprocal_rank(ranks).mean() == pytest.approx(1 / 6 * (1 + 1 / 2 + 1 / 3 + 1 / 6 + 1 / 7 + 1 / 20))


def test_the_last_place_counts_and_the_next_one_does_not():
    assert hit_rate_at(np.array([10, 11]), 10).tolist() == [1.0, 0.0]
    assert ndcg_at(np.array([10, 11]), 10).tolist() == [pytest.approx(1 / math.log2(11)), 0.0]


@pytest.mark.parametrize(("ranks", "k", "message"), [([0, 1], 5, "rank 0 is below 1"), ([1], 0, "k must be at least 1")])
def test_ranks_and_cuts_below_one_are_refused(ranks, k, message):
    with pytest.raises(DataError, match=message):
        ndcg_at(np.array(ranks), k)


def test_recall_counts_what_was_hidden_and_not_what_was_recommended():
    recommended, hidden = np.array([3, 4, 5, 6]), np.array([6, 3, 9, 9])
    assert recall_at(recommended, hidden, 3) == pytest.approx(1 / 3)
    assert recall_at(recommended, hidden, 4) == pytest.approx(2 / 3)
    assert recall_at(recommended, hidden, 100) == pytest.approx(2 / 3)


def test_r_precision_looks_at_as_many_songs_as_were_hidden():
    recommended, hidden = np.array([3, 7, 4, 5]), np.array([3, 4, 8])
    assert r_precision(recommended, hidden) == pytest.approx(2 / 3)
    assert r_precision(recommended, np.array([5, 8])) == 0.0


def test_r_precision_credits_each_artist_once_and_unknown_artists_never():
    song_artist = np.array([0, 1, 2, 5, 5, 6, 2, 2])  # songs 3 and 4 share artist 5; the artists of 6 and 7 are unknown
    assert r_precision(np.array([3, 6, 7]), np.array([4, 5, 7]), song_artist) == pytest.approx((1 + 0.25) / 3)


@given(st.permutations(range(3, 12)), st.sets(st.integers(3, 14), min_size=1), st.integers(1, 12))
def test_ndcg_of_a_list_is_its_gain_over_that_of_the_sorted_one(recommended, hidden, k):
    def gain(hits):
        return sum(hit / math.log2(place + 1) for place, hit in enumerate(hits[:k], start=1))

    expected = gain([song in hidden for song in recommended]) / gain([True] * len(hidden))
    assert ndcg_of_list(np.array(recommended), np.array(sorted(hidden)), k) == pytest.approx(expected)


def test_ndcg_of_a_list_with_one_hidden_song_is_that_of_its_rank():
    assert ndcg_of_list(np.array([8, 9, 7, 6]), np.array([7]), 10) == ndcg_at(np.array([3]), 10)[0]


def test_a_list_that_names_a_song_twice_is_refused():
    with pytest.raises(DataError, match="hold one twice"):
        recall_at(np.array([3, 4, 3]), np.array([3]), 3)


def test_nothing_hidden_cannot_be_judged():
    with pytest.raises(DataError, match="no relevant song"):
        r_precision(np.array([3]), np.array([], dtype=np.int64))


def test_coverage_counts_a_song_once_however_often_it_is_recommended():
    assert catalogue_coverage([np.array([3, 4]), np.array([3, 5]), np.array([3])], n_candidates=12) == pytest.approx(3 / 12)


def test_distinct_artists_leave_unknown_ones_out():
    song_artist = np.array([0, 1, 2, 7, 7, 8, 2])
    assert distinct_artists(np.array([3, 4, 5, 6]), song_artist) == pytest.approx(2 / 3)
    assert distinct_artists(np.array([6]), song_artist) == 1.0


def test_popularity_is_relative_to_the_history():
    counts = np.array([0, 0, 0, 10, 2, 1])
    assert popularity_ratio(np.array([4, 5]), np.array([3, 4]), counts) == pytest.approx(((2 + 1) / 2) / ((10 + 2) / 2))
    with pytest.raises(DataError, match="needs a history"):
        popularity_ratio(np.array([4]), np.array([0]), counts)


def test_novelty_is_the_mean_surprise_in_bits():
    sequences_with = np.array([0, 16, 4, 1])
    assert novelty(np.array([1, 2, 3]), sequences_with, 16) == pytest.approx((0 + 2 + 4) / 3)
    assert novelty(np.array([0]), sequences_with, 16) == pytest.approx(4)


@given(arrays.arrays(np.float64, (5, 3), elements=st.integers(-3, 3)))
def test_diversity_is_the_mean_distance_over_all_pairs(vectors):
    def distance(one, other):
        lengths = np.linalg.norm(one) * np.linalg.norm(other)
        return 1 - (one @ other / lengths if lengths else 0)

    pairs = [distance(vectors[i], vectors[j]) for i in range(5) for j in range(5) if i != j]
    assert intra_list_diversity(vectors) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_a_single_song_has_no_diversity():
    assert intra_list_diversity(np.array([[1.0, 2.0]])) == 0.0


def test_the_rank_without_some_songs_is_that_among_the_others():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scores = rng.integers(-2, 3, 12).astype(np.float32)  # many ties
        scores[rng.random(12) < 0.2] = -np.inf
        candidates = rng.random(12) < 0.7
        for target in range(12):
            expected = rank_of_target(scores[None], np.array([target]), candidates)[0]
            assert rank_without(scores, target, np.flatnonzero(~candidates)) == expected


def test_a_score_that_is_no_number_has_no_rank_without_songs_either():
    with pytest.raises(DataError, match="song number 2 is NaN"):
        rank_without(np.array([0.0, 1.0, np.nan]), 0, np.array([1]))
