"""The models that the service knows, and the one that was published last.  Works in the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from errors import DatabaseError
from storage.connections import Connection
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "models.sql")


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
    published_at: datetime | None = None
    """When it became the latest; None: never.  Set by `publish_model`."""


def register_model(connection: Connection, model: Model) -> None:
    """Make a model known, so that its answers can be written; again with the same id, path and metrics are replaced."""
    parameters = vars(model) | {"settings": Jsonb(dict(model.settings)), "metrics": Jsonb(dict(model.metrics))}
    connection.execute(_SQL["register"], parameters)


def publish_model(connection: Connection, model_id: str) -> None:
    """Make a registered model the latest; publishing an older one again goes back to it.  Raises DatabaseError if unknown."""
    if connection.execute(_SQL["publish"], {"model_id": model_id}).fetchone() is None:
        raise DatabaseError(f"model {model_id!r} is not in recommender.model: register it first")


def latest_model(connection: Connection) -> Model | None:
    """The model that was published last; None before the first."""
    with connection.cursor(row_factory=class_row(Model)) as cursor:
        return cursor.execute(_SQL["latest"]).fetchone()
