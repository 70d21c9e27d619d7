"""What the service shows of itself: an id for each request, a log line for each answer, and metrics for Prometheus.

Routes are named by their template (/v1/songs/{song_id}/similar), so that neither logs nor metrics grow with what is asked.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from flask import Response, g, has_request_context, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from api.problems import without_keys
from errors import DatabaseError, ServiceUnavailable
from serving.answers import Answer
from storage.requests import QueueDepth

log = logging.getLogger(__name__)

PREFIX = "bert4musicrec"
NO_ROUTE = "none"  # the route of an address that leads nowhere, and of a method that it does not take
PROBES = ("/healthz", "/readyz", "/metrics")
LONGEST_PATH = 200  # signs of an address in a log line
QUEUE_SECONDS = 5.0  # how long a count of the queue is shown before it is counted again
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
WORKER_STATES = ("none", "running", "reconnecting", "ended")

_PLAIN_ID = re.compile(r"(?!b4mr_)[A-Za-z0-9._-]{1,64}")
_PARAMETER = re.compile(r"<(?:[^<>:]+:)?([^<>]+)>")


# --- one request -------------------------------------------------------------------------------------------------------------


def begin() -> None:
    """Note the time, and name the request: by the caller's X-Request-ID where it is short and plain, else anew."""
    g.began = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _PLAIN_ID.fullmatch(sent) else os.urandom(8).hex()


def route() -> str:
    """The template of the address that was asked, as OpenAPI writes it."""
    rule = request.url_rule
    return NO_ROUTE if rule is None else _PARAMETER.sub(r"{\1}", rule.rule)


def log_outcome(response: Response, route: str, seconds: float) -> None:
    """One line a request; its level follows the outcome, and probes are only seen when debugging."""
    level = logging.ERROR if response.status_code >= 500 else logging.WARNING if response.status_code >= 400 else logging.INFO
    if level == logging.INFO and route in PROBES:
        level = logging.DEBUG
    if not log.isEnabledFor(level):
        return
    fields = {
        "method": request.method,
        "route": route,
        "path": _plain(request.path),
        "status": response.status_code,
        "milliseconds": round(1000 * seconds, 1),
        "key_id": g.get("key_id"),
        "request": g.request_id,
    }
    log.log(level, "%s", g.get("detail") or "answered a request", extra={"fields": fields})


def _plain(path: str) -> str:
    """An address that fits into a log line and forges no other, without anything that looks like a key."""
    shown = path if path.isprintable() else ascii(path)[1:-1]
    return without_keys(shown[:LONGEST_PATH])


class NamesRequests(logging.Filter):
    """Adds the request's id to whatever is logged while it is handled."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        if has_request_context() and "request_id" in g:
            record.fields = {**getattr(record, "fields", {}), "request": g.request_id}
        return True


# --- metrics -----------------------------------------------------------------------------------------------------------------


class Observed(Protocol):
    """What is looked at when somebody asks for metrics."""

    @property
    def live(self) -> Any:
        """The recommender in service."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What is in service, as plain values."""
        ...

    def worker_state(self) -> str:
        """The worker in one word."""
        ...

    def queue_depth(self) -> QueueDepth:
        """How much is open in the request table."""
        ...


class Stage:
    """Times what stands in a with statement."""

    __slots__ = ("_began", "_observe")

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self._observe(time.perf_counter() - self._began)


