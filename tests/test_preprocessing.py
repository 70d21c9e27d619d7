"""From small databases made by hand to the whole snapshot and encoders, worked out on paper."""

import itertools
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

import preprocessing
from config import Config, DatabaseConfig, PreprocessingConfig
from encoder_files import encoders_digest, load_encoders
from errors import DatabaseUnreachable, DataError, EncoderError, SchemaError, SnapshotError, exit_code_of
from preparation import reading
from preparation.reading import UNKNOWN_TIME, SequenceFile, Sequences
from preprocessing import is_stale, main, preprocess
from preprocessing_utils import IdEncoder
from snapshot import Snapshot, file_digest, open_snapshot
from splits import TEST, TRAIN, VALIDATION
from storage.connections import connect

MUSIC = """
INSERT INTO music.artist (artist_id, name) VALUES ('a1', 'One'), ('a2', 'Two'), ('a3', 'Three');
INSERT INTO music.album (album_id, title) VALUES ('b1', 'First'), ('b2', 'Second'), ('b3', 'Third');
INSERT INTO music.song (song_id, artist_id, album_id, tempo, explicit) VALUES
    ('s1', 'a1', 'b1', 100, TRUE), ('s2', 'a1', 'b2', 140, FALSE), ('s3', 'a2', 'b2', NULL, NULL),
    ('s4', 'a3', 'b3', 180, NULL), ('s5', NULL, NULL, NULL, NULL), ('s6', 'a2', NULL, NULL, NULL);
INSERT INTO music.playlist (playlist_id, created_at) VALUES
    ('p1', '2020-01-01Z'), ('p2', '2020-02-01Z'), ('p3', '2020-03-01Z'), ('p4', '2020-04-01Z'), ('short', '2020-01-01Z');
INSERT INTO music.playlist_song (playlist_id, position, song_id) VALUES
    ('p1', 0, 's1'), ('p1', 1, 's2'), ('p1', 2, 's1'), ('p2', 0, 's2'), ('p2', 1, 's3'),
    ('p3', 0, 's2'), ('p3', 1, 's4'), ('p4', 0, 's1'), ('p4', 1, 's5'), ('short', 0, 's1');
"""

Configure = Callable[..., Config]


@pytest.fixture
def configure(database_url: str, tmp_path: Path) -> Configure:
    """`configure(songs=SQL, sequences=SQL, **settings)`: queries over values of the test's own, else over the schema music."""

    def make(*, songs: str | None = None, sequences: str | None = None, **settings) -> Config:
        database = DatabaseConfig(url=database_url)
        if songs is not None and sequences is not None:
            database = DatabaseConfig(url=database_url, queries_folder=written_queries(tmp_path / "queries", songs, sequences))
        given: dict[str, Any] = {
            "encoders_folder": tmp_path / "encoders",
            "snapshot": tmp_path / "work" / "snapshot",
            "train_size": 0.5,
        }
        return Config(database=database, preprocessing=PreprocessingConfig(**given | settings))

    return make


def written_queries(folder: Path, songs: str, sequences: str) -> Path:
    folder.mkdir(exist_ok=True)
    by_id = {"songs_by_id": f"SELECT * FROM ({songs}) AS song WHERE song_id = ANY(%(song_ids)s)",
             "sequence_by_id": f"SELECT * FROM ({sequences}) AS played WHERE sequence_id = %(sequence_id)s"}  # fmt: skip
    for name, query in {"songs": songs, "sequences": sequences, **by_id}.items():
        (folder / f"{name}.sql").write_text(f"{query};\n")
    return folder


def run(config: Config) -> Snapshot:
    assert config.database.url is not None
    return preprocess(config, config.database.url, progress=False)


def execute(url: str | None, statements: str) -> None:
    assert url is not None
    with connect(url) as connection:
        connection.execute(statements)


def rows(columns: str, *values: str) -> str:
    """SELECT some rows written out, with their columns' names."""
    return f"SELECT * FROM (VALUES {', '.join(values)}) AS written ({columns})"


SONGS = rows("song_id", "('a')", "('b')", "('c')", "('d')")
SEQUENCES = rows("sequence_id, song_id", "(1, 'a')", "(1, 'b')", "(2, 'b')", "(2, 'c')", "(3, 'c')", "(3, 'd')")


# --- the whole way -----------------------------------------------------------------------------------------------------------


