"""Malformed bodies and headers against the service over real sockets: nothing may be answered with 500, and nothing may hang.

    python -m benchmarks.fuzz --demo --port 0                     the demo's model, in a waitress of this process
    python -m benchmarks.fuzz --address http://127.0.0.1:4517     a service that runs; --key b4mr_...
    python -m benchmarks.fuzz --requests 500 --seed 7

The last line is one JSON object: {"requests", "answers_500", "hangs", "cut_off", "statuses", "seconds"}; the exit code is 1 when
there is an answer of 500, a hang, or no life afterwards.  `cut_off` counts requests that never end, which the client gives up.
"""

import argparse
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.served import add_service_arguments, address_of, app_of
from errors import exit_code_of

REQUESTS = 10_000
PATIENCE_SECONDS = 15.0  # an answer that takes longer is a hang
POSTS = (
    *("/recommend", "/v1/recommend", "/v1/recommend/batch", "/v1/feedback"),
    *("/v1/models/no/such/activate", "/v1/models/rollback"),
)
GETS = ("/v1/songs", "/v1/songs/1/similar", "/requests/1", "/v1/requests/1", "/v1/models", "/healthz", "/openapi/openapi.json")
BODIES: tuple[dict[str, Any], ...] = (
    {"songs": ["s00001", "s00002", 3], "count": 5, "exclude": ["s00003"], "explain": True},
    {"songs": ["s00001"], "ranges": {"tempo": {"min": 90, "max": 120}}, "order": "flow", "temperature": 0.5, "seed": 1},
    {"playlist_id": "p0001", "count": 3, "wait": False, "listener": "u"},
    {"sequences": [["s00001"], ["s00002", "s00003"]], "count": 2},
    {"listener": "u", "events": [{"event": "played", "song_id": "s00001", "happened_at": "2026-01-01T00:00:00Z"}]},
    {"challenger_id": "other", "share": 0.5},
    {},
)
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, -(2**63) - 1, 10**300, 0.5, 1e308, -0.0, float("nan"), float("inf")),
    *("", "\0", "\ud800", "é" * 300, "a" * 5_000, "1", "2026-13-45T99:99:99Z", "; DROP TABLE x", "b4mr_0_1"),
    *([], [[]], [None], [[[["s00001"]]]], {}, {"": {}}, {"min": 2, "max": 1}, list(range(500))),
)
CONTENT_TYPES = (
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "",
    "application/json;;;=",
    "\xff",
    "multipart/form-data",
)
HEADERS = (
    *(
        "Authorization: Bearer",
        "Authorization: Bearer b4mr__",
        "Authorization: Basic Og==",
        "Authorization: \xff\xfe",
        "Authorization:",
    ),
    *(
        "Idempotency-Key:",
        "Idempotency-Key: " + "k" * 300,
        "X-Request-ID: " + "x" * 500,
        "X-Request-ID: a b\tc",
        "Host:",
        "Host: \x00",
    ),
    *(
        "Expect: 100-continue",
        "Expect: nothing",
        "Connection: upgrade",
        "Transfer-Encoding: gzip",
        "Range: bytes=0-",
        "Cookie: =;=;",
    ),
    *(
        "X-Forwarded-For: ,,,",
        "Content-Encoding: gzip",
        "Accept: ;q=",
        "no colon",
        ": no name",
        "A" * 3_000 + ": b",
        "Nul: a\x00b",
    ),
)


@dataclass
class Outcome:
    """What the service answered."""

    statuses: Counter[str] = field(default_factory=Counter)
    hangs: int = 0
    cut_off: int = 0
    """Requests that never end: the client left."""

    @property
    def answers_500(self) -> int:
        """Answers that own up to a mistake of the service; 503 and 501 do not."""
        return self.statuses["500"]


# --- what is sent ------------------------------------------------------------------------------------------------------------


def requests_of(seed: int, key: str | None) -> Iterator[tuple[bytes, bool]]:
    """(bytes of a request, whether it ends), without end.  The same seed gives the same requests."""
    chance = random.Random(seed)
    kinds: tuple[Callable[[random.Random, list[str]], tuple[bytes, bool]], ...] = (
        _odd_body,
        _odd_body,
        _odd_head,
        _odd_line,
        _odd_length,
    )
    while True:
        head = [] if key is None else [f"Authorization: Bearer {key}"]
        yield chance.choice(kinds)(chance, head)


def _odd_body(chance: random.Random, head: list[str]) -> tuple[bytes, bool]:
    return _request(f"POST {chance.choice(POSTS)} HTTP/1.1", [*head, "Content-Type: application/json"], _body(chance)), True


def _odd_head(chance: random.Random, head: list[str]) -> tuple[bytes, bool]:
    lines = [*head, f"Content-Type: {chance.choice(CONTENT_TYPES)}", *chance.choices(HEADERS, k=chance.randrange(1, 4))]
    chance.shuffle(lines)
    return _request(f"POST {chance.choice(POSTS)} HTTP/1.1", lines, json.dumps(chance.choice(BODIES)).encode()), True


