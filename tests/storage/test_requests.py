import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from errors import DatabaseError, KeyReused, UnknownRequest
from storage.connections import connect
from storage.models import Model, register_model
from storage.requests import (
    Finished,
    QueueDepth,
    RankedSong,
    State,
    add_request,
    claim,
    clear_finished,
    fail,
    finish,
    finish_many,
    latest_songs,
    listen,
    queue_depth,
    recommendations_of,
    release,
    renew,
    request_state,
    wait_for_request,
)

pytestmark = pytest.mark.pooled

EXPIRED = -1.0  # seconds of a lease that is over when it begins


@pytest.fixture
def queue(connection):
    """A connection on whose database a model is registered and playlists p0, p1, p2 are requested."""
    register_model(connection, Model(model_id="m", path="models/m", encoders_digest="e", snapshot_digest="s"))
    for number in range(3):
        add_request(connection, f"p{number}")
    connection.commit()
    return connection


def playlists(claims) -> list[str]:
    return [claimed.playlist_id for claimed in claims]


def listener(database_url):
    connection = connect(database_url)
    connection.autocommit = True
    listen(connection)
    return connection


def test_requests_are_claimed_in_the_order_in_which_they_came(queue):
    assert playlists(claim(queue, "w", limit=2)) == ["p0", "p1"]
    assert playlists(claim(queue, "w", limit=2)) == ["p2"]
    assert claim(queue, "w", limit=2) == []


def test_the_newest_answers_come_first_each_with_its_best_song_first(queue):
    assert latest_songs(queue, 10) == []
    first, second, _ = claim(queue, "w", limit=3)
    finish(queue, first, [RankedSong(song_id="a", score=2), RankedSong(song_id="b", score=1)], model_id="m")
    finish(queue, second, [RankedSong(song_id="b", score=2), RankedSong(song_id="c", score=1)], model_id="m")
    songs = [(second.request_id, "b"), (second.request_id, "c"), (first.request_id, "a"), (first.request_id, "b")]
    assert (latest_songs(queue, 10), latest_songs(queue, 3)) == (songs, songs[:3])


def test_two_workers_never_claim_the_same_request(queue, another_connection):
    assert playlists(claim(queue, "first", limit=2)) == ["p0", "p1"]
    assert playlists(claim(another_connection, "second", limit=3)) == ["p2"]  # does not wait for the first one's commit


def test_a_claim_that_is_rolled_back_is_free_again(queue, another_connection):
    claim(queue, "first", limit=3)
    queue.rollback()
    assert playlists(claim(another_connection, "second", limit=3)) == ["p0", "p1", "p2"]


def test_an_answer_is_written_with_the_end_of_its_request(queue):
    claimed = claim(queue, "w")[0]
    songs = [RankedSong(song_id="s9", score=0.5, reasons=[{"artist": "Nova"}]), RankedSong(song_id="s2", score=0.25)]
    assert finish(queue, claimed, songs, model_id="m")
    written = recommendations_of(queue, claimed.request_id)
    assert [(song.rank, song.song_id, song.score, song.reasons, song.model_id) for song in written] == [
        (1, "s9", 0.5, [{"artist": "Nova"}], "m"),
        (2, "s2", 0.25, [], "m"),
    ]
    status = request_state(queue, claimed.request_id)
    assert (status.state, status.attempts, status.error, status.finished_at is not None) == (State.DONE, 1, None, True)


def test_an_answer_says_what_it_is(queue):
    claimed, other, _ = claim(queue, "w", limit=3)
    assert request_state(queue, claimed.request_id).facts is None
    facts = {
        "fallback": "content",
        "unknown": ["s7", 'a "quoted" one'],
        "rules": {"relaxed": ["max_per_artist"]},
        "seed": 2**53 - 1,
    }
    songs = [RankedSong(song_id="s", score=1)]
    both = [Finished(claimed=claimed, songs=songs, model_id=None, facts=facts), Finished(claimed=other, songs=[], model_id="m")]
    assert finish_many(queue, both) == {claimed.request_id, other.request_id}
    assert request_state(queue, claimed.request_id).facts == facts
    assert request_state(queue, other.request_id).facts == {}
    assert recommendations_of(queue, claimed.request_id)[0].model_id is None


