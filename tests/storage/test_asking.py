"""The functions and views with which a database asks: request, request_many, wait, latest, status, and the trigger."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest

from config import PROJECT_ROOT
from errors import QueueFull
from storage.connections import connect
from storage.models import Model, deploy, register_model
from storage.named import as_statement
from storage.requests import RankedSong, State, add_request, claim, fail, finish, listen, release, request_state, wait_for_request

pytestmark = pytest.mark.pooled

MIX = UUID(int=11)


def value(connection, query, parameters=None):
    return connection.execute(query, parameters).fetchone()[0]


def open_requests(connection) -> list[tuple[str, str, int]]:
    query = (
        "SELECT playlist_id, state, priority FROM recommender.request WHERE state IN ('queued', 'running') ORDER BY request_id"
    )
    return connection.execute(query).fetchall()


def answer(connection, *song_ids, model_id="m"):
    """Claim one request and answer it."""
    claimed = claim(connection, "w")[0]
    songs = [RankedSong(song_id=song_id, score=1 / rank) for rank, song_id in enumerate(song_ids, start=1)]
    assert finish(connection, claimed, songs, model_id=model_id)
    connection.commit()
    return claimed.request_id


@pytest.fixture
def queue(connection):
    """A connection on whose database the model m is registered."""
    register_model(connection, Model(model_id="m", path="models/m", encoders_digest="e", snapshot_digest="s"))
    connection.commit()
    return connection


# --- asking ------------------------------------------------------------------------------------------------------------------


def test_a_literal_is_taken_for_a_text(connection):
    connection.execute("SELECT recommender.request('abc')")
    assert open_requests(connection) == [("abc", "queued", 0)]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("'abc'::text", "abc"),
        ("7", "7"),
        ("7::bigint", "7"),
        ("'abc'::varchar(10)", "abc"),
        ("'0000000B-0000-0000-0000-000000000000'::uuid", "0000000b-0000-0000-0000-000000000000"),
    ],
)
def test_an_id_of_any_type_is_taken(connection, written, stored):
    request_id = value(connection, f"SELECT recommender.request({written}, priority => 2)")
    assert open_requests(connection) == [(stored, "queued", 2)]
    assert list(connection.execute(f"SELECT recommender.request_many(ARRAY[{written}])")) == [(request_id,)]


def test_many_are_asked_for_at_once_and_numbered_in_their_order(connection):
    [(two,), (one,), (again,)] = connection.execute("SELECT recommender.request_many(ARRAY[2, 1, 2])").fetchall()
    assert (request_state(connection, one).playlist_id, request_state(connection, two).playlist_id) == ("1", "2")
    assert again == two
    assert connection.execute("SELECT recommender.request_many('{}'::text[])").fetchall() == []


def test_a_request_that_is_rolled_back_leaves_nothing(connection, another_connection):
    connection.execute("SELECT recommender.request('p', idempotency_key => 'k')")
    connection.rollback()
    assert claim(another_connection, "w") == []
    assert value(another_connection, "SELECT count(*) FROM recommender.idempotency") == 0


@pytest.mark.parametrize("arguments", ["NULL::text", "'p', NULL", "'p', '[]'", "'p', priority => NULL"])
def test_what_is_no_request_is_refused(connection, arguments):
    with pytest.raises((psycopg.errors.NotNullViolation, psycopg.errors.CheckViolation)):
        connection.execute(f"SELECT recommender.request({arguments})")


# --- one open request per playlist -------------------------------------------------------------------------------------------


def test_asking_again_joins_the_open_request_and_raises_its_priority(connection):
    first = add_request(connection, "p", {"count": 5}, priority=1)
    assert add_request(connection, "p", {"count": 5}, priority=3) == first
    assert add_request(connection, "p", {"count": 5}, priority=2) == first
    assert open_requests(connection) == [("p", "queued", 3)]


def test_who_asks_with_other_options_gets_an_answer_of_their_own(connection):
    assert add_request(connection, "p", {"count": 5}) != add_request(connection, "p", {"count": 6})


def test_a_request_that_a_worker_has_begun_is_not_joined(queue):
    first = add_request(queue, "p")
    claimed = claim(queue, "w")[0]  # may have read the playlist's songs by now
    second = add_request(queue, "p")
    assert second != first
    assert release(queue, claimed)
    assert add_request(queue, "p") == second


def test_options_too_long_for_an_index_are_no_error(connection):
    options = {"exclude": [f"song {number}" for number in range(1_000)]}
    assert add_request(connection, "p", options) != add_request(connection, "p", options)


def test_connections_that_ask_at_once_make_one_request(database_url, connection):
    # On a busy machine eight commits may take longer than a request waits to be joined (50 ms); then it would stand alone.
    connection.execute("ALTER FUNCTION recommender.join_or_add SET lock_timeout = '20s'")
    connection.commit()
    barrier = threading.Barrier(8)

    def ask(number):
        with connect(database_url) as asking:
            barrier.wait()
            return add_request(asking, "p", priority=number)

    with ThreadPoolExecutor(8) as threads:
        numbers = set(threads.map(ask, range(8)))
    assert len(numbers) == 1
    assert open_requests(connection) == [("p", "queued", 7)]


def test_asking_does_not_wait_for_a_transaction_that_asked_for_the_same(connection, another_connection):
    another_connection.execute("SET lock_timeout = 0; SET statement_timeout = '5s'")
    first = add_request(connection, "p")
    second = add_request(another_connection, "p")  # would wait for the end of the other transaction
    assert second != first
    another_connection.commit()
    assert [claimed.request_id for claimed in claim(another_connection, "w", limit=2)] == [second]


def test_transactions_that_ask_for_the_same_playlists_in_another_order_do_not_block_each_other(connection, another_connection):
    add_request(connection, "p")
    add_request(another_connection, "q")
    add_request(connection, "q")
    add_request(another_connection, "p")
    connection.commit()
    another_connection.commit()
    assert [playlist_id for playlist_id, _, _ in open_requests(connection)] == ["p", "q", "q", "p"]


def test_a_request_that_somebody_joins_is_not_claimed_before_their_songs_are_committed(connection, another_connection):
    request_id = add_request(connection, "p")
    connection.commit()
    assert add_request(connection, "p") == request_id
    assert claim(another_connection, "w") == []
    connection.commit()
    assert [claimed.request_id for claimed in claim(another_connection, "w")] == [request_id]


def test_a_repeatable_transaction_asks_beside_one_that_it_cannot_see(connection, another_connection):
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT 1")
    first = add_request(another_connection, "p")
    another_connection.commit()
    assert add_request(connection, "p") != first


def test_of_many_only_those_stand_apart_that_somebody_else_asks_for(connection, another_connection):
    for playlist_id in ("b", "d", "e"):
        add_request(connection, playlist_id)
    connection.commit()
    add_request(connection, "b")  # joins, and so holds the row
    add_request(connection, "c")  # is not to be seen yet
    asked = another_connection.execute("SELECT recommender.request_many(ARRAY['e', 'd', 'c', 'b', 'a'])").fetchall()
    another_connection.commit()
    connection.commit()
    openness = "SELECT playlist_id, array_agg(is_open ORDER BY request_id) FROM recommender.request GROUP BY playlist_id"
    assert sorted(connection.execute(openness).fetchall()) == [
        ("a", [True]),
        ("b", [True, False]),
        ("c", [True, False]),
        ("d", [True]),
        ("e", [True]),
    ]
    assert [request_state(connection, request_id).playlist_id for (request_id,) in asked] == ["e", "d", "c", "b", "a"]


def test_of_many_that_somebody_else_asks_for_most_are_not_even_tried(connection, another_connection):
    twice = "SELECT recommender.request_many(ARRAY(SELECT n FROM generate_series(1, 300) AS n))"
    connection.execute(twice)
    another_connection.execute("SET statement_timeout = '10s'")  # 300 times 50 ms would be 15 s
    another_connection.execute(twice)
    another_connection.commit()
    connection.commit()
    assert value(connection, "SELECT count(*) FROM recommender.request WHERE NOT is_open") == 300


# --- locks on the whole table ------------------------------------------------------------------------------------------------

TABLE_LOCKS = ["LOCK TABLE recommender.request IN SHARE MODE", "SELECT recommender.create_latest()"]
ASKING = {
    "one": "SELECT recommender.request('p')",
    "many": "SELECT recommender.request_many(ARRAY['p'])",
    "a trigger": "WITH added AS (INSERT INTO mix_track VALUES ('p') RETURNING 1) SELECT * FROM added",
}


@pytest.mark.parametrize("lock", TABLE_LOCKS)
@pytest.mark.parametrize("asking", ASKING)
def test_asking_waits_for_the_end_of_a_lock_on_the_whole_table_and_joins(connection, database_url, lock, asking):
    connection.execute(OWN_TABLE.replace("mix_id int", "mix_id text").replace(", '{\"count\": 5}'", ""))
    first = add_request(connection, "p")
    connection.commit()
    connection.execute(lock)
    notices = []

    def ask():
        with connect(database_url) as waiting:
            notices.append(notices_of(waiting))
            waiting.execute(ASKING[asking])

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(timeout=0.3)
    assert thread.is_alive()
    connection.commit()
    thread.join()
    assert notices == [[]]
    assert connection.execute("SELECT request_id FROM recommender.request").fetchall() == [(first,)]


@pytest.mark.parametrize("asking", ["one", "many"])
def test_asking_waits_for_the_whole_table_as_long_as_the_caller_says(connection, another_connection, asking):
    connection.execute(TABLE_LOCKS[0])
    another_connection.execute("SET LOCAL lock_timeout = '120ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        another_connection.execute(ASKING[asking])
    another_connection.rollback()
    connection.rollback()
    another_connection.execute("SET LOCAL lock_timeout = '120ms'")
    another_connection.execute(ASKING[asking])
    assert value(another_connection, "SHOW lock_timeout") == "120ms"


# --- priorities and the cap --------------------------------------------------------------------------------------------------


def test_higher_priorities_are_claimed_first(connection):
    for playlist_id, priority in (("low", -1), ("first", 0), ("high", 5), ("second", 0)):
        add_request(connection, playlist_id, priority=priority)
        connection.commit()
    assert [claimed.playlist_id for claimed in claim(connection, "w", limit=9)] == ["high", "first", "second", "low"]


def test_over_the_cap_asking_is_an_error_with_a_way_out(connection):
    connection.execute("UPDATE recommender.setting SET max_queued = 2")
    first = add_request(connection, "p")
    add_request(connection, "q")
    connection.commit()
    assert add_request(connection, "p") == first
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as raised:
        connection.execute("SELECT recommender.request('r')")
    assert raised.value.sqlstate == "53400"
    assert raised.value.diag.message_primary == "the queue is full: 2 requests are waiting, which is max_queued"
    assert raised.value.diag.message_hint.startswith("Ask again later")


def test_the_cap_counts_what_waits_and_not_what_lies_between(connection):
    connection.execute("UPDATE recommender.setting SET max_queued = 2")
    add_request(connection, "old")
    for playlist_id in ("p", "q", "r"):  # numbers run ahead of the old one by more than the cap
        add_request(connection, playlist_id, priority=1)
        connection.commit()
        claim(connection, "w")
    add_request(connection, "s")
    with pytest.raises(QueueFull, match="the queue is full: 2 requests are waiting, which is max_queued: ask again later"):
        add_request(connection, "t")


def test_asking_for_more_at_once_than_there_is_room_for_asks_for_none(connection):
    connection.execute("UPDATE recommender.setting SET max_queued = 2")
    connection.commit()
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        connection.execute("SELECT recommender.request_many(ARRAY[1, 2, 3])")
    connection.rollback()
    assert open_requests(connection) == []


def test_a_second_row_of_settings_is_impossible(connection):
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO recommender.setting DEFAULT VALUES")


def test_where_all_workers_poll_nobody_is_notified(connection, database_url):
    connection.execute("UPDATE recommender.setting SET notify = false")
    with connect(database_url) as listening:
        listening.autocommit = True
        listen(listening)
        add_request(connection, "p")
        connection.commit()
        assert not wait_for_request(listening, 0.2)


# --- waiting -----------------------------------------------------------------------------------------------------------------


def test_waiting_sees_what_another_connection_commits_meanwhile(queue, database_url):
    request_id = add_request(queue, "p")
    queue.commit()

    def wait():
        with connect(database_url) as waiting:
            return value(waiting, "SELECT recommender.wait(%s, '30 s')", [request_id])

    with ThreadPoolExecutor(1) as threads:
        waited = threads.submit(wait)
        assert answer(queue, "s1") == request_id
        assert waited.result() == "done"


def test_waiting_ends_with_the_state_when_the_time_is_over(connection):
    request_id = add_request(connection, "p")
    connection.commit()
    assert value(connection, "SELECT recommender.wait(%s, '20 ms')", [request_id]) == "queued"
    claimed = claim(connection, "w")[0]
    fail(connection, claimed, "no luck", is_final=True)
    assert value(connection, "SELECT recommender.wait(%s, '9 s')", [request_id]) == "failed"


@pytest.mark.parametrize("earlier", [True, False])
def test_waiting_in_the_transaction_that_asked_is_refused(connection, earlier):
    request_id = add_request(connection, "p")
    if earlier:
        connection.commit()
        assert add_request(connection, "p") == request_id
    with pytest.raises(psycopg.errors.InvalidTransactionState, match=f"request {request_id} was made in this transaction"):
        connection.execute("SELECT recommender.wait(%s, '9 s')", [request_id])


def test_waiting_where_nothing_can_be_seen_to_change_is_refused(connection):
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(psycopg.errors.InvalidTransactionState, match="nothing change in a repeatable read transaction"):
        connection.execute("SELECT recommender.wait(1, '9 s')")


def test_waiting_for_what_was_never_accepted_is_an_error(connection):
    with pytest.raises(psycopg.errors.NoDataFound, match="no request 77"):
        connection.execute("SELECT recommender.wait(77, '9 s')")


# --- latest and status -------------------------------------------------------------------------------------------------------

LATEST = "SELECT playlist_id, rank, song_id, score, model_id FROM recommender.latest ORDER BY playlist_id, rank"


def test_latest_has_the_newest_finished_list_of_each_playlist(queue):
    for songs in (["s1", "s2", "s3"], ["s4", "s5"]):
        add_request(queue, "p")
        answer(queue, *songs)
    add_request(queue, "q")
    answer(queue, "s6")
    add_request(queue, "p")
    fail(queue, claim(queue, "w")[0], "no luck", is_final=True)
    add_request(queue, "p")
    assert queue.execute(LATEST).fetchall() == [("p", 1, "s4", 1.0, "m"), ("p", 2, "s5", 0.5, "m"), ("q", 1, "s6", 1.0, "m")]


def test_latest_shows_ids_in_the_types_of_the_users_own_tables(queue):
    queue.execute("CREATE TABLE track (id bigint PRIMARY KEY); INSERT INTO track VALUES (41), (42)")
    queue.execute("SELECT recommender.create_latest(song_id_type => 'bigint', playlist_id_type => 'uuid')")
    queue.execute("SELECT recommender.request(%s)", [MIX])
    request_id = answer(queue, "42", "41")
    joined = "SELECT playlist_id, song_id, request_id FROM recommender.latest JOIN track ON track.id = song_id ORDER BY rank"
    assert queue.execute(joined).fetchall() == [(MIX, 42, request_id), (MIX, 41, request_id)]


def test_who_may_read_latest_may_read_it_in_other_types_too(queue):
    queue.execute('CREATE ROLE "reader of the tests"')  # gone with the transaction
    queue.execute('GRANT SELECT ON recommender.latest TO "reader of the tests"')
    queue.execute("SELECT recommender.create_latest('integer', 'integer')")
    assert value(queue, "SELECT has_table_privilege('reader of the tests', 'recommender.latest', 'SELECT')")


def test_status_tells_what_waits_what_failed_and_which_model_answers(queue):
    assert queue.execute("SELECT * FROM recommender.status").fetchone()[:2] == (0, 0)
    for playlist_id in ("a", "b", "c", "d"):
        add_request(queue, playlist_id)
    queue.execute("UPDATE recommender.request SET created_at = created_at - INTERVAL '1 min' WHERE playlist_id = 'd'")
    failed, too, _ = claim(queue, "w", limit=3)
    fail(queue, failed, "no luck", is_final=True)
    fail(queue, too, "no luck", is_final=True)
    register_model(queue, Model(model_id="newer", path="p", encoders_digest="e", snapshot_digest="s"))
    deploy(queue, "m")
    query = "SELECT queued, running, oldest_waiting_seconds >= 60, failed_last_day, errors, model_id, model_age_seconds >= 0"
    *counts, errors, model_id, has_age = queue.execute(f"{query} FROM recommender.status").fetchone()
    assert (counts, model_id, has_age) == ([1, 1, True, 2], "m", True)
    assert [(error["error"], error["requests"], error["latest_request_id"]) for error in errors] == [
        ("no luck", 2, too.request_id)
    ]


def test_failures_of_earlier_days_are_not_told(queue):
    add_request(queue, "p")
    fail(queue, claim(queue, "w")[0], "no luck", is_final=True)
    queue.execute("UPDATE recommender.request SET finished_at = finished_at - INTERVAL '2 days'")
    assert queue.execute("SELECT failed_last_day, errors FROM recommender.status").fetchone() == (0, [])


# --- the trigger -------------------------------------------------------------------------------------------------------------

OWN_TABLE = """
CREATE TABLE mix_track (mix_id int, place int, track_id int);
CREATE TRIGGER ask AFTER INSERT ON mix_track
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION recommender.ask_for_added('mix_id', '{"count": 5}');
"""


def notices_of(connection) -> list[tuple[str, str, str]]:
    """A list that fills with what the server tells beside its answers."""
    notices: list[tuple[str, str, str]] = []
    connection.add_notice_handler(lambda told: notices.append((told.severity, told.sqlstate, told.message_primary)))
    return notices


@pytest.fixture
def own(connection):
    """A connection whose database has a table of its own with the trigger."""
    connection.execute(OWN_TABLE)
    connection.commit()
    return connection


def test_songs_that_are_added_ask_once_per_playlist(own):
    own.execute(
        "INSERT INTO mix_track SELECT mix_id, place, 1 FROM generate_series(1, 3) AS mix_id, generate_series(1, 100) AS place"
    )
    own.execute("INSERT INTO mix_track VALUES (2, 101, 7), (NULL, 1, 7)")
    own.execute("INSERT INTO mix_track SELECT 4, 1, 1 WHERE false")
    own.commit()
    assert open_requests(own) == [("1", "queued", 0), ("2", "queued", 0), ("3", "queued", 0)]
    assert claim(own, "w")[0].options == {"count": 5}


def test_a_full_queue_warns_and_does_not_undo_the_insert(own):
    own.execute("UPDATE recommender.setting SET max_queued = 1")
    notices = notices_of(own)
    own.execute("INSERT INTO mix_track VALUES (1, 1, 1), (2, 1, 1)")
    own.commit()
    assert value(own, "SELECT count(*) FROM mix_track") == 2
    assert open_requests(own) == []
    told = (
        "songs were added to mix_track, but no recommendations were asked for: "
        "the queue is full: 1 requests are waiting, which is max_queued"
    )
    assert notices == [("WARNING", "53400", told)]


def test_a_trigger_on_a_column_that_is_not_there_warns_too(own):
    own.execute("ALTER TABLE mix_track RENAME COLUMN mix_id TO list_id")
    notices = notices_of(own)
    own.execute("INSERT INTO mix_track VALUES (1, 1, 1)")
    assert "column added.mix_id does not exist" in notices[0][2]
    assert value(own, "SELECT count(*) FROM mix_track") == 1


def test_who_adds_songs_needs_no_right_to_the_queue(own):
    own.execute("CREATE ROLE listener_of_the_tests")  # gone with the transaction
    own.execute("GRANT INSERT ON mix_track TO listener_of_the_tests")
    own.execute("SET LOCAL ROLE listener_of_the_tests")
    own.execute("INSERT INTO mix_track VALUES (1, 1, 1)")
    own.execute("RESET ROLE")
    assert open_requests(own) == [("1", "queued", 0)]


def test_an_insert_does_not_wait_for_another_one_into_the_same_playlist(own, another_connection):
    own.execute("INSERT INTO mix_track VALUES (1, 1, 1)")
    another_connection.execute("INSERT INTO mix_track VALUES (1, 2, 2)")
    another_connection.commit()
    assert open_requests(another_connection) == [("1", "queued", 0)]
    own.commit()
    assert len(open_requests(own)) == 2  # each sees the songs of its own transaction


@pytest.mark.parametrize(
    ("id_type", "written", "stored"),
    [("char(5)", "'abc'", "abc"), ("bigint", "7", "7"), ("uuid", f"'{MIX}'", str(MIX)), ("varchar(9)", "'a b '", "a b ")],
)
def test_the_trigger_writes_an_id_as_request_does(connection, id_type, written, stored):
    connection.execute(OWN_TABLE.replace("mix_id int", f"mix_id {id_type}").replace(", '{\"count\": 5}'", ""))
    connection.execute(f"INSERT INTO mix_track VALUES ({written}, 1, 1)")
    assert value(connection, f"SELECT recommender.request(CAST({written} AS {id_type}))")
    assert open_requests(connection) == [(stored, "queued", 0)]


# --- rights ------------------------------------------------------------------------------------------------------------------


def test_nobody_may_ask_without_being_allowed_to(connection):
    connection.execute("CREATE ROLE stranger_of_the_tests; GRANT USAGE ON SCHEMA recommender TO stranger_of_the_tests")
    connection.execute("SET LOCAL ROLE stranger_of_the_tests")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT recommender.request('p')")


OWN_CAST = """
CREATE ROLE app_of_the_tests; -- gone with the transaction
GRANT USAGE ON SCHEMA recommender TO app_of_the_tests;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender TO app_of_the_tests;
SET LOCAL ROLE app_of_the_tests;
CREATE TEMPORARY TABLE cast_as (role text);
GRANT INSERT ON cast_as TO PUBLIC;
CREATE TYPE pg_temp.own_id AS (number int);
CREATE FUNCTION pg_temp.as_text(id pg_temp.own_id) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pg_temp.cast_as VALUES (current_user);
    RETURN 'p';
