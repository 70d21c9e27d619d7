"""The models that the service knows, which of them answers, and how they fare.  Works in the caller's transaction.

Which model answers is the newest row of recommender.deployment.  Services look at it every few seconds (`current_deployment`), so
activating and rolling back are an INSERT, here or in psql (`SELECT recommender.deploy('...')`), and need no way to the services.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from psycopg import errors
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from errors import DatabaseError
from storage.connections import Connection
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "models.sql")

# What a deployment that the table does not take has done wrong, by the constraint that it breaks.
_BROKEN = {
    "deployment_share_check": "a challenger needs a share between 0 and 1, both excluded, and a share needs a challenger",
    "deployment_challenger_check": "a model cannot be its own challenger: name another one",
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model and what its answers can be traced to."""

    model_id: str
    path: str
    """The checkpoint's folder, as the service sees it."""
    encoders_digest: str
    snapshot_digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    trained_at: datetime | None = None
    registered_at: datetime | None = None
    """Set by the database."""
    refused: str | None = None
    """Why it must not answer; None: nothing is wrong with it.  Set by `refuse_model`."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Which model answers, from when on."""

    deployment_id: int
    """Only grows."""
    model_id: str
    challenger_id: str | None
    """A second model that answers for a share of the sequences; None: there is none."""
    challenger_share: float
    """Between 0 and 1, both excluded; 0 without a challenger."""
    deployed_at: datetime


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a model answered since it was last counted."""

    answers: int
    songs: int
    """In all of these answers together."""
    fallbacks: int
    """Answers that say that they are a fallback."""


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """What a model answered, and what listeners did with the songs of its answers."""

    model_id: str
    answers: int
    songs: int
    fallbacks: int
    played: int
    skipped: int
    liked: int
    never_again: int


def register_model(connection: Connection, model: Model) -> None:
    """Make a model known, so that its answers can be written; again with the same id, path and metrics are replaced.

    A refused model stays refused.
    """
    connection.execute(_SQL["register"], _parameters(model))


def introduce_model(connection: Connection, model: Model) -> None:
    """Make a model known, so that its answers can be written, unless it is: then what was registered stays."""
    connection.execute(_SQL["introduce"], _parameters(model))


def _parameters(model: Model) -> dict[str, Any]:
    return vars(model) | {"settings": Jsonb(dict(model.settings)), "metrics": Jsonb(dict(model.metrics))}


def known_models(connection: Connection) -> list[Model]:
    """All models that were registered, the one that was trained last first."""
    with connection.cursor(row_factory=class_row(Model)) as cursor:
        return cursor.execute(_SQL["known"]).fetchall()


def refuse_model(connection: Connection, model_id: str, reason: str | None) -> None:
    """Say why a model must not answer; None takes that back.  What is deployed already stays so.

    Raises DatabaseError if it is unknown.
    """
    told = None if reason is None else " ".join(reason.replace("\0", "").split()) or "no reason given"
    if connection.execute(_SQL["refuse"], {"model_id": model_id, "reason": told}).fetchone() is None:
        raise DatabaseError(f"model {model_id!r} is not in recommender.model: publish it first")


def deploy(
    connection: Connection, model_id: str, *, challenger_id: str | None = None, challenger_share: float = 0.0
) -> Deployment:
    """Have a model answer from the commit on, and a challenger for a share of the sequences.

    Whoever deploys at the same time is waited for.  Raises DatabaseError for a model that is unknown or refused, and for a share
    without a challenger or out of its bounds.
    """
    parameters = {"model_id": model_id, "challenger_id": challenger_id, "challenger_share": challenger_share}
    return _deployed(connection, "deploy", parameters)


def current_deployment(connection: Connection) -> Deployment | None:
    """The deployment that counts; None before the first.  One row through the primary key."""
    with connection.cursor(row_factory=class_row(Deployment)) as cursor:
        return cursor.execute(_SQL["current"]).fetchone()


def roll_back(connection: Connection) -> Deployment:
    """Restore what was deployed before, by a deployment of its own; once more, what was before that.

    What was refused meanwhile is passed over, and a refused challenger left out.  Raises DatabaseError when nothing was before.
    """
    return _deployed(connection, "roll_back", {})


def add_served(connection: Connection, served: Mapping[str, Served]) -> None:
    """Add to the figures of today (UTC), by model.  Raises DatabaseError when a model is not registered."""
    parameters = {
        "model_ids": list(served),
        "answers": [one.answers for one in served.values()],
        "songs": [one.songs for one in served.values()],
        "fallbacks": [one.fallbacks for one in served.values()],
    }
    try:
        connection.execute(_SQL["add_served"], parameters)
    except errors.ForeignKeyViolation as exc:
        if exc.diag.constraint_name != "served_model_id_fkey":
            raise
        models = ", ".join(map(repr, sorted(served)))
        raise DatabaseError(f"model {models} is not in recommender.model: register it before its answers are counted") from exc


def model_figures(connection: Connection, since: date | None = None) -> list[ModelFigures]:
    """The figures of every model from a day on (UTC; None: from the beginning), the one that was trained last first."""
    with connection.cursor(row_factory=class_row(ModelFigures)) as cursor:
        return cursor.execute(_SQL["figures"], {"since": since}).fetchall()


def _deployed(connection: Connection, name: str, parameters: Mapping[str, Any]) -> Deployment:
    with _deployment_errors(), connection.cursor(row_factory=class_row(Deployment)) as cursor:
        deployment = cursor.execute(_SQL[name], parameters).fetchone()
    assert deployment is not None
    return deployment


@contextmanager
def _deployment_errors() -> Iterator[None]:
    """Turn the database's word for a deployment that cannot be into ours."""
    try:
        yield
    except errors.ObjectNotInPrerequisiteState as exc:
        raise DatabaseError(str(exc.diag.message_primary)) from exc
    except errors.CheckViolation as exc:
        if exc.diag.constraint_name not in _BROKEN:
            raise
        raise DatabaseError(_BROKEN[exc.diag.constraint_name]) from exc
