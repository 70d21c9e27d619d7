"""Micro-batches across threads without a timer.

Whoever is free takes what is waiting, scores it as one batch and hands each thread its answer.  Nobody waits for company: a lone
request is scored at once, and under load the batch is whatever came in while the last one was scored.  That beats a window of
2 ms up to 16 connections.
"""

import threading
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


class MicroBatcher(Generic[Query, Answer]):
    """Calls `answer_batch` for many threads, one batch at a time.

    `answer_batch` gets 1 to `largest_batch` queries and returns as many answers in their order.
    """

    def __init__(
        self, answer_batch: Callable[[Sequence[Query]], Sequence[Answer]], *, largest_batch: int = LARGEST_BATCH
    ) -> None:
        self._answer_batch = answer_batch
        self._largest_batch = largest_batch
        self._scoring = threading.Lock()  # held by the thread that scores; the others wait here for it to finish
        self._guard = threading.Lock()  # protects the line
        self._line: list[_Ticket[Query, Answer]] = []

    def submit(self, query: Query) -> Answer:
        """The answer to one query, from whichever thread scores it; raises what `answer_batch` raises."""
        ticket: _Ticket[Query, Answer] = _Ticket(query)
        with self._guard:
            self._line.append(ticket)
        with self._scoring:
            if not ticket.answers:
                self._score(self._take(ticket))
        return ticket.answers[0]

    def _take(self, own: _Ticket[Query, Answer]) -> list[_Ticket[Query, Answer]]:
        """The thread's own ticket and the oldest others, out of the line.

        A ticket whose batch failed in another thread's hands is in no line any more: its owner finds it unanswered and scores it
        again here, so that a failure is told to the thread that met it and to nobody else.
        """
        with self._guard:
            others = [ticket for ticket in self._line if ticket is not own][: self._largest_batch - 1]
            taken = [own, *others]
            self._line = [ticket for ticket in self._line if ticket not in taken]
        return taken

    def _score(self, tickets: list[_Ticket[Query, Answer]]) -> None:
        answers = self._answer_batch([ticket.query for ticket in tickets])
        for ticket, answer in zip(tickets, answers, strict=True):
            ticket.answers.append(answer)
