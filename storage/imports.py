"""Imported rows on their way into the schema `music`: staged in temporary tables, checked, brought.

The order of the calls is that of `importers.load`.  Every function takes a connection first and leaves the commit to its caller;
the temporary tables end with the transaction, so the connection must not be in autocommit mode.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from psycopg.rows import class_row

from storage.connections import Connection
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "imports.sql")

Row = TypeVar("Row")
Staged = Literal["songs", "playlists", "rows"]
"""The three temporary tables that are copied into."""


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Rows that were left out because an earlier one has their key; `first_line` is None when there are none."""

    count: int
    first_line: int | None


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An id that is in use, and the source under which it came; None: somebody's own row."""

    id: str
    source: str | None


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What became of the staged rows of one table; the rest of `staged` was there already."""

    staged: int
    added: int
    updated: int
    removed: int = 0


def wait_for_others(connection: Connection) -> None:
    """Wait for imports that others have under way; from here on they wait for this transaction."""
    assert not connection.autocommit, "the lock and temporary tables would end with each statement"
    connection.execute(_SQL["lock_imports"])


def begin(connection: Connection) -> None:
    """Wait for imports that others have under way, and make the temporary tables, empty."""
    wait_for_others(connection)
    connection.execute(_SQL["drop_staging"])
    connection.execute(_SQL["create_staging"])


def copy(connection: Connection, table: Staged, blocks: Iterable[str]) -> None:
    """Copy blocks of CSV lines (columns as in imports.sql, no header, empty for NULL) into a temporary table."""
    with connection.cursor() as cursor, cursor.copy(_SQL[f"copy_{table}"]) as sink:
        for block in blocks:
            sink.write(block)


def prefix_ids(connection: Connection, prefix: str) -> None:
    """Put `prefix` before every id that is staged."""
    for table in ("songs", "playlists", "rows"):
        connection.execute(_SQL[f"prefix_{table}"], {"prefix": prefix})


def drop_repeated(connection: Connection, table: Literal["songs", "playlists"]) -> Repeated:
    """Keep the first staged row of each song or playlist."""
    return _one(connection, f"drop_repeated_{table}", Repeated)


def place_rows(connection: Connection, order: Literal["position", "time"]) -> Repeated:
    """Give the staged rows their places: those they name (the first wins), or 0, 1, 2, ... by time and then line."""
    connection.execute(_SQL[f"place_by_{order}"])
    return _one(connection, "rows_without_place", Repeated)


def complete_staging(connection: Connection) -> int:
    """Stage the songs and playlists that only rows name; returns how many songs."""
    bare_songs = connection.execute(_SQL["stage_bare_songs"]).rowcount
    connection.execute(_SQL["stage_bare_playlists"])
    connection.execute(_SQL["analyze_staging"])
    return bare_songs


def foreign(connection: Connection, table: Literal["song", "playlist"], source: str) -> Foreign | None:
    """The first staged id that another source has brought before, or None."""
    with connection.cursor(row_factory=class_row(Foreign)) as cursor:
        return cursor.execute(_SQL[f"{table}_of_another_source"], {"source": source}).fetchone()


def bring_artists(connection: Connection) -> Brought:
    """Add and update the artists of the staged songs."""
    return _one(connection, "bring_artists", Brought)


def bring_albums(connection: Connection) -> Brought:
    """Add and update the albums of the staged songs; their artists must be there."""
    return _one(connection, "bring_albums", Brought)


def bring_songs(connection: Connection, source: str) -> Brought:
    """Add and update the staged songs; their artists and albums must be there."""
    return _one(connection, "bring_songs", Brought, source=source)


def bring_playlists(connection: Connection, source: str) -> tuple[Brought, Brought]:
    """Add, update and replace the staged playlists and their rows, whose songs must be there; returns lists and rows."""
    connection.execute(_SQL["bring_playlists"], {"source": source})
    rows = _one(connection, "compare_rows", Brought)
    connection.execute(_SQL["clear_changed_playlists"])
    connection.execute(_SQL["bring_rows"])
    return _one(connection, "count_playlists", Brought), rows


def song_not_of(connection: Connection, source: str) -> Foreign | None:
    """A song of the schema `music` that did not come under `source`, if there is one."""
    with connection.cursor(row_factory=class_row(Foreign)) as cursor:
        return cursor.execute(_SQL["song_not_of_source"], {"source": source}).fetchone()


def _one(connection: Connection, query: str, cls: type[Row], **parameters: str) -> Row:
    with connection.cursor(row_factory=class_row(cls)) as cursor:
        row = cursor.execute(_SQL[query], parameters or None).fetchone()
    assert row is not None, "an aggregate always gives a row"
    return row