def test_a_small_database_becomes_the_snapshot_worked_out_by_hand(configure):
    config = configure()
    execute(config.database.url, MUSIC)
    snapshot = run(config)
    # Half of the lists train: p1 = s1 s2 s1 and p2 = s2 s3, so s1 2, s2 2, s3 1; then the rest of the catalogue.
    assert load_encoders(config.preprocessing.encoders_folder).songs.decode(range(3, 9)) == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert snapshot.sequences.tolist() == [3, 4, 3, 4, 5, 4, 6, 3, 7]
    assert snapshot.offsets.tolist() == [0, 3, 5, 7, 9]
    assert snapshot.split.tolist() == [TRAIN, TRAIN, TEST, VALIDATION]
    # Artists by training rows: a1 4, a2 1.  Albums: b2 3, b1 2.
    assert snapshot.song_artist.tolist() == [0, 1, 2, 3, 3, 4, 5, 2, 4]
    assert snapshot.song_album.tolist() == [0, 1, 2, 4, 3, 3, 5, 2, 2]
    assert snapshot.manifest["counts"] == {
        "songs": 9, "albums": 6, "artists": 6, "fitted_songs": 6, "fitted_albums": 5, "fitted_artists": 5,
        "sequences": 4, "rows": 9,
    }  # fmt: skip


def test_features_are_scaled_by_the_training_songs_alone(configure):
    config = configure()
    execute(config.database.url, MUSIC)
    snapshot = run(config)
    by_name = dict(zip(snapshot.manifest["feature_names"], snapshot.song_features.T.tolist(), strict=True))
    # Training songs have the tempos 100 and 140: mean 120, deviation 20; the 180 of s4 is seen in validation only.
    assert by_name.pop("tempo") == [0, 0, 0, -1, 1, 0, 3, 0, 0]
    assert by_name.pop("tempo_missing") == [0, 0, 1, 0, 0, 1, 0, 1, 1]
    assert by_name.pop("explicit") == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert by_name.pop("explicit_missing") == [0, 0, 1, 0, 0, 1, 1, 1, 1]
    # Nothing is known of the others: only their marks are set, of all but PAD and MASK.
    assert len([name for name in by_name if name.endswith("_missing")]) == 14
    assert all(values == [0, 0, *[name.endswith("_missing")] * 7] for name, values in by_name.items())


def test_the_source_tells_what_was_read_left_out_and_learned_from(configure):
    config = configure()
    execute(config.database.url, MUSIC)
    source = run(config).manifest["source"]
    assert source["read"] == {"songs": 6, "sequences": 5, "rows": 10}
    assert {reason: count for reason, count in source["left_out"].items() if count} == {"sequences of fewer than 2 songs": 1}
    assert source["training"] == {
        "sequences": 2, "rows": 5, "songs": 3, "repeat_share": 1 / 5, "cut_time": "2020-03-01T00:00:00+00:00",
    }  # fmt: skip
    assert source["settings"] == {
        "split": "auto", "train_size": 0.5, "min_sequence_length": 2, "split_seed": 0, "leave_out_recommended": True,
    }  # fmt: skip
    assert source["queries"]["songs"] == file_digest(config.database.queries_folder / "songs.sql")
    assert source["high_water_mark"]["rows"] == 10


def test_snapshot_and_encoders_belong_together_and_nothing_else_is_left(configure):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    snapshot = run(config)
    assert encoders_digest(config.preprocessing.encoders_folder) == snapshot.manifest["encoders_digest"]
    assert [entry.name for entry in config.preprocessing.snapshot.parent.iterdir()] == ["snapshot"]
    assert [entry.name for entry in config.preprocessing.encoders_folder.iterdir() if entry.name.startswith(".")] == []


def test_the_same_database_gives_the_same_snapshot(configure):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    assert run(config).digest == run(config).digest


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [("10", "20", int), ("'x'", "'y'", str), (f"'{UUID(int=1)}'::uuid", f"'{UUID(int=2)}'::uuid", UUID)],
)
def test_ids_of_every_type_come_back_in_their_type(configure, first, second, dtype):
    songs = rows("song_id, artist_id", f"({first}, {first})", f"({second}, {second})")
    sequences = rows("sequence_id, song_id", *(f"({list_id}, {song})" for list_id in (first, second) for song in (first, second)))
    config = configure(songs=songs, sequences=sequences)
    assert run(config).sequences.tolist() == [3, 4, 3, 4]
    encoders = load_encoders(config.preprocessing.encoders_folder)
    assert [type(id_) for id_ in encoders.songs.decode([3, 4]) + encoders.artists.decode([3, 4])] == [dtype] * 4


