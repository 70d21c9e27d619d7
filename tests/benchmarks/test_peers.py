import numpy as np
import pytest

from benchmarks.quality.ease import Ease
from benchmarks.quality.peers import BLEND, GRIDS, counting_answers
from config import EvaluationConfig
from errors import DataError
from splits import TEST
from tests.benchmarks.small import built, plain_songs, spelled, write_folder

# Sequences of a checkerboard: even songs go with even ones, odd with odd ones.
BOARD = np.array([3, 5, 7, 4, 6, 8, 3, 5, 9, 4, 6, 10, 5, 7, 9, 6, 8, 10])
BOARD_OFFSETS = np.arange(0, 19, 3)


def test_ease_has_the_weights_of_the_closed_form():
    ease = Ease(regularisation=2.0).fit(BOARD, BOARD_OFFSETS, 11)
    held = np.zeros((6, 8))
    held[np.repeat(np.arange(6), 3), BOARD - 3] = 1
    inverse = np.linalg.inv(held.T @ held + 2 * np.eye(8))
    weights = np.eye(8) - inverse / np.diag(inverse)
    np.testing.assert_allclose(ease.score([np.array([3, 5])])[0, 3:], weights[0] + weights[2], atol=1e-6)


def test_ease_goes_on_in_the_colour_of_the_prefix():
    ease = Ease(regularisation=1.0).fit(BOARD, BOARD_OFFSETS, 11)
    order = np.argsort(-ease.score([np.array([3, 5])])[0], kind="stable")
    assert {song % 2 for song in order[:4]} == {1}


def test_songs_beyond_the_most_played_stand_below_by_popularity():
    songs = np.array([3, 4, 3, 4, 3, 4, 5, 6, 6])
    ease = Ease(most_songs=2).fit(songs, np.array([0, 2, 4, 7, 9]), 8)
    scores = ease.score([np.array([3])])[0]
    assert scores[4] > scores[6] > scores[5] > scores[7] > scores[0] == -np.inf
    assert scores[3] > scores[6]


def test_ease_answers_an_unknown_prefix_with_what_is_popular():
    ease = Ease(regularisation=1.0).fit(BOARD, BOARD_OFFSETS, 12)
    assert np.argmax(ease.score([np.array([11])])[0]) == 5  # with 6 the most played song


def test_ease_refuses_a_regularisation_of_zero():
    with pytest.raises(DataError, match="regularisation must be above 0"):
        Ease(regularisation=0)


def test_every_peer_answers_every_question(tmp_path):
    lists = {f"{name}": "abcdef" if name % 2 else "ghijkl" for name in range(20)}
    times = ["playlist_id,base_id,name,snapshot_time"]
    times += [f"{name},{name},,{2019 if name < 12 else 2020 + (name > 15)}-12-01T00:00:00Z" for name in range(20)]
    data = built(write_folder(tmp_path / "lists", lists, plain_songs("abcdefghijklmnopqrstuvw"), times))
    answers = {one.party: one for one in counting_answers(data, TEST, EvaluationConfig(allow_repeats="yes"))}
    assert set(answers) == {*GRIDS, BLEND}
    assert answers["Markov"].ranks.tolist() == [1, 1, 1, 1]
    assert {spelled(data, answers["Markov"].lists[row][:1]) for row in range(4)} == {"f", "l"}
