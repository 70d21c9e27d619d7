"""The HTTP service: `create_app(config)` for any WSGI server, `python flask_app.py` for waitress on port 4517.

    POST /recommend        {"songs": [...]}         200 with ranked songs, answered by the model in this process
                           {"playlist_id": ...}     202; the worker reads the playlist and stores the songs in the database
    GET  /requests/<id>    what became of such a request, with its songs once it is done
    GET  /healthz          the process is alive
    GET  /readyz           the model is loaded and the database can be reached
    GET  /openapi/openapi.json

Nothing happens at import.  Every error leaves through `problem` as application/problem+json (RFC 9457).
"""

import argparse
import errno
import json
import logging
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import torch
import waitress
from flask import Flask, Response, current_app, g, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from werkzeug.exceptions import HTTPException

from config import Config, ServiceConfig, add_arguments
from errors import ConfigError, DatabaseError, InvalidSequence, QueueFull, RequestError, ServiceUnavailable, exit_code_of
from jobs.desk import Handled, RequestDesk
from jobs.process import log_to_stderr
from jobs.worker import Worker
from serving.choice import serving_config
from serving.live import LiveRecommender
from serving.reasons import plain_id
from serving.recommender import Query, Recommender, checked_count
from storage.connections import connect, database_url
from storage.migrate import migrate
from storage.requests import State

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5  # sent with 503: about as long as a database takes to come back
# Above this waitress cuts a body off while it arrives, with a plain text; below it the limit of the settings answers in JSON.
MOST_BUFFERED_BYTES = 64 * 1_048_576
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LONGEST_ECHO = 60  # signs of a refused value that its error message repeats

EXTENSION = "bert4musicrec"


# --- bodies ------------------------------------------------------------------------------------------------------------------


def _an_id(value: Any) -> Any:
    """One message for what would otherwise be told twice, once per type."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("an id is an integer or a text")  # noqa: TRY004  (pydantic turns a ValueError into its own error)
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise ValueError("an id is a text that PostgreSQL can hold, without NUL and surrogates")
    return value


Id = Annotated[int | str, BeforeValidator(_an_id)]


class RecommendBody(BaseModel):
    """What to continue: a sequence of songs, or a playlist of the database."""

    model_config = ConfigDict(strict=True, extra="forbid")

    songs: list[Id] | None = Field(None, description="song ids as the database has them, oldest first")
    playlist_id: Id | None = Field(None, description="a playlist of the database, instead of songs")
    count: int | None = Field(None, description="how many songs to recommend")
    exclude: list[Id] = Field([], description="songs that must not be recommended")
    explain: bool = Field(False, description="also name the songs that each recommendation is because of")
    wait: bool = Field(False, description="with playlist_id: stay until the songs are there")

    @model_validator(mode="after")
    def _one_thing_to_continue(self) -> "RecommendBody":
        if (self.songs is None) == (self.playlist_id is None):
            raise ValueError('send either "songs" or "playlist_id"')
        return self


class RecommendHeaders(BaseModel):
    """What may be said of a request beside its body."""

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="with playlist_id: the same key and body again, after a broken connection, are not another request",
    )


class RequestPath(BaseModel):
    """The number that POST /recommend answered with."""

    request_id: int


class ReasonBody(BaseModel):
    """Why a song is recommended; `text` says it in words."""

    kind: str
    text: str
    song_id: int | str | None = None
    weight: float | None = None
    features: list[str] = []


class SongBody(BaseModel):
    """A recommended song."""

    song_id: int | str
    rank: int
    score: float
    reasons: list[ReasonBody]


class ModelBody(BaseModel):
    """The model behind an answer."""

    model_id: str
    trained_at: str


class AnswerBody(BaseModel):
    """Ranked songs; `unknown` are ids of the sequence that the model does not know."""

    songs: list[SongBody]
    unknown: list[int | str]
    model: ModelBody


class RequestBody(BaseModel):
    """An accepted request: accepted, running, done or failed; songs once it is done, error once it failed."""

    request_id: int
    playlist_id: int | str
    status: str
    songs: list[SongBody] | None = None
    error: str | None = None
    model_id: str | None = None


class HealthBody(BaseModel):
    """The process answers."""

    status: str


class ReadinessBody(BaseModel):
    """What the service needs in order to answer."""

    model: str
    model_id: str | None
    database: str
    worker: str


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


# --- what the app holds ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Service:
    """The resources of one app; `close` gives them back."""

    config: Config
    live: LiveRecommender
    desk: RequestDesk | None  # None: no database is configured
    worker: Worker | None = None  # these two are set by whoever starts one beside the app
    worker_thread: threading.Thread | None = None
    stopping: threading.Event

    def open_desk(self) -> RequestDesk:
        """The way to the request table; raises ServiceUnavailable when there is no database."""
        if self.desk is None:
            raise ServiceUnavailable('no database is configured: send "songs", or start the service with DATABASE_URL')
        return self.desk

    def worker_state(self) -> str:
        """The worker in one word: none, running, reconnecting (it has no database at the moment) or ended."""
        if self.worker is None or self.worker_thread is None:
            return "none"
        if not self.worker_thread.is_alive():
            return "ended"
        return "running" if self.worker.is_connected else "reconnecting"

    def close(self) -> None:
        """End waiting requests and close the connections."""
        self.stopping.set()
        if self.desk is not None:
            self.desk.close()


def service_of(app: Flask) -> Service:
    """The resources that `create_app` attached to an app."""
    service: Service = app.extensions[EXTENSION]
    return service


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
    """
    app = OpenAPI(
        __name__,
        info=Info(title="BERT4MusicRec", version="1", description="Continues playlists that live in PostgreSQL."),
        security_schemes={},
        validation_error_model=ProblemBody,
        validation_error_callback=_invalid_body,
    )
    app.json = _JSON(app)
    app.config["MAX_CONTENT_LENGTH"] = config.service.max_body_bytes
    stopping = stopping or threading.Event()
    desk = None if database_url is None else RequestDesk(database_url, config=config, stopping=stopping)
    app.extensions[EXTENSION] = Service(config=config, live=LiveRecommender(recommender), desk=desk, stopping=stopping)
    app.before_request(_begin)
    app.after_request(_log_outcome)
    for kind, handler in ((RequestError, _request_error), (DatabaseError, _database_error), (HTTPException, _http_error)):
        app.register_error_handler(kind, handler)
    app.register_api(api)
    return app


