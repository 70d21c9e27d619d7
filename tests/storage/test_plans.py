"""How the queue's statements read large tables: through an index, never from end to end."""

import re

import pytest

from config import DatabaseConfig
from storage.connections import connect
from storage.models import Model, register_model
from storage.named import SQL_FOLDER, queries
from storage.requests import RankedSong, add_request, claim, clear_finished, fail, finish, give_up, release, request_state
from storage.source import _statement_for_many, sequence_by_id, sequences_by_ids

QUERIES_FOLDER = DatabaseConfig().queries_folder
SQL = queries(SQL_FOLDER / "requests.sql")

LARGE_TABLES = """
INSERT INTO recommender.request (playlist_id, priority, is_open) SELECT 'p' || n, n % 3, true FROM generate_series(1, 50000) AS n;
INSERT INTO recommender.request (playlist_id, state, finished_at)
SELECT 'p' || n % 10000, 'done', now() - n * INTERVAL '1 s' FROM generate_series(1, 49000) AS n;
INSERT INTO recommender.request (playlist_id, state, finished_at, error)
SELECT 'p' || n, 'failed', now() - n * INTERVAL '1 h', 'no luck' FROM generate_series(1, 1000) AS n;
INSERT INTO recommender.recommendation (request_id, playlist_id, rank, song_id, score)
SELECT request_id, playlist_id, 1, 's1', 1 FROM recommender.request WHERE state = 'done';
INSERT INTO music.song (song_id) SELECT 's' || n FROM generate_series(1, 5) AS n;
INSERT INTO music.playlist (playlist_id) SELECT 'p' || n FROM generate_series(1, 20000) AS n;
INSERT INTO music.playlist_song (playlist_id, position, song_id)
SELECT 'p' || n, place, 's' || place FROM generate_series(1, 20000) AS n, generate_series(1, 5) AS place;
INSERT INTO music.listen (user_id, listened_at, song_id)
SELECT 'u' || n % 1000, now() - n * INTERVAL '1 min', 's1' FROM generate_series(1, 100000) AS n;
"""
SCANS = """
SELECT relname, seq_scan FROM pg_stat_user_tables
WHERE relname IN ('request', 'recommendation', 'playlist', 'playlist_song', 'listen') ORDER BY relname
"""


@pytest.fixture(scope="module")
def large_url(new_database, template_database):
    """A database with 100,000 requests, as many songs in playlists and as many listens."""
    with new_database(template_database) as url:
        with connect(url) as connection:
            connection.execute(LARGE_TABLES)
            register_model(connection, Model(model_id="m", path="p", encoders_digest="e", snapshot_digest="s"))
        with connect(url) as connection:
            connection.execute("ANALYZE")
        yield url


@pytest.fixture
def large(large_url):
    """A connection to it; nothing is committed."""
    opened = connect(large_url)
    yield opened
    opened.close()


def plan(connection, statement, parameters) -> str:
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}", parameters).fetchall())


