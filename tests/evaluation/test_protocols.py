import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errors import DataError
from evaluation.protocols import evaluate, leave_one_out_tasks, next_song_tasks, paired_bootstrap
from evaluation.sequences import Offsets, Songs

A, B, C, D, E = range(3, 8)
N_SONGS = 8


def flat(*sequences: list[int]) -> tuple[Songs, Offsets]:
    offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
    return np.array([song for sequence in sequences for song in sequence], dtype=np.int32), offsets


def every(sequences):
    return np.arange(len(sequences[1]) - 1)


def always(*best_first):
    """A recommender with one answer, whatever the prefix; songs that it does not name score 0."""
    row = np.zeros(N_SONGS)
    row[list(best_first)] = np.arange(len(best_first), 0, -1)
    return lambda prefixes: np.tile(row, (len(prefixes), 1))


def asked(tasks):
    return [(prefix.tolist(), int(target)) for prefix, target in zip(tasks.prefixes(), tasks.targets, strict=True)]


def test_the_last_fifth_is_asked_for_song_by_song():
    data = flat([A, B, C, D, E, A, B, C, D, E], [A, B], [E])
    tasks = next_song_tasks(*data, every(data), last_share=0.2)
    assert asked(tasks) == [([A, B, C, D, E, A, B, C], D), ([A, B, C, D, E, A, B, C, D], E), ([A], B)]
    assert tasks.sequence.tolist() == [0, 0, 1]


def test_only_the_named_sequences_are_asked_for():
    data = flat([A, B], [C, D], [D, E])
    assert asked(next_song_tasks(*data, np.array([2, 0]))) == [([D], E), ([A], B)]


def test_the_first_song_is_never_a_target():
    data = flat([A, B, C])
    assert asked(next_song_tasks(*data, every(data), last_share=1.0)) == [([A], B), ([A, B], C)]


