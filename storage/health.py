"""What can be told of somebody's tables before training: rights, hidden rows, sizes, order, orphans, duplicates.

Each function takes a connection first, asks one question (storage/sql/health.sql around the user's own queries) and changes
nothing.  What the answers mean is for the caller to say (`doctor`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from errors import SchemaError
from storage.connections import Connection, expected_errors
from storage.named import SQL_FOLDER, as_statement, queries
from storage.source import SourceColumns

_SQL = queries(SQL_FOLDER / "health.sql")

QUERY_NAMES = ("songs", "songs_by_id", "sequences", "sequence_by_id")
# Columns of the songs query that are ids or names, whatever their type.
NO_FEATURES = ("song_id", "artist_id", "album_id", "title", "artist_name", "album_title")
NUMERIC_TYPES = ("int2", "int4", "int8", "float4", "float8", "numeric", "bool")
# A table below this is read as a whole faster than through an index, and PostgreSQL does so.
SMALL_TABLE_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Server:
    """The server, and what the role may do that a service should not."""

    version: str
    role: str
    is_superuser: bool
    may_create_schemas: bool
    may_create_in: list[str]
    """Schemas in which the role may create tables."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table or view that the query files seem to read: its name stands in them."""

    schema: str
    name: str
    n_rows: int | None
    """PostgreSQL's estimate; None before the first ANALYZE."""
    is_filtered: bool
    """Whether row-level security decides which rows this role sees."""
    may_read: bool
    naive_times: list[str]
    """Columns of times without a zone."""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class SongCounts:
    """The songs query in figures."""

    n_rows: int
    n_songs: int
    n_known: Mapping[str, int]
    """Rows that have each feature."""


@dataclass(frozen=True, kw_only=True)
class SequenceCounts:
    """The sequences query in figures; rows without an id of sequence or song are not counted."""

    n_sequences: int
    n_rows: int
    n_short: int
    """Sequences of fewer songs than was asked."""
    median: int
    longest: int
    n_at_one_time: int
    """Sequences of two songs or more that all have the same listened_at, or none."""
    n_shared_positions: int
    """Sequences in which a position is missing or stands twice."""
    n_untimed: int
    """Sequences with a song without listened_at."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """How sequences and songs meet."""

    n_heard: int
    """Distinct songs of the sequences."""
    n_rows_shared: int
    """Rows whose song occurs in another sequence as well: only such songs can be learned from company."""
    n_orphans: int
    """Songs of sequences that the songs query lacks."""
    n_orphan_rows: int


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Songs that look like a recording that is there under another id."""

    n_by_isrc: int
    n_by_title: int
    n_duplicates: int


@dataclass(frozen=True, kw_only=True)
class Queue:
    """The schema `recommender`."""

    is_there: bool
    is_usable: bool
    """Whether this role may read it."""


def limit_statements(connection: Connection, seconds: float) -> None:
    """Let no statement of this transaction take longer."""
    connection.execute(_SQL["limit_statements"], {"milliseconds": round(1000 * seconds)})


def read_server(connection: Connection) -> Server:
    """Version, role, and rights beyond reading."""
    with connection.cursor(row_factory=class_row(Server)) as cursor:
        server = cursor.execute(_SQL["server"]).fetchone()
    assert server is not None
    return server


def relations_read(connection: Connection, queries_folder: Path) -> list[Relation]:
    """The tables and views whose names stand in the query files; a name that stands there for something else does no harm."""
    text = "\n".join(_query(queries_folder, name) for name in QUERY_NAMES)
    with connection.cursor(row_factory=class_row(Relation)) as cursor:
        relations = cursor.execute(_SQL["relations"]).fetchall()
    return [relation for relation in relations if _is_named(relation.schema, relation.name, text)]


def visible_rows(connection: Connection, relation: Relation) -> int:
    """How many rows of a table this role sees.  Raises SchemaError where a policy asks for what the role may not read."""
    statement = sql.SQL(_SQL["visible_rows"]).format(table=sql.Identifier(relation.schema, relation.name))
    with expected_errors(), connection.transaction():  # a savepoint: the caller goes on after an error
        row = connection.execute(statement).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def count_songs(connection: Connection, queries_folder: Path, columns: SourceColumns) -> SongCounts:
    """Songs, and how many have each feature."""
    features = [name for name, type_name in columns.songs.items() if name not in NO_FEATURES and type_name in NUMERIC_TYPES]
    known = sql.SQL("ARRAY[{}]").format(
        sql.SQL(", ").join(sql.SQL("count({})").format(sql.Identifier(name)) for name in features)
    )
    row = _ask(connection, "songs", songs=_part(queries_folder, "songs"), known=known)
    return SongCounts(n_rows=row["n_rows"], n_songs=row["n_songs"], n_known=dict(zip(features, row["n_known"], strict=True)))


