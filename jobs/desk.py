"""The desk of the request table: playlists are handed in, what became of them is asked for.

Used by the HTTP service; SQL users call recommender.request(...) themselves.  A request is accepted once its row is committed.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from config import Config
from errors import DatabaseError, DatabaseUnreachable
from serving.answers import Query
from serving.completing import Completer
from storage.connections import Connection, Pool, expected_errors, open_pool
from storage.requests import Recommendation, RequestStatus, State, add_request, recommendations_of, request_of_key, request_state
from storage.source import sequence_by_id

# How long a thread stays for a connection of the pool: while a database is away, an answer that says so is worth more.
# Above the 0.9 to 1.1 s that psycopg_pool rests after a connection that it found broken: else every other such thread fails.
POOL_PATIENCE_SECONDS = 1.5
# How long a thread stays for a seat to complete its query; a completion that the database answers takes milliseconds.
COMPLETING_PATIENCE_SECONDS = 1.0
# After a failed attempt the next threads are told at once instead of queueing up behind attempts of their own.
RETRY_SECONDS = 1.0
# Polling begins close to the time that an idle worker takes for an answer, and slows down.
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.01, 0.25


@dataclass(frozen=True, kw_only=True)
class Handled:
    """Where a request stands, with its songs once it is done."""

    status: RequestStatus
    songs: Sequence[Recommendation]

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status.state in (State.DONE, State.FAILED)


class RequestDesk:
    """A pool of connections to the request table.  The database may be away at any time: then methods raise DatabaseError."""

    def __init__(self, url: str, *, config: Config, stopping: threading.Event) -> None:
        """`stopping` set lets `wait` return at once."""
        self._url = url
        self._queries_folder = config.database.queries_folder
        self._connect_timeout_seconds = config.database.connect_timeout_seconds
        self._threads = config.service.server_threads
        # Waiting takes a thread of the server; the other half stays free for everybody else.
        self._seats = threading.BoundedSemaphore(max(1, self._threads // 2))
        # A database that has gone silent keeps whoever asks it: so few threads ask at a time, and the others still answer.
        self._completing_seats = threading.BoundedSemaphore(max(1, self._threads // 4))
        self._is_silent = False  # whether the last thread without a seat stayed for it in vain
        self._stopping = stopping
        self._completer = Completer(config)
        self._opening = threading.Lock()
        self._pool: Pool | None = None
        self._failed: tuple[float, DatabaseError] | None = None  # when the last attempt failed, and how
        self._away: DatabaseUnreachable | None = None  # what the last thread that asked was told
        self._probing = threading.Lock()

    def accept(self, playlist_id: str, options: Mapping[str, Any], *, idempotency_key: str | None = None) -> int:
        """Commit a request for a playlist and return its number.

        The same key again returns the number it stands for, even when the playlist is gone by then.  Raises UnknownPlaylist
        when there is nothing to continue, KeyReused, and QueueFull.
        """
        with self.connection() as connection:
            if idempotency_key is not None:
                earlier = request_of_key(connection, idempotency_key, playlist_id, options)
                if earlier is not None:
                    return earlier
            sequence_by_id(connection, self._queries_folder, playlist_id)
            return add_request(connection, playlist_id, options, idempotency_key=idempotency_key)

    def complete(self, query: Query) -> Query:
        """A query with its listener's feedback and its filter's songs; while the database is away or silent, as last read.

        Raises UnknownFilter, ServiceUnavailable for a filter that was never read, and DatabaseError for one that fails.
        """
        if not self._completer.needs_database(query):
            return self._completer.complete_without(query, None)
        try:
            with self._completing_seat(), self.connection() as connection:
                return self._completer.complete(connection, query)
        except DatabaseUnreachable as exc:
            return self._completer.complete_without(query, exc)

    def look_up(self, request_id: int) -> Handled:
        """What became of a request.  Raises UnknownRequest."""
        with self.connection() as connection:
            status = request_state(connection, request_id)
            songs = recommendations_of(connection, request_id) if status.state is State.DONE else []
            return Handled(status=status, songs=songs)

    def wait(self, request_id: int, seconds: float) -> Handled | None:
        """Stay until a request is over, `seconds` at most; None when it is not over by then.

        Also None at once when half of the server's threads are waiting already, and when the database goes away meanwhile: the
        request is committed all the same.
        """
        if not self._seats.acquire(blocking=False):
            return None
        try:
            return self._wait(request_id, time.monotonic() + seconds)
        except DatabaseError:
            return None
        finally:
            self._seats.release()

    def is_reachable(self) -> bool:
        """Whether the database answers."""
        try:
            with self.connection() as connection:
                connection.execute("SELECT")
        except DatabaseError:
            return False
        return True

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._opening:
            if self._pool is not None:
                self._pool.close()
            self._pool = None

    def _wait(self, request_id: int, deadline: float) -> Handled | None:
        pause = FIRST_LOOK_SECONDS
        while not (handled := self.look_up(request_id)).is_over:
            left = deadline - time.monotonic()
            if left <= 0 or self._stopping.wait(min(pause, left)):
                return None
            pause = min(1.5 * pause, LONGEST_LOOK_SECONDS)
        return handled

    @contextmanager
    def _completing_seat(self) -> Iterator[None]:
        """One of the few places inside the database.  Raises DatabaseUnreachable when those who sit there get no answer.

        A thread stays a while for a place; once that was in vain, the others are told at once until a place is given back.
        """
        patience_seconds = 0.0 if self._is_silent else COMPLETING_PATIENCE_SECONDS
        if not self._completing_seats.acquire(timeout=patience_seconds):
            self._is_silent = True
            raise DatabaseUnreachable(f"the database has not answered others for {COMPLETING_PATIENCE_SECONDS:g} s")
        try:
            yield
        finally:
            self._is_silent = False
            self._completing_seats.release()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end.

        Raises DatabaseError.  While the database is away one thread finds out whether it is back, and the others are told at
        once: else all threads of the server would stand waiting, and those who need no database with them.
        """
        away = self._away
        is_probing = away is not None
        if is_probing and not self._probing.acquire(blocking=False):
            raise DatabaseUnreachable(str(away))
        try:
            with expected_errors(), self._open_pool().connection(timeout=POOL_PATIENCE_SECONDS) as connection:
                self._away = None
                yield connection
        except DatabaseUnreachable as exc:
            self._away = exc
            raise
        finally:
            if is_probing:
                self._probing.release()

    def _open_pool(self) -> Pool:
        if not self._opening.acquire(timeout=POOL_PATIENCE_SECONDS):
            raise DatabaseUnreachable(f"the database has not let another thread in for {POOL_PATIENCE_SECONDS:g} s")
        try:
            if self._pool is None:
                self._pool = self._new_pool()
            return self._pool
        finally:
            self._opening.release()

    def _new_pool(self) -> Pool:
        if self._failed is not None and time.monotonic() < self._failed[0] + RETRY_SECONDS:
            raise DatabaseUnreachable(str(self._failed[1]))
        try:
            # Not one for each thread: a database that has gone silent keeps as many threads as there are connections.
            max_size = self._threads // 2 + 1
            return open_pool(self._url, max_size=max_size, connect_timeout_seconds=self._connect_timeout_seconds)
        except DatabaseError as exc:
            self._failed = (time.monotonic(), exc)
            raise
