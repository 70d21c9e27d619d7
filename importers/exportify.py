"""Reads playlists as Exportify writes them: a CSV file for each, in a folder or a zip; and the CSV files of our own exports.

Two programs of that name and their forks have named the columns differently over the years:

    watsonbox       Playlist Name, Track URI (once Spotify URI), Track Name, Artist URI(s), Artist Name(s), Album Name,
                    Album Release Date, Disc Number, Track Number, Track Duration (ms), Explicit, ISRC, Added By, Added At, ...
    pavelkomarov    Track URI (once Spotify ID), Track Name, Album Name, Artist Name(s), Release Date, Duration (ms), ...
    both, if asked  Danceability, Energy, Key, Loudness, Mode, Speechiness, Acousticness, Instrumentalness, Liveness, Valence,
                    Tempo, Time Signature: as Spotify measured them

Only the names of songs and artists are required; columns in another order, and further ones, do no harm.  Who added a song is not
looked at.  A list's id is the name of its file, which both programs make of the list's name.

Of several artists the first is taken.  watsonbox separates them with ", " and writes a comma of a name as "\\,", which earlier
versions did not: there "Tyler, The Creator" is told from two artists by the number of Artist URI(s) alone.  pavelkomarov
separates with ";", earlier with a comma and no blank.

Our own files have a column song_id.  There the artist is one text, and texts that a spreadsheet would take for formulas begin
with an apostrophe that is taken off again.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from errors import DataError
from importers import fields, values
from importers.files import TextFile, csv_rows, reading
from importers.formats import Format
from importers.lists import ListIds, in_order, is_hidden, plain_name, shortened, spotify_id, suffix_of
from importers.policy import Policy
from importers.records import Features, Heard, Place, Record
from importers.tally import Tally

REQUIRED = ("track name", "artist name(s)")
FEATURE_SOURCE = "spotify"
GUARDED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")  # what our export puts an apostrophe before, with the apostrophe


def _spotify_link(value: str) -> str | None:
    if value.startswith("spotify:local:"):  # the listener's own file, which has no number
        return None
    found = spotify_id(value) or spotify_id(f"spotify:track:{value}")
    if found is None:
        raise ValueError("is no id of a Spotify track")
    return found


# By the column's name in small letters: the field that it fills and its reader.
COLUMNS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("track uri", "spotify uri", "spotify id", "track id"), ("spotify_id", _spotify_link)),
    "track name": ("title", values.text),
    **dict.fromkeys(("artist name(s)", "artist name"), ("artist", values.text)),
    "album name": ("album", values.text),
    **dict.fromkeys(("album release date", "release date"), ("release_date", fields.first_day)),
    "disc number": ("disc_number", fields.whole_number(0)),
    "track number": ("track_number", fields.whole_number(0)),
    **dict.fromkeys(("track duration (ms)", "duration (ms)"), ("duration_ms", fields.whole_number(0))),
    "explicit": ("explicit", fields.truth),
    "isrc": ("isrc", values.text),
    "added at": ("added_at", values.utc_time),
    "playlist name": ("name", values.text),
    "danceability": ("danceability", fields.number),
    "energy": ("energy", fields.number),
    "key": ("key", fields.whole_number(-1, 11)),  # -1: no key found
    "loudness": ("loudness", fields.number),
    "mode": ("mode", fields.whole_number(0, 1)),
    "speechiness": ("speechiness", fields.number),
    "acousticness": ("acousticness", fields.number),
    "instrumentalness": ("instrumentalness", fields.number),
    "liveness": ("liveness", fields.number),
    "valence": ("valence", fields.number),
    "tempo": ("tempo", fields.number),
    "time signature": ("time_signature", fields.whole_number(0, 99)),
    # of our own exports
    "recording mbid": ("recording_mbid", fields.uuid),
    "artist mbid": ("artist_mbid", fields.uuid),
    "release mbid": ("release_mbid", fields.uuid),
    "location": ("location", fields.an_id),
}


class _Layout(NamedTuple):
    """What the first line of a file says of the rest."""

    header: Sequence[str]
    """Names of columns in small letters."""
    artist_uris: int | None
    """Where the artists' own ids stand, one for each."""
    is_watsonbox: bool
    is_ours: bool

    @classmethod
    def of(cls, header: Sequence[str]) -> "_Layout":
        return cls(
            header=header,
            artist_uris=header.index("artist uri(s)") if "artist uri(s)" in header else None,
            is_watsonbox=any(name in header for name in ("album release date", "track duration (ms)")),
            is_ours="song_id" in header,
        )

    def artist(self, names: str, cells: Sequence[str]) -> str:
        """The first of the artists."""
        if self.is_ours:
            return names
        uris = None if self.artist_uris is None else cells[self.artist_uris]
        return first_artist(names, is_alone=bool(uris) and "," not in (uris or ""), blank_after_comma=self.is_watsonbox)