@given(st.lists(st.integers(0, 120), max_size=6), st.integers(1, 100))
@example([100], 29)  # as floating point numbers, 100 * 0.29 is below 29
def test_the_number_of_targets_is_the_share_rounded_down(lengths, percent):
    data = flat(*[[A] * length for length in lengths])
    tasks = next_song_tasks(*data, every(data), last_share=percent / 100)
    expected = [min(max(length * percent // 100, 1), max(length - 1, 0)) for length in lengths]
    assert np.bincount(tasks.sequence, minlength=len(lengths)).tolist() == expected


def test_leave_one_out_asks_for_the_last_song_or_the_one_before():
    data = flat([A, B, C], [D, E], [A])
    assert asked(leave_one_out_tasks(*data, every(data))) == [([A, B], C), ([D], E)]
    assert asked(leave_one_out_tasks(*data, every(data), from_end=2)) == [([A], B)]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan])
def test_a_share_outside_its_bounds_is_refused(share):
    with pytest.raises(DataError, match="last_share must be above 0"):
        next_song_tasks(*flat([A, B]), np.array([0]), last_share=share)


def test_sequence_numbers_beyond_the_data_are_refused():
    with pytest.raises(DataError, match="reach beyond the 1 sequences"):
        next_song_tasks(*flat([A, B]), np.array([0, 1]))


def test_offsets_that_do_not_divide_the_songs_are_refused():
    with pytest.raises(DataError, match="from 0 to the number of songs, 2"):
        leave_one_out_tasks(np.array([A, B]), np.array([0, 3]), np.array([0]))


def test_prefixes_are_views_and_not_copies():
    songs, offsets = flat([A, B, C])
    assert np.shares_memory(next_song_tasks(songs, offsets, np.array([0])).prefixes()[0], songs)


def test_a_history_stands_before_the_prefix_and_the_targets_stay():
    """The second sequence has the first as its history, the third and the fourth have none and the third."""
    data = flat([A, B], [C, D, E], [E, A], [B, C])
    short = next_song_tasks(*data, np.array([3, 1, 2]), last_share=0.7)
    tasks = short.with_history(np.array([0, 0, 5, 5]))
    assert asked(tasks) == [([E, A, B], C), ([A, B, C], D), ([A, B, C, D], E), ([E], A)]
    assert asked(short) == [([B], C), ([C], D), ([C, D], E), ([E], A)]
    assert tasks.sequence.tolist() == short.sequence.tolist() == [3, 1, 1, 2]
    assert asked(tasks.select(np.array([2, 0]))) == [([A, B, C, D], E), ([E, A, B], C)]


def test_a_sequence_that_is_its_own_history_is_asked_as_it_was():
    data = flat([A, B], [C, D, E])
    tasks = next_song_tasks(*data, every(data))
    assert asked(tasks.with_history(data[1][:-1])) == asked(tasks)


def test_a_song_of_the_history_is_a_repeat():
    data = flat([A, B], [C, A], [D, B])
    tasks = leave_one_out_tasks(*data, np.array([1, 2])).with_history(np.array([0, 0, 4]))
    assert tasks.repeats.tolist() == [True, False]


def test_metrics_are_averaged_within_a_sequence_and_then_over_sequences():
    data = flat([A, B, C, D], [E, B])  # with half of them asked for: C and D of the first, B of the second
    evaluation = evaluate(
        always(B, C, D, E, A), next_song_tasks(*data, every(data), 0.5), n_songs=N_SONGS, allow_repeats=True, batch_size=2
    )
    # C has rank 2, D rank 3, B rank 1.
    assert evaluation.metrics == pytest.approx(
        {
            "hr1": 1 / 2 * (0 + 1),
            "hr5": 1,
            "hr10": 1,
            "ndcg5": 1 / 2 * (1 / 2 * (1 / math.log2(3) + 1 / math.log2(4)) + 1),
            "ndcg10": 1 / 2 * (1 / 2 * (1 / math.log2(3) + 1 / math.log2(4)) + 1),
            "mrr": 1 / 2 * (1 / 2 * (1 / 2 + 1 / 3) + 1),
        }
    )
    assert (evaluation.n_sequences, evaluation.n_tasks, evaluation.n_left_out) == (2, 3, 0)
    assert evaluation.per_sequence["mrr"].tolist() == pytest.approx([5 / 12, 1])


def test_without_repeats_the_prefix_does_not_stand_in_the_way():
    data = flat([A, B, C, D])
    tasks = leave_one_out_tasks(*data, every(data))
    score = always(A, B, C, D, E)
    assert evaluate(score, tasks, n_songs=N_SONGS, allow_repeats=True).metrics["mrr"] == 1 / 4
    assert evaluate(score, tasks, n_songs=N_SONGS, allow_repeats=False).metrics["mrr"] == 1


def test_without_repeats_a_target_of_its_prefix_is_left_out_and_counted():
    data = flat([A, B, A], [C, D], [E, E])
    evaluation = evaluate(always(D), leave_one_out_tasks(*data, every(data)), n_songs=N_SONGS, allow_repeats=False)
    assert (evaluation.n_left_out, evaluation.n_tasks, evaluation.sequences.tolist()) == (2, 1, [1])


def test_specials_are_never_candidates():
    data = flat([A, B])
    score = always(0, 1, 2, B)
    assert evaluate(score, leave_one_out_tasks(*data, every(data)), n_songs=N_SONGS, allow_repeats=True).metrics["hr1"] == 1


@pytest.mark.parametrize("allow_repeats", [True, False])
def test_an_unknown_target_is_a_miss_and_not_a_repeat(allow_repeats):
    data = flat([2, A, 2])
    evaluation = evaluate(always(2), leave_one_out_tasks(*data, every(data)), n_songs=N_SONGS, allow_repeats=allow_repeats)
    assert (evaluation.n_tasks, set(evaluation.metrics.values())) == (1, {0.0})


def test_figures_are_split_by_warm_and_cold_and_by_repeat_and_explore():
    data = flat([A, B, A], [A, E], [B, C])
    trained = np.isin(np.arange(N_SONGS), [A, B, C])
    evaluation = evaluate(
        always(A, B, C, D, E), leave_one_out_tasks(*data, every(data)), n_songs=N_SONGS, allow_repeats=True, trained=trained
    )
    sequences = {name: part.sequences.tolist() for name, part in evaluation.parts.items()}
    assert sequences == {"warm": [0, 2], "cold": [1], "repeat": [0], "explore": [1, 2]}
    assert {name: part.metrics["mrr"] for name, part in evaluation.parts.items()} == pytest.approx(
        {"warm": 1 / 2 * (1 + 1 / 3), "cold": 1 / 5, "repeat": 1, "explore": 1 / 2 * (1 / 5 + 1 / 3)}
    )


def test_a_part_without_tasks_is_absent():
    data = flat([A, B])
    tasks = leave_one_out_tasks(*data, every(data))
    evaluation = evaluate(always(B), tasks, n_songs=N_SONGS, allow_repeats=False, trained=np.ones(N_SONGS, dtype=bool))
    assert list(evaluation.parts) == ["warm"]


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([np.float16, np.float32, np.float64]))
def test_the_evaluation_agrees_with_sorting_all_songs_by_hand(seed, allow_repeats, kind):
    rng = np.random.default_rng(seed)
    data = flat(*[rng.integers(3, N_SONGS, size=length).tolist() for length in (2, 5, 9)])
    scores = np.random.default_rng(seed).integers(0, 4, size=(20, N_SONGS)).astype(kind)  # a row for each length of prefix

    def by_length(prefixes):
        return scores[[len(prefix) for prefix in prefixes]]

    found: dict[int, list[float]] = {}
    tasks = next_song_tasks(*data, every(data), 0.5)
    for sequence, (prefix, target) in zip(tasks.sequence.tolist(), asked(tasks), strict=True):
        songs = [song for song in range(3, N_SONGS) if allow_repeats or song not in prefix]
        if target in songs:
            order = sorted(songs, key=lambda song: (-scores[len(prefix), song], song))
            found.setdefault(sequence, []).append(1 / (order.index(target) + 1))
    if not found:
        with pytest.raises(DataError, match="nothing to evaluate"):
            evaluate(by_length, tasks, n_songs=N_SONGS, allow_repeats=allow_repeats)
        return
    evaluation = evaluate(by_length, tasks, n_songs=N_SONGS, allow_repeats=allow_repeats, batch_size=3)
    assert evaluation.metrics["mrr"] == pytest.approx(np.mean([np.mean(values) for values in found.values()]))


