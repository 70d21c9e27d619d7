"""Models, deployments and figures: what counts, what is refused, and the way back."""

import threading
from datetime import UTC, date, datetime

import psycopg
import pytest

from errors import DatabaseError
from storage.connections import connect
from storage.feedback import Event, Feedback, add_feedback
from storage.models import (
    Model,
    ModelFigures,
    Served,
    add_served,
    current_deployment,
    deploy,
    known_models,
    model_figures,
    refuse_model,
    register_model,
    roll_back,
)


def model(model_id: str, **changes) -> Model:
    return Model(model_id=model_id, path=f"models/{model_id}", encoders_digest="e", snapshot_digest="s", **changes)


def current_id(connection) -> str | None:
    current = current_deployment(connection)
    return None if current is None else current.model_id


def figures(model_id: str, *numbers: int) -> ModelFigures:
    names = ("answers", "songs", "fallbacks", "played", "skipped", "liked", "never_again")
    return ModelFigures(model_id=model_id, **dict(zip(names, numbers, strict=True)))


@pytest.fixture
def models(connection):
    """A connection on whose database the models a, b, c and d are registered, trained in this order."""
    for day, model_id in enumerate("abcd", start=1):
        register_model(connection, model(model_id, trained_at=datetime(2026, 1, day, tzinfo=UTC)))
    connection.commit()
    return connection


# --- models ------------------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_as_it_was_registered(connection):
    trained_at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    register_model(connection, model("a", settings={"seq_len": 32}, metrics={"ndcg10": 0.25}, trained_at=trained_at))
    [known] = known_models(connection)
    assert (known.model_id, known.path, known.settings, known.metrics) == ("a", "models/a", {"seq_len": 32}, {"ndcg10": 0.25})
    assert (known.trained_at, known.registered_at is not None, known.refused) == (trained_at, True, None)


def test_models_are_listed_with_the_one_that_was_trained_last_first(models):
    assert [known.model_id for known in known_models(models)] == ["d", "c", "b", "a"]


def test_a_model_that_is_registered_again_gets_the_new_metrics_and_stays_refused_and_deployed(models):
    deploy(models, "a")
    refuse_model(models, "a", "it is broken")
    register_model(models, model("a", metrics={"hr10": 0.5}))
    known = {known.model_id: known for known in known_models(models)}["a"]
    assert (known.metrics, known.refused, current_id(models)) == ({"hr10": 0.5}, "it is broken", "a")


def test_an_unknown_model_cannot_be_refused(connection):
    with pytest.raises(DatabaseError, match=r"model 'x' is not in recommender\.model: publish it first"):
        refuse_model(connection, "x", "it is broken")


def test_a_reason_is_one_line(models):
    refuse_model(models, "a", "no such file\n\0 or folder")
    assert [known.refused for known in known_models(models)][-1] == "no such file or folder"


# --- deployments -------------------------------------------------------------------------------------------------------------


def test_a_model_answers_only_once_it_is_deployed(models):
    assert current_deployment(models) is None
    deployed = deploy(models, "a")
    assert current_deployment(models) == deployed
    assert (deployed.model_id, deployed.challenger_id, deployed.challenger_share) == ("a", None, 0.0)


def test_a_challenger_gets_a_share(models):
    deployed = deploy(models, "a", challenger_id="b", challenger_share=0.25)
    assert current_deployment(models) == deployed
    assert (deployed.model_id, deployed.challenger_id, deployed.challenger_share) == ("a", "b", 0.25)


SHARE = "a challenger needs a share between 0 and 1, both excluded, and a share needs a challenger"


