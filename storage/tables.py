"""Somebody's tables as the catalogue describes them: columns, keys, references, estimated rows.

Rests on SQLAlchemy's inspector over a connection of `storage.connections`, in a read-only transaction.  Of the types only what a
mapping asks is kept (`Kind`); what else an extension may bring is OTHER, never an error.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy import types
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS
from sqlalchemy.engine import Inspector
from sqlalchemy.engine.reflection import ObjectKind
from sqlalchemy.exc import SAWarning
from sqlalchemy.pool import NullPool

from errors import ConfigError, SchemaError
from storage.connections import connect, expected_errors
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "tables.sql")

# By these two tables the schema `music` is known to be that of our imports, and not somebody's own.
_OURS = {("song", "feature_source"), ("listen", "is_recommended")}


class Kind(Enum):
    """What a column's values are, as far as a mapping asks."""

    WHOLE = "a whole number"
    REAL = "a number"
    TRUTH = "true or false"
    TEXT = "a text"
    UUID = "a uuid"
    ZONED_TIME = "a time with its zone"
    NAIVE_TIME = "a time without its zone"
    DATE = "a date"
    LENGTH_OF_TIME = "a length of time"
    TEXTS = "an array of texts"
    OTHER = "something else"

    @property
    def is_number(self) -> bool:
        """Whether it can be a numeric feature as it stands."""
        return self in (Kind.WHOLE, Kind.REAL)


