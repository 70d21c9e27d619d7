import re
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from config import DatabaseConfig
from errors import DatabaseError, DatabaseUnreachable, SchemaError, UnknownPlaylist
from storage.source import (
    check_contract,
    high_water_mark,
    newer_rows,
    one_moment,
    sequence_by_id,
    sequences_by_ids,
    songs_by_id,
    stream_sequences,
    stream_songs,
)

MUSIC = DatabaseConfig().queries_folder

MUSIC_ROWS = """
INSERT INTO music.artist VALUES ('a1', 'Nova');
INSERT INTO music.album VALUES ('b1', 'Dawn', 'a1');
INSERT INTO music.song (song_id, title, artist_id, album_id, tempo, explicit, key)
VALUES
    ('s1', 'Rise', 'a1', 'b1', 120.5, true, 3),
    ('s2', NULL, NULL, NULL, NULL, NULL, NULL),
    ('s3', 'Set', 'a1', NULL, 90, false, -1);
INSERT INTO music.playlist (playlist_id, group_id, created_at) VALUES ('p1', 'g', '2024-05-01 10:00+02'), ('p2', NULL, NULL);
INSERT INTO music.playlist_song (playlist_id, position, song_id)
VALUES ('p1', 0, 's2'), ('p1', 1, 's1'), ('p1', 2, 's2'), ('p2', 5, 's3');
INSERT INTO music.listen (user_id, listened_at, song_id, skipped) VALUES
    ('u:1', '2024-01-01 10:00Z', 's1', false),
    ('u:1', '2024-01-01 10:30Z', 's2', false),
    ('u:1', '2024-01-01 10:40Z', 's3', true),
    ('u:1', '2024-01-01 11:00:01Z', 's3', NULL),
    ('v', '2024-01-01 10:40Z', 's1', NULL);
"""

OWN_TABLES = """
CREATE TABLE track (id int PRIMARY KEY, name varchar(20), bpm numeric(6, 2));
CREATE TABLE playlist_track (playlist_id uuid, track_id int, added timestamp);
INSERT INTO track VALUES (1, 'One', 120.25), (2, 'Two', NULL);
INSERT INTO playlist_track VALUES
    ('00000000-0000-0000-0000-000000000007', 2, '2024-01-01'),
    ('00000000-0000-0000-0000-000000000007', 1, '2024-01-02');
"""
OWN_QUERIES = {
    "songs": "SELECT id AS song_id, name AS title, bpm FROM track ORDER BY id;",
    "sequences": "SELECT playlist_id AS sequence_id, track_id AS song_id, added AT TIME ZONE 'UTC' AS listened_at "
    "FROM playlist_track ORDER BY playlist_id, added -- no semicolon",
    "sequence_by_id": "SELECT track_id AS song_id FROM playlist_track WHERE playlist_id = %(sequence_id)s ORDER BY added",
    "songs_by_id": "SELECT id AS song_id, name AS title, bpm FROM track WHERE id = ANY(%(song_ids)s)",
}
PLAYLIST = UUID(int=7)


@pytest.fixture
def music(connection):
    connection.execute(MUSIC_ROWS)
    connection.commit()
    return connection


@pytest.fixture
def own(connection):
    connection.execute(OWN_TABLES)
    connection.commit()
    return connection


@pytest.fixture
def own_queries(tmp_path: Path) -> Path:
    for name, text in OWN_QUERIES.items():
        (tmp_path / f"{name}.sql").write_text(text)
    return tmp_path


def rewrite(folder: Path, name: str, old: str, new: str) -> None:
    assert old in OWN_QUERIES[name]
    (folder / f"{name}.sql").write_text(OWN_QUERIES[name].replace(old, new))


def test_songs_come_with_names_features_and_gaps(database_url, music):
    songs = (
        stream_songs(database_url, MUSIC).read_all().select(["song_id", "artist_name", "album_title", "tempo", "explicit", "key"])
    )
    assert songs.to_pylist() == [
        {"song_id": "s1", "artist_name": "Nova", "album_title": "Dawn", "tempo": 120.5, "explicit": True, "key": 3},
        {"song_id": "s2", "artist_name": None, "album_title": None, "tempo": None, "explicit": None, "key": None},
        {"song_id": "s3", "artist_name": "Nova", "album_title": None, "tempo": 90.0, "explicit": False, "key": -1},
    ]


