"""The card of a model, out of whole runs, old runs, damaged runs and no run at all."""

import json
import os
from datetime import UTC, datetime

import pytest

from engine.checkpoint import model_id_of
from engine.files import write_json
from engine.runs import append_history, find_checkpoint, mark_finished
from serving.card import LARGEST_FILE_BYTES, MOST_COUNTS, MOST_POINTS, MOST_SETTINGS, NOT_HERE, model_card
from tests.serving.small import small_run

TRAINED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = {
    "model": {"seq_len": 6, "use_features": True},
    "training": {
        "seed": 7, "cloze_probability": 0.25, "last_item_probability": 0.9, "negatives": 0, "device": "auto", "minutes": None,
        "model_folder": "/somewhere/models", "epoch_to_preload": None,
    },
    "database": {"url": "postgresql://me@db/music"},
    "machine": {"processor": "x86_64", "torch": "2.9.1", "threads": 2},
}  # fmt: skip
ORIGIN = {
    "device": "cpu", "processes": 1, "machine": "Linux x86_64, 2 cores, torch 2.9.1",
    "data": {"songs": 12, "artists": 3, "albums": 6, "sequences": 40, "rows": 300, "sequences_training": 36},
    "features": ["tempo", "energy"],
}  # fmt: skip
ROW = {"hr10": 0.5, "ndcg10": 0.4, "n_sequences": 150, "n_tasks": 489, "n_left_out": 3, "seconds": 1.0, "parts": {}}


@pytest.fixture
def run(tmp_path):
    """A whole run of two epochs."""
    run = small_run(tmp_path / "run")
    write_json(run / "settings.json", SETTINGS)
    write_json(run / "origin.json", ORIGIN)
    for epoch in (1, 2):
        validation = {"ndcg10": 0.1 * epoch, "hr10": 0.2 * epoch, "mrr": 0.1}
        append_history(run, {"epoch": epoch, "step": 9, "seconds": 1.5 * epoch, "loss": 8.0 / epoch, "validation": validation})
    mark_finished(run, epochs=2, seconds=3.25, reason="minutes")
    write_json(run / "evaluation.json", {"split": "time", "results": {"BERT4Rec": ROW, "popularity": {**ROW, "hr10": 0.1}}})
    return run


def card_of(run, trained_at=TRAINED):
    checkpoint = find_checkpoint(run)
    return model_card(model_id_of(checkpoint), checkpoint, trained_at)


def test_a_whole_run_tells_everything(run):
    card = card_of(run)
    notes = card.pop("notes")
    assert card.pop("model_id") == model_id_of(find_checkpoint(run))
    assert card.pop("trained_at") == json.loads((find_checkpoint(run) / "checkpoint.json").read_text())["trained_at"]
    training = {name: value for name, value in SETTINGS["training"].items() if name != "model_folder"}
    assert card == {
        "seconds": 3.25,
        "epochs": 2,
        "device": "cpu",
        "machine": ORIGIN["machine"],
        "seed": 7,
        "objective": "cloze: 25 % of the songs of a row are masked and predicted, in 90 % of the rows the last song alone; "
        "cross-entropy against the whole catalogue",
        "data": ORIGIN["data"],
        "settings": {"model": SETTINGS["model"], "training": training},
        "curve": [
            {"epoch": 1, "seconds": 1.5, "train_loss": 8.0, "ndcg10": 0.1, "hr10": 0.2},
            {"epoch": 2, "seconds": 3.0, "train_loss": 4.0, "ndcg10": 0.2, "hr10": 0.4},
        ],
        "table": {
            "n": 150,
            "targets": 489,
            "rows": [
                {"recommender": "BERT4Rec", "metrics": {"hr10": 0.5, "ndcg10": 0.4}},
                {"recommender": "popularity", "metrics": {"hr10": 0.1, "ndcg10": 0.4}},
            ],
        },
        "features": "used 2 features: tempo, energy",
    }
    assert notes[0] == "epoch 1 of 2 is the one that answers; training ended because its time was used up"
    assert notes[-1] == "table: the test part, held out by time; every song is ranked"


def test_a_causal_model_says_what_it_was_asked(run):
    write_json(run / "settings.json", {**SETTINGS, "model": {**SETTINGS["model"], "objective": "causal"}})
    expected = "causal: each song of a row is predicted from those before it; cross-entropy against the whole catalogue"
    assert card_of(run)["objective"] == expected


