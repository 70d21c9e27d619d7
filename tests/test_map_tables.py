import os
from pathlib import Path

import pytest

import cli
from errors import exit_code_of
from storage.connections import connect
from storage.named import as_statement

SCHEMAS = Path(__file__).parent / "schemas"
FILES = [
    "bert4musicrec.toml",
    "plays_by_listener.sql",
    "sequence_by_id.sql",
    "sequences.sql",
    "setup.sql",
    "songs.sql",
    "songs_by_id.sql",
    "uninstall.sql",
]


def load(url, schema):
    with connect(url) as connection:
        connection.execute(as_statement((SCHEMAS / f"{schema}.sql").read_text(encoding="utf-8")))


def run_map(url, folder, *options):
    return exit_code_of(cli.main, ["map", "--dsn", url, "--out", str(folder / "mapping"), *options])


def everything_in(url):
    """What the database holds, by kind and owner: relations, roles, rights, policies, functions."""
    with connect(url) as connection:
        return connection.execute(
            "SELECT (SELECT array_agg(relname || COALESCE(relacl::text, '') ORDER BY oid) FROM pg_class), "
            "(SELECT array_agg(oid ORDER BY oid) FROM pg_policy), (SELECT count(*) FROM pg_proc), "
            "(SELECT count(*) FROM pg_namespace)"
        ).fetchone()


def test_map_says_what_was_taken_for_what_and_writes_the_files(empty_database_url, tmp_path, capsys):
    load(empty_database_url, "naive_play_log")
    assert run_map(empty_database_url, tmp_path, "--time-zone", "Europe/Vienna") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "looked at   4 tables and views",
        "songs       public.songs, key id (integer)",
        "            with artist_id, album_id, title, artist_name, album_title, track_number, duration_ms, release_year",
        "sequences   public.listening_history: plays, cut into sessions of user_id (integer)",
        "order       by time: played_at",
        "NOTE        public.listening_history.played_at has no zone and is read as Europe/Vienna: --time-zone says otherwise",
    ]
    assert sorted(path.name for path in (tmp_path / "mapping").iterdir()) == FILES


def test_map_changes_nothing_in_the_database(empty_database_url, tmp_path):
    load(empty_database_url, "uuid_row_security")
    before = everything_in(empty_database_url)
    assert run_map(empty_database_url, tmp_path) == 0
    assert everything_in(empty_database_url) == before


def test_map_takes_the_server_from_the_environment(empty_database_url, tmp_path, monkeypatch):
    load(empty_database_url, "many_artists")
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    assert exit_code_of(cli.main, ["map", "--schema", "App", "--out", str(tmp_path)]) == 0


def test_map_replaces_no_file_unless_forced(empty_database_url, tmp_path, capsys):
    load(empty_database_url, "text_added_at")
    assert run_map(empty_database_url, tmp_path) == 0
    (tmp_path / "mapping" / "songs.sql").write_text("corrected by hand")
    assert run_map(empty_database_url, tmp_path) == 2
    assert "songs.sql is there already" in capsys.readouterr().err
    assert (tmp_path / "mapping" / "songs.sql").read_text() == "corrected by hand"
    assert run_map(empty_database_url, tmp_path, "--force") == 0


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ("", [], "error: no table of songs found: name one with --songs SCHEMA.TABLE"),
        ("CREATE TABLE songs (id int PRIMARY KEY, title text)", [], "names the songs of public.songs found"),
        ("CREATE TABLE songs (id int PRIMARY KEY, title text)", ["--songs", "tunes"], "no table 'tunes'"),
        ("CREATE TABLE songs (title text)", ["--songs", "songs"], "public.songs has no key of one column"),
        ("", ["--schema", "shop"], "no schema 'shop' in this database: it has public"),
        ("", ["--time-zone", "Vienna"], "time zone 'Vienna' is not known to the server"),
    ],
)
def test_what_cannot_be_found_is_one_line_with_the_way_out(empty_database_url, tmp_path, capsys, tables, options, message):
    with connect(empty_database_url) as connection:
        connection.execute(as_statement(tables))
    assert run_map(empty_database_url, tmp_path, *options) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "mapping").exists()


def test_uninstall_takes_away_what_setup_brought(empty_database_url, tmp_path):
    load(empty_database_url, "uuid_row_security")
    role = f"uninstalled_{tmp_path.name}_{os.getpid()}"
    assert run_map(empty_database_url, tmp_path, "--role", role) == 0
    found = []
    for file in ("setup.sql", "uninstall.sql", "uninstall.sql"):
        with connect(empty_database_url) as owner:
            owner.execute(as_statement((tmp_path / "mapping" / file).read_text(encoding="utf-8")))
            query = (
                "SELECT (SELECT count(*) FROM pg_policies), to_regnamespace('recommender') IS NOT NULL, "
                "(SELECT count(*) FROM pg_roles WHERE rolname = %s), (SELECT count(*) FROM songs)"
            )
            found.append(owner.execute(query, [role]).fetchone())
    assert found == [(4, True, 1, 24), (2, False, 0, 24), (2, False, 0, 24)]
