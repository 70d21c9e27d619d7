"""The worker on the request table: claims requests, reads their playlists, scores them as one batch, stores the songs.

Any number of workers may run, in the service or elsewhere (`jobs.process`).  What was claimed belongs to its worker until the
lease ends; the songs of a batch are written in one transaction, each under its fence, so that a worker that was away too long
writes nothing.

Whatever is killed, an accepted request is answered: its lease ends and another worker takes it.  A request that cannot be
answered (no such playlist, only unknown songs, options that mean nothing) fails at once with the reason; one that fails for
another reason is tried again, `max_attempts` times in all.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from config import Config
from errors import DatabaseError, RequestError, UnknownPlaylist
from serving.answers import Answer, ModelInfo, PreparedQuery, Query
from serving.batching import LARGEST_BATCH
from serving.completing import Completer
from serving.controls import Controls
from serving.live import SCORING_ERRORS, LiveRecommender
from serving.reasons import plain_id
from serving.recommender import Recommender
from storage.connections import Connection, connect, expected_errors
from storage.models import introduce_model
from storage.requests import (
    Claimed,
    Finished,
    RankedSong,
    State,
    claim,
    clear_finished,
    fail,
    finish_many,
    give_up,
    listen,
    release,
    wait_for_request,
)
from storage.source import Id, sequences_by_ids

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between looks when nothing wakes the worker: behind a pooler LISTEN hears nothing
SHORT_RESTS = (0.02, 0.1, 0.3)  # seconds before the first looks after work: of several who ask at once only one wakes the workers
CLEAR_SECONDS = 60.0  # between looks for finished requests past their retention
CLEARED_AT_ONCE = 1_000  # requests in one such transaction, so that it is over quickly
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0  # while the database is away


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request got no songs; `is_final` when trying again would not help."""

    error: str
    is_final: bool


Outcome = Answer | Failure


