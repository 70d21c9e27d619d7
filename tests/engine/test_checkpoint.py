import dataclasses
import json
import pickle
import shutil

import pytest
import torch

from config import MASK
from dataset import open_snapshot
from engine.checkpoint import BEST, find_checkpoint, load_checkpoint, load_training_state, newest_run
from engine.processes import process_group
from errors import CheckpointError, ConfigError
from tests.engine.small import small_config, small_snapshot
from train import Trainer, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a snapshot and one finished run; tests that damage something work on a copy."""
    folder = tmp_path_factory.mktemp("trained")
    snapshot, _ = small_snapshot(folder)
    config = small_config(folder, num_epochs=3, keep_checkpoints=2)
    with process_group(config.training) as process:
        run = train(config, snapshot, process, show_progress=False)
    return folder, run


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained[1], tmp_path / "models" / trained[1].name)
    return tmp_path / "models" / trained[1].name


def test_a_loaded_model_scores_as_the_saved_one(trained):
    folder, run = trained
    snapshot = open_snapshot(folder / "snapshot")
    checkpoint = load_checkpoint(run)
    again = load_checkpoint(find_checkpoint(run))
    rows = torch.tensor([[3, 4, MASK], [13, 14, MASK]])
    assert torch.equal(checkpoint.model.score(rows), again.model.score(rows))
    assert checkpoint.snapshot_digest == snapshot.digest
    assert checkpoint.encoders_digest == snapshot.manifest["encoders_digest"]
    assert checkpoint.settings["training"]["num_epochs"] == 3
    assert checkpoint.model_id.startswith(f"{run.name}/epoch-")
    assert not checkpoint.model.training


def test_old_epochs_are_pruned_and_the_best_stays(trained):
    kept = {path.name for path in trained[1].glob("epoch-*")}
    best = json.loads((trained[1] / BEST).read_text())["checkpoint"]
    assert kept == {"epoch-002", "epoch-003", best}


def test_a_folder_of_runs_means_its_newest_finished_run(run):
    (run.parent / "99999999-000000-seed0").mkdir()  # begun, but without a checkpoint
    assert newest_run(run.parent) == run
    assert find_checkpoint(run.parent) == find_checkpoint(run)


@pytest.mark.parametrize("name", ["weights.safetensors", "catalogue.safetensors"])
def test_a_truncated_file_is_refused(run, name):
    path = next(path for path in (find_checkpoint(run) / name, run / name) if path.exists())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="does not match its digest"):
        load_checkpoint(run)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "checkpoint.json").write_text('{"epoch": 1}')
    with pytest.raises(CheckpointError, match="is not a checkpoint of this project"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"run train\.py first"):
        load_checkpoint(tmp_path / "nothing")


def test_a_description_of_another_shape_is_refused(run):
    folder = find_checkpoint(run)
    described = json.loads((folder / "checkpoint.json").read_text())
    described["model"]["d_ff"] = 64
    (folder / "checkpoint.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="is not one of ours or is damaged"):
        load_checkpoint(run)


def test_a_training_state_that_would_execute_something_is_not_opened(run):
    folder = find_checkpoint(run)
    (folder / "training_state.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match="does not match its digest"):
        load_training_state(folder)


def test_a_full_disk_leaves_the_last_good_checkpoint(trained, tmp_path, monkeypatch):
    folder, _ = trained
    config = small_config(tmp_path, num_epochs=2)
    config = dataclasses.replace(config, preprocessing=small_config(folder).preprocessing)
    saved = []

    def fills_up(state, path):
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        torch.serialization.save(state, path)

    monkeypatch.setattr("engine.checkpoint.torch.save", fills_up)
    with process_group(config.training) as process:
        trainer = Trainer(config, open_snapshot(folder / "snapshot"), process, show_progress=False)
        with pytest.raises(CheckpointError, match=r"No space left on device.*the last good checkpoint stays"):
            trainer.run()
    assert load_checkpoint(trainer.folder).epoch == 1
    assert [path.name for path in trainer.folder.iterdir() if path.name.startswith(".")] == []


def test_resuming_needs_the_same_snapshot_and_shape(trained, tmp_path):
    folder, _ = trained
    snapshot = open_snapshot(folder / "snapshot")
    other, _ = small_snapshot(tmp_path, n_lists=60)
    config = small_config(folder, epoch_to_preload=-1, num_epochs=4)
    with process_group(config.training) as process:
        with pytest.raises(CheckpointError, match="was trained on another snapshot"):
            Trainer(config, other, process)
        wider = dataclasses.replace(config, model=dataclasses.replace(config.model, d_ff=64))
        with pytest.raises(ConfigError, match="d_ff is 64, but the checkpoint to resume was trained with 32"):
            Trainer(wider, snapshot, process)
        missing = dataclasses.replace(config, training=dataclasses.replace(config.training, epoch_to_preload=17))
        with pytest.raises(CheckpointError, match="has no epoch 17: it keeps epoch-00"):
            Trainer(missing, snapshot, process)
