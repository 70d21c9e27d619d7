"""Nothing accepted is lost, answered twice or half, whatever is killed: the short form of `make bench-queue`."""

import tempfile
from pathlib import Path

import pytest

from benchmarks.queue_crew import STUB_COUNT, EmptiedQueue, Verdict, judge, kill_postmaster, kill_workers, make_world
from storage.requests import RankedSong, add_request, claim, finish
from tests.jobs.world import wait_until

pytestmark = pytest.mark.pooled


@pytest.mark.slow
def test_killed_workers_lose_double_and_tear_nothing(database_url):
    verdict = kill_workers(database_url, kills=8, requests=300)
    assert verdict == Verdict(requests=verdict.requests, kills=8, lost=0, doubled=0, torn=0, retried=verdict.retried)
    assert verdict.requests >= 300
    assert verdict.retried > 0


@pytest.fixture
def reachable_folder():
    """A folder for a server of the test's own that PostgreSQL's account reaches when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="bert4musicrec-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.slow
def test_a_killed_postmaster_loses_doubles_and_tears_nothing_that_was_acknowledged(reachable_folder):
    verdict = kill_postmaster(reachable_folder, "music", kills=2, requests=150)
    assert verdict == Verdict(requests=verdict.requests, kills=2, lost=0, doubled=0, torn=0, retried=verdict.retried)
    assert verdict.requests >= 150


@pytest.mark.direct
@pytest.mark.parametrize("is_notified", [True, False])
def test_each_question_to_a_queue_that_is_kept_empty_wakes_unless_the_settings_spare_it(connection, database_url, is_notified):
    connection.autocommit = True
    connection.execute("UPDATE recommender.setting SET notify = %s", [is_notified])
    with EmptiedQueue(database_url) as emptied:
        for number in range(1, 6):
            add_request(connection, "p")
            wait_until(lambda number=number: emptied.taken == number)
        wait_until(lambda: emptied.heard == 5 * is_notified)
    assert (emptied.taken, emptied.heard) == (5, 5 * is_notified)


@pytest.fixture
def watched(connection):
    """A connection whose database has the playlists and the watch of the benchmark, and three requests: two answered."""
    make_world(connection, watched=True)
    for playlist_id in ("1", "2", "3"):
        add_request(connection, playlist_id)
    songs = [RankedSong(song_id=f"s{number}", score=1) for number in range(STUB_COUNT)]
    for claimed in claim(connection, "w", limit=2):
        finish(connection, claimed, songs, model_id=None)
    return connection


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ("SELECT 1", (1, 0, 0)),
        ("DELETE FROM recommender.request WHERE playlist_id = '1'", (2, 0, 0)),
        ("DELETE FROM recommender.recommendation WHERE request_id = 1 AND rank = 4", (1, 0, 1)),
        ("DELETE FROM recommender.recommendation WHERE request_id = 1", (1, 0, 1)),
        ("UPDATE recommender.recommendation SET created_at = 'epoch' WHERE request_id = 1 AND rank > 5", (1, 0, 1)),
        ("UPDATE recommender.recommendation SET request_id = 3 WHERE request_id = 1", (1, 0, 2)),
        ("UPDATE recommender.request SET state = 'done' WHERE playlist_id = '1'", (1, 1, 0)),
    ],
)
def test_the_judge_sees_what_is_lost_doubled_or_torn(watched, harm, found):
    watched.execute(harm)
    verdict = judge(watched, {1, 2, 3}, kills=0)
    assert (verdict.lost, verdict.doubled, verdict.torn) == found
