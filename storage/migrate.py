"""The schema, as numbered SQL files that are applied once, in order, and remembered in recommender.schema_migration.

Everything that is pending is applied in the caller's transaction together with its record: either all of it is there after the
commit, or none.  Run by the owner of the database; the service's role never comes here.
"""

import hashlib
import itertools
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

from errors import SchemaError
from storage.connections import Connection
from storage.named import SQL_FOLDER, as_statement, queries

log = logging.getLogger(__name__)

MIGRATIONS_FOLDER = Path(__file__).resolve().parent / "migrations"

_SQL = queries(SQL_FOLDER / "migrate.sql")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text; line endings are Python's, so a checkout on another system has the same one."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrate(connection: Connection, folder: Path = MIGRATIONS_FOLDER) -> list[int]:
    """Apply what is pending and return its numbers; the caller commits.

    A second migrator waits for the first one's commit and then finds nothing to do.  Raises SchemaError when an applied file was
    edited, when the database knows migrations that this project does not, when a file's SQL fails, or the role may not create.
    """
    assert not connection.autocommit, "the lock and the record need one transaction around them"
    connection.execute(_SQL["lock"])
    todo = _pending(connection, folder)
    if todo:
        _execute(connection, _SQL["create_record"], "the table of migrations")
    for migration in todo:
        _execute(connection, migration.text, migration.name)
        connection.execute(_SQL["record"], vars(migration) | {"checksum": migration.checksum})
        log.info("applied migration %s", migration.name)
    return [migration.version for migration in todo]


def pending(connection: Connection, folder: Path = MIGRATIONS_FOLDER) -> list[int]:
    """The numbers that `migrate` would apply; changes nothing.  Raises SchemaError like it."""
    return [migration.version for migration in _pending(connection, folder)]


def migrations_in(folder: Path = MIGRATIONS_FOLDER) -> list[Migration]:
    """The files called like 0001_music.sql, in order.  Raises SchemaError when a number is used twice."""
    found = [
        Migration(version=int(match[1]), name=path.name, text=path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.sql"))
        if (match := re.match(r"(\d{4})_", path.name))
    ]
    for before, after in itertools.pairwise(found):
        if before.version == after.version:
            raise SchemaError(f"{before.name} and {after.name} have the same number: rename one of them")
    return found


def _pending(connection: Connection, folder: Path) -> list[Migration]:
    applied = _applied(connection)
    known = migrations_in(folder)
    unknown = sorted(set(applied) - {migration.version for migration in known})
    if unknown:
        raise SchemaError(f"the database has migration {unknown[0]}, which this project does not know: update the project")
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise SchemaError(
                f"{migration.name} was edited after it had been applied: restore it and put the change into a new file"
            )
    return [migration for migration in known if migration.version not in applied]


def _applied(connection: Connection) -> dict[int, str]:
    """Checksum by number; empty when the database was never migrated."""
    row = connection.execute(_SQL["record_exists"]).fetchone()
    if row != (True,):
        return {}
    return dict(connection.execute(_SQL["applied"]).fetchall())


def _execute(connection: Connection, text: str, name: str) -> None:
    try:
        connection.execute(as_statement(text))
    except psycopg.errors.InsufficientPrivilege as exc:
        raise SchemaError(
            f"{name} cannot be applied: {exc.diag.message_primary}; run the migrations as the database's owner"
        ) from exc
    except psycopg.ProgrammingError as exc:
        raise SchemaError(f"{name} cannot be applied: {exc.diag.message_primary}") from exc