def test_a_run_of_an_earlier_version_tells_what_it_stored(run):
    for name in ("origin.json", "evaluation.json", "finished.json"):
        (run / name).unlink()
    card = card_of(run)
    assert (card["data"], card["device"], card["table"]) == (None, None, None)
    assert (card["machine"], card["seconds"], card["epochs"]) == ("x86_64, torch 2.9.1", 3.0, 2)
    assert card["features"].startswith("used the features of the songs, in ")
    assert {note.partition(":")[0] for note in card["notes"]} >= {
        "the run did not store what it was trained on (origin.json)",
        "the run has no mark of its end",
        "the run was not evaluated",
    }


def test_why_no_features_were_used_is_told(run):
    write_json(run / "settings.json", {**SETTINGS, "model": {"use_features": False}})
    assert card_of(run)["features"] == "used no features because the setting use_features is off"
    write_json(run / "settings.json", SETTINGS)
    described = json.loads((find_checkpoint(run) / "checkpoint.json").read_text())
    described["counts"]["features"] = 0
    write_json(find_checkpoint(run) / "checkpoint.json", described)
    assert card_of(run)["features"] == "used no features because the songs of the database have none"


def test_a_folder_that_is_not_here_leaves_what_the_database_knows(tmp_path):
    card = model_card("run/epoch-001/0123456789ab", tmp_path / "run" / "epoch-001", TRAINED)
    assert card.pop("notes") == [NOT_HERE]
    assert card.pop("model_id") == "run/epoch-001/0123456789ab"
    assert card.pop("trained_at") == "2026-01-02T03:04:05+00:00"
    assert set(card.values()) == {None}
    assert model_card("m", tmp_path, None)["trained_at"] is None


def test_a_folder_with_another_model_is_not_shown_as_this_one(run):
    card = model_card("run/epoch-001/0123456789ab", find_checkpoint(run), TRAINED)
    assert (card["curve"], card["settings"]) == (None, None)
    assert card["notes"][0].startswith("the model's folder holds another model by now")


NESTED = "[" * 100_000
DAMAGED = ["", "{", "[]", "7", NESTED, '{"results": 7}', '{"results": {"a": 7}}', '{"epochs": 1e999, "reason": []}', "\xff", "\0"]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("name", ["settings.json", "origin.json", "finished.json", "evaluation.json", "history.jsonl"])
def test_a_damaged_file_costs_its_part_alone(run, name, text):
    (run / name).write_text(text, encoding="latin-1")
    card = card_of(run)
    json.dumps(card, allow_nan=False)
    assert (card["seed"] is None) == (name == "settings.json")
    assert (card["data"] is None) == (name == "origin.json")
    assert (card["table"] is None) == (name == "evaluation.json")
    assert (card["curve"] == []) == (name == "history.jsonl")


def test_numbers_that_json_does_not_have_become_none(run):
    append_history(run, {"epoch": 3, "seconds": float("inf"), "loss": float("nan"), "validation": {"ndcg10": True}})
    assert card_of(run)["curve"][-1] == {"epoch": 3, "seconds": None, "train_loss": None, "ndcg10": None, "hr10": None}


def test_what_is_read_has_bounds(run):
    with (run / "history.jsonl").open("a") as history:
        history.writelines(json.dumps({"epoch": epoch, "loss": 1.0}) + "\n" for epoch in range(3, 5_001))
    epochs = [point["epoch"] for point in card_of(run)["curve"]]
    assert (len(epochs), epochs[0], epochs[-1]) == (MOST_POINTS, 1, 5_000)
    many = {f"n{number}": number for number in range(1_000)}
    write_json(run / "origin.json", {"data": many})
    write_json(run / "settings.json", {"model": many})
    card = card_of(run)
    assert (len(card["data"]), len(card["settings"]["model"])) == (MOST_COUNTS, MOST_SETTINGS)
    (run / "evaluation.json").write_text(" " * (LARGEST_FILE_BYTES + 1))
    (run / "origin.json").unlink()
    os.mkfifo(run / "origin.json")  # would be waited for
    card = card_of(run)
    assert (card["table"], card["data"]) == (None, None)
    assert f"evaluation.json is over {LARGEST_FILE_BYTES} bytes and was not read" in card["notes"]
