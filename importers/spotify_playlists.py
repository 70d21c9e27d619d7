"""Reads the playlists of Spotify's account data, which comes within days of asking for it.

    Playlist1.json, Playlist2.json, ...   {"playlists": [{"name", "lastModifiedDate", "items": [...]}, ...]}

An item is a track with the day on which it was added; podcasts, audiobooks and the listener's own files are counted and left out.
A list has no id in there, only a name, and two lists may have the same one: see `importers.lists.ListIds`.  When a list was made
is not told; the day of its last change is not that.  Collaborators and followers are not looked at.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import array_items
from importers.lists import ListIds, in_order, is_hidden, spotify_id, suffix_of
from importers.policy import Policy
from importers.records import Heard, Place, Record
from importers.tally import Tally

SECONDS_PER_DAY = 86_400.0
_BEGINNING = re.compile(r'\s*\{\s*"playlists"\s*:\s*(?:\[\s*(?:\{(?!\s*"playlist")|\]|$)|$)')
_NAME = re.compile(r"playlist[-_ ]?[0-9]*\.json(?:\.gz)?", re.IGNORECASE)
_OTHER_ITEMS = {
    "episode": "is an episode of a podcast",
    "audiobook": "is a chapter of an audiobook",
    "localTrack": "is a file of the listener's own",
}


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_playlists, files))


def _is_playlists(file: TextFile) -> bool:
    if suffix_of(file) != ".json" or is_hidden(file):
        return False
    head = file.head()
    # A damaged one by its name, so that its reader can say what is wrong.
    return _BEGINNING.match(head) is not None or (not head and _NAME.fullmatch(file.base_name) is not None)


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    ids = ListIds()
    for file in files:
        line = 0
        for number, playlist in array_items(file, at="playlists"):
            where = f"{file.name} list {number}"
            try:
                name, items = _list(playlist)
            except ValueError as exc:
                tally.skip("playlists", str(exc), where)
                continue
            playlist_id = ids.of(name)
            for place, item in enumerate(items, start=1):
                line += 1
                found = _place(line, item, tally, f"{where} item {place}")
                if found is not None:
                    yield found._replace(playlist=playlist_id, name=name)


def _list(playlist: Any) -> tuple[str | None, Sequence[Any]]:
    """Its name and its items.  Raises ValueError for what is no list."""
    record = values.record_of(playlist)
    name = values.optional(record, "name", values.text, [])
    items = record.get("items")
    if not isinstance(items, list):
        raise ValueError("items is no array")  # noqa: TRY004, a reader's fault is a ValueError whatever is wrong
    return name, items


def _place(line: int, item: Any, tally: Tally, where: str) -> Place | None:
    faults: list[str] = []
    try:
        record = values.record_of(item)
        heard = _song_of(record, faults)
    except ValueError as exc:
        tally.skip("rows", str(exc), where)
        return None
    added_at = values.optional(record, "addedDate", values.utc_time, faults)
    for fault in faults:
        tally.empty(fault, where)
    return Place(line=line, playlist="", heard=heard, added_at=added_at)


def _song_of(item: Mapping[str, Any], faults: list[str]) -> Heard:
    """The song of an item; `faults` is told of fields that cannot be used.  Raises ValueError where there is none."""
    track = item.get("track")
    if not track:
        raise ValueError(next((told for key, told in _OTHER_ITEMS.items() if item.get(key)), "has no track"))
    if not isinstance(track, dict):
        raise ValueError("track is no object")  # noqa: TRY004
    heard = Heard(
        spotify_id=values.optional(track, "trackUri", _track, faults),
        title=values.optional(track, "trackName", values.text, faults),
        artist=values.optional(track, "artistName", values.text, faults),
        album=values.optional(track, "albumName", values.text, faults),
    )
    if not (heard.spotify_id or (heard.artist and heard.title)):
        raise ValueError("names neither a Spotify track nor artist and title")
    return heard


def _track(value: Any) -> str | None:
    uri = values.text(value)
    if uri is None or uri.startswith("spotify:local:"):
        return None
    found = spotify_id(uri)
    if found is None:
        raise ValueError("is no spotify:track:...")
    return found


SPOTIFY_PLAYLISTS = Format(
    name="spotify-playlists",
    title="Spotify account data: playlists",
    recognise=_recognise,
    read=_read,
    precision_seconds=SECONDS_PER_DAY,
)
FORMATS = (SPOTIFY_PLAYLISTS,)
