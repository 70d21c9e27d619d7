"""Ways to PostgreSQL: which server, one connection, a pool, and its errors as ours.

Rests on psycopg 3 and on `storage.embedded` for the server of our own.  No message of this module holds a password.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool

from config import DatabaseConfig
from errors import DatabaseError, DatabaseUnreachable, SchemaError
from storage.embedded import EmbeddedServer

APPLICATION_NAME = "bert4musicrec"  # shown in pg_stat_activity

Connection = psycopg.Connection[tuple[Any, ...]]
Pool = ConnectionPool[Connection]

# Settings of every connection.  No server-side prepared statements of psycopg's own making: behind a pooler in transaction mode
# the next statement may meet another server process, which does not know them.
_CONNECTION_SETTINGS: dict[str, Any] = {
    "application_name": APPLICATION_NAME,
    "prepare_threshold": None,
    # A server whose packets are dropped is given up after about 10 seconds; by default Linux tries for two hours and more.
    "keepalives": 1,
    "keepalives_idle": 5,  # seconds
    "keepalives_interval": 2,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}

# Whatever the database's default is: a claim under REPEATABLE READ fails on each row that another worker was quicker to take, and
# a key that was just committed is not seen.
_ISOLATION_LEVEL = psycopg.IsolationLevel.READ_COMMITTED

# What an operational error means when it is about the way to the server: connection exceptions (08), wrong login (28),
# unknown database (3D), a server that shuts down or starts (57P).
_UNREACHABLE_STATES = ("08", "28", "3D", "57P")


@contextmanager
def database_url(config: DatabaseConfig, database: str | None = None) -> Iterator[str]:
    """The URL to work with: the configured one, else `database` on the embedded server, which runs while this is held.

    `database` None means the settings' `embedded_database`.  A database that the embedded server does not have yet is created,
    empty.  Raises DatabaseError when that server cannot start.
    """
    if config.url is not None:
        yield config.url
        return
    with EmbeddedServer(config.local_folder) as server:
        name = database or config.embedded_database
        create_database(server.maintenance_url, name)
        yield server.database_url(name)


def connect(url: str, *, connect_timeout_seconds: int = 10) -> Connection:
    """Open a connection whose transactions are the caller's; as a context manager it commits at its end and closes.

    Raises DatabaseUnreachable, in one line and without the password, when there is no server, login or database.
    """
    return _connect(url, connect_timeout_seconds, autocommit=False)


def open_pool(url: str, *, min_size: int = 1, max_size: int = 8, connect_timeout_seconds: int = 10) -> Pool:
    """Open a pool whose connections are checked when handed out, so that a restarted server is met with a new connection.

    Close it with `.close()` or a with statement.  Raises DatabaseUnreachable at once when the first connection fails;
    later, `pool.connection()` raises PoolTimeout, which `expected_errors` turns into DatabaseUnreachable.
    """
    connect(url, connect_timeout_seconds=connect_timeout_seconds).close()
    pool: Pool = ConnectionPool(
        url,
        min_size=min_size,
        max_size=max_size,
        timeout=connect_timeout_seconds,
        kwargs={**_CONNECTION_SETTINGS, "connect_timeout": connect_timeout_seconds},
        check=ConnectionPool.check_connection,
        configure=_isolate,
        name=APPLICATION_NAME,
        open=False,
    )
    pool.open()
    return pool


@contextmanager
def expected_errors() -> Iterator[None]:
    """Turn what a database may well answer into our family: it went away, a table, column or right is missing, bad SQL."""
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction, errors.InvalidSchemaName) as exc:
        raise SchemaError(f"{_first_line(exc)}: run python cli.py migrate on this database, or correct the query files") from exc
    except errors.InsufficientPrivilege as exc:
        raise SchemaError(f"{_first_line(exc)}: the owner grants it to this role, as storage/setup.sql does") from exc
    except psycopg.ProgrammingError as exc:
        raise SchemaError(f"{_first_line(exc)}: correct the query files") from exc
    except psycopg.OperationalError as exc:
        if exc.sqlstate is None or exc.sqlstate.startswith(_UNREACHABLE_STATES):
            raise DatabaseUnreachable(f"the database went away: {_first_line(exc)}") from exc
        raise DatabaseError(f"the database could not carry on: {_first_line(exc)}") from exc


def create_database(url: str, name: str) -> None:
    """Create database `name` on the server of `url` unless it is there already; another process may do the same meanwhile."""
    with _connect(url, 10, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone():
            return
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            return


def with_database(url: str, name: str) -> str:
    """The same server and login with another database.

    >>> with_database("postgresql://me@db:5433/music?sslmode=require", "other")
    'postgresql://me@db:5433/other?sslmode=require'
    """
    return urlsplit(url)._replace(path=f"/{quote(name, safe='')}").geturl()


def address_of(url: str) -> str:
    """Who and where a URL points to, for messages: never the password.

    >>> address_of("postgresql://me:secret@db:5433/music")
    'me@db:5433/music'
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "an address that cannot be read"
    login = f"{parts['user']}@" if "user" in parts else ""
    port = f":{parts['port']}" if "port" in parts else ""
    return f"{login}{parts.get('host', 'localhost')}{port}/{parts.get('dbname', '')}"


def _connect(url: str, connect_timeout_seconds: int, *, autocommit: bool) -> Connection:
    _require_readable(url)
    try:
        opened: Connection = psycopg.connect(
            url, autocommit=autocommit, connect_timeout=connect_timeout_seconds, **_CONNECTION_SETTINGS
        )
    except psycopg.OperationalError as exc:
        reason = _first_line(exc).removeprefix("connection failed: ")
        raise DatabaseUnreachable(
            f"no connection to {address_of(url)}: {reason}; check that the server runs and that DATABASE_URL is right"
        ) from exc
    _isolate(opened)
    return opened


def _isolate(connection: Connection) -> None:
    connection.isolation_level = _ISOLATION_LEVEL


def _require_readable(url: str) -> None:
    """Refuse what libpq cannot parse, or parses wrongly, without repeating any of it: the odd part is often the password."""
    try:
        host = conninfo_to_dict(url).get("host") or ""
    except psycopg.ProgrammingError:
        host = "@"
    if "@" in str(host):  # libpq ends the password at its first @, and takes the rest for the host
        raise DatabaseUnreachable(
            "the database url cannot be read: write postgresql://user:password@host:port/name, "
            "and @ : / within the password as %40 %3A %2F"
        )


def _first_line(exc: psycopg.Error) -> str:
    """What the server or libpq said, in one line without a full stop."""
    said = exc.diag.message_primary or str(exc)
    return " ".join(said.split()).rstrip(".")
