"""The optional playlists.sql: the shipped one over the schema `music`, and what may be wrong with somebody's own."""

from pathlib import Path
from uuid import UUID

import pytest

from config import PROJECT_ROOT, DatabaseConfig
from errors import DatabaseError, SchemaError
from storage.named import as_statement
from storage.playlists import Playlist, can_be_listed, find_playlists, name_of_playlist
from storage.source import sequence_by_id

SHIPPED = DatabaseConfig().queries_folder


@pytest.fixture
def music(connection):
    """Three lists, one of them without a name, and the listens of two users."""
    connection.execute("INSERT INTO music.song (song_id) SELECT 's' || n FROM generate_series(1, 9) AS n")
    connection.execute(
        "INSERT INTO music.playlist (playlist_id, name, created_at) VALUES ('p1', 'Rainy Sunday, slow', '2026-01-01Z'), "
        "('p2', 'Sunday 100%', '2026-01-03Z'), ('p3', NULL, NULL)"
    )
    connection.execute(
        "INSERT INTO music.playlist_song (playlist_id, position, song_id) "
        "VALUES ('p1', 1, 's1'), ('p1', 2, 's2'), ('p2', 1, 's3')"
    )
    connection.execute(
        "INSERT INTO music.listen (user_id, song_id, listened_at) VALUES "
        "('anna', 's1', '2026-01-02 20:00Z'), ('anna', 's2', '2026-01-02 20:04Z'), "
        "('anna', 's3', '2026-01-05 20:15Z'), ('anna', 's4', '2026-01-05 20:19Z'), ('anna', 's5', '2026-01-05 20:49Z'), "
        "('bert', 's1', '2025-01-01 10:00Z')"
    )
    connection.execute("SET TIME ZONE 'UTC'")
    return connection


def found(connection, text, count=10, folder=SHIPPED):
    return [(one.playlist_id, one.name, one.n_songs) for one in find_playlists(connection, folder, text, count)]


EVENING, EARLIER = (
    ("listen:anna:1", "Session of 2026-01-05 20:15, 3 songs, anna", 3),
    ("listen:anna:0", "Session of 2026-01-02 20:00, 2 songs, anna", 2),
)
RAINY, SUNDAY, NAMELESS = ("p1", "Rainy Sunday, slow", 2), ("p2", "Sunday 100%", 1), ("p3", "p3", 0)


def test_lists_and_sessions_come_newest_first_and_what_has_no_time_last(music):
    assert found(music, "") == [EVENING, SUNDAY, EARLIER, RAINY, NAMELESS]
    assert found(music, " ", count=2) == [EVENING, SUNDAY]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sunday", [SUNDAY, RAINY]),
        ("SLOW  rain", [RAINY]),
        ("100%", [SUNDAY]),
        ("_", []),
        ("session 20:15", [EVENING]),
        ("p3", [NAMELESS]),
        ("' OR true --", []),
        ("\\", []),
    ],
)
def test_all_words_stand_anywhere_in_the_name(music, text, expected):
    assert found(music, text) == expected


def test_one_is_found_by_its_id_before_all_others(music):
    music.execute("INSERT INTO music.playlist (playlist_id, name, created_at) VALUES ('p9', 'like p1', '2027-01-01Z')")
    assert found(music, "p1", count=1) == [RAINY]
    assert name_of_playlist(music, SHIPPED, "listen:anna:1") == EVENING[1]
    assert name_of_playlist(music, SHIPPED, "p") is None


def test_every_session_is_read_by_its_id_with_as_many_songs(music):
    for playlist_id, _, n_songs in found(music, "session"):
        assert len(sequence_by_id(music, SHIPPED, playlist_id)) == n_songs


def test_the_service_may_list_them(music):
    music.execute(as_statement((PROJECT_ROOT / "storage" / "setup.sql").read_text(encoding="utf-8")))
    music.execute("SET ROLE recommender_service")
    assert len(found(music, "")) == 5


# --- somebody's own ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "playlists.sql").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_without_the_file_nothing_can_be_listed(connection, tmp_path):
    assert (can_be_listed(tmp_path), find_playlists(connection, tmp_path, "", 5)) == (False, [])
    assert name_of_playlist(connection, tmp_path, 7) is None


def test_ids_keep_their_type_and_a_list_may_have_no_name(connection, written):
    folder = written(
        "SELECT id AS playlist_id, NULL AS name, 2::numeric AS n_songs FROM (VALUES (7), (8), (NULL)) AS own (id) "
        "WHERE %(q)s::text <> '' LIMIT %(count)s;\n-- the end"
    )
    assert find_playlists(connection, folder, "x", 5)[0] == Playlist(playlist_id=7, name=None, n_songs=2)
    uuids = written("SELECT '0000000b-0000-0000-0000-000000000000'::uuid AS playlist_id, 'a' AS name, 1 AS n_songs")
    assert find_playlists(connection, uuids, "", 5)[0].playlist_id == UUID("0000000b-0000-0000-0000-000000000000")


def test_a_query_without_a_limit_is_cut_off(connection, written):
    folder = written("SELECT n AS playlist_id, 'a' AS name, 1 AS n_songs FROM generate_series(1, 1000) AS n")
    assert len(find_playlists(connection, folder, "", 3)) == 3


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("SELECT", SchemaError, "playlists.sql has no column playlist_id, which is required; it has none"),
        ("SELECT 1 AS playlist_id, 'a' AS name", SchemaError, "playlists.sql has no column n_songs"),
        ("SELECT 1 AS playlist_id, 'a' AS name, 'two' AS n_songs", SchemaError, "n_songs in playlists.sql is 'two'"),
        (
            "SELECT 1 AS playlist_id, 'a' AS name, 'NaN'::numeric AS n_songs",
            SchemaError,
            "n_songs in playlists.sql is Decimal('NaN')",
        ),
        (
            "SELECT 1 AS playlist_id, 'a' AS name, 'Infinity'::numeric AS n_songs",
            SchemaError,
            "n_songs in playlists.sql is Decimal",
        ),
        ("SELECT '\\x00'::bytea AS playlist_id, 'a' AS name, 1 AS n_songs", SchemaError, "playlist_id in playlists.sql is b'"),
        ("SELECT now() AS playlist_id, 'a' AS name, 1 AS n_songs", SchemaError, "playlist_id in playlists.sql is datetime"),
        ("SELECT FROM nowhere", SchemaError, 'playlists.sql fails: relation "nowhere" does not exist'),
        ("SELECT 1 WHERE 'a' LIKE 'a%' OR %(q)s = ''", SchemaError, "playlists.sql"),
        ("SELECT %(wanted)s", SchemaError, "playlists.sql fails: query parameter missing: wanted"),
        ("SELECT %s", SchemaError, "playlists.sql has the parameter %s: write %(q)s and %(count)s"),
        ("SELECT 1 / 0", DatabaseError, "playlists.sql fails: division by zero"),
        ("DELETE FROM music.song", DatabaseError, "playlists.sql fails: cannot execute DELETE in a read-only transaction"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_and_the_transaction_survives(connection, written, text, kind, told):
    with pytest.raises(kind) as failed:
        find_playlists(connection, written(text), "", 5)
    assert str(failed.value).startswith(told)
    assert connection.execute("SELECT 1").fetchone() == (1,)
