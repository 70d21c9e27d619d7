"""The queue of requests in PostgreSQL: accepted, claimed under a lease, finished together with their songs.

A request belongs to a worker from its claim until its lease ends; then anybody may take it over.  Each claim has a number that
only grows (the fence).  A worker that was away too long holds an older number, and what it brings is not written.

Every function works in the caller's transaction; nothing is accepted, claimed or finished before the caller commits.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg import errors
from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb

from errors import DatabaseError, KeyReused, QueueFull, UnknownRequest
from storage.connections import Connection
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "requests.sql")

MAX_ERROR_CHARACTERS = 2_000


class State(StrEnum):
    """Where a request stands."""

    QUEUED = "queued"  # accepted, or put back after a failed attempt: waits until `not_before`
    RUNNING = "running"  # claimed, and its worker's until the lease ends
    DONE = "done"  # answered; its songs are in recommender.recommendation
    FAILED = "failed"  # given up, with the error of the last attempt


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A request in the hands of one worker."""

    request_id: int
    playlist_id: str
    options: Mapping[str, Any]
    attempts: int
    """Claims so far, this one included."""
    fence: int
    """The number of this claim."""


@dataclass(frozen=True, kw_only=True)
class RankedSong:
    """One song of an answer; its rank is its place in the list."""

    song_id: str
    score: float
    reasons: Sequence[Any] = ()
    """JSON values."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A claimed request with its answer."""

    claimed: Claimed
    songs: Sequence[RankedSong]
    """The best first."""
    model_id: str | None
    """None marks an answer that does not come from a model."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the answer says of itself, as JSON values: fallback, unknown ids, rules applied and relaxed, seed."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One song of an answer as it was written."""

    rank: int
    song_id: str
    score: float
    reasons: Sequence[Any]
    model_id: str | None
    """None: the answer does not come from a model."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class RequestStatus:
    """What can be told of a request."""

    request_id: int
    playlist_id: str
    options: Mapping[str, Any]
    state: State
    attempts: int
    not_before: datetime
    error: str | None
    """Of the last attempt, also while another one is waited for."""
    created_at: datetime
    finished_at: datetime | None
    facts: Mapping[str, Any] | None
    """What the answer says of itself; None while there is none."""


@dataclass(frozen=True, kw_only=True)
class QueueDepth:
    """How much is open."""

    queued: int
    running: int
    oldest: datetime | None
    """When the oldest open request was accepted; None when nothing is open."""


def add_request(
    connection: Connection,
    playlist_id: str,
    options: Mapping[str, Any] | None = None,
    *,
    idempotency_key: str | None = None,
    priority: int = 0,
) -> int:
    """Accept a request and return its number; higher priorities are answered first.

    A request for the same playlist with the same options that no worker has begun yet is joined: it gets the higher priority of
    the two, and its number is returned.  The same idempotency key again returns the number it stands for.  Workers that listen
    are woken at the commit when nothing else was waiting.  Raises KeyReused when the key was used for something else, QueueFull
    when as many requests wait as recommender.setting allows.
    """
    parameters = {
        "playlist_id": str(playlist_id),
        "options": Jsonb(dict(options or {})),
        "idempotency_key": idempotency_key,
        "priority": priority,
    }
    try:
        with _key_errors():
            row = connection.execute(_SQL["add"], parameters).fetchone()
    except errors.ConfigurationLimitExceeded as exc:
        raise QueueFull(f"{exc.diag.message_primary}: ask again later") from exc
    assert row is not None
    request_id: int = row[0]
    return request_id


def request_of_key(
    connection: Connection, idempotency_key: str, playlist_id: str, options: Mapping[str, Any] | None = None
) -> int | None:
    """The number of the request that a key stands for; None for a new key, which others then wait for until the commit.

    Raises KeyReused when the key was used for something else.
    """
    parameters = {"idempotency_key": idempotency_key, "playlist_id": str(playlist_id), "options": Jsonb(dict(options or {}))}
    with _key_errors():
        row = connection.execute(_SQL["request_of_key"], parameters).fetchone()
    assert row is not None
    request_id: int | None = row[0]
    return request_id


def claim(
    connection: Connection, worker: str, limit: int = 1, lease_seconds: float = 60.0, *, max_attempts: int = 3
) -> list[Claimed]:
    """Take up to `limit` requests that nobody holds; two workers never get the same one.

    First come those whose lease ran out, unless they were claimed `max_attempts` times already: then they are failed.  The others
    follow by falling priority, the longest-waiting first.  One that cost workers all attempts but its last is claimed alone.
    """
    parameters = {"worker": worker, "lease_seconds": lease_seconds, "max_attempts": max_attempts}
    with connection.cursor(row_factory=class_row(Claimed)) as cursor:
        taken_over = cursor.execute(_SQL["take_over"], {**parameters, "limit": limit}).fetchall()
        if any(claimed.attempts >= max_attempts for claimed in taken_over):
            return taken_over
        return taken_over + cursor.execute(_SQL["claim"], {**parameters, "limit": limit - len(taken_over)}).fetchall()


def renew(connection: Connection, claimed: Claimed, lease_seconds: float) -> bool:
    """Hold on to a request for another `lease_seconds` from now; False when it is somebody else's by now."""
    return _touch(connection, "renew", claimed, lease_seconds=lease_seconds) is not None


def finish(
    connection: Connection,
    claimed: Claimed,
    songs: Sequence[RankedSong],
    *,
    model_id: str | None,
    facts: Mapping[str, Any] | None = None,
) -> bool:
    """Write the songs and end the request, both or neither; see `finish_many`.  False: nothing was written."""
    finished = Finished(claimed=claimed, songs=songs, model_id=model_id, facts=facts or {})
    return finish_many(connection, [finished]) == {claimed.request_id}


