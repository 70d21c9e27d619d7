"""The health of the service at a glance, with the database there, away, silent, and under a role of few rights."""

import threading

import pytest

from api import overview
from api.noted import MOST_ERRORS, RECENT_TIMES, Looks, Noted
from api.overview import SILENT, look
from config import PROJECT_ROOT, Config, DatabaseConfig
from engine.files import write_json
from flask_app import create_app, service_of
from serving.answers import Answer, Fallback
from serving.recommender import Recommender
from storage.connections import connect
from storage.named import as_statement
from storage.requests import add_request
from tests.api.fakes import LAN, fake_app, new_key
from tests.jobs.world import add_playlist, wait_until
from tests.serving.small import NO_RULES, small_recommender, small_run

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"
CONFIG = Config(service=NO_RULES, database=DatabaseConfig(connect_timeout_seconds=1))


@pytest.fixture
def new_client():
    apps = []

    def make(recommender=None, config=CONFIG, **arguments):
        apps.append(create_app(config, recommender=recommender or small_recommender(), **arguments))
        return apps[-1].test_client()

    yield make
    for app in apps:
        service_of(app).close()


def overview_of(client):
    response = client.get("/v1/overview")
    assert response.status_code == 200
    return response.json


# --- the database ------------------------------------------------------------------------------------------------------------


def test_what_the_database_tells(new_client, database_url, tmp_path):
    add_playlist(database_url, "p", ["s03"])
    with connect(database_url) as connection:
        add_request(connection, "p")
    recommender = Recommender.load(small_run(tmp_path / "run"), NO_RULES)
    data = {"sequences": 40, "rows": 300, "sequences_training": 36, "rows_training": 270}
    write_json(tmp_path / "run" / "origin.json", {"data": data})
    told = overview_of(new_client(recommender, database_url=database_url))
    assert (told["database"]["state"], told["database"]["detail"]) == ("reachable", None)
    assert told["database"]["server"].startswith("PostgreSQL ")
    assert [right["what"] for right in told["database"]["rights"]] == [
        "create nothing", "read songs and sequences", "see all rows", "take requests",
    ]  # fmt: skip
    assert told["rows"] == {
        "songs": 12, "new_songs": 0, "sequences": 36, "sequence_rows": 270, "requests_open": 1, "models": 0,
    }  # fmt: skip
    assert (told["queue"]["queued"], told["queue"]["running"]) == (1, 0)
    assert told["queue"]["oldest_seconds"] >= 0
    assert (told["model"]["model_id"], told["model"]["refused"]) == (recommender.info.model_id, None)
    assert (told["worker"], told["follower"]) == ("none", "none")


def test_of_a_run_that_did_not_count_training_apart_all_lists_are_told(new_client, tmp_path):
    recommender = Recommender.load(small_run(tmp_path / "run"), NO_RULES)
    write_json(tmp_path / "run" / "origin.json", {"data": {"sequences": 40, "rows": 300}})
    rows = overview_of(new_client(recommender))["rows"]
    assert (rows["sequences"], rows["sequence_rows"]) == (40, 300)


def rights_under(new_client, database_url, *statements):
    """What the overview says of the rights of the service's role, after the owner did something; by what, with the way out."""
    role = database_url.partition("//")[2].partition(":")[0]
    with connect(database_url) as owner:
        owner.execute(as_statement((PROJECT_ROOT / "storage" / "setup.sql").read_text(encoding="utf-8")))
        for statement in statements:
            owner.execute(statement)
        owner.execute(f"GRANT recommender_service TO {role}")
    service = service_of(new_client(database_url=database_url).application)

    class AsService:
        config = service.config

        def connection(self):
            return AsRole(service)

    return look(AsService())


class AsRole:
    """A connection of the service with the rights of its role alone."""

    def __init__(self, service):
        self._connection = service.connection()

    def __enter__(self):
        opened = self._connection.__enter__()
        opened.execute("SET LOCAL ROLE recommender_service")
        return opened

    def __exit__(self, *exc):
        return self._connection.__exit__(*exc)


def test_the_services_role_can_be_asked_all_of_it(new_client, database_url):
    looked = rights_under(new_client, database_url)
    assert [(right["what"], right["ok"], right["way_out"]) for right in looked.rights] == [
        ("create nothing", True, None),
        ("read songs and sequences", True, None),
        ("see all rows", True, None),
        ("take requests", True, None),
    ]
    assert (looked.failure, looked.server.role, looked.n_models, looked.depth.queued) == (None, "recommender_service", 0, 0)


