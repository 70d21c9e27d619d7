"""Named filters: `filters/NAME.sql` beside the query files yields the songs that may be recommended, in a column song_id.

A request names one (`"filter": "calm"`), and whoever writes the files decides what it means.  The files have no parameters.
"""

import logging
import re
from pathlib import Path

import psycopg

from errors import DatabaseError, SchemaError, UnknownFilter
from storage.connections import Connection, expected_errors
from storage.named import SQL_FOLDER, as_statement, queries
from storage.source import Id

_SQL = queries(SQL_FOLDER / "filters.sql")

log = logging.getLogger(__name__)

FOLDER = "filters"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def filter_names(queries_folder: Path) -> list[str]:
    """The names of the filters that there are, sorted; a file whose name cannot be asked for is passed over with a warning."""
    names = sorted(path.stem for path in (queries_folder / FOLDER).glob("*.sql"))
    for name in names:
        if not NAME.fullmatch(name):
            log.warning("%s/%s.sql is no filter: a name has small letters, digits and _, and begins with a letter", FOLDER, name)
    return [name for name in names if NAME.fullmatch(name)]


def songs_of_filter(connection: Connection, queries_folder: Path, name: str) -> list[Id]:
    """The ids of the songs that a filter lets through, in the type that its query gives them.

    Raises UnknownFilter, which lists those that there are, SchemaError naming the file where its query fails or has no column
    song_id, DatabaseError where it cannot be carried out.
    """
    known = filter_names(queries_folder)
    if name not in known:
        raise UnknownFilter(f"no filter {name[:63]!r}: there are {', '.join(known) or 'none'}")
    file = f"{FOLDER}/{name}.sql"
    try:
        query = as_statement((queries_folder / FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
    except UnicodeDecodeError as exc:
        raise SchemaError(f"{file} cannot be read: {exc}; save it as UTF-8") from exc
    try:
        # A savepoint, and read only as long as it lasts: a file that deletes something is a mistake.
        with expected_errors(), connection.transaction():
            connection.execute(_SQL["read_only"])
            cursor = connection.execute(query)
    except SchemaError as exc:
        raise SchemaError(f"{file} fails: {exc}") from exc
    except psycopg.DatabaseError as exc:  # an error of data, or one that a function of the user's raises
        raise DatabaseError(f"{file} fails: {exc.diag.message_primary or exc}") from exc
    columns = [column.name for column in cursor.description or ()]
    if "song_id" not in columns:
        raise SchemaError(f"{file} has no column song_id, which is required; it has {', '.join(columns) or 'none'}")
    place = columns.index("song_id")
    return [row[place] for row in cursor.fetchall() if row[place] is not None]
