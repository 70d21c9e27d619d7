from uuid import UUID

from config import DatabaseConfig
from storage.catalogue import SongCard, song_cards
from storage.source import check_contract


def test_cards_come_by_id_with_the_names_of_artist_and_album(connection):
    connection.execute("INSERT INTO music.artist VALUES ('a', 'Nova')")
    connection.execute("INSERT INTO music.album VALUES ('b', 'Dawn', 'a')")
    connection.execute(
        "INSERT INTO music.song (song_id, title, artist_id, album_id, tempo, key) VALUES ('s', 'Rise', 'a', 'b', 120, 3)"
    )
    assert song_cards(connection, DatabaseConfig().queries_folder, ["s", "unknown"]) == {
        "s": SongCard(song_id="s", title="Rise", artist="Nova", album="Dawn", artist_id="a", album_id="b", tempo=120.0, key=3)
    }


def test_a_query_with_fewer_columns_gives_cards_with_gaps(connection, tmp_path):
    (tmp_path / "songs_by_id.sql").write_text(
        "SELECT number AS song_id FROM generate_series(1, 9) AS number WHERE number = ANY(%(song_ids)s)"
    )
    assert song_cards(connection, tmp_path, [2]) == {2: SongCard(song_id=2)}


def test_what_an_export_needs_comes_as_text(connection, tmp_path):
    mbid = UUID("11111111-0000-4000-8000-000000000000")
    connection.execute("INSERT INTO music.artist VALUES ('a', 'Nova', %s)", [mbid])
    connection.execute("INSERT INTO music.album VALUES ('b', 'Dawn', 'a', %s)", [mbid])
    connection.execute(
        "INSERT INTO music.song (song_id, artist_id, album_id, isrc, recording_mbid, location)"
        " VALUES ('s', 'a', 'b', 'QZABC2000001', %s, '/music/Rise.flac')",
        [mbid],
    )
    known = {"isrc": "QZABC2000001", **dict.fromkeys(("recording_mbid", "artist_mbid", "release_mbid"), str(mbid))}
    assert song_cards(connection, DatabaseConfig().queries_folder, ["s"]) == {
        "s": SongCard(song_id="s", artist="Nova", album="Dawn", artist_id="a", album_id="b", location="/music/Rise.flac", **known)
    }
    (tmp_path / "songs_by_id.sql").write_text("SELECT song_id, recording_mbid FROM music.song WHERE song_id = ANY(%(song_ids)s)")
    assert song_cards(connection, tmp_path, ["s"])["s"].recording_mbid == str(mbid)


def test_the_texts_of_an_export_are_no_part_of_the_contract(connection):
    columns = check_contract(connection, DatabaseConfig().queries_folder)
    assert not {"location", "artist_mbid", "release_mbid"} & set(columns.songs)
