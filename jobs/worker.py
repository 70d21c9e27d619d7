"""The worker on the request table: claims requests, reads their playlists, scores them as one batch, stores the songs.

Any number of workers may run, in the service or elsewhere.  What was claimed belongs to its worker until the lease ends; the
songs of a batch are written in one transaction, each under its fence, so that a worker that was away too long writes nothing.

Whatever is killed, an accepted request is answered: its lease ends and another worker takes it.  A request that cannot be
answered (no such playlist, only unknown songs, options that mean nothing) fails at once with the reason; one that fails for
another reason is tried again, `max_attempts` times in all.
"""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import ServiceConfig
from errors import DatabaseError, InvalidSequence, RequestError, SchemaError
from serving.batching import LARGEST_BATCH
from serving.reasons import plain_id
from serving.recommender import Answer, ModelInfo, PreparedQuery, Query, Recommender
from storage.connections import Connection, connect, expected_errors
from storage.models import Model, register_model
from storage.requests import Claimed, RankedSong, State, claim, fail, finish, listen, release, wait_for_request
from storage.source import sequence_by_id

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between looks when nothing wakes the worker: behind a pooler LISTEN hears nothing
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0  # while the database is away
# What torch and numpy raise for a batch that they cannot compute.
SCORING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request got no songs; `is_final` when trying again would not help."""

    error: str
    is_final: bool


Outcome = Answer | Failure


class Worker:
    """One worker; `run` it in a thread of its own."""

    def __init__(
        self,
        url: str,
        *,
        recommender: Callable[[], Recommender | None],
        config: ServiceConfig,
        queries_folder: Path,
        connect_timeout_seconds: int = 10,
    ) -> None:
        """`recommender` is asked before each batch, so that a swapped model is met; None leaves requests in the queue."""
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._url = url
        self._recommender = recommender
        self._config = config
        self._queries_folder = queries_folder
        self._connect_timeout_seconds = connect_timeout_seconds
        self._registered: str | None = None  # the model that the database is known to know
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; while the database is away, try again with growing pauses."""
        while not stop.is_set():
            try:
                with expected_errors(), self._connect() as connection, self._connect() as ear:
                    self._work_until(stop, connection, ear)
            except DatabaseError as exc:
                log.warning(
                    "%s; the worker tries again in %g s", exc, self._pause_seconds, extra={"fields": {"worker": self.name}}
                )
                stop.wait(self._pause_seconds)
                self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def work(self, connection: Connection, stop: threading.Event) -> int:
        """Answer one batch of what waits; returns how many requests were claimed.

        `stop` set after the claim gives them back.  Raises DatabaseError; then what was claimed waits for the end of its lease.
        """
        recommender = self._recommender()
        if recommender is None:
            return 0
        self._register(connection, recommender.info)
        claimed = claim(connection, self.name, LARGEST_BATCH, self._config.lease_seconds, max_attempts=self._config.max_attempts)
        connection.commit()
        if stop.is_set():
            for request in claimed:
                release(connection, request)
        elif claimed:
            self._store(connection, claimed, self._outcomes(connection, recommender, claimed))
        connection.commit()
        return len(claimed)

    def _work_until(self, stop: threading.Event, connection: Connection, ear: Connection) -> None:
        ear.autocommit = True
        listen(ear)
        self._registered = None  # it may be another database than before
        while not stop.is_set():
            if not self.work(connection, stop):
                wait_for_request(ear, POLL_SECONDS)
            self._pause_seconds = FIRST_PAUSE_SECONDS

    def _connect(self) -> Connection:
        return connect(self._url, connect_timeout_seconds=self._connect_timeout_seconds)

    def _register(self, connection: Connection, info: ModelInfo) -> None:
        """Make the model known, so that each song can be traced to it."""
        if self._registered == info.model_id:
            return
        model = Model(
            model_id=info.model_id,
            path=str(info.path),
            encoders_digest=info.encoders_digest,
            snapshot_digest=info.snapshot_digest,
            settings=info.settings,
            metrics=info.metrics,
            trained_at=info.trained_at,
        )
        register_model(connection, model)
        connection.commit()
        self._registered = info.model_id

    def _outcomes(self, connection: Connection, recommender: Recommender, claimed: Sequence[Claimed]) -> list[Outcome]:
        """An answer or a failure for each request; one that cannot be answered does not disturb the others."""
        prepared = [self._prepare(connection, recommender, request) for request in claimed]
        connection.commit()  # no transaction stays open while the model computes
        answers = iter(_score(recommender, [query for query in prepared if isinstance(query, PreparedQuery)]))
        return [next(answers) if isinstance(query, PreparedQuery) else query for query in prepared]

    def _prepare(self, connection: Connection, recommender: Recommender, request: Claimed) -> PreparedQuery | Failure:
        try:
            songs = sequence_by_id(connection, self._queries_folder, request.playlist_id)
            return recommender.prepare(query_of(songs, request.options))
        except RequestError as exc:
            return Failure(error=str(exc), is_final=True)
        except SchemaError as exc:  # somebody may grant the right or mend the query meanwhile
            return Failure(error=str(exc), is_final=False)

    def _store(self, connection: Connection, claimed: Sequence[Claimed], outcomes: Sequence[Outcome]) -> None:
        for request, outcome in zip(claimed, outcomes, strict=True):
            fields = {"request_id": request.request_id, "playlist_id": request.playlist_id, "worker": self.name}
            if isinstance(outcome, Failure):
                state = fail(
                    connection, request, outcome.error, max_attempts=self._config.max_attempts, is_final=outcome.is_final
                )
                level = logging.ERROR if state is State.FAILED else logging.WARNING
                log.log(level, "a request failed: %s", outcome.error, extra={"fields": fields | {"state": state}})
            elif finish(connection, request, _ranked(outcome), model_id=outcome.model.model_id):
                log.info("answered a playlist with %d songs", len(outcome.songs), extra={"fields": fields})
            else:
                log.warning("an answer came after the end of its lease and was dropped", extra={"fields": fields})


