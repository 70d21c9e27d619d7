from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError
from evaluation.baselines import (
    Baseline,
    Blend,
    CoOccurrence,
    ItemKNN,
    Markov,
    Popularity,
    Random,
    RecentPopularity,
    best_weights,
    standardised,
)
from evaluation.protocols import evaluate, leave_one_out_tasks, next_song_tasks
from evaluation.sequences import Offsets, Songs

A, B, C, D, E, F = range(3, 9)
N_SONGS = 9
UNKNOWN = 2

EVERY_KIND: dict[str, Callable[[], Baseline]] = {
    "random": Random,
    "popularity": Popularity,
    "recent popularity": RecentPopularity,
    "markov": Markov,
    "co-occurrence": CoOccurrence,
    "knn": ItemKNN,
    "blend": lambda: Blend({"markov": Markov(), "knn": ItemKNN()}),
}
of_every_kind = pytest.mark.parametrize("make", EVERY_KIND.values(), ids=EVERY_KIND.keys())


def flat(*sequences: list[int]) -> tuple[Songs, Offsets]:
    offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
    return np.array([song for sequence in sequences for song in sequence], dtype=np.int32), offsets


def scores_of(recommender, *prefix):
    return recommender.score([np.array(prefix, dtype=np.int32)])[0]


def ranking(recommender, *prefix):
    """The real songs, best first, ties by number."""
    scores = scores_of(recommender, *prefix)
    return [int(song) for song in np.argsort(-scores, kind="stable") if scores[song] > -np.inf]


def checkerboard(n_sequences: int = 40, seed: int = 0) -> tuple[Songs, Offsets]:
    """Sequences of four songs, each from one of two blocks of five: what belongs together is obvious."""
    rng = np.random.default_rng(seed)
    blocks = [np.arange(3, 8), np.arange(8, 13)]
    return flat(*[rng.permutation(blocks[at % 2])[:4].tolist() for at in range(n_sequences)])


@pytest.mark.parametrize("recommender", [CoOccurrence(), ItemKNN(), Markov()], ids=["co-occurrence", "knn", "markov"])
def test_on_a_checkerboard_the_own_block_comes_first(recommender):
    recommender.fit(*checkerboard(200), 13)
    for song in range(3, 13):
        others = {other for other in (range(3, 8) if song < 8 else range(8, 13)) if other != song}
        assert set([other for other in ranking(recommender, song) if other != song][:4]) == others


def test_markov_knows_a_cycle_by_heart():
    data = flat([A, B, C, D] * 5, [E, F])
    markov = Markov().fit(*data, N_SONGS)
    assert [ranking(markov, song)[0] for song in (A, B, C, D, E)] == [B, C, D, A, F]
    tasks = next_song_tasks(*data, np.array([0]), 0.5)
    assert evaluate(markov.score, tasks, n_songs=N_SONGS, allow_repeats=True).metrics["hr1"] == 1


def test_markov_orders_by_transitions_and_then_by_popularity():
    markov = Markov().fit(*flat([A, B], [A, B], [A, C], [F, F, F, F, D]), N_SONGS)
    # After A came B twice and C once; F occurs four times, D once, E never.
    assert ranking(markov, A) == [B, C, F, A, D, E]
    # What is popular adds at most half a transition; the most popular song, F, all of it.
    assert scores_of(markov, A)[[B, C, F, E]] == pytest.approx([(2 + 2 / 8) / 3, (1 + 1 / 8) / 3, 1 / 2 / 3, 0])


def test_a_single_transition_is_above_any_popularity():
    markov = Markov().fit(*flat([A, B], [F] * 1000), N_SONGS)
    assert ranking(markov, A)[:2] == [B, F]


def test_markov_does_not_step_from_one_sequence_to_the_next_or_across_an_unknown_song():
    markov = Markov().fit(*flat([A, B], [C, D], [E, UNKNOWN, F]), N_SONGS)
    assert markov._transitions.nnz == 2
    assert ranking(markov, A)[0] == B
    assert ranking(markov, C)[0] == D