def test_playlists_and_sessions_come_in_their_order(database_url, music):
    rows = stream_sequences(database_url, MUSIC).read_all().select(["sequence_id", "song_id"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("listen:u:1:0", "s1"),
        ("listen:u:1:0", "s2"),  # exactly 30 minutes later: still the same session; s3 was skipped in it
        ("listen:u:1:1", "s3"),
        ("listen:v:0", "s1"),
        ("p1", "s2"),
        ("p1", "s1"),
        ("p1", "s2"),
        ("p2", "s3"),
    ]


def test_a_row_tells_its_time_its_group_and_its_history(database_url, music):
    rows = stream_sequences(database_url, MUSIC).read_all().to_pylist()
    assert rows[1] == {
        "sequence_id": "listen:u:1:0",
        "song_id": "s2",
        "position": 2,
        "listened_at": datetime(2024, 1, 1, 10, 30, tzinfo=UTC),
        "ms_played": None,
        "skipped": False,
        "is_recommended": None,
        "group_id": None,
        "history_id": "listen:u:1",
    }
    assert (rows[4]["group_id"], rows[4]["listened_at"]) == ("g", datetime(2024, 5, 1, 8, 0, tzinfo=UTC))
    assert [row["history_id"] for row in rows[2:5]] == ["listen:u:1", "listen:v", None]


@pytest.mark.parametrize(
    ("sequence_id", "songs"),
    [("p1", ["s2", "s1", "s2"]), ("listen:u:1:0", ["s1", "s2"]), ("listen:u:1:1", ["s3"]), ("listen:v:0", ["s1"])],
)
def test_one_sequence_is_what_the_stream_holds(music, sequence_id, songs):
    assert sequence_by_id(music, MUSIC, sequence_id) == songs


@pytest.mark.parametrize("sequence_id", ["nix", 5, "listen:u:1:2", "listen:v:x", ""])
def test_an_unknown_playlist_is_named(music, sequence_id):
    with pytest.raises(UnknownPlaylist, match=f"no playlist {sequence_id!r}"):
        sequence_by_id(music, MUSIC, sequence_id)


def test_own_tables_keep_the_types_of_their_ids(database_url, own, own_queries):
    assert sequence_by_id(own, own_queries, PLAYLIST) == sequence_by_id(own, own_queries, str(PLAYLIST)) == [2, 1]
    assert songs_by_id(own, own_queries, [2, 3]) == [{"song_id": 2, "title": "Two", "bpm": None}]
    rows = stream_sequences(database_url, own_queries).read_all().to_pylist()
    assert [(row["sequence_id"], row["song_id"]) for row in rows] == [(PLAYLIST, 2), (PLAYLIST, 1)]


def test_a_decimal_column_is_a_float_in_the_stream_and_by_id(database_url, own, own_queries):
    songs = stream_songs(database_url, own_queries).read_all()
    assert songs.to_pydict() == {"song_id": [1, 2], "title": ["One", "Two"], "bpm": [120.25, None]}
    assert songs_by_id(own, own_queries, [1]) == [{"song_id": 1, "title": "One", "bpm": 120.25}]


def test_an_id_of_another_type_leaves_the_transaction_usable(own, own_queries):
    own.execute("INSERT INTO track VALUES (3, 'Three', 1)")
    with pytest.raises(UnknownPlaylist, match="no playlist 'summer': invalid input syntax for type uuid"):
        sequence_by_id(own, own_queries, "summer")
    assert own.execute("SELECT count(*) FROM track").fetchone() == (3,)


def test_an_empty_table_streams_no_rows_but_its_columns(database_url):
    songs = stream_songs(database_url, MUSIC).read_all()
    assert songs.num_rows == 0
    assert songs.schema.field("tempo").type == "double"


def test_a_stream_that_is_dropped_gives_its_connection_back(database_url, music):
    stream_sequences(database_url, MUSIC).read_next_batch()
    music.autocommit = True  # each look at the statistics is a new one
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND client_port > 0"
    deadline = time.monotonic() + 10  # a server process takes a moment to end
    while music.execute(others).fetchall() != [] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert music.execute(others).fetchall() == []


def test_the_contract_holds_for_our_own_queries_and_for_the_users(connection, own, own_queries):
    assert check_contract(connection, MUSIC).songs["tempo"] == "float8"
    columns = check_contract(own, own_queries)
    assert columns.songs == {"song_id": "int4", "title": "varchar", "bpm": "numeric"}
    assert columns.sequences == {"sequence_id": "uuid", "song_id": "int4", "listened_at": "timestamptz"}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("songs", "id AS song_id", "id AS track_id", r"songs\.sql has no column song_id.*it has track_id, title, bpm"),
        ("sequences", "AS sequence_id", "AS list", r"sequences\.sql has no column sequence_id"),
        ("songs_by_id", "AS song_id", "", r"songs_by_id\.sql has no column song_id"),
        ("sequences", " AT TIME ZONE 'UTC'", "", "listened_at in sequences.sql is timestamp, not timestamptz: .*zone"),
        ("songs", "id AS song_id", "id::float8 AS song_id", r"song_id in songs\.sql is float8: an id is"),
        (
            "sequences",
            "track_id AS",
            "track_id::text AS",
            r"song_id is a whole number in songs\.sql and a text in sequences\.sql",
        ),
        ("songs", "FROM track", "FROM tracks", 'relation "tracks" does not exist'),
        ("songs", "bpm", "tempo", 'column "tempo" does not exist'),
        ("songs", "SELECT", "SELEC", r"songs\.sql fails: syntax error"),
    ],
)
def test_a_query_that_breaks_the_contract_is_named(own, own_queries, name, old, new, message):
    rewrite(own_queries, name, old, new)
    with pytest.raises(SchemaError, match=message):
        check_contract(own, own_queries)


