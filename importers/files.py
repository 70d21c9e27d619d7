"""Text files that somebody hands over: plain, gzip-compressed, or inside a zip; read as lines and as delimited rows.

Nothing is unpacked to disk and no file is held in memory.  Whatever is wrong with a file as a whole ends as one DataError;
what is wrong with one row is noted in the tally, and costs that row only.
"""

import csv
import gzip
import io
import logging
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, cast

from errors import DataError

log = logging.getLogger(__name__)

# A line of this length is no row of ours; without a bound, a few compressed kilobytes can ask for all of the memory.
MAX_LINE_CHARACTERS = 1_048_576
# A row goes over several lines only where a title in quotes does; more means a quote that is never closed.
MAX_LINES_PER_ROW = 100
# MovieLens 32M holds 5 files and 1.0 GB, a ListenBrainz export a file for each month.
MAX_ZIP_ENTRIES = 2_000
MAX_ZIP_BYTES = 4 * 1024**3
_ZIP_BEGINS = b"PK\x03\x04"
MAX_FILES = 100_000  # below a folder: a large collection of music has as many

TextRow = tuple[int, list[str]]
"""The number of a row's first line, from 1, and its fields."""


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """One file, wherever it lies.  `name` is what messages call it, `open` gives its bytes, decompressed."""

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    path: Path | None = None
    """Where it lies, or the folder or zip that holds it."""

    @property
    def base_name(self) -> str:
        """The last part of its name."""
        return PurePosixPath(self.name).name

    def head(self, n_bytes: int = 4096) -> str:
        """The text that it begins with, to tell formats apart; empty where it cannot be read, odd bytes replaced."""
        try:
            with self.open() as stream:
                return stream.read(n_bytes).decode("utf-8-sig", errors="replace")
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError):
            return ""

    def lines(self, encoding: str = "utf-8-sig") -> Iterator[str]:
        """Lines with their ends.  Raises DataError when the file is away, truncated, damaged, or not in `encoding`."""
        number = 0

        def where() -> str:
            return f"after line {number}"

        with reading(self, where) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as decoded:
            try:
                while line := decoded.readline(MAX_LINE_CHARACTERS):
                    number += 1
                    if len(line) == MAX_LINE_CHARACTERS:
                        raise DataError(
                            f"{self.name} line {number} is longer than {MAX_LINE_CHARACTERS:,} characters: not a table"
                        )
                    yield line
            except UnicodeError as exc:  # UTF-16 without its mark raises no UnicodeDecodeError
                raise DataError(
                    f"{self.name} is not {_written(encoding)} after line {number}: save it as {_written(encoding)}"
                ) from exc


