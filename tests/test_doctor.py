from pathlib import Path

import pytest

import cli
import map_tables
from config import Config, DatabaseConfig
from doctor import Level, diagnose, hidden_lines, verdict_of
from errors import exit_code_of
from storage.connections import connect
from storage.health import Meeting, Relation, SequenceCounts
from storage.named import as_statement

SCHEMAS = Path(__file__).parent / "schemas"
TABLES = """
CREATE TABLE songs (id bigint PRIMARY KEY, title text, artist text, isrc text, duration_ms integer, energy real);
CREATE TABLE playlists (id bigint PRIMARY KEY);
CREATE TABLE playlist_songs (playlist_id bigint, song_id bigint, position integer, PRIMARY KEY (playlist_id, position));
INSERT INTO songs SELECT n, 'Song ' || n, 'Artist', NULL, 200000, CASE WHEN n <= 6 THEN 0.5 END FROM generate_series(1, 24) AS n;
INSERT INTO playlists SELECT n FROM generate_series(1, 60) AS n;
INSERT INTO playlist_songs SELECT n, 1 + (n + place) % 24, place FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place;
"""
POSITION = "position integer, PRIMARY KEY (playlist_id, position)"


@pytest.fixture
def url(empty_database_url, tmp_path):
    """Tables that will do, mapped to `tmp_path / "mapping"`."""
    with connect(empty_database_url) as connection:
        connection.execute(as_statement(TABLES))
    assert map_tables.main(["--dsn", empty_database_url, "--out", str(tmp_path / "mapping")]) == 0
    return empty_database_url


def lines_of(url, folder):
    """Level and text of each finding by its topic, and the verdict."""
    findings, verdict = diagnose(Config(database=DatabaseConfig(url=url, queries_folder=folder / "mapping")))
    return {finding.topic: (finding.level, finding.text) for finding in findings}, verdict.text


def change(url, statement):
    with connect(url) as connection:
        connection.execute(as_statement(statement))


def test_tables_that_will_do(url, tmp_path):
    lines, verdict = lines_of(url, tmp_path)
    assert {topic: level for topic, (level, _) in lines.items() if level is not Level.OK} == {
        "rights": Level.NOTE,
        "requests": Level.NOTE,
    }
    assert lines["sequences"][1] == "60 with 480 songs; median 8, longest 8; 0 (0 %) shorter than 5"
    assert lines["features"][1] == "duration_ms 100 %, energy 25.0 %"
    assert verdict == "Enough data: 60 sequences of 5 songs or more."


