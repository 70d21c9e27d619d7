"""Reads JSPF, the form in which ListenBrainz and its relatives give playlists away.

    {"playlist": {"title", "creator", "date", "identifier", "extension": {...},
                  "track": [{"title", "creator", "album", "duration", "identifier", "location", "extension": {...}}, ...]}}

Programs differ: `identifier` and `location` are a text or a list of texts, `creator` is a text, a list or an object with a name,
the value of an extension is an object or a list of objects, the artists' addresses stand under artist_identifiers or
artist_identifier.  MusicBrainz' addresses of recordings, artists and releases are known, and links to tracks of Spotify.  A
list's id is that of ListenBrainz where it has one, else its title.  Who made it, and who added a song, is not looked at.

https://musicbrainz.org/doc/jspf and https://www.xspf.org/jspf
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from errors import DataError
from importers import fields, values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import whole
from importers.lists import ListIds, in_order, is_hidden, musicbrainz_id, plain_name, spotify_id, suffix_of
from importers.locations import is_address, stored_location
from importers.policy import Policy
from importers.records import Heard, Place, Record
from importers.tally import Tally

PLAYLIST_EXTENSION = "https://musicbrainz.org/doc/jspf#playlist"
TRACK_EXTENSION = "https://musicbrainz.org/doc/jspf#track"
LISTENBRAINZ_LIST = re.compile(r"https?://(?:[a-z]+\.)?listenbrainz\.org/playlist/([0-9A-Fa-f-]{36})/?")
_BEGINNING = re.compile(r'\s*\{\s*"playlist"\s*:\s*(?:\{|$)')


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_playlist, files))


def _is_playlist(file: TextFile) -> bool:
    if is_hidden(file):
        return False
    suffix = suffix_of(file)
    return suffix == ".jspf" or (suffix == ".json" and _BEGINNING.match(file.head()) is not None)


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    ids = ListIds()
    for file in files:
        playlist = _playlist(file)
        name = values.optional(playlist, "title", values.text, [])
        faults: list[str] = []
        created_at = values.optional(playlist, "date", values.utc_time, faults)
        playlist_id = ids.of(_identity(playlist) or name or plain_name(file))
        for fault in faults:
            tally.empty(fault, file.name)
        for line, track in enumerate(_tracks(playlist, file), start=1):
            place = _place(line, track, tally, f"{file.name} track {line}")
            if place is not None:
                yield place._replace(playlist=playlist_id, name=name or plain_name(file), created_at=created_at)


def _playlist(file: TextFile) -> Mapping[str, Any]:
    content = whole(file)
    playlist = content.get("playlist") if isinstance(content, dict) else None
    if not isinstance(playlist, dict):
        raise DataError(f'{file.name} is no JSPF: it is not {{"playlist": {{...}}}}')
    return playlist


def _tracks(playlist: Mapping[str, Any], file: TextFile) -> Sequence[Any]:
    tracks = playlist.get("track")
    if tracks is None:
        return ()
    if not isinstance(tracks, list):
        raise DataError(f"{file.name} is no JSPF: its track is no array")
    return tracks


def _identity(playlist: Mapping[str, Any]) -> str | None:
    texts = _texts(playlist.get("identifier"))
    found = next(filter(None, map(LISTENBRAINZ_LIST.fullmatch, texts)), None)
    if found:
        return found[1].lower()
    # Other addresses may hold the name of an account.
    return hashlib.sha256(texts[0].encode(errors="surrogatepass")).hexdigest()[:32] if texts else None


def _place(line: int, track: Any, tally: Tally, where: str) -> Place | None:
    faults: list[str] = []
    try:
        record = values.record_of(track)
        heard = _heard(record, faults)
    except ValueError as exc:
        tally.skip("rows", str(exc), where)
        return None
    added_at: datetime | None = values.optional(_extension(record), "added_at", values.utc_time, faults)
    for fault in faults:
        tally.empty(fault, where)
    return Place(line=line, playlist="", heard=heard, added_at=added_at)


def _heard(track: Mapping[str, Any], faults: list[str]) -> Heard:
    """The song of a track; `faults` is told of fields that cannot be used.  Raises ValueError where there is none."""
    extension = _extension(track)
    more = _object(extension.get("additional_metadata"))
    links = [*_texts(track.get("identifier")), *_texts(track.get("location"))]
    heard = Heard(
        title=values.optional(track, "title", values.text, faults),
        artist=values.optional(track, "creator", _creator, faults),
        album=values.optional(track, "album", values.text, faults),
        duration_ms=values.optional(track, "duration", _milliseconds, faults),
        recording_mbid=_first(links, lambda link: musicbrainz_id(link, "recording")),
        spotify_id=_first(links, spotify_id),
        isrc=values.optional(more, "isrc", values.text, faults),
        location=values.optional(track, "location", _location, faults),
        artist_mbid=_first(_artists(extension), lambda link: musicbrainz_id(link, "artist")),
        release_mbid=_first(_texts(extension.get("release_identifier")), lambda link: musicbrainz_id(link, "release")),
    )
    if not any((heard.spotify_id, heard.recording_mbid, heard.isrc, heard.location, heard.artist and heard.title)):
        raise ValueError("has neither an identifier nor a location nor artist and title")
    return heard


def _artists(extension: Mapping[str, Any]) -> list[str]:
    return [*_texts(extension.get("artist_identifiers")), *_texts(extension.get("artist_identifier"))]


def _first(links: Sequence[str], known: Callable[[str], str | None]) -> str | None:
    return next(filter(None, map(known, links)), None)


def _extension(track: Mapping[str, Any]) -> Mapping[str, Any]:
    """What MusicBrainz' extension says of a track; an object, or the first of a list of them."""
    return _object(_object(track.get("extension")).get(TRACK_EXTENSION))


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, list):
        value = next((part for part in value if isinstance(part, dict)), None)
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    """The texts of a text or a list; whatever else is there is passed over."""
    candidates = value if isinstance(value, list) else [value]
    return [found for candidate in candidates if (found := values.optional({"": candidate}, "", values.text, []))]


def _creator(value: Any) -> str | None:
    """The first of the artists."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("name")
    return values.text(value)


def _milliseconds(value: Any) -> int | None:
    """A length, rounded; 0 stands for one that is not known."""
    if type(value) is float and abs(value) < fields.LARGEST_INTEGER:
        value = round(value)
    return values.whole_number(value) or None


def _location(value: Any) -> str | None:
    """The first path or address that is no page at MusicBrainz or Spotify."""
    if value is not None and not isinstance(value, str | list):
        raise ValueError("is neither a text nor an array")
    for text in _texts(value):
        if spotify_id(text) is None and musicbrainz_id(text, "recording") is None:
            return fields.an_id(stored_location(text, "") if is_address(text) or text.startswith("/") else text)
    return None


JSPF = Format(name="jspf", title="JSPF playlists", recognise=_recognise, read=_read)
FORMATS = (JSPF,)