def count_sequences(connection: Connection, queries_folder: Path, columns: SourceColumns, *, least: int) -> SequenceCounts:
    """Sizes of the sequences and what their order is known by; those below `least` songs count as short."""
    row = _ask(
        connection,
        "sequences",
        least=sql.Literal(least),
        sequences=_part(queries_folder, "sequences"),
        listened_at=_column(columns.sequences, "listened_at", "NULL::timestamptz"),
        position=_column(columns.sequences, "position", "NULL::bigint"),
    )
    return SequenceCounts(**row)


def count_meeting(connection: Connection, queries_folder: Path) -> Meeting:
    """Songs that only sequences name, and rows whose song has company."""
    parts = {name: _part(queries_folder, name) for name in ("songs", "sequences")}
    return Meeting(**_ask(connection, "meeting", **parts))


def count_duplicates(connection: Connection, queries_folder: Path, columns: SourceColumns) -> Duplicates:
    """Songs with the ISRC, or with title, artist and length, of another one; without those columns nothing is found."""
    row = _ask(
        connection,
        "duplicates",
        songs=_part(queries_folder, "songs"),
        isrc=_column(columns.songs, "isrc", "NULL"),
        title=_column(columns.songs, "title", "NULL"),
        artist_name=_column(columns.songs, "artist_name", "NULL"),
        duration_ms=_column(columns.songs, "duration_ms", "NULL"),
    )
    return Duplicates(**row)


def read_queue(connection: Connection) -> Queue:
    """Whether setup.sql was run, and for this role."""
    with connection.cursor(row_factory=class_row(Queue)) as cursor:
        queue = cursor.execute(_SQL["queue"]).fetchone()
    assert queue is not None
    return queue


def scanned_tables(connection: Connection, queries_folder: Path) -> list[str]:
    """The larger tables that sequence_by_id reads as a whole to find one sequence, for want of an index.

    Asks for the plan of any id, within the caller's transaction; nothing is read.
    """
    text = re.sub(r"%\(sequence_id\)[sbt]", "$1", _query(queries_folder, "sequence_by_id")).replace("%%", "%")
    with expected_errors(), connection.transaction():
        connection.execute(_SQL["generic_plan"])
        connection.execute(as_statement(f"PREPARE one_sequence AS {text}"))
        row = connection.execute("EXPLAIN (FORMAT JSON) EXECUTE one_sequence (NULL)").fetchone()
        connection.execute("DEALLOCATE one_sequence")
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    read_whole = {node["Relation Name"] for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"}
    relations = relations_read(connection, queries_folder)
    return [str(relation) for relation in relations if relation.name in read_whole and (relation.n_rows or 0) >= SMALL_TABLE_ROWS]


def zones_named(queries_folder: Path) -> list[str]:
    """The time zones that the query files name for times without one."""
    text = "\n".join(_query(queries_folder, name) for name in QUERY_NAMES)
    return sorted(set(re.findall(r"AT\s+TIME\s+ZONE\s+'([^']+)'", text, re.IGNORECASE)))


def naive_times_read(relations: list[Relation], queries_folder: Path) -> list[str]:
    """Columns without a zone that sequences.sql names, each with its table."""
    text = _query(queries_folder, "sequences")
    return [f"{relation}.{name}" for relation in relations for name in relation.naive_times if _is_word(name, text)]


def _ask(connection: Connection, name: str, **parts: sql.Composable) -> dict[str, Any]:
    statement = sql.SQL(_SQL[name]).format(**parts)
    with expected_errors(), connection.cursor(row_factory=dict_row) as cursor:
        try:
            row = cursor.execute(statement).fetchone()  # without parameters, so that a percent sign is one
        except psycopg.DataError as exc:  # a value that the user's own SQL cannot convert, seen only when all rows are read
            raise SchemaError(f"the query files fail over a value: {exc.diag.message_primary}; correct them") from exc
    assert row is not None
    return row


def _part(queries_folder: Path, name: str) -> sql.SQL:
    return sql.SQL(_query(queries_folder, name))


def _query(queries_folder: Path, name: str) -> LiteralString:
    file = queries_folder / f"{name}.sql"
    try:
        return as_statement(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SchemaError(f"query file {file} cannot be read ({exc.strerror}): let `cli.py map` write it") from exc
    except UnicodeDecodeError as exc:
        raise SchemaError(f"query file {file} cannot be read: {exc}; save it as UTF-8") from exc


def _column(columns: Mapping[str, str], name: LiteralString, instead: LiteralString) -> sql.SQL:
    return sql.SQL(name if name in columns else instead)


def _is_named(schema: str, name: str, text: str) -> bool:
    """Whether a query names a table: with its schema, or alone in FROM or JOIN."""
    qualified = rf'"?{re.escape(schema)}"?\."?{re.escape(name)}"?'
    alone = rf'\b(?:FROM|JOIN|ONLY)\s+"?{re.escape(name)}"?'
    return re.search(rf"(?<![\w.]){qualified}(?!\w)|{alone}(?![\w.])", text, re.IGNORECASE) is not None


def _is_word(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)