def test_the_exit_code_says_whether_it_will_work(url, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("BERT4MUSICREC_QUERIES_FOLDER", str(tmp_path / "mapping"))
    assert exit_code_of(cli.main, ["doctor"]) == 0
    change(url, "DELETE FROM playlist_songs WHERE playlist_id > 20")
    assert exit_code_of(cli.main, ["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Not enough data, because 20 sequences have 5 songs or more, 50 are needed; "
        "and they have 160 songs together, 300 are needed."
    )


@pytest.mark.parametrize(
    ("statement", "topic", "level", "text"),
    [
        (
            "DELETE FROM songs WHERE id <= 6",
            "orphans",
            Level.NOTE,
            "6 songs (23.1 % of the rows) are not in songs.sql: they are kept, without artist and features",
        ),
        (
            "UPDATE songs SET title = 'SONG-1 ', duration_ms = 202000 WHERE id = 2",
            "duplicates",
            Level.NOTE,
            "1 of 24 songs (4.2 %) repeat a recording: 0 by ISRC, 1 by title, artist and length within 3 s; "
            "each is learned and recommended by itself",
        ),
        (
            "UPDATE songs SET isrc = 'XX' WHERE id < 4",
            "duplicates",
            Level.NOTE,
            "2 of 24 songs (8.3 %) repeat a recording: 2 by ISRC, 0 by title, artist and length within 3 s; "
            "each is learned and recommended by itself",
        ),
        (
            "UPDATE songs SET title = 'Song 1', duration_ms = 204000 WHERE id = 2",
            "duplicates",
            Level.OK,
            "none found by ISRC, or by title, artist and length",
        ),
        (
            "DELETE FROM playlist_songs WHERE position >= 4 AND playlist_id <= 2",
            "sequences",
            Level.OK,
            "60 with 472 songs; median 8, longest 8; 2 (3.3 %) shorter than 5",
        ),
        ("DELETE FROM playlist_songs", "sequences", Level.PROBLEM, "sequences.sql yields no row"),
        ("DELETE FROM songs", "songs", Level.PROBLEM, "songs.sql yields no row"),
        (
            "ALTER TABLE playlist_songs DROP CONSTRAINT playlist_songs_pkey; "
            "UPDATE playlist_songs SET position = 1 WHERE playlist_id < 4",
            "order",
            Level.NOTE,
            "by position, but 3 sequences (5.0 %) have a position missing or twice",
        ),
        (
            "ALTER TABLE songs DROP COLUMN artist",
            "queries",
            Level.PROBLEM,
            "songs.sql fails: column song.artist does not exist: "
            "run python cli.py migrate on this database, or correct the query files",
        ),
    ],
)
def test_what_is_wrong_is_said(url, tmp_path, statement, topic, level, text):
    change(url, statement)
    assert lines_of(url, tmp_path)[0][topic] == (level, text)


def test_an_order_that_nobody_knows_is_said(empty_database_url, tmp_path):
    change(empty_database_url, TABLES.replace(POSITION, "n integer"))
    assert map_tables.main(["--dsn", empty_database_url, "--out", str(tmp_path / "mapping")]) == 0
    level, text = lines_of(empty_database_url, tmp_path)[0]["order"]
    assert (level, text[:47]) == (Level.NOTE, "not known: neither position nor listened_at; wh")


def test_times_that_are_all_the_same_are_no_order(empty_database_url, tmp_path):
    text = TABLES.replace(
        "position integer, PRIMARY KEY (playlist_id, position)", "n integer, added_at timestamptz DEFAULT now()"
    )
    change(empty_database_url, text)
    assert map_tables.main(["--dsn", empty_database_url, "--out", str(tmp_path / "mapping")]) == 0
    assert lines_of(empty_database_url, tmp_path)[0]["order"] == (
        Level.NOTE,
        "by time, but 60 sequences (100 %) have all songs at one time",
    )


def test_times_without_a_zone_and_the_zone_assumed_are_said(empty_database_url, tmp_path):
    change(empty_database_url, (SCHEMAS / "naive_play_log.sql").read_text(encoding="utf-8"))
    assert map_tables.main(["--dsn", empty_database_url, "--out", str(tmp_path / "mapping"), "--time-zone", "Asia/Tokyo"]) == 0
    assert lines_of(empty_database_url, tmp_path)[0]["times"] == (
        Level.NOTE,
        "public.listening_history.played_at: stored without a zone, read as Asia/Tokyo; "
        "if that is wrong, map again with --time-zone",
    )


def test_a_large_table_without_its_index_is_a_problem(url, tmp_path):
    change(url, "ALTER TABLE playlist_songs DROP CONSTRAINT playlist_songs_pkey")
    change(url, "INSERT INTO playlist_songs SELECT n, 1, 9 FROM generate_series(100, 20000) AS n; ANALYZE playlist_songs")
    level, text = lines_of(url, tmp_path)[0]["one by id"]
    assert level is Level.PROBLEM
    assert text == "reading one sequence reads all of public.playlist_songs: make an index on what sequence_by_id.sql compares"


def test_a_server_that_is_not_there_is_a_problem(tmp_path):
    lines, verdict = lines_of("postgresql://me:secret@127.0.0.1:1/music", tmp_path)
    assert lines["connection"][0] is Level.PROBLEM
    assert verdict.startswith("It will not work: no connection to me@127.0.0.1:1/music")
    assert "secret" not in verdict


def test_missing_query_files_are_a_problem(url, tmp_path):
    (tmp_path / "mapping" / "sequences.sql").unlink()
    level, text = lines_of(url, tmp_path)[0]["queries"]
    assert (level, "sequences.sql cannot be read" in text) == (Level.PROBLEM, True)


def test_a_value_that_a_query_cannot_convert_is_a_problem(url, tmp_path):
    songs = (tmp_path / "mapping" / "songs.sql").read_text(encoding="utf-8")
    (tmp_path / "mapping" / "songs.sql").write_text(songs.replace("song.energy", "song.title::integer AS energy"))
    assert lines_of(url, tmp_path)[0]["queries"] == (
        Level.PROBLEM,
        'the query files fail over a value: invalid input syntax for type integer: "Song 1"; correct them',
    )


# --- row-level security ------------------------------------------------------------------------------------------------------


def relation(n_rows):
    return Relation(schema="public", name="songs", n_rows=n_rows, is_filtered=True, may_read=True, naive_times=[])


@pytest.mark.parametrize(
    ("there", "seen", "expected"),
    [
        (1200, 0, [(Level.PROBLEM, "row-level security hides public.songs: 0 of about 1,200 rows and no error; "
                                   "it needs a policy for this role (setup.sql)")]),
        (None, 0, [(Level.PROBLEM, "row-level security hides public.songs: 0 of an unknown number of rows and no error; "
                                   "it needs a policy for this role (setup.sql)")]),
        (1200, 600, [(Level.NOTE, "row-level security shows 600 of about 1,200 rows of public.songs")]),
        (1200, 1190, []),
        (0, 0, []),
    ],
)  # fmt: skip
def test_hidden_rows_are_told_from_an_empty_table(there, seen, expected):
    found = [(finding.level, finding.text) for finding in hidden_lines([relation(there)], lambda _: seen)]
    assert found == expected


def test_rows_hidden_from_the_role_are_found_on_a_real_server(url, tmp_path):
    change(url, "ALTER TABLE songs ENABLE ROW LEVEL SECURITY; ALTER TABLE songs FORCE ROW LEVEL SECURITY; ANALYZE")
    change(url, "GRANT SELECT ON songs, playlist_songs TO pg_monitor; GRANT USAGE ON SCHEMA public TO pg_monitor")
    separator = "&" if "?" in url else "?"
    lines, _ = lines_of(f"{url}{separator}options=-c%20role%3Dpg_monitor", tmp_path)
    assert lines["hidden rows"] == (
        Level.PROBLEM,
        "row-level security hides public.songs: 0 of about 24 rows and no error; it needs a policy for this role (setup.sql)",
    )
    assert lines["songs"] == (Level.PROBLEM, "songs.sql yields no row")


# --- the verdict -------------------------------------------------------------------------------------------------------------


def test_songs_that_occur_in_one_sequence_only_are_not_enough():
    sequences = SequenceCounts(
        n_sequences=100, n_rows=1000, n_short=0, median=10, longest=10, n_at_one_time=0, n_shared_positions=0, n_untimed=0
    )
    meeting = Meeting(n_heard=900, n_rows_shared=200, n_orphans=0, n_orphan_rows=0)
    assert verdict_of(sequences, meeting).text == (
        "Not enough data, because only 20% of the rows have a song that a second sequence holds too, 50% are needed."
    )
