"""The playlists that somebody may choose from, out of an optional query file: playlists.sql beside the four that must be there.

It has the parameters q (words of the name, "" for all of them, or the id of one list) and count, and yields playlist_id, name and
n_songs.  What has such an id is read by sequence_by_id.sql.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from errors import DatabaseError, SchemaError
from storage.connections import Connection, expected_errors
from storage.named import SQL_FOLDER, as_statement, queries
from storage.source import Id

PLAYLISTS_FILE = "playlists.sql"

_SQL = queries(SQL_FOLDER / "filters.sql")
_COLUMNS = ("playlist_id", "name", "n_songs")


@dataclass(frozen=True, kw_only=True)
class Playlist:
    """A playlist to choose."""

    playlist_id: Id
    name: str | None
    n_songs: int


def can_be_listed(queries_folder: Path) -> bool:
    """Whether there is a query for playlists."""
    return (queries_folder / PLAYLISTS_FILE).is_file()


def find_playlists(connection: Connection, queries_folder: Path, text: str, count: int) -> list[Playlist]:
    """At most `count` playlists whose name holds all words of a text, in the order of the query; none where there is no file.

    Raises SchemaError naming the file where its query fails or lacks a column, DatabaseError where it cannot be carried out.
    """
    query = _query(queries_folder)
    if query is None:
        return []
    try:
        # A savepoint, and read only as long as it lasts: a file that deletes something is a mistake.
        with expected_errors(), connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(_SQL["read_only"])
            rows = cursor.execute(query, {"q": text, "count": count}).fetchmany(count)
            columns = [column.name for column in cursor.description or ()]
    except SchemaError as exc:
        raise SchemaError(f"{PLAYLISTS_FILE} fails: {exc}") from exc
    except psycopg.DatabaseError as exc:  # an error of data, or one that a function of the user's raises
        raise DatabaseError(f"{PLAYLISTS_FILE} fails: {exc.diag.message_primary or exc}") from exc
    except TypeError as exc:  # psycopg's word for a parameter without a name
        raise SchemaError(f"{PLAYLISTS_FILE} has the parameter %s: write %(q)s and %(count)s") from exc
    for name in _COLUMNS:
        if name not in columns:
            raise SchemaError(f"{PLAYLISTS_FILE} has no column {name}, which is required; it has {', '.join(columns) or 'none'}")
    return [_playlist(row) for row in rows if row["playlist_id"] is not None]


def name_of_playlist(connection: Connection, queries_folder: Path, playlist_id: Id) -> str | None:
    """The name of one playlist; None where it has none, or playlists.sql does not find lists by their id.

    Raises as `find_playlists`.
    """
    text = str(playlist_id)
    found = find_playlists(connection, queries_folder, text, 1)
    return next((one.name for one in found if str(one.playlist_id) == text), None)


def _playlist(row: Mapping[str, Any]) -> Playlist:
    name, n_songs = row["name"], row["n_songs"] or 0
    playlist_id = row["playlist_id"]
    if not isinstance(playlist_id, Id):
        raise SchemaError(f"playlist_id in {PLAYLISTS_FILE} is {playlist_id!r}: make it a whole number, a text or a uuid")
    if not isinstance(n_songs, int | Decimal) or not Decimal(n_songs).is_finite():
        raise SchemaError(f"n_songs in {PLAYLISTS_FILE} is {n_songs!r}: make it a whole number")
    return Playlist(playlist_id=playlist_id, name=None if name is None else str(name), n_songs=int(n_songs))


def _query(queries_folder: Path) -> LiteralString | None:
    try:
        return as_statement((queries_folder / PLAYLISTS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise SchemaError(f"{PLAYLISTS_FILE} cannot be read: {exc}") from exc