def test_rights_that_are_missing_or_too_many_are_told_with_the_way_out(new_client, database_url):
    looked = rights_under(
        new_client,
        database_url,
        "GRANT CREATE ON SCHEMA music TO recommender_service",
        "REVOKE SELECT ON music.artist FROM recommender_service",
        "REVOKE SELECT ON recommender.request, recommender.model FROM recommender_service",
    )
    wrong = {right["what"]: right["detail"] for right in looked.rights if not right["ok"]}
    assert wrong == {
        "create nothing": "recommender_service may create tables in music",
        "read songs and sequences": "no right to read music.artist",
        "take requests": "this role may not read recommender.request",
    }
    assert all("setup.sql" in right["way_out"] for right in looked.rights if not right["ok"])
    assert (looked.failure, looked.n_models, looked.depth) == (None, None, None)


def test_query_files_that_cannot_be_read_are_told(new_client, database_url, tmp_path):
    config = Config(service=NO_RULES, database=DatabaseConfig(queries_folder=tmp_path))
    told = overview_of(new_client(config=config, database_url=database_url))
    wrong = {right["what"]: right["way_out"] for right in told["database"]["rights"] if not right["ok"]}
    assert wrong["read songs and sequences"] == "correct the query files; python cli.py doctor tells more"


def test_a_query_file_in_another_encoding_is_told(new_client, database_url, tmp_path):
    for path in DatabaseConfig().queries_folder.glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "songs.sql").write_bytes("-- Stücke\nSELECT 1".encode("latin-1"))
    config = Config(service=NO_RULES, database=DatabaseConfig(queries_folder=tmp_path))
    told = overview_of(new_client(config=config, database_url=database_url))
    [wrong] = [right for right in told["database"]["rights"] if right["what"] == "read songs and sequences"]
    assert (wrong["ok"], "songs.sql cannot be read" in wrong["detail"]) == (False, True)


def test_a_database_without_our_schema_is_told(new_client, empty_database_url):
    told = overview_of(new_client(database_url=empty_database_url))
    assert told["database"]["rights"][-1]["detail"] == "the schema recommender is not there"
    assert told["queue"] == {"queued": None, "running": None, "oldest_seconds": None}


def test_while_the_database_is_away_the_rest_is_told(new_client):
    client = new_client(database_url=NOWHERE)
    client.post("/v1/recommend", json={"songs": ["s00"]})
    told = overview_of(client)
    assert told["database"]["state"] == "unreachable"
    assert told["database"]["detail"].startswith("no connection to nobody@127.0.0.1:1/nothing")
    assert "secret" not in str(told)
    assert (told["rows"]["songs"], told["rows"]["requests_open"], told["fallback"]["answers"]) == (12, None, 1)


def test_a_silent_database_is_not_waited_for(new_client, monkeypatch):
    monkeypatch.setattr(overview, "PATIENCE_SECONDS", 0.05)
    may_answer, looks = threading.Event(), []
    monkeypatch.setattr(overview, "look", lambda service: (looks.append(1), may_answer.wait(10), look(service))[-1])
    client = new_client(database_url=NOWHERE)
    told = [overview_of(client)["database"] for _ in range(3)]
    assert {one["detail"] for one in told} == {SILENT}
    assert len(looks) == 1  # the others did not ask as well
    may_answer.set()
    wait_until(lambda: overview_of(client)["database"]["detail"] != SILENT)


def test_without_a_database_nothing_is_wrong(new_client):
    told = overview_of(new_client())
    assert (told["database"]["state"], told["database"]["rights"], told["rows"]["models"]) == ("not configured", [], None)


def test_without_a_model_there_is_an_overview(new_client):
    app = create_app(CONFIG)
    told = overview_of(app.test_client())
    assert told["model"] == {"model_id": None, "age_seconds": None, "refused": None}


# --- answers and errors ------------------------------------------------------------------------------------------------------