# --- read and clean ----------------------------------------------------------------------------------------------------------


def test_rows_without_ids_are_left_out_and_counted(configure):
    sequences = SEQUENCES.replace("(2, 'c')", "(2, NULL), (NULL, 'c'), (NULL, NULL), (2, 'c')")
    snapshot = run(configure(songs=SONGS.replace("('d')", "('d'), (NULL)"), sequences=sequences))
    left_out = snapshot.manifest["source"]["left_out"]
    assert (left_out["rows without song_id"], left_out["rows without sequence_id"], left_out["songs without song_id"]) == (
        1,
        2,
        1,
    )
    assert np.diff(snapshot.offsets).tolist() == [2, 2, 2]


# Lists of two by ids, with what was recommended among them: 1 loses a song, 2 is left too short, 3 vanishes, 4 and 5 stay.
ECHO = rows(
    "sequence_id, song_id, listened_at, is_recommended",
    *("(1, 'a', '2020-01-01Z'::timestamptz, FALSE)", "(1, 'b', '2020-01-01Z', TRUE)", "(1, 'c', '2020-01-01Z', NULL)"),
    *("(2, 'a', '2020-01-02Z', TRUE)", "(2, 'b', '2020-01-02Z', FALSE)", "(3, 'd', '2020-01-03Z', TRUE)"),
    *("(4, 'a', '2020-01-04Z', NULL)", "(4, 'c', '2020-01-04Z', NULL)", "(4, 'd', '2020-09-09Z', TRUE)"),
    *("(5, 'c', '2020-01-05Z', FALSE)", "(5, 'd', '2020-01-05Z', TRUE)", "(5, 'a', '2020-01-05Z', FALSE)"),
)


def test_what_we_recommended_is_left_out_of_all_parts_and_counted(configure):
    config = configure(songs=SONGS, sequences=ECHO)
    snapshot = run(config)
    songs = load_encoders(config.preprocessing.encoders_folder).songs
    assert [songs.decode(snapshot.sequences[first:end]) for first, end in itertools.pairwise(snapshot.offsets)] == [
        ["a", "c"], ["a", "c"], ["c", "a"],
    ]  # fmt: skip
    assert sorted(snapshot.split.tolist()) == [TRAIN, VALIDATION, TEST]
    left_out = snapshot.manifest["source"]["left_out"]
    assert (left_out["rows recommended by us"], left_out["sequences of fewer than 2 songs"]) == (5, 1)
    # A list is as old as its latest play that is kept: the one of September was recommended.
    assert snapshot.manifest["source"]["training"]["cut_time"] == "2020-01-04T00:00:00+00:00"


def test_what_we_recommended_is_learned_from_when_asked(configure):
    snapshot = run(configure(songs=SONGS, sequences=ECHO, leave_out_recommended=False))
    assert np.diff(snapshot.offsets).tolist() == [3, 2, 3, 3]
    assert "rows recommended by us" not in snapshot.manifest["source"]["left_out"]


def test_sequences_without_the_mark_are_read_as_before(configure):
    assert "rows recommended by us" not in run(configure(songs=SONGS, sequences=SEQUENCES)).manifest["source"]["left_out"]


def test_the_mark_must_be_true_or_false(configure):
    sequences = ECHO.replace("FALSE", "0").replace("TRUE", "1")
    with pytest.raises(SchemaError, match=r"is_recommended in sequences\.sql is int4: make it a boolean"):
        run(configure(songs=SONGS, sequences=sequences))


def test_where_nothing_but_our_own_echo_is_left_the_error_says_so(configure):
    with pytest.raises(DataError, match=r"besides 5 recommended by us \(leave_out_recommended\): load sequences"):
        run(configure(songs=SONGS, sequences=f"{ECHO} WHERE is_recommended"))


def test_a_listen_that_we_recommended_is_left_out_of_its_session(configure):
    config = configure()
    execute(config.database.url, MUSIC)
    execute(
        config.database.url,
        "INSERT INTO music.listen (user_id, song_id, listened_at, is_recommended) VALUES "
        "('u', 's1', '2020-01-01 10:00Z', FALSE), ('u', 's6', '2020-01-01 10:03Z', TRUE), ('u', 's2', '2020-01-01 10:06Z', NULL)",
    )
    snapshot = run(config)
    assert snapshot.manifest["source"]["left_out"]["rows recommended by us"] == 1
    assert snapshot.manifest["counts"]["sequences"] == 5
    assert snapshot.manifest["counts"]["rows"] == 9 + 2


