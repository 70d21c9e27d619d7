from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
import torch

from config import FIRST_NUMBER, UNKNOWN
from serving.index import ScoringIndex
from serving.reasons import KnownSongs, Reason, ReasonKind, SongFacts, contributors, leave_one_out, shared_facts

NAN = float("nan")


def facts(artists, albums, **features):
    """Facts of the songs from FIRST_NUMBER on; the specials have none."""
    pad = [0, 1, 2]
    columns = {name: np.array([NAN] * FIRST_NUMBER + values) for name, values in features.items()}
    return SongFacts(artists=np.array(pad + artists), albums=np.array(pad + albums), features=columns)


def songs(*numbers):
    return KnownSongs(numbers=np.array(numbers), ids=tuple(f"song{number}" for number in numbers))


def test_the_newest_song_of_the_same_album_is_named_before_any_artist():
    known = facts(artists=[7, 7, 7, 7], albums=[5, 5, 6, 5])
    assert shared_by(known, songs(3, 4, 5), 6) == [Reason(kind=ReasonKind.SAME_ALBUM, song_id="song4")]


def test_the_newest_song_of_the_same_artist_is_named_when_no_album_is_shared():
    known = facts(artists=[7, 7, 8, 7], albums=[3, 4, 5, 6])
    assert shared_by(known, songs(3, 4, 5), 6) == [Reason(kind=ReasonKind.SAME_ARTIST, song_id="song4")]


def test_songs_without_artist_and_album_share_neither():
    assert shared_by(facts(artists=[UNKNOWN, UNKNOWN], albums=[0, 0]), songs(3), 4) == []


def test_the_song_closest_in_most_features_is_named_when_nothing_else_is_shared():
    known = facts([3, 4, 5, 6], [3, 4, 5, 6], tempo=[0.0, 0.1, 0.2, 0.1], energy=[2.0, 1.2, 1.0, 1.0])
    expected = Reason(kind=ReasonKind.CLOSE_FEATURES, song_id="song5", features=("tempo", "energy"))
    assert shared_by(known, songs(3, 4, 5), 6) == [expected]


def test_a_missing_feature_is_close_to_nothing():
    known = facts([3, 4], [3, 4], tempo=[NAN, 0.0], energy=[0.0, NAN])
    assert shared_by(known, songs(3), 4) == []


def test_features_are_compared_in_standard_deviations_of_the_known_ones():
    catalogue = SimpleNamespace(artists=None, albums=None, features={"tempo": np.array([NAN, 100.0, 120.0]), "key": np.zeros(3)})
    gathered = SongFacts.of(catalogue)
    np.testing.assert_allclose(gathered.features["tempo"], [NAN, -1.0, 1.0])
    assert list(gathered.features) == ["tempo"]


def shared_by(known, sequence, song):
    [reasons] = shared_facts(known, sequence, np.array([song]))
    return reasons


class SumOfSongs:
    """A model that counts the songs of a row: the context's entry v is how often song v occurs, MASK and PAD left out."""

    def encode_last(self, songs):
        counted = torch.nn.functional.one_hot(songs, 8).sum(dim=1).float()
        counted[:, :FIRST_NUMBER] = 0
        return counted

    def look_up(self, songs, queries):
        return None


def test_leaving_a_song_out_takes_away_exactly_what_it_gave():
    embeddings = torch.zeros(8, 8)
    embeddings[7, 3], embeddings[7, 4] = 5.0, -2.0  # song 7 is liked after song 3 and disliked after song 4
    weights = leave_one_out(SumOfSongs(), ScoringIndex(embeddings, torch.zeros(8)), np.array([3, 4, 5]), np.array([7]))
    average = np.array([5.0, -2.0, 0.0]) / 5  # song 7 is one of five real songs
    np.testing.assert_allclose(weights[:, 0], np.array([5.0, -2.0, 0.0]) - average, atol=1e-6)


def test_a_context_of_one_song_can_be_left_out_too():
    index = ScoringIndex(torch.eye(8), torch.zeros(8))
    np.testing.assert_allclose(leave_one_out(SumOfSongs(), index, np.array([3]), np.array([3, 4])), [[0.8, -0.2]], atol=1e-6)


def test_only_the_newest_songs_are_left_out_where_older_ones_are_read_too():
    index = ScoringIndex(torch.eye(8), torch.zeros(8))
    weights = leave_one_out(SumOfSongs(), index, np.array([3, 4, 5]), np.array([3, 4, 5]), n_newest=2)
    expected = [[-0.2, 0.8, -0.2], [-0.2, -0.2, 0.8]]  # 4 and 5 in turn; song 3 is one of five real songs, as the others are
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_contributors_are_the_songs_that_speak_for_it_strongest_first():
    found = contributors(songs(3, 4, 5, 6, 7), np.array([0.5, -1.0, 2.0, 0.25, 1.0]))
    assert [(reason.song_id, reason.weight) for reason in found] == [("song5", 2.0), ("song7", 1.0), ("song3", 0.5)]


@pytest.mark.parametrize(
    ("reason", "without_titles", "with_titles"),
    [
        (Reason(kind=ReasonKind.BECAUSE_OF, song_id=7, weight=0.5), "because of song 7", 'because of "Blue"'),
        (Reason(kind=ReasonKind.SAME_ALBUM, song_id=7), "same album as song 7", 'same album as "Blue"'),
        (Reason(kind=ReasonKind.SAME_ARTIST, song_id=8), "same artist as song 8", "same artist as song 8"),
        (
            Reason(kind=ReasonKind.CLOSE_FEATURES, song_id=7, features=("tempo", "energy")),
            "tempo and energy close to song 7",
            'tempo and energy close to "Blue"',
        ),
        (Reason(kind=ReasonKind.WHOLE_SEQUENCE), "goes with the sequence as a whole", "goes with the sequence as a whole"),
    ],
)
def test_a_reason_reads_with_and_without_titles(reason, without_titles, with_titles):
    assert reason.sentence() == without_titles
    assert reason.sentence({7: "Blue"}) == with_titles


def test_a_reason_as_json_holds_plain_values_and_its_sentence():
    song_id = UUID(int=7)
    assert Reason(kind=ReasonKind.BECAUSE_OF, song_id=song_id, weight=0.5).as_json() == {
        "kind": "because_of",
        "song_id": str(song_id),
        "weight": 0.5,
        "text": f"because of song {song_id}",
    }
