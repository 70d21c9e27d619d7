"""An export, whatever it is: its files found, the formats recognised, their records brought.

`import auto PATH` asks every format which of the files are its own; what none of them knows is named and left alone.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from config import ImportConfig
from errors import ConfigError, DataError
from importers.bring import bring
from importers.fields import RESERVED_PREFIX
from importers.files import TextFile, all_files
from importers.formats import Format
from importers.policy import Policy
from importers.tally import Tally
from storage import imports
from storage.connections import Connection

log = logging.getLogger(__name__)

MAX_NAMED_FILES = 5  # in a message


def import_history(
    connection: Connection,
    path: Path,
    formats: Sequence[Format],
    settings: ImportConfig,
    *,
    source: str | None = None,
    progress: bool = True,
) -> list[Tally]:
    """Import what is at `path` (a file, a folder with all that lies below it, a zip) and is of one of these formats.

    Returns a tally for each format that was found; the caller commits.  `source` None: the format's own name.  Raises DataError,
    with nothing imported, when there is no such file, or one of them cannot be read, and ConfigError where one source would
    stand for several formats.
    """
    found, rest = recognised(all_files(path), formats)
    if not found:
        known = "; ".join(sorted({each.title for each in formats}))
        raise DataError(f"{path} holds nothing that is known here{_named(rest)}: known are {known}")
    if source is not None and f"{source}:".startswith(RESERVED_PREFIX):
        raise ConfigError(f"--source {source} is what ids of listening sessions begin with: choose another name")
    if source is not None and len(found) > 1:
        titles = "; ".join(each.title for each in found)
        raise ConfigError(f"--source {source} is for one format, and {path} holds several ({titles}): leave it out, or name one")
    if rest:
        log.info("left alone%s", _named(rest))
    policy = Policy(
        min_play_seconds=settings.min_play_seconds,
        min_play_share=settings.min_play_share,
        keep_incognito=settings.keep_incognito,
    )
    tallies = []
    imports.wait_for_others(connection)  # begins a transaction, so that the next line makes a savepoint in it
    with connection.transaction():  # what is wrong in the last format takes back the first
        for each, files in found.items():
            log.info("%s: %s", each.title, _count(files))
            tally = Tally(source=source or each.name)
            records = each.read(files, policy, tally)
            span = max(settings.same_play_seconds, each.precision_seconds)
            of_this = replace(settings, same_play_seconds=span)
            bring(connection, records, tally, of_this, covered_by=each.covered_by, progress=progress)
            tallies.append(tally)
    return tallies


def recognised(
    files: Sequence[TextFile], formats: Sequence[Format]
) -> tuple[Mapping[Format, Sequence[TextFile]], Sequence[TextFile]]:
    """The files of each format, and those of none; a file belongs to the first format that knows it."""
    found: dict[Format, Sequence[TextFile]] = {}
    rest = list(files)
    for each in formats:
        own = each.recognise(rest)
        if own:
            found[each] = own
            rest = [file for file in rest if file not in own]
    return found, rest


def _named(files: Sequence[TextFile]) -> str:
    """Some of the files, for a message."""
    if not files:
        return ""
    more = f" and {len(files) - MAX_NAMED_FILES} more" if len(files) > MAX_NAMED_FILES else ""
    return f" ({', '.join(file.name for file in files[:MAX_NAMED_FILES])}{more})"


def _count(files: Sequence[TextFile]) -> str:
    return files[0].name if len(files) == 1 else f"{len(files):,} files"