def test_a_song_listed_twice_counts_once_with_its_first_row(configure):
    songs = rows("song_id, artist_id", "('a', 'one')", "('a', 'two')", "('b', 'one')")
    sequences = rows("sequence_id, song_id", "(1, 'a')", "(1, 'b')", "(2, 'a')", "(2, 'b')")
    config = configure(songs=songs, sequences=sequences)
    snapshot = run(config)
    assert snapshot.song_artist.tolist() == [0, 1, 2, 3, 3]
    assert snapshot.manifest["source"]["left_out"]["rows of songs listed before"] == 1


def test_a_song_that_the_songs_query_lacks_is_kept_with_everything_unknown(configure):
    songs = rows("song_id, artist_id, energy", "('b', 'one', 0.5)", "('c', 'two', 0.7)")
    snapshot = run(configure(songs=songs, sequences=SEQUENCES))
    n_known = 2
    lost = [number for number in range(3, snapshot.n_songs) if snapshot.song_artist[number] == 2]
    assert len(lost) == snapshot.n_songs - 3 - n_known == 2
    assert snapshot.song_features[lost].tolist() == [[0, 1], [0, 1]]
    assert snapshot.manifest["source"]["left_out"]["songs of sequences that the songs query lacks (kept)"] == 2


def test_a_song_outside_the_training_part_gets_a_number_beyond_the_fitted_ones(configure):
    config = configure()
    execute(config.database.url, MUSIC)
    snapshot = run(config)
    songs = load_encoders(config.preprocessing.encoders_folder).songs
    n_fitted = snapshot.manifest["counts"]["fitted_songs"]
    assert songs.n_fitted == n_fitted
    assert (songs.encode(["s1", "s2", "s3"]) < n_fitted).all()
    assert (songs.encode(["s4", "s5", "s6"]) >= n_fitted).all()


def test_sequences_without_artists_albums_or_features_are_enough(configure):
    snapshot = run(configure(songs=SONGS, sequences=SEQUENCES))
    assert snapshot.song_artist.tolist() == snapshot.song_album.tolist() == [0, 1, 2, 2, 2, 2, 2]
    assert snapshot.song_features.shape == (7, 0)


def test_numeric_and_boolean_columns_of_any_name_become_features_and_texts_do_not(configure):
    songs = rows("song_id, artist_id, danceability, bpm, is_live, mood",
                 "('a', 7, 0.25::numeric, 100, TRUE, 'x')", "('b', 7, 0.75, 140, FALSE, 'y')")  # fmt: skip
    sequences = rows("sequence_id, song_id", "(1, 'a')", "(1, 'b')", "(2, 'b')", "(2, 'a')")
    snapshot = run(configure(songs=songs, sequences=sequences))
    assert snapshot.manifest["feature_names"][:3] == ["danceability", "bpm", "is_live"]
    assert snapshot.song_features[3:, :3].tolist() == [[-1, -1, 1], [1, 1, -1]]


def test_the_rows_of_a_sequence_must_follow_each_other(configure):
    sequences = rows("sequence_id, song_id", "('x', 'a')", "('y', 'b')", "('x', 'c')", "('y', 'd')")
    with pytest.raises(
        SchemaError, match=r"yields the rows of sequence 'x' in several pieces: let sequences.sql end with ORDER BY"
    ):
        run(configure(songs=SONGS, sequences=sequences))


BATCH = pa.schema(
    {"sequence_id": pa.int32(), "song_id": pa.string(), "listened_at": pa.timestamp("s", "UTC"), "group_id": pa.string()}
)


def batch(*rows_of_batch: tuple[int, str, int | None, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(BATCH.names, row, strict=True)) for row in rows_of_batch], BATCH)


def test_a_sequence_goes_on_from_batch_to_batch(tmp_path):
    songs = IdEncoder("song").extend(["b"])
    with SequenceFile(tmp_path / "songs", songs, Counter()) as file:
        file.append(batch((1, "a", 10, "g"), (1, "b", 30, "g"), (2, "a", 7, None)))
        file.append(batch((2, "c", 9, None)))
        file.append(batch((2, "a", 8, None), (3, "a", None, "g"), (4, "b", 5, None)))
    sequences = file.reading().sequences
    assert songs.decode([3, 4, 5]) == ["b", "a", "c"]
    assert sequences.songs.tolist() == [4, 3, 4, 5, 4, 4, 3]
    assert (sequences.starts.tolist(), sequences.ends.tolist()) == ([0, 2, 5, 6], [2, 5, 6, 7])
    assert sequences.times.tolist() == [30, 9, UNKNOWN_TIME, 5]
    assert (sequences.groups == sequences.groups[0]).tolist() == [True, False, True, False]
    assert len(set(sequences.groups.tolist())) == 3


