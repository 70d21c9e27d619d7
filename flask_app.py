"""The HTTP service: `create_app(config)` for any WSGI server, `python flask_app.py` for waitress on port 4517.

    POST /v1/recommend              {"songs": [...]}       200 with ranked songs, answered by the model in this process
                                    {"playlist_id": ...}   202; the worker reads the playlist and stores the songs in the database
    POST /v1/recommend/batch        several sequences at once
    GET  /v1/requests/N             what became of a playlist's request, with its songs once it is done
    GET  /v1/songs?q=...            search;  /v1/songs/ID/similar  the songs most like one
    POST /v1/songs/lookup           songs by their ids;  GET /v1/playlists, /v1/playlists/ID  playlists and their songs
    POST /v1/feedback               played, skipped, liked, never again
    GET  /v1/models                 POST /v1/models/ID/activate, /v1/models/rollback;  GET /v1/models/ID/card  how it was trained
    GET  /v1/map                    the songs laid out by what is alike;  POST /v1/map/places  where some lie
    GET  /v1/figures/popularity     what is recommended beside what is played;  GET /v1/overview  the health of the service
    GET  /healthz, /readyz, /metrics, /openapi

The routes are in `api`; here they become an app, and the app a process.  Nothing happens at import.
"""

import argparse
import errno
import json
import logging
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from typing import Any

import torch
import waitress
from flask import Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.openapi import OpenAPI

from api.access import secure
from api.description import add_routes, new_openapi
from api.observing import NamesRequests, begin
from api.problems import handle_errors, problem
from api.service import EXTENSION, Service
from api.service import service_of as service_of
from config import Config, ServiceConfig
from errors import ConfigError, exit_code_of
from jobs.desk import RequestDesk
from jobs.logs import write_json_lines
from jobs.process import following, log_to_stderr
from jobs.worker import Worker
from options import add_arguments
from serving.choice import serving_config
from serving.follower import Follower
from serving.reasons import plain_id
from serving.recommender import Recommender
from storage.connections import connect, database_url
from storage.migrate import migrate
from system import cores, pin, share_memory_among_threads, take_short_turns

# Above this waitress cuts a body off while it arrives, with a plain text; below it the limit of the settings answers in JSON.
MOST_BUFFERED_BYTES = 64 * 1_048_576


# --- the app -----------------------------------------------------------------------------------------------------------------


