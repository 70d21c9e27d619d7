"""The user's tables, seen through four query files: songs, sequences, sequence_by_id, songs_by_id.

Whoever has tables of their own writes these four files; the ones in storage/queries/music read the schema `music`.  Whole tables
are streamed as Arrow batches (ADBC, over COPY): 5 M rows take 1.8 s and 215 MB, against 1.5 GB as Python rows.  What is asked for
by id comes through psycopg.

Types arrive as they are: integers, booleans, floats, text, uuid (Arrow's uuid, `uuid.UUID` in Python), timestamptz in UTC.
`numeric` becomes float64, since Arrow has no decimal without bounds.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, LiteralString
from uuid import UUID

import adbc_driver_manager.dbapi as adbc
import adbc_driver_postgresql.dbapi as adbc_postgresql
import psycopg
import pyarrow as pa
from psycopg import errors, sql
from psycopg.pq import ExecStatus
from psycopg.rows import dict_row

from errors import DatabaseError, DatabaseUnreachable, SchemaError, UnknownPlaylist
from storage.connections import Connection, connect, expected_errors
from storage.named import SQL_FOLDER, as_statement, queries

Id = int | str | UUID

_SQL = queries(SQL_FOLDER / "source.sql")

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "songs": ("song_id",),
    "songs_by_id": ("song_id",),
    "sequences": ("sequence_id", "song_id"),
    "sequence_by_id": ("song_id",),
}

# Parameters for which a query is described without an answer.
_NOTHING: Mapping[str, dict[str, Any]] = {"sequence_by_id": {"sequence_id": None}, "songs_by_id": {"song_ids": []}}

# What PostgreSQL says of an id that is none of the key's type; None: psycopg's own word for a text with a NUL in it.  Any other
# error of data (a division by zero, say) is the query's, and the playlist may well be there.
NO_ID_OF_THAT_TYPE = (
    None,
    errors.InvalidTextRepresentation.sqlstate,
    errors.NumericValueOutOfRange.sqlstate,
    errors.InvalidDatetimeFormat.sqlstate,
    errors.DatetimeFieldOverflow.sqlstate,
    errors.CharacterNotInRepertoire.sqlstate,
    errors.UntranslatableCharacter.sqlstate,
)

_SEQUENCE_ID = re.compile(r"%\(sequence_id\)[sbt]")  # as psycopg writes the parameter

# Optional columns of sequences.sql that are part of its checksum, and what stands for one that is not there.
_OPTIONAL: Mapping[str, LiteralString] = {
    "position": "NULL::bigint",
    "listened_at": "NULL::timestamptz",
    "group_id": "NULL::text",
    "history_id": "NULL::text",
    "is_recommended": "NULL::boolean",
    "row_id": "NULL::bigint",
}
_OF_ANY_TYPE: tuple[LiteralString, ...] = ("group_id", "history_id")  # are summed as text

# The end of a query that only sorts: names or numbers of columns with their directions, no parenthesis, no LIMIT behind them.
_NAME = r'(?:[a-z_][\w$]*|"[^"]+")'
_SORTED_BY = rf"(?:{_NAME}(?:\s*\.\s*{_NAME})*|\d+)(?:\s+(?:ASC|DESC))?(?:\s+NULLS\s+(?:FIRST|LAST))?"
_ONLY_SORTS = re.compile(rf"\bORDER\s+BY\s+{_SORTED_BY}(?:\s*,\s*{_SORTED_BY})*\s*$", re.IGNORECASE)
_ORDER_MATTERS = re.compile(r"\bDISTINCT\s+ON\b", re.IGNORECASE)

# Names of PostgreSQL's types by what an id or a place may be; a domain or an enum is none of them.
_WHOLE_NUMBERS = ("int2", "int4", "int8")
_TEXTS = ("text", "varchar", "bpchar", "name")


@dataclass(frozen=True, kw_only=True)
class SourceColumns:
    """What the two big queries yield: PostgreSQL's name of each column's type, by column."""

    songs: Mapping[str, str]
    sequences: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One moment of the database, held by the open transaction of `connection`; streams join it by its name."""

    connection: Connection
    name: str


