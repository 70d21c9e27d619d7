"""The health of one service at a glance: its database and rights, rows, queue, answers, model, newest errors with the way out.

The database is asked beside the requests (`Looks`), so that one that has gone silent costs an answer little more than a second;
what is known without it is told all the same.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import psycopg

from api.noted import Looks, Noted
from config import Config
from errors import DatabaseError, DatabaseUnreachable, RequestError
from serving.card import stored_counts
from storage.connections import Connection, expected_errors
from storage.health import Queue, Server, limit_statements, read_queue, read_server, relations_read
from storage.models import known_models
from storage.requests import QueueDepth, queue_depth

KEEP_SECONDS = 2.0  # how long an answer of the database is shown
PATIENCE_SECONDS = 1.2
STATEMENT_SECONDS = 1.0
SILENT = f"the database has not answered within {PATIENCE_SECONDS:g} s"
WAY_BACK = "check that the server runs and that DATABASE_URL is right; the service comes back by itself"
SETUP = "let the owner run setup.sql, and have the service use the role that it makes"

Told = TypeVar("Told")


@dataclass(kw_only=True)
class Looked:
    """What the database told."""

    server: Server | None = None
    rights: list[dict[str, Any]] = field(default_factory=list)
    depth: QueueDepth | None = None
    n_models: int | None = None
    failure: str | None = None
    """Why there is no way to it."""


class Shown(Protocol):
    """The service, as far as it is looked at."""

    config: Config
    noted: Noted

    @property
    def live(self) -> Any:
        """The recommender in service."""
        ...

    @property
    def desk(self) -> Any:
        """The way to the request table; None where no database is configured."""
        ...

    def connection(self) -> AbstractContextManager[Connection]:
        """A connection; raises DatabaseError or ServiceUnavailable."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What is in service, as plain values."""
        ...

    def worker_state(self) -> str:
        """The worker in one word."""
        ...

    def follower_state(self) -> str:
        """The follower in one word."""
        ...


class Overview:
    """What is known of one service at the moment."""

    def __init__(self, service: Shown) -> None:
        self._service = service
        self._looks = Looks(lambda: look(service), keep_seconds=KEEP_SECONDS, patience_seconds=PATIENCE_SECONDS)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        service, noted = self._service, self._service.noted.as_json()
        looked = None if service.desk is None else self._looks.latest() or Looked(failure=SILENT)
        depth = None if looked is None else looked.depth
        return {
            "database": _database_json(looked),
            "rows": _rows(service, looked),
            "unknown": noted["unknown"],
            "queue": {
                "queued": None if depth is None else depth.queued,
                "running": None if depth is None else depth.running,
                "oldest_seconds": None if depth is None else _since(depth.oldest.timestamp()) if depth.oldest else 0.0,
            },
            "latency": noted["latency"],
            "fallback": noted["fallback"],
            "model": _model(service),
            "errors": noted["errors"],
            "worker": service.worker_state(),
            "follower": service.follower_state(),
        }

    def close(self) -> None:
        """Wait a moment for what is asked beside."""
        self._looks.close()


def look(service: Shown) -> Looked:
    """Ask the database all at once; a question that fails leaves the others."""
    looked = Looked()
    try:
        with service.connection() as connection:
            limit_statements(connection, STATEMENT_SECONDS)
            looked.server = read_server(connection)
            looked.rights = list(_rights(connection, service, looked.server))
            looked.depth = _or_none(connection, queue_depth)
            models = _or_none(connection, known_models)
            looked.n_models = None if models is None else len(models)
    except (DatabaseError, RequestError, psycopg.Error) as exc:
        looked.failure = " ".join(str(exc).split())
    return looked


def _database_json(looked: Looked | None) -> dict[str, Any]:
    if looked is None:
        way_out = "start the service with DATABASE_URL: without a database it answers sequences of songs alone"
        return {"state": "not configured", "server": None, "role": None, "rights": [], "detail": None, "way_out": way_out}
    server = looked.server
    return {
        "state": "reachable" if looked.failure is None else "unreachable",
        "server": None if server is None else f"PostgreSQL {server.version.split()[0]}",
        "role": None if server is None else server.role,
        "rights": looked.rights,
        "detail": looked.failure,
        "way_out": None if looked.failure is None else WAY_BACK,
    }