@pytest.mark.parametrize(
    ("challenger_id", "share", "message"),
    [
        ("b", 0.0, SHARE),
        ("b", 1.0, SHARE),
        ("b", -0.5, SHARE),
        ("b", float("nan"), SHARE),
        (None, 0.5, SHARE),
        ("a", 0.5, "a model cannot be its own challenger: name another one"),
        ("x", 0.5, "model 'x' is not in recommender.model: publish it first"),
        ("c", 0.5, "model 'c' was refused (no weights): publish another one"),
    ],
)
def test_a_challenger_that_cannot_be_is_refused_in_one_line(models, challenger_id, share, message):
    refuse_model(models, "c", "no weights")
    models.commit()
    with pytest.raises(DatabaseError) as refused:
        deploy(models, "a", challenger_id=challenger_id, challenger_share=share)
    assert str(refused.value) == message
    models.rollback()
    assert current_deployment(models) is None


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        ("x", "model 'x' is not in recommender.model: publish it first"),
        ("a", "model 'a' was refused (no weights): publish another one"),
    ],
)
def test_an_unknown_or_refused_model_is_not_deployed(models, model_id, message):
    refuse_model(models, "a", "no weights")
    with pytest.raises(DatabaseError) as refused:
        deploy(models, model_id)
    assert str(refused.value) == message


def test_a_model_whose_refusal_is_taken_back_may_answer(models):
    refuse_model(models, "a", "no weights")
    refuse_model(models, "a", None)
    assert deploy(models, "a").model_id == "a"


def test_rolling_back_restores_the_model_before_with_its_challenger(models):
    before = deploy(models, "a", challenger_id="b", challenger_share=0.25)
    deploy(models, "c")
    restored = roll_back(models)
    assert (restored.model_id, restored.challenger_id, restored.challenger_share) == ("a", "b", 0.25)
    assert restored.deployment_id > before.deployment_id
    assert current_deployment(models) == restored


def test_rolling_back_twice_goes_two_back(models):
    for model_id in "abc":
        deploy(models, model_id)
    assert [roll_back(models).model_id, roll_back(models).model_id] == ["b", "a"]
    with pytest.raises(DatabaseError, match="no sound model was deployed before 'a': activate one by its id instead"):
        roll_back(models)


def test_what_was_rolled_back_is_no_way_back(models):
    for model_id in "abc":
        deploy(models, model_id)
    roll_back(models)  # to b
    deploy(models, "d")
    assert [roll_back(models).model_id, roll_back(models).model_id] == ["b", "a"]


def test_rolling_back_passes_over_what_was_refused_meanwhile(models):
    deploy(models, "a", challenger_id="d", challenger_share=0.5)
    deploy(models, "b")
    deploy(models, "c")
    refuse_model(models, "b", "no weights")
    refuse_model(models, "d", "no weights")
    restored = roll_back(models)
    assert (restored.model_id, restored.challenger_id, restored.challenger_share) == ("a", None, 0.0)


def test_rolling_back_without_a_deployment_says_so(models):
    with pytest.raises(DatabaseError, match="no model was deployed yet: there is nothing to roll back"):
        roll_back(models)


def in_a_thread(url, work):
    """Begin work on a connection of its own, which commits; returns the thread and the list that its result goes into."""
    results: list[object] = []

    def run():
        with connect(url) as connection:
            results.append(work(connection))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_of_two_who_deploy_at_once_the_second_comes_after_the_first(models, database_url):
    deploy(models, "a")
    models.commit()
    deploy(models, "b")
    thread, results = in_a_thread(database_url, lambda connection: deploy(connection, "c").model_id)
    thread.join(timeout=0.3)
    assert results == []  # waits
    models.commit()
    thread.join()
    assert results == ["c"]
    assert (current_id(models), roll_back(models).model_id, roll_back(models).model_id) == ("c", "b", "a")


def test_of_two_who_roll_back_at_once_each_goes_one_back(models, database_url):
    for model_id in "abc":
        deploy(models, model_id)
    models.commit()
    assert roll_back(models).model_id == "b"
    thread, results = in_a_thread(database_url, lambda connection: roll_back(connection).model_id)
    thread.join(timeout=0.3)
    models.commit()
    thread.join()
    assert results == ["a"]