def test_blocks_hold_every_sequence_once_whatever_their_size(monkeypatch):
    sequences = Sequences(songs=np.arange(10), starts=np.array([0, 3, 7]), ends=np.array([3, 7, 10]),
                          times=np.zeros(3, np.int64), groups=np.arange(3), histories=np.arange(3))  # fmt: skip
    for rows_per_block in (1, 3, 4, 8, 100):
        monkeypatch.setattr(reading, "ROWS_PER_BLOCK", rows_per_block)
        blocks = list(sequences.blocks())
        assert np.concatenate([songs for songs, _ in blocks]).tolist() == list(range(10))
        assert sum(len(offsets) - 1 for _, offsets in blocks) == 3


# --- histories ---------------------------------------------------------------------------------------------------------------

# Sessions of u, whose ids sort as 10, 11, 2, 3, with a list that stands between them by its id; 11 is too short.
SESSIONS = """SELECT sequence_id, song_id, day::timestamptz AS listened_at, history_id FROM (VALUES
    ('listen:t', 'd', '2020-01-09Z', NULL), ('listen:t', 'a', '2020-01-09Z', NULL),
    ('listen:u:10', 'd', '2020-01-07Z', 'u'), ('listen:u:10', 'c', '2020-01-07Z', 'u'), ('listen:u:11', 'd', '2020-01-08Z', 'u'),
    ('listen:u:17', 'd', '2020-01-01Z', NULL), ('listen:u:17', 'a', '2020-01-01Z', NULL),
    ('listen:u:2', 'a', '2020-01-02Z', 'u'), ('listen:u:2', 'b', '2020-01-02Z', 'u'), ('listen:u:2', 'c', '2020-01-02Z', 'u'),
    ('listen:u:3', 'b', '2020-01-03Z', 'u'), ('listen:u:3', 'c', '2020-01-03Z', 'u')
) AS written (sequence_id, song_id, day, history_id)"""


def decoded_sequences(config: Config, snapshot: Snapshot) -> list[str]:
    songs = load_encoders(config.preprocessing.encoders_folder).songs
    return ["".join(songs.decode(snapshot.sequences[first:end])) for first, end in itertools.pairwise(snapshot.offsets)]


def test_sessions_of_one_listener_stand_side_by_side_in_time_where_the_first_id_stands(configure):
    config = configure(songs=SONGS, sequences=SESSIONS, train_size=0.6)
    snapshot = run(config)
    assert decoded_sequences(config, snapshot) == ["da", "abc", "bc", "dc", "da"]
    assert snapshot.offsets.tolist() == [0, 2, 5, 7, 9, 11]
    assert (snapshot.policy, snapshot.split.tolist()) == ("time", [VALIDATION, TRAIN, TRAIN, TEST, TRAIN])
    assert snapshot.history_starts.tolist() == [0, 2, 2, 2, 9]


@pytest.mark.parametrize("order", ["sequence_id", "sequence_id DESC", "md5(sequence_id)", "listened_at"])
def test_sessions_stand_so_whatever_the_order_of_the_query_is(configure, order):
    as_written, ordered = (
        run(configure(songs=SONGS, sequences=query)).manifest["files"]
        for query in (SESSIONS, f"SELECT * FROM ({SESSIONS}) AS session ORDER BY {order}, song_id <> 'd', song_id")
    )
    assert as_written == ordered


@pytest.mark.parametrize("time", ["NULL", "'2020-01-01Z'"])
def test_sessions_of_one_time_or_of_none_keep_the_order_of_their_ids(configure, time):
    sequences = f"SELECT sequence_id, song_id, {time}::timestamptz AS listened_at, history_id FROM ({SESSIONS}) AS session"
    config = configure(songs=SONGS, sequences=sequences, split_seed=1)
    snapshot = run(config)
    assert decoded_sequences(config, snapshot) == ["da", "dc", "abc", "bc", "da"]
    assert (snapshot.policy, snapshot.split.tolist()) == ("sequence", [TRAIN, TRAIN, VALIDATION, TEST, TRAIN])
    assert snapshot.history_starts.tolist() == [0, 2, 2, 7, 9]


