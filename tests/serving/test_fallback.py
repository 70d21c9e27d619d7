from dataclasses import replace

import numpy as np
import pytest

from config import FIRST_NUMBER, UNKNOWN
from encoder_files import load_encoders
from errors import EncoderError
from serving.catalogue import SongCatalogue
from serving.fallback import CountScorer, popular_scores
from tests.engine.small import CIRCLE, small_snapshot
from tests.serving.small import small_encoders, small_model

# Two lists of four: 3 4 5 6 and 3 4 7 3.
SEQUENCES, OFFSETS, V = np.array([3, 4, 5, 6, 3, 4, 7, 3]), np.array([0, 4, 8]), 9
NO_ONE = [-np.inf] * FIRST_NUMBER


@pytest.fixture
def counts():
    return CountScorer(SEQUENCES, OFFSETS, V)


def test_songs_score_by_the_share_of_lists_in_which_they_stand_with_the_last_songs(counts):
    """With 5 stand 3, 4 and 6 in its one list; with 4, one song earlier, 3 in both of its lists and 5, 6, 7 in one."""
    [scores] = counts.score([np.array([4, 5])])
    assert scores[:FIRST_NUMBER].tolist() == NO_ONE
    expected = {3: 1 + 0.9, 4: 1, 5: 0.9 / 2, 6: 1 + 0.9 / 2, 7: 0.9 / 2}
    assert dict(enumerate(scores.tolist())) | expected == pytest.approx(dict(enumerate(scores.tolist())))


def test_without_a_known_song_what_is_popular_comes_first(counts):
    popular = [3, 4, 5, 6, 7, 8]
    for prefix in ([], [UNKNOWN, UNKNOWN], [8]):
        [scores] = counts.score([np.array(prefix, np.int64)])
        assert np.argsort(-scores, kind="stable")[:6].tolist() == popular
    assert counts.popular().tolist() == [*NO_ONE, 3, 2, 1, 1, 1, 0]


def test_new_songs_score_nothing_and_say_nothing(counts):
    grown = counts.grown(V + 2)
    prefixes = [np.array([4, 5]), np.array([4, V, 5, V + 1]), np.array([V])]
    before = counts.score([np.array([4, 5]), np.array([4, 5]), np.empty(0, np.int64)])
    assert grown.score(prefixes).tolist() == np.pad(before, ((0, 0), (0, 2))).tolist()
    assert grown.popular().tolist() == [*counts.popular().tolist(), 0, 0]
    assert counts.score(prefixes[:1]).shape == (1, V)


def test_a_snapshot_is_counted_with_all_its_parts(tmp_path):
    snapshot, folder = small_snapshot(tmp_path)
    counts = CountScorer.of(snapshot, load_encoders(folder))
    plays = [snapshot.sequences.tolist().count(number) for number in range(FIRST_NUMBER, snapshot.n_songs)]
    assert counts.popular().tolist() == [*NO_ONE, *plays]
    [scores] = counts.score([np.array([3, 4])])
    assert set(np.argsort(-scores)[:CIRCLE].tolist()) == set(range(FIRST_NUMBER, FIRST_NUMBER + CIRCLE))  # its circle


def test_encoders_of_other_songs_are_refused(tmp_path):
    snapshot, _ = small_snapshot(tmp_path)
    with pytest.raises(EncoderError, match="has 23 song numbers and the encoders 15"):
        CountScorer.of(snapshot, small_encoders()[0])


def test_popular_songs_are_those_of_the_catalogue_that_are_available():
    encoders, frame = small_encoders()
    catalogue = SongCatalogue.of_model(small_model(encoders, frame), encoders)
    popularity, is_available = np.arange(15, dtype=np.float32), catalogue.is_available.copy()
    is_available[14] = False
    scores = popular_scores(replace(catalogue, popularity=popularity, is_available=is_available))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [*NO_ONE, *np.log(1 + np.arange(3, 14)), -np.inf], rtol=1e-6)
