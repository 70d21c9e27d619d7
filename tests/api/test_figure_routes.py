"""Figures to look at: the card of a model, the map of its songs, how popular what is recommended is."""

import pytest

from config import Config, ServiceConfig
from engine.checkpoint import model_id_of
from engine.runs import find_checkpoint
from engine.song_map import ensure_map
from flask_app import create_app, service_of
from serving.card import NOT_HERE
from serving.recommender import Recommender
from serving.song_map import NO_MAP
from storage.connections import connect
from storage.models import Model, register_model
from tests.jobs.world import add_playlist, ask, work_once
from tests.serving.small import NO_RULES, small_recommender, small_run

CONFIG = Config(service=NO_RULES)


@pytest.fixture
def new_client():
    apps = []

    def make(recommender=None, config=CONFIG, **arguments):
        apps.append(create_app(config, recommender=recommender or small_recommender(), **arguments))
        return apps[-1].test_client()

    yield make
    for app in apps:
        service_of(app).close()


def problem_of(response):
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.json["detail"]


# --- the card of a model -----------------------------------------------------------------------------------------------------


def test_the_card_of_the_model_in_service_needs_no_database(new_client, tmp_path):
    recommender = Recommender.load(small_run(tmp_path / "run"), NO_RULES)
    response = new_client(recommender).get(f"/v1/models/{recommender.info.model_id}/card")
    assert response.status_code == 200
    assert (response.json["model_id"], response.json["epochs"]) == (recommender.info.model_id, 1)
    assert response.json["features"].startswith("used the features")


def test_the_card_of_another_model_is_found_by_the_database(new_client, database_url, tmp_path):
    checkpoint = find_checkpoint(small_run(tmp_path / "other"))
    with connect(database_url) as connection:
        for model_id, path in ((model_id_of(checkpoint), str(checkpoint)), ("away/1", "/nowhere")):
            register_model(connection, Model(model_id=model_id, path=path, encoders_digest="e", snapshot_digest="s"))
    client = new_client(database_url=database_url)
    assert client.get(f"/v1/models/{model_id_of(checkpoint)}/card").json["epochs"] == 1
    away = client.get("/v1/models/away/1/card")
    assert (away.status_code, away.json["notes"], away.json["curve"]) == (200, [NOT_HERE], None)
    told = (404, "no model 'none' is known: GET /v1/models names those that are")
    assert problem_of(client.get("/v1/models/none/card")) == told


def test_without_a_database_other_models_are_not_known(new_client):
    assert problem_of(new_client().get("/v1/models/other/card"))[0] == 404


# --- the map -----------------------------------------------------------------------------------------------------------------


def test_songs_are_on_the_map_and_have_their_places(new_client, tmp_path):
    recommender = Recommender.load(small_run(tmp_path / "run"), NO_RULES)
    ensure_map(recommender.info.path, recommender.model_scorer.model, 2_000)
    client = new_client(recommender)
    shown = client.get("/v1/map").json
    assert (shown["n_songs"], shown["missing"], shown["method"][:5]) == (12, None, "t-SNE")
    song = shown["songs"][3]
    places = client.post("/v1/map/places", json={"song_ids": [song["song_id"], "x"]}).json
    assert places == {
        "model_id": recommender.info.model_id,
        "places": [{"song_id": "s03", "x": song["x"], "y": song["y"], "exact": True}],
    }


def test_without_a_map_that_is_said_and_no_song_has_a_place(new_client):
    client = new_client()
    assert client.get("/v1/map").json["missing"] == NO_MAP
    assert client.post("/v1/map/places", json={"song_ids": ["s00"]}).json["places"] == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"song_ids": ["s00"] * 4}, "4 songs are over max_songs (3): ask for them in several requests"),
        ({"song_ids": [7]}, 'song ids are text here (got 7, an integer): send "7"'),
    ],
)
def test_songs_that_cannot_be_placed_are_told(new_client, body, told):
    client = new_client(config=Config(service=ServiceConfig(max_songs=3)))
    assert problem_of(client.post("/v1/map/places", json=body)) == (422, told)


# --- popularity --------------------------------------------------------------------------------------------------------------


def popularity_of(client):
    response = client.get("/v1/figures/popularity")
    assert response.status_code == 200
    return response.json


def test_what_was_recommended_over_http_and_to_playlists_is_counted_once(new_client, database_url):
    add_playlist(database_url, "p", ["s03"])
    client = new_client(database_url=database_url)
    before = popularity_of(client)
    assert (before["recommended"], before["n_recommended"]) == (None, 0)
    assert before["note"].endswith("nothing was recommended yet, ask for songs first")
    client.post("/v1/recommend", json={"songs": ["s00"], "count": 2})
    client.post("/v1/recommend/batch", json={"sequences": [["s00"], []], "count": 2})
    ask(database_url, "p", count=3)
    live = service_of(client.application).live
    assert work_once(database_url, live) == 1
    client = new_client(database_url=database_url)  # another process, which knows the table alone
    assert popularity_of(client)["n_recommended"] == 3
    service_of(client.application).live = live
    told = popularity_of(client)
    assert (told["n_recommended"], sum(told["recommended"])) == (7, pytest.approx(1))
    assert "4 songs recommended over HTTP" in told["note"]
    assert "3 of the newest lists of the request table" in told["note"]


def test_while_the_database_is_away_own_answers_are_counted(new_client):
    client = new_client(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    client.post("/v1/recommend", json={"songs": ["s00"], "count": 2})
    told = popularity_of(client)
    assert (told["n_recommended"], "the request table could not be asked" in told["note"]) == (2, True)


def test_without_a_database_there_are_figures(new_client):
    assert popularity_of(new_client())["n_recommended"] == 0