def test_listens_of_the_schema_music_reach_back_to_the_listeners_first(configure):
    config = configure(train_size=0.8)
    listens = """INSERT INTO music.listen (user_id, song_id, listened_at)
        SELECT user_id, 's' || song, '2020-01-01Z'::timestamptz + hour * INTERVAL '2 hours' + song * INTERVAL '1 minute'
        FROM (VALUES ('u', 0, 11), ('v', 3, 5)) AS listener (user_id, first, last), generate_series(first, last) AS hour,
            generate_series(1, 2) AS song"""
    execute(config.database.url, MUSIC + listens)
    snapshot = run(config)
    # Twelve sessions of u, then three of v, each of two songs, then the playlists, whose ids come after.
    assert snapshot.policy == "time"
    assert snapshot.history_starts.tolist() == [0] * 12 + [24] * 3 + [30, 33, 35, 37]


def test_without_histories_nothing_is_other_than_with_none_of_them(configure):
    without, with_nulls = (
        run(configure(songs=SONGS, sequences=f"SELECT sequence_id, song_id, listened_at{history} FROM ({SESSIONS}) AS session"))
        for history in ("", ", NULL::uuid AS history_id")
    )
    assert without.manifest["files"] == with_nulls.manifest["files"]
    assert without.history_starts.tolist() == without.offsets[:-1].tolist()


def test_leave_one_out_knows_no_histories(configure):
    sequences = rows("sequence_id, song_id, history_id", *(f"({number}, '{song}', 7)" for number in (1, 2) for song in "abcd"))
    snapshot = run(configure(songs=SONGS, sequences=sequences, split="leave_one_out"))
    assert snapshot.history_starts.tolist() == [0, 4]


def test_a_history_id_must_be_an_id(configure):
    sequences = SEQUENCES.replace("SELECT *", "SELECT *, 0.5::real AS history_id")
    with pytest.raises(SchemaError, match=r"history_id in sequences\.sql is float4: an id is a whole number, a text or a uuid"):
        run(configure(songs=SONGS, sequences=sequences))


# --- split -------------------------------------------------------------------------------------------------------------------


def test_without_times_the_split_is_by_sequence_and_fixed_by_its_seed(configure):
    split = [run(configure(songs=SONGS, sequences=SEQUENCES, split_seed=seed)).split.tolist() for seed in (0, 0, 1, 2, 3)]
    assert split[0] == split[1]
    assert {tuple(sorted(parts)) for parts in split} == {(TRAIN, VALIDATION, TEST)}
    assert len({tuple(parts) for parts in split}) > 1


def test_one_sequence_without_a_time_is_enough_to_split_by_sequence(configure):
    config = configure()
    execute(config.database.url, MUSIC + "UPDATE music.playlist SET created_at = NULL WHERE playlist_id = 'p2'")
    snapshot = run(config)
    assert (snapshot.policy, snapshot.manifest["source"]["training"]["cut_time"]) == ("sequence", None)


def test_a_split_by_time_without_times_is_refused(configure):
    with pytest.raises(
        DataError, match=r"3 of 3 sequences have no listened_at, which a split by time needs: fill it .* set split"
    ):
        run(configure(songs=SONGS, sequences=SEQUENCES, split="time"))


def test_times_that_are_all_the_same_fall_back_to_a_split_by_sequence(configure, caplog):
    config = configure()
    execute(config.database.url, MUSIC + "UPDATE music.playlist SET created_at = '2020-01-01Z'")
    assert run(config).policy == "sequence"
    assert "split: not by time (all 4 lists begin at the same time: set split to sequence), so by sequence" in caplog.text


def test_versions_of_one_list_stand_on_one_side_and_later_ones_are_left_out(configure):
    config = configure()
    execute(config.database.url, MUSIC + "UPDATE music.playlist SET group_id = 'g' WHERE playlist_id IN ('p1', 'p4')")
    snapshot = run(config)
    # p1 opens a list of two versions, which is half of all; p2 tests, p3 validates; p4, the later version of p1, is left out.
    assert snapshot.sequences.tolist() == [3, 4, 3, 4, 5, 4, 6]
    assert snapshot.split.tolist() == [TRAIN, TEST, VALIDATION]
    assert snapshot.manifest["source"]["left_out"]["sequences outside the split"] == 1


