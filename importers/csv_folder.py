"""Imports a folder of CSV files: songs, sequences and, where there is one, playlists.

    songs.csv      song_id*, song_name, artist_id, artist_name, album_id, album_name, all_artist_ids (separated by ;),
                   disc_number, track_number, duration_ms, explicit, the audio features, isrc, recording_mbid, release_date,
                   feature_source
    sequences.csv  playlist_id*, pos*, song_id*, added_at
    playlists.csv  playlist_id*, name, base_id (shared by the versions of one list), snapshot_time or created_at, user_id, chunk

Each may be compressed (.csv.gz).  UTF-8, columns found by their names in the first line, only the starred ones required, an empty
field for an unknown value, times in ISO 8601 with their zone.  Of a song, playlist or place that comes twice the first is kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from errors import DataError
from importers import fields
from importers.fields import number, text, whole_number
from importers.files import TextFile, file_at
from importers.load import History, Playlist, PlaylistRow, Song, load
from importers.tables import Column, open_csv
from importers.tally import Tally
from storage.connections import Connection

SONG_COLUMNS: Mapping[str, Column] = {
    "song_id": Column(fills="song_id", read=fields.an_id, required=True),
    "song_name": Column(fills="title", read=text),
    "artist_id": Column(fills="artist_id", read=fields.an_id),
    "artist_name": Column(fills="artist_name", read=text),
    "album_id": Column(fills="album_id", read=fields.an_id),
    "album_name": Column(fills="album_title", read=text),
    "all_artist_ids": Column(fills="all_artist_ids", read=fields.id_list),
    "disc_number": Column(fills="disc_number", read=whole_number(0)),
    "track_number": Column(fills="track_number", read=whole_number(0)),
    "duration_ms": Column(fills="duration_ms", read=whole_number(0)),
    "explicit": Column(fills="explicit", read=fields.truth),
    "danceability": Column(fills="danceability", read=number),
    "energy": Column(fills="energy", read=number),
    "key": Column(fills="key", read=whole_number(-1, 11)),  # -1: no key found
    "loudness": Column(fills="loudness", read=number),
    "mode": Column(fills="mode", read=whole_number(0, 1)),
    "speechiness": Column(fills="speechiness", read=number),
    "acousticness": Column(fills="acousticness", read=number),
    "instrumentalness": Column(fills="instrumentalness", read=number),
    "liveness": Column(fills="liveness", read=number),
    "valence": Column(fills="valence", read=number),
    "tempo": Column(fills="tempo", read=number),
    "time_signature": Column(fills="time_signature", read=whole_number(0, 99)),
    "isrc": Column(fills="isrc", read=text),
    "recording_mbid": Column(fills="recording_mbid", read=fields.uuid),
    "release_date": Column(fills="release_date", read=fields.first_day),
    "feature_source": Column(fills="feature_source", read=text),
}
PLAYLIST_COLUMNS: Mapping[str, Column] = {
    "playlist_id": Column(fills="playlist_id", read=fields.playlist_id, required=True),
    "name": Column(fills="name", read=text),
    "base_id": Column(fills="group_id", read=fields.an_id),
    "snapshot_time": Column(fills="created_at", read=fields.aware_time),
    "created_at": Column(fills="created_at", read=fields.aware_time),
    "user_id": Column(fills="user_id", read=fields.an_id),
    "chunk": Column(fills="chunk", read=whole_number(0)),
}
ROW_COLUMNS: Mapping[str, Column] = {
    "playlist_id": Column(fills="playlist_id", read=fields.playlist_id, required=True),
    "pos": Column(fills="position", read=whole_number(0), required=True),
    "song_id": Column(fills="song_id", read=fields.an_id, required=True),
    "added_at": Column(fills="added_at", read=fields.aware_time),
}


def import_csv(
    connection: Connection,
    path: Path,
    *,
    source: str | None = None,
    prefix: str | None = None,
    progress: bool = True,
) -> Tally:
    """Import the folder at `path`; the caller commits.

    `source` None takes the folder's name.  Rows of the same source are updated; ids that another one uses are a DataError unless
    `prefix` keeps the two apart.  Bad rows and fields are noted in the tally.  A file that cannot be read as a whole (away, not
    UTF-8, truncated, without a required column) is a DataError as well, and nothing is imported.
    """
    tally = Tally(source=source or path.resolve().name or "csv")
    songs = open_csv(_file(path, "songs"), "songs", SONG_COLUMNS, tally)
    rows = open_csv(_file(path, "sequences"), "rows", ROW_COLUMNS, tally)
    playlists_file = _find(path, "playlists")
    playlists = open_csv(playlists_file, "playlists", PLAYLIST_COLUMNS, tally) if playlists_file else None
    history = History(
        songs=_with_primary_artist(songs.typed(Song, tally)),
        playlists=playlists.typed(Playlist, tally) if playlists else (),
        rows=rows.typed(PlaylistRow, tally),
        order="position",
        files={"songs": songs.name, "rows": rows.name, "playlists": playlists.name if playlists else "no playlists.csv"},
    )
    load(connection, history, tally, prefix=prefix, progress=progress)
    return tally


def is_csv_folder(path: Path) -> bool:
    """Whether there is a folder with songs and sequences at `path`."""
    return all(any((path / f"{name}{end}").is_file() for end in (".csv", ".csv.gz")) for name in ("songs", "sequences"))


def _file(folder: Path, name: str) -> TextFile:
    found = _find(folder, name)
    if found is None:
        raise DataError(f"{folder} has no {name}.csv or {name}.csv.gz: name the folder that holds songs and sequences")
    return found


def _find(folder: Path, name: str) -> TextFile | None:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name the one that holds songs.csv and sequences.csv")
    found = [path for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz") if path.exists()]
    if len(found) > 1:
        raise DataError(f"{folder} has both {found[0].name} and {found[1].name}: keep one of them")
    return file_at(found[0]) if found else None


def _with_primary_artist(songs: Iterator[Song]) -> Iterator[Song]:
    for song in songs:
        if song.artist_id and song.all_artist_ids and song.artist_id not in song.all_artist_ids.split(";"):
            yield song._replace(all_artist_ids=f"{song.artist_id};{song.all_artist_ids}")
        else:
            yield song