def first_artist(names: str, *, is_alone: bool, blank_after_comma: bool) -> str:
    r"""The first of several names.

    >>> first_artist(r"Tyler\, The Creator, Nova", is_alone=False, blank_after_comma=True)
    'Tyler, The Creator'
    >>> first_artist("Earth, Wind & Fire;Nova", is_alone=False, blank_after_comma=False)
    'Earth, Wind & Fire'
    """
    if is_alone:
        first = names
    elif blank_after_comma:
        first = re.split(r"(?<!\\), ", names, maxsplit=1)[0]
    elif ";" in names:
        first = names.split(";", 1)[0]
    else:
        first = re.split(r"(?<![0-9]),(?=\S)|,(?=[^\s0-9])", names, maxsplit=1)[0]  # not within "10,000 Maniacs"
    return first.replace("\\,", ",") or names


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(file for file in files if suffix_of(file) == ".csv" and not is_hidden(file) and _is_ours(file.head()))


def _is_ours(head: str) -> bool:
    try:
        header = _names(next(csv.reader([head.partition("\n")[0]]), []))
    except csv.Error:  # lines that end as on old Macs
        return False
    return all(name in header for name in REQUIRED)


def _names(cells: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    ids = ListIds()
    for file in files:
        yield from _places(file, ids.of(shortened(plain_name(file))), tally)


def _places(file: TextFile, playlist_id: str, tally: Tally) -> Iterator[Record]:
    broken: list[int] = []  # the line at hand, where it is no row

    def skip(reason: str, line: int) -> None:
        broken[:] = [line]
        tally.skip("rows", reason, f"{file.name} line {line}")

    rows = csv_rows(file, skip=skip)
    layout = _Layout.of(_header(file, next(rows, (0, []))[1]))
    for line, cells in rows:
        broken.clear()
        if len(cells) != len(layout.header):
            skip("wrong number of fields", line)
            continue
        place = _place(layout, line, cells, tally, f"{file.name} line {line}")
        if place is not None:
            yield place._replace(playlist=playlist_id, name=place.name or plain_name(file))
    if broken and not _ends_with_a_line(file):
        raise DataError(f"{file.name} ends in the middle of line {broken[0]} (cut off?): fetch it again")


def _header(file: TextFile, cells: Sequence[str]) -> Sequence[str]:
    header = _names(cells)
    for name in REQUIRED:
        if name not in header:
            raise DataError(f"{file.name} has no column {name!r}: it is no playlist of Exportify, or was cut off")
    return header


def _ends_with_a_line(file: TextFile) -> bool:
    last = b""
    with reading(file) as stream:
        while block := stream.read(65_536):
            last = block[-1:]
    return last == b"\n"


def _place(layout: _Layout, line: int, cells: Sequence[str], tally: Tally, where: str) -> Place | None:
    found, faults = _read_cells(layout, cells)
    uri = next((cell for name, cell in zip(layout.header, cells, strict=True) if name in ("track uri", "spotify uri")), "")
    if uri.startswith(("spotify:episode:", "spotify:show:")):
        tally.skip("rows", "is an episode of a podcast", where)
        return None
    heard = _heard(found)
    if not any((heard.spotify_id, heard.recording_mbid, heard.isrc, heard.location, heard.artist and heard.title)):
        tally.skip("rows", "names neither a Spotify track nor artist and title", where)
        return None
    for fault in faults:
        tally.empty(fault, where)
    added_at: datetime | None = found.get("added_at")
    return Place(line=line, playlist="", heard=heard, added_at=added_at, name=found.get("name"))


def _read_cells(layout: _Layout, cells: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The fields that can be used, and what is wrong with the others; of two columns for one field the first that is filled."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for name, cell in zip(layout.header, cells, strict=True):
        field, read = COLUMNS.get(name, ("", values.text))
        if not field or not cell.strip() or found.get(field) is not None:
            continue
        if layout.is_ours and GUARDED.match(cell):
            cell = cell[1:]
        try:
            found[field] = read(layout.artist(cell, cells) if field == "artist" else cell)
        except ValueError as exc:
            faults.append(f"{name} {exc}")
    return found, faults


def _heard(found: Mapping[str, Any]) -> Heard:
    features = {name: found[name] for name in Features._fields if found.get(name) is not None}
    release_date: date | None = found.get("release_date")
    plain = {name: found[name] for name in Heard._fields if name in found and name != "release_date"}
    sound = Features(**features, feature_source=FEATURE_SOURCE) if features else None
    return Heard(**plain, release_date=release_date, features=sound)


EXPORTIFY = Format(name="exportify", title="Exportify playlists (CSV)", recognise=_recognise, read=_read)
FORMATS = (EXPORTIFY,)
