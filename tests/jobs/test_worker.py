import threading
from contextlib import nullcontext
from dataclasses import replace

import psycopg
import pytest

from config import MASK
from errors import InvalidSequence, UnknownRequest
from jobs.worker import query_of
from serving.live import LiveRecommender
from storage.connections import connect
from storage.requests import State, claim
from tests.jobs.world import (
    add_playlist,
    ask,
    cut_connections,
    is_over,
    new_worker,
    running,
    songs_of,
    state_of,
    wait_until,
    work_once,
)
from tests.serving.small import SONGS, ranking_by_hand, small_recommender

pytestmark = pytest.mark.pooled


class Meddling:
    """A recommender with something in the way of its answers."""

    def __init__(self, recommender, meddle):
        self.info, self.prepare = recommender.info, recommender.prepare
        self.recommender, self.meddle = recommender, meddle

    def answer(self, queries, stage):
        self.meddle(queries)
        return self.recommender.answer(queries, stage)


def test_a_playlist_gets_the_songs_that_the_model_ranks_first(database_url):
    recommender = small_recommender()
    add_playlist(database_url, "p7", ["s03", "s00", "s05"])
    request_id = ask(database_url, "p7", count=4)
    assert work_once(database_url, recommender) == 1
    songs = songs_of(database_url, request_id)
    expected = [song for song in ranking_by_hand(recommender, [6, 3, 8, MASK]) if song not in ("s03", "s00", "s05")]
    assert [(song.rank, song.song_id) for song in songs] == list(enumerate(expected[:4], start=1))
    assert {song.model_id for song in songs} == {"run/epoch-001/0123456789ab"}
    assert all(reason["text"] for song in songs for reason in song.reasons)
    assert state_of(database_url, request_id).state is State.DONE


def test_a_playlist_longer_than_a_sent_sequence_may_be_is_answered(database_url):
    add_playlist(database_url, "long", SONGS[:9])
    request_id = ask(database_url, "long", count=2)
    work_once(database_url, small_recommender(), max_songs=3)
    assert len(songs_of(database_url, request_id)) == 2


def test_each_answer_is_traced_to_its_registered_model(database_url):
    add_playlist(database_url, "p", ["s00"])
    ask(database_url, "p")
    work_once(database_url, small_recommender(model_id="this one"))
    with connect(database_url) as connection:
        models = connection.execute(
            "SELECT model_id, encoders_digest, snapshot_digest, metrics FROM recommender.model"
        ).fetchall()
    assert models == [("this one", "e" * 64, "f" * 64, {"ndcg@10": 0.5})]


@pytest.mark.parametrize(
    ("playlist", "options", "error"),
    [
        ("missing", {}, "no playlist 'missing' in the database, or it is empty"),
        ("good", {"count": 0}, "count must be between 1 and 1000 (got 0)"),
        ("good", {"count": True}, "count: Input should be a valid integer (got True)"),
        ("good", {"exclude": [7]}, 'song ids are text here (got 7, an integer): send "7"'),
        ("good", {"cuont": 3}, "unknown option 'cuont': known are count, exclude, listener, "),
    ],
)
def test_a_request_that_cannot_be_answered_fails_at_once_and_disturbs_no_other(database_url, playlist, options, error):
    add_playlist(database_url, "good", ["s00", "s01"])
    add_playlist(database_url, "foreign", ["x", "y"])
    first, bad, last = ask(database_url, "good"), ask(database_url, playlist, **options), ask(database_url, "good", count=10)
    assert work_once(database_url, small_recommender()) == 3
    failed = state_of(database_url, bad)
    assert (failed.state, failed.attempts) == (State.FAILED, 1)
    assert error in failed.error
    assert songs_of(database_url, bad) == []
    assert len(songs_of(database_url, first)) == len(songs_of(database_url, last)) == 10


def test_two_workers_answer_every_request_once(database_url):
    recommender = small_recommender()
    for number in range(100):
        add_playlist(database_url, f"p{number}", ["s00"])
    requests = [ask(database_url, f"p{number}", count=3) for number in range(100)]
    with running(new_worker(database_url, recommender), new_worker(database_url, recommender)):
        wait_until(lambda: all(is_over(database_url, request_id) for request_id in requests))
    with connect(database_url) as connection:
        counted = connection.execute(
            "SELECT state, attempts, count(*) FROM recommender.request GROUP BY state, attempts"
        ).fetchall()
        songs = connection.execute("SELECT count(*) FROM recommender.recommendation").fetchone()
    assert counted == [("done", 1, 100)]
    assert songs == (300,)


