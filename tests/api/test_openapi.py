"""Every route keeps what the OpenAPI document promises, for input that somebody else makes up."""

import pytest

from benchmarks.contract import DOCUMENT, check, schema_at, schema_of_app
from benchmarks.served import address_of
from config import Config, ServiceConfig
from flask_app import create_app, service_of
from storage.connections import connect
from storage.models import Model, register_model
from tests.api.fakes import fake_app, new_key
from tests.jobs.world import add_playlist

CONFIG = Config(service=ServiceConfig(max_body_bytes=100_000, wait_seconds=0.05))
STATUSES = {
    "/recommend": {"post": {"200", "202", "400", "404", "413", "415", "422", "429", "503"}},
    "/v1/recommend": {"post": {"200", "202", "400", "404", "413", "415", "422", "429", "503"}},
    "/v1/recommend.{extension}": {"post": {"200", "202", "400", "404", "413", "415", "422", "429", "503"}},
    "/v1/playlist.{extension}": {"post": {"200", "400", "413", "415", "422", "503"}},
    "/v1/recommend/batch": {"post": {"200", "400", "413", "415", "422", "503"}},
    "/v1/why": {"post": {"200", "400", "404", "413", "415", "422", "503"}},
    "/v1/songs": {"get": {"200", "422", "503"}},
    "/v1/songs/lookup": {"post": {"200", "400", "413", "415", "422", "503"}},
    "/v1/playlists": {"get": {"200", "422", "503"}},
    "/v1/playlists/{playlist_id}": {"get": {"200", "404", "422", "503"}},
    "/v1/songs/{song_id}/similar": {"get": {"200", "404", "422", "503"}},
    "/v1/feedback": {"post": {"200", "400", "404", "413", "415", "422", "503"}},
    "/v1/requests/{request_id}": {"get": {"200", "404", "503"}},
    "/requests/{request_id}": {"get": {"200", "404", "503"}},
    "/v1/models": {"get": {"200", "503"}},
    "/v1/models/{model_id}/card": {"get": {"200", "404", "422", "503"}},
    "/v1/models/{model_id}/activate": {"post": {"200", "400", "404", "409", "413", "415", "422", "503"}},
    "/v1/models/rollback": {"post": {"200", "400", "409", "413", "415", "422", "503"}},
    "/v1/figures/popularity": {"get": {"200", "503"}},
    "/v1/map": {"get": {"200", "503"}},
    "/v1/map/places": {"post": {"200", "400", "413", "415", "422", "503"}},
    "/v1/overview": {"get": {"200"}},
    "/healthz": {"get": {"200"}},
    "/readyz": {"get": {"200", "503"}},
    "/metrics": {"get": {"200"}},
}


def statuses_of(app):
    paths = app.spec_json["paths"]
    return {path: {verb: set(operation["responses"]) for verb, operation in item.items()} for path, item in paths.items()}


def test_the_description_of_the_api_names_every_route_and_status():
    app = create_app(Config())
    assert statuses_of(app) == {
        path: {verb: statuses | {"421"} for verb, statuses in item.items()} for path, item in STATUSES.items()
    }
    assert app.test_client().get(DOCUMENT).json == app.spec_json


def test_where_keys_are_needed_every_route_says_so():
    managed = ("/v1/models/{model_id}/activate", "/v1/models/rollback")
    app = create_app(Config(service=ServiceConfig(require_key="always")))
    more = {path: {"401", "403", "429", "503"} if path in managed else {"401", "429", "503"} for path in STATUSES}
    assert statuses_of(app) == {
        path: {verb: statuses | more[path] for verb, statuses in item.items()} for path, item in STATUSES.items()
    }
    assert app.spec_json["security"] == [{"key": []}]
    assert app.spec_json["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@pytest.fixture
def filled_database_url(database_url):
    with connect(database_url) as connection:
        for model_id in ("run/1", "run/2"):
            register_model(connection, Model(model_id=model_id, path="models", encoders_digest="e", snapshot_digest="f"))
    add_playlist(database_url, "0", ["s00"])
    return database_url


def test_no_made_up_request_gets_an_answer_that_is_not_described(filled_database_url):
    app = fake_app(CONFIG, database_url=filled_database_url)
    try:
        checked = check(schema_of_app(app), examples=15, is_repeatable=True)
    finally:
        service_of(app).close()
    assert (checked.failures, checked.answers_500, len(checked.operations)) == (set(), 0, len(STATUSES))


def test_nor_where_keys_are_needed(filled_database_url):
    key, text = new_key(may_manage=True, requests_per_minute=1_000_000)
    config = Config(service=ServiceConfig(require_key="always", port=0, wait_seconds=0.05))
    app = fake_app(config, keys=[key], database_url=filled_database_url)
    with address_of(app) as address:
        checked = check(schema_at(address, {"Authorization": f"Bearer {text}"}), examples=3, is_repeatable=True)
    assert (checked.failures, checked.answers_500, len(checked.operations)) == (set(), 0, len(STATUSES))