def query_of(songs: Sequence[Any], options: Mapping[str, Any]) -> Query:
    """The query that a request's playlist and options ask for.  Raises InvalidSequence for options that mean nothing.

    Options are count (a whole number), exclude (a list of song ids) and explain (true or false); anybody who may insert
    requests may have written them.
    """
    unknown = sorted(set(options) - set(_OPTION_TYPES))
    if unknown:
        raise InvalidSequence(f"unknown option {unknown[0]!r}: known are {', '.join(_OPTION_TYPES)}")
    for name, value in options.items():
        if value is not None and type(value) is not _OPTION_TYPES[name]:  # type() because True is an int as well
            raise InvalidSequence(f"option {name} must be of type {_OPTION_TYPES[name].__name__} (got {value!r})")
    return Query(
        songs=[song_id for song_id in songs if song_id is not None],
        count=options.get("count"),
        exclude=options.get("exclude") or (),
        explain=options.get("explain") or False,
    )


_OPTION_TYPES: Mapping[str, type] = {"count": int, "exclude": list, "explain": bool}


def _score(recommender: Recommender, queries: Sequence[PreparedQuery]) -> list[Outcome]:
    """Score queries as one batch; when that fails, one by one, so that only the one at fault fails."""
    try:
        return list(recommender.answer(queries))
    except SCORING_ERRORS as exc:
        if len(queries) == 1:
            return [Failure(error=f"scoring failed: {exc}", is_final=False)]
    return [outcome for query in queries for outcome in _score(recommender, [query])]


def _ranked(answer: Answer) -> list[RankedSong]:
    return [
        RankedSong(song_id=str(plain_id(song.song_id)), score=song.score, reasons=[reason.as_json() for reason in song.reasons])
        for song in answer.songs
    ]
