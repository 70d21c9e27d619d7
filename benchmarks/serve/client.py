"""A load client that costs little: requests are bytes before it begins, and of an answer it reads the few fields that it counts.

    python -m benchmarks.serve.client PLAN.json RECORDS.bin

It shares its cores with the server, so it is a process of its own, with one thread and nothing but the standard library.  One
line of JSON tells its own cost at the end.  SIGTERM ends it early, with everything that was answered by then in the file.

Two kinds of load.  Without a `rate` the loop is closed: each connection asks again once it was answered, which finds the largest
throughput.  With a `rate` it is open: requests are due at random times (a Poisson process) whatever the server does, and an
answer took as long as it came after the time at which its request was due, waiting for a free connection included.  A server
that stops for a second so has all requests of that second against it, not one for each connection ("coordinated omission").
"""

import json
import random
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

HEAD_END = b"\r\n\r\n"
RECORD = struct.Struct("<ddHBB")  # when it was due (CLOCK_MONOTONIC), seconds that it took, status (0: none came), kind, flags
IS_RIGHT, HAS_RETRY_AFTER = 1, 2  # flags: a wanted status with the wanted number of songs; the server said when to come back
FLUSH_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 0.25  # between two looks for answers that do not come
REFUSED_SECONDS = 0.01  # a pause after a connection that was refused
SAMPLES_KEPT = 5  # different wrong answers that the last line repeats
SAMPLE_BYTES = 300
READ_BYTES = 262_144


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to send, and what a right answer looks like."""

    kind: int = 0  # 0 to 255: requests of one kind are counted together
    method: str = "POST"
    path: str
    body: Any = None  # sent as JSON; None sends none
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: Sequence[int] = (200,)
    songs: int | None = None  # ranked songs that an answer of 200 must hold; None: any number

    def as_bytes(self, host: str) -> bytes:
        """The request on the wire, HTTP/1.1 with the connection kept."""
        content = b"" if self.body is None else json.dumps(self.body).encode()
        headers = {"Host": host, **self.headers}
        if self.body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + HEAD_END + content


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """How to ask; the requests are sent in their order, over and over."""

    port: int
    requests: Sequence[Request]
    host: str = "127.0.0.1"
    connections: int = 16
    seconds: float
    rate: float | None = None  # requests a second, None: as many as are answered
    patience_seconds: float = 30.0  # an answer that takes longer is a failure
    seed: int = 0  # of the times at which requests are due

    def as_json(self) -> str:
        """As the client reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "LoadPlan":
        """The inverse of `as_json`."""
        plain = json.loads(text)
        return cls(**plain | {"requests": [Request(**request) for request in plain["requests"]]})


# --- answers -----------------------------------------------------------------------------------------------------------------


def answer_end(buffer: bytearray) -> int | None:
    """Where the first answer in a buffer ends; None while there is more to come.

    Raises ValueError for an answer without a Content-Length: its end could not be told.
    """
    head = buffer.find(HEAD_END)
    if head < 0:
        return None
    length = header(buffer[: head + 2], b"content-length")
    if length is None:
        raise ValueError("an answer without Content-Length")
    end = head + len(HEAD_END) + int(length)
    return end if len(buffer) >= end else None


def header(head: bytes | bytearray, name: bytes) -> bytes | None:
    """The value of a header, whose name is given in lower case; None where the head has none.

    >>> header(b"HTTP/1.1 200 OK\\r\\nRetry-After: 5\\r\\n", b"retry-after")
    b'5'
    """
    place = head.lower().find(b"\r\n" + name + b":")
    if place < 0:
        return None
    begin = place + len(name) + 3
    return bytes(head[begin : head.find(b"\r\n", begin)]).strip()


def status_of(answer: bytes | bytearray) -> int:
    """The status of an answer that is whole.

    >>> status_of(b"HTTP/1.1 503 Service Unavailable\\r\\n")
    503
    """
    return int(answer[9:12])


def songs_in(answer: bytes | bytearray) -> int:
    """Ranked songs in an answer: each has one rank, and nothing else has."""
    return answer.count(b'"rank":')


def is_closing(answer: bytes | bytearray) -> bool:
    """Whether the server closes the connection after this answer."""
    value = header(answer[: answer.find(HEAD_END) + 2], b"connection")
    return value is not None and value.lower() == b"close"