def _rows(service: Shown, looked: Looked | None) -> dict[str, int | None]:
    """Songs in memory, what the model in service was trained on, and what is open in the request table."""
    state, recommender = service.state(), service.live.recommender
    info = None if recommender is None else recommender.info
    trained: Mapping[str, int] = {} if info is None else stored_counts(info.path)
    depth = None if looked is None else looked.depth
    return {
        "songs": state.get("songs"),
        "new_songs": state.get("new_songs"),
        # Runs of earlier versions have not counted apart what they held back.
        "sequences": trained.get("sequences_training", trained.get("sequences")),
        "sequence_rows": trained.get("rows_training", trained.get("rows")),
        "requests_open": None if depth is None else depth.queued + depth.running,
        "models": None if looked is None else looked.n_models,
    }


def _model(service: Shown) -> dict[str, Any]:
    recommender = service.live.recommender
    info = None if recommender is None else recommender.info
    return {
        "model_id": None if info is None else info.model_id,
        "age_seconds": None if info is None else _since(info.trained_at.timestamp()),
        "refused": service.state()["refused"],
    }


def _since(seconds: float) -> float:
    return round(max(0.0, time.time() - seconds), 1)


# --- rights ------------------------------------------------------------------------------------------------------------------


def _rights(connection: Connection, service: Shown, server: Server) -> Iterator[dict[str, Any]]:
    """What the role may and should not, each with the way out where that is not so."""
    if service.config.database.is_embedded and server.is_superuser:
        told = "the service is the owner of its own embedded server"
        yield {"what": "create nothing", "ok": True, "detail": told, "way_out": None}
    else:
        yield _right("create nothing", _too_much(server), SETUP)
    try:
        with expected_errors(), connection.transaction():
            relations = relations_read(connection, service.config.database.queries_folder)
        unread = ", ".join(str(relation) for relation in relations if not relation.may_read)
        yield _right("read songs and sequences", f"no right to read {unread}" if unread else None, SETUP)
        hidden = ", ".join(str(relation) for relation in relations if relation.may_read and relation.is_filtered)
        told = f"row-level security decides what is seen of {hidden}" if hidden else "no row-level security hides rows"
        yield {"what": "see all rows", "ok": True, "detail": told, "way_out": None}
    except (DatabaseError, psycopg.Error) as exc:
        if isinstance(exc, DatabaseUnreachable):
            raise
        yield _right("read songs and sequences", str(exc), "correct the query files; python cli.py doctor tells more")
    queue = _or_none(connection, read_queue) or Queue(is_there=False, is_usable=False)
    missing = "this role may not read recommender.request" if queue.is_there else "the schema recommender is not there"
    yield _right("take requests", None if queue.is_usable else missing, "let the owner run python cli.py migrate, then setup.sql")


def _right(what: str, wrong: str | None, way_out: str) -> dict[str, Any]:
    return {
        "what": what,
        "ok": wrong is None,
        "detail": wrong or "as it should be",
        "way_out": None if wrong is None else way_out,
    }


def _too_much(server: Server) -> str | None:
    """What a service should not be able to do."""
    if server.is_superuser:
        return f"{server.role} is a superuser"
    wrong = ["schemas"] if server.may_create_schemas else []
    wrong += [f"tables in {', '.join(server.may_create_in)}"] if server.may_create_in else []
    return f"{server.role} may create {' and '.join(wrong)}" if wrong else None


def _or_none(connection: Connection, question: Callable[[Connection], Told]) -> Told | None:
    """The answer to one question, None where it fails; the transaction goes on unless the server is gone."""
    try:
        with expected_errors(), connection.transaction():
            return question(connection)
    except DatabaseUnreachable:
        raise
    except (DatabaseError, psycopg.Error):
        return None