class Worker:
    """One worker; `run` it in a thread of its own."""

    def __init__(self, url: str, *, live: LiveRecommender, config: Config) -> None:
        """`live` is asked before each batch, so that a swapped model is met; without a model requests stay in the queue."""
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._url = url
        self._live = live
        self._config = config.service
        self._queries_folder = config.database.queries_folder
        self._connect_timeout_seconds = config.database.connect_timeout_seconds
        self._completer = Completer(config)
        self._registered: set[str] = set()  # the models that the database is known to know
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._clear_at = 0.0  # time.monotonic()
        self._nudged = threading.Event()
        self.is_connected = False
        """Whether the worker reaches its database at the moment."""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; while the database is away, try again with growing pauses."""
        while not stop.is_set():
            try:
                with expected_errors(), self._connect() as connection, self._ear() as ear:
                    self._work_until(stop, connection, ear)
            except (DatabaseError, psycopg.Error) as exc:  # psycopg.Error: what nobody expected must not end the worker either
                self.is_connected = False
                log.warning(
                    "%s; the worker tries again in %g s", exc, self._pause_seconds, extra={"fields": {"worker": self.name}}
                )
                stop.wait(self._pause_seconds)
                self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def nudge(self) -> None:
        """Have a worker that polls look at the queue now."""
        self._nudged.set()

    def work(self, connection: Connection, stop: threading.Event) -> int:
        """Answer one batch of what waits; returns how many requests were claimed.

        `stop` set after the claim gives them back.  Raises DatabaseError; then what was claimed waits for the end of its lease.
        """
        recommenders = self._live.recommenders
        if not recommenders:
            return 0
        for recommender in recommenders:
            if recommender.info is not None:
                self._register(connection, recommender.info)
        claimed = claim(connection, self.name, LARGEST_BATCH, self._config.lease_seconds, max_attempts=self._config.max_attempts)
        connection.commit()
        answered: list[Answer] = []
        if stop.is_set():
            for request in claimed:
                release(connection, request)
        elif claimed:
            outcomes = self._outcomes(connection, claimed)
            with connection.transaction():
                answered = self._store(connection, claimed, outcomes)
        connection.commit()
        for answer in answered:  # not before: what is rolled back is answered again, and counted then
            self._live.count(answer)
        return len(claimed)

    def _work_until(self, stop: threading.Event, connection: Connection, ear: Connection | None) -> None:
        self._registered.clear()  # it may be another database than before
        give_up(connection, self.name, max_attempts=self._config.max_attempts)
        connection.commit()
        self.is_connected = True
        rests = _rests()
        while not stop.is_set():
            if self.work(connection, stop):
                rests = _rests()
            else:
                self._rest(ear, next(rests))
            self._clear(connection)
            self._pause_seconds = FIRST_PAUSE_SECONDS

    def _rest(self, ear: Connection | None, seconds: float) -> None:
        """Sleep until a request is told of, `seconds` at most."""
        if ear is not None:
            wait_for_request(ear, seconds)
        else:
            self._nudged.wait(seconds)
            self._nudged.clear()

    def _clear(self, connection: Connection) -> None:
        """Now and then remove what is past its retention."""
        if time.monotonic() < self._clear_at:
            return
        cleared = clear_finished(connection, CLEARED_AT_ONCE)
        connection.commit()
        if cleared:
            log.info("removed requests past their retention", extra={"fields": {"requests": cleared, "worker": self.name}})
        self._clear_at = time.monotonic() + (CLEAR_SECONDS if cleared < CLEARED_AT_ONCE else 0.0)

    def _connect(self) -> Connection:
        return connect(self._url, connect_timeout_seconds=self._connect_timeout_seconds)

    @contextmanager
    def _ear(self) -> Iterator[Connection | None]:
        """A connection that hears of requests; None where the settings say to poll."""
        if self._config.wake == "poll":
            yield None
            return
        with self._connect() as ear:
            ear.autocommit = True
            listen(ear)
            yield ear

    def _register(self, connection: Connection, info: ModelInfo) -> None:
        """Make the model known, so that each song can be traced to it."""
        if info.model_id not in self._registered:
            introduce_model(connection, info.record())
            self._registered.add(info.model_id)

    def _outcomes(self, connection: Connection, claimed: Sequence[Claimed]) -> list[Outcome]:
        """An answer or a failure for each request; one that cannot be answered does not disturb the others."""
        sequences = sequences_by_ids(connection, self._queries_folder, [request.playlist_id for request in claimed])
        asked = [_asked(songs, request.options) for songs, request in zip(sequences, claimed, strict=True)]
        asked = self._completed(connection, asked)
        connection.commit()  # no transaction stays open while the model computes
        outcomes: dict[int, Outcome] = {place: failure for place, failure in enumerate(asked) if isinstance(failure, Failure)}
        for recommender, places in self._by_recommender(claimed, [p for p in range(len(claimed)) if p not in outcomes]).items():
            prepared = {place: _prepared(recommender, asked[place]) for place in places}
            outcomes.update({place: failure for place, failure in prepared.items() if isinstance(failure, Failure)})
            ready = {place: query for place, query in prepared.items() if isinstance(query, PreparedQuery)}
            outcomes.update(zip(ready, self._score(recommender, list(ready.values())), strict=True))
        return [outcomes[place] for place in range(len(claimed))]

    def _completed(self, connection: Connection, asked: Sequence[Query | Failure]) -> list[Query | Failure]:
        """The queries with what the database knows of their listeners and filters."""
        wanted = {place: query for place, query in enumerate(asked) if isinstance(query, Query) and _has_more_to_read(query)}
        completed = list(asked)
        for place, query in wanted.items():
            try:
                with expected_errors(), connection.transaction():
                    completed[place] = self._completer.complete(connection, query)
            except RequestError as exc:
                completed[place] = Failure(error=str(exc), is_final=True)
            except DatabaseError as exc:
                if connection.closed:
                    raise
                completed[place] = Failure(error=str(exc), is_final=False)
        return completed

    def _by_recommender(self, claimed: Sequence[Claimed], places: Sequence[int]) -> dict[Recommender, list[int]]:
        """Which recommender answers which of the requests."""
        sides: dict[Recommender, list[int]] = {}
        for place in places:
            key = claimed[place].options.get("listener") or claimed[place].playlist_id
            recommender = self._live.pick(key)
            assert recommender is not None  # there was one before the claim, and none is ever taken away
            sides.setdefault(recommender, []).append(place)
        return sides

    def _score(self, recommender: Recommender, queries: Sequence[PreparedQuery]) -> list[Outcome]:
        """Score queries as one batch; when that fails, one by one, so that only the one at fault fails."""
        if not queries:
            return []
        try:
            return list(self._live.score_together(recommender, queries))
        except SCORING_ERRORS as exc:
            if len(queries) == 1:
                return [Failure(error=f"scoring failed: {exc}", is_final=False)]
        return [outcome for query in queries for outcome in self._score(recommender, [query])]

    def _store(self, connection: Connection, claimed: Sequence[Claimed], outcomes: Sequence[Outcome]) -> list[Answer]:
        """Write a batch: answers with their songs, failures with their errors.  Returns the answers that were written."""
        answers = []
        for request, outcome in zip(claimed, outcomes, strict=True):
            if isinstance(outcome, Answer):
                if outcome.model is not None:
                    self._register(connection, outcome.model)
                model_id = None if outcome.model is None else outcome.model.model_id
                answers.append(Finished(claimed=request, songs=_ranked(outcome), model_id=model_id, facts=outcome.facts()))
        written = self._finish(connection, answers)
        for request, outcome in zip(claimed, outcomes, strict=True):
            if isinstance(outcome, Failure):
                self._fail(connection, request, outcome)
        answered = zip(claimed, outcomes, strict=True)
        return [outcome for request, outcome in answered if isinstance(outcome, Answer) and request.request_id in written]

    def _finish(self, connection: Connection, answers: Sequence[Finished]) -> set[int]:
        """Write answers together; where the database refuses one, one by one, so that only that one fails.

        Returns the numbers of the requests whose answers were written.
        """
        if not answers:
            return set()
        try:
            with connection.transaction():
                written = finish_many(connection, answers)
        except (psycopg.DataError, psycopg.IntegrityError) as exc:
            if len(answers) == 1:
                error = f"the answer cannot be written: {exc.diag.message_primary or exc}"
                self._fail(connection, answers[0].claimed, Failure(error=error, is_final=False))
                return set()
            return {request_id for answer in answers for request_id in self._finish(connection, [answer])}
        for answer in answers:
            fields = self._fields(answer.claimed)
            if answer.claimed.request_id in written:
                log.info("answered a playlist with %d songs", len(answer.songs), extra={"fields": fields})
            else:
                log.warning("an answer came after the end of its lease and was dropped", extra={"fields": fields})
        return written

    def _fail(self, connection: Connection, request: Claimed, failure: Failure) -> None:
        state = fail(connection, request, failure.error, max_attempts=self._config.max_attempts, is_final=failure.is_final)
        level = logging.ERROR if state is State.FAILED else logging.WARNING
        log.log(level, "a request failed: %s", failure.error, extra={"fields": {**self._fields(request), "state": state}})

    def _fields(self, request: Claimed) -> dict[str, Any]:
        return {"request_id": request.request_id, "playlist_id": request.playlist_id, "worker": self.name}


def _rests() -> Iterator[float]:
    """How long to sleep between looks since the last work, in seconds."""
    yield from SHORT_RESTS
    while True:
        yield POLL_SECONDS


def query_of(songs: Sequence[Any], options: Mapping[str, Any]) -> Query:
    """The query that a request's playlist and options ask for.  Raises InvalidSequence for options that mean nothing.

    Options are the fields of serving.controls.Controls; anybody who may insert requests may have written them.
    """
    return Query(songs=[song_id for song_id in songs if song_id is not None], controls=Controls.of_options(options))


def _asked(songs: list[Id] | UnknownPlaylist | DatabaseError, options: Mapping[str, Any]) -> Query | Failure:
    """A playlist's songs and options as a query, or why there is none."""
    if isinstance(songs, UnknownPlaylist):
        return Failure(error=str(songs), is_final=True)
    if isinstance(songs, DatabaseError):  # somebody may grant the right, mend the query or end what made it slow
        return Failure(error=str(songs), is_final=False)
    try:
        return query_of(songs, options)
    except RequestError as exc:
        return Failure(error=str(exc), is_final=True)


def _has_more_to_read(query: Query) -> bool:
    return query.controls.listener is not None or query.controls.filter is not None


def _prepared(recommender: Recommender, query: Query | Failure) -> PreparedQuery | Failure:
    """A query in the numbers of the model that answers it, or why there is none."""
    if isinstance(query, Failure):
        return query
    try:
        return recommender.prepare(query)
    except RequestError as exc:
        return Failure(error=str(exc), is_final=True)


def _ranked(answer: Answer) -> list[RankedSong]:
    return [
        RankedSong(song_id=str(plain_id(song.song_id)), score=song.score, reasons=[reason.as_json() for reason in song.reasons])
        for song in answer.songs
    ]
