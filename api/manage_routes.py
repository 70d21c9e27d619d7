"""The routes of whoever runs the service: which models there are, which of them answers, health and metrics.

Activating and rolling back write to the database; every service on it notices within model_poll_seconds.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from flask import Response, current_app, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.bodies import ActivateBody, DeploymentBody, HealthBody, ModelPath, ModelsBody, NothingBody, ReadinessBody
from api.problems import described, problem
from api.service import Service, service_of
from errors import DatabaseError, UnknownModel
from storage.models import (
    Deployment,
    Model,
    ModelFigures,
    current_deployment,
    deploy,
    known_models,
    model_figures,
)
from storage.models import roll_back as roll_back_deployment

manage = APIBlueprint("manage", __name__, abp_tags=[Tag(name="operation")])


# --- models ------------------------------------------------------------------------------------------------------------------


@manage.get("/v1/models", summary="The models, and which of them answers", responses={200: ModelsBody, **described(503)})
def models() -> Response:
    """Answer {"models": [{"model_id": ..., "refused": null, "metrics": {...}, "figures": {...}}], "deployment": {...}}.

    The model that was trained last comes first.  503 no database.
    """
    service = service_of(current_app)
    with service.connection() as connection:
        known = known_models(connection)
        deployment = current_deployment(connection)
        figures = {one.model_id: one for one in model_figures(connection)}
    plain = [_model_json(model, figures.get(model.model_id)) for model in known]
    return jsonify(models=plain, deployment=None if deployment is None else _deployment_json(deployment))


@manage.post(
    "/v1/models/<text:model_id>/activate",
    summary="Answer with a model, and with a challenger for a share of the sequences",
    responses={200: DeploymentBody, **described(400, 404, 409, 413, 415, 422, 503)},
)
def activate(path: ModelPath, body: ActivateBody) -> Response:
    """Take {} or {"challenger_id": ..., "share": 0.1} and answer {"deployment_id": 3, "model_id": ..., "deployed_at": ...}.

    404 no such model; 409 a model that was refused; 422 a model that challenges itself; 503 no database.
    """
    service = service_of(current_app)
    if body.challenger_id == path.model_id:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "a model cannot challenge itself: name another challenger_id")
    with service.connection() as connection:
        known = {model.model_id for model in known_models(connection)}
        if (unknown := _first_of([path.model_id, body.challenger_id], known)) is not None:
            raise UnknownModel(f"no model {unknown!r} is known: GET /v1/models names those that are")
        try:
            deployment = deploy(connection, path.model_id, challenger_id=body.challenger_id, challenger_share=body.share or 0.0)
        except DatabaseError as exc:  # what the table does not take; a connection that breaks is told in psycopg's words here
            return problem(HTTPStatus.CONFLICT, str(exc))
    _notice(service)
    return jsonify(_deployment_json(deployment))


@manage.post(
    "/v1/models/rollback",
    summary="Answer again with what was active before",
    responses={200: DeploymentBody, **described(400, 409, 413, 415, 422, 503)},
)
def roll_back(body: NothingBody) -> Response:
    """Take {} and answer {"deployment_id": 4, "model_id": ..., "deployed_at": ...}; once more goes back further.

    409 nothing was active before; 503 no database.
    """
    service = service_of(current_app)
    with service.connection() as connection:
        try:
            deployment = roll_back_deployment(connection)
        except DatabaseError as exc:  # as above
            return problem(HTTPStatus.CONFLICT, str(exc))
    _notice(service)
    return jsonify(_deployment_json(deployment))


def _notice(service: Service) -> None:
    """Look at once in this process; the others do within model_poll_seconds."""
    if service.follower is not None:
        service.follower.nudge()


def _first_of(wanted: Iterable[str | None], known: set[str]) -> str | None:
    """The first model that was asked for and is not known."""
    return next((model_id for model_id in wanted if model_id is not None and model_id not in known), None)


def _model_json(model: Model, figures: ModelFigures | None) -> dict[str, Any]:
    counted = None if figures is None else {name: value for name, value in vars(figures).items() if name != "model_id"}
    return {
        "model_id": model.model_id,
        "trained_at": None if model.trained_at is None else model.trained_at.isoformat(),
        "refused": model.refused,
        "metrics": dict(model.metrics),
        "figures": counted,
    }


def _deployment_json(deployment: Deployment) -> dict[str, Any]:
    return {
        "deployment_id": deployment.deployment_id,
        "model_id": deployment.model_id,
        "challenger_id": deployment.challenger_id,
        "challenger_share": deployment.challenger_share,
        "deployed_at": deployment.deployed_at.isoformat(),
    }


# --- health and metrics ------------------------------------------------------------------------------------------------------


@manage.get("/healthz", summary="Whether the process is alive", responses={200: HealthBody})
def healthz() -> Response:
    """Answer {"status": "alive"}, whatever the state of model and database."""
    return jsonify(status="alive")


@manage.get("/readyz", summary="Whether requests can be answered", responses={200: ReadinessBody, 503: ReadinessBody})
def readyz() -> tuple[Response, int]:
    """Answer {"model": "loaded", "model_id": ..., "database": "reachable", "worker": "running", "follower": "running"}, and what
    is known of the model.

    503 when no model is loaded, a configured database cannot be reached, the worker has lost it ("reconnecting") or ended, or the
    thread that follows models and songs has ended.  A service without a database ("not configured") or without a worker of its
    own ("none") is ready for what it does.
    """
    service = service_of(current_app)
    state = _readiness(service)
    beside = {state["worker"], state["follower"]}
    is_ready = state["model"] != "missing" and state["database"] != "unreachable" and beside <= {"none", "running"}
    return jsonify({**service.state(), **state}), HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE


def _readiness(service: Service) -> dict[str, Any]:
    recommender = service.live.recommender
    info = None if recommender is None else recommender.info
    reachable = service.desk is not None and service.desk.is_reachable()
    return {
        "model": "missing" if recommender is None else "counts" if info is None else "loaded",
        "model_id": None if info is None else info.model_id,
        "database": "not configured" if service.desk is None else "reachable" if reachable else "unreachable",
        "worker": service.worker_state(),
        "follower": service.follower_state(),
    }


@manage.get(
    "/metrics",
    summary="Counters for Prometheus",
    responses={200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics() -> Response:
    """Answer with counters, histograms and gauges in Prometheus' text format, all of them named bert4musicrec_...."""
    return Response(service_of(current_app).metrics.page(), content_type=CONTENT_TYPE_PLAIN_0_0_4)
