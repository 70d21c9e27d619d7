"""A list of songs on its way out, whichever form it takes there."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from storage.catalogue import SongCard
from storage.source import Id

OUR_NAME = "BERT4MusicRec"
DEFAULT_TABLE = "playlist_export"
LONGEST_FILE_NAME = 100  # characters without the ending; some file systems take 255 bytes

_SPOTIFY_TRACK = re.compile(r"spotify:track:([0-9A-Za-z]{22})")
# What ends a line for one program or another.
_LINE_ENDS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_NOT_IN_FILE_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')


@dataclass(frozen=True, kw_only=True)
class ExportedSong:
    """One song of a list; None where nothing is known."""

    song_id: Id
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    duration_ms: int | None = None
    isrc: str | None = None
    recording_mbid: str | None = None
    artist_mbid: str | None = None
    release_mbid: str | None = None
    location: str | None = None
    """Path or URL of the song's own file."""
    rank: int | None = None
    """From 1; None where nobody ranked the songs."""
    score: float | None = None
    reasons: tuple[str, ...] = ()
    """Sentences."""

    @property
    def spotify_id(self) -> str | None:
        """The 22 letters and digits of a song whose id is spotify:track:..."""
        found = _SPOTIFY_TRACK.fullmatch(str(self.song_id))
        return found[1] if found else None

    @property
    def label(self) -> str:
        """Artist and title in one line, or what is known of them, or the id."""
        known = " - ".join(text for text in (one_line(self.artist), one_line(self.title)) if text)
        return known or one_line(str(self.song_id))


@dataclass(frozen=True, kw_only=True)
class ExportedList:
    """A list with its songs in their order."""

    name: str
    songs: Sequence[ExportedSong]
    created_at: datetime
    model_id: str | None = None
    """Of the model that ranked the songs; None where none had a part in it."""
    model_version: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a file goes to."""

    folder: Path | None = None
    """The folder in which it will lie; None: not known, as over HTTP."""
    table: str = DEFAULT_TABLE
    """That rows in SQL go into."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The text of a file, and what is to be said of it: songs that are left out, or of no use to whoever reads it."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """One form."""

    extension: str
    media_type: str
    """What HTTP calls it, without parameters."""
    title: str
    write: Callable[[ExportedList, Target], Written]
    """Raises DataError for a target that cannot be."""
    other_media_types: tuple[str, ...] = ()
    """What else an Accept header may call it."""


def exported_song(
    song_id: Id, card: SongCard | None, *, rank: int | None = None, score: float | None = None, reasons: Sequence[str] = ()
) -> ExportedSong:
    """A song with what its card says; `card` None: nothing."""
    known = card or SongCard(song_id=song_id)
    return ExportedSong(
        song_id=song_id,
        title=known.title,
        artist=known.artist,
        album=known.album,
        duration_ms=_whole(known.duration_ms),
        isrc=known.isrc,
        recording_mbid=_uuid(known.recording_mbid),
        artist_mbid=_uuid(known.artist_mbid),
        release_mbid=_uuid(known.release_mbid),
        location=known.location,
        rank=rank,
        score=score,
        reasons=tuple(reasons),
    )


def _whole(duration_ms: float | None) -> int | None:
    """A user's query may well yield milliseconds as a float."""
    return None if duration_ms is None or duration_ms != duration_ms else round(duration_ms)


def _uuid(text: str | None) -> str | None:
    """A UUID in its usual form; None for what a user's query yields instead."""
    try:
        return str(UUID(text)) if text else None
    except ValueError:
        return None


def listed(name: str, song_ids: Sequence[Id], cards: Mapping[Id, SongCard]) -> ExportedList:
    """A list that nobody ranked, made now."""
    songs = [exported_song(song_id, cards.get(song_id)) for song_id in song_ids]
    return ExportedList(name=name, songs=songs, created_at=datetime.now(UTC).replace(microsecond=0))


def one_line(text: str | None) -> str:
    """A text without line ends in it and blanks around it; "" for None."""
    return _LINE_ENDS.sub(" ", text or "").strip()


def numbered(songs: Sequence[tuple[int, ExportedSong]], *, most: int = 20) -> str:
    """Places in a list, for a note: "2, 5, 6"; of many only the first."""
    places = ", ".join(str(place) for place, _ in songs[:most])
    return places if len(songs) <= most else f"{places}, and {len(songs) - most} more"


def file_name(name: str, extension: str) -> str:
    """A list's name as that of a file.

    >>> file_name("AC/DC: live?", "m3u8")
    'AC_DC_ live_.m3u8'
    """
    plain = _NOT_IN_FILE_NAMES.sub("_", one_line(name)).strip(". ")[:LONGEST_FILE_NAME]
    return f"{plain or 'playlist'}.{extension}"