@dataclass(frozen=True, kw_only=True)
class NewerRows:
    """The rows beyond a mark."""

    sequence_ids: Sequence[Id]
    """The sequences that have such rows, in no particular order."""
    rows: int
    content: int
    """What they add to the checksum."""


@contextmanager
def one_moment(url: str, *, connect_timeout_seconds: int = 10) -> Iterator[Moment]:
    """Hold a moment of the database, so that whatever is read in it fits together; raises DatabaseUnreachable."""
    with connect(url, connect_timeout_seconds=connect_timeout_seconds) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with expected_errors():
            connection.execute(_SQL["keep_moment"])
            row = connection.execute(_SQL["export_moment"]).fetchone()
        assert row is not None
        yield Moment(connection=connection, name=row[0])


def stream_songs(url: str, queries_folder: Path, *, moment: Moment | None = None) -> pa.RecordBatchReader:
    """All songs as Arrow batches, read while they are consumed; the connection closes with the last batch.

    `moment` says when they are read, None: now.
    Raises DatabaseUnreachable, or SchemaError when the query fails or song_id is missing.
    """
    return _stream(url, _statement(queries_folder, "songs"), "songs", moment)


def stream_sequences(
    url: str,
    queries_folder: Path,
    *,
    columns: Sequence[str] | None = None,
    sequence_ids: Sequence[Id] | None = None,
    moment: Moment | None = None,
) -> pa.RecordBatchReader:
    """All rows of all sequences as Arrow batches, in the order of the query; see `stream_songs`.

    `columns` are the only ones that are sent, `sequence_ids` the only sequences; None: all.
    """
    query = _statement(queries_folder, "sequences")
    if columns is not None:
        chosen = "stream_columns" if sequence_ids is None else "stream_some_sequences"
        listed = sql.SQL(", ").join(sql.Identifier(name) for name in columns)
        parts = {"columns": listed, "query": sql.SQL(query), "sequence_ids": sql.Literal(list(sequence_ids or []))}
        query = as_statement(sql.SQL(_SQL[chosen]).format(**parts).as_string(None))
    return _stream(url, query, "sequences", moment)


def check_contract(connection: Connection, queries_folder: Path) -> SourceColumns:
    """Ask the database, without reading a row, whether the four query files keep their contract.

    Raises SchemaError naming the file and what it lacks: a required column, an id of a type that cannot be one, song ids of two
    types, a time without its zone, a mark that is not true or false.
    """
    columns = {name: _columns_of(connection, queries_folder, name) for name in REQUIRED}
    for name, required in REQUIRED.items():
        _require_columns(name, columns[name], required)
        for id_column in ("song_id", "sequence_id", "history_id", "artist_id", "album_id"):
            _require_id_type(name, id_column, columns[name].get(id_column, "text"))
        if columns[name].get("listened_at", "timestamptz") != "timestamptz":
            raise SchemaError(
                f"listened_at in {name}.sql is {columns[name]['listened_at']}, not timestamptz: "
                "say its zone (listened_at AT TIME ZONE 'UTC') or convert it (to_timestamp(listened_at))"
            )
        if columns[name].get("is_recommended", "bool") != "bool":
            raise SchemaError(f"is_recommended in {name}.sql is {columns[name]['is_recommended']}: make it a boolean")
    if columns["sequences"].get("row_id", "int8") not in _WHOLE_NUMBERS:
        raise SchemaError(
            f"row_id in sequences.sql is {columns['sequences']['row_id']}: make it a whole number that rises with each new row"
        )
    _require_same_song_ids(columns)
    return SourceColumns(songs=columns["songs"], sequences=columns["sequences"])


