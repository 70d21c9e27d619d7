import copy
from dataclasses import replace
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import torch

from config import FIRST_NUMBER, UNKNOWN, DatabaseConfig
from encoder_files import Encoders
from errors import DatabaseError, DatabaseUnreachable, EncoderError, SchemaError
from preprocessing_utils import FeatureEncoder, IdEncoder
from serving.catalogue import SongCatalogue, read_songs
from tests.engine.small import small_snapshot
from tests.serving.small import SONGS, small_encoders, small_model

MUSIC = DatabaseConfig().queries_folder
V = FIRST_NUMBER + len(SONGS)
ISRC, MBID = "GBAYE6300001", "0b2b2a2e-0000-4000-8000-000000000001"

# Of the model's twelve songs the database has s00 to s03; s03 has moved to another artist; x1 and x2 are new.
ROWS = f"""
INSERT INTO music.artist VALUES ('artist 0', 'Nova'), ('artist 1', 'Björk'), ('artist 2', NULL), ('new', 'Newcomer');
INSERT INTO music.album VALUES ('album 0', 'Dawn', 'artist 0'), ('album new', 'First', 'new');
INSERT INTO music.song (song_id, title, artist_id, album_id, tempo, energy, key, isrc, recording_mbid, duration_ms) VALUES
    ('s00', 'Rise', 'artist 0', 'album 0', 120.1, 0.5, 3, '{ISRC}', '{MBID}', 200000),
    ('s01', 'Élan', 'artist 1', NULL, NULL, 0.25, -1, NULL, NULL, NULL),
    ('s02', NULL, 'artist 2', NULL, 90, NULL, 11, NULL, '{MBID}', 180000),
    ('s03', 'Rise again', 'artist 1', NULL, 90, NULL, NULL, NULL, NULL, 180000),
    ('x1', 'Rise (Single)', 'new', 'album new', 120, 0.5, NULL, '{ISRC}', NULL, 100000),
    ('x2', 'Dusk', 'new', 'album new', 100, 0.5, NULL, NULL, NULL, 100000);
"""


@pytest.fixture
def encoders_and_frame():
    return small_encoders()


@pytest.fixture
def encoders(encoders_and_frame):
    return encoders_and_frame[0]


@pytest.fixture
def model(encoders_and_frame):
    return small_model(*encoders_and_frame)


@pytest.fixture
def music(connection):
    connection.execute(ROWS)
    connection.commit()
    return connection


def catalogue_with_rows(url, model, encoders):
    return SongCatalogue.of(SongCatalogue.of_model(model, encoders), read_songs(url, MUSIC, encoders))


def by_id(catalogue, column):
    """Values of a column by song id, of those that the database has."""
    ids = catalogue.songs.decode(range(FIRST_NUMBER, len(catalogue)))
    return {id_: column[FIRST_NUMBER + place] for place, id_ in enumerate(ids) if catalogue.is_available[FIRST_NUMBER + place]}


# --- without a database ------------------------------------------------------------------------------------------------------


def test_a_model_alone_knows_artists_albums_features_and_plays_but_no_names(model, encoders, encoders_and_frame):
    catalogue = SongCatalogue.of_model(model, encoders)
    specials = list(range(FIRST_NUMBER))
    assert catalogue.artists.tolist() == [*specials, *(FIRST_NUMBER + number % 3 for number in range(12))]
    assert catalogue.albums.tolist() == [*specials, *(FIRST_NUMBER + number % 6 for number in range(12))]
    assert catalogue.recordings.tolist() == list(range(V))
    assert catalogue.is_available.tolist() == [False] * FIRST_NUMBER + [True] * 12
    assert catalogue.popularity.tolist() == [5.0] * V
    for name, raw in encoders_and_frame[1].items():
        np.testing.assert_allclose(catalogue.features[name], [np.nan] * FIRST_NUMBER + raw.tolist(), rtol=1e-5)
    assert catalogue.titles.null_count == catalogue.artist_names.null_count == catalogue.album_titles.null_count == V
    assert catalogue.search("rise").tolist() == []
    assert (catalogue.availability, catalogue.digest, len(catalogue)) == (None, None, V)


