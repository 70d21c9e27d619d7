"""What the tags of an audio file say of its song, whatever container it is in: MP3, FLAC, Ogg, Opus, MP4, WMA, WAV, APE.

MusicBrainz Picard's names of the tags in each kind of container: https://picard-docs.musicbrainz.org/en/appendices/tag_mapping.html
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import mutagen
from mutagen.id3 import UFID, Frame
from mutagen.mp4 import MP4FreeForm

from importers import fields, values
from importers.records import Heard

# A damaged file makes some of mutagen's readers stumble over a number or a missing key before they notice.
UNREADABLE = (mutagen.MutagenError, OSError, EOFError, ValueError, LookupError, TypeError, OverflowError, MemoryError)


def _number_of(value: str) -> int | None:
    """The 7 of "7/12"."""
    return fields.whole_number(0)(value.partition("/")[0].strip())


def _day(value: str) -> Any:
    return fields.first_day(value.strip()[:10])


def _mbid(value: str) -> str:
    """One UUID; some programs put several into one tag."""
    return str(UUID(re.split("[/;]", value)[0].strip()))


def _as_it_stands(value: str) -> str | None:
    return values.text(value.strip())


_FREE_FORM = "----:com.apple.iTunes:"
# By field: how its text is read, and the names of its tag in Vorbis comments and APE, ID3, MP4, ASF.
TAGS: Mapping[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "artist": (_as_it_stands, ("artist", "TPE1", "\xa9ART", "Author")),
    "title": (_as_it_stands, ("title", "TIT2", "\xa9nam", "Title")),
    "album": (_as_it_stands, ("album", "TALB", "\xa9alb", "WM/AlbumTitle")),
    "isrc": (_as_it_stands, ("isrc", "TSRC", f"{_FREE_FORM}ISRC", "WM/ISRC")),
    "recording_mbid": (
        _mbid,
        ("musicbrainz_trackid", "UFID:http://musicbrainz.org", f"{_FREE_FORM}MusicBrainz Track Id", "MusicBrainz/Track Id"),
    ),
    "artist_mbid": (
        _mbid,
        (
            "musicbrainz_artistid",
            "TXXX:MusicBrainz Artist Id",
            f"{_FREE_FORM}MusicBrainz Artist Id",
            "MusicBrainz/Artist Id",
        ),
    ),
    "release_mbid": (
        _mbid,
        ("musicbrainz_albumid", "TXXX:MusicBrainz Album Id", f"{_FREE_FORM}MusicBrainz Album Id", "MusicBrainz/Album Id"),
    ),
    "track_number": (_number_of, ("tracknumber", "track", "TRCK", "trkn", "WM/TrackNumber")),
    "disc_number": (_number_of, ("discnumber", "disc", "TPOS", "disk", "WM/PartOfSet")),
    "release_date": (_day, ("date", "year", "TDRC", "\xa9day", "WM/Year")),
}


def tagged(path: Path) -> Heard | None:
    """What the tags of a file and its length tell; None where there is no such file, or it is no audio that can be read."""
    try:
        audio = mutagen.File(path)  # type: ignore[attr-defined, no-untyped-call, unused-ignore]
    except UNREADABLE:
        return None
    if audio is None:
        return None
    return song_of_tags(audio.tags)._replace(duration_ms=_milliseconds(getattr(audio.info, "length", None)))


def song_of_tags(tags: Any) -> Heard:
    """What the tags of any container say; None stands for a file without tags."""
    return Heard(**{field: _first(tags, names, read) for field, (read, names) in TAGS.items()})


def _milliseconds(seconds: Any) -> int | None:
    if not isinstance(seconds, int | float) or not 0 < seconds < fields.LARGEST_INTEGER / 1000:
        return None
    return round(1000 * seconds)


def _first(tags: Any, names: tuple[str, ...], read: Callable[[str], Any]) -> Any:
    """The value of the first of these tags that can be used."""
    for name in names:
        try:
            text = _text_of(tags[name]) if tags is not None and name in tags else None
            found = read(text) if text else None
        except UNREADABLE:  # some containers refuse the names of others
            continue
        if found is not None:
            return found
    return None


def _text_of(value: Any) -> str | None:
    """The first text of whatever a container makes of a tag."""
    if isinstance(value, UFID):
        return value.data.decode("ascii")  # type: ignore[attr-defined, no-any-return, unused-ignore]
    if isinstance(value, Frame):
        value = getattr(value, "text", None)
    while isinstance(value, list | tuple):
        if not value:
            return None
        value = value[0]
    text = value.decode() if isinstance(value, MP4FreeForm | bytes) else str(value)
    return text.partition("\0")[0]  # between several values in APE
