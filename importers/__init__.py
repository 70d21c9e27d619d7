"""Files of somebody's history to rows of the schema `music`: one module for each format, all of them in `IMPORTERS`.

A new format is one module with a function like `Importer`: it makes a `History` of three iterators, hands it to
`importers.load.load`, and returns the tally; then it is entered below.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from importers.csv_folder import import_csv
from importers.movielens import import_movielens
from importers.tally import Tally
from storage.connections import Connection

__all__ = ["IMPORTERS", "Importer", "Tally"]


class Importer(Protocol):
    """Brings what is at `path` into the schema `music` in the caller's transaction; raises DataError, and then brings nothing.

    `source` None: named after the path.  `prefix` puts "prefix:" before all ids.  `progress` shows bars on a terminal.
    """

    def __call__(
        self, connection: Connection, path: Path, *, source: str | None = None, prefix: str | None = None, progress: bool = True
    ) -> Tally:
        """Import and return the account."""


IMPORTERS: Mapping[str, Importer] = MappingProxyType({"csv": import_csv, "movielens": import_movielens})
"""By the name that the command `import` takes."""
