"""A ranked list to a file that something else opens: one module for each family of forms, all of them in `EXPORTERS`.

A new form is an `Exporter`: it makes the text of a file of an `ExportedList`, and says in its notes what it left out.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from errors import DataError
from exporters.jspf import JSPF
from exporters.m3u8 import M3U8
from exporters.playlist import (
    DEFAULT_TABLE,
    ExportedList,
    ExportedSong,
    Exporter,
    Target,
    Written,
    exported_song,
    file_name,
    listed,
)
from exporters.table import CSV, JSON, SQL

__all__ = [
    "DEFAULT_TABLE",
    "EXPORTERS",
    "ExportedList",
    "ExportedSong",
    "Exporter",
    "Target",
    "Written",
    "exported_song",
    "exporter_for",
    "file_name",
    "listed",
    "write_file",
]

EXPORTERS: Mapping[str, Exporter] = MappingProxyType({each.extension: each for each in (JSPF, M3U8, CSV, JSON, SQL)})
"""By the ending of a file's name, without the dot."""


def exporter_for(path: Path) -> Exporter:
    """The form that the ending of a file's name says.  Raises DataError for another one."""
    exporter = EXPORTERS.get(path.suffix.lower().removeprefix("."))
    if exporter is None:
        known = ", ".join(f".{extension}" for extension in EXPORTERS)
        raise DataError(f"{path} has no ending of a file that lists can be written to: known are {known}")
    return exporter


def write_file(path: Path, exported: ExportedList, *, table: str = DEFAULT_TABLE) -> Written:
    """Write a list to a file beside it and rename that, so that nobody meets half of it; rows in SQL go into `table`.

    Raises DataError for an ending that nobody knows, a name that no table can have, and a file that cannot be written.
    """
    written = exporter_for(path).write(exported, Target(folder=path.parent.absolute(), table=table))
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(written.text, encoding="utf-8", newline="")
        beside.replace(path)
    except (OSError, ValueError) as exc:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {getattr(exc, 'strerror', None) or exc}") from exc
    return written
