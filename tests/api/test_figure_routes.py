"""Figures to look at: the card of a model."""

import pytest

from config import Config
from engine.checkpoint import find_checkpoint, model_id_of
from flask_app import create_app, service_of
from serving.card import NOT_HERE
from serving.recommender import Recommender
from storage.connections import connect
from storage.models import Model, register_model
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