def sequence_by_id(connection: Connection, queries_folder: Path, sequence_id: Id) -> list[Id]:
    """The song ids of one playlist or session, oldest first.

    Raises UnknownPlaylist when it has no song, DatabaseError when it cannot be read.
    """
    query = _statement(queries_folder, "sequence_by_id")
    try:
        # A savepoint: a text that is no number is an error to a numeric key, and the caller's transaction is to survive it.
        with expected_errors(), connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            # As text, whose type PostgreSQL takes from what it is compared with: 7 and "7" find both a number and a text.
            rows = cursor.execute(query, {"sequence_id": str(sequence_id)}).fetchall()
    except psycopg.Error as exc:
        said = exc.diag.message_primary or exc
        if isinstance(exc, psycopg.DataError) and exc.sqlstate in NO_ID_OF_THAT_TYPE:
            raise UnknownPlaylist(f"no playlist {sequence_id!r}: {said}") from exc
        raise DatabaseError(f"playlist {sequence_id!r} cannot be read: {said}") from exc
    except TypeError as exc:  # psycopg's word for a parameter without a name
        raise SchemaError("sequence_by_id.sql has the parameter %s: write %(sequence_id)s") from exc
    if not rows:
        raise _unknown(sequence_id)
    _require_columns("sequence_by_id", rows[0], REQUIRED["sequence_by_id"])
    return [row["song_id"] for row in rows]


def sequences_by_ids(
    connection: Connection, queries_folder: Path, sequence_ids: Sequence[Id]
) -> list[list[Id] | UnknownPlaylist | DatabaseError]:
    """The song ids of several sequences, read in one query; in place of one that has none, or fails, stands its error.

    When that query fails they are read one by one.  Raises what a connection raises that is lost.
    """
    texts = [str(sequence_id) for sequence_id in sequence_ids]
    try:
        with expected_errors(), connection.transaction():
            rows = connection.execute(_statement_for_many(connection, queries_folder), {"sequence_ids": texts}).fetchall()
    except (DatabaseError, psycopg.Error) as exc:
        if _is_lost(connection, exc):
            raise
        # One id may be of another type or take longer than statement_timeout allows, or the query may be of a kind that cannot
        # stand inside another one.
        return [_songs_or_error(connection, queries_folder, text) for text in texts]
    songs: list[list[Id]] = [[] for _ in texts]
    for place, song_id in rows:
        songs[place - 1].append(song_id)
    return [found or _unknown(text) for text, found in zip(texts, songs, strict=True)]


def songs_by_id(connection: Connection, queries_folder: Path, song_ids: Sequence[Id]) -> list[dict[str, Any]]:
    """The rows of the songs that the database has among `song_ids`, in no particular order; columns as in songs.sql."""
    query = _statement(queries_folder, "songs_by_id")
    with expected_errors(), connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, {"song_ids": list(song_ids)}).fetchall()
    return [{name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()} for row in rows]


def high_water_mark(connection: Connection, queries_folder: Path) -> dict[str, int | str | None]:
    """What tells whether the tables have moved on since a snapshot was made; equal marks mean equal contents.

    `songs`, `rows` (of sequences): counts; `latest`: the last listened_at in ISO 8601, None where no time is known; `content`: a
    checksum of all songs, and of which song stands where, when it was heard, in which group of lists, in which history, and
    whether we proposed it.
    What a later run needs beside: `last_row`, the highest row_id; `rows_content`, the checksum of sequences alone; and how many
    rows have no sequence, or no song, or are our own proposals.
    """
    _columns_of(connection, queries_folder, "songs")  # names the file that fails, which the statement around both cannot
    columns = _columns_of(connection, queries_folder, "sequences")
    _require_columns("sequences", columns, REQUIRED["sequences"])
    statement = sql.SQL(_SQL["high_water_mark"]).format(
        songs=sql.SQL(_unsorted(_statement(queries_folder, "songs"))),
        sequences=sql.SQL(_unsorted(_statement(queries_folder, "sequences"))),
        content=_row_content(columns),
        **{name: _column_or_null(name, columns) for name in ("listened_at", "is_recommended", "row_id")},
    )
    with expected_errors(), connection.cursor(row_factory=dict_row) as cursor:
        mark = cursor.execute(statement).fetchone()
    assert mark is not None
    return mark


