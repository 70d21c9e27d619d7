"""Reads pages of Last.fm's API as they are saved, one in a file or an array of them.

    {"recenttracks": {"track": [{"artist": {"#text"}, "album": {"#text"}, "name", "date": {"uts"}}, ...]}}
    [{"track": [...]}, ...]     or without the pages: [{"artist", ...}, ...]

What is playing at the moment stands first in a page and has no time yet.  https://www.last.fm/api/show/user.getRecentTracks
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from importers import values
from importers.files import TextFile
from importers.json_stream import array_items
from importers.lists import suffix_of
from importers.records import Heard
from importers.tally import Kind, Tally


def is_page(file: TextFile) -> bool:
    """Whether a file begins like such pages."""
    head = file.head().lstrip() if suffix_of(file) == ".json" else ""
    if not head.startswith(("[", "{")):
        return False
    return '"recenttracks"' in head or '"lovedtracks"' in head or ('"#text"' in head and '"artist"' in head)


def tracks_of(file: TextFile, kind: Kind, tally: Tally) -> Iterator[tuple[int, Heard, datetime]]:
    """Number within the file, song and time of the tracks that can be used."""
    for number, track in enumerate(_tracks(file), start=1):
        where = f"{file.name} record {number}"
        faults: list[str] = []
        try:
            record = values.record_of(track)
            at = _time_of(record)
            heard = Heard(
                artist=values.required(record, "artist", _name),
                title=values.required(record, "name", values.text),
                album=values.optional(record, "album", _name, faults),
            )
        except ValueError as exc:
            tally.skip(kind, str(exc), where)
            continue
        for fault in faults:
            tally.empty(fault, where)
        yield number, heard, at


def _tracks(file: TextFile) -> Iterator[Any]:
    head = file.head().lstrip()
    if head.startswith("{"):
        around = next((name for name in ("recenttracks", "lovedtracks") if f'"{name}"' in head), "")
        for _, track in array_items(file, at=f"{around}.track".lstrip(".")):
            yield track
    else:
        for _, page in array_items(file):
            yield from _tracks_of_page(page)


def _tracks_of_page(page: Any) -> Iterator[Any]:
    """The tracks of a page; what is no page is a track itself."""
    inner = page.get("recenttracks", page.get("lovedtracks", page)) if isinstance(page, dict) else page
    if not isinstance(inner, dict) or "track" not in inner:
        yield inner
    elif isinstance(inner["track"], list):
        yield from inner["track"]
    else:
        yield inner["track"]  # the API makes no array of a single one


def _time_of(track: Mapping[str, Any]) -> datetime:
    told = track.get("@attr")
    if isinstance(told, dict) and str(told.get("nowplaying")).lower() == "true":
        raise ValueError("is playing now, and has no time yet")
    date = track.get("date")
    return values.required(date if isinstance(date, dict) else {"uts": date}, "uts", values.unix_time)


def _name(value: Any) -> str | None:
    """The name of an artist or album, which stands in an object, or by itself."""
    return values.text(value.get("#text") or value.get("name") if isinstance(value, dict) else value)
