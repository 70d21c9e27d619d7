import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from config import FIRST_NUMBER, MASK, PAD
from engine.checkpoint import load_checkpoint, save_catalogue, save_checkpoint
from engine.files import write_json
from engine.processes import process_group
from engine.runs import SETTINGS, find_checkpoint
from engine.states import load_training_state
from engine.tables import unheard_groups
from errors import CheckpointError, ConfigError
from memory import EDITED
from newcomers import Newcomers
from snapshot import open_snapshot
from tests.engine.small import small_config, small_snapshot
from train import Trainer, build_model


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


def test_a_stored_model_scores_exactly_as_before_and_keeps_only_the_full_edition(trained, tmp_path):
    config = small_config(trained[0])
    torch.manual_seed(5)
    snapshot = open_snapshot(trained[0] / "snapshot")
    model = build_model(config, snapshot, torch.from_numpy(snapshot.training_plays())).eval()
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    save_catalogue(tmp_path, model)
    write_json(tmp_path / SETTINGS, {})
    save_checkpoint(tmp_path, epoch=1, model=model, training_state={}, metrics={}, encoders_digest="", snapshot_digest="")
    loaded = load_checkpoint(tmp_path).model
    rows = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10, 3, 4, MASK], [PAD] * 8 + [13, 14, MASK]])
    assert torch.equal(loaded.score(rows), model.score(rows))
    assert [source.names for source in loaded.memory.sources] == [source.names for source in model.memory.sources]
    editions = {name: len(table) for name, table in loaded.memory.named_buffers() if name.rsplit(".", 1)[-1] in EDITED}
    assert set(editions.values()) == {1}
    assert len(model.memory.song_plays) == 1 + config.memory.folds
    assert len(model.memory.sources[0].fold_counts) == config.memory.folds
    assert loaded.memory.sources[0].fold_counts is None
    of_lists = [next(source for source in one.memory.sources if source.names == ("lists",)) for one in (loaded, model)]
    assert (of_lists[0].unheard, len(of_lists[1].unheard)) == (None, 1 + config.memory.folds)


@pytest.mark.parametrize("judged", [0, 3])
def test_a_stored_model_judges_as_many_songs_as_before(trained, tmp_path, judged):
    config, snapshot = small_config(trained[0]), open_snapshot(trained[0] / "snapshot")
    config = dataclasses.replace(config, memory=dataclasses.replace(config.memory, judged=judged))
    model = build_model(config, snapshot, torch.from_numpy(snapshot.training_plays())).eval()
    save_catalogue(tmp_path, model)
    write_json(tmp_path / SETTINGS, {})
    save_checkpoint(tmp_path, epoch=1, model=model, training_state={}, metrics={}, encoders_digest="", snapshot_digest="")
    loaded = load_checkpoint(tmp_path).model
    assert (0 if loaded.memory.judgement is None else loaded.memory.judgement.most) == judged
    rows = torch.tensor([[3, 4, 5, MASK], [13, 14, 13, MASK]])
    assert torch.equal(loaded.score(rows), model.score(rows))


@pytest.mark.parametrize("reach", [0, 5])
def test_a_stored_model_finds_newcomers_as_before(tmp_path, reach):
    """Two lists of seven songs leave some of the twenty, of four artists and three albums, to nobody."""
    snapshot, config = small_snapshot(tmp_path, n_lists=3)[0], small_config(tmp_path)
    config = dataclasses.replace(config, memory=dataclasses.replace(config.memory, unheard_reach=reach))
    plays = snapshot.training_plays()
    model = build_model(config, snapshot, torch.from_numpy(plays)).eval()
    album = np.where(np.arange(snapshot.n_songs) < FIRST_NUMBER, PAD, FIRST_NUMBER + np.arange(snapshot.n_songs) % 3)
    keys, editions = (np.asarray(snapshot.song_artist), album), model.memory.song_plays.numpy()
    newcomers = Newcomers([unheard_groups(key, editions, 64) for key in keys], reach) if reach else None
    assert (model.memory.newcomers is None) == (newcomers is None)
    model.memory.newcomers = newcomers
    model.newcomer_bonus.data.fill_(0.5)
    save_catalogue(tmp_path, model)
    write_json(tmp_path / SETTINGS, {})
    save_checkpoint(tmp_path, epoch=1, model=model, training_state={}, metrics={}, encoders_digest="", snapshot_digest="")
    loaded, rows = load_checkpoint(tmp_path).model, torch.tensor([[3, 4, 5, MASK], [13, 14, 13, MASK]])
    assert torch.equal(loaded.score(rows), model.score(rows))
    if newcomers is None:
        assert loaded.memory.newcomers is None
        return
    assert loaded.memory.newcomers.reach == reach
    for ours, theirs in zip(loaded.memory.newcomers.tables, newcomers.tables, strict=True):
        assert (ours.lacking, len(theirs.lacking)) == (None, config.memory.folds)
        assert all(getattr(ours, name).equal(getattr(theirs, name)) for name in ("row_of_song", "starts", "songs", "n_unheard"))
        assert (ours.width, ours.most) == (theirs.width, theirs.most)
        assert ours.n_unheard.sum() == (plays[FIRST_NUMBER:] == 0).sum() > 0


def test_gaps_among_the_fitted_songs_are_stored_with_the_catalogue(trained, tmp_path):
    config, snapshot = small_config(trained[0]), open_snapshot(trained[0] / "snapshot")
    plays = torch.from_numpy(snapshot.training_plays())
    plays[7] = 0
    model = build_model(config, snapshot, plays).eval()
    save_catalogue(tmp_path, model)
    write_json(tmp_path / SETTINGS, {})
    save_checkpoint(tmp_path, epoch=1, model=model, training_state={}, metrics={}, encoders_digest="", snapshot_digest="")
    loaded = load_checkpoint(tmp_path).model
    assert torch.equal(loaded.embedding.are_fitted(), model.embedding.are_fitted())
    assert not loaded.embedding.are_fitted()[7]
    rows = torch.tensor([[3, 7, MASK]])
    assert torch.equal(loaded.score(rows), model.score(rows))


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
        deeper = dataclasses.replace(config, memory=dataclasses.replace(config.memory, neighbours=5))
        with pytest.raises(ConfigError, match="neighbours is 5, but the checkpoint to resume was trained with 4"):
            Trainer(deeper, snapshot, process)
        shorter = dataclasses.replace(config, memory=dataclasses.replace(config.memory, again_reach=0))
        with pytest.raises(ConfigError, match="again_reach is 0, but the checkpoint to resume was trained with 193"):
            Trainer(shorter, snapshot, process)
        missing = dataclasses.replace(config, training=dataclasses.replace(config.training, epoch_to_preload=17))
        with pytest.raises(CheckpointError, match="has no epoch 17: it keeps epoch-00"):
            Trainer(missing, snapshot, process)


def save_again(run):
    model = load_checkpoint(run).model
    return save_checkpoint(
        run, epoch=3, model=model, training_state={"new": 1}, metrics={}, encoders_digest="", snapshot_digest=""
    )


def test_a_checkpoint_takes_the_place_of_another_one(run):
    assert load_training_state(save_again(run)) == {"new": 1}
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_checkpoint_stays_until_another_one_is_in_its_place(run, monkeypatch):
    rename, before = Path.rename, load_training_state(run / "epoch-003").keys()

    def fails_for_drafts(path, target):
        if path.name.startswith(".draft-"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_for_drafts)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_again(run)
    assert load_training_state(run / "epoch-003").keys() == before