def test_deploying_waits_for_who_is_refusing_the_model(models, database_url):
    refuse_model(models, "a", "no weights")

    def deploy_it(connection):
        with pytest.raises(DatabaseError, match="was refused"):
            deploy(connection, "a")
        return "refused"

    thread, results = in_a_thread(database_url, deploy_it)
    thread.join(timeout=0.3)
    assert results == []
    models.commit()
    thread.join()
    assert results == ["refused"]


def test_the_current_deployment_is_read_through_the_key_while_somebody_deploys(models, another_connection):
    deploy(models, "a")
    models.commit()
    deploy(models, "b")
    assert current_id(another_connection) == "a"  # does not wait
    models.execute("SET LOCAL enable_seqscan = off")
    query = "EXPLAIN SELECT model_id FROM recommender.deployment ORDER BY deployment_id DESC LIMIT 1"
    assert any("Index Scan Backward using deployment_pkey" in line for (line,) in models.execute(query))


def test_status_names_the_deployed_model_and_before_that_the_one_registered_last(models):
    query = "SELECT model_id, challenger_id, challenger_share FROM recommender.status"
    models.execute("UPDATE recommender.model SET registered_at = now() + INTERVAL '1 s' WHERE model_id = 'c'")
    assert models.execute(query).fetchone() == ("c", None, None)
    deploy(models, "a", challenger_id="b", challenger_share=0.25)
    assert models.execute(query).fetchone() == ("a", "b", 0.25)


# --- figures -----------------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_model_are_what_it_answered_and_what_became_of_it(models):
    add_served(models, {"a": Served(answers=2, songs=20, fallbacks=1), "b": Served(answers=1, songs=10, fallbacks=0)})
    add_served(models, {"a": Served(answers=3, songs=30, fallbacks=0)})
    events = [*(Event(name) for name in ("played", "played", "skipped", "liked", "never_again"))]
    add_feedback(
        models,
        [Feedback(listener=f"l{n}", event=event, song_id="s", model_id="a") for n, event in enumerate(events)],
    )
    add_feedback(models, [Feedback(listener="l", event=Event.PLAYED, song_id="s")])  # of no model
    assert model_figures(models) == [
        figures("d", 0, 0, 0, 0, 0, 0, 0),
        figures("c", 0, 0, 0, 0, 0, 0, 0),
        figures("b", 1, 10, 0, 0, 0, 0, 0),
        figures("a", 5, 50, 1, 2, 1, 1, 1),
    ]


def test_figures_may_begin_on_a_day(models):
    models.execute(
        "INSERT INTO recommender.served (model_id, day, answers) VALUES ('a', '2026-01-01', 7), ('a', '2026-01-02', 5)"
    )
    for day in (1, 2, 2):
        happened_at = datetime(2026, 1, day, tzinfo=UTC)
        add_feedback(
            models, [Feedback(listener=f"l{day}", event=Event.LIKED, song_id="s", model_id="a", happened_at=happened_at)]
        )
    assert model_figures(models, since=date(2026, 1, 2))[-1] == figures("a", 5, 0, 0, 0, 0, 1, 0)
    assert model_figures(models)[-1] == figures("a", 12, 0, 0, 0, 0, 2, 0)


def test_two_processes_that_add_their_figures_at_once_lose_none(models, database_url):
    both = {"a": Served(answers=1, songs=1, fallbacks=0), "b": Served(answers=1, songs=1, fallbacks=0)}
    add_served(models, both)
    thread, _ = in_a_thread(database_url, lambda connection: add_served(connection, dict(reversed(both.items()))))
    thread.join(timeout=0.2)
    models.commit()
    thread.join()
    assert [(one.model_id, one.answers) for one in model_figures(models)][2:] == [("b", 2), ("a", 2)]


def test_answers_of_an_unregistered_model_are_not_counted(models):
    with pytest.raises(
        DatabaseError, match=r"model 'x' is not in recommender\.model: register it before its answers are counted"
    ):
        add_served(models, {"x": Served(answers=1, songs=1, fallbacks=0)})


def test_a_deployed_model_cannot_be_deleted(models):
    deploy(models, "a")
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="deployment_model_id_fkey"):
        models.execute("DELETE FROM recommender.model")
