"""Songs by their ids, playlists and their songs."""

import shutil

import pytest

from api.catalogue_routes import NO_PLAYLISTS
from config import Config, DatabaseConfig, ServiceConfig
from flask_app import create_app, service_of
from storage.connections import connect
from tests.jobs.world import add_playlist
from tests.serving.small import NO_RULES, small_recommender

SHIPPED = DatabaseConfig().queries_folder


@pytest.fixture
def new_client():
    apps = []

    def make(config=None, ids=None, **arguments):
        config = config or Config(service=NO_RULES)
        recommender = small_recommender(**({} if ids is None else {"ids": ids}))
        apps.append(create_app(config, **{"recommender": recommender, **arguments}))
        return apps[-1].test_client()

    yield make
    for app in apps:
        service_of(app).close()


def ids_of(response):
    return [song["song_id"] for song in response.json["songs"]]


def problem_of(response):
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.json["detail"]


# --- songs -------------------------------------------------------------------------------------------------------------------


def test_songs_come_in_the_order_asked_without_those_that_are_not_known(new_client):
    response = new_client().post("/v1/songs/lookup", json={"song_ids": ["s03", "never seen", "s00", "s03"]})
    assert ids_of(response) == ["s03", "s00", "s03"]
    tempo = round(80 + 80 * 3 / 11, 4)
    first = response.json["songs"][0]
    assert {name: first[name] for name in ("song_id", "title", "artist", "album")} == {
        "song_id": "s03", "title": None, "artist": None, "album": None,
    }  # fmt: skip
    assert round(first["features"]["tempo"], 4) == pytest.approx(tempo, abs=0.001)


def test_no_songs_are_none(new_client):
    assert new_client().post("/v1/songs/lookup", json={"song_ids": []}).json == {"songs": []}


@pytest.mark.parametrize("ids", [list(range(100, 112)), [f"00000000-0000-0000-0000-0000000000{n}" for n in range(10, 22)]])
def test_ids_come_back_as_they_were_sent(new_client, ids):
    assert ids_of(new_client(ids=ids).post("/v1/songs/lookup", json={"song_ids": ids[:2]})) == ids[:2]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"song_ids": [7]}, 'song ids are text here (got 7, an integer): send "7"'),
        ({"song_ids": ["s00"] * 4}, "4 songs are over max_songs (3): ask for them in several requests"),
        ({"song_ids": [None]}, "song_ids.0: an id is an integer or a text (got null)"),
        ({"song_ids": [], "songs": ["s00"]}, "unknown field 'songs': known are song_ids"),
        ({}, "song_ids: it is required"),
    ],
)
def test_what_cannot_be_looked_up_is_told(new_client, body, told):
    client = new_client(Config(service=ServiceConfig(max_songs=3)))
    assert problem_of(client.post("/v1/songs/lookup", json=body)) == (422, told)


def test_without_a_model_nothing_is_looked_up(new_client):
    response = new_client(recommender=None).post("/v1/songs/lookup", json={"song_ids": ["s00"]})
    assert problem_of(response) == (503, "no model is loaded: train one and start the service with --model")


# --- playlists ---------------------------------------------------------------------------------------------------------------


def test_playlists_are_listed_and_one_is_shown_with_songs_that_nobody_knows(new_client, database_url):
    add_playlist(database_url, "a/b", ["s03", "new", "s00"])
    with connect(database_url) as connection:
        connection.execute("UPDATE music.playlist SET name = 'Evening'")
    client = new_client(database_url=database_url)
    listed = {"playlists": [{"playlist_id": "a/b", "name": "Evening", "n_songs": 3}], "missing": None}
    assert client.get("/v1/playlists").json == client.get("/v1/playlists?q=even&count=1").json == listed
    assert client.get("/v1/playlists?q=morning").json == {"playlists": [], "missing": None}
    shown = client.get("/v1/playlists/a/b").json
    assert (shown["playlist_id"], shown["name"]) == ("a/b", "Evening")
    assert [song["song_id"] for song in shown["songs"]] == ["s03", "new", "s00"]
    assert shown["songs"][1] == {"song_id": "new", "title": None, "artist": None, "album": None, "features": {}}
    assert shown["songs"][0]["features"]["energy"] > 0


def test_a_playlist_is_shown_without_a_model_too_and_a_long_one_by_its_end(new_client, database_url):
    add_playlist(database_url, "p", ["s03", "s04", "s05"])
    client = new_client(Config(service=ServiceConfig(max_songs=2)), recommender=None, database_url=database_url)
    assert ids_of(client.get("/v1/playlists/p")) == ["s04", "s05"]


def test_a_playlist_of_another_id_type_than_the_models_is_shown_by_its_ids(new_client, database_url):
    add_playlist(database_url, "p", ["s03"])
    response = new_client(ids=list(range(12)), database_url=database_url).get("/v1/playlists/p")
    assert ids_of(response) == ["s03"]


@pytest.fixture
def own_queries(tmp_path):
    """The shipped query files, of which playlists.sql may be taken away or replaced."""

    def write(text):
        folder = shutil.copytree(SHIPPED, tmp_path / "queries")
        (folder / "playlists.sql").unlink()
        if text is not None:
            (folder / "playlists.sql").write_text(text, encoding="utf-8")
        return Config(service=NO_RULES, database=DatabaseConfig(queries_folder=folder))

    return write


def test_without_a_query_for_playlists_the_answer_says_so(new_client, database_url, own_queries):
    add_playlist(database_url, "p", ["s03"])
    client = new_client(own_queries(None), database_url=database_url)
    assert client.get("/v1/playlists").json == {"playlists": [], "missing": NO_PLAYLISTS}
    assert (client.get("/v1/playlists/p").json["name"], ids_of(client.get("/v1/playlists/p"))) == (None, ["s03"])


def test_a_query_that_fails_costs_the_list_and_the_name_and_no_songs(new_client, database_url, own_queries):
    add_playlist(database_url, "p", ["s03"])
    client = new_client(own_queries("SELECT FROM nowhere"), database_url=database_url)
    assert problem_of(client.get("/v1/playlists"))[0] == 503
    assert (client.get("/v1/playlists/p").json["name"], ids_of(client.get("/v1/playlists/p"))) == (None, ["s03"])


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/playlists/none", (404, "no playlist 'none' in the database, or it is empty")),
        ("/v1/playlists?count=0", (422, 'count: Input should be greater than or equal to 1 (got "0")')),
        ("/v1/playlists?count=1001", (422, "count must be between 1 and 1000 (got 1001)")),
        ("/v1/playlists?q=%00", (422, 'q: a text that PostgreSQL can hold has neither NUL nor surrogates (got "\\u0000")')),
        ("/v1/playlists?name=a", (422, "unknown field 'name': known are q, count")),
    ],
)
def test_what_cannot_be_listed_is_told(new_client, database_url, path, told):
    assert problem_of(new_client(database_url=database_url).get(path)) == told


@pytest.mark.parametrize("path", ["/v1/playlists", "/v1/playlists/p"])
def test_without_a_database_there_are_no_playlists(new_client, path):
    assert problem_of(new_client().get(path)) == (503, "no database is configured: start the service with DATABASE_URL")
