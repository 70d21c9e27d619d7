"""Reads the JSON files of our own exports, which `cli.py recommend --export` and `POST /v1/playlist.json` write.

    {"name", "created_at", "model", "songs": [{"song_id", "title", "artist", "album", "duration_ms", "isrc", "recording_mbid",
                                               "artist_mbid", "release_mbid", "location", "spotify_id", ...}, ...]}

`song_id` is that of the database which the list came out of, and says nothing elsewhere.  A list's id is its name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from errors import DataError
from importers import fields, values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import whole
from importers.lists import ListIds, in_order, is_hidden, plain_name, spotify_id, suffix_of
from importers.policy import Policy
from importers.records import Heard, Place, Record
from importers.tally import Tally

_BEGINNING = re.compile(r'\s*\{\s*"name"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"created_at"\s*:\s*"[^"]*"\s*,\s*"model"\s*:')


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(
        file for file in files if suffix_of(file) == ".json" and not is_hidden(file) and _BEGINNING.match(file.head())
    )


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    ids = ListIds()
    for file in files:
        exported = whole(file)
        songs = exported.get("songs") if isinstance(exported, dict) else None
        if not isinstance(songs, list):
            raise DataError(f"{file.name} is no playlist of ours: it has no array songs")
        name = values.optional(exported, "name", values.text, []) or plain_name(file)
        playlist_id = ids.of(name)
        created_at = values.optional(exported, "created_at", values.utc_time, [])
        for line, song in enumerate(songs, start=1):
            heard = _song(song, tally, f"{file.name} song {line}")
            if heard is not None:
                yield Place(line=line, playlist=playlist_id, heard=heard, name=name, created_at=created_at)


def _song(song: Any, tally: Tally, where: str) -> Heard | None:
    faults: list[str] = []
    try:
        heard = _heard(values.record_of(song), faults)
    except ValueError as exc:
        tally.skip("rows", str(exc), where)
        return None
    for fault in faults:
        tally.empty(fault, where)
    return heard


def _heard(song: Mapping[str, Any], faults: list[str]) -> Heard:
    heard = Heard(
        title=values.optional(song, "title", values.text, faults),
        artist=values.optional(song, "artist", values.text, faults),
        album=values.optional(song, "album", values.text, faults),
        isrc=values.optional(song, "isrc", values.text, faults),
        recording_mbid=values.optional(song, "recording_mbid", values.uuid, faults),
        artist_mbid=values.optional(song, "artist_mbid", values.uuid, faults),
        release_mbid=values.optional(song, "release_mbid", values.uuid, faults),
        duration_ms=values.optional(song, "duration_ms", values.whole_number, faults),
        location=values.optional(song, "location", _location, faults),
        spotify_id=values.optional(song, "spotify_id", _spotify_id, faults),
    )
    if not any((heard.spotify_id, heard.recording_mbid, heard.isrc, heard.location, heard.artist and heard.title)):
        raise ValueError("has neither an id that counts elsewhere nor a location nor artist and title")
    return heard


def _location(value: Any) -> str | None:
    found = values.text(value)
    return None if found is None else fields.an_id(found)


def _spotify_id(value: Any) -> str | None:
    found = values.text(value)
    if found is not None and spotify_id(f"spotify:track:{found}") is None:
        raise ValueError("is no id of a Spotify track")
    return found


OWN_JSON = Format(name="playlist-json", title="Playlists of our own exports (JSON)", recognise=_recognise, read=_read)
FORMATS = (OWN_JSON,)
