import threading
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue

import pytest

from config import Config, DatabaseConfig, ServiceConfig
from errors import DatabaseUnreachable, KeyReused, SchemaError, UnknownPlaylist, UnknownRequest
from jobs import desk as desk_module
from jobs.desk import RequestDesk
from serving.answers import Query
from serving.controls import Controls
from storage.connections import connect
from storage.feedback import Event, Feedback, Taste, add_feedback
from storage.requests import State
from tests.jobs.world import add_playlist, cut_connections, state_of, work_once
from tests.serving.small import small_recommender

pytestmark = pytest.mark.pooled

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def stopping():
    return threading.Event()


@pytest.fixture
def desk(database_url, stopping):
    opened = RequestDesk(database_url, config=Config(service=ServiceConfig(server_threads=2)), stopping=stopping)
    yield opened
    opened.close()


def test_what_was_accepted_is_committed(desk, database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = desk.accept("p", {"count": 3})
    status = state_of(database_url, request_id)
    assert (status.playlist_id, status.options, status.state) == ("p", {"count": 3}, State.QUEUED)


@pytest.mark.parametrize("playlist_id", ["missing", "'; DROP TABLE music.song; --", ""])
def test_a_playlist_that_is_not_there_is_refused_and_leaves_no_row(desk, connection, playlist_id):
    with pytest.raises(UnknownPlaylist):
        desk.accept(playlist_id, {})
    assert connection.execute("SELECT count(*) FROM recommender.request").fetchone() == (0,)


@pytest.mark.parametrize("request_id", [1, 2**63, 10**30])
def test_a_number_that_was_never_given_out_is_unknown(desk, request_id):
    with pytest.raises(UnknownRequest, match=f"no request {request_id}"):
        desk.look_up(request_id)


def test_waiting_ends_with_the_songs(desk, database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = desk.accept("p", {"count": 2})
    worker = threading.Timer(0.05, work_once, [database_url, small_recommender()])
    worker.start()
    handled = desk.wait(request_id, seconds=30)
    worker.join()
    assert handled.status.state is State.DONE
    assert [song.rank for song in handled.songs] == [1, 2]


def test_waiting_ends_without_them_when_the_time_is_over_or_the_service_stops(desk, database_url, stopping):
    add_playlist(database_url, "p", ["s00"])
    request_id = desk.accept("p", {})
    assert desk.wait(request_id, seconds=0.05) is None
    stopping.set()
    assert desk.wait(request_id, seconds=1_000_000) is None


def test_only_half_of_the_servers_threads_may_wait(desk, database_url, stopping):
    add_playlist(database_url, "p", ["s00"])
    request_id = desk.accept("p", {})
    waiting = threading.Thread(target=desk.wait, args=[request_id, 1_000_000])
    waiting.start()
    while desk._seats.acquire(blocking=False):
        desk._seats.release()
    assert desk.wait(request_id, seconds=1_000_000) is None
    stopping.set()
    waiting.join()


def test_a_database_that_is_away_is_told_of_and_met_again_when_it_is_back(database_url, stopping):
    config = Config(database=DatabaseConfig(connect_timeout_seconds=1))
    desk = RequestDesk(NOWHERE, config=config, stopping=stopping)
    assert not desk.is_reachable()
    with pytest.raises(DatabaseUnreachable, match=r"127\.0\.0\.1:1/nothing"):
        desk.accept("p", {})
    desk._url, desk._failed = database_url, None
    assert desk.is_reachable()
    desk.close()


def test_the_desk_survives_the_loss_of_its_connections(desk, database_url):
    add_playlist(database_url, "p", ["s00"])
    desk.accept("p", {})
    cut_connections(database_url)
    assert state_of(database_url, desk.accept("p", {"count": 3})).options == {"count": 3}


def test_the_same_key_is_the_same_request(desk, database_url):
    add_playlist(database_url, "p", ["s00"])
    first = desk.accept("p", {}, idempotency_key="k")
    work_once(database_url, small_recommender())
    assert desk.accept("p", {}, idempotency_key="k") == first != desk.accept("p", {})
    with pytest.raises(KeyReused):
        desk.accept("p", {"count": 3}, idempotency_key="k")


def test_a_key_stands_for_its_request_when_the_playlist_is_gone(desk, database_url):
    add_playlist(database_url, "p", ["s00"])
    first = desk.accept("p", {}, idempotency_key="k")
    with connect(database_url) as connection:
        connection.execute("DELETE FROM music.playlist")
    assert desk.accept("p", {}, idempotency_key="k") == first
    with pytest.raises(KeyReused):
        desk.accept("p", {"count": 3}, idempotency_key="k")
    with pytest.raises(UnknownPlaylist):
        desk.accept("p", {}, idempotency_key="another")


# --- completing --------------------------------------------------------------------------------------------------------------

ANNA = Query(songs=["s00"], controls=Controls(listener="anna"))
PLAIN = Query(songs=["s00"])


class SilentPool:
    """Stands for the connections to a database that neither answers nor refuses before `answering` is set."""

    def __init__(self):
        self.answering = threading.Event()
        self.asked = threading.Semaphore(0)

    @contextmanager
    def connection(self, timeout):
        yield self

    @contextmanager
    def transaction(self):
        yield self

    def cursor(self, **_):
        self.asked.release()
        assert self.answering.wait(60)
        raise DatabaseUnreachable("the database went away")

    def close(self):
        self.answering.set()


@pytest.fixture
def silent(stopping, monkeypatch):
    """A desk of eight threads whose database is silent."""
    monkeypatch.setattr(desk_module, "COMPLETING_PATIENCE_SECONDS", 0.05)
    desk = RequestDesk(NOWHERE, config=Config(service=ServiceConfig(server_threads=8)), stopping=stopping)
    desk._pool = SilentPool()
    yield desk
    desk.close()


def test_a_silent_database_keeps_a_quarter_of_the_threads_and_the_others_answer(silent):
    pool, answers = silent._pool, SimpleQueue()
    threads = [threading.Thread(target=lambda: answers.put(silent.complete(ANNA)), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert pool.asked.acquire(timeout=60)
    without = replace(ANNA, unavailable=("listener",))
    assert [answers.get(timeout=60) for _ in range(6)] == 6 * [without]
    assert (silent.complete(PLAIN), silent.complete(ANNA)) == (PLAIN, without)
    assert not pool.asked.acquire(blocking=False)
    pool.answering.set()
    assert [answers.get(timeout=60) for _ in range(2)] == 2 * [without]


def test_once_a_place_is_given_back_the_database_is_asked_again(silent):
    pool = silent._pool
    threads = [threading.Thread(target=silent.complete, args=[ANNA], daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert pool.asked.acquire(timeout=60)
    silent.complete(ANNA)
    pool.answering.set()
    for thread in threads:
        thread.join()
    silent.complete(ANNA)
    assert pool.asked.acquire(blocking=False)
    assert not silent._is_silent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "filters").mkdir()
    return tmp_path


@pytest.fixture
def own_queries(database_url, stopping, folder):
    """A desk that reads the query files of `folder`."""
    opened = RequestDesk(database_url, config=Config(database=DatabaseConfig(queries_folder=folder)), stopping=stopping)
    yield opened
    opened.close()


def test_a_broken_file_of_plays_does_not_lose_blocks(own_queries, folder, database_url):
    (folder / "plays_by_listener.sql").write_text("SELECT FROM nowhere")
    with connect(database_url) as connection:
        add_feedback(connection, [Feedback(listener="anna", event=Event.NEVER_AGAIN, song_id="s05")])
    completed = own_queries.complete(replace(ANNA, controls=Controls(listener="anna", exclude_played_days=7)))
    assert replace(completed.taste, plays_error=None) == Taste(never=frozenset({"s05"}))
    assert completed.unavailable == ("exclude_played_days",)


def test_a_filter_that_fails_is_told_as_what_it_is(own_queries, folder):
    (folder / "filters" / "calm.sql").write_text("SELECT song_id FROM nowhere")
    with pytest.raises(SchemaError, match=r'^filters/calm\.sql fails: relation "nowhere" does not exist'):
        own_queries.complete(Query(songs=["s00"], controls=Controls(filter="calm", listener="anna")))
    assert own_queries.is_reachable()