def test_facts_of_an_answer_that_is_not_there_are_impossible(queue):
    with pytest.raises(psycopg.errors.CheckViolation, match="request_facts_check"):
        queue.execute("UPDATE recommender.request SET facts = '{}'")


def test_an_answer_without_songs_ends_its_request_too(queue):
    claimed = claim(queue, "w")[0]
    assert finish(queue, claimed, [], model_id=None)
    assert request_state(queue, claimed.request_id).state is State.DONE


def test_an_expired_lease_is_claimed_by_another_worker_and_the_first_writes_nothing(queue, another_connection):
    late = claim(queue, "late", lease_seconds=EXPIRED)[0]
    queue.commit()
    taken = next(claimed for claimed in claim(another_connection, "quick", limit=3) if claimed.playlist_id == "p0")
    another_connection.commit()
    assert (taken.attempts, taken.fence > late.fence) == (2, True)
    song = RankedSong(song_id="s", score=1)
    assert not finish(queue, late, [song], model_id="m")
    assert (fail(queue, late, "late"), release(queue, late), renew(queue, late, 60)) == (None, False, False)
    assert recommendations_of(queue, late.request_id) == []
    assert finish(another_connection, taken, [song], model_id="m")


def test_finishing_waits_for_a_takeover_under_way_and_then_writes_nothing(queue, another_connection, database_url):
    late = claim(queue, "late", lease_seconds=EXPIRED)[0]
    queue.commit()
    claim(another_connection, "quick", limit=3)
    results = []

    def finish_late():
        with connect(database_url) as connection:
            results.append(finish(connection, late, [RankedSong(song_id="s", score=1)], model_id="m"))

    thread = threading.Thread(target=finish_late)  # waits for the row that the uncommitted takeover has locked
    thread.start()
    thread.join(timeout=0.2)
    assert results == []
    another_connection.commit()
    thread.join()
    assert results == [False]


def test_a_renewed_lease_is_not_taken_over(queue, another_connection):
    claimed = claim(queue, "slow", lease_seconds=EXPIRED)[0]
    assert renew(queue, claimed, 60)
    queue.commit()
    assert playlists(claim(another_connection, "quick", limit=3)) == ["p1", "p2"]


def test_a_request_that_kills_its_workers_is_failed_in_the_end(queue):
    for worker in ("a", "b"):
        assert claim(queue, worker, limit=1, lease_seconds=EXPIRED, max_attempts=2) != []
        queue.execute("UPDATE recommender.request SET not_before = 'infinity' WHERE playlist_id <> 'p0'")
        queue.commit()
    assert claim(queue, "c", max_attempts=2) == []
    request_id = queue.execute("SELECT request_id FROM recommender.request WHERE playlist_id = 'p0'").fetchone()[0]
    status = request_state(queue, request_id)
    assert (status.state, status.error) == (State.FAILED, "worker b did not come back from attempt 2")


def test_a_request_that_kills_its_workers_takes_no_other_of_its_batch_with_it(queue):
    add_request(queue, "p3")
    for worker in ("a", "b"):
        assert playlists(claim(queue, worker, limit=3, lease_seconds=EXPIRED)) == ["p0", "p1", "p2"]
        queue.commit()
    assert playlists(claim(queue, "c", limit=3, lease_seconds=EXPIRED)) == ["p0"]  # its last attempt, which kills the third one
    queue.commit()
    batches = []
    while batch := claim(queue, "d", limit=3):
        batches.append(playlists(batch))
        assert all(finish(queue, claimed, [], model_id=None) for claimed in batch)
        queue.commit()
    assert batches == [["p1"], ["p2"], ["p3"]]
    failed = "SELECT playlist_id, error FROM recommender.request WHERE state = 'failed'"
    assert queue.execute(failed).fetchall() == [("p0", "worker c did not come back from attempt 3")]


