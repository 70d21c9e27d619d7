"""The state of training on disk: what is kept of it, and that nothing in it is executed."""

import json
import pickle

import pytest

from engine.runs import find_checkpoint
from engine.states import load_state, load_training_state, save_state, states_of
from errors import CheckpointError
from snapshot import file_digest


def test_a_training_state_of_another_kind_is_refused(run):
    folder = find_checkpoint(run)
    (folder / "training_state.pt").write_bytes(b"no state")
    described = json.loads((folder / "checkpoint.json").read_text())
    described["training_state_digest"] = file_digest(folder / "training_state.pt")
    (folder / "checkpoint.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="holds no training state"):
        load_training_state(folder)


def test_a_training_state_that_would_execute_something_is_not_opened(run):
    folder = find_checkpoint(run)
    (folder / "training_state.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match="does not match its digest"):
        load_training_state(folder)


def test_only_the_newest_state_is_kept(tmp_path):
    states = [save_state(tmp_path, {"step": step}, epoch=2, step=step) for step in (9, 10, 1_000_000)]
    assert states_of(tmp_path) == states[-1:]
    assert load_state(states[-1]) == {"step": 1_000_000}
    assert [path.name for path in tmp_path.iterdir()] == [states[-1].name]


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    good = save_state(tmp_path, {"step": 1}, epoch=1, step=1)

    def fills_up(state, file):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.states.torch.save", fills_up)
    with pytest.raises(CheckpointError, match=r"No space left on device\): the last good state stays"):
        save_state(tmp_path, {"step": 2}, epoch=1, step=2)
    assert list(tmp_path.iterdir()) == [good]
