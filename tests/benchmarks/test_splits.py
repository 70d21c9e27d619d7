import numpy as np
import pytest

from benchmarks.quality.splits import build, read
from config import EvaluationConfig
from errors import DataError
from splits import TEST, TRAIN, VALIDATION
from tests.benchmarks.small import built, plain_songs, spelled, write_folder

CONFIG = EvaluationConfig()
REPEATING = EvaluationConfig(allow_repeats="yes")

VERSIONS = [
    "playlist_id,base_id,name,snapshot_time",
    "late,x,,2021-01-01T00:00:00+00:00",
    "old,x,,2019-05-25T16:52:18-04:00",
    "between,y,,2020-10-31T23:30:00-02:00",  # 2020-11-01 01:30 UTC
    "last,z,,2020-10-31T23:59:59+00:00",
]
LISTS = {"late": "abcde", "old": "abc", "between": "bcd", "last": "cab"}
CHUNKS = {"0_0": "ab", "0_1": "cd", "1_0": "abc", "2_0": "ab", "2_1": "ba", "2_2": "cdab", "2_3": "dcbae"}
USERS = ["playlist_id,user_id,chunk", *(f"{name},u{name[0]},{name[2]}" for name in CHUNKS)]


@pytest.fixture
def lists(tmp_path):
    return write_folder(tmp_path / "lists", LISTS, plain_songs("abcde"), VERSIONS)


@pytest.fixture
def chunks(tmp_path):
    return write_folder(tmp_path / "chunks", CHUNKS, plain_songs("abcde"), USERS)


def test_versions_are_split_by_their_time_in_utc_oldest_first(lists):
    data = built(lists)
    held = np.split(data.snapshot.sequences, data.snapshot.offsets[1:-1])
    assert [spelled(data, songs) for songs in held] == ["abc", "cab", "bcd", "abcde"]
    assert data.snapshot.split.tolist() == [TRAIN, TRAIN, VALIDATION, TEST]


def test_versions_of_one_list_are_resampled_together_but_are_lists_of_their_own(lists):
    data = built(lists)
    assert data.groups[0] == data.groups[3]
    assert len(set(data.groups.tolist())) == 3
    assert data.snapshot.lists.tolist() == [0, 1, 2, 3]


def test_encoders_learn_from_the_training_part_alone(lists):
    data = built(lists)
    fitted = data.snapshot.manifest["counts"]["fitted_songs"]
    assert [spelled(data, [number]) for number in range(fitted, data.snapshot.n_songs)] == ["d", "e"]
    assert data.questions(TEST, CONFIG).kinds["cold"].tolist() == [True]


def test_the_last_chunk_of_a_user_with_two_is_the_test(chunks):
    assert read(chunks).parts.tolist() == [TRAIN, TEST, TRAIN, TRAIN, TRAIN, VALIDATION, TEST]


def test_twelve_percent_of_the_users_with_three_chunks_validate(tmp_path):
    # numpy's generator 0 begins 0.64, 0.27, 0.04, 0.02, 0.81: only the users 2 and 3 are below 0.12.
    names = [f"{user}_{chunk}" for user in range(5) for chunk in range(3)]
    users = ["playlist_id,user_id,chunk", *(f"{name},{name[0]},{name[2]}" for name in names)]
    rows = read(write_folder(tmp_path / "users", dict.fromkeys(names, "ab"), plain_songs("ab"), users))
    parts = rows.parts.reshape(5, 3)
    assert np.flatnonzero(parts[:, 1] == VALIDATION).tolist() == [2, 3]
    assert (parts[:, 2] == TEST).all()


def test_a_history_is_the_earlier_chunks_of_the_same_user(chunks):
    data = built(chunks)
    asked = data.questions(TEST, REPEATING)
    short, long = asked.tasks(history=False), asked.tasks(history=True)
    assert [spelled(data, prefix) for prefix in short.prefixes()] == ["c", "dcba"]
    assert [spelled(data, prefix) for prefix in long.prefixes()] == ["abc", "abbacdabdcba"]
    assert spelled(data, long.targets) == spelled(data, short.targets) == "de"


def test_joined_training_puts_the_training_chunks_of_a_user_together(chunks):
    data = built(chunks)
    songs, offsets = data.training(joined=True)
    assert [spelled(data, part) for part in np.split(songs, offsets[1:-1])] == ["ab", "abc", "abba"]


def test_chunks_out_of_order_are_refused(tmp_path):
    users = ["playlist_id,user_id,chunk", "1,u,1", "0,u,0"]
    folder = write_folder(tmp_path / "wrong", {"1": "ab", "0": "ab"}, plain_songs("ab"), users)
    with pytest.raises(DataError, match="must follow each other"):
        read(folder)


def test_a_folder_without_times_or_chunks_leaves_one_out(tmp_path):
    data = built(write_folder(tmp_path / "ml", {"1": "abcd", "2": "bcad"}, plain_songs("abcd")))
    assert spelled(data, data.questions(VALIDATION, CONFIG).asked.targets) == "ca"
    assert spelled(data, data.questions(TEST, CONFIG).asked.targets) == "dd"
    assert spelled(data, data.training()[0]) == "abbc"


def test_removed_songs_leave_training_but_not_the_test(lists):
    rows = read(lists)
    data = build(rows.without(np.array([2])), lists.parent / "without")
    held = np.split(data.snapshot.sequences, data.snapshot.offsets[1:-1])
    assert [spelled(data, songs) for songs in held] == ["ab", "ab", "bcd", "abcde"]
    assert data.number[2] >= data.snapshot.manifest["counts"]["fitted_songs"]
    assert data.snapshot.n_songs == 3 + 5


def test_a_song_that_the_catalogue_lacks_is_named(tmp_path):
    folder = write_folder(tmp_path / "lacking", {"1": "abz"}, plain_songs("ab"))
    with pytest.raises(DataError, match="song z is not in"):
        read(folder)
