"""The folder of runs: which run and checkpoint a path means, what is kept, and what is noted of a run."""

import json
from pathlib import Path

import pytest

from engine.description import read_description
from engine.files import write_json
from engine.runs import (
    BEST,
    FINISHED,
    HISTORY,
    append_history,
    best_of,
    epochs_of,
    find_checkpoint,
    go_back,
    is_finished,
    make_run,
    mark_best,
    mark_finished,
    newest_run,
    prune,
    read_history,
)
from errors import CheckpointError


def test_old_epochs_are_pruned_and_the_best_stays(trained):
    kept = {path.name for path in trained[1].glob("epoch-*")}
    best = json.loads((trained[1] / BEST).read_text())["checkpoint"]
    assert kept == {"epoch-002", "epoch-003", best}


def test_a_folder_of_runs_means_its_newest_finished_run(run):
    (run.parent / "99999999-000000-seed0").mkdir()  # begun, but without a checkpoint
    assert newest_run(run.parent) == run
    assert find_checkpoint(run.parent) == find_checkpoint(run)


def pretend(run, metrics):
    """Give a run these epochs with their validation metrics, marked by nothing; weights are beside the point."""
    for epoch, metric in metrics.items():
        folder = run / f"epoch-{epoch:03d}"
        described = read_description(find_checkpoint(run)) | {"epoch": epoch, "metrics": {"ndcg10": metric}}
        folder.mkdir(exist_ok=True)
        (folder / "weights.safetensors").write_bytes(b"")
        (folder / "checkpoint.json").write_text(json.dumps(described))
    return run


@pytest.fixture
def pretended(run):
    """A run of four epochs, the last one best, whose mark was never written."""
    pretend(run, {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.6})
    (run / BEST).unlink()
    (run / HISTORY).write_text("".join(json.dumps({"epoch": epoch}) + "\n" for epoch in (1, 2, 3, 4)) + '{"epoch": 5, "lo')
    return run


def test_a_run_that_was_taken_back_forgets_what_came_later(pretended):
    mark_finished(pretended, epochs=4, seconds=1.5, reason="patience")
    write_json(pretended / "evaluation.json", {})
    (pretended / ".draft-x").mkdir()
    assert go_back(pretended, 3).name == "epoch-002"
    assert [folder.name for folder in epochs_of(pretended)] == ["epoch-001", "epoch-002", "epoch-003"]
    assert read_history(pretended) == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]
    assert json.loads((pretended / BEST).read_text()) == {"checkpoint": "epoch-002"}
    assert not is_finished(pretended)
    assert {path.name for path in pretended.iterdir()} & {"evaluation.json", ".draft-x"} == set()


def test_without_a_mark_the_best_is_what_the_checkpoints_say(pretended):
    assert newest_run(pretended.parent) == pretended
    assert find_checkpoint(pretended).name == "epoch-004"
    assert best_of(pretended, up_to=1).name == "epoch-001"


def test_a_finished_run_says_how_it_ended(pretended):
    assert not is_finished(pretended.parent)
    mark_finished(pretended, epochs=4, seconds=1.5, reason="minutes")
    assert is_finished(pretended)
    assert json.loads((pretended / FINISHED).read_text()) == {"epochs": 4, "seconds": 1.5, "reason": "minutes"}


def test_pruning_keeps_the_best_the_newest_and_what_was_just_written(pretended):
    pretend(pretended, {999: 0.1, 1000: 0.1})
    mark_best(pretended, pretended / "epoch-002")
    prune(pretended, 2, pretended / "epoch-003")
    assert [folder.name for folder in epochs_of(pretended)] == ["epoch-002", "epoch-003", "epoch-999", "epoch-1000"]


def test_runs_of_one_second_do_not_collide(tmp_path):
    assert [make_run(tmp_path / "models", "now-seed0").name for _ in range(3)] == ["now-seed0", "now-seed0-2", "now-seed0-3"]


def test_a_model_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(CheckpointError, match=r"models could not be written .*: name another with --model-folder"):
        make_run(tmp_path / "models", "run")


@pytest.mark.parametrize(
    "write",
    [
        lambda run: append_history(run, {"epoch": 9}),
        lambda run: mark_best(run, run / "epoch-003"),
        lambda run: mark_finished(run, epochs=1, seconds=1.0, reason="epochs"),
        lambda run: write_json(run / "evaluation.json", {}),
    ],
)
def test_a_full_disk_is_one_line_for_every_small_file(run, monkeypatch, write):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CheckpointError, match=r"could not be written .*No space left on device"):
        write(run)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
