import numpy as np
import torch

from config import FIRST_NUMBER
from memory import LookedUp
from serving.index import Contexts, ScoringIndex

NONE = np.array([], np.int64)


def one_hot_index(bias):
    """An index whose songs are the axes: the score of song v is its context's entry v plus its bias."""
    return ScoringIndex(torch.eye(len(bias)), torch.tensor(bias))


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


# One context in which song 4 was looked up twice and song 3 once; PAD stands for nothing.
LOOKED_UP = LookedUp(songs=torch.tensor([[4, 0, 3, 4]]), bonus=torch.tensor([[1.0, 0.0, 1.5, 1.0]]))


def test_what_was_looked_up_is_added_to_the_scores():
    [best] = one_hot_index([0.0] * 6).top(contexts([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]], looked_up=LOOKED_UP), [3], [NONE])
    assert (best.numbers.tolist(), best.scores.tolist()) == ([4, 3, 5], [2.0, 1.5, 1.0])


def test_what_was_looked_up_counts_in_a_lead():
    leads = one_hot_index([0.0] * 6).leads(contexts([[0.0] * 6], looked_up=LOOKED_UP), np.array([5, 4, 3]))
    average = 3.5 / 3
    np.testing.assert_allclose(leads, [[-average, 2.0 - average, 1.5 - average]], rtol=1e-6)
