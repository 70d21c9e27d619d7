"""What one app holds, and the seams to the rooms below it."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flask import Flask

from api.access import Access
from api.observing import Metrics
from config import Config
from errors import RequestError, ServiceUnavailable
from jobs.desk import RequestDesk
from jobs.worker import Worker
from serving.controls import Controls
from serving.live import LiveRecommender
from serving.reasons import SongId
from serving.recommender import Query as PlainQuery
from serving.recommender import Recommender
from storage.connections import Connection
from storage.keys import ApiKey, active_keys
from storage.requests import QueueDepth, queue_depth

EXTENSION = "bert4musicrec"
NO_MODEL = "no model is loaded: train one and start the service with --model"


class Answer(Protocol):
    """Ranked songs."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, as AnswerBody describes them."""
        ...


# --- seams: what serving does not have yet -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sequence to continue, oldest song first, in the caller's own ids."""

    songs: Sequence[SongId]
    controls: Controls


class Live(Protocol):
    """The recommender in service."""

    @property
    def recommender(self) -> Any:
        """Whichever recommender answers at the moment; None while there is none."""
        ...

    def swap(self, recommender: Any) -> None:
        """Put a recommender into service."""
        ...

    def recommend(self, query: Query, key: str | None) -> Answer:
        """Continue one sequence; `key` decides between a model and its challenger.  Raises RequestError."""
        ...

    def recommend_many(self, queries: Sequence[Query]) -> Sequence[Answer | RequestError]:
        """Continue several; what cannot be continued comes back as its error."""
        ...

    def similar(self, song_id: SongId, count: int) -> Answer:
        """The songs most like one, without rules.  Raises UnknownSong."""
        ...

    def search(self, text: str, count: int) -> list[dict[str, Any]]:
        """Songs whose title, artist or album match a text, as FoundSongBody describes them."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Plain values for /readyz; of these /metrics shows `new_songs`, `index` and `catalogue_age_seconds` where they are."""
        ...


class LiveOfToday:
    """`LiveRecommender` as it is, behind the interface that it is to get."""

    def __init__(self, live: LiveRecommender) -> None:
        self._live = live

    @property
    def recommender(self) -> Recommender | None:
        """See Live."""
        return self._live.recommender

    def swap(self, recommender: Recommender) -> None:
        """See Live."""
        self._live.swap(recommender)

    def recommend(self, query: Query, key: str | None) -> Answer:
        """See Live; controls beside count, exclude and explain are not looked at."""
        controls = query.controls
        plain = PlainQuery(songs=query.songs, count=controls.count, exclude=controls.exclude, explain=controls.explain)
        return self._live.recommend(plain)

    def recommend_many(self, queries: Sequence[Query]) -> Sequence[Answer | RequestError]:
        """See Live."""
        return [self._or_error(query) for query in queries]

    def similar(self, song_id: SongId, count: int) -> Answer:
        """See Live."""
        raise ServiceUnavailable("similar songs cannot be found yet")

    def search(self, text: str, count: int) -> list[dict[str, Any]]:
        """See Live."""
        raise ServiceUnavailable("songs cannot be searched yet")

    def state(self) -> Mapping[str, Any]:
        """See Live."""
        return {}

    def _or_error(self, query: Query) -> Answer | RequestError:
        try:
            return self.recommend(query, None)
        except RequestError as exc:
            return exc


# --- what the app holds ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Service:
    """The resources of one app; `close` gives them back."""

    config: Config
    live: Live
    desk: RequestDesk | None  # None: no database is configured
    access: Access = field(init=False)
    metrics: Metrics = field(init=False)
    worker: Worker | None = None  # these two are set by whoever starts one beside the app
    worker_thread: threading.Thread | None = None
    stopping: threading.Event

    def __post_init__(self) -> None:
        self.access = Access(self.config.service, self._active_keys)
        self.metrics = Metrics(self)

    def recommender(self) -> Any:
        """The recommender in service.  Raises ServiceUnavailable while there is none."""
        recommender = self.live.recommender
        if recommender is None:
            raise ServiceUnavailable(NO_MODEL)
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
        with self.desk._connection() as connection:  # a seam: to become public in jobs.desk
            yield connection

    def _active_keys(self) -> Sequence[ApiKey]:
        with self.connection() as connection:
            return active_keys(connection)

    def queue_depth(self) -> QueueDepth:
        """How much is open in the request table.  Raises as `connection` does."""
        with self.connection() as connection:
            return queue_depth(connection)

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
        self.access.close()
        if self.desk is not None:
            self.desk.close()


def service_of(app: Flask) -> Service:
    """The resources that `create_app` attached to an app."""
    service: Service = app.extensions[EXTENSION]
    return service
