from config import DatabaseConfig
from storage.catalogue import SongCard, song_cards


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
