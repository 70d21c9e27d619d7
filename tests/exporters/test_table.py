"""CSV, JSON, and rows that PostgreSQL takes as they were meant."""

import csv
import io
import json
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DataError
from exporters.playlist import ExportedSong, Target
from exporters.table import write_csv, write_json, write_sql
from tests.exporters.small import ANYWHERE, BARE, CREATED, EVENING, LOW_TIDE, RECORDING, SPOTIFY_ID, of


def rows_of(exported):
    return list(csv.DictReader(io.StringIO(write_csv(exported, ANYWHERE).text, newline="")))


def test_csv_has_the_columns_of_exportify_and_ours():
    first, second = rows_of(EVENING)
    assert first == {
        "Playlist Name": "Evening",
        "Track URI": f"spotify:track:{SPOTIFY_ID}",
        "Track Name": "Low Tide",
        "Artist Name(s)": "The Piers",
        "Album Name": "Harbour",
        "Track Duration (ms)": "218400",
        "ISRC": "QZABC2000001",
        "Added At": "2026-01-02T03:04:05+00:00",
        "Recording MBID": RECORDING,
        "Artist MBID": "22222222-0000-4000-8000-000000000000",
        "Release MBID": "33333333-0000-4000-8000-000000000000",
        "Location": "/music/The Piers/Low Tide.flac",
        "song_id": f"spotify:track:{SPOTIFY_ID}",
        "Rank": "1",
        "Score": "4.25",
        "Reasons": 'same artist as "Rain"; tempo close to song s1',
        "Model": "run/epoch-001/0123456789ab",
    }
    assert {name for name, cell in second.items() if cell} == {"Playlist Name", "song_id", "Added At", "Model"}


@pytest.mark.parametrize(
    ("title", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("-2+3", "'-2+3"),
        ("+1", "'+1"),
        ("@sum(1)", "'@sum(1)"),
        ("\tx", "'\tx"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("'tis", "'tis"),
        ("1-2", "1-2"),
    ],
)
def test_a_text_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(title, cell):
    [row] = rows_of(of(ExportedSong(song_id=1, title=title, score=-1.5)))
    assert (row["Track Name"], row["Score"]) == (cell, "-1.5")


def test_an_id_that_computes_nothing_stays_as_it_is():
    rows = rows_of(of(ExportedSong(song_id="-a_b"), ExportedSong(song_id="-1+1"), ExportedSong(song_id=-7)))
    assert [row["song_id"] for row in rows] == ["-a_b", "'-1+1", "-7"]


def test_json_holds_all_that_is_known():
    plain = json.loads(write_json(EVENING, ANYWHERE).text)
    assert {name: plain[name] for name in ("name", "created_at", "model")} == {
        "name": "Evening",
        "created_at": "2026-01-02T03:04:05+00:00",
        "model": {"model_id": "run/epoch-001/0123456789ab", "version": "0123456789ab"},
    }
    assert plain["songs"][1] == dict.fromkeys(plain["songs"][0]) | {"song_id": "s2", "reasons": []}
    assert plain["songs"][0] == {
        **{name: getattr(LOW_TIDE, name) for name in plain["songs"][0]},
        "reasons": ['same artist as "Rain"', "tempo close to song s1"],
    }


def test_a_uuid_is_a_text_in_json_and_no_model_is_null():
    plain = json.loads(write_json(of(ExportedSong(song_id=UUID(RECORDING))), ANYWHERE).text)
    assert (plain["songs"][0]["song_id"], plain["model"]) == (RECORDING, None)


def run(connection, exported, table="playlist_export"):
    connection.commit()
    connection.autocommit = True
    connection.execute(write_sql(exported, Target(table=table)).text)


def test_the_script_makes_a_table_with_the_rows_in_it(connection):
    run(connection, EVENING)
    assert connection.execute("SELECT * FROM playlist_export ORDER BY position").fetchall() == [
        (
            *("Evening", 1, LOW_TIDE.song_id, "Low Tide", "The Piers", "Harbour", 218_400, "QZABC2000001", UUID(RECORDING)),
            *("/music/The Piers/Low Tide.flac", 4.25, 'same artist as "Rain"; tempo close to song s1'),
            *("run/epoch-001/0123456789ab", CREATED),
        ),
        ("Evening", 2, "s2", *[None] * 9, "run/epoch-001/0123456789ab", CREATED),
    ]


def test_the_script_is_one_transaction():
    lines = write_sql(EVENING, ANYWHERE).text.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("-- a list of BERT4MusicRec", "BEGIN;", "COMMIT;")


def test_a_second_list_goes_into_the_same_table(connection):
    run(connection, of(LOW_TIDE))
    run(connection, of(BARE, name="Night"))
    run(connection, of(name="nothing"))
    assert connection.execute("SELECT playlist_name FROM playlist_export ORDER BY 1").fetchall() == [("Evening",), ("Night",)]


@pytest.mark.parametrize(
    ("ids", "type_name"),
    [((7, -8), "bigint"), ((UUID(RECORDING), UUID(int=1)), "uuid"), (("a", "b"), "text"), ((7, "a"), "text")],
)
def test_ids_keep_their_type(connection, ids, type_name):
    run(connection, of(*[ExportedSong(song_id=song_id) for song_id in ids]))
    rows = connection.execute("SELECT song_id, pg_typeof(song_id)::text FROM playlist_export ORDER BY position").fetchall()
    assert rows == [(str(song_id) if type_name == "text" else song_id, type_name) for song_id in ids]


def test_a_script_that_fails_leaves_nothing_behind(connection):
    connection.commit()
    connection.autocommit = True
    broken = write_sql(of(LOW_TIDE, ExportedSong(song_id="x", recording_mbid="no uuid")), ANYWHERE).text
    with pytest.raises(Exception, match="invalid input syntax for type uuid"):
        connection.execute(broken)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT to_regclass('playlist_export')").fetchone() == (None,)


def test_the_table_may_have_any_name(connection):
    connection.execute('CREATE SCHEMA "My lists"')
    run(connection, of(BARE), table='My lists."; DROP SCHEMA music; --')
    assert connection.execute('SELECT song_id FROM "My lists"."""; DROP SCHEMA music; --"').fetchall() == [("s2",)]


@pytest.mark.parametrize("table", ["", "a.b.c", ".a", "a" * 64, "a\nb", "a\0"])
def test_a_name_that_no_table_can_have_is_refused(table):
    with pytest.raises(DataError, match=r"no table can be called .*: write TABLE or SCHEMA\.TABLE, each of up to 63 bytes"):
        write_sql(EVENING, Target(table=table))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(name=texts, title=texts, song_id=texts, reason=texts)
def test_postgresql_reads_every_sign_as_it_was(connection, name, title, song_id, reason):
    connection.execute("DROP TABLE IF EXISTS playlist_export")
    run(connection, of(ExportedSong(song_id=song_id, title=title, album=reason), name=name))
    assert connection.execute("SELECT playlist_name, song_id, title, album FROM playlist_export").fetchall() == [
        (name, song_id, title, reason)
    ]
