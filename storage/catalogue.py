"""Names and sound of songs, for whoever shows a list to people.  Rests on `storage.source.songs_by_id`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from storage.connections import Connection
from storage.source import Id, songs_by_id


@dataclass(frozen=True, kw_only=True)
class SongCard:
    """What is shown of one song; None where the database does not know it or the query does not yield it."""

    song_id: Id
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    artist_id: Id | None = None
    album_id: Id | None = None
    duration_ms: int | None = None
    explicit: bool | None = None
    tempo: float | None = None
    """Beats per minute."""
    key: int | None = None
    """Pitch class from 0 (C) to 11 (B); -1 where the detector found none."""
    mode: int | None = None
    """1 major, 0 minor."""
    energy: float | None = None
    """From 0 to 1."""
    isrc: str | None = None
    recording_mbid: str | None = None
    artist_mbid: str | None = None
    release_mbid: str | None = None
    location: str | None = None
    """Path or URL of the song's own file."""


# The query's name of a column where the card's differs.
_COLUMNS = {"artist": "artist_name", "album": "album_title"}
# What a query may yield as a uuid, or as something else that is not text.
_TEXTS = ("isrc", "recording_mbid", "artist_mbid", "release_mbid", "location")


def song_cards(connection: Connection, queries_folder: Path, song_ids: Sequence[Id]) -> dict[Id, SongCard]:
    """The cards of the songs that the database has among `song_ids`, by id."""
    return {row["song_id"]: _card(row) for row in songs_by_id(connection, queries_folder, song_ids)}


def _card(row: Mapping[str, Any]) -> SongCard:
    known: dict[str, Any] = {field.name: row.get(_COLUMNS.get(field.name, field.name)) for field in fields(SongCard)}
    known |= {name: str(known[name]) for name in _TEXTS if known[name] is not None}
    return SongCard(**known)