_KINDS: Sequence[tuple[type[Any] | tuple[type[Any], ...], Kind]] = (
    (types.Boolean, Kind.TRUTH),
    (types.Integer, Kind.WHOLE),
    ((types.Numeric, types.Float), Kind.REAL),
    (types.Uuid, Kind.UUID),
    (types.String, Kind.TEXT),
    (types.Date, Kind.DATE),
    ((types.Interval, postgresql.INTERVAL, types.Time), Kind.LENGTH_OF_TIME),
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    type_name: str
    """PostgreSQL's name of the type, without length or precision, as a parameter is cast to it."""

    @property
    def can_be_id(self) -> bool:
        """Whether its values can be ids; an enum has too few, and citext is no text to who compares ids."""
        return self.kind in (Kind.WHOLE, Kind.UUID) or (self.kind is Kind.TEXT and self.type_name in ("text", "bpchar"))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A foreign key of one column."""

    column: str
    schema: str
    table: str
    referred: str
    """The column over there."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or view."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    is_view: bool = False
    primary_key: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    unique: frozenset[str] = frozenset()
    """Columns that are unique by themselves, the primary key included."""
    leads_index: frozenset[str] = frozenset()
    """Columns that some index begins with, so that a value of theirs is found without reading the whole table."""
    n_rows: int | None = None
    """PostgreSQL's estimate; None before the first ANALYZE."""
    has_row_security: bool = False
    _by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {column.name: column for column in self.columns})

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """The qualified name as SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def column(self, name: str) -> Column:
        """A column that is there."""
        return self._by_name[name]

    def reference_of(self, column: str) -> Reference | None:
        """Where a column points to."""
        return next((reference for reference in self.references if reference.column == column), None)


def quoted(name: str) -> str:
    """An identifier as SQL: in quotes where case, signs or a reserved word ask for it.

    >>> print(quoted("track_id"), quoted("trackId"), quoted("order"))
    track_id "trackId" "order"
    """
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in RESERVED_WORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def read_tables(url: str, schemas: Sequence[str] = ()) -> list[Table]:
    """All tables and views of `schemas`; of none named: of all that are neither PostgreSQL's nor ours.

    Partitions are left out, since their parent stands for them.  Raises DatabaseUnreachable, or ConfigError for a schema that
    is not there.
    """
    with _read_only(url) as connection:
        known = [name for (name,) in connection.exec_driver_sql(_SQL["schemas"])]
        for name in schemas:
            if name not in known:
                raise ConfigError(f"no schema {name!r} in this database: it has {', '.join(known)}")
        facts = {(row.schema, row.name): row for row in connection.exec_driver_sql(_SQL["relations"])}
        inspector = sqlalchemy.inspect(connection)
        read = {name: _tables_of(inspector, name, facts) for name in schemas or known}
    if not schemas and _is_ours(read.get("music", [])):
        del read["music"]
    return [table for tables in read.values() for table in tables]


def require_zone(url: str, zone: str) -> None:
    """Raise ConfigError when the server does not know a time zone."""
    with connect(url) as connection, expected_errors(), connection.cursor(row_factory=dict_row) as cursor:
        try:
            cursor.execute(_SQL["zone"], {"zone": zone})
        except psycopg.errors.InvalidParameterValue as exc:
            raise ConfigError(f"time zone {zone!r} is not known to the server: name one of pg_timezone_names") from exc


@contextmanager
def _read_only(url: str) -> Iterator[sqlalchemy.Connection]:
    """An SQLAlchemy connection over ours, which says in one line why there is no way to the server."""

    def opened() -> Any:
        connection = connect(url)
        connection.read_only = True
        return connection

    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=opened, poolclass=NullPool)
    try:
        with warnings.catch_warnings(), engine.connect() as connection:
            warnings.simplefilter("ignore", SAWarning)  # types of extensions, which are OTHER to us
            yield connection
    except sqlalchemy.exc.ProgrammingError as exc:
        raise SchemaError(f"the catalogue cannot be read: {str(exc.orig).splitlines()[0]}") from exc
    finally:
        engine.dispose()


def _tables_of(inspector: Inspector, schema: str, facts: Mapping[tuple[str, str], Any]) -> list[Table]:
    columns = inspector.get_multi_columns(schema=schema, kind=ObjectKind.ANY)
    views = {*inspector.get_view_names(schema), *inspector.get_materialized_view_names(schema)}
    keys = inspector.get_multi_pk_constraint(schema=schema)
    references = inspector.get_multi_foreign_keys(schema=schema)
    uniques = inspector.get_multi_unique_constraints(schema=schema)
    indexes = inspector.get_multi_indexes(schema=schema, kind=ObjectKind.ANY)
    tables = []
    for place, described in sorted(columns.items(), key=lambda item: item[0][1]):
        name = place[1]
        fact = facts.get((schema, name))
        if fact is None or fact.is_partition:
            continue
        described_key: Mapping[str, Any] | None = keys.get(place)
        key = tuple(described_key["constrained_columns"]) if described_key else ()
        groups = _unique_groups(key, uniques.get(place) or [], indexes.get(place) or [])
        tables.append(
            Table(
                schema=schema,
                name=name,
                columns=tuple(_column(column) for column in described),
                is_view=name in views,
                primary_key=key,
                references=tuple(_references(references.get(place) or [], schema)),
                unique=frozenset(group[0] for group in groups if len(group) == 1),
                leads_index=frozenset(_index_heads(indexes.get(place) or [])) | {group[0] for group in groups},
                n_rows=fact.n_rows if fact.n_rows >= 0 else None,
                has_row_security=fact.has_row_security,
            )
        )
    return tables


def _column(described: Mapping[str, Any]) -> Column:
    sql_type = described["type"]
    if isinstance(sql_type, postgresql.DOMAIN):
        sql_type = sql_type.data_type
    return Column(name=described["name"], kind=_kind(sql_type), type_name=_type_name(sql_type))


def _kind(sql_type: Any) -> Kind:
    if isinstance(sql_type, types.ARRAY):
        return Kind.TEXTS if isinstance(sql_type.item_type, types.String) else Kind.OTHER
    if isinstance(sql_type, types.DateTime):
        return Kind.ZONED_TIME if sql_type.timezone else Kind.NAIVE_TIME
    return next((kind for classes, kind in _KINDS if isinstance(sql_type, classes)), Kind.OTHER)


def _type_name(sql_type: Any) -> str:
    """The type that a parameter is cast to, so that the column's index fits; a length would cut the parameter off."""
    if isinstance(sql_type, types.String) and not isinstance(sql_type, types.Enum | postgresql.CITEXT):
        return "bpchar" if isinstance(sql_type, types.CHAR) else "text"
    try:
        compiled: str = sql_type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    except sqlalchemy.exc.CompileError:
        return "unknown"
    return compiled.partition("(")[0].lower()


def _references(described: Sequence[Mapping[str, Any]], schema: str) -> Iterator[Reference]:
    for key in described:
        if len(key["constrained_columns"]) == 1:
            yield Reference(
                column=key["constrained_columns"][0],
                schema=key["referred_schema"] or schema,
                table=key["referred_table"],
                referred=key["referred_columns"][0],
            )


def _unique_groups(
    key: tuple[str, ...], uniques: Sequence[Mapping[str, Any]], indexes: Sequence[Mapping[str, Any]]
) -> list[Sequence[str]]:
    groups: list[Sequence[str]] = [key] if key else []
    groups += [unique["column_names"] for unique in uniques]
    groups += [index["column_names"] for index in indexes if index["unique"] and _is_plain(index)]
    return groups


def _index_heads(indexes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for index in indexes:
        if index["column_names"] and index["column_names"][0] and not index["dialect_options"].get("postgresql_where"):
            yield index["column_names"][0]


def _is_plain(index: Mapping[str, Any]) -> bool:
    """Whether an index is over columns only, and over all rows."""
    return all(index["column_names"]) and not index["dialect_options"].get("postgresql_where")


def _is_ours(tables: Sequence[Table]) -> bool:
    return {(table.name, column.name) for table in tables for column in table.columns} >= _OURS
