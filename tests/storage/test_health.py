import json

import pytest

import map_tables
from storage.connections import connect
from storage.health import relations_read, scanned_tables, zones_named
from storage.named import as_statement
from storage.source import sequences_by_ids

TABLES = """
CREATE TABLE songs (id {type} PRIMARY KEY, title text);
CREATE TABLE playlists (id {type} PRIMARY KEY);
CREATE TABLE playlist_songs (
    playlist_id {type} REFERENCES playlists, song_id {type} REFERENCES songs, position integer,
    PRIMARY KEY (playlist_id, position)
);
INSERT INTO songs SELECT {song} FROM generate_series(1, 50) AS n;
INSERT INTO playlists SELECT {list} FROM generate_series(1, 2000) AS n;
INSERT INTO playlist_songs SELECT {list}, {other}, place FROM generate_series(1, 2000) AS n, generate_series(0, 9) AS place;
"""
# How a number becomes an id of each type.
IDS = {
    "bigint": "{}",
    "integer": "{}",
    "uuid": "md5('x' || {})::uuid",
    "text": "'id ' || {}",
    "varchar(22)": "'id ' || {}",
    "char(8)": "'id ' || {}",
}


@pytest.fixture(params=IDS, ids=str)
def large(request, empty_database_url, tmp_path):
    """2,000 lists of ten songs with keys of one type, mapped to `tmp_path`; the database and the id of a list."""
    form = IDS[request.param]
    ids = {"song": form.format("n"), "list": form.format("n"), "other": form.format("(1 + (n + place) % 50)")}
    with connect(empty_database_url) as connection:
        connection.execute(as_statement(TABLES.format(type=request.param, **ids)))
    with connect(empty_database_url) as connection:
        connection.execute("ANALYZE")
        one = connection.execute(as_statement(f"SELECT {form.format('7')}")).fetchone()[0]
    assert map_tables.main(["--dsn", empty_database_url, "--out", str(tmp_path)]) == 0
    return empty_database_url, tmp_path, one


def nodes(plan):
    return [plan["Node Type"], *(name for child in plan.get("Plans", []) for name in nodes(child))]


def test_one_list_is_read_through_the_index_whatever_the_type_of_its_key(large):
    url, folder, one = large
    query = (folder / "sequence_by_id.sql").read_text(encoding="utf-8")
    with connect(url) as connection:
        assert scanned_tables(connection, folder) == []
        rows = connection.execute(as_statement(f"EXPLAIN (FORMAT JSON) {query}"), {"sequence_id": str(one)}).fetchone()
    plan = rows[0] if isinstance(rows[0], list) else json.loads(rows[0])
    assert [name for name in nodes(plan[0]["Plan"]) if "Scan" in name and "Index" not in name and "Bitmap Heap" not in name] == []


def test_several_lists_are_read_in_one_query(large):
    url, folder, one = large
    with connect(url) as connection:
        first, second = sequences_by_ids(connection, folder, [one, one])
    assert len(first) == 10
    assert first == second


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SELECT id FROM public.songs AS song", ["public.songs"]),
        ('SELECT id FROM "public"."songs"', ["public.songs"]),
        ("SELECT id FROM songs", ["public.songs"]),
        ("SELECT songs.id FROM public.songs_2 AS songs", ["public.songs_2"]),
        ("SELECT id FROM other.songs", []),
    ],
)
def test_the_tables_of_the_queries_are_found_by_their_names(empty_database_url, tmp_path, text, names):
    for name in ("songs", "songs_by_id", "sequences", "sequence_by_id"):
        (tmp_path / f"{name}.sql").write_text(text)
    with connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE songs (id int); CREATE TABLE songs_2 (id int); CREATE TABLE playlists (id int)")
        assert [str(relation) for relation in relations_read(connection, tmp_path)] == names


def test_zones_are_read_from_the_queries(tmp_path):
    for name in ("songs", "songs_by_id", "sequences", "sequence_by_id"):
        (tmp_path / f"{name}.sql").write_text("SELECT at at time zone 'Europe/Vienna', now() AT TIME ZONE zone")
    assert zones_named(tmp_path) == ["Europe/Vienna"]
