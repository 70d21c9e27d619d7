"""The service through HTTP: Flask's test client for answers, a real process for starting and stopping."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest

from config import MASK, PROJECT_ROOT, Config, DatabaseConfig, ServiceConfig
from encoder_files import save_encoders
from errors import exit_code_of
from flask_app import create_app, main, service_of
from storage.connections import connect
from tests.jobs.world import add_playlist, new_worker, running, songs_of, wait_until, work_once
from tests.serving.small import NO_RULES, SONGS, ranking_by_hand, small_encoders, small_recommender, small_run

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"
CONFIG = Config(
    service=replace(NO_RULES, max_songs=50, max_body_bytes=2_000, wait_seconds=0.2),
    database=DatabaseConfig(connect_timeout_seconds=1),
)
PATIENT = Config(service=replace(NO_RULES, wait_seconds=30))


@pytest.fixture
def new_client():
    """`new_client(**arguments of create_app)` -> a test client whose app is closed at the end."""
    apps = []

    def make(config=CONFIG, **arguments):
        apps.append(create_app(config, **{"recommender": small_recommender(config=config.service), **arguments}))
        return apps[-1].test_client()

    yield make
    for app in apps:
        service_of(app).close()


def problem_of(response):
    """Status and detail of an error, which must be the one form that errors have."""
    assert response.mimetype == "application/problem+json"
    assert sorted(response.json) == ["detail", "instance", "status", "title", "type"]
    assert response.json["instance"] == response.headers["X-Request-ID"]
    assert response.json["status"] == response.status_code
    return response.status_code, response.json["detail"]


# --- sequences ---------------------------------------------------------------------------------------------------------------


def test_a_sequence_is_answered_with_ranked_songs_and_what_they_are_traced_to(new_client):
    response = new_client().post("/recommend", json={"songs": ["s03", "never seen", "s00"], "count": 3, "exclude": ["s05"]})
    expected = [song for song in ranking_by_hand(small_recommender(), [6, 3, MASK]) if song not in ("s03", "s00", "s05")]
    assert response.status_code == 200
    assert [(song["rank"], song["song_id"]) for song in response.json["songs"]] == list(enumerate(expected[:3], start=1))
    assert response.json["unknown"] == ["never seen"]
    assert response.json["model"] == {
        "model_id": "run/epoch-001/0123456789ab",
        "version": "0123456789ab",
        "trained_at": "2026-01-02T03:04:05+00:00",
    }


def test_an_answer_never_holds_the_sequence_however_many_songs_are_asked_for(new_client):
    response = new_client().post("/recommend", json={"songs": SONGS[:5], "count": 1000})
    assert sorted(song["song_id"] for song in response.json["songs"]) == SONGS[5:]


def test_an_explained_answer_says_because_of_which_songs(new_client):
    response = new_client().post("/recommend", json={"songs": ["s00", "s01"], "explain": True})
    because = [reason for song in response.json["songs"] for reason in song["reasons"] if reason["kind"] == "because_of"]
    assert {reason["song_id"] for reason in because} <= {"s00", "s01"}
    assert {reason["text"] for reason in because} <= {"because of song s00", "because of song s01"}
    assert because


@pytest.mark.parametrize("ids", [list(range(100, 112)), [str(UUID(int=n)) for n in range(12)]], ids=["int", "uuid"])
def test_ids_come_back_in_the_type_in_which_they_were_sent(new_client, ids):
    native = ids if isinstance(ids[0], int) else [UUID(text) for text in ids]
    response = new_client(recommender=small_recommender(ids=native)).post("/recommend", json={"songs": ids[:1], "count": 20})
    assert sorted(song["song_id"] for song in response.json["songs"]) == sorted(ids[1:])


def test_thirty_two_concurrent_requests_get_their_own_answers(new_client):
    client = new_client()
    app, sequences = client.application, [[SONGS[n % 12], SONGS[(n // 12 + n + 1) % 12]] for n in range(32)]

    def post(songs):
        return [song["song_id"] for song in app.test_client().post("/recommend", json={"songs": songs}).json["songs"]]

    with ThreadPoolExecutor(32) as threads:
        together = list(threads.map(post, sequences))
    assert together == [post(songs) for songs in sequences]


# --- what cannot be answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"songs": []}, 422, "the sequence is empty: send at least one song"),
        ({"songs": [17]}, 422, 'song ids are text here (got 17, an integer): send "17"'),
        ({"songs": ["s00"] * 51}, 422, "the sequence has 51 songs, over max_songs (50)"),
        ({"songs": ["s00", None]}, 422, "songs.1: an id is an integer or a text (got null)"),
        ({"songs": [True]}, 422, "songs.0: an id is an integer or a text (got true)"),
        ({"songs": [[["s00"]]]}, 422, 'songs.0: an id is an integer or a text (got [["s00"]])'),
        ({"songs": "s00"}, 422, 'songs: Input should be a valid list (got "s00")'),
        ({"songs": ["s00"], "count": 0}, 422, "count must be between 1 and 1000 (got 0)"),
        ({"songs": ["s00"], "count": 1001}, 422, "count must be between 1 and 1000 (got 1001)"),
        ({"songs": ["s00"], "count": "ten"}, 422, 'count: Input should be a valid integer (got "ten")'),
        ({"songs": ["s00"], "exclude": [7]}, 422, 'song ids are text here (got 7, an integer): send "7"'),
        ({"song": ["s00"]}, 422, "unknown field 'song': known are count, exclude, listener, "),
        ({}, 422, 'send either "songs" or "playlist_id"'),
        ({"songs": ["s00"], "playlist_id": "p"}, 422, 'send either "songs" or "playlist_id"'),
        (["s00"], 422, "the body must be a JSON object"),
        ("{}", 422, "the body must be a JSON object"),
        ({"playlist_id": "p"}, 503, "no database is configured"),
        ({"playlist_id": "a\0b"}, 422, "playlist_id: an id is a text that PostgreSQL can hold"),
        ({"playlist_id": "\ud800"}, 422, "playlist_id: an id is a text that PostgreSQL can hold"),
    ],
)
def test_a_body_that_cannot_be_answered_is_refused_in_one_line(new_client, body, status, detail):
    told = problem_of(new_client().post("/recommend", json=body))
    assert told[0] == status
    assert detail in told[1]
    assert "\n" not in told[1]


@pytest.mark.parametrize(
    "text", [b"{", b"", b'{"songs": [1,]}', b"\xff\xfe", b"[" * 1_900, b'{"songs": [' + b"1" * 1_900 + b"e]}"]
)
def test_malformed_json_is_a_bad_request(new_client, text):
    response = new_client().post("/recommend", data=text, content_type="application/json")
    assert problem_of(response)[0] == 400


def test_deeply_nested_json_is_a_bad_request(new_client):
    response = new_client(config=Config()).post("/recommend", data=b"[" * 1_000_000, content_type="application/json")
    assert problem_of(response)[0] == 400


def test_a_body_over_the_limit_is_too_large(new_client):
    response = new_client().post("/recommend", json={"songs": ["s00" * 1_000]})
    assert problem_of(response) == (413, "the body is over max_body_bytes (2000): send the newest songs only")


def test_a_hundred_thousand_songs_are_refused_whatever_stops_them_first(new_client):
    body = {"songs": ["s00"] * 100_000}
    assert problem_of(new_client(config=Config()).post("/recommend", json=body))[0] == 422
    assert problem_of(new_client().post("/recommend", json=body))[0] == 413


def test_another_content_type_is_unsupported(new_client):
    response = new_client().post("/recommend", data="songs=s00", content_type="application/x-www-form-urlencoded")
    assert problem_of(response)[0] == 415


def test_another_method_is_told_which_ones_there_are(new_client):
    response = new_client().get("/recommend")
    assert problem_of(response)[0] == 405
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/page", "/recommendations", "/requests/seven", "/requests/-1"])
def test_an_unknown_address_is_not_found(new_client, path):
    assert problem_of(new_client().get(path))[0] == 404
    assert problem_of(new_client().post(path, data=b"{"))[0] == 404


def test_a_mistake_of_ours_is_told_without_its_insides(new_client, monkeypatch):
    client = new_client()
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    monkeypatch.setattr(service_of(client.application).live, "recommend", lambda query, key: 1 / 0)
    status, detail = problem_of(client.post("/recommend", json={"songs": ["s00"]}))
    assert status == 500
    assert "division" not in detail


def test_without_a_model_a_sequence_is_told_to_come_back(new_client):
    response = new_client(recommender=None).post("/recommend", json={"songs": ["s00"]})
    assert problem_of(response) == (503, "no model is loaded: train one and start the service with --model")
    assert response.headers["Retry-After"] == "5"


# --- playlists ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "sent"), [("p7", "p7"), ("7", 7)])
def test_a_playlist_is_accepted_and_its_songs_land_in_the_table(new_client, database_url, stored, sent):
    add_playlist(database_url, stored, ["s03", "s00"])
    client = new_client(database_url=database_url)
    response = client.post("/recommend", json={"playlist_id": sent, "count": 3, "exclude": ["s05"]})
    request_id = response.json["request_id"]
    assert (response.status_code, response.json) == (202, {"playlist_id": sent, "status": "accepted", "request_id": request_id})
    assert client.get(f"/requests/{request_id}").json == {"request_id": request_id, "playlist_id": stored, "status": "accepted"}
    work_once(database_url, small_recommender())
    expected = [song for song in ranking_by_hand(small_recommender(), [6, 3, MASK]) if song not in ("s03", "s00", "s05")][:3]
    assert [song.song_id for song in songs_of(database_url, request_id)] == expected
    done = client.get(f"/requests/{request_id}").json
    assert (done["status"], done["model_id"]) == ("done", "run/epoch-001/0123456789ab")
    assert [song["song_id"] for song in done["songs"]] == expected


def test_waiting_for_a_playlist_answers_with_its_songs(new_client, database_url):
    add_playlist(database_url, "7", ["s03", "s00"])
    with running(new_worker(database_url, small_recommender())):
        response = new_client(PATIENT, database_url=database_url).post("/recommend", json={"playlist_id": 7, "wait": True})
    assert (response.status_code, response.json["status"], response.json["playlist_id"]) == (200, "done", 7)
    stored = songs_of(database_url, response.json["request_id"])
    assert [(song["rank"], song["song_id"]) for song in response.json["songs"]] == [(song.rank, song.song_id) for song in stored]
    assert len(stored) == 10


def test_waiting_in_vain_ends_with_accepted(new_client, database_url):
    add_playlist(database_url, "p", ["s00"])
    response = new_client(database_url=database_url).post("/recommend", json={"playlist_id": "p", "wait": True})
    assert (response.status_code, response.json["status"]) == (202, "accepted")


def test_a_sequence_of_unknown_songs_only_is_answered_with_what_is_popular_and_says_so(new_client):
    answer = new_client().post("/v1/recommend", json={"songs": ["x", "y"], "count": 3}).json
    assert (answer["fallback"], answer["unknown"], answer["model"], len(answer["songs"])) == ("popular", ["x", "y"], None, 3)


def test_so_is_a_playlist_of_unknown_songs_only(new_client, database_url):
    add_playlist(database_url, "p", ["x", "y"])
    client = new_client(PATIENT, database_url=database_url)
    with running(new_worker(database_url, small_recommender())):
        answer = client.post("/recommend", json={"playlist_id": "p", "wait": True}).json
    assert (answer["fallback"], answer["unknown"], answer["model_id"], len(answer["songs"])) == ("popular", ["x", "y"], None, 10)


def test_a_playlists_request_that_cannot_be_answered_fails_with_the_reason(new_client, database_url):
    add_playlist(database_url, "p", ["s00"])
    client = new_client(PATIENT, database_url=database_url)
    with running(new_worker(database_url, small_recommender())):
        body = {"playlist_id": "p", "wait": True, "exclude": [7]}
        status, detail = problem_of(client.post("/recommend", json=body))
    assert status == 422
    assert 'song ids are text here (got 7, an integer): send "7"' in detail
    with connect(database_url) as connection:
        [(request_id,)] = connection.execute("SELECT request_id FROM recommender.request").fetchall()
    failed = client.get(f"/requests/{request_id}").json
    assert failed["status"] == "failed"
    assert failed["error"] in detail


def test_song_ids_of_a_stored_answer_have_the_catalogues_type(new_client, database_url, tmp_path):
    query = "SELECT song_id::bigint AS song_id FROM music.playlist_song WHERE playlist_id = %(sequence_id)s ORDER BY position"
    (tmp_path / "sequence_by_id.sql").write_text(query)
    add_playlist(database_url, "p", ["100"])
    config = Config(database=DatabaseConfig(queries_folder=tmp_path), service=ServiceConfig(count=20, wait_seconds=30))
    recommender = small_recommender(ids=list(range(100, 112)), config=config.service)
    with running(new_worker(database_url, recommender, queries_folder=tmp_path)):
        client = new_client(config, recommender=recommender, database_url=database_url)
        songs = client.post("/recommend", json={"playlist_id": "p", "wait": True}).json["songs"]
    assert sorted(song["song_id"] for song in songs) == list(range(101, 112))


def test_the_same_key_and_body_again_are_the_same_request(new_client, database_url):
    add_playlist(database_url, "p", ["s03", "s00"])
    client = new_client(database_url=database_url)

    def post_with(key, **body):
        return client.post("/recommend", json={"playlist_id": "p", **body}, headers={"Idempotency-Key": key})

    first = post_with("k", count=3)
    work_once(database_url, small_recommender())
    again, other = post_with("k", count=3), post_with("l", count=3)
    assert (again.status_code, again.json) == (202, first.json)
    assert other.json["request_id"] != first.json["request_id"]
    status, detail = problem_of(post_with("k", count=4))
    assert status == 422
    assert "idempotency key 'k' was used for playlist 'p' with options" in detail


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_none_is_refused(new_client, key):
    response = new_client().post("/recommend", json={"songs": ["s00"]}, headers={"Idempotency-Key": key})
    status, detail = problem_of(response)
    assert status == 422
    assert detail.startswith("Idempotency-Key: String should have at ")


def test_a_full_queue_says_when_to_come_back(new_client, database_url, connection):
    for playlist_id in ("p", "q"):
        add_playlist(database_url, playlist_id, ["s00"])
    connection.execute("UPDATE recommender.setting SET max_queued = 1")
    connection.commit()
    client = new_client(database_url=database_url)
    assert client.post("/recommend", json={"playlist_id": "p"}).status_code == 202
    response = client.post("/recommend", json={"playlist_id": "q"})
    told = "the queue is full: 1 requests are waiting, which is max_queued: ask again later"
    assert problem_of(response) == (429, told)
    assert response.headers["Retry-After"] == "10"


def test_a_plain_question_over_http_joins_a_plain_one_from_sql(new_client, database_url, connection):
    add_playlist(database_url, "7", ["s00"])
    [(asked,)] = connection.execute("SELECT recommender.request(7)").fetchall()
    connection.commit()
    assert new_client(database_url=database_url).post("/recommend", json={"playlist_id": 7}).json["request_id"] == asked


def test_an_unknown_playlist_is_not_found_and_leaves_no_request(new_client, database_url, connection):
    response = new_client(database_url=database_url).post("/recommend", json={"playlist_id": 404})
    assert problem_of(response) == (404, "no playlist '404' in the database, or it is empty")
    assert connection.execute("SELECT count(*) FROM recommender.request").fetchone() == (0,)


@pytest.mark.parametrize("request_id", [12, 2**63, 10**25])
def test_an_unknown_request_is_not_found(new_client, database_url, request_id):
    assert problem_of(new_client(database_url=database_url).get(f"/requests/{request_id}"))[0] == 404


def test_without_the_database_sequences_are_answered_and_playlists_told_to_come_back(new_client):
    client = new_client(database_url=NOWHERE)
    assert client.post("/recommend", json={"songs": ["s00"]}).status_code == 200
    for response in (client.post("/recommend", json={"playlist_id": "p"}), client.get("/requests/1")):
        status, detail = problem_of(response)
        assert status == 503
        assert response.headers["Retry-After"] == "5"
        assert "127.0.0.1:1/nothing" in detail
        assert "secret" not in detail


def test_a_database_without_our_tables_is_told_of(new_client, empty_database_url):
    status, detail = problem_of(new_client(database_url=empty_database_url).post("/recommend", json={"playlist_id": "p"}))
    assert status == 503
    assert "does not exist" in detail


# --- health ------------------------------------------------------------------------------------------------------------------


def test_the_process_is_alive_whatever_it_lacks(new_client):
    response = new_client(recommender=None, database_url=NOWHERE).get("/healthz")
    assert (response.status_code, response.json) == (200, {"status": "alive"})


def test_readiness_names_both_states(new_client, database_url):
    ready = new_client(database_url=database_url).get("/readyz")
    assert (ready.status_code, ready.json) == (
        200,
        {
            "model": "loaded",
            "model_id": "run/epoch-001/0123456789ab",
            "database": "reachable",
            "worker": "none",
            "follower": "none",
            "songs": 12,
            "new_songs": 0,
            "index": small_recommender().state()["index"],
            "catalogue_read_at": None,
            "refused": None,
        },
    )
    unready = new_client(recommender=None, database_url=NOWHERE).get("/readyz")
    assert (unready.status_code, unready.json) == (
        503,
        {
            "model": "missing",
            "model_id": None,
            "database": "unreachable",
            "worker": "none",
            "follower": "none",
            "catalogue_read_at": None,
            "refused": None,
        },
    )


def test_a_service_whose_worker_has_ended_is_not_ready(new_client, database_url):
    client = new_client(database_url=database_url)
    service = service_of(client.application)
    service.worker, service.worker_thread = new_worker(database_url, small_recommender()), threading.Thread()
    response = client.get("/readyz")
    assert (response.status_code, response.json["worker"]) == (503, "ended")


def test_a_service_whose_worker_has_no_database_is_not_ready(new_client, database_url):
    client = new_client(database_url=database_url)
    service = service_of(client.application)
    worker = new_worker(NOWHERE, small_recommender())
    with running(worker) as [thread]:
        service.worker, service.worker_thread = worker, thread
        response = client.get("/readyz")
        assert (response.status_code, response.json["worker"]) == (503, "reconnecting")
        worker._url = database_url
        wait_until(lambda: client.get("/readyz").json["worker"] == "running")


def test_a_service_for_sequences_only_is_ready_without_a_database(new_client):
    response = new_client().get("/readyz")
    assert (response.status_code, response.json["database"]) == (200, "not configured")


@pytest.mark.parametrize(
    ("path", "body", "level"), [("/recommend", {"songs": ["s00"]}, "INFO"), ("/recommend", {}, "WARNING"), ("/no", {}, "WARNING")]
)
def test_the_level_of_a_log_line_follows_the_outcome(new_client, caplog, path, body, level):
    caplog.set_level("DEBUG", logger="api.observing")
    response = new_client().post(path, json=body)
    [record] = [record for record in caplog.records if record.name == "api.observing"]
    assert record.levelname == level
    assert {name: record.fields[name] for name in ("method", "path", "status")} == {
        "method": "POST",
        "path": path,
        "status": response.status_code,
    }


# --- the process -------------------------------------------------------------------------------------------------------------


def post(address, body):
    request = urllib.request.Request(
        f"{address}/recommend", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.status, json.load(response)


def announced_by(process):
    """The line with its address that a service prints once it listens."""
    line = process.stdout.readline()
    assert line.startswith("serving on http://"), process.communicate()[1]
    return line


@pytest.fixture
def run_folder(tmp_path):
    return small_run(tmp_path / "models" / "run")


def test_the_service_starts_answers_both_ways_and_stops_at_a_signal(database_url, run_folder):
    add_playlist(database_url, "p", ["s03", "s00"])
    command = [sys.executable, "flask_app.py", "--model", str(run_folder), "--port", "0"]
    environment = {**os.environ, "DATABASE_URL": database_url}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, text=True, stdout=-1, stderr=-1) as process:
        line = announced_by(process)
        address = line.split()[2].rstrip(",")
        try:
            sequence, playlist = post(address, {"songs": ["s03", "s00"]}), post(address, {"playlist_id": "p", "wait": True})
            with urllib.request.urlopen(f"{address}/readyz", timeout=30) as response:
                readiness = json.load(response)
        finally:
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=60)
    assert (process.returncode, sequence[0], playlist[0]) == (0, 200, 200), told
    assert [song["song_id"] for song in sequence[1]["songs"]] == [song["song_id"] for song in playlist[1]["songs"]]
    assert readiness == {**readiness, "model": "loaded", "database": "reachable", "worker": "running", "follower": "running"}
    assert f"""curl -s {address}/v1/recommend -H 'Content-Type: application/json' -d '{{"songs": ["s00", "s01"]}}'""" in line
    assert "Traceback" not in told


def test_a_port_in_use_is_one_line(run_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--model", str(run_folder), "--port", port, "--url", NOWHERE]
        assert exit_code_of(main, arguments) == 2
    told = f"error: port {port} on 127.0.0.1 is in use: stop what listens there, or choose another with --port\n"
    assert capsys.readouterr().err.endswith(told)


def test_a_model_that_is_not_there_is_one_line(tmp_path, capsys):
    assert exit_code_of(main, ["--model", str(tmp_path), "--url", NOWHERE]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: no trained model in {tmp_path}")
    assert told.count("\n") == 1


def test_encoders_of_another_model_are_one_line(run_folder, capsys):
    save_encoders(small_encoders(ids=["a", "b"])[0], run_folder / "encoders")
    assert exit_code_of(main, ["--model", str(run_folder), "--url", NOWHERE]) == 2
    told = capsys.readouterr().err
    assert "are not those that were asked for" in told
    assert told.count("\n") == 1


def test_an_address_that_is_not_ours_is_one_line(run_folder, capsys):
    assert exit_code_of(main, ["--model", str(run_folder), "--host", "192.0.2.1", "--port", "4517", "--url", NOWHERE]) == 2
    assert "error: cannot listen on 192.0.2.1 port 4517 (" in capsys.readouterr().err


def test_a_service_whose_database_is_away_starts_all_the_same(run_folder):
    command = [sys.executable, "flask_app.py", "--model", str(run_folder), "--port", "0", "--url", NOWHERE]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, text=True, stdout=-1, stderr=-1) as process:
        address = announced_by(process).split()[2].rstrip(",")
        try:
            status, answer = post(address, {"songs": ["s03", "s00"], "count": 2})
        finally:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
    assert (process.returncode, status, len(answer["songs"])) == (0, 200, 2), told
    assert "no connection to nobody@127.0.0.1:1/nothing" in told
    assert "secret" not in told
