"""The commands that run the service: keys, models, publish, activate, rollback."""

import re
from datetime import UTC, datetime, timedelta

import pytest

import cli
from engine.runs import find_checkpoint
from errors import exit_code_of
from storage.connections import connect
from storage.keys import active_keys, all_keys, create_key, parts_of
from storage.models import Model, Served, add_served, current_deployment, deploy, known_models, refuse_model, register_model
from tests.serving.small import small_run


@pytest.fixture
def command(database_url, tmp_path, monkeypatch, capsys):
    """Runs a command on a database of its own and a folder of models; returns exit code, lines of output and of errors."""
    monkeypatch.chdir(tmp_path)  # no settings file
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BERT4MUSICREC_MODEL_FOLDER", str(tmp_path / "models"))

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        code = exit_code_of(cli.main, arguments)
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


def register(connection, *model_ids: str) -> None:
    for model_id in model_ids:
        register_model(
            connection,
            Model(
                model_id=model_id,
                path="p",
                encoders_digest="e",
                snapshot_digest="s",
                metrics={"ndcg10": 0.25},
                trained_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
            ),
        )
    connection.commit()


# --- keys --------------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_printed_once_and_opens(command, connection):
    code, [text], _ = command("keys", "create", "shop", "--manage", "--per-minute", "60", "--days", "30")
    assert code == 0
    key_id, secret = parts_of(text)
    [key] = active_keys(connection)
    assert (key.key_id, key.name, key.may_manage, key.requests_per_minute, key.opens(secret)) == (key_id, "shop", True, 60, True)
    assert abs(key.expires_at - key.created_at - timedelta(days=30)) < timedelta(minutes=1)
    assert secret not in "\n".join(command("keys", "list")[1])


def test_keys_are_listed_a_line_each_with_what_they_may(command, connection):
    assert command("keys", "list")[1] == ["no keys: python cli.py keys create NAME makes one"]
    asks = create_key(connection, "shop", requests_per_minute=60).key_id
    over = create_key(connection, "old", may_manage=True, expires_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)).key_id
    connection.execute("UPDATE recommender.api_key SET created_at = '2026-01-01Z'")
    connection.commit()
    lines = {line.split()[0]: re.split(r"  +", line)[1:] for line in command("keys", "list")[1]}
    assert lines == {
        asks: ["active", "shop", "(may ask, 60 a minute, made 2026-01-01 00:00Z)"],
        over: ["ended 2026-01-02 03:04Z", "old", "(may manage, made 2026-01-01 00:00Z)"],
    }


def test_a_revoked_key_opens_nothing_and_stays_on_the_list(command, connection):
    key_id = create_key(connection, "shop").key_id
    connection.commit()
    assert command("keys", "revoke", key_id)[:2] == (0, [f"revoked {key_id}: services refuse it within seconds"])
    assert active_keys(connection) == []
    assert command("keys", "list")[1][0].split()[1] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create"], "write keys create NAME, keys revoke KEY_ID, or keys list without a name"),
        (["list", "shop"], "write keys create NAME"),
        (["dance"], "invalid choice: 'dance'"),
        (["create", "two\nlines"], "the name of a key has 1 to 100 characters in one line"),
        (["create", "shop", "--days", "0"], "--days must be above 0 and at most 36500 (got 0)"),
        (["create", "shop", "--days", "nan"], "--days must be above 0 and at most 36500 (got nan)"),
        (["create", "shop", "--per-minute", "0"], "requests per minute must be between 1 and 2147483647 (got 0)"),
        (["create", "shop", "--per-hour", "9"], "unknown option --per-hour"),
        (["revoke", "x"], "no key 'x': python cli.py keys list shows them"),
    ],
)
def test_what_cannot_be_done_with_keys_is_one_line_and_exit_code_2(command, connection, arguments, message):
    code, out, err = command("keys", *arguments)
    assert (code, out) == (2, [])
    assert err[-1].startswith("error: ")
    assert message in err[-1]
    assert all_keys(connection) == []


# --- models ------------------------------------------------------------------------------------------------------------------


def test_models_are_listed_a_line_each(command, connection):
    assert command("models")[1] == ["no models: python cli.py publish makes the newest run known"]
    register(connection, "a", "b", "c", "d")
    deploy(connection, "a", challenger_id="b", challenger_share=0.25)
    refuse_model(connection, "c", "no weights")
    add_served(connection, {"a": Served(answers=2, songs=20, fallbacks=1)})
    connection.commit()
    nothing = "played 0, skipped 0, liked 0, never again 0"
    start = "2026-01-02 03:04Z  ndcg@10 0.2500"
    assert command("models")[1] == [
        f"a  {start}  serving  answers 2, songs 20, fallbacks 1, {nothing}",
        f"b  {start}  challenger (0.25 of the sequences)  answers 0, songs 0, fallbacks 0, {nothing}",
        f"c  {start}  refused (no weights)  answers 0, songs 0, fallbacks 0, {nothing}",
        f"d  {start}  known  answers 0, songs 0, fallbacks 0, {nothing}",
    ]