def flags_of(answer: bytes | bytearray, request: Request) -> int:
    """What is noted of an answer beside its status."""
    status = status_of(answer)
    if status in request.statuses:
        is_whole = status != 200 or request.songs is None or songs_in(answer) == request.songs
        return IS_RIGHT if is_whole else 0
    has_hint = header(answer[: answer.find(HEAD_END) + 2], b"retry-after") is not None
    return HAS_RETRY_AFTER if has_hint else 0


def due_times(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds from the beginning at which requests are due: a Poisson process."""
    rng, due = random.Random(seed), 0.0
    while (due := due + rng.expovariate(rate)) < seconds:
        yield due


# --- the load ----------------------------------------------------------------------------------------------------------------


class _Lane:
    """One connection and the request that is under way on it."""

    def __init__(self, address: tuple[str, int], patience_seconds: float) -> None:
        self._address, self._patience_seconds = address, patience_seconds
        self.socket: socket.socket | None = None
        self.buffer = bytearray()
        self.request: Request | None = None  # None: idle
        self.due = self.sent = 0.0

    def open(self) -> socket.socket:
        """Connect.  Raises OSError."""
        self.socket = socket.create_connection(self._address, self._patience_seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.socket

    def close(self) -> None:
        """Drop the connection and what has come on it."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self.buffer, self.request = None, bytearray(), None

    def read(self) -> bool:
        """Take what has come; False when the server closed the connection."""
        assert self.socket is not None
        try:
            read = self.socket.recv(READ_BYTES)  # something has come, so this does not wait
        except OSError:
            return False
        self.buffer += read
        return bool(read)


class Load:
    """One run of a plan; `run` returns when all is answered, or given up."""

    def __init__(self, plan: LoadPlan, records: BinaryIO) -> None:
        self._plan, self._records = plan, records
        host = f"{plan.host}:{plan.port}"
        self._wires = [(request, request.as_bytes(host)) for request in plan.requests]
        self._asked = 0
        self._selector = selectors.DefaultSelector()
        self._idle = deque(_Lane((plan.host, plan.port), plan.patience_seconds) for _ in range(plan.connections))
        self._busy: set[_Lane] = set()
        self._noted, self._flushed = bytearray(), 0.0
        self._is_stopped = False
        self._began = self._end = 0.0
        self.samples: list[str] = []

    def stop(self, *_: object) -> None:
        """Ask nothing more."""
        self._is_stopped = True

    def run(self) -> dict[str, Any]:
        """Send and count; returns the client's own cost."""
        for lane in self._idle:
            self._open(lane)
        self._began, cpu = time.monotonic(), time.process_time()
        self._end = self._began + self._plan.seconds
        dues = self._dues()
        due = next(dues, None)
        while (due is not None or self._busy) and time.monotonic() < self._end + self._plan.patience_seconds:
            due = self._ask_what_is_due(due, dues)
            self._wait(due)
            self._give_up()
            self._flush()
        self._give_up(everything=True)
        self._miss(due, dues)
        wall, spent = time.monotonic() - self._began, time.process_time() - cpu
        self._flush(at_once=True)
        return {"began": self._began, "wall_s": wall, "cpu_s": spent, "cpu_share": spent / wall, "samples": self.samples}

    def close(self) -> None:
        """Drop all connections."""
        for lane in self._idle:
            self._close(lane)
        self._selector.close()

    def _dues(self) -> Iterator[float]:
        """When each request is due, on the clock; in a closed loop at once, until the end."""
        if self._plan.rate is not None:
            yield from (self._began + due for due in due_times(self._plan.rate, self._plan.seconds, self._plan.seed))
            return
        while (now := time.monotonic()) < self._end:
            yield now

    def _ask_what_is_due(self, due: float | None, dues: Iterator[float]) -> float | None:
        """Send as long as a request is due and a connection free; returns when the next one is due, None: there is none."""
        while due is not None and self._idle and not self._is_stopped:
            if self._plan.rate is None:
                due = time.monotonic()  # it has waited for a connection, which is the client's affair in a closed loop
            if due > time.monotonic():
                break
            self._ask(due)
            due = next(dues, None)
        return None if self._is_stopped else due

    def _miss(self, due: float | None, dues: Iterator[float]) -> None:
        """Requests of an open loop that found no free connection until the very end have failed like those without an answer."""
        while due is not None and self._plan.rate is not None:
            request, _ = self._next()
            self._write(request, due, time.monotonic() - due, 0, 0)
            due = next(dues, None)

    def _open(self, lane: _Lane) -> None:
        """Connect; a server that cannot be reached leaves the lane without a socket."""
        with suppress(OSError):
            self._selector.register(lane.open(), selectors.EVENT_READ, lane)

    def _close(self, lane: _Lane) -> None:
        if lane.socket is not None:
            self._selector.unregister(lane.socket)
        lane.close()

    def _next(self) -> tuple[Request, bytes]:
        self._asked += 1
        return self._wires[(self._asked - 1) % len(self._wires)]

    def _ask(self, due: float) -> None:
        """Send the next request on the connection that has been idle for longest."""
        lane = self._idle.popleft()
        lane.request, wire = self._next()
        lane.due, lane.sent = due, time.monotonic()
        self._busy.add(lane)
        try:
            if lane.socket is None:
                self._open(lane)
            if lane.socket is None:
                time.sleep(REFUSED_SECONDS)
                raise ConnectionRefusedError
            lane.socket.sendall(wire)
        except OSError as exc:
            self._fail(lane, f"not sent: {exc!r}")

    def _wait(self, due: float | None) -> None:
        """Until something comes, the next request is due or it is time to look for answers that do not come."""
        is_free = due is not None and bool(self._idle)
        seconds = max(0.0, due - time.monotonic()) if due is not None and is_free else LONGEST_WAIT_SECONDS
        for key, _ in self._selector.select(min(seconds, LONGEST_WAIT_SECONDS)):
            self._hear(key.data)

    def _hear(self, lane: _Lane) -> None:
        """Read what has come on a connection, and note the answer when it is whole."""
        is_open = lane.read()
        if lane.request is None:
            if not is_open or lane.buffer:
                self._close(lane)  # a server may close what is idle; the next request opens it again
            return
        try:
            end = answer_end(lane.buffer)
        except ValueError as exc:
            self._fail(lane, str(exc))
            return
        if end is not None:
            self._note(lane, lane.buffer[:end])
        elif not is_open:
            self._fail(lane, "the connection was closed before the answer was whole")

    def _note(self, lane: _Lane, answer: bytearray) -> None:
        assert lane.request is not None
        took, flags = time.monotonic() - lane.due, flags_of(answer, lane.request)
        self._write(lane.request, lane.due, took, status_of(answer), flags)
        if not flags & IS_RIGHT:
            content = bytes(answer[answer.find(HEAD_END) + len(HEAD_END) :][:SAMPLE_BYTES]).decode("utf-8", "replace")
            self._sample(f"{lane.request.path}: {status_of(answer)} {content}")
        lane.request, lane.buffer = None, bytearray()
        if is_closing(answer):
            self._close(lane)
        self._free(lane)

    def _fail(self, lane: _Lane, why: str) -> None:
        """Note a request that has no answer; its connection is of no use any more."""
        assert lane.request is not None
        self._write(lane.request, lane.due, time.monotonic() - lane.due, 0, 0)
        self._sample(why)
        self._close(lane)
        self._free(lane)

    def _free(self, lane: _Lane) -> None:
        self._busy.discard(lane)
        self._idle.append(lane)

    def _give_up(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        for lane in [lane for lane in self._busy if everything or now - lane.sent > self._plan.patience_seconds]:
            self._fail(lane, f"no answer within {now - lane.sent:.1f} s")

    def _write(self, request: Request, due: float, took: float, status: int, flags: int) -> None:
        self._noted += RECORD.pack(due, took, status, request.kind, flags)

    def _sample(self, text: str) -> None:
        if len(self.samples) < SAMPLES_KEPT and text not in self.samples:
            self.samples.append(text)

    def _flush(self, *, at_once: bool = False) -> None:
        """Hand on what was noted, so that others can follow."""
        now = time.monotonic()
        if at_once or now - self._flushed > FLUSH_SECONDS:
            self._records.write(self._noted)
            self._records.flush()
            self._noted, self._flushed = bytearray(), now


def main(argv: Sequence[str]) -> int:
    plan_file, records_file = map(Path, argv)
    plan = LoadPlan.read(plan_file.read_text(encoding="utf-8"))
    with records_file.open("wb") as records:
        load = Load(plan, records)
        signal.signal(signal.SIGTERM, load.stop)
        print(json.dumps(load.run()))
        load.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