def _written(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()


@contextmanager
def reading(file: TextFile, where: Callable[[], str] = lambda: "") -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed; whatever is wrong with them becomes a DataError, which says `where()` that was met."""

    def named(fault: str) -> str:
        return " ".join(filter(None, (file.name, fault, where())))

    try:
        with file.open() as stream:
            yield stream
    except EOFError as exc:
        raise DataError(f"{named('is truncated')}: copy it again") from exc
    except (zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as exc:
        raise DataError(f"{named('is damaged')} ({exc}): copy it again") from exc
    except (NotImplementedError, RuntimeError) as exc:  # what zipfile raises for foreign compression and for passwords
        raise DataError(f"{file.name} cannot be unpacked ({exc}): unpack it first and name the folder") from exc
    except OSError as exc:
        raise DataError(f"{file.name} cannot be read: {exc.strerror or exc}") from exc


def file_at(path: Path) -> TextFile:
    """The file at a path; a name that ends in .gz is decompressed."""
    if path.suffix == ".gz":
        return TextFile(name=shown(path.name), path=path, open=lambda: cast(IO[bytes], gzip.open(path, "rb")))
    return TextFile(name=shown(path.name), path=path, open=lambda: path.open("rb"))


def all_files(path: Path) -> list[TextFile]:
    """The file at a path, the files of a zip, or all files below a folder, in the order of their names; hidden ones are left out.

    Zips below a folder are looked into.  Links that lead out of the folder are not followed.  Raises DataError when there is
    nothing, or more than MAX_FILES files, or the zip is damaged or too large.
    """
    if path.is_dir():
        root = path.resolve()
        found = [child for child in sorted(root.rglob("*")) if _is_visible_file(child, root)]
        if len(found) > MAX_FILES:
            raise DataError(f"{path} holds {len(found):,} files, more than {MAX_FILES:,}: name the folder of the export itself")
        return [file for child in found for file in _files_below(child, str(child.relative_to(root)))]
    if not path.exists():
        raise DataError(f"{path} does not exist: name a file, a folder or a zip")
    return _files_at(path)


def _files_below(path: Path, name: str) -> list[TextFile]:
    """The files of one path in a folder; a zip that cannot be read is left alone, since it may be anything."""
    if path.suffix.lower() != ".zip":
        return [replace(file_at(path), name=shown(name))]
    try:
        return [replace(file, name=f"{shown(name)}/{file.name}") for file in _files_at(path)]
    except DataError as exc:
        log.warning("left alone: %s", exc)
        return []


def _files_at(path: Path) -> list[TextFile]:
    """The file at a path, or the files of a zip.  Raises DataError."""
    if not zipfile.is_zipfile(path):
        _check_begin(path)
        return [file_at(path)]
    members = sorted(_outermost_last(_members(path)), key=lambda member: member.filename)
    archive = zipfile.ZipFile(path)  # one for all members: to open it anew for each took a minute with 1,000 of them
    return [_zip_member(path, member, archive) for member in members if not _is_hidden(PurePosixPath(member.filename))]


def _check_begin(path: Path) -> None:
    """Raise DataError for an empty file, and for one that begins like a zip and does not end like one."""
    with reading(TextFile(name=path.name, open=lambda: path.open("rb"))) as stream:
        begin = stream.read(len(_ZIP_BEGINS))
    if not begin:
        raise DataError(f"{path.name} is empty: fetch it again")
    if begin == _ZIP_BEGINS:
        raise DataError(f"{path.name} is no whole zip (cut off?): fetch it again")


def _is_visible_file(child: Path, root: Path) -> bool:
    return not _is_hidden(child.relative_to(root)) and child.is_file() and child.resolve().is_relative_to(root)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)


def files_in(path: Path) -> dict[str, TextFile]:
    """The files directly in a folder, or at the shallowest place where a zip has each name, by base name.

    Raises DataError when there is neither folder nor zip, or the zip is damaged or larger than MAX_ZIP_ENTRIES or MAX_ZIP_BYTES.
    """
    if path.is_dir():
        return {child.name: file_at(child) for child in sorted(path.iterdir()) if child.is_file()}
    if not path.exists():
        raise DataError(f"{path} does not exist: name a folder or a zip file")
    return {PurePosixPath(member.filename).name: _zip_member(path, member) for member in _outermost_last(_members(path))}


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as exc:
        raise DataError(f"{path.name} is neither a folder nor a readable zip file ({exc})") from exc
    _check_size(path, members)
    return members


def _check_size(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_ZIP_ENTRIES:
        raise DataError(f"{path.name} has {len(members):,} entries, more than {MAX_ZIP_ENTRIES:,}: unpack it and name the folder")
    # zipfile never gives more bytes of a member than it declares here.
    size = sum(member.file_size for member in members)
    if size > MAX_ZIP_BYTES:
        raise DataError(f"{path.name} unpacks to {size:,} bytes, more than {MAX_ZIP_BYTES:,}: unpack it and name the folder")


def _outermost_last(members: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    files = [member for member in members if not member.is_dir() and not member.filename.startswith("__MACOSX/")]
    return sorted(files, key=lambda member: (-member.filename.count("/"), member.filename))


def _zip_member(path: Path, member: zipfile.ZipInfo, archive: zipfile.ZipFile | None = None) -> TextFile:
    """A member; `archive` is open and stays so, or None to open it each time."""

    @contextmanager
    def unpacked() -> Iterator[IO[bytes]]:
        with archive.open(member) if archive is not None else _alone(path, member) as stream:
            yield stream

    return TextFile(name=shown(member.filename), path=path, open=unpacked)


@contextmanager
def _alone(path: Path, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        yield stream


def shown(name: str) -> str:
    """A name without signs that a terminal would obey.

    >>> shown("a\x1b[2J.json")
    'a?[2J.json'
    """
    return name if name.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in name)


class _RowLines:
    """Feeds a csv reader, and keeps the lines of the row at hand so that they can be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self.number = 1
        """Of the line on which the row at hand begins."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._row) == MAX_LINES_PER_ROW:
            raise csv.Error("a quote is never closed")
        line = self._again.popleft() if self._again else next(self._lines)
        self._row.append(line)
        return line

    def begin_row(self) -> None:
        self.number += len(self._row)
        self._row.clear()

    def give_up_row(self) -> None:
        """Leave the row's first line behind; the others come again."""
        self._again.extendleft(reversed(self._row[1:]))
        del self._row[1:]


def csv_rows(file: TextFile, *, skip: Callable[[str, int], None]) -> Iterator[TextRow]:
    """Yield the rows of a CSV file in UTF-8, except empty lines; `skip` is told reason and line of what is no row.

    A quote that is never closed costs its own line, not those behind it.
    """
    feed = _RowLines(file.lines())
    reader = csv.reader(feed, strict=True)
    while True:
        feed.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            feed.give_up_row()
            skip("quotes that do not match, or a field too long", feed.number)
            continue
        if cells:
            yield feed.number, cells


def split_rows(file: TextFile, separator: str, *, encoding: str) -> Iterator[TextRow]:
    """Yield the rows of a file without header and quotes, except empty lines."""
    for number, line in enumerate(file.lines(encoding), start=1):
        stripped = line.rstrip("\r\n")
        if stripped:
            yield number, stripped.split(separator)