def test_keys_and_categories_come_back_and_what_is_missing_is_nan(model, encoders):
    raw = {"key": [0, 11, 7, np.nan], "time_signature": [3, 4, np.nan, 4], "duration_ms": [1e5, 2e5, np.nan, 3e5]}
    features = FeatureEncoder().fit(pd.DataFrame(raw))
    encoded = np.concatenate([np.zeros((FIRST_NUMBER, len(features.feature_names))), features.encode(pd.DataFrame(raw))])
    model.embedding.song_features = torch.from_numpy(encoded)
    model.embedding.song_artist = model.embedding.song_album = torch.arange(7)
    catalogue = SongCatalogue.of_model(model, replace(encoders, features=features))
    for name, values in raw.items():
        np.testing.assert_allclose(catalogue.features[name], [np.nan] * FIRST_NUMBER + values, rtol=1e-5)


def test_a_model_without_a_memory_knows_no_popularity(model, encoders):
    model.memory = None
    assert SongCatalogue.of_model(model, encoders).popularity.tolist() == [0.0] * V


def test_a_snapshot_makes_a_catalogue_too(tmp_path):
    snapshot, _ = small_snapshot(tmp_path, n_lists=2, length=3)
    features = FeatureEncoder().fit(pd.DataFrame({"tempo": np.linspace(80.0, 160.0, 20)}))
    ids = IdEncoder().fit([f"song {number}" for number in range(20)])
    catalogue = SongCatalogue.of_snapshot(snapshot, Encoders(songs=ids, albums=ids, artists=ids, features=features))
    assert catalogue.artists.tolist() == snapshot.song_artist.tolist()
    assert catalogue.popularity.tolist() == [snapshot.sequences.tolist().count(number) for number in range(23)]
    np.testing.assert_allclose(catalogue.features["tempo"][FIRST_NUMBER:], np.linspace(80, 160, 20), rtol=1e-5)


# --- with one ----------------------------------------------------------------------------------------------------------------