def test_markov_passes_over_an_unknown_song_at_the_end():
    markov = Markov().fit(*flat([A, B], [C, D], [C, D]), N_SONGS)
    np.testing.assert_array_equal(scores_of(markov, A, UNKNOWN, UNKNOWN), scores_of(markov, A))


def test_markov_counts_the_transitions_of_the_prefix_as_told():
    data = flat([A, B], [A, B], [A, B])
    assert ranking(Markov(prefix_weight=0).fit(*data, N_SONGS), A, C, A)[0] == B
    assert ranking(Markov(prefix_weight=1).fit(*data, N_SONGS), A, C, A)[:2] == [B, C]
    weighted = scores_of(Markov(prefix_weight=4).fit(*data, N_SONGS), A, C, A)
    # Three transitions of training and four for the one of the prefix; popularity gives B a half and C nothing.
    assert weighted[[B, C]] == pytest.approx([3.5 / 7, 4 / 7])


def test_recent_popularity_halves_with_every_half_life():
    recent = RecentPopularity(half_life=0.25).fit(*flat([A], [B], [C], [D]), N_SONGS)
    assert scores_of(recent)[[A, B, C, D, E]] == pytest.approx([1 / 8, 1 / 4, 1 / 2, 1, 0])


def test_popularity_counts_plays():
    assert scores_of(Popularity().fit(*flat([A, B, A], [A]), N_SONGS), B)[3:].tolist() == [3, 1, 0, 0, 0, 0]


def test_cooccurrence_adds_the_decayed_shares_of_the_last_songs():
    cooccurrence = CoOccurrence(last=2, decay=0.5).fit(*flat([A, B], [A, C], [B, C, D], [A, B]), N_SONGS)
    # A is in 3 sequences: 2 with B, 1 with C.  C is in 2: 1 with A, 1 with B, 1 with D.  B, too old, has no say.
    expected = [1 / 2, 1 / 2 + 1 / 2 * 2 / 3, 1 / 2 * 1 / 3, 1 / 2]
    assert scores_of(cooccurrence, B, A, C)[[A, B, C, D]] == pytest.approx(expected)
    assert ranking(cooccurrence, B, A, C) == [B, A, D, C, E, F]


def test_a_song_goes_with_itself_as_often_as_it_is_repeated():
    cooccurrence = CoOccurrence().fit(*flat([A, B, A], [A, C], [D, E, D]), N_SONGS)
    assert cooccurrence._shares[[A, D, B], [A, D, B]].tolist() == [1 / 2, 1, 0]


def test_long_sequences_are_cut_into_equal_pieces_of_at_most_the_window():
    cooccurrence = CoOccurrence(window=3).fit(*flat([A, B, C, D]), N_SONGS)
    pairs = {(int(row), int(column)) for row, column in zip(*cooccurrence._shares.nonzero(), strict=True)}
    assert pairs == {(A, B), (B, A), (C, D), (D, C)}


def test_knn_is_the_shrunk_cosine():
    knn = ItemKNN(shrink=0.5).fit(*flat([A, B], [A, B], [A, C]), N_SONGS)
    similarities = knn._similarities.toarray()
    assert similarities[A, [A, B, C, D]] == pytest.approx([0, 2 / (np.sqrt(3 * 2) + 0.5), 1 / (np.sqrt(3) + 0.5), 0])
    assert similarities == pytest.approx(similarities.T)


def test_knn_keeps_the_nearest_neighbours_and_of_equal_ones_the_smaller_number():
    knn = ItemKNN(neighbours=2, shrink=0).fit(*flat([A, B], [A, B], [A, E], [A, D], [A, C]), N_SONGS)
    assert knn._similarities[[A]].indices.tolist() == [B, C]