def test_progress_hears_of_every_task_once():
    data = flat([A, B, C, D, E])
    heard: list[int] = []
    tasks = next_song_tasks(*data, every(data), 1.0)
    evaluate(always(A), tasks, n_songs=N_SONGS, allow_repeats=True, batch_size=3, progress=heard.append)
    assert heard == [3, 1]


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(DataError, match="nothing to evaluate: all 1 tasks"):
        evaluate(always(A), leave_one_out_tasks(*flat([A, A]), np.array([0])), n_songs=N_SONGS, allow_repeats=False)


def test_scores_of_another_shape_are_refused():
    tasks = leave_one_out_tasks(*flat([A, B]), np.array([0]))
    with pytest.raises(DataError, match=r"shape \(1, 4\), wanted is \(1, 8\)"):
        evaluate(lambda prefixes: np.zeros((len(prefixes), 4)), tasks, n_songs=N_SONGS, allow_repeats=True)


def test_songs_outside_the_catalogue_are_refused():
    tasks = leave_one_out_tasks(*flat([A, B, 99]), np.array([0]))
    with pytest.raises(DataError, match="song number 99 is outside the catalogue of 8"):
        evaluate(always(A), tasks, n_songs=N_SONGS, allow_repeats=True)


def test_a_recommender_that_is_twice_as_good_everywhere_has_the_ratio_two_without_doubt():
    b = np.array([0.1, 0.2, 0.3, 0.4])
    interval = paired_bootstrap(2 * b, b, rng=np.random.default_rng(0))
    assert (interval.ratio, interval.ratio_low, interval.ratio_high) == pytest.approx((2, 2, 2))
    assert interval.difference == pytest.approx(0.25)
    assert 0.1 <= interval.difference_low < 0.25 < interval.difference_high <= 0.4


def test_the_interval_of_a_mean_of_many_is_that_of_the_normal_law():
    difference = np.random.default_rng(1).normal(0.5, 1.0, size=2500)
    interval = paired_bootstrap(difference, np.zeros(2500), n=4000, rng=np.random.default_rng(2))
    error = 1.96 * difference.std() / math.sqrt(2500)
    assert interval.difference_low == pytest.approx(difference.mean() - error, abs=0.1 * error)
    assert interval.difference_high == pytest.approx(difference.mean() + error, abs=0.1 * error)


def test_versions_of_one_list_do_not_narrow_the_interval():
    rng = np.random.default_rng(3)
    a, b = rng.random(30), rng.random(30)
    once = paired_bootstrap(a, b, rng=np.random.default_rng(4))
    tenfold = paired_bootstrap(np.repeat(a, 10), np.repeat(b, 10), np.repeat(np.arange(30), 10), rng=np.random.default_rng(4))
    assert tenfold.n_groups == 30
    assert (tenfold.difference_low, tenfold.difference_high) == pytest.approx((once.difference_low, once.difference_high))


def test_groups_weigh_by_their_sequences():
    interval = paired_bootstrap(
        np.array([1.0, 1.0, 4.0]), np.array([1.0, 1.0, 1.0]), np.array(["x", "x", "y"]), rng=np.random.default_rng(0)
    )
    assert (interval.difference, interval.ratio) == pytest.approx((1.0, 2.0))
    assert (interval.difference_low, interval.difference_high) == pytest.approx((0.0, 3.0))


def test_against_nothing_the_ratio_is_infinite():
    interval = paired_bootstrap(np.array([0.5, 0.5]), np.zeros(2), rng=np.random.default_rng(0))
    assert (interval.ratio, interval.ratio_low, interval.ratio_high) == (math.inf, math.inf, math.inf)
    nothing = paired_bootstrap(np.zeros(2), np.zeros(2), rng=np.random.default_rng(0))
    assert (nothing.ratio, nothing.difference_low, nothing.difference_high) == (1, 0, 0)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], []), ([math.nan], [1.0])])
def test_figures_that_do_not_pair_up_are_refused(a, b):
    with pytest.raises(DataError, match="a paired bootstrap needs"):
        paired_bootstrap(np.array(a), np.array(b), rng=np.random.default_rng(0))
