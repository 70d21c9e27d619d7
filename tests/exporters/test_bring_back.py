"""A list that is exported and imported again has the same songs of the database, by whatever they can be told."""

from uuid import UUID

import pytest

from config import DatabaseConfig, ImportConfig
from exporters import listed, write_file
from importers import import_path
from storage.catalogue import song_cards

SPOTIFY = "spotify:track:5Q7vla0EpIHVcEL9SuE0Ka"
LISTED = ["by mbid", SPOTIFY, "by name", "by isrc", "by mbid", "by name"]


@pytest.fixture
def songs(connection):
    connection.execute("INSERT INTO music.artist VALUES ('a', 'The Piers; feat. Nobody, \"Nova\"')")
    for song_id, title, mbid, isrc in (
        ("by mbid", "Low Tide", UUID(int=7), None),
        (SPOTIFY, "=Rain", None, None),
        ("by name", "'Rise - Again, (Live)", None, None),
        ("by isrc", None, None, "QZABC2000001"),
    ):
        connection.execute(
            "INSERT INTO music.song (song_id, title, artist_id, recording_mbid, isrc, location) VALUES (%s, %s, 'a', %s, %s, %s)",
            [song_id, title, mbid, isrc, f"/music/{song_id}.mp3"],
        )
    return LISTED


@pytest.mark.parametrize(
    ("extension", "source"), [("jspf", "jspf"), ("csv", "exportify"), ("m3u8", "m3u"), ("json", "playlist-json")]
)
def test_the_same_songs_come_back(connection, songs, extension, source, tmp_path):
    if extension == "m3u8":  # files are told by name or by the place where an import has met them
        songs = [song_id for song_id in songs if song_id != "by isrc"]
    exported = listed("Evening, late", songs, song_cards(connection, DatabaseConfig().queries_folder, songs))
    write_file(tmp_path / f"evening.{extension}", exported)
    import_path(connection, "auto", tmp_path, ImportConfig(), progress=False)
    rows = connection.execute(
        "SELECT song_id, name FROM music.playlist_song JOIN music.playlist USING (playlist_id)"
        " WHERE source = %s ORDER BY position",
        [source],
    ).fetchall()
    assert rows == [(song_id, "Evening, late") for song_id in songs]
    assert connection.execute("SELECT count(*) FROM music.song").fetchone() == (4,)