def test_knn_found_in_blocks_is_knn_found_at_once(monkeypatch):
    data = checkerboard()
    at_once = ItemKNN(neighbours=3).fit(*data, 13)._similarities
    monkeypatch.setattr("evaluation.baselines.KNN_BLOCK", 4)
    in_blocks = ItemKNN(neighbours=3).fit(*data, 13)._similarities
    np.testing.assert_array_equal(in_blocks.toarray(), at_once.toarray())


def test_knn_sums_over_the_distinct_songs_of_the_prefix():
    knn = ItemKNN().fit(*flat([A, B], [C, D]), N_SONGS)
    np.testing.assert_array_equal(scores_of(knn, A, C, A, A), scores_of(knn, C, A))


@of_every_kind
@given(st.lists(st.lists(st.integers(2, 12), max_size=8), min_size=1, max_size=5))
def test_a_batch_scores_like_its_prefixes_one_by_one(make, prefixes):
    recommender = make().fit(*checkerboard(), 13)
    arrays = [np.array(prefix, dtype=np.int32) for prefix in prefixes]
    together = recommender.score(arrays)
    assert (together.shape, together.dtype) == ((len(prefixes), 13), np.float32)
    np.testing.assert_allclose(together, np.concatenate([recommender.score([array]) for array in arrays]), rtol=1e-5, atol=1e-6)


@of_every_kind
def test_specials_never_score_and_all_songs_do(make):
    scores = make().fit(*flat([A, UNKNOWN, B], [UNKNOWN, UNKNOWN]), N_SONGS).score([np.array([A]), np.array([], dtype=np.int32)])
    assert (scores[:, :3] == -np.inf).all()
    assert np.isfinite(scores[:, 3:]).all()


@pytest.mark.parametrize("kind", ["popularity", "markov", "co-occurrence", "knn", "blend"])
@pytest.mark.parametrize("prefix", [[], [UNKNOWN], [F]], ids=["empty", "unknown", "never seen in training"])
def test_a_prefix_that_says_nothing_is_answered_with_what_is_popular(kind, prefix):
    recommender = EVERY_KIND[kind]().fit(*flat([C, B], [C, D], [C, B], [E]), N_SONGS)
    assert ranking(recommender, *prefix) == [C, B, D, E, A, F]


@of_every_kind
def test_no_training_sequences_leave_an_answer_all_the_same(make):
    scores = make().fit(np.array([], dtype=np.int32), np.array([0]), N_SONGS).score([np.array([A, B])])
    assert np.isfinite(scores[:, 3:]).all()


@pytest.mark.parametrize("make", [Popularity, RecentPopularity, Markov, CoOccurrence, ItemKNN])
def test_songs_outside_the_catalogue_are_refused(make):
    with pytest.raises(DataError, match="song numbers 3 to 9 reach beyond the catalogue of 9"):
        make().fit(*flat([A, 9]), N_SONGS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RecentPopularity(half_life=0),
        lambda: Markov(prefix_weight=0.5),
        lambda: CoOccurrence(last=0),
        lambda: CoOccurrence(decay=1.5),
        lambda: CoOccurrence(window=1).fit(*flat([A, B]), N_SONGS),
        lambda: ItemKNN(neighbours=0),
        lambda: Blend({}),
    ],
)
def test_settings_out_of_bounds_are_refused(make):
    with pytest.raises(DataError, match=r"must be|needs"):
        make()


def test_random_scores_depend_on_seed_and_prefix():
    data = flat([A, B])
    first, again, other = (Random(seed).fit(*data, N_SONGS) for seed in (1, 1, 2))
    assert scores_of(first, A).tolist() == scores_of(again, A).tolist()
    assert scores_of(first, A).tolist() != scores_of(other, A).tolist()
    assert scores_of(first, A).tolist() != scores_of(first, B).tolist()


