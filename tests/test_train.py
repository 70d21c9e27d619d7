import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from config import PROJECT_ROOT
from dataset import open_snapshot
from engine.checkpoint import find_checkpoint, load_checkpoint
from engine.processes import choose_device, process_group
from engine.scoring import score_function
from errors import ConfigError, exit_code_of
from tests.engine.small import CIRCLE, small_config, small_snapshot


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    small_snapshot(folder)
    return folder


def trained(folder, config):
    with process_group(config.training) as process:
        return train.train(config, open_snapshot(folder / "snapshot"), process, show_progress=False)


def paths_of(world, models):
    return ["--snapshot", world / "snapshot", "--encoders-folder", world / "encoders", "--model-folder", models]


def history_of(run):
    return [json.loads(line) for line in (run / train.HISTORY).read_text().splitlines()]


def test_the_circle_is_learned_and_beats_every_count(world):
    config = small_config(world, num_epochs=12)
    run = trained(world, config)
    results = train.evaluate_run(run, config, open_snapshot(world / "snapshot"))
    assert results["BERT4Rec"].metrics["hr1"] > 0.95
    assert results["popularity"].metrics["hr1"] < 0.5
    stored = json.loads((run / "evaluation.json").read_text())["results"]
    assert stored["BERT4Rec"]["hr1"] == results["BERT4Rec"].metrics["hr1"]
    score = score_function(load_checkpoint(run / "epoch-012").model)
    for prefix in (np.arange(3, 8), np.arange(3, 8) + CIRCLE):
        scores = score([prefix])[0]
        scores[prefix] = -np.inf  # songs of the prefix are no candidates
        assert scores.argmax() == prefix[-1] + 1


def test_a_seed_fixes_everything(world, tmp_path):
    runs = [trained(world, dataclasses.replace(small_config(world, seed=seed), preprocessing=small_config(world).preprocessing,
            training=dataclasses.replace(small_config(world, seed=seed).training, model_folder=tmp_path / name)))
            for name, seed in (("a", 1), ("b", 1), ("c", 2))]  # fmt: skip
    losses = [[line["loss"] for line in history_of(run)] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    weights = [load_checkpoint(find_checkpoint(run)).model.state_dict() for run in runs[:2]]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_resumed_run_repeats_the_uninterrupted_one_exactly(world, tmp_path):
    whole = small_config(world, num_epochs=4, keep_checkpoints=9, model_folder=tmp_path / "whole")
    expected = [line["loss"] for line in history_of(trained(world, whole))]
    broken = small_config(world, num_epochs=4, keep_checkpoints=9, model_folder=tmp_path / "broken")
    with process_group(broken.training) as process:
        trainer = train.Trainer(broken, open_snapshot(world / "snapshot"), process, show_progress=False)
        stopped = trainer._finish_epoch

        def killed_after_two(loss, scalars):
            over = stopped(loss, scalars)
            return over or trainer.progress.epoch == 2

        trainer._finish_epoch = killed_after_two
        run = trainer.run()
    resumed = dataclasses.replace(broken, training=dataclasses.replace(broken.training, epoch_to_preload=2))
    assert trained(world, resumed) == run
    assert [line["loss"] for line in history_of(run)] == expected


def test_early_stopping_waits_for_its_patience(world, tmp_path):
    config = small_config(world, num_epochs=50, early_stopping_epochs=3, lr=1e-9, model_folder=tmp_path / "models")
    assert len(history_of(trained(world, config))) == 4  # the first is the best, three without gain


def test_the_best_score_only_rises(world, tmp_path):
    run = trained(world, small_config(world, num_epochs=6, keep_checkpoints=9, model_folder=tmp_path / "models"))
    metrics = [line["validation"]["ndcg10"] for line in history_of(run)]
    assert find_checkpoint(run).name == f"epoch-{1 + int(np.argmax(metrics)):03d}"


def test_scalars_and_settings_are_stored_with_the_run(world, tmp_path):
    run = trained(world, small_config(world, num_epochs=1, seed=5, model_folder=tmp_path / "models"))
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["training"]["seed"], settings["model"]["N"]) == (5, 1)
    assert settings["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize("negatives", [0, 8])
def test_both_losses_learn(world, tmp_path, negatives):
    run = trained(world, small_config(world, num_epochs=8, negatives=negatives, model_folder=tmp_path / "models"))
    losses = [line["loss"] for line in history_of(run)]
    assert losses[-1] < losses[0] / 2


def test_training_from_a_snapshot_needs_no_database(world, tmp_path):
    """As a user calls it, with an address where nothing listens."""
    command = [
        sys.executable, "train.py", *paths_of(world, tmp_path), "--num-epochs", "1", "--d-songs", "8", "--d-albums", "0",
        "--d-artists", "8", "--use-features", "false", "--threads", "1",
    ]  # fmt: skip
    environ = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run(list(map(str, command)), cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True, check=True)
    assert "| BERT4Rec" in done.stdout
    assert Path(done.stdout.strip().splitlines()[-1].removeprefix("model: ")).is_dir()


def test_two_processes_train_one_model(world, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", "127.0.0.1:0", "train.py", *paths_of(world, tmp_path), "--num-epochs", "2", "--batch-size", "16",
        "--threads", "1", "--device", "cpu", "--no-evaluation",
    ]  # fmt: skip
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run(list(map(str, command)), cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = tmp_path.iterdir()
    assert len(history_of(run)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--snapshot", "/nowhere"], "no snapshot in /nowhere: run preprocessing.py"),
        (["--heads", "3"], "must be divisible by heads (3)"),
        (["--config", "/nowhere.toml"], "settings file /nowhere.toml does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert exit_code_of(train.main, arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_cuda_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        choose_device("cuda", 0)
