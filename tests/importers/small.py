"""Small files to import, and whole tables to compare."""

import gzip
from pathlib import Path
from typing import Any

from importers.tally import Noted
from storage.connections import Connection

SONGS = """song_id,song_name,artist_id,artist_name,album_id,album_name,all_artist_ids,duration_ms,explicit,tempo
s1,Low Tide,a1,The Piers,b1,Harbour,a1;a2,218000.0,0.0,120.5
s2,"Rain, Again",a1,The Piers,b1,Harbour,,,1,
s3,,a2,,,,,,,
"""
SEQUENCES = """playlist_id,pos,song_id
p1,0,s1
p1,1,s2
p1,2,s1
p2,0,s3
p2,1,s4
"""
PLAYLISTS = """playlist_id,base_id,name,snapshot_time
p1,base,Morning,2019-05-25T16:52:18-04:00
p2,base,Morning,
"""


def write_csv(folder: Path, *, songs: str = SONGS, sequences: str = SEQUENCES, playlists: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "songs.csv").write_text(songs, encoding="utf-8", newline="")
    (folder / "sequences.csv").write_text(sequences, encoding="utf-8", newline="")
    if playlists is not None:
        with gzip.open(folder / "playlists.csv.gz", "wt", encoding="utf-8") as file:
            file.write(playlists)
    return folder


def rows(connection: Connection, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Those columns of a table of the schema music, ordered by them."""
    places = ", ".join(str(i + 1) for i in range(len(columns)))
    return connection.execute(f"SELECT {', '.join(columns)} FROM music.{table} ORDER BY {places}").fetchall()


def sizes(connection: Connection) -> dict[str, int]:
    """Rows of each table that an import fills."""
    tables = ("song", "artist", "album", "playlist", "playlist_song")
    return {table: connection.execute(f"SELECT count(*) FROM music.{table}").fetchall()[0][0] for table in tables}


NOTHING = {"song": 0, "artist": 0, "album": 0, "playlist": 0, "playlist_song": 0}


def noted(count: int, first: str) -> Noted:
    return Noted(count=count, first=first)