def test_a_failed_attempt_waits_longer_each_time_and_then_fails_for_good(queue):
    for attempts, backoff in ((1, 5), (2, 10)):
        claimed = claim(queue, "w", limit=1)[0]
        assert (claimed.playlist_id, claimed.attempts) == ("p0", attempts)
        assert fail(queue, claimed, "no luck", max_attempts=3, backoff_seconds=5) is State.QUEUED
        queue.commit()
        waits = request_state(queue, claimed.request_id).not_before - datetime.now(UTC)
        assert timedelta(seconds=backoff - 5) < waits <= timedelta(seconds=backoff)
        queue.execute("UPDATE recommender.request SET not_before = created_at WHERE playlist_id = 'p0'")
        queue.commit()
    assert fail(queue, claim(queue, "w")[0], "no luck", max_attempts=3) is State.FAILED
    assert request_state(queue, claimed.request_id).error == "no luck"


def test_a_request_that_waits_for_another_attempt_is_not_claimed(queue):
    assert fail(queue, claim(queue, "w")[0], "later", backoff_seconds=3600) is State.QUEUED
    assert playlists(claim(queue, "w", limit=3)) == ["p1", "p2"]


def test_an_error_that_will_not_pass_is_final_at_once(queue):
    claimed = claim(queue, "w")[0]
    assert fail(queue, claimed, "no playlist\0 'p0'", is_final=True) is State.FAILED
    status = request_state(queue, claimed.request_id)
    assert (status.state, status.attempts, status.error) == (State.FAILED, 1, "no playlist 'p0'")


def test_a_released_request_is_as_if_it_had_not_been_claimed(queue):
    assert release(queue, claim(queue, "w")[0])
    again = claim(queue, "w")[0]
    assert (again.playlist_id, again.attempts) == ("p0", 1)


def test_an_answer_of_an_unregistered_model_is_refused(queue):
    with pytest.raises(DatabaseError, match=r"model 'other' is not in recommender\.model"):
        finish(queue, claim(queue, "w")[0], [RankedSong(song_id="s", score=1)], model_id="other")


def test_options_come_back_as_they_were_sent(connection):
    options = {"count": 10, "exclude": ["s1"], "wait": True}
    request_id = add_request(connection, "p", options)
    connection.commit()
    assert claim(connection, "w")[0].options == request_state(connection, request_id).options == options


def test_a_request_is_accepted_from_plain_sql(connection):
    request_id = connection.execute("SELECT recommender.request('p')").fetchone()[0]
    assert request_state(connection, request_id).state is State.QUEUED


def test_the_same_key_stands_for_the_same_request_even_when_it_is_answered(connection):
    first = add_request(connection, "p", idempotency_key="k")
    finish(connection, claim(connection, "w")[0], [], model_id=None)
    assert add_request(connection, "p", idempotency_key="k") == first != add_request(connection, "p", idempotency_key="l")


def test_two_keys_may_stand_for_one_request(connection):
    first = add_request(connection, "p", idempotency_key="k")
    assert add_request(connection, "p", idempotency_key="l") == first == add_request(connection, "p", idempotency_key="k")


def test_a_key_newer_than_a_transactions_snapshot_says_try_again(connection, another_connection):
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT")
    first = add_request(another_connection, "p", idempotency_key="k")
    another_connection.commit()
    with pytest.raises(psycopg.errors.SerializationFailure):
        add_request(connection, "p", idempotency_key="k")
    connection.rollback()
    assert add_request(connection, "p", idempotency_key="k") == first


