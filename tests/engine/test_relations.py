import numpy as np
import torch

from config import MemoryConfig
from dataset import TEST, TRAIN, write_snapshot
from engine.relations import build_relations, next_on_album, song_plays


def snapshot_of(folder, sequences, split=None, **changes):
    flat = np.concatenate(sequences).astype(np.int32)
    columns = {
        "song_artist": np.array([0, 1, 2, 3, 3, 4, 2]),
        "song_album": np.array([0, 1, 2, 3, 3, 3, 4]),
        "song_features": np.array([[0, 0], [0, 0], [0, 1], [1, 0], [2, 0], [4, 0], [1, 0]], np.float32),
        "feature_names": ["track_number", "track_number_missing"],
        "n_fitted_songs": 7, "n_fitted_albums": 5, "n_fitted_artists": 5, "n_albums": 5, "n_artists": 5,
        "sequences": flat,
        "offsets": np.concatenate([[0], np.cumsum([len(songs) for songs in sequences])]),
        "split": np.full(len(sequences), TRAIN) if split is None else np.array(split),
        "encoders_digest": "", "source": {},
    }  # fmt: skip
    return write_snapshot(folder, **{**columns, **changes})


def neighbours_of(relation, row):
    listed = relation.songs[row] > 0
    return dict(zip(relation.songs[row][listed].tolist(), relation.counts[row][listed].tolist(), strict=True))


def test_lists_are_counted_not_occurrences(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4, 3, 4, 5], [3, 4], [4, 5], [6, 5]], split=[TRAIN, TRAIN, TRAIN, TEST])
    following, near, *_ = build_relations(snapshot, MemoryConfig())
    assert neighbours_of(following, 3) == {4: 2.0}  # 3 -> 4 twice in the first list counts once
    assert neighbours_of(following, 4) == {3: 1.0, 5: 2.0}
    assert neighbours_of(near, 5) == {3: 1.0, 4: 2.0}
    assert neighbours_of(near, 6) == {}  # the test part is not counted
    assert song_plays(snapshot).tolist() == [0, 0, 0, 2, 3, 2, 0]
    assert following.totals.tolist() == [0, 0, 0, 2, 3, 2, 0]


def test_the_songs_of_an_artist_come_most_played_first_and_unknown_artists_have_none(tmp_path):
    relations = {
        relation.name: relation for relation in build_relations(snapshot_of(tmp_path, [[4, 3], [4, 5], [6, 5]]), MemoryConfig())
    }
    assert relations["artist"].songs[3].tolist() == [4, 3]
    assert neighbours_of(relations["artist"], 3) == {4: 3.0, 3: 2.0}  # plays in two lists and in one, and one each for all
    assert neighbours_of(relations["artist"], 2) == {}
    assert relations["artist"].key_of_song.tolist() == [0, 1, 2, 3, 3, 4, 2]


def test_versions_of_one_list_count_once(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4], [3, 4], [4, 3], [3, 4]], lists=np.array([8, 8, 8, 2]))
    following, near, *_ = build_relations(snapshot, MemoryConfig())
    assert neighbours_of(following, 3) == {4: 2.0}
    assert neighbours_of(following, 4) == {3: 1.0}
    assert neighbours_of(near, 3) == {4: 2.0}
    assert song_plays(snapshot).tolist() == [0, 0, 0, 2, 2, 0, 0]


def test_a_long_list_counts_a_pair_once(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4, 5, 6] * 300])
    following, near, *_ = build_relations(snapshot, MemoryConfig())
    assert neighbours_of(following, 3) == {4: 1.0}
    assert neighbours_of(near, 3) == {4: 1.0, 5: 1.0, 6: 1.0}


def test_totals_are_lists_that_hold_the_artist_and_one(tmp_path):
    relations = {
        relation.name: relation for relation in build_relations(snapshot_of(tmp_path, [[3, 4], [3, 4], [5]]), MemoryConfig())
    }
    assert relations["artist"].totals.tolist() == [1, 1, 1, 3, 2]  # artist 3 made songs 3 and 4, artist 4 song 5


def test_weak_neighbours_are_cut_by_cosine_not_by_count(tmp_path):
    lists = [[3, 4], [3, 4], *[[4, 6]] * 8, [3, 5]]  # 4 stands beside 3 twice but is everywhere, 5 once and only there
    following = build_relations(snapshot_of(tmp_path, lists), MemoryConfig(neighbours=1))[0]
    assert neighbours_of(following, 3) == {5: 1.0}


def test_the_next_track_follows_number_and_album(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4]])
    assert next_on_album(snapshot).tolist() == [0, 0, 0, 4, 0, 0, 0]  # 5 is track four: two and four do not adjoin
    assert next_on_album(snapshot_of(tmp_path, [[3, 4]], feature_names=["tempo", "tempo_missing"])) is None


def test_a_relation_is_left_out_by_a_reach_of_zero(tmp_path):
    config = MemoryConfig(next_reach=0, near_reach=0, artist_reach=0, album_reach=0, track_reach=0)
    assert [relation.name for relation in build_relations(snapshot_of(tmp_path, [[3, 4]]), config)] == ["same"]
    assert build_relations(snapshot_of(tmp_path, [[3, 4]]), MemoryConfig(same_reach=0, next_reach=0, near_reach=0, artist_reach=0,
                                                                        album_reach=0, track_reach=0)) == []  # fmt: skip


def test_tables_are_what_torch_looks_up(tmp_path):
    for relation in build_relations(snapshot_of(tmp_path, [[3, 4, 5], [5, 6]]), MemoryConfig()):
        assert relation.songs.dtype == torch.int32
        assert relation.songs.shape == relation.counts.shape
        assert len(relation.totals) == len(relation.songs)