def test_a_request_whose_worker_was_killed_is_answered_by_another_after_the_lease(database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = ask(database_url, "p")
    with connect(database_url) as killed:
        claim(killed, "killed", 1, lease_seconds=0.5)
    assert work_once(database_url, small_recommender()) == 0
    with running(new_worker(database_url, small_recommender())):
        wait_until(lambda: is_over(database_url, request_id))
    assert (state_of(database_url, request_id).state, state_of(database_url, request_id).attempts) == (State.DONE, 2)
    assert len(songs_of(database_url, request_id)) == 10


def test_a_worker_that_was_away_too_long_writes_nothing(database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = ask(database_url, "p")

    def be_overtaken(queries):
        wait_until(lambda: work_once(database_url, small_recommender(seed=1, model_id="faster")) == 1)

    work_once(database_url, Meddling(small_recommender(model_id="slower"), be_overtaken), lease_seconds=0.01)
    assert {song.model_id for song in songs_of(database_url, request_id)} == {"faster"}
    assert len(songs_of(database_url, request_id)) == 10


def test_an_answer_that_came_too_late_is_not_counted(database_url):
    add_playlist(database_url, "p", ["s00"])
    ask(database_url, "p", count=3)
    fast = LiveRecommender(small_recommender(model_id="faster"))

    def be_overtaken(queries):
        wait_until(lambda: work_once(database_url, fast) == 1)

    slow = LiveRecommender(Meddling(small_recommender(model_id="slower"), be_overtaken))
    work_once(database_url, slow, lease_seconds=0.01)
    assert (slow.tally.take(), fast.tally.take()) == ({}, {("faster", None): (1, 3)})


def test_what_is_rolled_back_is_counted_when_it_is_answered_again(database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = ask(database_url, "p", count=3)
    counted = []
    live = LiveRecommender(small_recommender(), on_answer=lambda answer: counted.append(len(answer.songs)))
    worker, stop = new_worker(database_url, live, lease_seconds=0.01), threading.Event()
    store = worker._store

    def store_and_break(*arguments):
        store(*arguments)
        raise psycopg.OperationalError("the connection is lost")

    with connect(database_url) as connection:
        worker._store = store_and_break
        with pytest.raises(psycopg.OperationalError):
            worker.work(connection, stop)
        worker._store = store
        assert (counted, live.tally.take(), songs_of(database_url, request_id)) == ([], {}, [])
        wait_until(lambda: worker.work(connection, stop) == 1)
    assert state_of(database_url, request_id).state is State.DONE
    assert (counted, live.tally.take()) == ([3], {("run/epoch-001/0123456789ab", None): (1, 3)})


def test_the_parts_of_a_batch_are_timed_and_what_fails_is_scored_again_one_by_one(database_url):
    for playlist_id, songs in (("good", ["s00"]), ("poison", ["s01", "s02", "s03"])):
        add_playlist(database_url, playlist_id, songs)
        ask(database_url, playlist_id)
    sizes, stages = [], []

    def choke(queries):
        if any(len(query.sequence) == 3 for query in queries):
            raise RuntimeError("out of memory")

    def stage(name):
        stages.append(name)
        return nullcontext()

    recommender = Meddling(small_recommender(), choke)
    assert work_once(database_url, LiveRecommender(recommender, stage=stage, on_batch=sizes.append)) == 2
    assert (sizes, stages) == ([2, 1, 1], ["score", "rules", "reasons"])


def test_a_request_that_cannot_be_scored_is_tried_again_and_then_fails_without_the_others(database_url):
    add_playlist(database_url, "good", ["s00"])
    add_playlist(database_url, "poison", ["s01", "s02", "s03"])

    def choke(queries):
        if any(len(query.sequence) == 3 for query in queries):
            raise RuntimeError("out of memory")

    recommender = Meddling(small_recommender(), choke)
    good, poison = ask(database_url, "good"), ask(database_url, "poison")
    work_once(database_url, recommender, max_attempts=2)
    waiting = state_of(database_url, poison)
    assert (waiting.state, waiting.error) == (State.QUEUED, "scoring failed: out of memory")
    assert state_of(database_url, good).state is State.DONE
    with connect(database_url) as connection:
        connection.execute("UPDATE recommender.request SET not_before = now()")
    work_once(database_url, recommender, max_attempts=2)
    assert (state_of(database_url, poison).state, state_of(database_url, poison).attempts) == (State.FAILED, 2)


def test_a_missing_right_fails_an_attempt_and_not_the_worker(database_url, tmp_path):
    (tmp_path / "sequence_by_id.sql").write_text("SELECT song_id FROM music.nowhere WHERE %(sequence_id)s::text IS NOT NULL")
    request_id = ask(database_url, "p")
    worker = new_worker(database_url, small_recommender(), queries_folder=tmp_path)
    with connect(database_url) as connection:
        assert worker.work(connection, threading.Event()) == 1
    waiting = state_of(database_url, request_id)
    assert waiting.state is State.QUEUED
    assert 'relation "music.nowhere" does not exist' in waiting.error


def test_without_a_model_requests_stay_in_the_queue(database_url):
    request_id = ask(database_url, "p")
    assert work_once(database_url, None) == 0
    assert (state_of(database_url, request_id).state, state_of(database_url, request_id).attempts) == (State.QUEUED, 0)


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_begun(database_url):
    request_id = ask(database_url, "p")
    stop = threading.Event()
    stop.set()
    with connect(database_url) as connection:
        new_worker(database_url, small_recommender()).work(connection, stop)
    assert (state_of(database_url, request_id).state, state_of(database_url, request_id).attempts) == (State.QUEUED, 0)


def test_a_swapped_model_answers_the_next_batch(database_url):
    add_playlist(database_url, "p", ["s00"])
    live = LiveRecommender()
    answered_by = []
    with running(new_worker(database_url, live)):
        for model_id in ("old", "new", "old"):
            live.swap(small_recommender(model_id=model_id))
            request_id = ask(database_url, "p", count=1)
            wait_until(lambda request_id=request_id: is_over(database_url, request_id))
            answered_by += [song.model_id for song in songs_of(database_url, request_id)]
    assert answered_by == ["old", "new", "old"]


def test_a_worker_survives_the_loss_of_its_connections(database_url):
    add_playlist(database_url, "p", ["s00"])
    before = ask(database_url, "p")
    with running(new_worker(database_url, small_recommender())):
        wait_until(lambda: is_over(database_url, before))
        cut_connections(database_url)
        after = ask(database_url, "p")
        wait_until(lambda: is_over(database_url, after))
    assert state_of(database_url, after).state is State.DONE


def test_options_may_be_absent_or_null():
    assert query_of(["a", None, "b"], {"count": None, "explain": None}) == query_of(["a", "b"], {})


def test_an_option_of_another_type_is_refused():
    with pytest.raises(InvalidSequence, match=r'exclude: Input should be a valid list \(got "s00"\)'):
        query_of(["a"], {"exclude": "s00"})


@pytest.mark.direct
def test_a_worker_makes_its_model_known_again_after_it_lost_the_database(database_url):
    with running(new_worker(database_url, small_recommender())):
        wait_until(lambda: models_of(database_url) == ["run/epoch-001/0123456789ab"])
        with connect(database_url) as connection:
            connection.execute("DELETE FROM recommender.model")
        cut_connections(database_url)
        wait_until(lambda: models_of(database_url) == ["run/epoch-001/0123456789ab"])


def models_of(url):
    with connect(url) as connection:
        return [model_id for (model_id,) in connection.execute("SELECT model_id FROM recommender.model").fetchall()]


@pytest.mark.parametrize(
    "query", ["SELEC song_id", "SELECT 1 / 0 AS song_id WHERE %(sequence_id)s <> ''", "SELECT %s AS song_id"]
)
def test_a_query_file_that_cannot_be_run_fails_attempts_and_not_the_worker(database_url, tmp_path, query):
    (tmp_path / "sequence_by_id.sql").write_text(query)
    request_id = ask(database_url, "p")
    with running(new_worker(database_url, small_recommender(), queries_folder=tmp_path, max_attempts=1)):
        wait_until(lambda: is_over(database_url, request_id))
        (tmp_path / "sequence_by_id.sql").write_text("SELECT 's00' AS song_id WHERE %(sequence_id)s <> ''")
        after = ask(database_url, "p")
        wait_until(lambda: is_over(database_url, after))
    assert (state_of(database_url, request_id).state, state_of(database_url, after).state) == (State.FAILED, State.DONE)


# As statement_timeout ends a query, without the time.
TAKE_TOO_LONG = "CREATE FUNCTION take_too_long() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE query_canceled; END'"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 1 / 0", "playlist 'poison' cannot be read: division by zero"),
        ("SELECT take_too_long()", "the database could not carry on: query_canceled"),
    ],
)
def test_a_playlist_that_cannot_be_read_is_tried_again_without_the_others(database_url, tmp_path, sql, told):
    query = f"SELECT 's00' AS song_id WHERE CASE %(sequence_id)s WHEN 'poison' THEN ({sql}) IS NULL ELSE true END"
    (tmp_path / "sequence_by_id.sql").write_text(query)
    first, poison, last = (ask(database_url, playlist_id) for playlist_id in ("first", "poison", "last"))
    with connect(database_url) as connection:
        connection.execute(TAKE_TOO_LONG)
        connection.commit()
        worker = new_worker(database_url, small_recommender(), queries_folder=tmp_path)
        assert worker.work(connection, threading.Event()) == 3
    assert [state_of(database_url, request_id).state for request_id in (first, last)] == [State.DONE, State.DONE]
    waiting = state_of(database_url, poison)
    assert (waiting.state, waiting.attempts, waiting.error) == (State.QUEUED, 1, told)


def test_an_answer_that_cannot_be_written_fails_alone(database_url):
    add_playlist(database_url, "good", ["s00"])
    add_playlist(database_url, "torn", ["s01"])

    class Doubling(Meddling):
        """Recommends one song twice to the playlist that holds s01."""

        def answer(self, queries, stage):
            answers = self.recommender.answer(queries, stage)
            doubled = [query.sequence.ids == ("s01",) for query in queries]
            return [
                replace(answer, songs=answer.songs[:1] * 2) if is_doubled else answer
                for answer, is_doubled in zip(answers, doubled, strict=True)
            ]

    good, torn = ask(database_url, "good"), ask(database_url, "torn")
    assert work_once(database_url, Doubling(small_recommender(), None), max_attempts=1) == 2
    assert (state_of(database_url, good).state, len(songs_of(database_url, good))) == (State.DONE, 10)
    assert (state_of(database_url, torn).state, songs_of(database_url, torn)) == (State.FAILED, [])
    assert "recommendation_request_id_song_id_key" in state_of(database_url, torn).error


def test_a_batch_is_32_requests_and_read_in_one_query(database_url, connection):
    for number in range(40):
        add_playlist(database_url, f"p{number}", ["s00"])
        ask(database_url, f"p{number}")
    worker, stop = new_worker(database_url, small_recommender()), threading.Event()
    statements = []
    with connect(database_url) as working:
        execute = working.execute
        working.execute = lambda query, *arguments: (statements.append(str(query)), execute(query, *arguments))[1]
        assert [worker.work(working, stop) for _ in range(3)] == [32, 8, 0]
    assert len([text for text in statements if "LATERAL" in text]) == 2


def test_a_worker_that_polls_answers_without_listening(database_url):
    add_playlist(database_url, "p", ["s00"])
    with running(new_worker(database_url, small_recommender(), wake="poll")):
        wait_until(lambda: models_of(database_url))
        request_id = ask(database_url, "p")
        wait_until(lambda: is_over(database_url, request_id))
        with connect(database_url) as connection:
            told = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE query ILIKE '%listen%') FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()
    assert told == (1, 0)