def test_two_callers_with_one_key_at_once_get_one_request(connection, database_url):
    first = add_request(connection, "p", idempotency_key="k")
    others = []

    def add_as_well():
        with connect(database_url) as another:
            others.append(add_request(another, "p", idempotency_key="k"))

    thread = threading.Thread(target=add_as_well)
    thread.start()
    thread.join(timeout=0.2)
    assert others == []  # waits for the first caller's commit
    connection.commit()
    thread.join()
    assert others == [first]


@pytest.mark.parametrize(("playlist_id", "options"), [("q", {"count": 3}), ("p", {"count": 4}), ("p", {})])
def test_a_key_of_another_request_is_refused(connection, playlist_id, options):
    add_request(connection, "p", {"count": 3}, idempotency_key="k")
    told = r"""idempotency key 'k' was used for playlist 'p' with options {"count": 3} before: send a new key"""
    with pytest.raises(KeyReused, match=told):
        add_request(connection, playlist_id, options, idempotency_key="k")


@pytest.mark.direct
def test_workers_are_woken_only_when_nothing_was_waiting(connection, database_url):
    with listener(database_url) as listening:
        add_request(connection, "first")
        connection.commit()
        assert wait_for_request(listening, 10)
        add_request(connection, "second")
        connection.commit()
        assert not wait_for_request(listening, 0.2)
        claim(connection, "w", limit=2)
        add_request(connection, "third")
        connection.commit()
        assert wait_for_request(listening, 10)


@pytest.mark.direct
def test_of_two_who_find_the_queue_empty_at_once_one_wakes_the_workers(connection, another_connection, database_url):
    with listener(database_url) as listening:
        add_request(connection, "first")
        add_request(another_connection, "second")
        another_connection.commit()
        assert not wait_for_request(listening, 0.2)
        connection.commit()
        assert wait_for_request(listening, 10)


@pytest.mark.direct
def test_a_request_that_waits_for_its_next_attempt_does_not_keep_workers_asleep(connection, database_url):
    add_request(connection, "later")
    connection.commit()
    fail(connection, claim(connection, "w")[0], "later", backoff_seconds=3600)
    connection.commit()
    with listener(database_url) as listening:
        add_request(connection, "now")
        connection.commit()
        assert wait_for_request(listening, 10)


def test_an_unknown_request_is_named(connection):
    with pytest.raises(UnknownRequest, match="no request 77"):
        request_state(connection, 77)


def test_the_depth_counts_what_is_open(queue):
    oldest = request_state(queue, claim(queue, "w")[0].request_id).created_at
    assert queue_depth(queue) == QueueDepth(queued=2, running=1, oldest=oldest)


def test_clearing_away_takes_finished_requests_and_their_songs_only(queue):
    claimed = claim(queue, "w")[0]
    finish(queue, claimed, [RankedSong(song_id="s", score=1)], model_id="m")
    queue.commit()
    assert clear_finished(queue) == 0
    queue.execute("UPDATE recommender.setting SET retention = '1 day'")
    queue.execute("UPDATE recommender.request SET finished_at = finished_at - INTERVAL '1 day'")
    assert clear_finished(queue) == 1
    assert recommendations_of(queue, claimed.request_id) == []
    assert queue_depth(queue).queued == 2


def test_clearing_away_stops_at_its_limit_and_begins_with_the_oldest(queue):
    for claimed in claim(queue, "w", limit=3):
        finish(queue, claimed, [], model_id=None)
    queue.execute("UPDATE recommender.request SET finished_at = finished_at - INTERVAL '40 days' * (1 + request_id)")
    assert clear_finished(queue, limit=2) == 2
    left = queue.execute("SELECT playlist_id FROM recommender.request").fetchall()
    assert left == [("p0",)]


def test_a_running_request_without_a_lease_is_impossible(queue):
    with pytest.raises(psycopg.errors.CheckViolation, match="request_lease_check"):
        queue.execute("UPDATE recommender.request SET state = 'running'")
