"""Who may ask: API keys, their limits, and the headers that keep browsers out of what is not theirs.

On loopback nobody needs a key; a request has to name loopback there, so that no web page gets through under a name of its own
that leads to this machine (DNS rebinding).  On any other address every route needs one, also /healthz and addresses that lead
nowhere, and what is refused is refused before its body is read.  The files of the page alone are open: they hold no data, and a
browser that opens an address sends no key.  A key is never written anywhere: its id is what logs name.
"""

import ipaddress
import logging
import math
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from flask import Response, g, request

from config import ServiceConfig
from errors import (
    DatabaseError,
    Forbidden,
    InvalidSequence,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorised,
    WrongHost,
)
from storage.keys import SECRET_BYTES, ApiKey, parts_of
from web import NAME as PAGE
from web import OPEN_ENDPOINTS
from web import POLICY as PAGE_POLICY

log = logging.getLogger(__name__)

# A revoked key is refused after REFRESH_SECONDS and one look at the database, also when nothing was asked for a long time.
REFRESH_SECONDS = 2.0
OLDEST_SECONDS = 3.0
PATIENCE_SECONDS = 1.0
MINUTE = 60.0
# Asked where no key has the id that was sent, so that both take as long.
NO_KEY = ApiKey(
    key_id="",
    name="",
    secret_hash=secrets.token_bytes(SECRET_BYTES),
    may_manage=False,
    requests_per_minute=None,
    created_at=datetime.now(UTC),
    expires_at=None,
)
_HOST = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]+)(?::[0-9]*)?", re.ASCII)  # name or address, and a port
MANAGED = frozenset({"manage.activate", "manage.roll_back"})

NEEDS_KEY = 'this service needs an API key: send the header "Authorization: Bearer b4mr_..."; whoever runs the service makes one'
WRONG_KEY = "the API key is unknown, expired or revoked: ask whoever runs the service for another"
NO_MANAGER = "this API key may not manage models: use one that was made for that"

LONGEST_HOST = 100  # signs of a Host header in a message
JSON_POLICY = "default-src 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)