def newer_rows(connection: Connection, queries_folder: Path, key: Literal["row_id", "listened_at"], mark: int | str) -> NewerRows:
    """The rows whose `key` is beyond a mark: `last_row` or `latest` of an earlier `high_water_mark`."""
    columns = _columns_of(connection, queries_folder, "sequences")
    beyond = sql.Literal(mark) if key == "row_id" else sql.SQL("{}::timestamptz").format(sql.Literal(mark))
    statement = sql.SQL(_SQL["newer_rows"]).format(
        sequences=sql.SQL(_unsorted(_statement(queries_folder, "sequences"))),
        content=_row_content(columns),
        key=sql.Identifier(key),
        mark=beyond,
    )
    with expected_errors():
        found = connection.execute(statement).fetchall()
    return NewerRows(
        sequence_ids=[sequence_id for sequence_id, _, _ in found if sequence_id is not None],
        rows=sum(rows for _, rows, _ in found),
        content=sum(int(content) for _, _, content in found),
    )


def _row_content(columns: Collection[str]) -> sql.Composed:
    names = ("position", "listened_at", "group_id", "history_id", "is_recommended")
    parts: dict[str, sql.Composable] = {name: _column_or_null(name, columns) for name in names}
    parts |= {name: sql.SQL(f"{name}::text") for name in _OF_ANY_TYPE if name in columns}
    return sql.SQL(_SQL["row_content"]).format(**parts)


def _column_or_null(name: str, columns: Collection[str]) -> sql.SQL:
    return sql.SQL(as_statement(name) if name in columns else _OPTIONAL[name])


def _unsorted(query: LiteralString) -> LiteralString:
    """A query without the ORDER BY at its end, where nothing but the order of rows depends on it.

    >>> _unsorted("SELECT a FROM t ORDER BY t.a DESC, 2"), _unsorted("SELECT a FROM t ORDER BY a LIMIT 9")
    ('SELECT a FROM t', 'SELECT a FROM t ORDER BY a LIMIT 9')
    """
    return query if _ORDER_MATTERS.search(query) else as_statement(_ONLY_SORTS.sub("", f"{query} "))


def _unknown(sequence_id: Id) -> UnknownPlaylist:
    return UnknownPlaylist(f"no playlist {sequence_id!r} in the database, or it is empty")


def _songs_or_error(connection: Connection, queries_folder: Path, sequence_id: Id) -> list[Id] | UnknownPlaylist | DatabaseError:
    try:
        return sequence_by_id(connection, queries_folder, sequence_id)
    except UnknownPlaylist as exc:
        return exc
    except DatabaseError as exc:
        if _is_lost(connection, exc):
            raise
        return exc


def _is_lost(connection: Connection, exc: Exception) -> bool:
    """Whether it is the way to the server that an error is about, and not one statement."""
    return connection.closed or isinstance(exc, DatabaseUnreachable)


def _statement_for_many(connection: Connection, queries_folder: Path) -> sql.Composed:
    """sequence_by_id.sql within the query for many, its parameter replaced by an id of the type that PostgreSQL gives to it."""
    query = _statement(queries_folder, "sequence_by_id")
    parameter_type = _type_of_parameter(connection, query)
    # Twice the percent sign stays as it is: the statement around it has a parameter as well.
    inner = _SEQUENCE_ID.sub(f"CAST(wanted.sequence_id AS {parameter_type})", query)
    return sql.SQL(_SQL["sequences_by_ids"]).format(query=sql.SQL(as_statement(inner)))


def _type_of_parameter(connection: Connection, query: str) -> str:
    """What PostgreSQL takes the parameter sequence_id for; text where the query does not use it.

    The unnamed statement that is described here lives until the next one, so that nothing of it stays with the connection.
    """
    text = _SEQUENCE_ID.sub("$1", query).replace("%%", "%")
    described = connection.pgconn.prepare(b"", text.encode())
    if described.status == ExecStatus.COMMAND_OK:
        described = connection.pgconn.describe_prepared(b"")
    if described.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(described)
    if described.nparams == 0:
        return "text"
    row = connection.execute(_SQL["type_name"], {"type_number": described.param_type(0)}).fetchone()
    assert row is not None
    return str(row[0])