EXAMPLE_BODY = '{"songs": ["id of a song", "id of the next"]}'


# --- routes ------------------------------------------------------------------------------------------------------------------


def _problems(*statuses: int) -> dict[str | int, Any]:
    """The OpenAPI description of error answers."""
    schema = ProblemBody.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": {"schema": schema}}}
        for status in statuses
    }


api = APIBlueprint("api", __name__, abp_tags=[Tag(name="recommendations")])


@api.post(
    "/recommend",
    summary="Continue a sequence of songs, or a playlist of the database",
    responses={200: AnswerBody, 202: RequestBody, **_problems(400, 404, 413, 415, 422, 429, 503)},
)
def recommend(header: RecommendHeaders, body: RecommendBody) -> tuple[Response, int]:
    """Answer a sequence at once, accept a playlist.

    200 {"songs": [{"song_id": 17, "rank": 1, "score": 4.2, "reasons": [...]}], "unknown": [], "model": {...}} for songs.
    202 {"playlist_id": 7, "status": "accepted", "request_id": 12} for a playlist_id; with "wait": true 200 and its songs, or
    still 202 after wait_seconds.  With an Idempotency-Key the same body again gets the same request_id.  400 no JSON; 404 no
    such playlist; 413 and 415 body; 422 what cannot be continued, or a key that was sent with another body; 429 the queue is
    full, come back after Retry-After; 503 no model or no database.
    """
    service = service_of(current_app)
    count = checked_count(body.count, service.config.service)
    if body.songs is not None:
        query = Query(songs=body.songs, count=count, exclude=body.exclude, explain=body.explain)
        return jsonify(service.live.recommend(query).as_json()), HTTPStatus.OK
    assert body.playlist_id is not None
    desk = service.open_desk()
    # What was not asked for stays out, so that a plain question joins a plain one from SQL.
    options = {name: value for name, value in body.model_dump(include={"count", "exclude", "explain"}).items() if value}
    request_id = desk.accept(str(body.playlist_id), options, idempotency_key=header.idempotency_key)
    if service.worker is not None:
        service.worker.nudge()
    accepted = {"playlist_id": body.playlist_id, "status": "accepted", "request_id": request_id}
    if not body.wait:
        return jsonify(accepted), HTTPStatus.ACCEPTED
    handled = desk.wait(request_id, service.config.service.wait_seconds)
    if handled is None:
        return jsonify(accepted), HTTPStatus.ACCEPTED
    if handled.status.state is State.FAILED:
        raise InvalidSequence(f"request {request_id} failed: {handled.status.error}")
    return jsonify(_request_json(service, handled) | {"playlist_id": body.playlist_id}), HTTPStatus.OK


