"""One trained run for all tests that look at a run, or at a copy of it."""

import shutil

import pytest

from engine.processes import process_group
from tests.engine.small import small_config, small_snapshot
from train import train


@pytest.fixture(scope="session")
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
