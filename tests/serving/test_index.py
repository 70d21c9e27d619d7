import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config import FIRST_NUMBER
from errors import ConfigError
from memory import LookedUp
from serving import index as index_module
from serving.index import Contexts, Ranked, ScoringIndex, choose_index, fault_of_int8, int8_product

NONE = np.array([], np.int64)
PRODUCTS = ("fp32", "int8")


def one_hot_index(bias, name="fp32"):
    """An index whose songs are the axes: the score of song v is its context's entry v plus its bias."""
    return ScoringIndex(torch.eye(len(bias)), torch.tensor(bias), name)


def contexts(queries, **looked_up):
    return Contexts(queries=torch.tensor(queries), **looked_up)


def test_the_best_songs_come_first_with_their_scores():
    [best] = one_hot_index([0.0] * 6).top(contexts([[9.0, 9.0, 9.0, 1.0, 3.0, 2.0]]), [2], [NONE])
    assert best.numbers.tolist() == [4, 5]
    assert best.scores.tolist() == [3.0, 2.0]


def test_specials_and_excluded_songs_never_come_even_when_the_catalogue_ends():
    [best] = one_hot_index([5.0] * 6).top(contexts([[1.0] * 6]), [6], [np.array([0, 2, 4])])
    assert best.numbers.tolist() == [3, 5]


def test_songs_of_equal_score_come_by_rising_number():
    scores = torch.zeros(1, 200)
    scores[0, 150] = 1.0
    [best] = one_hot_index([0.0] * 200).top(Contexts(queries=scores), [4], [NONE])
    assert best.numbers.tolist() == [150, 3, 4, 5]


def test_each_context_gets_its_own_count_and_exclusions():
    index = one_hot_index([0.0, 0.0, 0.0, 0.3, 0.2, 0.1])
    best = index.top(contexts([[0.0] * 6] * 3), [1, 3, 2], [NONE, NONE, np.array([3])])
    assert [row.numbers.tolist() for row in best] == [[3], [3, 4, 5], [4, 5]]


def test_everything_excluded_leaves_nothing():
    [best] = one_hot_index([0.0] * 5).top(contexts([[1.0] * 5]), [3], [np.array([3, 4])])
    assert best.numbers.tolist() == [] == best.scores.tolist()


def test_a_lead_is_the_score_less_the_average_of_the_real_songs():
    bias = [float("-inf")] * FIRST_NUMBER + [1.0, 0.0, 2.0]  # average 1 and the context's average 4
    leads = one_hot_index(bias).leads(contexts([[0.0, 0.0, 0.0, 3.0, 9.0, 0.0]]), np.array([3, 5]))
    np.testing.assert_allclose(leads, [[(3 + 1) - 5, (0 + 2) - 5]])


def test_a_constant_added_to_every_song_changes_no_lead():
    two = contexts([[0.0, 0.0, 0.0, 3.0, 9.0, 1.0], [7.0] * 3 + [10.0, 16.0, 8.0]])
    leads = one_hot_index([0.0] * 6).leads(two, np.array([3, 4, 5]))
    np.testing.assert_allclose(leads[0], leads[1], rtol=1e-5)