def test_publish_verifies_the_newest_run_and_has_it_answer(command, connection, tmp_path):
    small_run(tmp_path / "models" / "20260101-000000")
    newest = find_checkpoint(small_run(tmp_path / "models" / "20260102-000000"))
    code, lines, _ = command("publish")
    [model] = known_models(connection)
    assert (code, lines) == (
        0,
        [f"verified {newest}", f"serving {model.model_id}: services follow within seconds"],
    )
    assert model.model_id.startswith("20260102-000000/epoch-001/")
    assert (model.path, model.snapshot_digest, model.settings) == (str(newest), "f" * 64, {"seed": 0})
    assert current_deployment(connection).model_id == model.model_id


def test_publish_makes_the_map_that_is_missing_unless_none_is_wanted(command, tmp_path, monkeypatch):
    checkpoint = find_checkpoint(small_run(tmp_path / "run"))
    assert command("publish", str(checkpoint), "--map-songs", "0")[0] == 0
    assert not (checkpoint / "map.json").exists()
    assert command("publish", str(checkpoint))[0] == 0
    assert (checkpoint / "map.json").exists()


def test_publish_takes_the_run_that_is_named_and_takes_a_refusal_back(command, connection, tmp_path):
    run = small_run(tmp_path / "elsewhere")
    command("publish", str(run))
    [model] = known_models(connection)
    refuse_model(connection, model.model_id, "its folder was away")
    connection.commit()
    assert command("publish", str(run))[0] == 0
    assert [known.refused for known in known_models(connection)] == [None]


@pytest.mark.parametrize("damaged", ["catalogue.safetensors", "epoch-001/weights.safetensors", "encoders/songs-*.joblib"])
def test_a_damaged_run_is_not_published(command, connection, tmp_path, damaged):
    run = small_run(tmp_path / "run")
    [file] = run.glob(damaged)
    file.write_bytes(file.read_bytes() + b"x")
    code, out, err = command("publish", str(run))
    assert (code, out) == (2, [])
    assert "digest" in err[-1]
    assert (known_models(connection), current_deployment(connection)) == ([], None)


def test_without_a_run_publish_says_how_to_get_one(command):
    code, _, err = command("publish")
    assert code == 2
    assert "run train.py first" in err[-1]


def test_activate_has_a_known_model_answer_with_a_challenger_if_asked(command, connection):
    register(connection, "a", "b")
    assert command("activate", "a")[:2] == (0, ["serving a: services follow within seconds"])
    assert command("activate", "a", "--challenger", "b")[1] == [
        "serving a, and b for 0.1 of the sequences: services follow within seconds"
    ]
    assert command("activate", "b", "--challenger", "a", "--share", "0.5")[0] == 0
    current = current_deployment(connection)
    assert (current.model_id, current.challenger_id, current.challenger_share) == ("b", "a", 0.5)


def test_rollback_goes_back_one_by_one_until_nothing_is_left(command, connection):
    register(connection, "a", "b")
    command("activate", "a")
    command("activate", "b")
    assert command("rollback")[:2] == (0, ["serving a: services follow within seconds"])
    code, out, err = command("rollback")
    assert (code, out, err[-1]) == (2, [], "error: no sound model was deployed before 'a': activate one by its id instead")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["activate", "x"], "model 'x' is not in recommender.model: publish it first"),
        (["activate", "c"], "model 'c' was refused (no weights): publish another one"),
        (["activate", "a", "--share", "0.5"], "a challenger needs a share between 0 and 1"),
        (["activate", "a", "--challenger", "a"], "a model cannot be its own challenger"),
        (["activate", "a", "--share", "half"], "argument --share: invalid float value"),
        (["activate"], "the following arguments are required: MODEL_ID"),
        (["rollback"], "no model was deployed yet: there is nothing to roll back"),
    ],
)
def test_what_cannot_answer_is_one_line_and_exit_code_2(command, connection, arguments, message):
    register(connection, "a", "c")
    refuse_model(connection, "c", "no weights")
    connection.commit()
    code, out, err = command(*arguments)
    assert (code, out) == (2, [])
    assert message in err[-1]
    assert current_deployment(connection) is None


def test_a_database_without_our_schema_is_told_how_to_get_it(command, empty_database_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    code, _, err = command("models")
    assert code == 2
    assert "run python cli.py migrate on this database" in err[-1]


def test_the_embedded_server_is_brought_up_to_date_first(command, empty_database_url, monkeypatch):
    monkeypatch.setattr("config.DatabaseConfig.is_embedded", True)  # the way of our own server, on the tests' server
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    assert command("models")[:2] == (0, ["no models: python cli.py publish makes the newest run known"])
    with connect(empty_database_url) as connection:
        assert known_models(connection) == []
