"""The routes of figures to look at: how a model was trained, where its songs lie,
how popular what it recommends is, how the service is."""

from datetime import datetime
from pathlib import Path

from flask import Response, current_app, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.bodies import ModelPath
from api.catalogue_routes import checked_songs
from api.figure_bodies import CardBody, LookupBody, MapBody, OverviewBody, PlacesBody, PopularityBody
from api.problems import described
from api.service import Service, service_of
from errors import UnknownModel
from serving.card import model_card
from serving.live import model_id_of
from serving.song_map import map_json, places_of
from storage.models import known_models

figures = APIBlueprint("figures", __name__, abp_tags=[Tag(name="figures")])


# --- models ------------------------------------------------------------------------------------------------------------------


@figures.get(
    "/v1/models/<text:model_id>/card",
    summary="How a model was trained, on what, and how it compares",
    responses={200: CardBody, **described(404, 422, 503)},
)
def card(path: ModelPath) -> Response:
    """Answer {"model_id": ..., "seconds": 212.0, "data": {"songs": 13, ...}, "curve": [...], "table": {...}, "notes": [...]}.

    Read from the run's folder; what is not there is null, and `notes` say why.  404 no such model; 503 no database to ask for a
    model that is not in service.
    """
    service = service_of(current_app)
    checkpoint, trained_at = _place_of(service, path.model_id)
    return jsonify(model_card(path.model_id, checkpoint, trained_at))


def _place_of(service: Service, model_id: str) -> tuple[Path, datetime | None]:
    """A model's folder and time, from what is in service, else from the database.  Raises UnknownModel."""
    for recommender in service.live.recommenders:
        if recommender.info is not None and recommender.info.model_id == model_id:
            return recommender.info.path, recommender.info.trained_at
    if service.desk is not None:
        with service.connection() as connection:
            for model in known_models(connection):
                if model.model_id == model_id:
                    return Path(model.path), model.trained_at
    raise UnknownModel(f"no model {model_id!r} is known: GET /v1/models names those that are")


# --- the map -----------------------------------------------------------------------------------------------------------------


@figures.get("/v1/map", summary="A sample of the songs laid out by what is alike", responses={200: MapBody, **described(503)})
def song_map() -> Response:
    """Answer {"model_id": ..., "method": "t-SNE ...", "n_songs": 11540, "songs": [{"song_id": 17, "x": 0.2, "y": 0.7, ...}]}.

    `songs` is a sample of `n_songs`.  Near is like; the axes mean nothing.  `missing` says why there is no map.  503 no model.
    """
    return jsonify(map_json(service_of(current_app).recommender()))


@figures.post(
    "/v1/map/places",
    summary="Where songs lie on the map",
    responses={200: PlacesBody, **described(400, 413, 415, 422, 503)},
)
def map_places(body: LookupBody) -> Response:
    """Take {"song_ids": [17, 4]} and answer {"model_id": ..., "places": [{"song_id": 17, "x": 0.2, "y": 0.7, "exact": true}]}.

    In the order asked.  A song that is not on the map lies in the middle of the songs most like it, and is not `exact`; unknown
    ones are left out.
    422 ids of another type than the catalogue's, or more than max_songs; 503 no model.
    """
    service = service_of(current_app)
    checked_songs(body.song_ids, service.config.service)
    recommender = service.recommender()
    return jsonify(model_id=model_id_of(recommender), places=places_of(recommender, body.song_ids))


# --- popularity --------------------------------------------------------------------------------------------------------------


@figures.get(
    "/v1/figures/popularity",
    summary="How popular the recommended songs are, beside history and catalogue",
    responses={200: PopularityBody, **described(503)},
)
def popularity() -> Response:
    """Answer {"bins": [{"label": "in no training list", ...}], "catalogue": [0.1, ...], "history": [...], ...}.

    Recommended is what this process answered over HTTP since its start and what the newest lists of the request table hold; null
    while that is nothing.  503 no model.
    """
    service = service_of(current_app)
    return jsonify(service.popularity.as_json(service.recommender()))


# --- the service -------------------------------------------------------------------------------------------------------------


@figures.get("/v1/overview", summary="The health of the service at a glance", responses={200: OverviewBody})
def overview() -> Response:
    """Answer {"database": {"state": "reachable", "rights": [...]}, "rows": {...}, "latency": {...}, "errors": [...], ...}.

    Always 200, and within two seconds also where the database has gone silent: what it would tell is then null.  Answers,
    latency and errors are those of this process since its start.
    """
    return jsonify(service_of(current_app).overview.as_json())
