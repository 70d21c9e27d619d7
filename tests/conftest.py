"""A real PostgreSQL for every test that asks: the embedded server, or the one that the environment names.

Each test has a database of its own, cloned from a migrated template.  Tests of the queue run twice: on the direct way, and
through pgbouncer in transaction mode.  Where several processes share the tests each has a server of its own, since roles belong
to a server.
"""

import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from psycopg import sql

from database_urls import database_url_from
from storage.connections import Connection, connect, with_database
from storage.embedded import EmbeddedServer
from storage.migrate import migrate
from system import cores
from tests.places import SERVER
from tests.pooler import find_pgbouncer, running_pgbouncer, through

# Tests need no durability: a server that dies takes its test databases with it.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
MOST_PROCESSES = 4  # each may hold a PostgreSQL, a torch and a Chromium at once


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """A process for each core, and one alone on a server that is named; None leaves it to PYTEST_XDIST_AUTO_NUM_WORKERS."""
    if database_url_from(os.environ) is not None:
        return 1
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min(MOST_PROCESSES, len(cores()))


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The maintenance database of the server that the tests run on; its role may create databases."""
    named = database_url_from(os.environ)
    if named is not None:
        yield named
        return
    with EmbeddedServer(SERVER, settings=FAST) as server:
        yield server.maintenance_url


NewDatabase = Callable[[str | None], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def new_database(server_url: str) -> NewDatabase:
    """Makes databases out of a template (None: empty ones) that are gone after their with statement."""
    prefix = f"test_{os.getpid()}_{secrets.token_hex(3)}"
    numbers = itertools.count()

    @contextmanager
    def make(template: str | None) -> Iterator[str]:
        name = f"{prefix}_{next(numbers)}"
        with _administrating(server_url) as administrator:
            administrator.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template or "template0")))
            )
        try:
            yield with_database(server_url, name)
        finally:
            with _administrating(server_url) as administrator:
                administrator.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    return make


@pytest.fixture(scope="session")
def template_database(new_database: NewDatabase) -> Iterator[str]:
    """The name of a database with all migrations and no rows."""
    with new_database(None) as url:
        with connect(url) as connection:
            migrate(connection)
        yield url.rpartition("/")[2].partition("?")[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `pooled` that use a database take both ways to it; one marked `direct` needs a session of its own."""
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if "way" in metafunc.fixturenames and "pooled" in marks and "direct" not in marks:
        metafunc.parametrize("way", ["direct", "pgbouncer"], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Turns the URL of a database into the URL that the test uses."""
    if getattr(request, "param", "direct") == "direct":
        return str
    address = request.getfixturevalue("pgbouncer_address")
    return lambda url: through(address, url)


@pytest.fixture(scope="session")
def pgbouncer_address(server_url: str) -> Iterator[str]:
    """A pgbouncer in transaction mode before the tests' server."""
    program = find_pgbouncer()
    if program is None and "CI" in os.environ:
        pytest.fail("pgbouncer is missing: apt-get install pgbouncer")
    if program is None:
        pytest.skip("needs pgbouncer: apt-get install pgbouncer, brew install pgbouncer")
    with running_pgbouncer(program, server_url) as address:
        yield address


@pytest.fixture
def empty_database_url(new_database: NewDatabase) -> Iterator[str]:
    """A database without any of our schemas."""
    with new_database(None) as url:
        yield url


@pytest.fixture
def database_url(new_database: NewDatabase, template_database: str, way: Callable[[str], str]) -> Iterator[str]:
    """A migrated database of this test's own."""
    with new_database(template_database) as url:
        yield way(url)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to `database_url`; what is not committed is lost at the end."""
    with _patient(database_url) as opened:
        yield opened


@pytest.fixture
def another_connection(database_url: str) -> Iterator[Connection]:
    """A second connection to the same database, for what two race for."""
    with _patient(database_url) as opened:
        yield opened


@contextmanager
def _patient(url: str) -> Iterator[Connection]:
    """A connection that gives up on a lock after a while, so that a test which two connections block fails instead of hanging."""
    opened = connect(url)
    opened.execute("SET lock_timeout = '10s'")
    opened.commit()
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def _administrating(server_url: str) -> Iterator[Connection]:
    with connect(server_url) as administrator:
        administrator.autocommit = True  # databases are not made in transactions
        yield administrator
