"""What the conversions give for real values, on a real PostgreSQL."""

from datetime import UTC, datetime

import pytest

from storage.mapping.columns import Place, feature, find, time_sql
from storage.named import as_statement
from storage.tables import Column, Kind, Table, quoted

KINDS = {
    "text": Kind.TEXT,
    "integer": Kind.WHOLE,
    "bigint": Kind.WHOLE,
    "real": Kind.REAL,
    "boolean": Kind.TRUTH,
    "interval": Kind.LENGTH_OF_TIME,
    "date": Kind.DATE,
    "timestamp": Kind.NAIVE_TIME,
    "timestamptz": Kind.ZONED_TIME,
}


def place(name, type_name):
    column = Column(name=name, kind=KINDS[type_name], type_name=type_name)
    return Place(alias="song", table=Table(schema="public", name="songs", columns=(column,)), column=column)


def computed(connection, sql, name, type_name, value):
    query = f"SELECT {sql.replace('%', '%%')} FROM (SELECT %s::{type_name} AS {quoted(name)}) AS song"
    return connection.execute(as_statement(query), [value]).fetchone()[0]


@pytest.mark.parametrize(
    ("feature_name", "column", "type_name", "value", "expected"),
    [
        ("key", "key_", "text", "C#", 1),
        ("key", "key", "text", "Bb minor", 10),
        ("key", "key", "text", "F♯m", 6),
        ("key", "key", "text", " b ", 11),
        ("key", "key", "text", "-1", -1),
        ("key", "key", "text", "8A", None),
        ("key", "key", "integer", 7, 7),
        ("mode", "mode_", "text", "major", 1),
        ("mode", "scale", "text", "Minor", 0),
        ("mode", "scale", "text", "dorian", None),
        ("mode", "is_major", "boolean", True, 1),
        ("explicit", "explicit", "text", "True", True),
        ("explicit", "explicit", "text", "notExplicit", False),
        ("explicit", "explicit", "text", "?", None),
        ("explicit", "explicit", "integer", 1, True),
        ("tempo", "bpm", "text", "120.5", 120.5),
        ("tempo", "bpm", "text", "1e3", 1000.0),
        ("tempo", "bpm", "text", "fast", None),
        ("tempo", "bpm", "text", "1e999", None),
        ("tempo", "bpm", "text", "", None),
        ("time_signature", "time_signature", "text", "4/4", 4),
        ("duration_ms", "duration_ms", "integer", 200_000, 200_000),
        ("duration_ms", "duration_s", "integer", 200, 200_000),
        ("duration_ms", "duration_seconds", "integer", 3_000_000, 3_000_000_000),
        ("duration_ms", "duration_min", "real", 2.5, 150_000),
        ("duration_ms", "duration", "integer", 200, 200_000),
        ("duration_ms", "duration", "integer", 200_000, 200_000),
        ("duration_ms", "length", "interval", "3 min 20 s", 200_000),
        ("release_year", "release_date", "date", "1999-12-31", 1999),
        ("release_year", "release_date", "text", "1999-12", 1999),
        ("release_year", "year", "integer", 1999, 1999),
    ],
)
def test_a_value_is_converted_or_becomes_null(connection, feature_name, column, type_name, value, expected):
    sql = feature(feature_name, place(column, type_name)).sql
    assert computed(connection, sql, column, type_name, value) == expected


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("timestamptz", "2026-01-01 12:00+00"),
        ("timestamp", "2026-01-01 13:00"),
        ("bigint", 1_767_268_800),
        ("bigint", 1_767_268_800_000),
        ("bigint", 1_767_268_800_000_000),
    ],
)
def test_a_time_of_any_kind_is_one_with_its_zone(connection, type_name, value):
    sql = time_sql(place("played_at", type_name), "Europe/Vienna")
    assert computed(connection, sql, "played_at", type_name, value).astimezone(UTC) == datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["title", "Title", "song_title", "songTitle", "TITLE_"])
def test_names_are_found_whatever_their_case_and_the_name_of_their_table(name):
    table = Table(schema="public", name="Songs", columns=(Column(name=name, kind=Kind.TEXT, type_name="text"),))
    assert find(table, ("name", "title")).name == name


def test_a_type_that_cannot_be_the_feature_is_none():
    assert feature("tempo", place("tempo", "timestamp")) is None
    assert feature("release_year", place("released", "boolean")) is None


def test_an_enum_is_read_as_text(connection):
    connection.execute("CREATE TYPE scale AS ENUM ('major', 'minor')")
    column = Column(name="mode", kind=Kind.TEXT, type_name="scale")
    sql = feature("mode", Place(alias="song", table=Table(schema="public", name="songs", columns=(column,)), column=column)).sql
    assert computed(connection, sql, "mode", "scale", "minor") == 0