def scans(connection) -> dict[str, int]:
    """How often each large table was read from end to end until now."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.commit()
    return dict(connection.execute(SCANS).fetchall())


@pytest.mark.parametrize(("name", "index"), [("claim", "request_waiting_idx"), ("take_over", "request_lease_until_idx")])
def test_claiming_reads_the_head_of_an_index(large, name, index):
    parameters = {"limit": 32, "worker": "w", "lease_seconds": 60, "max_attempts": 3}
    told = plan(large, SQL[name], parameters)
    assert f"Index Scan using {index}" in told
    assert "Index Scan using request_pkey" in told
    assert "Seq Scan" not in told


def test_finishing_reads_its_requests_by_number(large):
    numbers, names = [1, 2], ["s1", "s2"]
    parameters = {
        "request_ids": numbers,
        "fences": numbers,
        "model_ids": ["m", "m"],
        "facts": ["{}", "{}"],
        "answered_ids": numbers,
        "ranks": numbers,
    }
    told = plan(large, SQL["finish"], {**parameters, "song_ids": names, "scores": [1.0, 2.0], "reasons": ["[]", "[]"]})
    assert "Index Scan using request_" in told
    assert "Seq Scan" not in told


def test_the_playlists_of_a_batch_are_read_through_the_index(large):
    ids = [f"p{number}" for number in range(1, 33)]
    told = plan(large, _statement_for_many(large, QUERIES_FOLDER).as_string(large), {"sequence_ids": ids})
    for index in ("playlist_pkey", "playlist_song_pkey", "listen_pkey"):
        assert re.search(rf"Index Scan (using|on) {index}", told)
    assert not re.search("Seq Scan on (?!listening )", told)  # which has one row


@pytest.mark.parametrize(("song_type", "playlist_type", "playlist_id"), [("text", "text", "p7"), ("text", "varchar", "p7")])
def test_the_latest_songs_of_a_playlist_are_found_through_an_index(large, song_type, playlist_type, playlist_id):
    large.execute("SELECT recommender.create_latest(%s::regtype, %s::regtype)", [song_type, playlist_type])
    told = plan(large, "SELECT song_id FROM recommender.latest WHERE playlist_id = %s", [playlist_id])
    assert "request_latest_idx" in told
    assert "Seq Scan" not in told


def test_a_session_that_began_with_an_empty_queue_does_not_read_the_full_one_from_end_to_end(database_url):
    with connect(database_url) as session, connect(database_url) as another:
        another.execute("ANALYZE recommender.request")
        another.commit()

        def step(playlist_id):
            request_id = add_request(session, playlist_id, idempotency_key=playlist_id, priority=1)
            finish(session, claim(session, "w")[0], [RankedSong(song_id="s", score=1)], model_id=None)
            session.commit()
            session.execute("SELECT recommender.wait(%s)", [request_id])
            session.execute("UPDATE recommender.request SET finished_at = 'epoch' WHERE request_id = %s", [request_id])
            assert clear_finished(session) == 1
            session.commit()

        for number in range(10):  # enough for PostgreSQL to settle on its plans
            step(f"before {number}")
        another.execute("INSERT INTO recommender.request (playlist_id) SELECT 'p' || n FROM generate_series(1, 20000) AS n")
        another.commit()
        before = scans(session)
        for number in range(10):
            step(f"after {number}")
        assert scans(session) == before


def test_no_step_on_a_requests_way_reads_a_large_table_from_end_to_end(large_url):
    with connect(large_url) as connection:
        connection.execute("UPDATE recommender.setting SET max_queued = 60000")  # must be counted: numbers go up to 100,000
        before = scans(connection)
        request_id = add_request(connection, "p7", {"count": 3}, idempotency_key="k", priority=9)
        connection.execute("SELECT recommender.request_many(ARRAY['p1', 'p2', 'new'])")
        connection.commit()
        first, second, third = claim(connection, "w", limit=3)
        assert first.request_id == request_id
        assert sequences_by_ids(connection, QUERIES_FOLDER, ["p1", "p2"]) == [["s1", "s2", "s3", "s4", "s5"]] * 2
        sequence_by_id(connection, QUERIES_FOLDER, "listen:u7:0")
        finish(connection, first, [RankedSong(song_id="s1", score=1)], model_id="m")
        fail(connection, second, "no luck", is_final=True)
        release(connection, third)
        connection.commit()
        assert request_state(connection, request_id).state == "done"
        connection.execute("SELECT song_id FROM recommender.latest WHERE playlist_id = 'p7'")
        connection.execute("SELECT recommender.wait(%s, '1 s')", [request_id])
        connection.execute("SELECT oldest_waiting_seconds, errors FROM recommender.status")
        give_up(connection, "w")
        clear_finished(connection)
        connection.commit()
        assert scans(connection) == before
