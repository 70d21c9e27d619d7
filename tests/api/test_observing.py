"""Request ids, log lines and metrics."""

import json
import logging
import re

import pytest

from api.observing import NamesRequests
from config import Config, ServiceConfig
from flask_app import create_app, service_of
from jobs.logs import JSONLines
from tests.api.fakes import LAN, FakeLive, fake_app, new_key
from tests.jobs.world import add_playlist, ask, work_once
from tests.serving.small import small_recommender


def metrics_of(client, **arguments):
    """{name with labels: value} of all samples but the times, which differ from run to run."""
    lines = client.get("/metrics", **arguments).text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples.items() if not re.search(r"_created|_sum|_bucket|seconds", name)}


# --- ids ---------------------------------------------------------------------------------------------------------------------


def test_a_plain_id_of_the_caller_is_kept_in_answer_problem_and_log(caplog):
    caplog.set_level("INFO", logger="api.observing")
    response = fake_app().test_client().post("/v1/recommend", json={}, headers={"X-Request-ID": "Trace-1.2_3"})
    assert response.headers["X-Request-ID"] == response.json["instance"] == caplog.records[-1].fields["request"] == "Trace-1.2_3"


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 65, "a\tb", "é", "b4mr_0123456789ab_00"])
def test_any_other_id_is_replaced(sent):
    headers = {} if sent is None else {"X-Request-ID": sent}
    answered = fake_app().test_client().get("/healthz", headers=headers).headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{16}", answered)


# --- logs --------------------------------------------------------------------------------------------------------------------


def lines_of(caplog):
    """What a handler with JSON lines writes for what was logged."""
    return [json.loads(JSONLines().format(record)) for record in caplog.records if record.name == "api.observing"]


def test_a_line_of_json_tells_of_a_request(caplog):
    caplog.set_level("INFO")
    key, text = new_key()
    headers = {"Authorization": f"Bearer {text}", "X-Request-ID": "r1"}
    fake_app(LAN, keys=[key]).test_client().get("/v1/songs/s99/similar", headers=headers)
    [line] = lines_of(caplog)
    assert line.pop("milliseconds") >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", line.pop("time"))
    assert line == {
        "level": "WARNING",
        "logger": "api.observing",
        "message": "no song 's99' in the catalogue",
        "method": "GET",
        "route": "/v1/songs/{song_id}/similar",
        "path": "/v1/songs/s99/similar",
        "status": 404,
        "key_id": "0123456789ab",
        "request": "r1",
    }


@pytest.mark.parametrize("path", ["/a%0Ab", "/v1/songs/%0A%1b[31m/similar", "/" + "x" * 5000])
def test_an_address_forges_no_line(caplog, path):
    caplog.set_level("INFO")
    fake_app().test_client().get(path)
    [record] = [record for record in caplog.records if record.name == "api.observing"]
    shown = f"{record.getMessage()} {record.fields['path']}"
    assert shown.isprintable()
    assert len(shown) < 400


def test_probes_are_seen_when_debugging_only(caplog):
    caplog.set_level("INFO")
    client = fake_app().test_client()
    client.get("/healthz")
    client.get("/metrics")
    assert lines_of(caplog) == []


def test_what_is_logged_meanwhile_names_the_request():
    record = logging.makeLogRecord({"msg": "within"})
    with fake_app().test_request_context("/healthz", headers={"X-Request-ID": "r1"}) as context:
        context.app.preprocess_request()
        assert NamesRequests().filter(record)
    assert record.fields == {"request": "r1"}
    outside = logging.makeLogRecord({"msg": "outside"})
    assert NamesRequests().filter(outside)
    assert not hasattr(outside, "fields")


# --- metrics -----------------------------------------------------------------------------------------------------------------


