"""Named filters: the files beside the queries, and the songs that they let through."""

import logging
from uuid import UUID

import pytest

from config import DatabaseConfig
from errors import DatabaseError, SchemaError, UnknownFilter
from storage.filters import filter_names, songs_of_filter

SHIPPED = DatabaseConfig().queries_folder


@pytest.fixture
def written(tmp_path):
    """Writes filters/NAME.sql and returns the folder of the queries."""

    def write(**texts: str):
        (tmp_path / "filters").mkdir(exist_ok=True)
        for name, text in texts.items():
            (tmp_path / "filters" / f"{name}.sql").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_the_shipped_filters_choose_among_the_songs_of_the_schema_music(connection):
    connection.execute(
        "INSERT INTO music.song (song_id, energy, tempo, release_date) VALUES ('quiet', 0.2, 80, '1990-01-01'), "
        "('loud', 0.9, 80, current_date - 10), ('fast', 0.2, 170, NULL), ('unmeasured', NULL, NULL, NULL)"
    )
    assert filter_names(SHIPPED) == ["calm", "new_releases"]
    assert songs_of_filter(connection, SHIPPED, "calm") == ["quiet"]
    assert songs_of_filter(connection, SHIPPED, "new_releases") == ["loud"]


def test_without_a_folder_there_are_no_filters(connection, tmp_path):
    assert filter_names(tmp_path) == []
    with pytest.raises(UnknownFilter, match="no filter 'calm': there are none") as unknown:
        songs_of_filter(connection, tmp_path, "calm")
    assert unknown.value.status == 422


@pytest.mark.parametrize("name", ["c", "../songs", "", "A", "a;b"])
def test_an_unknown_filter_is_told_with_those_that_there_are(connection, written, name):
    folder = written(a="SELECT 1 AS song_id", b="SELECT 1 AS song_id")
    with pytest.raises(UnknownFilter, match=f"no filter {name!r}: there are a, b"):
        songs_of_filter(connection, folder, name)


def test_ids_keep_their_type_and_null_is_none_of_them(connection, written):
    folder = written(
        numbers="SELECT 'x' AS title, n AS song_id FROM generate_series(1, 2) AS n UNION ALL SELECT 'y', NULL;\n-- the end",
        uuids="SELECT '0000000b-0000-0000-0000-000000000000'::uuid AS song_id;",
        percent="SELECT 's' AS song_id WHERE 'abc' LIKE 'a%'",
    )
    assert songs_of_filter(connection, folder, "numbers") == [1, 2]
    assert songs_of_filter(connection, folder, "uuids") == [UUID("0000000b-0000-0000-0000-000000000000")]
    assert songs_of_filter(connection, folder, "percent") == ["s"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("SELECT 1 AS id", SchemaError, "filters/broken.sql has no column song_id, which is required; it has id"),
        ("SET search_path = music", SchemaError, "filters/broken.sql has no column song_id, which is required; it has none"),
        ("SELECT song_id FROM nowhere", SchemaError, 'filters/broken.sql fails: relation "nowhere" does not exist'),
        ("SELECT FROM FROM", SchemaError, "filters/broken.sql fails: syntax error"),
        ("DO $$ BEGIN RAISE 'not today' USING ERRCODE = '23505'; END $$", DatabaseError, "filters/broken.sql fails: not today"),
        ("SELECT 1 / 0 AS song_id", DatabaseError, "filters/broken.sql fails: division by zero"),
    ],
)
def test_a_filter_that_cannot_be_used_is_named(connection, written, text, error, message):
    with pytest.raises(error, match=message):
        songs_of_filter(connection, written(broken=text), "broken")


def test_a_filter_in_another_encoding_is_named(connection, written):
    folder = written(broken="SELECT 1")
    (folder / "filters" / "broken.sql").write_bytes("-- Stücke".encode("latin-1"))
    with pytest.raises(SchemaError, match=r"filters/broken\.sql cannot be read: .*; save it as UTF-8"):
        songs_of_filter(connection, folder, "broken")


def test_a_file_whose_name_cannot_be_asked_for_is_passed_over_with_a_warning(written, caplog):
    caplog.set_level(logging.WARNING)
    assert filter_names(written(**{"good": "SELECT 1", "90s": "SELECT 1", "old copy": "SELECT 1"})) == ["good"]
    assert [message.partition(" is no filter")[0] for message in caplog.messages] == ["filters/90s.sql", "filters/old copy.sql"]


def test_a_filter_that_writes_is_refused_and_nothing_is_lost(connection, tmp_path):
    folder = tmp_path / "filters"
    folder.mkdir()
    connection.execute("INSERT INTO music.song (song_id) VALUES ('s')")
    (folder / "evil.sql").write_text("DELETE FROM music.song RETURNING song_id")
    with pytest.raises(DatabaseError, match="read-only"):
        songs_of_filter(connection, tmp_path, "evil")
    assert connection.execute("SELECT count(*) FROM music.song").fetchone() == (1,)
    connection.execute("INSERT INTO music.song (song_id) VALUES ('t')")  # what comes afterwards may write again