class Metrics:
    """Counters and histograms of one app, in a registry of its own."""

    def __init__(self, observed: Observed) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            f"{PREFIX}_request_seconds",
            "Time until an answer, by route and status.",
            ["route", "status"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            f"{PREFIX}_stage_seconds",
            "Time in one stage of answering; score and what follows it are of whole batches.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._batches = Histogram(
            f"{PREFIX}_batch_size", "Sequences scored together.", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self._answers = Counter(
            f"{PREFIX}_answers", "Answered sequences, by the kind of fallback.", ["fallback"], registry=self.registry
        )
        self._songs = Counter(f"{PREFIX}_songs_sent", "Songs of the answered sequences.", registry=self.registry)
        self._unknown = Counter(
            f"{PREFIX}_songs_unknown", "Songs of the answered sequences of which nothing is known.", registry=self.registry
        )
        self._limited = Counter(f"{PREFIX}_rate_limited", "Requests over the limit of their key.", registry=self.registry)
        self.registry.register(_States(observed))

    def stage(self, name: str) -> Stage:
        """A with statement whose time counts for a stage: prepare, score, rules, reasons."""
        return Stage(self._stages.labels(name).observe)

    def batch(self, size: int) -> None:
        """Note how many sequences were scored together."""
        self._batches.observe(size)

    def answered(self, answer: Answer) -> None:
        """Count an answer, whichever way it was asked for."""
        self._answers.labels(answer.fallback or "none").inc()
        self._songs.inc(answer.n_sent)
        self._unknown.inc(len(answer.unknown))

    def finish(self, response: Response) -> None:
        """Note and log what became of the request at hand."""
        seconds = time.perf_counter() - g.began
        asked = route()
        self._requests.labels(asked, str(response.status_code)).observe(seconds)
        if g.get("limited"):
            self._limited.inc()
        log_outcome(response, asked, seconds)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _States(Collector):
    """What is looked up at the moment somebody asks."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._guard = threading.Lock()
        self._depth: tuple[float, QueueDepth | None] = (float("-inf"), None)

    def collect(self) -> Iterator[Metric]:
        """The gauges of this moment."""
        yield from self._model()
        state = self._observed.worker_state()
        worker = GaugeMetricFamily(f"{PREFIX}_worker_state", "1 for what the worker beside the service is.", labels=["state"])
        for name in WORKER_STATES:
            worker.add_metric([name], float(name == state))
        yield worker
        yield from self._queue()

    def _model(self) -> Iterator[Metric]:
        live = self._observed.live
        info = None if live.recommender is None else live.recommender.info
        if info is not None:
            plain = info.as_json()
            yield InfoMetricFamily(
                f"{PREFIX}_model", "The model in service.", {name: str(value) for name, value in plain.items()}
            )
            age = time.time() - info.trained_at.timestamp()
            yield GaugeMetricFamily(f"{PREFIX}_model_age_seconds", "Since the model in service was trained.", value=age)
        state = self._observed.state()
        for name, sentence in (
            ("new_songs", "Songs of the database that can be recommended and were in no training."),
            ("catalogue_read_at", "When names, features and new songs were read from the database, in seconds since 1970."),
        ):
            if state.get(name) is not None:
                yield GaugeMetricFamily(f"{PREFIX}_{name}", sentence, value=float(state[name]))
        if state.get("index") is not None:
            yield InfoMetricFamily(f"{PREFIX}_index", "How the best songs are found.", {"kind": str(state["index"])})

    def _queue(self) -> Iterator[Metric]:
        depth = self._counted()
        if depth is None:
            return
        open_requests = GaugeMetricFamily(f"{PREFIX}_queue_requests", "Requests for playlists, by state.", labels=["state"])
        open_requests.add_metric(["queued"], depth.queued)
        open_requests.add_metric(["running"], depth.running)
        yield open_requests
        oldest = 0.0 if depth.oldest is None else max(0.0, time.time() - depth.oldest.timestamp())
        yield GaugeMetricFamily(f"{PREFIX}_queue_oldest_seconds", "Since the oldest open request was accepted.", value=oldest)

    def _counted(self) -> QueueDepth | None:
        """The queue as it was counted a few seconds ago at most; None while the database is away, and without one."""
        with self._guard:
            counted_at, depth = self._depth
            if time.monotonic() - counted_at > QUEUE_SECONDS:
                try:
                    depth = self._observed.queue_depth()
                except (DatabaseError, ServiceUnavailable):
                    depth = None
                self._depth = (time.monotonic(), depth)
            return depth