def create_app(
    config: Config,
    *,
    recommender: Recommender | None = None,
    database_url: str | None = None,
    stopping: threading.Event | None = None,
) -> OpenAPI:
    """The service as a WSGI application; `service_of(app).close()` when it is over.

    `recommender` None answers 503 until `service_of(app).live.swap(...)`; `database_url` None serves sequences only.  Neither
    the model nor the database is needed to create the app, and a database that is away is tried again with each request.
    Setting `stopping` lets requests that wait for their songs return without them.

    Requests need an API key where `config.service.host` is no loopback address; a server that listens elsewhere than there
    wants require_key = "always".
    """
    app = new_openapi(__name__)
    app.json = _JSON(app)
    app.config["MAX_CONTENT_LENGTH"] = config.service.max_body_bytes
    stopping = stopping or threading.Event()
    desk = None if database_url is None else RequestDesk(database_url, config=config, stopping=stopping)
    service = Service(config=config, desk=desk, stopping=stopping)
    if recommender is not None:
        service.live.swap(recommender)
    app.extensions[EXTENSION] = service

    @app.before_request
    def before() -> Response | None:
        begin()
        service.access.admit()
        return _read_body()

    @app.after_request
    def after(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        secure(response)
        service.metrics.finish(response)
        service.noted.finished(response)
        return response

    handle_errors(app)
    add_routes(app, config.service, needs_key=service.access.needs_key)
    return app


class _JSON(DefaultJSONProvider):
    """JSON whose every fault is a ValueError, which Flask turns into 400."""

    sort_keys = False  # an answer reads in the order in which it is written

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse a body."""
        try:
            return super().loads(s, **kwargs)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def _read_body() -> Response | None:
    """Read the body, so that a missing content type is 415 and broken JSON 400 wherever a body is expected."""
    if request.method == "POST" and request.routing_exception is None and not isinstance(request.get_json(), dict):
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, 'the body must be a JSON object such as {"songs": [17, 4]}')
    return None


# --- the process -------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; raises the family of errors.py for what keeps it from starting."""
    log_to_stderr()
    config = serving_config(_parser().parse_args(argv))
    log_as(config.service.log_format)
    if config.service.pin:
        pin(cores()[-1])
    stopping = threading.Event()
    with _stopped_by_signals(stopping), running_app(config, stopping) as app, listening(app) as server:
        _announce(service_of(app), server)
        server.run()
    return 0


@contextmanager
def running_app(config: Config, stopping: threading.Event | None = None) -> Iterator[OpenAPI]:
    """The app with its model and database and the threads beside it, for any server; all of it ends with the with statement.

    Raises the family of errors.py for what keeps it from starting.
    """
    share_memory_among_threads()
    take_short_turns()
    torch.set_num_threads(config.service.torch_threads)
    with database_url(config.database) as url:
        if config.database.is_embedded:
            with connect(url) as connection:  # our own server, so nobody else would bring its schema up to date
                migrate(connection)
        app = create_app(config, database_url=url, stopping=stopping)
        service = service_of(app)
        service.follower = Follower(service.live, config, url)
        with closing(service):
            service.follower.start()
            with following(service.follower, service.stopping) as service.follower_thread, working(app, url):
                yield app


def log_as(log_format: str) -> None:
    """The form of the settings for all log lines, each with the id of the request that it belongs to."""
    if log_format == "json":
        write_json_lines()
    for handler in logging.getLogger().handlers:
        handler.addFilter(NamesRequests())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve recommendations over HTTP and answer the request table.")
    add_arguments(parser, "service", "training", "preprocessing", "database")
    return parser


@contextmanager
def _stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Until SIGTERM or SIGINT, which set `stopping` and leave whatever stands within, cleaning up on the way."""

    def stop(signal_number: int, frame: object) -> None:
        if not stopping.is_set():  # a second signal must not interrupt the cleaning up
            stopping.set()
            raise KeyboardInterrupt  # waitress lets running requests finish and returns from its loop

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def listening(app: OpenAPI) -> Iterator[Any]:
    """A waitress server on the address of the settings."""
    with closing(_listen(app, service_of(app).config.service)) as server:
        yield server


def _listen(app: OpenAPI, settings: ServiceConfig) -> Any:
    # The socket is ours: waitress leaves threads and files behind when it cannot bind one.
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as exc:
        raise _cannot_listen(settings.host, settings.port, exc) from exc
    most_bytes = max(MOST_BUFFERED_BYTES, 2 * settings.max_body_bytes)
    return waitress.create_server(
        app, sockets=[listening], threads=settings.server_threads, max_request_body_size=most_bytes, ident="bert4musicrec"
    )


def _cannot_listen(host: str, port: int, exc: OSError) -> ConfigError:
    if exc.errno == errno.EADDRINUSE:
        return ConfigError(f"port {port} on {host} is in use: stop what listens there, or choose another with --port")
    return ConfigError(f"cannot listen on {host} port {port} ({exc.strerror}): choose others with --host and --port")


@contextmanager
def working(app: OpenAPI, url: str) -> Iterator[None]:
    """A worker on the request table beside the server, unless the settings say no."""
    service = service_of(app)
    if not service.config.service.worker:
        yield
        return
    worker = Worker(url, live=service.live, config=service.config)
    service.worker = worker
    service.worker_thread = threading.Thread(target=worker.run, args=[service.stopping], name="worker")
    service.worker_thread.start()
    try:
        yield
    finally:
        service.stopping.set()
        worker.nudge()
        service.worker_thread.join()


def _announce(service: Service, server: Any) -> None:
    """The one line that a person who starts the service looks for."""
    host, port = server.effective_host, server.effective_port
    address = f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"
    body = shlex.quote(json.dumps({"songs": [plain_id(song_id) for song_id in service.recommender().example_songs(2)]}))
    key = ' -H "Authorization: Bearer $KEY"' if service.access.needs_key else ""
    call = f"curl -s {address}/v1/recommend{key} -H 'Content-Type: application/json' -d {body}"
    print(f"serving on {address}, open it in a browser or try: {call}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