def test_cosines_are_those_of_the_angles_and_norms_are_computed_once(monkeypatch):
    norm, computed = torch.linalg.vector_norm, []
    index = ScoringIndex(torch.tensor([[1.0, 0.0]] * 3 + [[2.0, 0.0], [3.0, 3.0], [0.0, 0.5], [0.0, 0.0]]), torch.zeros(7))
    monkeypatch.setattr(torch.linalg, "vector_norm", lambda *arguments, **more: (computed.append(1), norm(*arguments, **more))[1])
    half = 2**-0.5
    np.testing.assert_allclose(index.cosines(3), [1, 1, 1, 1, half, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(index.cosines(5), [0, 0, 0, 0, half, 1, 0], rtol=1e-6)
    assert index.cosines(6).tolist() == [0.0] * 7
    assert len(computed) == 1


# One context in which song 4 was looked up twice and song 3 once; PAD stands for nothing.
LOOKED_UP = LookedUp(songs=torch.tensor([[4, 0, 3, 4]]), bonus=torch.tensor([[1.0, 0.0, 1.5, 1.0]]))


def test_what_was_looked_up_is_added_to_the_scores():
    [best] = one_hot_index([0.0] * 6).top(contexts([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]], looked_up=LOOKED_UP), [3], [NONE])
    assert (best.numbers.tolist(), best.scores.tolist()) == ([4, 3, 5], [2.0, 1.5, 1.0])


def test_what_was_looked_up_counts_in_a_lead():
    leads = one_hot_index([0.0] * 6).leads(contexts([[0.0] * 6], looked_up=LOOKED_UP), np.array([5, 4, 3]))
    average = 3.5 / 3
    np.testing.assert_allclose(leads, [[-average, 2.0 - average, 1.5 - average]], rtol=1e-6)


# --- the same songs, whichever product finds them


def scores_by_hand(embeddings, bias, contexts):
    """(B, V) in float64, rounded to float32 once; minus infinity at the specials."""
    scores = contexts.queries.double().numpy() @ embeddings.double().numpy().T + bias.double().numpy()
    if contexts.looked_up is not None:
        for row, songs, bonuses in zip(scores, *(column.double().numpy() for column in contexts.looked_up), strict=True):
            np.add.at(row, songs.astype(int), bonuses)
    scores[:, :FIRST_NUMBER] = -np.inf
    return scores.astype(np.float32)


def best_by_hand(scores, count, excluded=NONE, mask=None):
    """(number, score) of the best songs of one row, equal ones by rising number."""
    barred = set(excluded.tolist()) | ({number for number, kept in enumerate(mask) if not kept} if mask is not None else set())
    real = [number for number in range(len(scores)) if number not in barred and np.isfinite(scores[number])]
    best = sorted(real, key=lambda number: (-scores[number], number))[:count]
    return [(number, scores[number]) for number in best]


def pairs_of(ranked):
    return list(zip(ranked.numbers.tolist(), ranked.scores.tolist(), strict=True))


def random_contexts(rng, B, V, D, C=40):
    songs = torch.from_numpy(rng.integers(0, V, (B, C)))
    bonus = torch.from_numpy(rng.random((B, C), np.float32) * (songs.numpy() >= FIRST_NUMBER))
    return Contexts(queries=torch.from_numpy(rng.standard_normal((B, D), np.float32)), looked_up=LookedUp(songs, bonus))


def gaussian(rng, V, D):
    return rng.standard_normal((V, D), np.float32), rng.standard_normal(V, np.float32)


def with_one_huge_coordinate(rng, V, D):
    """The codes of every song see nothing but its first coordinate."""
    embeddings, bias = gaussian(rng, V, D)
    embeddings[:, 0] = 3e4
    return embeddings, bias


def with_some_huge_songs(rng, V, D):
    embeddings, bias = gaussian(rng, V, D)
    embeddings[::97] *= 1e4
    return embeddings, bias


def with_huge_biases(rng, V, D):
    """At 10^6 float32 counts in steps of 1/16: hundreds of songs tie after rounding that did not before."""
    embeddings, bias = gaussian(rng, V, D)
    return embeddings, bias + 1e6


def of_few_kinds(rng, V, D):
    """Twenty songs, each of them many times over, and many that are zero."""
    kinds, _ = gaussian(rng, 20, D)
    kinds[::2] = 0
    return kinds[rng.integers(0, 20, V)], np.zeros(V, np.float32)


def nearly_the_same(rng, V, D):
    """Songs that differ by less than int8 can tell."""
    one = rng.standard_normal(D, np.float32)
    return one + 1e-5 * rng.standard_normal((V, D), np.float32), np.zeros(V, np.float32)


def all_zero(rng, V, D):
    return np.zeros((V, D), np.float32), np.zeros(V, np.float32)


CATALOGUES = [gaussian, with_one_huge_coordinate, with_some_huge_songs, with_huge_biases, of_few_kinds, nearly_the_same, all_zero]


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_the_best_songs_and_their_scores_are_those_of_float64_whatever_the_catalogue(name, catalogue):
    rng = np.random.default_rng(0)
    V, counts = 9_001, [1, 10, 60, 700]  # the last one takes another way: there are 141 blocks
    embeddings, bias = map(torch.from_numpy, catalogue(rng, V, 24))
    contexts = random_contexts(rng, len(counts), V, 24)
    contexts.queries[2] = 0
    excluded = [rng.integers(0, V, 30) for _ in counts]
    masks = [None, rng.random(V) < 0.5, None, rng.random(V) < 0.01]
    found = ScoringIndex(embeddings, bias, name).top(contexts, counts, excluded, masks)
    scores = scores_by_hand(embeddings, bias, contexts)
    assert [pairs_of(best) for best in found] == [
        best_by_hand(row, count, numbers, mask) for row, count, numbers, mask in zip(scores, counts, excluded, masks, strict=True)
    ]


@pytest.mark.parametrize("name", PRODUCTS)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), V=st.integers(3, 300), count=st.integers(1, 400), catalogue=st.sampled_from(CATALOGUES))
def test_any_number_of_songs_can_be_asked_for(name, seed, V, count, catalogue):
    rng = np.random.default_rng(seed)
    embeddings, bias = map(torch.from_numpy, catalogue(rng, V, 5))
    contexts = random_contexts(rng, 2, V, 5)
    excluded = [rng.integers(0, V, V // 2), NONE]
    found = ScoringIndex(embeddings, bias, name).top(contexts, [count, V], excluded)
    first, second = scores_by_hand(embeddings, bias, contexts)
    assert [pairs_of(best) for best in found] == [best_by_hand(first, count, excluded[0]), best_by_hand(second, V)]


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_song_looked_up_many_times_is_bounded_by_all_of_it(name):
    """Each of a thousand additions of 0.001 to 2^14 is lost to float32, and 0.002 a song away is what they add up to."""
    songs = torch.full((1, 1000), 4)
    looked_up = LookedUp(songs, torch.full((1, 1000), 0.0009))
    index = ScoringIndex(torch.zeros(200, 4), torch.tensor([0.0] * 3 + [16384.5] + [16384.0] + [0.0] * 195), name)
    [best] = index.top(Contexts(queries=torch.zeros(1, 4), looked_up=looked_up), [1], [NONE])
    assert pairs_of(best) == [(4, np.float32(16384.0 + 1000 * np.float64(np.float32(0.0009))))]


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_one_context_gets_does_not_depend_on_the_others(name):
    rng = np.random.default_rng(1)
    embeddings, bias = map(torch.from_numpy, gaussian(rng, 5_000, 16))
    index, contexts = ScoringIndex(embeddings, bias, name), random_contexts(rng, 9, 5_000, 16)
    contexts.queries[4] *= 1e4
    together = index.top(contexts, [10] * 9, [NONE] * 9)
    singly = [index.top(contexts.part(slice(row, row + 1)), [10], [NONE])[0] for row in range(9)]
    assert [pairs_of(best) for best in together] == [pairs_of(best) for best in singly]


def test_a_large_batch_is_answered_in_parts(monkeypatch):
    rng = np.random.default_rng(2)
    index, contexts = ScoringIndex(*map(torch.from_numpy, gaussian(rng, 500, 16))), random_contexts(rng, 7, 500, 16)
    whole = index.top(contexts, [5] * 7, [NONE] * 7)
    confidences = index.confidences(contexts, whole)
    monkeypatch.setattr(index_module, "MOST_BOUNDS", 1_100)
    parts = index.top(contexts, [5] * 7, [NONE] * 7)
    assert [pairs_of(best) for best in parts] == [pairs_of(best) for best in whole]
    np.testing.assert_allclose(index.confidences(contexts, whole), confidences, rtol=1e-5)


def test_int8_asks_fp32_only_where_it_leaves_too_many_songs(monkeypatch):
    """The first query sees what makes the songs' codes coarse, the second all but that."""
    monkeypatch.setattr(index_module, "MOST_CANDIDATES", 100)
    rng = np.random.default_rng(3)
    embeddings, bias = map(torch.from_numpy, gaussian(rng, 5_000, 16))
    embeddings[1_000:, 0] = 3e3
    index, asked = ScoringIndex(embeddings, bias, "int8"), []
    write = index._tries[1].write
    monkeypatch.setattr(
        index._tries[1], "write", lambda queries, *rest: (asked.append(queries.tolist()), write(queries, *rest))[1]
    )
    far, near = torch.zeros(1, 16), torch.ones(1, 16)
    far[0, 0], near[0, 0] = -1.0, 0.0  # minus 3,000 for songs of coarse codes, or nothing
    contexts = Contexts(queries=torch.cat([far, near]))
    found = index.top(contexts, [10, 10], [NONE, NONE])
    assert [pairs_of(best) for best in found] == [best_by_hand(row, 10) for row in scores_by_hand(embeddings, bias, contexts)]
    assert asked == [near.tolist()]


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("V", [3, 4, 63, 64, 65])
def test_where_nothing_may_be_recommended_nothing_is(name, V):
    rng = np.random.default_rng(4)
    index, contexts = ScoringIndex(*map(torch.from_numpy, gaussian(rng, V, 8)), name), random_contexts(rng, 2, V, 8)
    found = index.top(contexts, [2, V], [np.arange(V), NONE], [None, np.zeros(V, bool)])
    assert [pairs_of(best) for best in found] == [[], []]
    assert found[0].numbers.dtype == np.int64
    assert found[0].scores.dtype == np.float32


def test_a_song_with_a_bias_of_minus_infinity_is_never_recommended():
    bias = [0.0, 0.0, 0.0, 1.0, float("-inf"), 3.0]
    found = [one_hot_index(bias, name).top(contexts([[0.0] * 6]), [6], [NONE]) for name in PRODUCTS]
    assert [[best.numbers.tolist() for best in ranked] for ranked in found] == [[[5, 3]]] * 2


# --- confidence


@pytest.mark.parametrize("name", PRODUCTS)
def test_confidences_are_the_softmax_over_the_whole_catalogue(name):
    rng = np.random.default_rng(5)
    embeddings, bias = map(torch.from_numpy, gaussian(rng, 300, 8))
    index, contexts = ScoringIndex(embeddings, bias, name), random_contexts(rng, 3, 300, 8)
    ranked = index.top(contexts, [5, 300, 2], [np.arange(100)] * 3)
    likely = np.exp(scores_by_hand(embeddings, bias, contexts).astype(np.float64))
    likely /= likely.sum(axis=1, keepdims=True)
    for row, best, confidence in zip(likely, ranked, index.confidences(contexts, ranked), strict=True):
        np.testing.assert_allclose(confidence, row[best.numbers], rtol=1e-5)


def test_an_answer_without_songs_has_no_confidences():
    [confidence] = one_hot_index([0.0] * 5).confidences(
        contexts([[1.0] * 5]), [Ranked(numbers=NONE, scores=np.zeros(0, np.float32))]
    )
    assert confidence.tolist() == []


# --- which product


@pytest.fixture
def small_catalogue():
    return tuple(map(torch.from_numpy, gaussian(np.random.default_rng(6), 50, 8)))


@pytest.mark.parametrize("which", PRODUCTS)
def test_the_product_that_is_asked_for_is_used(which, small_catalogue):
    assert choose_index(*small_catalogue, which).name == which


@pytest.mark.parametrize("faster", PRODUCTS)
def test_the_faster_product_is_taken_and_said(faster, small_catalogue, monkeypatch, caplog):
    clock = {"now": 0.0}
    monkeypatch.setattr(index_module.time, "thread_time", lambda: clock["now"])

    def top(index, contexts, counts, excluded, top=ScoringIndex.top):
        clock["now"] += 1.0 if index.name == faster else 2.0
        return top(index, contexts, counts, excluded)

    monkeypatch.setattr(ScoringIndex, "top", top)
    with caplog.at_level(logging.DEBUG):
        assert choose_index(*small_catalogue).name == faster
    of_int8, of_fp32 = ("2000.00", "4000.00") if faster == "int8" else ("4000.00", "2000.00")
    assert caplog.messages == [f"songs are found by products in {faster}: {of_int8} ms in int8, {of_fp32} ms in fp32"]


def test_fp32_is_taken_where_int8_finds_other_songs(small_catalogue, monkeypatch, caplog):
    def top(index, contexts, counts, excluded):
        number = 4 if index.name == "int8" else 3
        return [Ranked(numbers=np.array([number]), scores=np.zeros(1, np.float32))] * len(counts)

    monkeypatch.setattr(ScoringIndex, "top", top)
    assert choose_index(*small_catalogue).name == "fp32"
    assert caplog.messages == ["songs are found by products in fp32: those in int8 found others on this machine"]


def saturating(left, right, largest=2**15 - 1):
    """What processors without VNNI do: one side is moved by 128 to have no sign, and sums of two products stop at 16 bits."""
    pairs = ((left[:, None].int() + 128) * right[None].int()).unflatten(2, (-1, 2)).sum(3)
    return (pairs.clamp(-largest, largest).sum(2) - 128 * right.int().sum(1)).int()


def wrong_at_the_extremes_only(left, right):
    return saturating(left, right, 2 * 255 * 127 - 1)


def failing(left, right):
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize(
    ("product", "fault"),
    [
        (saturating, "torch's int8 product is not exact on this processor"),
        (wrong_at_the_extremes_only, "torch's int8 product is not exact on this processor"),
        (failing, "torch's int8 product fails (no such kernel)"),
    ],
)
def test_a_faulty_int8_product_is_never_used(product, fault, small_catalogue, monkeypatch):
    monkeypatch.setattr(index_module, "int8_product", product)
    assert fault_of_int8(8) == fault
    assert choose_index(*small_catalogue).name == "fp32"
    with pytest.raises(ConfigError, match="choose auto or fp32"):
        choose_index(*small_catalogue, "int8")


def test_a_torch_without_int8_product_is_noticed(monkeypatch):
    monkeypatch.delattr(torch, "_int_mm")
    assert fault_of_int8(8) == "this torch has no int8 product"


@pytest.mark.parametrize("strides", [(0, 1), (1, 1), (16, 1)])
def test_a_single_row_with_any_stride_is_multiplied(strides):
    left, right = torch.arange(-8, 8, dtype=torch.int8), torch.arange(-64, 64, dtype=torch.int8).view(8, 16)
    assert torch.equal(int8_product(left.as_strided((1, 16), strides), right).long()[0], right.long() @ left.long())


def test_the_int8_product_here_is_right():
    assert [fault_of_int8(width) for width in (2, 8, 128, 200)] == [None] * 4


def test_both_products_keep_one_copy_of_the_embeddings(small_catalogue):
    embeddings, bias = small_catalogue
    assert {choose_index(embeddings, bias, which)._songs.embeddings.data_ptr() for which in PRODUCTS} == {embeddings.data_ptr()}