END $$;
CREATE CAST (pg_temp.own_id AS text) WITH FUNCTION pg_temp.as_text(pg_temp.own_id);
CREATE TEMPORARY TABLE mix_track (mix_id pg_temp.own_id);
CREATE TRIGGER ask AFTER INSERT ON mix_track
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION recommender.ask_for_added('mix_id');
"""


@pytest.mark.parametrize(
    "asking",
    [
        "SELECT recommender.request(ROW(7)::pg_temp.own_id)",
        "SELECT recommender.request_many(ARRAY[ROW(7)::pg_temp.own_id])",
        "INSERT INTO mix_track VALUES (ROW(7)::pg_temp.own_id)",
    ],
)
def test_a_cast_of_somebodys_own_never_runs_with_the_owners_rights(connection, asking):
    connection.execute(OWN_CAST)
    connection.execute(asking)
    assert set(connection.execute("SELECT role FROM cast_as")) <= {("app_of_the_tests",)}
    connection.execute("RESET ROLE")
    assert len(open_requests(connection)) == 1


def test_the_service_asks_waits_and_reads_what_became_of_it(connection):
    connection.execute(as_statement((PROJECT_ROOT / "storage" / "setup.sql").read_text(encoding="utf-8")))
    connection.commit()
    connection.execute("SET ROLE recommender_service")
    request_id = add_request(connection, "p", idempotency_key="k")
    connection.commit()
    assert finish(connection, claim(connection, "w")[0], [RankedSong(song_id="s", score=1)], model_id=None)
    connection.commit()
    assert value(connection, "SELECT recommender.wait(%s, '1 s')", [request_id]) == State.DONE
    assert value(connection, "SELECT song_id FROM recommender.latest") == "s"
    assert value(connection, "SELECT queued FROM recommender.status") == 0
