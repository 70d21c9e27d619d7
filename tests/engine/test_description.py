import json

import pytest

from engine.checkpoint import load_checkpoint
from engine.runs import find_checkpoint
from engine.states import load_training_state
from errors import CheckpointError


def test_a_checkpoint_of_an_earlier_format_is_refused_by_its_number(run):
    folder = find_checkpoint(run)
    described = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**described, "format_version": 4}))
    with pytest.raises(CheckpointError, match=r"has format 4 \(this version reads 5\)"):
        load_checkpoint(run)


@pytest.mark.parametrize("described", ['{"format_version": 5}', "[]", '"epoch"'])
def test_a_foreign_description_beside_weights_is_refused(tmp_path, described):
    (tmp_path / "checkpoint.json").write_text(described)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    for read in (load_checkpoint, load_training_state):
        with pytest.raises(CheckpointError, match="is not a checkpoint of this project"):
            read(tmp_path)


def test_a_description_of_another_shape_is_refused(run):
    folder = find_checkpoint(run)
    described = json.loads((folder / "checkpoint.json").read_text())
    described["model"]["d_ff"] = 64
    (folder / "checkpoint.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="is not one of ours or is damaged"):
        load_checkpoint(run)