def test_names_features_and_artists_are_those_of_the_database(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    titles = {"s00": "Rise", "s01": "Élan", "s02": None, "s03": "Rise again", "x1": "Rise (Single)", "x2": "Dusk"}
    assert by_id(catalogue, catalogue.titles.to_pylist()) == titles
    artists = {"s00": 3, "s01": 4, "s02": 5, "s03": 4, "x1": 6, "x2": 6}
    assert by_id(catalogue, catalogue.artists.tolist()) == artists
    albums = {"s00": 3, "s01": UNKNOWN, "s02": UNKNOWN, "s03": UNKNOWN, "x1": 9, "x2": 9}
    assert by_id(catalogue, catalogue.albums.tolist()) == albums
    tempos = {"s00": 120.1, "s01": np.nan, "s02": 90, "s03": 90, "x1": 120, "x2": 100}
    assert by_id(catalogue, catalogue.features["tempo"]) == pytest.approx(tempos, nan_ok=True)
    keys = {"s00": 3, "s01": np.nan, "s02": 11, "s03": np.nan, "x1": np.nan, "x2": np.nan}
    assert by_id(catalogue, catalogue.features["key"]) == pytest.approx(keys, nan_ok=True)


def test_new_songs_follow_those_of_the_model_and_lost_ones_are_not_available(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    assert catalogue.songs.encode(["s11", "x1", "x2"]).tolist() == [V - 1, V, V + 1]
    assert catalogue.is_available.tolist() == [False] * 3 + [True] * 4 + [False] * 8 + [True] * 2
    assert catalogue.availability is catalogue.is_available
    assert catalogue.popularity.tolist() == [5.0] * V + [0.0] * 2
    # Of a lost song what the model knows stays.
    by_itself = SongCatalogue.of_model(model, encoders)
    lost = slice(FIRST_NUMBER + 4, V)
    for name in ("artists", "albums", "recordings"):
        assert getattr(catalogue, name)[lost].tolist() == getattr(by_itself, name)[lost].tolist()
    assert catalogue.features["tempo"][lost].tolist() == by_itself.features["tempo"][lost].tolist()


def test_editions_of_a_recording_share_a_number_by_isrc_and_by_mbid(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    s00, s01, s02, s03, x1, x2 = by_id(catalogue, catalogue.recordings).values()
    assert s00 == x1 == s02
    assert len({s00, s01, s03, x2}) == 4


def test_the_encoders_of_the_model_stay_as_they_were(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    assert [len(encoder) for encoder in (encoders.songs, encoders.artists, encoders.albums)] == [V, 6, 9]
    extended = catalogue.encoders
    assert [len(encoder) for encoder in (extended.songs, extended.artists, extended.albums)] == [V + 2, 7, 10]
    assert extended.artists.decode([6]) == ["new"]
    assert extended.songs.encode(["x2", "s00"]).tolist() == [V + 1, 3]


def test_a_song_is_described_by_what_is_known_of_it(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    assert catalogue.describe(FIRST_NUMBER) == {
        "title": "Rise",
        "artist": "Nova",
        "album": "Dawn",
        "features": {"tempo": 120.1, "energy": 0.5, "key": 3.0, "duration_ms": 200000.0},
    }
    nothing = {"title": None, "artist": None, "album": None, "features": {}}
    assert catalogue.describe(UNKNOWN) == nothing
    assert catalogue.describe(FIRST_NUMBER + 2) == nothing | {"features": {"tempo": 90.0, "key": 11.0, "duration_ms": 180000.0}}


def test_songs_of_the_database_are_found_by_title_and_artist(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    assert catalogue.songs.decode(catalogue.search("rise")) == ["s00", "s03", "x1"]
    assert catalogue.songs.decode(catalogue.search("bjork elan")) == ["s01"]
    assert catalogue.search("rise", 1).tolist() == [FIRST_NUMBER]


def test_the_model_grows_by_the_new_songs_alone(database_url, music, model, encoders):
    catalogue = catalogue_with_rows(database_url, model, encoders)
    grown = catalogue.grown(model)
    assert grown.n_songs == V + 2
    assert grown.embedding.song_artist[V:].tolist() == [6, 6]
    assert grown.embedding.song_album[V:].tolist() == [9, 9]
    expected = encoders.features.encode(pd.DataFrame({"tempo": [120.0, 100.0], "energy": [0.5, 0.5]}))
    torch.testing.assert_close(grown.embedding.song_features[V:], torch.from_numpy(expected))
    by_itself = SongCatalogue.of_model(model, encoders)
    assert by_itself.grown(model) is model


def test_rows_have_a_digest_that_tells_when_they_change(database_url, music, encoders):
    digest = read_songs(database_url, MUSIC, encoders).digest
    assert read_songs(database_url, MUSIC, encoders).digest == digest
    for change in ("tempo = 91", "title = 'Set'", "artist_id = 'new'", "recording_mbid = NULL", "song_id = 's09'"):
        music.execute(f"UPDATE music.song SET {change} WHERE song_id = 's02'")
        music.commit()
        changed = read_songs(database_url, MUSIC, encoders).digest
        assert changed != digest, change
        digest = changed


# --- other people's queries --------------------------------------------------------------------------------------------------


def written(folder, query):
    (folder / "songs.sql").write_text(query)
    return folder


def test_of_several_rows_of_a_song_the_first_counts_and_a_row_without_an_id_does_not(database_url, tmp_path, model, encoders):
    values = "('s05', 'First', 1), ('s05', 'Second', 2), (NULL, 'Nobody', 3), ('x', 'New', 4), ('x', 'Again', 5)"
    queries = written(tmp_path, f"SELECT * FROM (VALUES {values}) AS song (song_id, title, mood)")
    catalogue = SongCatalogue.of(SongCatalogue.of_model(model, encoders), read_songs(database_url, queries, encoders))
    assert by_id(catalogue, catalogue.titles.to_pylist()) == {"s05": "First", "x": "New"}
    assert by_id(catalogue, catalogue.features["mood"].tolist()) == {"s05": 1.0, "x": 4.0}
    # Columns that the query does not have: what the model knows of its songs, and nothing of new ones.
    assert catalogue.artists[[FIRST_NUMBER + 5, V]].tolist() == [FIRST_NUMBER + 2, UNKNOWN]
    tempos = SongCatalogue.of_model(model, encoders).features["tempo"]
    np.testing.assert_array_equal(catalogue.features["tempo"], [*tempos, np.nan])


@pytest.mark.parametrize(
    ("id_sql", "ids"),
    [("number", [7, 8]), ("lpad(to_hex(number), 32, '0')::uuid", [UUID(int=7), UUID(int=8)])],
)
def test_ids_keep_their_type(database_url, tmp_path, id_sql, ids):
    encoders, frame = small_encoders(ids)
    queries = written(tmp_path, f"SELECT {id_sql} AS song_id, number % 2 = 0 AS explicit FROM generate_series(8, 9) AS number")
    by_itself = SongCatalogue.of_model(small_model(encoders, frame), encoders)
    catalogue = SongCatalogue.of(by_itself, read_songs(database_url, queries, encoders))
    assert catalogue.songs.decode([3, 4, 5]) == [*ids, type(ids[0])(9) if id_sql == "number" else UUID(int=9)]
    assert catalogue.is_available.tolist() == [False] * 4 + [True] * 2
    np.testing.assert_array_equal(catalogue.features["explicit"], [np.nan] * 4 + [1.0, 0.0])


def test_a_model_with_ids_of_another_type_was_trained_on_another_database(database_url, music, encoders):
    foreign = copy.copy(encoders.songs).fit([1, 2])
    message = "song ids are of type text in the database and int in the model, which was trained on another database"
    with pytest.raises(EncoderError, match=message):
        read_songs(database_url, MUSIC, replace(encoders, songs=foreign))


def test_a_model_without_one_song_in_common_was_trained_on_another_database(database_url, music):
    encoders, frame = small_encoders(["other 1", "other 2"])
    message = "none of the 2 songs of the model is in the database, so it was trained on another one"
    with pytest.raises(EncoderError, match=message):
        catalogue_with_rows(database_url, small_model(encoders, frame), encoders)


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("SELECT 's00'::text AS song_id WHERE false", DatabaseError, "the query songs returned no song"),
        ("SELECT NULL::text AS song_id", DatabaseError, "the query songs returned no song"),
        ("SELECT 's00'::text AS title", SchemaError, "songs.sql has no column song_id"),
        ("SELECT 's00'::text AS song_id, nothing", SchemaError, "songs.sql fails"),
        ("SELECT 1.5::real AS song_id", SchemaError, "song_id in songs.sql cannot be used: song ids are of type float"),
        ("SELECT 's00'::text AS song_id, '{1}'::int[] AS title", SchemaError, "title in songs.sql is .* cast it"),
        ("SELECT 's00'::text AS song_id, 1 AS tempo, 2 AS tempo", SchemaError, "songs.sql yields the column tempo twice"),
        ("SELECT 's' || (1 / (4 - n)) AS song_id FROM generate_series(1, 9) AS n", DatabaseError, "division by zero"),
    ],
)
def test_whatever_is_wrong_with_the_query_is_said(database_url, tmp_path, encoders, query, error, message):
    with pytest.raises(error, match=message):
        read_songs(database_url, written(tmp_path, query), encoders)


def test_a_database_that_is_away_is_unreachable(encoders):
    with pytest.raises(DatabaseUnreachable):
        read_songs("postgresql://nobody@127.0.0.1:1/nothing", MUSIC, encoders)