@api.get(
    "/requests/<int:request_id>",
    summary="What became of an accepted request",
    responses={200: RequestBody, **_problems(404, 503)},
)
def get_request(path: RequestPath) -> Response:
    """Answer {"request_id": 12, "playlist_id": "7", "status": "done", "songs": [...], "model_id": ...}.

    `status` is accepted, running, done or failed; a failed request has its `error`.  404 no such request; 503 no database.
    """
    service = service_of(current_app)
    return jsonify(_request_json(service, service.open_desk().look_up(path.request_id)))


def _request_json(service: Service, handled: Handled) -> dict[str, Any]:
    """A request as RequestBody describes it; song ids in the type that the model's catalogue has, where one is loaded."""
    status, recommender = handled.status, service.live.recommender
    plain: dict[str, Any] = {
        "request_id": status.request_id,
        "playlist_id": status.playlist_id,
        "status": "accepted" if status.state is State.QUEUED else status.state.value,
    }
    if status.state is State.FAILED:
        plain["error"] = status.error
    if status.state is State.DONE:
        plain["songs"] = [
            {
                "song_id": recommender.plain_id_from(song.song_id) if recommender else song.song_id,
                "rank": song.rank,
                "score": song.score,
                "reasons": song.reasons,
            }
            for song in handled.songs
        ]
        plain["model_id"] = handled.songs[0].model_id if handled.songs else None
    return plain


@api.get("/healthz", summary="Whether the process is alive", responses={200: HealthBody})
def healthz() -> Response:
    """Answer {"status": "alive"}, whatever the state of model and database."""
    return jsonify(status="alive")


@api.get("/readyz", summary="Whether requests can be answered", responses={200: ReadinessBody, 503: ReadinessBody})
def readyz() -> tuple[Response, int]:
    """Answer {"model": "loaded", "model_id": ..., "database": "reachable", "worker": "running"}.

    503 when no model is loaded, a configured database cannot be reached, or the worker has lost it ("reconnecting") or ended.  A
    service without a database ("not configured") or without a worker of its own ("none") is ready for what it does.
    """
    service = service_of(current_app)
    recommender = service.live.recommender
    database = "not configured" if service.desk is None else "reachable" if service.desk.is_reachable() else "unreachable"
    worker = service.worker_state()
    is_ready = recommender is not None and database != "unreachable" and worker in ("none", "running")
    state = {
        "model": "loaded" if recommender else "missing",
        "model_id": recommender.info.model_id if recommender else None,
        "database": database,
        "worker": worker,
    }
    return jsonify(state), HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE


# --- errors ------------------------------------------------------------------------------------------------------------------


def problem(status: int, detail: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """The one way out for errors: {"type", "title", "status", "detail"} as application/problem+json."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    response = current_app.response_class(current_app.json.dumps(body), status, mimetype="application/problem+json")
    response.headers.extend(headers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    g.detail = detail
    return response


def _request_error(exc: RequestError) -> Response:
    return problem(exc.status, str(exc), [("Retry-After", str(exc.retry_after_seconds))] if isinstance(exc, QueueFull) else [])


def _database_error(exc: DatabaseError) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(exc))


def _http_error(exc: HTTPException) -> Response:
    """Whatever Flask itself refuses: unknown address, wrong method, too large, no JSON, and our own mistakes (500)."""
    detail = _explanation(exc)
    headers = [(name, value) for name, value in exc.get_headers() if name not in ("Content-Type", "Content-Length")]
    return problem(exc.code or HTTPStatus.INTERNAL_SERVER_ERROR, detail, headers)


def _explanation(exc: HTTPException) -> str:
    """What was wrong and the way out, in one line."""
    match exc.code:
        case HTTPStatus.BAD_REQUEST:
            return f"the body is not JSON ({_json_fault()}): send one object, as in {EXAMPLE_BODY}"
        case HTTPStatus.NOT_FOUND:
            return f"there is nothing at {request.path}: try POST /recommend, GET /requests/NUMBER, or /openapi for all paths"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(getattr(exc, "valid_methods", None) or ["another method"])
            return f"{request.path} does not take {request.method}: use {methods}"
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            sent = request.content_type or "not set"
            return f"the Content-Type is {sent}: send application/json (curl: -H 'Content-Type: application/json')"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return f"the body is over max_body_bytes ({current_app.config['MAX_CONTENT_LENGTH']}): send the newest songs only"
        case _:
            return exc.description or ""


def _json_fault() -> str:
    """Where the body stops being JSON, in a few words."""
    try:
        json.loads(request.get_data(cache=True))
    except (ValueError, RecursionError) as exc:
        return str(exc)
    except HTTPException:  # the body could not be read to its end
        return "it ends too early"
    return "it cannot be read"


def _invalid_body(exc: ValidationError) -> Response:
    """The first thing that is wrong with a body; the whole list would repeat it for every song."""
    first = exc.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        detail = f"unknown field {place!r}: known are {', '.join(RecommendBody.model_fields)}"
    elif not place:
        detail = first["msg"].removeprefix("Value error, ")
    else:
        detail = f"{place}: {first['msg'].removeprefix('Value error, ')} (got {_echo(first['input'])})"
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _echo(value: Any) -> str:
    text = current_app.json.dumps(value)
    return text if len(text) <= LONGEST_ECHO else f"{text[: LONGEST_ECHO - 3]}..."


# --- around each request -----------------------------------------------------------------------------------------------------


class _JSON(DefaultJSONProvider):
    """JSON whose every fault is a ValueError, which Flask turns into 400."""

    sort_keys = False  # an answer reads in the order in which it is written

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse a body."""
        try:
            return super().loads(s, **kwargs)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def _begin() -> Response | None:
    """Note the time and read the body, so that a missing content type is 415 and broken JSON 400 wherever a body is expected."""
    g.began = time.perf_counter()
    if request.method == "POST" and request.routing_exception is None and not isinstance(request.get_json(), dict):
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, 'the body must be a JSON object such as {"songs": [17, 4]}')
    return None