def test_a_nudged_worker_looks_at_once(database_url, monkeypatch):
    monkeypatch.setattr("jobs.worker.POLL_SECONDS", 3_600)
    add_playlist(database_url, "p", ["s00"])
    worker = new_worker(database_url, small_recommender(), wake="poll")
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=[stop])
    thread.start()
    wait_until(lambda: models_of(database_url))
    request_id = ask(database_url, "p")
    worker.nudge()
    wait_until(lambda: is_over(database_url, request_id))
    stop.set()
    worker.nudge()
    thread.join()


@pytest.mark.direct
def test_a_worker_looks_again_soon_after_its_work_and_then_more_and_more_seldom(database_url, monkeypatch):
    """Who commits just after the one request that wakes the workers has not long to wait."""
    add_playlist(database_url, "p", ["s00"])
    stop, rests = threading.Event(), []

    def rest(ear, seconds):
        rests.append(seconds)
        if len(rests) == 2:
            ask(database_url, "p")
        if len(rests) == 7:
            stop.set()

    monkeypatch.setattr("jobs.worker.wait_for_request", rest)
    new_worker(database_url, small_recommender()).run(stop)
    assert rests == [0.02, 0.1, 0.02, 0.1, 0.3, 1.0, 1.0]


@pytest.mark.direct
def test_a_worker_that_lost_its_database_puts_back_what_it_held(database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = ask(database_url, "p")
    is_lost = threading.Event()

    def lose_once(queries):
        if not is_lost.is_set():
            cut_connections(database_url)
            is_lost.set()

    with running(new_worker(database_url, Meddling(small_recommender(), lose_once), lease_seconds=3_600)):
        is_lost.wait()
        wait_until(lambda: is_over(database_url, request_id))
    assert (state_of(database_url, request_id).state, state_of(database_url, request_id).attempts) == (State.DONE, 2)


def test_a_worker_says_whether_it_has_its_database(database_url):
    worker = new_worker("postgresql://nobody@127.0.0.1:1/nothing", small_recommender())
    assert not worker.is_connected
    with running(worker):
        worker._url = database_url
        wait_until(lambda: worker.is_connected)


def test_a_worker_removes_what_is_past_its_retention(database_url):
    add_playlist(database_url, "p", ["s00"])
    request_id = ask(database_url, "p")
    work_once(database_url, small_recommender())
    with connect(database_url) as connection:
        connection.execute("UPDATE recommender.request SET finished_at = finished_at - INTERVAL '31 days'")
    with running(new_worker(database_url, small_recommender())):
        wait_until(lambda: songs_of(database_url, request_id) == [])
    with pytest.raises(UnknownRequest):
        state_of(database_url, request_id)
