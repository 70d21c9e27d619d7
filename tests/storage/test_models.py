from datetime import UTC, datetime

import pytest

from errors import DatabaseError
from storage.models import Model, latest_model, publish_model, register_model


def model(model_id: str, **changes) -> Model:
    return Model(model_id=model_id, path=f"models/{model_id}", encoders_digest="e", snapshot_digest="s", **changes)


def latest_id(connection) -> str | None:
    latest = latest_model(connection)
    return None if latest is None else latest.model_id


def test_a_model_is_followed_only_once_it_is_published(connection):
    trained_at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    register_model(connection, model("a", settings={"seq_len": 32}, metrics={"ndcg@10": 0.25}, trained_at=trained_at))
    assert latest_model(connection) is None
    publish_model(connection, "a")
    latest = latest_model(connection)
    assert latest is not None
    assert (latest.model_id, latest.settings, latest.metrics, latest.trained_at) == (
        "a",
        {"seq_len": 32},
        {"ndcg@10": 0.25},
        trained_at,
    )


def test_publishing_an_older_model_again_goes_back_to_it(connection):
    for model_id in ("a", "b"):
        register_model(connection, model(model_id))
        publish_model(connection, model_id)
    assert latest_id(connection) == "b"
    publish_model(connection, "a")
    assert latest_id(connection) == "a"


def test_a_model_that_is_registered_again_stays_published(connection):
    register_model(connection, model("a"))
    publish_model(connection, "a")
    register_model(connection, model("a", metrics={"hr@10": 0.5}))
    latest = latest_model(connection)
    assert latest is not None
    assert (latest.model_id, latest.metrics) == ("a", {"hr@10": 0.5})


def test_an_unknown_model_cannot_be_published(connection):
    with pytest.raises(DatabaseError, match=r"model 'x' is not in recommender\.model: register it first"):
        publish_model(connection, "x")
