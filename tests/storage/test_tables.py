import pytest

from errors import ConfigError, DatabaseUnreachable
from storage.connections import connect
from storage.tables import Kind, Reference, read_tables, require_zone


@pytest.fixture
def url(empty_database_url):
    with connect(empty_database_url) as connection:
        connection.execute(
            "CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('sad', 'glad'); CREATE DOMAIN app.code AS varchar(22)"
        )
        connection.execute(
            "CREATE TABLE app.song (id app.code PRIMARY KEY, isrc char(12) UNIQUE, mood app.mood, tags text[], made timestamp, "
            "heard timestamptz, day date, length interval, gain numeric(5, 2), tempo double precision, live boolean, place point)"
        )
        connection.execute(
            "CREATE TABLE app.play (song_id app.code REFERENCES app.song, at int) PARTITION BY RANGE (at);"
            "CREATE TABLE app.play_1 PARTITION OF app.play FOR VALUES FROM (0) TO (10);"
            "CREATE INDEX ON app.play (at); CREATE INDEX ON app.play (song_id) WHERE at > 5;"
            "ALTER TABLE app.song ENABLE ROW LEVEL SECURITY;"
            "CREATE VIEW public.songs AS SELECT id FROM app.song"
        )
    return empty_database_url


def test_a_table_is_read_with_its_columns_and_keys(url):
    song = {str(table): table for table in read_tables(url)}["app.song"]
    assert {column.name: (column.kind, column.type_name) for column in song.columns} == {
        "id": (Kind.TEXT, "text"),
        "isrc": (Kind.TEXT, "bpchar"),
        "mood": (Kind.TEXT, "app.mood"),
        "tags": (Kind.TEXTS, "text[]"),
        "made": (Kind.NAIVE_TIME, "timestamp without time zone"),
        "heard": (Kind.ZONED_TIME, "timestamp with time zone"),
        "day": (Kind.DATE, "date"),
        "length": (Kind.LENGTH_OF_TIME, "interval"),
        "gain": (Kind.REAL, "numeric"),
        "tempo": (Kind.REAL, "double precision"),
        "live": (Kind.TRUTH, "boolean"),
        "place": (Kind.OTHER, "unknown"),
    }
    assert (song.primary_key, song.unique, song.has_row_security) == (("id",), {"id", "isrc"}, True)


def test_an_enum_can_be_no_id(url):
    song = next(table for table in read_tables(url) if str(table) == "app.song")
    assert [column.name for column in song.columns if column.can_be_id] == ["id", "isrc"]


def test_a_partitioned_table_stands_for_its_partitions(url):
    tables = {str(table): table for table in read_tables(url)}
    assert set(tables) == {"app.song", "app.play", "public.songs"}
    assert tables["app.play"].references == (Reference(column="song_id", schema="app", table="song", referred="id"),)


def test_an_index_over_a_part_of_the_rows_finds_no_value(url):
    play = next(table for table in read_tables(url) if str(table) == "app.play")
    assert play.leads_index == {"at"}


def test_a_view_is_known_as_one(url):
    assert [table.is_view for table in read_tables(url, ["public"])] == [True]


def test_a_schema_that_is_not_there_is_said(url):
    with pytest.raises(ConfigError, match="no schema 'shop' in this database: it has app, public"):
        read_tables(url, ["shop"])


def test_our_own_schemas_are_passed_over(database_url):
    assert read_tables(database_url) == []
    assert "music.song" in map(str, read_tables(database_url, ["music"]))


def test_no_server_is_said_without_the_password():
    with pytest.raises(DatabaseUnreachable, match=r"no connection to me@127.0.0.1:1/music") as raised:
        read_tables("postgresql://me:secret@127.0.0.1:1/music")
    assert "secret" not in str(raised.value)


def test_an_unknown_zone_is_refused(url):
    require_zone(url, "Europe/Vienna")
    with pytest.raises(ConfigError, match="time zone 'Vienna' is not known to the server"):
        require_zone(url, "Vienna")
