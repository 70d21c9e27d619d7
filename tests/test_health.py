"""What health.py says of services that answer, refuse, lead elsewhere or are not there, and of workers."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import health
from config import DatabaseConfig
from settings import API_KEY_VARIABLE, load_config
from storage.connections import connect
from tests.jobs.world import new_worker, running, wait_until
from tests.serving.small import small_recommender

KEY = "b4mr_1_secret"


@contextmanager
def service_that_answers(status):
    """The address of a service that always answers so, and the list of what it was asked with."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            self.wfile.write(b'{"database": "unreachable"}\n')

        def log_message(self, *arguments):
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500, 503])
def test_whatever_answers_http_is_alive(capsys, status):
    with service_that_answers(status) as (url, asked):
        assert health.main(["--url", url]) == 0
    assert asked == [("/healthz", None)]
    assert capsys.readouterr().out == f"alive: {url}/healthz answers {status}\n"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (200, 0, "ready: {url}/readyz answers 200\n"),
        (302, 1, 'unhealthy: {url}/readyz answers 302 {{"database": "unreachable"}}\n'),
        (401, 1, 'unhealthy: {url}/readyz answers 401: set BERT4MUSICREC_API_KEY to a key {{"database": "unreachable"}}\n'),
        (503, 1, 'unhealthy: {url}/readyz answers 503 {{"database": "unreachable"}}\n'),
    ],
)
def test_ready_is_only_what_answers_200(capsys, status, code, told):
    with service_that_answers(status) as (url, _):
        assert health.main(["--url", url, "--ready"]) == code
    said = capsys.readouterr()
    assert said.out + said.err == told.format(url=url)


def test_the_key_of_the_environment_is_sent_and_not_told(capsys, monkeypatch):
    monkeypatch.setenv(API_KEY_VARIABLE, f"{KEY}\n")
    with service_that_answers(401) as (url, asked):
        assert health.main(["--url", url, "--ready"]) == 1
    assert asked == [("/readyz", f"Bearer {KEY}")]
    assert KEY not in "".join(capsys.readouterr())


def test_a_key_that_no_header_may_hold_is_not_repeated(capsys, monkeypatch):
    monkeypatch.setenv(API_KEY_VARIABLE, "secret\nof two lines")
    assert health.main(["--url", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == "unhealthy: BERT4MUSICREC_API_KEY holds signs that no key has\n"


def test_the_key_is_no_setting():
    assert load_config(environ={API_KEY_VARIABLE: KEY}) == load_config(environ={})


def test_nobody_there_is_unhealthy(capsys):
    assert health.main(["--url", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("unhealthy: no answer from http://127.0.0.1:1/healthz: ")


@pytest.mark.parametrize("url", ["127.0.0.1:4517", "ftp://127.0.0.1", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_unhealthy(capsys, url):
    assert health.main(["--url", url]) == 1
    assert capsys.readouterr().err == f"unhealthy: url must be like http://127.0.0.1:4517 (got {url!r})\n"


def test_settings_that_mean_nothing_are_unhealthy(capsys, monkeypatch):
    monkeypatch.setenv("BERT4MUSICREC_PORT", "-1")
    assert health.main([]) == 1
    assert capsys.readouterr().err == "unhealthy: port must be between 0 and 65535 (got -1)\n"


def test_the_address_of_the_settings_is_asked_when_none_is_named(capsys, monkeypatch):
    monkeypatch.setenv("BERT4MUSICREC_HOST", "0.0.0.0")
    with service_that_answers(200) as (url, _):
        monkeypatch.setenv("BERT4MUSICREC_PORT", url.rpartition(":")[2])
        assert health.main(["--ready"]) == 0
    assert capsys.readouterr().out == f"ready: {url}/readyz answers 200\n"


def test_a_worker_is_well_while_it_holds_its_connection(capsys, monkeypatch, database_url):
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert health.main(["--worker"]) == 1
    worker = new_worker(database_url, small_recommender())
    with running(worker):
        wait_until(lambda: worker.is_connected)
        assert health.main(["--worker"]) == 0
    wait_until(lambda: health.main(["--worker"]) == 1)  # the server may take a moment to notice
    told = capsys.readouterr()
    assert told.out.startswith("a worker of this machine is connected to ")
    assert told.err.startswith("unhealthy: no worker of this machine is connected to ")


def test_sessions_of_other_programs_and_databases_are_no_worker(monkeypatch, database_url, empty_database_url):
    monkeypatch.setenv("DATABASE_URL", database_url)
    with connect(database_url) as other_program, connect(empty_database_url):
        other_program.execute("SET application_name = 'psql'")
        other_program.commit()
        assert health.main(["--worker"]) == 1


def test_without_a_server_there_is_no_worker_to_ask_for(capsys, monkeypatch):
    for name in (
        "DATABASE_URL",
        "POSTGRES_HOST",
        "POSTGRES_DB",
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGSERVICE",
    ):
        monkeypatch.delenv(name, raising=False)
    assert load_config().database == DatabaseConfig()
    assert health.main(["--worker"]) == 1
    assert capsys.readouterr().err == "unhealthy: no database is named: set DATABASE_URL as the worker has it\n"


def test_a_database_that_is_away_is_unhealthy(capsys, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/music")
    assert health.main(["--worker"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("unhealthy: no connection to me@127.0.0.1:1/music")
    assert "secret" not in told