def test_answers_are_counted_by_route_status_fallback_and_songs():
    app = create_app(Config(), recommender=small_recommender(config=ServiceConfig(index="fp32")))
    client = app.test_client()
    client.post("/v1/recommend", json={"songs": ["s00", "x"]})
    client.post("/v1/recommend", json={"songs": ["x", "y"]})
    client.post("/v1/recommend/batch", json={"sequences": [["s00"], []]})
    client.get("/v1/songs/s00/similar")
    client.get("/v1/songs/s99/similar")
    client.get("/no/such/address")
    name = "bert4musicrec_request_seconds_count"
    lines = client.get("/metrics").text.splitlines()
    counted = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)}
    assert counted == {
        f'{name}{{route="/v1/recommend",status="200"}}': 2,
        f'{name}{{route="/v1/recommend/batch",status="200"}}': 1,
        f'{name}{{route="/v1/songs/{{song_id}}/similar",status="200"}}': 1,
        f'{name}{{route="/v1/songs/{{song_id}}/similar",status="404"}}': 1,
        f'{name}{{route="none",status="404"}}': 1,
    }
    assert 'bert4musicrec_stage_seconds_count{stage="score"} 3.0' in lines
    assert metrics_of(client) == {
        'bert4musicrec_answers_total{fallback="none"}': 2,
        'bert4musicrec_answers_total{fallback="popular"}': 1,
        "bert4musicrec_songs_sent_total": 5,
        "bert4musicrec_songs_unknown_total": 3,
        "bert4musicrec_rate_limited_total": 0,
        "bert4musicrec_batch_size_count": 3,
        "bert4musicrec_new_songs": 0,
        'bert4musicrec_index_info{kind="fp32"}': 1,
        'bert4musicrec_model_info{model_id="run/epoch-001/0123456789ab",trained_at="2026-01-02T03:04:05+00:00",'
        'version="0123456789ab"}': 1,
        'bert4musicrec_worker_state{state="none"}': 1,
        'bert4musicrec_worker_state{state="running"}': 0,
        'bert4musicrec_worker_state{state="reconnecting"}': 0,
        'bert4musicrec_worker_state{state="ended"}': 0,
    }


def test_answers_of_the_queue_are_counted_like_those_of_http(database_url):
    add_playlist(database_url, "p", ["s00", "x", "x", "y"])
    ask(database_url, "p")
    app = create_app(Config(), recommender=small_recommender())
    work_once(database_url, service_of(app).live)
    found = metrics_of(app.test_client())
    assert {name: value for name, value in found.items() if re.search("answers|songs_|batch", name)} == {
        'bert4musicrec_answers_total{fallback="none"}': 1,
        "bert4musicrec_songs_sent_total": 3,
        "bert4musicrec_songs_unknown_total": 2,
        "bert4musicrec_batch_size_count": 1,
    }
    page = app.test_client().get("/metrics").text
    assert [page.count(f'stage_seconds_count{{stage="{stage}"}} 1.0') for stage in ("score", "rules", "reasons")] == [1, 1, 1]


def test_two_apps_count_apart():
    first, second = (create_app(Config(), recommender=small_recommender()).test_client() for _ in range(2))
    first.post("/v1/recommend", json={"songs": ["s00"]})
    assert 'bert4musicrec_answers_total{fallback="none"}' in metrics_of(first)
    assert 'bert4musicrec_answers_total{fallback="none"}' not in metrics_of(second)


def test_the_queue_is_counted_where_there_is_a_database(database_url, connection):
    connection.execute("SELECT recommender.request('p1')")
    connection.commit()
    app = fake_app(database_url=database_url)
    found = metrics_of(app.test_client())
    service_of(app).close()
    assert found['bert4musicrec_queue_requests{state="queued"}'] == 1
    assert found['bert4musicrec_queue_requests{state="running"}'] == 0


def test_metrics_answer_without_a_model():
    live = FakeLive()
    live.recommender = None
    found = metrics_of(fake_app(live=live).test_client())
    assert not [name for name in found if name.startswith("bert4musicrec_model")]