class KeyRing:
    """The keys that count, read again every few seconds beside the requests; kept while the database is away."""

    def __init__(self, load: Callable[[], Sequence[ApiKey]], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`load` may raise DatabaseError and ServiceUnavailable."""
        self._load = load
        self._clock = clock
        self._guard = threading.Lock()
        self._keys: Mapping[str, ApiKey] | None = None  # None: never read
        self._looked_at = float("-inf")
        self._look: tuple[threading.Thread, float] | None = None  # the one under way and when it began
        self._failed = False

    def find(self, key_id: str) -> ApiKey | None:
        """The key with an id, None when there is none.  Raises ServiceUnavailable when keys could never be read."""
        age = self._clock() - self._looked_at
        if age >= REFRESH_SECONDS:
            look, began = self._looking()
            if age >= OLDEST_SECONDS:  # nothing was asked for a while: one short wait, then what is there counts
                look.join(max(0.0, PATIENCE_SECONDS - (self._clock() - began)))
        if self._keys is None:
            raise ServiceUnavailable("API keys cannot be checked: the database with the keys is away")
        return self._keys.get(key_id)

    def close(self) -> None:
        """Wait for the look that is under way."""
        if self._look is not None:
            self._look[0].join(PATIENCE_SECONDS)

    def _looking(self) -> tuple[threading.Thread, float]:
        with self._guard:
            if self._look is None or not self._look[0].is_alive():
                self._look = (threading.Thread(target=self._refresh, name="keys", daemon=True), self._clock())
                self._look[0].start()
            return self._look

    def _refresh(self) -> None:
        try:
            self._keys = {key.key_id: key for key in self._load()}
        except (DatabaseError, ServiceUnavailable) as exc:
            if not self._failed:
                log.warning("API keys cannot be read, those read before stay in force: %s", exc)
            self._failed = True
        else:
            self._failed = False
        self._looked_at = self._clock()


class MovingWindow:
    """How many requests each key made within the last minute; a batch counts as often as it has sequences.

    The package `limits` does the same, and starts a thread to tidy up with nearly every hit: 530 us at 90 requests a second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._hits: dict[str, deque[float]] = {}  # of known keys only, each at most as long as its limit

    def hit(self, key_id: str, limit: int, n: int = 1, *, counted: int = 0) -> float:
        """Count a request as `n` (`limit` at most), `counted` of which are counted already.

        0.0 when that is within the limit, else the seconds until there is room for all `n`; then no more is counted.
        """
        with self._guard:
            now = self._clock()
            hits = self._hits.setdefault(key_id, deque())
            while hits and hits[0] <= now - MINUTE:
                hits.popleft()
            if len(hits) + n - counted > limit:
                return hits[len(hits) + n - limit - 1] + MINUTE - now
            hits.extend([now] * (n - counted))
            return 0.0


class Access:
    """Decides before each request whether it is answered."""

    def __init__(self, config: ServiceConfig, load: Callable[[], Sequence[ApiKey]]) -> None:
        self.needs_key = config.require_key == "always" or not is_loopback(config.host)
        self._requests_per_minute = config.requests_per_minute
        self._ring = KeyRing(load)
        self._window = MovingWindow()

    def admit(self) -> None:
        """Let a request go on.

        Raises Unauthorised, TooManyRequests and Forbidden, and ServiceUnavailable until keys were read; WrongHost where no key is
        needed.
        """
        if not self.needs_key:
            _check_host(request.headers.get("Host"))
            return
        if request.endpoint in OPEN_ENDPOINTS and request.method in ("GET", "HEAD"):
            return
        key = self._key_of(request.headers.get("Authorization"))
        g.key_id, g.key_limit = key.key_id, key.requests_per_minute or self._requests_per_minute
        wait = math.ceil(self._window.hit(g.key_id, g.key_limit))
        if wait:
            told = f"the key {g.key_id} made its {g.key_limit} requests of this minute: ask again in {wait} s"
            raise TooManyRequests(told, retry_after_seconds=wait)
        if request.endpoint in MANAGED and not key.may_manage:
            raise Forbidden(NO_MANAGER)

    def count_batch(self, n: int) -> None:
        """Count each of `n` sequences of the request at hand; `admit` has counted one of them.

        Raises TooManyRequests, and InvalidSequence for more than fit into any minute.
        """
        if not self.needs_key or n <= 1:
            return
        if n > g.key_limit:
            raise InvalidSequence(
                f"the batch has {n} sequences, over the {g.key_limit} requests a minute of the key {g.key_id}: "
                "send them in several requests"
            )
        wait = math.ceil(self._window.hit(g.key_id, g.key_limit, n, counted=1))
        if wait:
            told = f"the {n} sequences are more than is left of the {g.key_limit} requests a minute of the key {g.key_id}"
            raise TooManyRequests(f"{told}: ask again in {wait} s", retry_after_seconds=wait)

    def close(self) -> None:
        """End what runs beside the requests."""
        self._ring.close()

    def _key_of(self, header: str | None) -> ApiKey:
        """The key that a header holds.  Raises Unauthorised."""
        if header is None:
            raise Unauthorised(NEEDS_KEY)
        scheme, _, text = header.partition(" ")
        key_id, secret = (parts_of(text.strip()) if scheme.lower() == "bearer" else None) or ("", "")
        key = self._ring.find(key_id)
        is_right = (key or NO_KEY).opens(secret)
        if key is None or not is_right or (key.expires_at is not None and key.expires_at <= datetime.now(UTC)):
            raise Unauthorised(WRONG_KEY)
        return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_host(host: str | None) -> None:
    """Let a Host header pass that names loopback, or none (HTTP/1.0): browsers always send the name that they looked up.

    Raises WrongHost.
    """
    found = None if host is None else _HOST.fullmatch(host)
    if host is not None and (found is None or not is_loopback(found[1].lower())):
        raise WrongHost(
            f"without keys only requests to localhost are answered (the Host header is {host[:LONGEST_HOST]!r}): "
            'ask 127.0.0.1, or have the service ask for keys (require_key = "always")'
        )


def secure(response: Response) -> None:
    """Security headers of every answer.  There is nothing that another site may read, so CORS has no header at all."""
    headers = response.headers
    for name, value in SECURITY_HEADERS:
        headers[name] = value
    if request.blueprint == PAGE:
        headers["Content-Security-Policy"] = PAGE_POLICY  # the page says itself how long it is kept
    elif request.blueprint in ("openapi", "swagger"):
        headers["Content-Security-Policy"] = swagger_policy()
    else:
        headers["Content-Security-Policy"] = JSON_POLICY
        headers["Cache-Control"] = "no-store"


def swagger_policy() -> str:
    """What the page to try the API needs: its own files, the inline script with this answer's nonce, inline styles and icons."""
    return (
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        f"script-src 'self' 'nonce-{nonce()}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def nonce() -> str:
    """What marks the inline script of this answer as ours."""
    if "nonce" not in g:
        g.nonce = secrets.token_urlsafe(16)
    value: str = g.nonce
    return value