def test_a_query_file_in_another_encoding_is_named(connection, own_queries):
    (own_queries / "songs_by_id.sql").write_bytes("-- Stücke".encode("latin-1"))
    with pytest.raises(SchemaError, match=r"songs_by_id\.sql cannot be read: .*; save it as UTF-8"):
        songs_by_id(connection, own_queries, ["s1"])


def test_a_missing_query_file_is_named(connection, tmp_path):
    with pytest.raises(SchemaError, match=r"songs\.sql is missing: write it, or set queries_folder"):
        check_contract(connection, tmp_path)


def test_a_stream_that_cannot_begin_names_its_query(database_url, own, own_queries):
    rewrite(own_queries, "songs", "FROM track", "FROM tracks")
    with pytest.raises(SchemaError, match=r'^songs\.sql fails: relation "tracks" does not exist$'):
        stream_songs(database_url, own_queries)
    rewrite(own_queries, "songs", "AS song_id", "")
    with pytest.raises(SchemaError, match=r"songs\.sql has no column song_id"):
        stream_songs(database_url, own_queries)


def test_a_stream_that_breaks_off_says_why(database_url, own, own_queries):
    rewrite(own_queries, "songs", "bpm", "bpm / (id - 1) AS bpm")
    with pytest.raises(DatabaseError, match=r"^reading songs\.sql stopped: division by zero$"):
        stream_songs(database_url, own_queries).read_all()


def test_a_stream_without_a_server_is_unreachable():
    with pytest.raises(DatabaseUnreachable, match="Connection refused"):
        stream_songs("postgresql://me:geheim@127.0.0.1:1/music", MUSIC)


def test_the_high_water_mark_counts_and_dates(music):
    mark = high_water_mark(music, MUSIC)
    assert {name: mark[name] for name in ("songs", "rows", "latest")} == {
        "songs": 3,
        "rows": 8,
        "latest": "2024-05-01T08:00:00.000000Z",
    }


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO music.song (song_id) VALUES ('s4')",
        "UPDATE music.song SET tempo = 121 WHERE song_id = 's1'",
        "UPDATE music.playlist_song SET song_id = 's1' WHERE playlist_id = 'p1' AND position = 0",
        "UPDATE music.playlist_song SET position = 9 WHERE playlist_id = 'p1' AND position = 0",
        "DELETE FROM music.listen WHERE user_id = 'v'",
        "UPDATE music.playlist SET group_id = 'h' WHERE playlist_id = 'p1'",
        "UPDATE music.playlist SET group_id = NULL WHERE playlist_id = 'p1'",
        "UPDATE music.playlist SET created_at = created_at - INTERVAL '1 day' WHERE playlist_id = 'p1'",
        "UPDATE music.listen SET listened_at = listened_at + INTERVAL '1 second' WHERE user_id = 'v'",
    ],
)
def test_the_high_water_mark_moves_with_every_change(music, change):
    before = high_water_mark(music, MUSIC)
    assert high_water_mark(music, MUSIC) == before
    music.execute(change)
    assert high_water_mark(music, MUSIC) != before


def test_the_high_water_mark_does_not_depend_on_the_sessions_zone(music):
    before = high_water_mark(music, MUSIC)
    music.execute("SET timezone = 'Asia/Tokyo'")
    assert high_water_mark(music, MUSIC) == before


