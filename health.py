"""Ask the service, or the database, whether all is well: for HEALTHCHECK, a supervisor, or a person.

    python health.py             alive: the service answers HTTP, whatever it answers (401 without a key as well)
    python health.py --ready     ready: /readyz answers 200; the key is read from the environment, BERT4MUSICREC_API_KEY
    python health.py --worker    a worker of this machine or container holds its connection to the database

Exit code 0: yes; 1: no, or not to be known.  `python cli.py health` is the same; it loads all of the project first, 5 s of CPU
time instead of 0.2, so whatever asks again and again runs this file.
"""

import argparse
import http.client
import os
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from config import ServiceConfig
from errors import BERT4MusicRecError, ConfigError, DatabaseUnreachable, ServiceUnavailable, exit_code_of
from settings import API_KEY_VARIABLE, load_config
from storage.connections import address_of, connect
from storage.sessions import has_session_beside

TIMEOUT_SECONDS = 3.0
LONGEST_TOLD = 500  # bytes of an answer that are shown


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line and return 0 or 1; never 2, which HEALTHCHECK reserves."""
    parser = argparse.ArgumentParser(prog="health.py", description="Whether the service, or its worker, is well.")
    parser.add_argument("--url", help="address of the service (default: host and port of the settings)")
    parser.add_argument("--timeout-seconds", type=float, default=TIMEOUT_SECONDS, metavar="S", help="patience, at each step")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--ready", action="store_true", help="also whether model, database and worker are there")
    what.add_argument("--worker", action="store_true", help="instead whether a worker of this machine has its database")
    arguments = parser.parse_args(argv)
    try:
        if arguments.worker:
            print(check_worker(arguments.timeout_seconds))
        else:
            url = arguments.url or address_of_service(load_config().service)
            print(check_service(url, is_ready=arguments.ready, timeout_seconds=arguments.timeout_seconds))
    except BERT4MusicRecError as exc:
        print(f"unhealthy: {exc}", file=sys.stderr)
        return 1
    return 0


def check_service(url: str, *, is_ready: bool, timeout_seconds: float) -> str:
    """What the service at `url` answered, in one line.

    Alive is what answers HTTP at all.  `is_ready` wants 200 from /readyz.  Redirects are not followed and no proxy of the
    environment is asked, so that the key goes nowhere else.  Raises ServiceUnavailable with the reason, and ConfigError.
    """
    path = "/readyz" if is_ready else "/healthz"
    try:
        status, told = _get(url, path, timeout_seconds)
    except (OSError, http.client.HTTPException) as exc:
        raise ServiceUnavailable(f"no answer from {url}{path}: {exc or type(exc).__name__}") from exc
    if is_ready and status != http.HTTPStatus.OK:
        way_out = f": set {API_KEY_VARIABLE} to a key" if status == http.HTTPStatus.UNAUTHORIZED else ""
        raise ServiceUnavailable(f"{url}{path} answers {status}{way_out} {told}".rstrip())
    return f"{'ready' if is_ready else 'alive'}: {url}{path} answers {status}"


def check_worker(timeout_seconds: float) -> str:
    """That a worker holds its connection, in one line.

    It is known by its role and address, so the service's own connections from the same machine count as well; in a container
    there are none.  Raises ConfigError where no server is named, DatabaseError where there is no such connection, or no answer.
    """
    url = load_config().database.url
    if url is None:
        raise ConfigError("no database is named: set DATABASE_URL as the worker has it")
    with connect(url, connect_timeout_seconds=max(1, round(timeout_seconds))) as connection:
        if not has_session_beside(connection):
            raise DatabaseUnreachable(f"no worker of this machine is connected to {address_of(url)}")
    return f"a worker of this machine is connected to {address_of(url)}"


def address_of_service(settings: ServiceConfig) -> str:
    """Where to ask a service with these settings, from its own machine.

    >>> address_of_service(ServiceConfig(host="0.0.0.0", port=80)), address_of_service(ServiceConfig(host="::"))
    ('http://127.0.0.1:80', 'http://[::1]:4517')
    """
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _get(url: str, path: str, timeout_seconds: float) -> tuple[int, str]:
    """Status and beginning of what stands at a path.  Raises OSError or HTTPException."""
    try:
        parts = urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        connection = kinds[parts.scheme](parts.hostname or "", parts.port, timeout=timeout_seconds)
    except (KeyError, ValueError) as exc:
        raise ConfigError(f"url must be like http://127.0.0.1:4517 (got {url!r})") from exc
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers=_headers())
        response = connection.getresponse()
        return response.status, " ".join(response.read(LONGEST_TOLD).decode(errors="replace").split())
    finally:
        connection.close()


def _headers() -> dict[str, str]:
    """The key of the environment, where there is one; never part of a message."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):  # http.client would say so too, and repeat the key
        raise ConfigError(f"{API_KEY_VARIABLE} holds signs that no key has")
    return {"Authorization": f"Bearer {key}"}


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
