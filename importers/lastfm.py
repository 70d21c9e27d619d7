"""Reads what people fetched from Last.fm and Libre.fm: tables of scrobbles, and the pages of its API.

    lastfm.ghan.nl          uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid
    benjaminbenben.com      no header: artist,album,track,17 May 2026 12:54
    lastfmstats.com         Artist;Album;AlbumId;Track;Date#...   (milliseconds)
    Libre.fm                time,artist,track,album
    user.getRecentTracks    JSON, one page or an array of them

and tables like these: the columns are found by their names, in any order, between commas, semicolons or tabs.  Of several times
`uts` is trusted.  Times without a zone are UTC.  A table whose times are whole minutes is a format of its own, so that the same
plays, exported twice in two ways, are found to be the same.  A file with "loved" in its name holds songs that were loved.

The MBIDs are left alone: Last.fm guesses them from names, and ListenBrainz keeps them apart as lastfm_track_mbid.  Nothing says
how long a play was; Last.fm takes what played for half its length or four minutes.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from errors import DataError
from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.lastfm_pages import is_page, tracks_of
from importers.lines import cut_off
from importers.lists import in_order, suffix_of
from importers.policy import Policy
from importers.records import Heard, Opinion, Play, Record, Score
from importers.tally import Kind, Tally

SECONDS_PER_MINUTE = 60.0
DELIMITERS = (",", ";", "\t")
# What the columns are called in small letters, the name that is trusted most first.
COLUMNS: Mapping[str, Sequence[str]] = {
    "time": (
        *("uts", "date_uts", "timestamp", "unix_timestamp", "utc_time", "played_at", "listened_at", "scrobbled_at"),
        *("scrobble_time", "rawdatetime", "datetime", "date_time", "time", "date"),
    ),
    "artist": ("artist", "artist_name", "artistname"),
    "title": ("track", "title", "track_name", "trackname", "track_title", "song", "song_name", "name"),
    "album": ("album", "album_name", "albumname", "album_title", "release", "release_name"),
}
NEEDED = ("time", "artist", "title")
# Of a file with one of these in its name, whoever handed it over will want to know what is missing.
TELLING_NAMES = ("lastfm", "last.fm", "last_fm", "librefm", "libre.fm", "scrobble", "recenttracks")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ENGLISH_TIME = re.compile(
    rf"([0-9]{{1,2}}) ({'|'.join(MONTHS)})[a-z]* ([0-9]{{4}}),? ([0-9]{{1,2}}):([0-9]{{2}})(?::([0-9]{{2}}))?"
)
_TO_THE_MINUTE = re.compile(r".*[ T,][0-9]{1,2}:[0-9]{2}Z?")
_MILLISECONDS = re.compile(r"[0-9]{11,14}")  # as seconds, these would lie beyond the year 2286


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a table is written."""

    delimiter: str
    names: Sequence[str]
    """Of the columns."""
    places: Mapping[str, int]
    """Where time, artist, title and album stand."""
    has_header: bool
    is_exact: bool
    """Whether its times tell seconds."""