def test_answers_unknown_songs_and_fallbacks_are_counted(new_client):
    client = new_client()
    client.post("/v1/recommend", json={"songs": ["s00", "x"]})
    client.post("/v1/recommend", json={"songs": ["x"]})
    client.post("/v1/recommend", json={"songs": []})
    told = overview_of(client)
    assert told["unknown"] == {"sent": 3, "unknown": 2, "share": 2 / 3}
    assert told["fallback"] == {"answers": 2, "fallbacks": 1, "share": 0.5, "by_kind": {"popular": 1}}
    assert (told["latency"]["n"], len(told["latency"]["recent_ms"])) == (2, 2)
    assert told["latency"]["p50_ms"] <= told["latency"]["p99_ms"]


def test_errors_are_told_newest_first_each_once_with_the_way_out(new_client):
    client = new_client()
    for songs in ([], [7], []):
        client.post("/v1/recommend", json={"songs": songs})
    client.get("/v1/playlists")
    told = overview_of(client)["errors"]
    assert [(one["status"], one["route"], one["times"]) for one in told] == [
        (503, "GET /v1/playlists", 1),
        (422, "POST /v1/recommend", 2),
        (422, "POST /v1/recommend", 1),
    ]
    assert told[1]["detail"] == "the sequence is empty: send at least one song"
    assert told[1]["way_out"] == "correct the request: sent again it fails again"


def test_what_anybody_may_cause_without_a_key_is_not_noted():
    key, text = new_key()
    client = fake_app(LAN, keys=[key]).test_client()
    client.get("/v1/models")
    client.get("/v1/models", headers={"Authorization": "Bearer x"})
    opened = {"Authorization": f"Bearer {text}"}
    client.get("/no/such/address", headers=opened)
    client.delete("/v1/models", headers=opened)
    told = client.get("/v1/overview", headers=opened).json
    assert told["errors"] == []


def test_no_key_stands_in_an_error():
    key, text = new_key()
    client = fake_app(LAN, keys=[key]).test_client()
    client.post("/v1/recommend", json={"songs": ["s00"], text: 1}, headers={"Authorization": f"Bearer {text}"})
    told = client.get("/v1/overview", headers={"Authorization": f"Bearer {text}"}).text
    assert "b4mr_..." in told
    assert text not in told


def test_what_was_sent_is_not_shown_to_whoever_looks_at_errors(new_client):
    client = new_client()
    for name in ("Anna (home)", "Berta"):
        told = client.post("/v1/recommend", json={"songs": ["s00"], "count": name}).json["detail"]
        assert name in told  # whoever sent it may read it
    [error] = overview_of(client)["errors"]
    assert (error["detail"], error["times"]) == ("count: Input should be a valid integer", 2)


def test_what_is_noted_has_bounds(new_client):
    client = new_client()
    for number in range(MOST_ERRORS + 5):
        client.post("/v1/recommend", json={"songs": [number]})
    details = [one["detail"] for one in overview_of(client)["errors"]]
    assert (len(details), details[0]) == (MOST_ERRORS, 'song ids are text here: send "24"')
    noted = Noted()
    for _ in range(RECENT_TIMES + 5):
        with noted.timed():
            pass
    assert (noted.as_json()["latency"]["n"], len(noted.as_json()["latency"]["recent_ms"])) == (RECENT_TIMES + 5, RECENT_TIMES)


def test_counts_of_many_threads_add_up():
    noted = Noted()
    answer = Answer(songs=(), unknown=("x",), model=None, fallback=Fallback.POPULAR, n_sent=2)
    threads = [threading.Thread(target=lambda: [noted.answered(answer) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert noted.as_json()["unknown"] == {"sent": 8_000, "unknown": 4_000, "share": 0.5}


# --- looks beside the requests -----------------------------------------------------------------------------------------------


def test_what_was_found_is_kept_for_a_while():
    now, found = [0.0], iter(range(9))
    looks = Looks(lambda: next(found), keep_seconds=2, patience_seconds=10, clock=lambda: now[0])
    assert [looks.latest(), looks.latest()] == [0, 0]
    now[0] = 2.5
    assert looks.latest() == 1


def test_a_look_that_fails_is_logged_and_the_next_one_finds_again(caplog):
    answers = [ZeroDivisionError("nobody thought of it"), 7]

    def ask():
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    looks = Looks(ask, keep_seconds=2, patience_seconds=10)
    assert [looks.latest(), looks.latest()] == [None, 7]
    assert "a look beside the requests has failed" in caplog.text
