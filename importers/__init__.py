"""Files of somebody's history to rows of the schema `music`: one module for each format, all of them named below.

Histories and playlists that services export are `Format`s: which files are theirs, and the records in them.  Whole catalogues
with ids of their own (`csv`, `movielens`) are `Importer`s, which bring their rows by themselves.  `auto` finds out what a path
holds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from config import ImportConfig
from errors import ConfigError
from importers.csv_folder import import_csv, is_csv_folder
from importers.exportify import EXPORTIFY
from importers.formats import Format
from importers.history import import_history
from importers.jspf import JSPF
from importers.lastfm import LASTFM, LASTFM_MINUTES
from importers.lastfm_1k import LASTFM_1K
from importers.listenbrainz import LISTENBRAINZ
from importers.m3u import M3U
from importers.maloja import MALOJA
from importers.movielens import import_movielens, is_movielens
from importers.own_json import OWN_JSON
from importers.scrobbler_log import SCROBBLER_LOG
from importers.spotify import SPOTIFY
from importers.spotify_account import SPOTIFY_ACCOUNT
from importers.spotify_playlists import SPOTIFY_PLAYLISTS
from importers.tally import Tally
from importers.yambda import YAMBDA
from storage.connections import Connection

__all__ = ["FORMATS", "IMPORTERS", "NAMES", "Importer", "Tally", "import_path"]


class Importer(Protocol):
    """Brings what is at `path` into the schema `music` in the caller's transaction; raises DataError, and then brings nothing.

    `source` None: named after the path.  `prefix` puts "prefix:" before all ids.  `progress` shows bars on a terminal.
    """

    def __call__(
        self, connection: Connection, path: Path, *, source: str | None = None, prefix: str | None = None, progress: bool = True
    ) -> Tally:
        """Import and return the account."""


IMPORTERS: Mapping[str, Importer] = MappingProxyType({"csv": import_csv, "movielens": import_movielens})
"""Catalogues, by the name that the command `import` takes."""
FORMATS: Sequence[Format] = (
    *(SPOTIFY, LISTENBRAINZ, LASTFM, MALOJA, SCROBBLER_LOG),
    *(SPOTIFY_ACCOUNT, LASTFM_MINUTES),
    *(LASTFM_1K, YAMBDA),
    *(SPOTIFY_PLAYLISTS, EXPORTIFY, OWN_JSON, JSPF, M3U),
)
"""Exports, in the order in which they are asked for their files; where two tell the same plays, the exact one comes first."""
AUTO = "auto"
NAMES: Sequence[str] = (AUTO, *sorted({*IMPORTERS, *(each.name for each in FORMATS)}))
"""What the command `import` takes; "lastfm" reads "lastfm-minutes" as well, and so on."""


def import_path(
    connection: Connection,
    name: str,
    path: Path,
    settings: ImportConfig,
    *,
    source: str | None = None,
    prefix: str | None = None,
    progress: bool = True,
) -> list[Tally]:
    """Import what is at `path` as one of NAMES, and return an account of each format that was found; the caller commits.

    Raises DataError, with nothing imported, for what cannot be read or is not known, and ConfigError for a prefix that does not
    go with the format: exports find their songs by what these are called, whichever source told them first.
    """
    catalogue = _catalogue_at(path) if name == AUTO else name
    if catalogue in IMPORTERS:
        return [IMPORTERS[catalogue](connection, path, source=source, prefix=prefix, progress=progress)]
    if prefix is not None:
        raise ConfigError(f"--prefix {prefix} goes with {' and '.join(IMPORTERS)} only: leave it out")
    formats = [each for each in FORMATS if name in (AUTO, each.name) or each.name.startswith(f"{name}-")]
    return import_history(connection, path, formats, settings, source=source, progress=progress)


def _catalogue_at(path: Path) -> str:
    if is_csv_folder(path):
        return "csv"
    return "movielens" if is_movielens(path) else AUTO