def time_of(cell: str) -> datetime | None:
    """A time in seconds or milliseconds since 1970, in English, or in ISO 8601.

    >>> time_of("31 Dec 2025, 21:38").isoformat(), time_of("1767217094").isoformat()
    ('2025-12-31T21:38:00+00:00', '2025-12-31T21:38:14+00:00')
    """
    stripped = cell.strip()
    if _MILLISECONDS.fullmatch(stripped):
        return values.unix_time(f"{stripped[:-3]}.{stripped[-3:]}")
    if stripped.isdigit():
        return values.unix_time(stripped)
    english = _ENGLISH_TIME.fullmatch(stripped)
    if english is None:
        return values.utc_time(stripped)
    day, month, year, hour, minute, second = english.groups(default="0")
    try:
        found = datetime(int(year), MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        raise ValueError("is not a time") from None
    return values.checked_time(found)


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(file for file in files if is_page(file) or _is_table(file, exact=True))


def _recognise_minutes(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(file for file in files if _is_table(file, exact=False))


def _is_table(file: TextFile, *, exact: bool) -> bool:
    if suffix_of(file) not in (".csv", ".tsv", ".txt"):
        return False
    layout = _layout_of(file)
    return layout is not None and layout.is_exact == exact and (not _missing(layout) or _is_telling(file, layout))


def _is_telling(file: TextFile, layout: Layout) -> bool:
    return len(_missing(layout)) == 1 and ("uts" in layout.names or any(word in file.name.lower() for word in TELLING_NAMES))


def _missing(layout: Layout) -> list[str]:
    return [what for what in NEEDED if what not in layout.places]


def _layout_of(file: TextFile) -> Layout | None:
    """The layout of a table by its first lines; None where it names neither artist nor title."""
    lines = _whole_lines(file.head())
    for delimiter in DELIMITERS if lines else ():
        names = [_plain(cell) for cell in _cells(lines[0], delimiter) or []]
        places = {what: place for what, known in COLUMNS.items() if (place := _first_place(known, names)) is not None}
        if "artist" in places or "title" in places:
            times = [cells[places["time"]] for line in lines[1:] if (cells := _row(line, delimiter, names)) and "time" in places]
            exact = not any(_TO_THE_MINUTE.fullmatch(time.strip()) for time in times)
            return Layout(delimiter=delimiter, names=names, places=places, has_header=True, is_exact=exact)
    return _headerless(lines)


def _whole_lines(head: str) -> list[str]:
    """The lines of a file's beginning without the last one, which may go on; of one or two all, for there may be no more."""
    lines = head.splitlines()
    return lines[:-1] if len(lines) > 2 and not head.endswith("\n") else lines


def _headerless(lines: Sequence[str]) -> Layout | None:
    names = ("artist", "album", "track", "time")
    times = [cells[-1].strip() for line in lines if (cells := _row(line, ",", names))]
    if not any(_ENGLISH_TIME.fullmatch(time) for time in times):
        return None
    places = {"artist": 0, "album": 1, "title": 2, "time": 3}
    return Layout(delimiter=",", names=names, places=places, has_header=False, is_exact=False)


def _plain(name: str) -> str:
    """A column's name in small letters; what follows # is a part of the API's fields, or somebody's name.

    >>> [_plain(name) for name in ("Track Name", "artist.#text", "Date#somebody")]
    ['track_name', 'artist', 'date']
    """
    return re.sub(r"[^a-z0-9]+", "_", name.partition("#")[0].lower()).strip("_")


def _first_place(known: Sequence[str], names: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _row(line: str, delimiter: str, names: Sequence[str]) -> list[str] | None:
    cells = _cells(line, delimiter)
    return cells if cells and len(cells) == len(names) else None


def _cells(line: str, delimiter: str) -> list[str] | None:
    """The fields of a line, None where its quotes do not match.  A title over several lines is none that a service would give."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), None)
    except csv.Error:
        return None


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        loved = "loved" in file.base_name.lower()
        kind: Kind = "feedback" if loved else "plays"
        found = tracks_of(file, kind, tally) if suffix_of(file) == ".json" else _scrobbles(file, kind, tally)
        for number, heard, at in found:
            yield Opinion(number, heard, Score.LIKED, at) if loved else Play(number, heard, at)


def _scrobbles(file: TextFile, kind: Kind, tally: Tally) -> Iterator[tuple[int, Heard, datetime]]:
    """Line, song and time of the rows that can be used."""
    layout = _checked_layout(file)
    for number, line in enumerate(file.lines(), start=1):
        if line.isspace() or (number == 1 and layout.has_header):
            continue
        where = f"{file.name} line {number}"
        faults: list[str] = []
        try:
            heard, at = _scrobble(line, layout, faults)
        except ValueError as exc:
            # What is wrong with a line that has no end is most likely that the file ends there.
            if not line.endswith(("\n", "\r")):
                raise cut_off(file, number) from exc
            tally.skip(kind, str(exc), where)
            continue
        for fault in faults:
            tally.empty(fault, where)
        yield number, heard, at


def _checked_layout(file: TextFile) -> Layout:
    layout = _layout_of(file)
    missing = " or ".join(_missing(layout)) if layout else "artist, title or time"
    if layout is None or missing:
        raise DataError(
            f"{file.name} has no column for {missing}: its first line must name the columns, as in uts,artist,album,track"
        )
    return layout


def _scrobble(line: str, layout: Layout, faults: list[str]) -> tuple[Heard, datetime]:
    cells = _cells(line, layout.delimiter)
    if cells is None:
        raise ValueError("quotes that do not match, or a field too long")
    if len(cells) != len(layout.names):
        raise ValueError("wrong number of fields")
    row = {what: cells[place] for what, place in layout.places.items()}
    at = values.required(row, "time", time_of)
    heard = Heard(
        artist=values.required(row, "artist", values.text),
        title=values.required(row, "title", values.text),
        album=values.optional(row, "album", values.text, faults),
    )
    return heard, at


LASTFM = Format(name="lastfm", title="Last.fm or Libre.fm scrobbles", recognise=_recognise, read=_read)
LASTFM_MINUTES = Format(
    name="lastfm-minutes",
    title="Last.fm scrobbles in whole minutes",
    recognise=_recognise_minutes,
    read=_read,
    precision_seconds=SECONDS_PER_MINUTE,
)
FORMATS = (LASTFM, LASTFM_MINUTES)
