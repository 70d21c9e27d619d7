"""Writes JSPF as ListenBrainz takes it: every song with the addresses of its recording, and the extensions of MusicBrainz.

ListenBrainz refuses a list as a whole where one track has no address of a recording, or where the extension does not say whether
the list is public.  It is not, until its owner says otherwise there.  Songs without a recording stay in the file, for whoever
else reads it, and are named in its annotation.  The extensions are there whether or not anything is known.

https://musicbrainz.org/doc/jspf and https://listenbrainz.readthedocs.io/en/latest/users/api/playlist.html
"""

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from exporters.playlist import OUR_NAME, ExportedList, ExportedSong, Exporter, Target, Written, numbered, one_line

PLAYLIST_EXTENSION = "https://musicbrainz.org/doc/jspf#playlist"
TRACK_EXTENSION = "https://musicbrainz.org/doc/jspf#track"
MUSICBRAINZ = "https://musicbrainz.org"
SPOTIFY_TRACK = "https://open.spotify.com/track"
UNNAMED = "Playlist"  # ListenBrainz wants a title


def write_jspf(exported: ExportedList, target: Target) -> Written:
    """The list as JSPF."""
    lacking = [(place, song) for place, song in enumerate(exported.songs, start=1) if song.recording_mbid is None]
    notes: tuple[str, ...] = ()
    if lacking:
        notes = (
            f"{len(lacking)} of {len(exported.songs)} songs have no MusicBrainz recording, and ListenBrainz refuses a list with "
            f"such songs: {numbered(lacking)}",
        )
    made_by = _without_none({"source": OUR_NAME, "model_id": exported.model_id, "model_version": exported.model_version})
    playlist = {
        "title": one_line(exported.name) or UNNAMED,
        "creator": OUR_NAME,
        "annotation": " ".join(notes) or None,
        "date": exported.created_at.isoformat(),
        "extension": {
            PLAYLIST_EXTENSION: {
                "public": False,
                "additional_metadata": {
                    "algorithm_metadata": made_by,
                    "songs_without_recording": [place for place, _ in lacking],
                },
            }
        },
        "track": [_track(song, exported) for song in exported.songs],
    }
    return Written(text=json.dumps({"playlist": _without_none(playlist)}, ensure_ascii=False, indent=2) + "\n", notes=notes)


def _track(song: ExportedSong, exported: ExportedList) -> dict[str, Any]:
    metadata = {
        "song_id": song.song_id if isinstance(song.song_id, int) else str(song.song_id),
        "isrc": song.isrc,
        "rank": song.rank,
        "score": song.score,
        "reasons": list(song.reasons),
        "model_id": exported.model_id,
        "model_version": exported.model_version,
    }
    extension = {
        "added_at": exported.created_at.isoformat(),
        "artist_identifiers": [f"{MUSICBRAINZ}/artist/{song.artist_mbid}"] if song.artist_mbid else [],
        "release_identifier": f"{MUSICBRAINZ}/release/{song.release_mbid}" if song.release_mbid else None,
        "additional_metadata": _without_none(metadata),
    }
    track = {
        "title": song.title,
        "creator": song.artist,
        "album": song.album,
        "duration": song.duration_ms,
        "identifier": [f"{MUSICBRAINZ}/recording/{song.recording_mbid}"] if song.recording_mbid else [],
        "location": _locations(song),
        "extension": {TRACK_EXTENSION: _without_none(extension)},
    }
    return _without_none(track)


def _locations(song: ExportedSong) -> list[str] | None:
    """Where it can be heard: addresses, since that is what JSPF asks for."""
    found = [address(song.location)] if song.location else []
    if song.spotify_id:
        found.append(f"{SPOTIFY_TRACK}/{song.spotify_id}")
    return found or None


def address(location: str) -> str:
    r"""A path as an address; what is one already, or a relative path, stays.

    >>> address("/music/a b#.mp3"), address("C:\\Music\\a.mp3")
    ('file:///music/a%20b%23.mp3', 'file:///C:/Music/a.mp3')
    """
    if location.startswith("//"):
        return f"file:{quote(location)}"
    if location.startswith("/"):
        return f"file://{quote(PurePosixPath(location).as_posix())}"
    windows = PureWindowsPath(location)
    if windows.drive.endswith(":") and windows.is_absolute():
        return f"file:///{quote(windows.as_posix(), safe='/:')}"
    if windows.drive:
        return f"file:{quote(windows.as_posix())}"
    return location


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


JSPF = Exporter(extension="jspf", media_type="application/jspf+json", title="JSPF, which ListenBrainz takes", write=write_jspf)