def test_the_high_water_mark_of_tables_without_time_has_no_latest(own, own_queries):
    rewrite(own_queries, "sequences", ", added AT TIME ZONE 'UTC' AS listened_at", "")
    mark = high_water_mark(own, own_queries)
    assert (mark["songs"], mark["rows"], mark["latest"]) == (2, 2, None)


@pytest.mark.parametrize(
    ("sequences", "rows"),
    [
        ("SELECT n AS sequence_id, n AS song_id, 1 AS position FROM generate_series(1, 3) AS n ORDER BY n, position DESC", 3),
        ("SELECT n AS sequence_id, n AS song_id, 1 AS position FROM generate_series(1, 3) AS n ORDER BY n LIMIT 2", 2),
        (
            "SELECT DISTINCT ON (1) n % 2 AS sequence_id, n AS song_id, n AS position "
            "FROM generate_series(1, 9) AS n ORDER BY 1, 2",
            2,
        ),
        ("SELECT 1 AS sequence_id, 2 AS song_id, 3 AS position -- in no ORDER BY position", 1),
    ],
)
def test_the_high_water_mark_sorts_only_where_the_order_matters(own, own_queries, sequences, rows):
    (own_queries / "sequences.sql").write_text(sequences)
    mark, unsorted = high_water_mark(own, own_queries), f"SELECT * FROM ({sequences}\n) AS query"
    (own_queries / "sequences.sql").write_text(unsorted)
    assert mark == high_water_mark(own, own_queries)
    assert mark["rows"] == rows


def test_the_high_water_mark_counts_what_a_run_leaves_out(own, own_queries):
    rows = "(NULL, 1, TRUE), (1, NULL, TRUE), (1, 1, TRUE), (1, 1, FALSE), (1, 2, NULL)"
    (own_queries / "sequences.sql").write_text(f"SELECT * FROM (VALUES {rows}) AS written (sequence_id, song_id, is_recommended)")
    mark = high_water_mark(own, own_queries)
    assert [mark[f"rows_{name}"] for name in ("without_sequence", "without_song", "recommended")] == [1, 1, 1]


def test_newer_rows_are_those_beyond_the_mark_and_make_up_the_difference(music):
    before = high_water_mark(music, MUSIC)
    music.execute(
        "INSERT INTO music.listen (user_id, listened_at, song_id) VALUES ('v', '2025-01-01Z', 's2'), ('w', now(), 's1')"
    )
    now = high_water_mark(music, MUSIC)
    newer = newer_rows(music, MUSIC, "listened_at", str(before["latest"]))
    assert (sorted(map(str, newer.sequence_ids)), newer.rows) == (["listen:v:1", "listen:w:0"], 2)
    assert int(str(now["rows_content"])) - newer.content == int(str(before["rows_content"]))


# --- some columns, some sequences, one moment --------------------------------------------------------------------------------


def test_a_stream_of_some_columns_keeps_the_order_of_the_query(music, database_url):
    whole = stream_sequences(database_url, MUSIC).read_all()
    assert stream_sequences(database_url, MUSIC, columns=["song_id", "sequence_id"]).read_all() == whole.select(
        ["song_id", "sequence_id"]
    )


@pytest.mark.parametrize("sequence_ids", [["p1", "listen:v:0"], ["it's \\ {none}"], []])
def test_a_stream_of_some_sequences_holds_these_in_the_order_of_the_query(music, database_url, sequence_ids):
    columns = ["sequence_id", "song_id"]
    whole = stream_sequences(database_url, MUSIC, columns=columns).read_all().to_pylist()
    some = stream_sequences(database_url, MUSIC, columns=columns, sequence_ids=sequence_ids).read_all().to_pylist()
    assert some == [row for row in whole if row["sequence_id"] in sequence_ids]


def test_sequences_with_uuids_can_be_chosen(own, own_queries, database_url):
    columns = ["sequence_id", "song_id"]
    for chosen, n_rows in ((PLAYLIST, 2), (UUID(int=8), 0)):
        assert stream_sequences(database_url, own_queries, columns=columns, sequence_ids=[chosen]).read_all().num_rows == n_rows


def test_what_is_written_later_is_not_in_the_moment(music, database_url):
    with one_moment(database_url) as moment:
        before = high_water_mark(moment.connection, MUSIC)
        music.execute("DELETE FROM music.listen; DELETE FROM music.playlist_song; DELETE FROM music.song")
        music.commit()
        assert stream_songs(database_url, MUSIC, moment=moment).read_all().num_rows == before["songs"] == 3
        assert stream_sequences(database_url, MUSIC, moment=moment).read_all().num_rows == before["rows"]
        assert high_water_mark(moment.connection, MUSIC) == before
    assert stream_songs(database_url, MUSIC).read_all().num_rows == 0