def test_leave_one_out_learns_from_all_but_the_last_two_songs(configure):
    sequences = rows(
        "sequence_id, song_id",
        *(f"(1, '{song}')" for song in "ccab"),
        *(f"(2, '{song}')" for song in "cad"),
        "(3, 'a')",
        "(3, 'b')",
    )
    config = configure(songs=SONGS, sequences=sequences, split="leave_one_out")
    snapshot = run(config)
    songs = load_encoders(config.preprocessing.encoders_folder).songs
    assert (songs.decode(range(3, 7)), songs.n_fitted) == (["c", "a", "b", "d"], 4)
    assert snapshot.policy == "leave_one_out"
    assert snapshot.split.tolist() == [TRAIN] * 3
    assert snapshot.manifest["source"]["training"] == {
        "sequences": 2,
        "rows": 3,
        "songs": 1,
        "repeat_share": 1 / 3,
        "cut_time": None,
    }


# --- what cannot be used -----------------------------------------------------------------------------------------------------


def require_unchanged(config: Config, before: Snapshot) -> None:
    """Snapshot and encoders are the old ones, they belong together, and no draft lies about."""
    assert open_snapshot(config.preprocessing.snapshot).digest == before.digest
    load_encoders(config.preprocessing.encoders_folder, before.manifest["encoders_digest"])
    assert [entry.name for entry in config.preprocessing.snapshot.parent.iterdir()] == ["snapshot"]
    assert not [entry for entry in config.preprocessing.encoders_folder.iterdir() if entry.name.startswith(".")]


@pytest.mark.parametrize(
    ("songs", "sequences", "error", "message"),
    [
        (f"{SONGS} WHERE FALSE", SEQUENCES, DataError, "the query songs returned no row: load songs"),
        (SONGS, f"{SEQUENCES} WHERE FALSE", DataError, "the query sequences returned no row"),
        (SONGS, f"{SEQUENCES} WHERE sequence_id = 1", DataError, "1 of 1 sequences have at least 2 songs, two are needed"),
        (SONGS, SEQUENCES.replace("sequence_id, song_id", "list, song_id"), SchemaError, "sequence_id"),
        (SONGS.replace("song_id", "track"), SEQUENCES, SchemaError, "song_id"),
        (rows("song_id", "(1)", "(2)"), SEQUENCES, SchemaError, "song_id"),
        ("SELECT song_id FROM nowhere", SEQUENCES, SchemaError, "nowhere"),
    ],
    ids=["no songs", "no sequences", "one sequence", "no sequence_id", "no song_id", "two types of id", "no table"],
)  # fmt: skip
def test_what_cannot_be_used_is_told_in_one_line_and_leaves_the_old_snapshot(configure, songs, sequences, error, message):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    before = run(config)
    written_queries(config.database.queries_folder, songs, sequences)
    with pytest.raises(error, match=message) as caught:
        run(config)
    assert "\n" not in str(caught.value)
    require_unchanged(config, before)


def test_leave_one_out_needs_a_sequence_of_four_songs(configure):
    with pytest.raises(DataError, match=r"no training sequence has two songs \(split by leave_one_out, 3 sequences\)"):
        run(configure(songs=SONGS, sequences=SEQUENCES, split="leave_one_out"))


class FullDisk:
    """A file on a disk without space."""

    def write(self, _):
        raise OSError(28, "No space left on device")


def test_a_disk_that_fills_up_while_reading_leaves_everything_as_it_was(configure, monkeypatch):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    before = run(config)
    append = reading.append_numbers
    monkeypatch.setattr(reading, "append_numbers", lambda _, numbers, path: append(FullDisk(), numbers, path))
    with pytest.raises(SnapshotError, match=r"could not be written \(No space left on device\); the old snapshot stays in use"):
        run(config)
    require_unchanged(config, before)


def test_a_disk_that_fills_up_while_writing_encoders_leaves_everything_as_it_was(configure, monkeypatch):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    before = run(config)
    monkeypatch.setattr(preprocessing, "draft_encoders", lambda *_: FullDisk().write(b""))
    with pytest.raises(EncoderError, match=r"could not be written to .* \(No space left on device\); the old ones stay in use"):
        run(config)
    require_unchanged(config, before)


def test_a_disk_that_fills_up_while_writing_the_snapshot_leaves_everything_as_it_was(configure, monkeypatch):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    before = run(config)
    monkeypatch.setattr("snapshot._write_column", lambda *_: FullDisk().write(b""))
    written_queries(config.database.queries_folder, f"{SONGS} WHERE song_id < 'd'", SEQUENCES)
    with pytest.raises(SnapshotError, match="No space left on device"):
        run(config)
    require_unchanged(config, before)


