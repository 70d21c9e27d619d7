"""Rows of text to typed rows: which column fills which field, and what happens to values that cannot be read.

A bad value costs its row in a required column, and itself in any other; both are noted in the tally.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from errors import DataError
from importers.files import TextFile, TextRow, csv_rows
from importers.load import Playlist, PlaylistRow, Song
from importers.tally import Kind, Tally

log = logging.getLogger(__name__)

Row = TypeVar("Row", Song, Playlist, PlaylistRow)

MAX_SHOWN_CHARACTERS = 40  # of a value that a message quotes


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column is for: the field that it fills and its reader, one of `importers.fields`."""

    fills: str
    read: Callable[[str], Any]
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one file, which count as `kind`."""

    name: str
    """Of the file, for messages."""
    kind: Kind
    header: Sequence[str]
    """The names of the file's columns, in their order."""
    columns: Mapping[str, Column]
    """Those of them that are used."""
    rows: Iterator[TextRow]

    def typed(self, row_type: type[Row], tally: Tally) -> Iterator[Row]:
        """Yield the rows that can be used; note the others, and the fields that cannot."""
        used = [
            (i, name, self.columns[name], row_type._fields.index(self.columns[name].fills))
            for i, name in enumerate(self.header)
            if name in self.columns
        ]
        for line, cells in self.rows:
            if len(cells) != len(self.header):
                tally.skip(
                    self.kind, "wrong number of fields", f"{self.name} line {line}: {len(cells)} instead of {len(self.header)}"
                )
                continue
            values: list[Any] = [line] + [None] * (len(row_type._fields) - 1)
            for i, name, column, place in used:
                try:
                    values[place] = _read(column, cells[i])
                except ValueError as exc:
                    where = f"{self.name} line {line}: {cells[i][:MAX_SHOWN_CHARACTERS]!r}"
                    if column.required:
                        tally.skip(self.kind, f"{name} {exc}", where)
                        break
                    tally.empty(f"{name} {exc}", where)
            else:
                yield row_type._make(values)


def open_csv(file: TextFile, kind: Kind, columns: Mapping[str, Column], tally: Tally, *, ignored: Collection[str] = ()) -> Table:
    """A CSV file whose first line names its columns; those neither known nor `ignored` are named in the log and left out.

    Raises DataError when the file cannot be read, is empty, lacks a required column, or has one of the columns twice.
    """
    rows = csv_rows(file, skip=lambda reason, line: tally.skip(kind, reason, f"{file.name} line {line}"))
    _, cells = next(rows, (0, []))
    header = [cell.strip() for cell in cells]
    _check_header(file.name, header, [name for name, column in columns.items() if column.required])
    unknown = [name for name in header if name not in columns and name not in ignored]
    if unknown:
        log.warning("%s: left out the columns that nothing here knows: %s", file.name, ", ".join(unknown))
    return Table(name=file.name, kind=kind, header=header, columns=columns, rows=rows)


def _check_header(file_name: str, header: Sequence[str], required: Sequence[str]) -> None:
    if not header:
        raise DataError(f"{file_name} is empty: its first line must name the columns, at least {', '.join(required)}")
    for name in required:
        if name not in header:
            raise DataError(
                f"{file_name} has no column {name!r}: its first line must name the columns, at least {', '.join(required)}"
            )
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        raise DataError(f"{file_name} has two columns {twice[0]!r}: rename or remove one of them")


def _read(column: Column, cell: str) -> Any:
    if cell:
        return column.read(cell)
    if column.required:
        raise ValueError("is empty")
    return None
