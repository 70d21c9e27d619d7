import threading

import pytest

from config import Config, DatabaseConfig, ServiceConfig
from errors import DatabaseUnreachable, KeyReused, UnknownPlaylist, UnknownRequest
from jobs.desk import RequestDesk
from storage.connections import connect
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