def _stream(url: str, query: str, name: str, moment: Moment | None) -> pa.RecordBatchReader:
    connect(url).close()  # says in one line, and without the password, why there is no way to the server
    batches = _batches(url, query, name, moment)
    schema = next(batches)
    assert isinstance(schema, pa.Schema)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _batches(url: str, query: str, name: str, moment: Moment | None) -> Iterator[Any]:
    """First the schema, then the batches; the connection lives as long as this generator."""
    with _adbc_errors(name), adbc_postgresql.connect(url) as connection, connection.cursor() as cursor:
        if moment is not None:
            cursor.execute(_SQL["fix_moment"])
            cursor.execute(sql.SQL(_SQL["join_moment"]).format(moment=sql.Literal(moment.name)).as_string(None))
        cursor.execute(f"{query}\n")  # the driver puts it into parentheses, which a comment at its end would swallow
        reader = cursor.fetch_record_batch()
        _require_columns(name, reader.schema.names, REQUIRED[name])
        schema = pa.schema([_plain_field(field) for field in reader.schema])
        yield schema
        for batch in reader:
            yield pa.RecordBatch.from_arrays(
                [_plain_column(column, field.type) for column, field in zip(batch.columns, schema, strict=True)], schema=schema
            )


def _is_numeric(arrow_type: pa.DataType) -> bool:
    return isinstance(arrow_type, pa.OpaqueType) and arrow_type.type_name == "numeric"


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.float64() if _is_numeric(field.type) else field.type)


def _plain_column(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    return column.storage.cast(wanted) if _is_numeric(column.type) else column


@contextmanager
def _adbc_errors(name: str) -> Iterator[None]:
    try:
        yield
    except adbc.ProgrammingError as exc:
        raise SchemaError(f"{name}.sql fails: {_first_error_line(exc)}") from exc
    except (adbc.Error, OSError) as exc:  # OSError: pyarrow's wrapping of an error in the middle of a stream
        raise DatabaseError(f"reading {name}.sql stopped: {_first_error_line(exc)}") from exc


def _first_error_line(exc: BaseException) -> str:
    """What the server said, out of the driver's longer text."""
    return str(exc).partition("ERROR:")[2].strip().split("\n")[0] or " ".join(str(exc).split())


def _statement(queries_folder: Path, name: str) -> LiteralString:
    file = queries_folder / f"{name}.sql"
    try:
        return as_statement(file.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise SchemaError(f"query file {file} is missing: write it, or set queries_folder to a folder that has it") from exc
    except UnicodeDecodeError as exc:
        raise SchemaError(f"query file {file} cannot be read: {exc}; save it as UTF-8") from exc


def _columns_of(connection: Connection, queries_folder: Path, name: str) -> dict[str, str]:
    """PostgreSQL's name of each column's type, by column."""
    query = sql.SQL(_SQL["columns"]).format(query=sql.SQL(_statement(queries_folder, name)))
    parameters: dict[str, Any] | None = _NOTHING.get(name)
    try:
        with expected_errors():
            cursor = connection.execute(query, parameters)
    except SchemaError as exc:
        raise SchemaError(f"{name}.sql fails: {exc}") from exc
    except psycopg.DataError as exc:
        raise SchemaError(f"{name}.sql fails: {exc.diag.message_primary or exc}") from exc
    return {column.name: column.type_display.partition("(")[0] for column in cursor.description or ()}


def _require_columns(name: str, present: Collection[str], required: Sequence[str]) -> None:
    for column in required:
        if column not in present:
            raise SchemaError(f"{name}.sql has no column {column}, which is required; it has {', '.join(present)}")


def _require_id_type(name: str, column: str, type_name: str) -> None:
    if type_name not in (*_WHOLE_NUMBERS, *_TEXTS, "uuid"):
        raise SchemaError(f"{column} in {name}.sql is {type_name}: an id is a whole number, a text or a uuid")


def _require_same_song_ids(columns: Mapping[str, Mapping[str, str]]) -> None:
    """Songs that are numbers in one query and texts in another would never meet."""
    kinds = {name: _kind(columns[name]["song_id"]) for name in REQUIRED}
    for name, kind in kinds.items():
        if kind != kinds["songs"]:
            raise SchemaError(f"song_id is {kinds['songs']} in songs.sql and {kind} in {name}.sql: make them one type")


def _kind(type_name: str) -> str:
    return "a whole number" if type_name in _WHOLE_NUMBERS else "a text" if type_name in _TEXTS else "a uuid"