def _odd_line(chance: random.Random, head: list[str]) -> tuple[bytes, bool]:
    """Another method, address or version."""
    method = chance.choice(
        ("GET", "GET", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "CONNECT", "get", "B\x00D", "")
    )
    path = chance.choice((*GETS, *POSTS)) + chance.choice(
        (
            "",
            "/",
            "//",
            "/..",
            "/%2e%2e/%2f",
            "%00",
            "%ff%fe",
            "%",
            "%zz",
            "?q=%00",
            "?count=-1&count=x",
            "?q=" + "q" * 3_000,
            "?=&&=",
            "\xff",
            "#",
        )
    )
    version = chance.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "HTTP", ""))
    return _request(f"{method} {path} {version}", head), True


def _odd_length(chance: random.Random, head: list[str]) -> tuple[bytes, bool]:
    """A body whose length is not what the head says."""
    body = _body(chance)[:400]
    length, ends = chance.choice(
        ((0, True), (len(body) // 2, True), (-1, True), ("x", True), (10**30, True), (len(body) + 9, False))
    )
    lines = [*head, "Content-Type: application/json", f"Content-Length: {length}"]
    if chance.random() < 0.3:
        chunks = chance.choice((b"zz\r\n" + body, b"5\r\n" + body, b"ffffffffffffffffff\r\n" + body, b"0\r\n\r\n", b"-1\r\n\r\n"))
        return _head(f"POST {chance.choice(POSTS)} HTTP/1.1", [*lines[:-1], "Transfer-Encoding: chunked"]) + chunks, False
    return _head(f"POST {chance.choice(POSTS)} HTTP/1.1", lines) + body, ends


def _body(chance: random.Random) -> bytes:
    """A body that was right and is not any more."""
    body = dict(chance.choice(BODIES))
    for name in chance.sample(sorted(body), k=min(len(body), chance.randrange(3))):
        body[name] = chance.choice(ODD)
    if chance.random() < 0.3:
        body[chance.choice(("", "songs", "count", "wait", "seed", "filter", "only", "unknown", "__class__"))] = chance.choice(ODD)
    text = bytearray(json.dumps(body).encode())
    match chance.randrange(8):
        case 0:
            del text[chance.randrange(len(text)) :]
        case 1:
            text[chance.randrange(len(text))] = chance.randrange(256)
        case 2:
            text *= 2
        case 3:
            return b"[" * chance.randrange(1, 50_000)
        case 4:
            return chance.randbytes(chance.randrange(200))
    return bytes(text)


def _request(line: str, lines: Sequence[str], body: bytes = b"") -> bytes:
    return _head(line, [*lines, f"Content-Length: {len(body)}"]) + body


def _head(line: str, lines: Sequence[str]) -> bytes:
    return "\r\n".join((line, "Host: 127.0.0.1", "Connection: close", *lines, "", "")).encode("latin-1")


# --- what comes back ---------------------------------------------------------------------------------------------------------


def fuzz(address: str, *, requests: int, seed: int = 0, key: str | None = None) -> Outcome:
    """Send requests one after the other, each over a connection of its own."""
    outcome = Outcome()
    place = urlsplit(address)
    made_up = requests_of(seed, key)
    for _ in range(requests):
        sent, ends = next(made_up)
        with socket.create_connection((place.hostname, place.port), timeout=PATIENCE_SECONDS if ends else 0.05) as connection:
            _note(connection, sent, ends, outcome)
    return outcome


def _note(connection: socket.socket, sent: bytes, ends: bool, outcome: Outcome) -> None:
    try:
        connection.sendall(sent)
        answer = connection.recv(65_536)
        if answer.startswith(b"HTTP/1.1 100"):  # go on: the answer itself follows
            answer = answer.partition(b"\r\n\r\n")[2] or connection.recv(65_536)
    except TimeoutError:
        if ends:
            outcome.hangs += 1
        else:
            outcome.cut_off += 1
    except ConnectionError:  # the server closed before it had read all: its answer is lost on the way
        outcome.statuses["closed"] += 1
    else:
        status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/") else "closed"
        outcome.statuses[status] += 1


def is_alive(address: str, key: str | None) -> bool:
    """Whether the service still answers."""
    place = urlsplit(address)
    head = [] if key is None else [f"Authorization: Bearer {key}"]
    with socket.create_connection((place.hostname, place.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(_head("GET /healthz HTTP/1.1", head))
        return connection.recv(1_024).startswith(b"HTTP/1.1 200")


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description="Send malformed requests to the service.")
    add_service_arguments(parser)
    parser.add_argument("--address", help="http://host:port of a service that runs; default: one of this process")
    parser.add_argument("--key", help="an API key, where the service wants one")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    began = time.perf_counter()
    with _address(arguments) as address:
        outcome = fuzz(address, requests=arguments.requests, seed=arguments.seed, key=arguments.key)
        lives = is_alive(address, arguments.key)
    figures = {
        "requests": arguments.requests,
        "answers_500": outcome.answers_500,
        "hangs": outcome.hangs,
        "cut_off": outcome.cut_off,
        "statuses": dict(sorted(outcome.statuses.items())),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(figures))
    return 0 if lives and not outcome.answers_500 and not outcome.hangs else 1


@contextmanager
def _address(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.address:
        yield arguments.address
        return
    with app_of(arguments) as app, address_of(app) as address:
        yield address


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