def test_random_finds_a_song_among_a_hundred_once_in_ten_tries_of_ten():
    data = flat(*np.random.default_rng(0).integers(3, 103, size=(4000, 2)).tolist())
    tasks = leave_one_out_tasks(*data, np.arange(4000))
    evaluation = evaluate(Random(0).fit(*data, 103).score, tasks, n_songs=103, allow_repeats=True)
    assert evaluation.metrics["hr10"] == pytest.approx(0.1, abs=0.02)


def test_standardised_rows_have_mean_0_and_deviation_1_over_the_real_songs():
    standard = standardised(np.array([[-np.inf, -np.inf, -np.inf, 1, 2, 6], [-np.inf, -np.inf, -np.inf, 5, 5, 5]]))
    deviation = np.sqrt((4 + 1 + 9) / 3)
    assert standard == pytest.approx(np.array([[0, 0, 0, -2, -1, 3], [0, 0, 0, 0, 0, 0]]) / deviation, abs=1e-6)


def test_a_blend_adds_its_weighted_parts():
    blend = Blend({"markov": Markov(), "popularity": Popularity()}).fit(*flat([A, B], [C, C], [C, D]), N_SONGS)
    blend.weights = {"markov": 0.25, "popularity": 0.75}
    prefix = [np.array([A])]
    parts = [standardised(blend.parts[name].score(prefix)) for name in ("markov", "popularity")]
    np.testing.assert_allclose(blend.score(prefix)[:, 3:], (0.25 * parts[0] + 0.75 * parts[1])[:, 3:], rtol=1e-6)


def test_the_weight_goes_to_the_part_that_knows():
    data = checkerboard(n_sequences=60)
    tasks = leave_one_out_tasks(*data, np.arange(40, 60))
    training = data[0][: data[1][40]], data[1][:41]
    blend = Blend({"random": Random(), "knn": ItemKNN()}).fit(*training, 13)
    blend.choose_weights(tasks, n_songs=13, allow_repeats=False)
    assert blend.weights["knn"] >= 0.6
    assert sum(blend.weights.values()) == pytest.approx(1)


def test_the_weights_are_the_best_of_all_that_were_tried():
    data = checkerboard(n_sequences=30, seed=5)
    tasks = next_song_tasks(*data, np.arange(20, 30), 0.5)
    blend = Blend({"popularity": Popularity(), "markov": Markov(), "random": Random()}).fit(
        data[0][: data[1][20]], data[1][:21], 13
    )
    quality = {}
    for popularity, markov in [(p, m) for p in range(5) for m in range(5 - p)]:
        blend.weights = {"popularity": popularity / 4, "markov": markov / 4, "random": (4 - popularity - markov) / 4}
        evaluation = evaluate(blend.score, tasks, n_songs=13, allow_repeats=False)
        quality[tuple(blend.weights.values())] = evaluation.metrics["ndcg10"]
    blend.choose_weights(tasks, n_songs=13, allow_repeats=False, steps=4)
    assert quality[tuple(blend.weights.values())] == pytest.approx(max(quality.values()))


def test_of_many_tasks_evenly_spaced_ones_choose_the_weights():
    data = checkerboard(n_sequences=50)
    seen: list[int] = []

    def score(prefixes):
        seen.extend(int(prefix[0]) for prefix in prefixes)
        return np.random.default_rng(0).random((len(prefixes), 13))

    tasks = leave_one_out_tasks(*data, np.arange(50))
    best_weights({"noted": score}, tasks, n_songs=13, allow_repeats=True, max_tasks=3, batch_size=2)
    assert seen == [int(data[0][data[1][sequence]]) for sequence in (0, 24, 49)]


def test_no_validation_task_cannot_choose_weights():
    tasks = leave_one_out_tasks(*flat([A]), np.array([0]))
    with pytest.raises(DataError, match="nothing to evaluate"):
        best_weights({"popularity": Popularity().score}, tasks, n_songs=N_SONGS, allow_repeats=True)