def test_a_database_that_is_not_there_is_told_in_one_line(tmp_path):
    folders = PreprocessingConfig(encoders_folder=tmp_path / "encoders", snapshot=tmp_path / "snapshot")
    config = Config(database=DatabaseConfig(url="postgresql://me:secret@127.0.0.1:1/music"), preprocessing=folders)
    with pytest.raises(DatabaseUnreachable, match=r"me@127\.0\.0\.1:1/music"):
        run(config)
    assert list(tmp_path.iterdir()) == []


# --- is it fresh? ------------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_stale_when_missing_and_fresh_when_just_made(configure):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    assert "no snapshot in" in (is_stale(config, config.database.url) or "")
    run(config)
    assert is_stale(config, config.database.url) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DELETE FROM music.playlist_song WHERE playlist_id = 'short'", "the database has moved on (rows 11 -> 10)"),
        ("UPDATE music.song SET tempo = 99 WHERE song_id = 's1'", "the database has moved on (as many"),
        (
            "UPDATE music.playlist_song SET song_id = 's6' WHERE playlist_id = 'p2' AND position = 1",
            "the database has moved on (as many",
        ),
        ("UPDATE music.playlist SET group_id = 'g' WHERE playlist_id IN ('p1', 'p4')", "the database has moved on (as many"),
        ("UPDATE music.playlist SET created_at = '2020-03-02Z' WHERE playlist_id = 'p1'", "the database has moved on (as many"),
        ("UPDATE music.listen SET is_recommended = TRUE", "the database has moved on (as many"),
    ],
)
def test_a_snapshot_is_stale_when_the_database_has_moved_on(configure, change, reason):
    config = configure()
    execute(
        config.database.url, MUSIC + "INSERT INTO music.listen (user_id, song_id, listened_at) VALUES ('u', 's1', '2020-01-01Z')"
    )
    run(config)
    assert is_stale(config, config.database.url) is None
    execute(config.database.url, change)
    assert (is_stale(config, config.database.url) or "").startswith(reason)


def test_a_snapshot_is_stale_when_settings_queries_or_encoders_change(configure):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    run(config)
    other = configure(songs=SONGS, sequences=SEQUENCES, train_size=0.6)
    assert is_stale(other, config.database.url) == "the settings of preprocessing have changed"
    written_queries(config.database.queries_folder, f"-- the same songs\n{SONGS}", SEQUENCES)
    assert is_stale(config, config.database.url) == "songs.sql or sequences.sql has changed"
    (config.preprocessing.encoders_folder / "manifest.json").write_text("{}")
    assert is_stale(config, config.database.url) == "the encoders are not those of the snapshot"


# --- the command -------------------------------------------------------------------------------------------------------------


def arguments(config: Config) -> list[str]:
    folders = {
        "--url": config.database.url,
        "--queries-folder": config.database.queries_folder,
        "--encoders-folder": config.preprocessing.encoders_folder,
        "--snapshot": config.preprocessing.snapshot,
    }
    return [str(part) for option in folders.items() for part in option]


def test_features_of_several_programs_are_told_of(configure, caplog):
    config = configure()
    of_two = "UPDATE music.song SET feature_source = CASE WHEN song_id = 's1' THEN 'librosa' ELSE 'spotify' END"
    execute(config.database.url, MUSIC + of_two)
    assert not any("source" in name for name in run(config).manifest["feature_names"])
    [told] = [message for message in caplog.messages if "sources" in message]
    assert told.startswith("features come from 2 sources (spotify: 5 songs, librosa: 1 songs) and are scaled as one")


def test_the_command_writes_the_snapshot_shows_bars_and_logs_rows_in_and_out(configure, capsys, caplog):
    config = configure(songs=SONGS, sequences=SEQUENCES)
    caplog.set_level(logging.INFO)
    assert exit_code_of(main, arguments(config)) == 0
    out, err = capsys.readouterr()
    path = open_snapshot(config.preprocessing.snapshot).path
    assert out == f"{path}: 3 sequences, 6 rows, 4 songs\n"
    assert "reading songs" in err
    assert "sequences: 6 rows in, 6 rows in 3 sequences out" in caplog.messages


def test_the_command_answers_bad_input_with_one_line_and_exit_code_2(configure, capsys):
    config = configure(songs=SONGS, sequences=f"{SEQUENCES} WHERE FALSE")
    assert exit_code_of(main, arguments(config)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: the query sequences returned no row")
    assert not config.preprocessing.snapshot.exists()