def _log_outcome(response: Response) -> Response:
    """One line a request; its level follows the outcome, and probes are only seen when debugging."""
    level = logging.ERROR if response.status_code >= 500 else logging.WARNING if response.status_code >= 400 else logging.INFO
    if level == logging.INFO and request.path in ("/healthz", "/readyz"):
        level = logging.DEBUG
    fields = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "milliseconds": round(1000 * (time.perf_counter() - g.began), 1),
    }
    log.log(level, "%s", g.get("detail") or "answered a request", extra={"fields": fields})
    return response


# --- the process -------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; raises the family of errors.py for what keeps it from starting."""
    log_to_stderr()
    config = serving_config(_parser().parse_args(argv))
    stopping = threading.Event()
    with _stopped_by_signals(stopping):
        torch.set_num_threads(config.service.torch_threads)
        recommender = Recommender.load(config.service.model or config.training.model_folder, config.service)
        with database_url(config.database) as url:
            _serve(config, recommender, url, stopping)
    return 0


def _serve(config: Config, recommender: Recommender, url: str, stopping: threading.Event) -> None:
    """Listen and work until a signal comes."""
    if config.database.is_embedded:
        with connect(url) as connection:  # our own server, so nobody else would bring its schema up to date
            migrate(connection)
    app = create_app(config, recommender=recommender, database_url=url, stopping=stopping)
    with _listening(app) as server, _working(app, url):
        _announce(recommender, server)
        server.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve recommendations over HTTP and answer the request table.")
    add_arguments(parser, "service", "database")
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
def _listening(app: OpenAPI) -> Iterator[Any]:
    """A waitress server on the address of the settings; the app's resources are closed after it."""
    service = service_of(app)
    try:
        server = _listen(app, service.config.service)
        try:
            yield server
        finally:
            server.close()
    finally:
        service.close()


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
def _working(app: OpenAPI, url: str) -> Iterator[None]:
    """A worker on the request table beside the server, unless the settings say no."""
    service = service_of(app)
    if not service.config.service.worker:
        yield
        return
    worker = Worker(
        url,
        recommender=lambda: service.live.recommender,
        config=service.config.service,
        queries_folder=service.config.database.queries_folder,
        connect_timeout_seconds=service.config.database.connect_timeout_seconds,
    )
    service.worker = worker
    service.worker_thread = threading.Thread(target=worker.run, args=[service.stopping], name="worker")
    service.worker_thread.start()
    try:
        yield
    finally:
        service.stopping.set()
        worker.nudge()
        service.worker_thread.join()


def _announce(recommender: Recommender, server: Any) -> None:
    """The one line that a person who starts the service looks for."""
    host, port = server.effective_host, server.effective_port
    address = f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"
    body = shlex.quote(json.dumps({"songs": [plain_id(song_id) for song_id in recommender.example_songs(2)]}))
    print(f"serving on {address}, try: curl -s {address}/recommend -H 'Content-Type: application/json' -d {body}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