# --- several sequences at once -----------------------------------------------------------------------------------------------


def plain(found) -> list:
    """Songs as they are, errors as their texts."""
    return [str(one) if isinstance(one, UnknownPlaylist) else one for one in found]


def test_several_sequences_are_read_in_the_order_of_their_ids_and_places(music):
    found = sequences_by_ids(music, MUSIC, ["p2", "p1", "p9", "listen:u:1:0", "p1"])
    missing = "no playlist 'p9' in the database, or it is empty"
    assert plain(found) == [["s3"], ["s2", "s1", "s2"], missing, ["s1", "s2"], ["s2", "s1", "s2"]]
    assert sequences_by_ids(music, MUSIC, []) == []


def test_several_sequences_keep_the_types_of_their_ids(own, own_queries):
    assert plain(sequences_by_ids(own, own_queries, [PLAYLIST, str(PLAYLIST)])) == [[2, 1], [2, 1]]


@pytest.mark.parametrize("written", ["%(sequence_id)s", "%(sequence_id)s::uuid", "CAST(%(sequence_id)s::text AS uuid)"])
def test_several_sequences_are_read_however_the_query_writes_its_parameter(own, own_queries, written):
    rewrite(own_queries, "sequence_by_id", "%(sequence_id)s", f"{written} AND 'a%%' LIKE 'a%%'")
    assert sequences_by_ids(own, own_queries, [str(PLAYLIST)]) == [[2, 1]]


def test_an_id_of_another_type_spoils_no_other_one(own, own_queries):
    found = plain(sequences_by_ids(own, own_queries, ["abc", str(PLAYLIST)]))
    assert found == ["no playlist 'abc': invalid input syntax for type uuid: \"abc\"", [2, 1]]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("SELECT", "SELEC", 'syntax error at or near "SELEC": correct the query files'),
        ("playlist_track WHERE", "nowhere WHERE", 'relation "nowhere" does not exist'),
        ("track_id AS song_id", "track_id", "no column song_id"),
        ("%(sequence_id)s", "%(playlist)s", "playlist"),
        ("%(sequence_id)s", "%s", r"write %\(sequence_id\)s"),
    ],
)
def test_a_query_that_fails_for_every_id_is_a_schema_error(own, own_queries, old, new, told):
    rewrite(own_queries, "sequence_by_id", old, new)
    [found] = sequences_by_ids(own, own_queries, [str(PLAYLIST)])
    assert isinstance(found, SchemaError)
    assert re.search(told, str(found))
    assert own.execute("SELECT 1").fetchone() == (1,)  # the caller's transaction goes on


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 1 / 0", "playlist 'bad' cannot be read: division by zero"),
        ("SELECT pg_sleep(60)", "the database could not carry on: canceling statement due to statement timeout"),
        (
            "SELECT 1 UNION ALL SELECT 2",
            "more than one row returned by a subquery used as an expression: correct the query files",
        ),
        ("SELECT recommender.refuse()", "playlist 'bad' cannot be read: page is gone"),
    ],
)
def test_a_sequence_that_cannot_be_read_spoils_no_other_one(music, tmp_path, sql, told):
    music.execute(
        "CREATE FUNCTION recommender.refuse() RETURNS int LANGUAGE plpgsql AS "
        "$$BEGIN RAISE data_corrupted USING MESSAGE = 'page is gone'; END$$"
    )
    query = f"SELECT 's1' AS song_id WHERE CASE %(sequence_id)s::text WHEN 'bad' THEN ({sql}) IS NULL ELSE true END"
    (tmp_path / "sequence_by_id.sql").write_text(query)
    music.execute("SET LOCAL statement_timeout = '500ms'")
    before, bad, after = sequences_by_ids(music, tmp_path, ["p1", "bad", "p2"])
    assert (before, str(bad), after) == (["s1"], told, ["s1"])
    assert isinstance(bad, DatabaseError)


def test_a_connection_that_is_lost_is_no_error_of_a_sequence(music, tmp_path):
    query = "SELECT pg_terminate_backend(pg_backend_pid())::text AS song_id WHERE %(sequence_id)s <> ''"
    (tmp_path / "sequence_by_id.sql").write_text(query)
    with pytest.raises(DatabaseUnreachable):
        sequences_by_ids(music, tmp_path, ["p1", "p2"])