def finish_many(connection: Connection, answers: Sequence[Finished]) -> set[int]:
    """Write the songs of several requests and end these, in one statement; returns the numbers of those that were.

    What is missing in them is somebody else's by now, and nothing of it was written.  Raises DatabaseError when a model is not
    registered.
    """
    ranked = [(one.claimed.request_id, rank, song) for one in answers for rank, song in enumerate(one.songs, start=1)]
    parameters = {
        "request_ids": [one.claimed.request_id for one in answers],
        "fences": [one.claimed.fence for one in answers],
        "model_ids": [one.model_id for one in answers],
        "facts": [json.dumps(dict(one.facts)) for one in answers],
        "answered_ids": [request_id for request_id, _, _ in ranked],
        "ranks": [rank for _, rank, _ in ranked],
        "song_ids": [str(song.song_id) for _, _, song in ranked],
        "scores": [float(song.score) for _, _, song in ranked],
        "reasons": [json.dumps(list(song.reasons)) for _, _, song in ranked],
    }
    connection.execute(_SQL["prefer_indexes"])
    try:
        return {request_id for (request_id,) in connection.execute(_SQL["finish"], parameters).fetchall()}
    except errors.ForeignKeyViolation as exc:
        if exc.diag.constraint_name != "recommendation_model_id_fkey":
            raise
        models = ", ".join(sorted({repr(one.model_id) for one in answers}))
        raise DatabaseError(f"model {models} is not in recommender.model: register it before it answers") from exc


def fail(
    connection: Connection,
    claimed: Claimed,
    error: str,
    *,
    max_attempts: int = 3,
    backoff_seconds: float = 5.0,
    is_final: bool = False,
) -> State | None:
    """Record why an attempt failed: QUEUED when it is tried again, FAILED when not; None when it is somebody else's by now.

    The next attempt waits `backoff_seconds`, twice as long after each further one, an hour at most.  `is_final` says that
    trying again would not help.
    """
    told = error.replace("\0", "").strip()[:MAX_ERROR_CHARACTERS] or "no message"
    row = _touch(
        connection, "fail", claimed, error=told, max_attempts=max_attempts, backoff_seconds=backoff_seconds, is_final=is_final
    )
    return None if row is None else State(row[0])


def release(connection: Connection, claimed: Claimed) -> bool:
    """Give a request back unworked, at a graceful stop; the attempt does not count.  False when it is somebody else's by now."""
    return _touch(connection, "release", claimed) is not None


def give_up(connection: Connection, worker: str, *, max_attempts: int = 3) -> int:
    """Put back what a worker holds and does not work on any more, because it lost the database; returns how many.

    Unlike after `release` the attempt counts.  Requests on their last attempt stay with the worker until their lease ends.
    """
    return connection.execute(_SQL["give_up"], {"worker": worker, "max_attempts": max_attempts}).rowcount


def request_state(connection: Connection, request_id: int) -> RequestStatus:
    """Where a request stands.  Raises UnknownRequest."""
    with connection.cursor(row_factory=kwargs_row(_status)) as cursor:
        status = cursor.execute(_SQL["state"], {"request_id": request_id}).fetchone()
    if status is None:
        raise UnknownRequest(f"no request {request_id}: it was never accepted, or is cleared away")
    return status


def recommendations_of(connection: Connection, request_id: int) -> list[Recommendation]:
    """The songs of a request, the best first; none while it is not done."""
    with connection.cursor(row_factory=class_row(Recommendation)) as cursor:
        return cursor.execute(_SQL["recommendations"], {"request_id": request_id}).fetchall()


def queue_depth(connection: Connection) -> QueueDepth:
    """How much is open, and since when."""
    with connection.cursor(row_factory=class_row(QueueDepth)) as cursor:
        depth = cursor.execute(_SQL["depth"]).fetchone()
    assert depth is not None
    return depth


def clear_finished(connection: Connection, limit: int = 1_000) -> int:
    """Remove up to `limit` requests, with their songs, that ended longer ago than `retention` in recommender.setting.

    Returns how many; `limit` of them says that there may be more.
    """
    connection.execute(_SQL["prefer_indexes"])
    return connection.execute(_SQL["clear_finished"], {"limit": limit}).rowcount


def listen(connection: Connection) -> None:
    """Hear from now on of requests; for `wait_for_request`, on a connection with autocommit that does nothing else."""
    connection.execute(_SQL["listen"])


def wait_for_request(connection: Connection, timeout_seconds: float) -> bool:
    """Sleep until a request comes, or the time is over (False).  Poll afterwards in both cases: not every request is told of."""
    return any(True for _ in connection.notifies(timeout=timeout_seconds, stop_after=1))


@contextmanager
def _key_errors() -> Iterator[None]:
    """Turn the database's word for a key that stands for another request into ours."""
    try:
        yield
    except errors.UniqueViolation as exc:
        if exc.diag.constraint_name != "idempotency_pkey":
            raise
        raise KeyReused(f"{exc.diag.message_primary}: send a new key with a new request") from exc


def _touch(connection: Connection, name: str, claimed: Claimed, **parameters: Any) -> tuple[Any, ...] | None:
    """Run a statement about a claimed request; it has a row only while the claim holds."""
    return connection.execute(_SQL[name], {"request_id": claimed.request_id, "fence": claimed.fence, **parameters}).fetchone()


def _status(*, state: str, **rest: Any) -> RequestStatus:
    return RequestStatus(state=State(state), **rest)


def latest_songs(connection: Connection, limit: int) -> list[tuple[int, str]]:
    """Request and song of the newest answers, `limit` songs at most: the newest request first, its best song first."""
    return connection.execute(_SQL["latest_songs"], {"limit": limit}).fetchall()
