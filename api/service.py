"""What one app holds: the recommenders in service, the way to the database, keys, metrics, and the threads beside it."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask

from api.access import Access
from api.noted import Noted
from api.observing import Metrics
from api.overview import Overview
from api.popularity import PopularityFigures
from config import Config
from errors import DatabaseUnreachable, RequestError, ServiceUnavailable
from jobs.desk import RequestDesk
from jobs.worker import Worker
from serving.answers import Answer, Query
from serving.completing import Completer
from serving.controls import Controls
from serving.follower import Follower
from serving.live import LiveRecommender
from serving.reasons import SongId
from serving.recommender import Recommender
from storage.connections import Connection
from storage.keys import ApiKey, active_keys
from storage.requests import QueueDepth, queue_depth

EXTENSION = "bert4musicrec"


@dataclass(kw_only=True)
class Service:
    """The resources of one app; `close` gives them back."""

    config: Config
    desk: RequestDesk | None  # None: no database is configured
    stopping: threading.Event
    live: LiveRecommender = field(init=False)
    access: Access = field(init=False)
    metrics: Metrics = field(init=False)
    noted: Noted = field(init=False)
    overview: Overview = field(init=False)
    popularity: PopularityFigures = field(init=False)
    follower: Follower | None = None  # these four are set by whoever starts them beside the app
    follower_thread: threading.Thread | None = None
    worker: Worker | None = None
    worker_thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._completer = Completer(self.config)  # where there is no desk
        self.access = Access(self.config.service, self._active_keys)
        self.metrics = Metrics(self)
        self.noted = Noted()
        self.overview = Overview(self)
        self.popularity = PopularityFigures(self)
        self.live = LiveRecommender(stage=self.metrics.stage, on_batch=self.metrics.batch, on_answer=self._answered)

    def recommend(self, songs: Sequence[SongId], controls: Controls) -> Answer:
        """Continue one sequence, with what the database knows of its listener and filter.  Raises RequestError."""
        with self.noted.timed():
            return self.live.recommend(self._completed(Query(songs=songs, controls=controls)))

    def recommend_many(self, sequences: Sequence[Sequence[SongId]], controls: Controls) -> list[Answer | RequestError]:
        """Continue several for the same listener; what cannot be continued comes back as its error.  Raises RequestError."""
        completed = self._completed(Query(songs=(), controls=controls))
        return self.live.recommend_many([completed.of(songs) for songs in sequences])

    def recommender(self) -> Recommender:
        """The recommender in service.  Raises ServiceUnavailable while there is none."""
        recommender = self.live.recommender
        if recommender is None:
            raise ServiceUnavailable("no model is loaded: train one and start the service with --model")
        return recommender

    def open_desk(self) -> RequestDesk:
        """The way to the request table; raises ServiceUnavailable when there is no database."""
        if self.desk is None:
            raise ServiceUnavailable('no database is configured: send "songs", or start the service with DATABASE_URL')
        return self.desk

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end.  Raises DatabaseError, or ServiceUnavailable without a database."""
        if self.desk is None:
            raise ServiceUnavailable("no database is configured: start the service with DATABASE_URL")
        with self.desk.connection() as connection:
            yield connection

    def queue_depth(self) -> QueueDepth:
        """How much is open in the request table.  Raises as `connection` does."""
        with self.connection() as connection:
            return queue_depth(connection)

    def state(self) -> Mapping[str, Any]:
        """What is in service and what is known of the catalogue, as plain values."""
        read_at = None if self.follower is None else self.follower.catalogue_read_at
        refusals = [] if self.follower is None else list(self.follower.refusals)
        return {**self.live.state(), "catalogue_read_at": read_at, "refused": refusals[-1] if refusals else None}

    def worker_state(self) -> str:
        """The worker in one word: none, running, reconnecting (it has no database at the moment) or ended."""
        if self.worker is None or self.worker_thread is None:
            return "none"
        if not self.worker_thread.is_alive():
            return "ended"
        return "running" if self.worker.is_connected else "reconnecting"

    def follower_state(self) -> str:
        """The thread that follows models and songs in one word: none, running or ended."""
        if self.follower_thread is None:
            return "none"
        return "running" if self.follower_thread.is_alive() else "ended"

    def close(self) -> None:
        """End waiting requests and close the connections."""
        self.stopping.set()
        self.access.close()
        self.overview.close()
        self.popularity.close()
        if self.desk is not None:
            self.desk.close()

    def _answered(self, answer: Answer) -> None:
        self.metrics.answered(answer)
        self.noted.answered(answer)

    def _completed(self, query: Query) -> Query:
        if self.desk is not None:
            return self.desk.complete(query)
        cause = DatabaseUnreachable("no database is configured: start the service with DATABASE_URL")
        return self._completer.complete_without(query, cause)

    def _active_keys(self) -> Sequence[ApiKey]:
        with self.connection() as connection:
            return active_keys(connection)


def service_of(app: Flask) -> Service:
    """The resources that `create_app` attached to an app."""
    service: Service = app.extensions[EXTENSION]
    return service
