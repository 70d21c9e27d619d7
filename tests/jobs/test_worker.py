import threading

import pytest

from config import MASK, ServiceConfig
from errors import InvalidSequence
from jobs.worker import Worker, query_of
from storage.connections import connect
from storage.requests import State, claim
from tests.jobs.world import (
    QUERIES_FOLDER,
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


class Meddling:
    """A recommender with something in the way of its answers."""

    def __init__(self, recommender, meddle):
        self.info, self.prepare = recommender.info, recommender.prepare
        self.recommender, self.meddle = recommender, meddle

    def answer(self, queries):
        self.meddle(queries)
        return self.recommender.answer(queries)


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
        ("foreign", {}, "none of the 2 songs is known to the model, the first is 'x'"),
        ("good", {"count": 0}, "count must be between 1 and 1000 (got 0)"),
        ("good", {"count": True}, "option count must be of type int (got True)"),
        ("good", {"exclude": [7]}, 'song ids are text here (got 7, an integer): send "7"'),
        ("good", {"cuont": 3}, "unknown option 'cuont': known are count, exclude, explain"),
    ],
)
def test_a_request_that_cannot_be_answered_fails_at_once_and_disturbs_no_other(database_url, playlist, options, error):
    add_playlist(database_url, "good", ["s00", "s01"])
    add_playlist(database_url, "foreign", ["x", "y"])
    first, bad, last = ask(database_url, "good"), ask(database_url, playlist, **options), ask(database_url, "good")
    assert work_once(database_url, small_recommender()) == 3
    failed = state_of(database_url, bad)
    assert (failed.state, failed.attempts) == (State.FAILED, 1)
    assert error in failed.error
    assert songs_of(database_url, bad) == []
    assert len(songs_of(database_url, first)) == len(songs_of(database_url, last)) == 10


def test_two_workers_answer_every_request_once(database_url):
    recommender = small_recommender()
    add_playlist(database_url, "p", ["s00"])
    requests = [ask(database_url, "p", count=3) for _ in range(100)]
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
    models = [small_recommender(model_id="old")]
    worker = Worker(database_url, recommender=lambda: models[-1], config=ServiceConfig(), queries_folder=QUERIES_FOLDER)
    answered_by = []
    with running(worker):
        for model_id in ("old", "new", "old"):
            models.append(small_recommender(model_id=model_id))
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
    with pytest.raises(InvalidSequence, match=r"option exclude must be of type list \(got 's00'\)"):
        query_of(["a"], {"exclude": "s00"})


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
