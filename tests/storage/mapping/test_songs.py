import pytest

from storage.mapping.songs import describe_songs
from storage.tables import Kind
from tests.storage.mapping.tables import column, junction, playlists, songs, table

ARTISTS = table("artists", column("id", Kind.WHOLE), column("name"))


def described(song_table, *others):
    return describe_songs([song_table, *others], song_table, song_table.column("id"), ())


def values_of(song_table, *others):
    return {value.name: value.sql for value in described(song_table, *others).values}


def test_an_artist_by_reference():
    song_table = songs("songs", column("artist_id", Kind.WHOLE), references=(("artist_id", "artists"),))
    assert values_of(song_table, ARTISTS) == {"artist_id": "song.artist_id", "title": "song.title", "artist_name": "artist.name"}


def test_an_artist_by_name_of_the_column_where_no_reference_says_it():
    assert values_of(songs("songs", column("artistId", Kind.WHOLE)), ARTISTS)["artist_name"] == "artist.name"


def test_an_id_of_an_artist_without_a_table_stands_alone_beside_the_text():
    values = values_of(songs("songs", column("artist_id"), column("artist_name")))
    assert values == {"artist_id": "song.artist_id", "title": "song.title", "artist_name": "song.artist_name"}


def test_of_many_artists_the_one_marked_as_primary_is_taken():
    between = table(
        "song_artists",
        column("song_id", Kind.WHOLE),
        column("artist_id", Kind.WHOLE),
        column("role"),
        column("position", Kind.WHOLE),
        key=("song_id", "artist_id"),
        references=(("song_id", "songs"), ("artist_id", "artists")),
    )
    first, artist = described(songs(), between, ARTISTS).joins
    assert "SELECT DISTINCT ON (artist_of_song.song_id)" in first.sql
    assert (
        "ORDER BY artist_of_song.song_id, "
        "lower(artist_of_song.role::text) IN ('primary', 'main', 'artist', 'performer') DESC NULLS LAST, "
        "artist_of_song.position, artist_of_song.artist_id"
    ) in first.sql
    assert artist.sql == "LEFT JOIN public.artists AS artist ON artist.id = artist_of_song.artist_id"


def test_an_artist_as_text_is_id_and_name_at_once():
    values = values_of(songs("songs", column("artist")))
    assert values["artist_id"] == values["artist_name"] == "NULLIF(btrim(song.artist), '')"


def test_of_a_list_of_artists_in_one_text_or_array_the_first_is_taken():
    assert values_of(songs("songs", column("artists")))["artist_id"] == "NULLIF(btrim(split_part(song.artists, ';', 1)), '')"
    assert values_of(songs("songs", column("artists", Kind.TEXTS)))["artist_id"] == "NULLIF(btrim(song.artists[1]), '')"


def test_an_album_as_text_is_told_apart_by_its_artist():
    values = values_of(songs("songs", column("album"), column("artist_id", Kind.WHOLE)), ARTISTS)
    assert values["album_id"] == (
        "CASE WHEN NULLIF(btrim(song.album), '') IS NOT NULL "
        "THEN concat_ws(' / ', song.artist_id, NULLIF(btrim(song.album), '')) END"
    )


def test_a_playlist_junction_with_an_artist_in_it_is_no_way_to_the_artist():
    rows = junction("playlist_songs", column("artist_id", Kind.WHOLE))
    assert "artist_id" not in values_of(songs(), playlists(), rows, ARTISTS)


def test_features_come_from_the_songs_first_and_then_from_a_table_beside_them():
    side = table(
        "song_features",
        column("song_id", Kind.WHOLE),
        column("bpm", Kind.REAL),
        column("energy", Kind.REAL),
        column("warmth", Kind.REAL),
        column("model_version", Kind.WHOLE),
        key=("song_id",),
        references=(("song_id", "songs"),),
    )
    values = values_of(songs("songs", column("tempo", Kind.REAL), column("play_count", Kind.WHOLE)), side)
    assert values == {"title": "song.title", "energy": "feature.energy", "tempo": "song.tempo", "warmth": "feature.warmth"}


def test_a_table_with_several_rows_per_song_is_not_joined():
    side = table("song_features", column("song_id", Kind.WHOLE), column("bpm", Kind.REAL), references=(("song_id", "songs"),))
    assert values_of(songs(), side) == {"title": "song.title"}


@pytest.mark.parametrize("name", ["recording_mbid", "mbid", "musicbrainz_id", "musicbrainz_recording_id", "mb_trackid"])
def test_the_id_of_a_recording_at_musicbrainz_is_a_text_beside_the_isrc(name):
    expected = {"title": "song.title", "isrc": "song.isrc", "recording_mbid": f"song.{name}::text"}
    assert values_of(songs("songs", column(name, Kind.UUID), column("isrc"))) == expected
    assert values_of(songs("songs", column(name), column("isrc"))) == expected | {"recording_mbid": f"song.{name}"}


def test_a_number_is_no_id_of_a_recording():
    assert values_of(songs("songs", column("musicbrainz_id", Kind.WHOLE))) == {"title": "song.title"}


def test_a_uuid_by_which_songs_are_known_can_be_that_of_the_recording_too():
    recordings = table("recordings", column("mbid", Kind.UUID), column("title"), key=("mbid",))
    found = describe_songs([recordings], recordings, recordings.column("mbid"), ())
    assert {value.name: value.sql for value in found.values} == {"title": "song.title", "recording_mbid": "song.mbid::text"}
