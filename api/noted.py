"""What one process notes of its own answers, for the page's health panel: bounded, in memory, gone at its end.

The same is counted for Prometheus (`api.observing`); here are the newest answers and errors themselves.
"""

import logging
import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import numpy as np
from flask import Response, g, request

from api.observing import NO_ROUTE, route
from serving.answers import Answer

MOST_ERRORS = 20
MOST_TIMES = 1_000  # answers whose percentiles are told
RECENT_TIMES = 120
# What anybody may cause without a key, as often as they like: it would push out what matters.
UNNOTED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.MISDIRECTED_REQUEST)
WAYS_OUT: Mapping[int, str] = {
    400: "correct the request: sent again it fails again",
    403: "use a key that may do this",
    404: "ask for what there is: playlists, songs, models and addresses are named in the answers of their lists",
    409: "look at the models: one was refused, or there is none to go back to",
    413: "send less at once",
    415: "send application/json",
    422: "correct the request: sent again it fails again",
    429: "wait for Retry-After seconds, or let whoever runs the service raise the limit",
    500: "look into the log of the service for this time, and report it",
    503: "start the database or bring a model, then wait: the service comes back by itself",
}

_ECHO = re.compile(r" \(got .*\)")

log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Noted:
    """Counts and newest entries.  Any thread may note and read."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._answers: Counter[str | None] = Counter()
        self._sent = 0
        self._unknown = 0
        self._times: deque[float] = deque(maxlen=MOST_TIMES)  # milliseconds
        self._errors: OrderedDict[tuple[int, str, str], dict[str, Any]] = OrderedDict()  # the newest last

    def answered(self, answer: Answer) -> None:
        """Count an answer, whichever way it was asked for."""
        with self._guard:
            self._answers[answer.fallback] += 1
            self._sent += answer.n_sent
            self._unknown += len(answer.unknown)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around one answer: how long it took, unless it failed."""
        began = time.perf_counter()
        yield
        with self._guard:
            self._times.append(1000 * (time.perf_counter() - began))

    def finished(self, response: Response) -> None:
        """Keep the problem that the request at hand was answered with, if it was one; the same again counts, and is newest."""
        status = response.status_code
        if status < HTTPStatus.BAD_REQUEST or status in UNNOTED:
            return
        asked, detail = route(), g.get("detail")
        if detail is None or asked == NO_ROUTE:
            return
        told, detail = f"{request.method} {asked}", without_echo(detail)
        with self._guard:
            before = self._errors.pop((status, told, detail), None)
            self._errors[status, told, detail] = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "status": status,
                "route": told,
                "detail": detail,
                "way_out": WAYS_OUT.get(status),
                "times": 1 if before is None else before["times"] + 1,
            }
            while len(self._errors) > MOST_ERRORS:
                self._errors.popitem(last=False)

    def as_json(self) -> dict[str, Any]:
        """{"unknown": {...}, "latency": {...}, "fallback": {...}, "errors": [...]}, the newest error first."""
        with self._guard:
            answers, sent, unknown = dict(self._answers), self._sent, self._unknown
            times, errors = list(self._times), [dict(error) for error in reversed(self._errors.values())]
        by_kind = {str(kind): n for kind, n in answers.items() if kind is not None}
        n, fallbacks = sum(answers.values()), sum(by_kind.values())
        return {
            "unknown": {"sent": sent, "unknown": unknown, "share": unknown / sent if sent else None},
            "latency": _latency(times),
            "fallback": {"answers": n, "fallbacks": fallbacks, "share": fallbacks / n if n else None, "by_kind": by_kind},
            "errors": errors,
        }


def without_echo(detail: str) -> str:
    """What was wrong without what was sent, which is nobody else's business.

    >>> without_echo('songs.1: an id is an integer or a text (got {"name": "Anna (7)"})')
    'songs.1: an id is an integer or a text'
    """
    return _ECHO.sub("", detail)


def _latency(times: list[float]) -> dict[str, Any]:
    """Percentiles of the newest answers, and the newest of them one by one, oldest first."""
    percentiles = np.percentile(times, [50, 95, 99]).tolist() if times else [None] * 3
    rounded = [None if value is None else round(value, 2) for value in percentiles]
    named = dict(zip(("p50_ms", "p95_ms", "p99_ms"), rounded, strict=True))
    return {"n": len(times), **named, "recent_ms": [round(value, 2) for value in times[-RECENT_TIMES:]]}


class Looks(Generic[Found]):
    """Asks for something beside the requests: one thread at most, and whoever wants to know waits a bounded time.

    A database that has gone silent keeps the thread; those who ask are told None meanwhile.
    """

    def __init__(
        self,
        ask: Callable[[], Found],
        *,
        keep_seconds: float,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What `ask` may raise it turns into an answer itself, else it is logged; the answer is shown for `keep_seconds`."""
        self._ask, self._clock = ask, clock
        self._keep_seconds, self._patience_seconds = keep_seconds, patience_seconds
        self._guard = threading.Lock()
        self._found: tuple[float, Found] | None = None  # when it was found
        self._look: threading.Thread | None = None
        self._is_late = False

    def latest(self) -> Found | None:
        """What was found lately; None when a look takes longer than the patience."""
        found = self._fresh()
        if found is None:
            # Once somebody waited in vain, nobody else's thread waits for the same look.
            look = self._looking()
            look.join(0.0 if self._is_late else self._patience_seconds)
            found = self._fresh()
            self._is_late = found is None
        return None if found is None else found[1]

    def close(self) -> None:
        """Wait a moment for the look that is under way."""
        if self._look is not None:
            self._look.join(self._patience_seconds)

    def _fresh(self) -> tuple[float, Found] | None:
        found = self._found
        return found if found is not None and self._clock() - found[0] < self._keep_seconds else None

    def _looking(self) -> threading.Thread:
        with self._guard:
            if self._look is None or not self._look.is_alive():
                self._is_late = False
                self._look = threading.Thread(target=self._take, name="look", daemon=True)
                self._look.start()
            return self._look

    def _take(self) -> None:
        try:
            found = self._ask()
        except Exception:  # a thread has nobody to raise to: it would end with a word on stderr, and no one would know why
            log.exception("a look beside the requests has failed")
        else:
            self._found = (self._clock(), found)
