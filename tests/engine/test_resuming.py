"""Runs that are killed and gone on with, each as a process of its own, beside one that nothing interrupted."""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch

import train
from config import PROJECT_ROOT
from engine.checkpoint import load_checkpoint
from engine.files import write_json
from engine.processes import Job, process_group
from engine.resuming import Stand, _of_another_order, newest_stand, refuse_other_settings, where_to_go_on
from engine.runs import JOB, epochs_of, find_checkpoint, newest_run, read_history
from engine.states import save_state, states_of
from errors import CheckpointError, ConfigError
from options import add_arguments, config_from_arguments
from snapshot import open_snapshot
from tests.engine.small import small_config, small_snapshot

EPOCHS, STEPS = 3, 21  # of 81 rows, four a step


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resuming")
    small_snapshot(folder, n_lists=101)
    return folder


def run_train(world, out, *options, launcher=(), **told):
    """Start tests/engine/watched.py over the models in `out`, and wait for it."""
    out.mkdir(exist_ok=True)
    paths = ["--snapshot", world / "snapshot", "--encoders-folder", world / "encoders", "--model-folder", out / "models"]
    network = ["--d-songs", "8", "--d-albums", "4", "--d-artists", "4", "--d-ff", "16", "--seq-len", "8", "--N", "1"]
    training = ["--num-epochs", EPOCHS, "--batch-size", "4", "--negatives", "6", "--early-stopping-epochs", "0"]
    rest = ["--map-songs", "0", "--threads", "1", "--device", "cpu", "--no-evaluation", "--keep-checkpoints", "9"]
    start = [*launcher, "tests/engine/watched.py"] if launcher else ["-m", "tests.engine.watched"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT_ROOT), "PYTHONFAULTHANDLER": "1"}
    environ["WATCHED"] = json.dumps({"out": str(out), **told})
    return subprocess.run(
        list(map(str, [sys.executable, *start, *paths, *network, *training, *rest, *options])),
        cwd=PROJECT_ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def losses_of(out, rank=0):
    """The loss of each step, as the last process that took it found."""
    lines = [json.loads(line) for line in (out / f"losses-{rank}.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def only_run(out):
    (run,) = (out / "models").iterdir()
    return run


def assert_alike(run, other):
    """The two runs ended alike to the last bit: losses, validation and weights of all epochs."""
    assert [(line["loss"], line["validation"]) for line in read_history(run)] == [
        (line["loss"], line["validation"]) for line in read_history(other)
    ]
    assert [path.name for path in epochs_of(run)] == [path.name for path in epochs_of(other)]
    for one, another in zip(epochs_of(run), epochs_of(other), strict=True):
        weights, expected = (load_checkpoint(folder).model.state_dict() for folder in (one, another))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A run that nothing interrupts, nor slows down by states."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run_train(world, out)
    assert done.returncode == 0, done.stderr
    assert len(losses_of(out)) == EPOCHS * STEPS
    return out


@pytest.mark.parametrize(
    ("states_at", "dies_at", "goes_on_at"),
    [
        ([STEPS + 5, STEPS + 9], STEPS + 13, STEPS + 9),  # within the second epoch, after the newest of two states
        ([], STEPS + 13, STEPS),  # from the checkpoint of the first
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(world, whole, tmp_path, states_at, dies_at, goes_on_at):
    out = tmp_path / "out"
    assert run_train(world, out, dies_at=dies_at, states_at=states_at).returncode == -signal.SIGKILL
    assert sorted(losses_of(out)) == list(range(1, dies_at))
    (out / "losses-0.jsonl").unlink()
    done = run_train(world, out, "--epoch-to-preload", "-1")
    assert done.returncode == 0, done.stderr
    again, expected = losses_of(out), losses_of(whole)
    assert again == {step: expected[step] for step in range(goes_on_at + 1, EPOCHS * STEPS + 1)}
    assert_alike(only_run(out), only_run(whole))
    assert states_of(only_run(out)) == []


# --- what a kill leaves behind, played through within this process -----------------------------------------------------------


class KilledError(Exception):
    """Stands for an interruption."""


class Watched(train.Trainer):
    """Keeps the loss of each step; writes states and is interrupted where it is told to."""

    states_at: tuple[int, ...] = ()
    dies_at: int | None = None

    def _step(self, part, generator):
        if self.progress.step + 1 == self.dies_at:
            raise KilledError
        loss, rate = super()._step(part, generator)
        self.__dict__.setdefault("losses", {})[self.progress.step + 1] = loss.item()
        return loss, rate

    def _is_time_to_save(self):
        return self.progress.step in self.states_at


def config_of(world, models, **training):
    settings = {"num_epochs": EPOCHS, "batch_size": 4, "keep_checkpoints": 9, "map_songs": 0, **training}
    return small_config(world, model_folder=models, **settings)


def trainer_of(config, **told):
    with process_group(config.training) as process:
        trainer = Watched(config, open_snapshot(config.preprocessing.snapshot), process, show_progress=False)
    for name, value in told.items():
        setattr(trainer, name, value)
    return trainer


@pytest.fixture(scope="module")
def uninterrupted(world, tmp_path_factory):
    trainer = trainer_of(config_of(world, tmp_path_factory.mktemp("uninterrupted")))
    trainer.run()
    return trainer


def broken_off(world, models, states_at, dies_at):
    """The folder of a run that was interrupted."""
    trainer = trainer_of(config_of(world, models), states_at=states_at, dies_at=dies_at)
    with pytest.raises(KilledError):
        trainer.run()
    return trainer.folder


@pytest.mark.parametrize(
    ("states_at", "dies_at", "goes_on_at"),
    [
        ([5], 12, 5),  # within the first epoch, whose run has no checkpoint yet
        ([STEPS], STEPS + 1, STEPS),  # all steps of the epoch were in its state, but its checkpoint stands
    ],
)
def test_a_run_goes_on_from_any_step(world, uninterrupted, tmp_path, states_at, dies_at, goes_on_at):
    run = broken_off(world, tmp_path, states_at, dies_at)
    again = trainer_of(config_of(world, tmp_path, epoch_to_preload=-1))
    assert again.run() == run
    assert again.losses == {step: loss for step, loss in uninterrupted.losses.items() if step > goes_on_at}
    assert_alike(run, uninterrupted.folder)


def test_a_state_after_the_last_step_of_an_epoch_leaves_only_its_end_to_do(world, uninterrupted, tmp_path, monkeypatch):
    trainer = trainer_of(config_of(world, tmp_path), states_at=[STEPS], dies_at=STEPS + 1)
    monkeypatch.setattr(trainer, "_finish_epoch", lambda *arguments: trainer._step(None, None))  # dies before its checkpoint
    with pytest.raises(KilledError):
        trainer.run()
    again = trainer_of(config_of(world, tmp_path, epoch_to_preload=-1))
    assert_alike(again.run(), uninterrupted.folder)
    assert min(again.losses) == STEPS + 1


@pytest.mark.parametrize("interrupted", ["mark_best", "prune", "drop_states", "append_history"])
def test_an_epoch_whose_checkpoint_was_its_last_deed_is_in_the_history(world, uninterrupted, tmp_path, monkeypatch, interrupted):
    def killed(*arguments, **options):
        raise KilledError

    trainer = trainer_of(config_of(world, tmp_path))
    monkeypatch.setattr(train, interrupted, killed)
    with pytest.raises(KilledError):
        trainer.run()
    monkeypatch.undo()
    again = trainer_of(config_of(world, tmp_path, epoch_to_preload=-1))
    assert_alike(again.run(), uninterrupted.folder)
    assert [line.keys() for line in read_history(again.folder)] == [line.keys() for line in read_history(uninterrupted.folder)]
    assert [line["step"] for line in read_history(again.folder)] == [STEPS, 2 * STEPS, 3 * STEPS]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, change])
def test_a_damaged_state_gives_way_to_the_last_epoch(world, uninterrupted, tmp_path, caplog, damage):
    run = broken_off(world, tmp_path, [STEPS + 5], STEPS + 10)
    (state,) = states_of(run)
    damage(state)
    again = trainer_of(config_of(world, tmp_path, epoch_to_preload=-1))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{state} does not match its digest (truncated or changed): going on from epoch-001 instead"]
    again.run()
    assert again.losses == {step: loss for step, loss in uninterrupted.losses.items() if step > STEPS}
    assert_alike(run, uninterrupted.folder)


def test_a_state_is_nothing_to_serve(world, tmp_path):
    run = broken_off(world, tmp_path, [STEPS + 5], STEPS + 10)
    assert find_checkpoint(run.parent) == find_checkpoint(run) == run / "epoch-001"
    assert newest_stand(run) == states_of(run)[0]


def test_a_run_without_a_checkpoint_serves_nothing_and_can_be_gone_on_with(tmp_path):
    run = tmp_path / "models" / "now"
    run.mkdir(parents=True)
    state = save_state(run, {"weights": {}}, epoch=1, step=5)
    assert newest_run(tmp_path / "models") is None
    training = SimpleNamespace(model_folder=tmp_path / "models", epoch_to_preload=-1)
    assert where_to_go_on(training, None) == Stand(run, state)
    truncate(state)
    with pytest.raises(CheckpointError, match="keeps nothing whole to go on from"):
        where_to_go_on(training, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 5}, "came by seed 0, not seed 5: go on with --seed 0, or name an epoch"),
        ({"batch_size": 8}, "came by rows_per_step 4, not rows_per_step 8: go on with --batch-size 4, or name an epoch"),
        (
            {"last_item_probability": 0.5},
            r"last_item_probability 0\.5: go on with --last-item-probability 0\.9, or name an epoch",
        ),
    ],
)
def test_within_an_epoch_its_rows_cannot_be_dealt_otherwise(world, tmp_path, settings, message):
    run = broken_off(world, tmp_path, [STEPS + 5], STEPS + 10)
    before = sorted(path.name for path in run.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        trainer_of(config_of(world, tmp_path, epoch_to_preload=-1, **settings))
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize(
    ("saved", "training", "way"),
    [
        ({"rows_per_step": 8}, {}, "use as many processes as before"),
        ({"rows_per_step": 8}, {"lr": 0.1}, "go on with --lr 0.1, or use as many processes as before"),
        ({"rows_per_step": 8}, {"batch_size": 8}, "go on with --batch-size 8"),
        ({"row_len": None}, {"lr": 0.1}, "start a new run"),
    ],
)
def test_what_is_advised_is_what_would_help(tmp_path, saved, training, way):
    now = {"seed": 0, "rows_per_step": 4, "row_len": 215}
    said = _of_another_order(tmp_path / "within-001-000020.pt", {**now, **saved}, now, training)
    assert said.partition(": ")[2] == way


def test_after_a_whole_epoch_they_can(world, tmp_path):
    run = broken_off(world, tmp_path, [STEPS + 5], STEPS + 10)
    again = trainer_of(config_of(world, tmp_path, epoch_to_preload=1, batch_size=8))
    assert states_of(run) == []
    again.run()
    assert len(again.losses) == 2 * 11


def test_a_run_from_before_there_was_another_objective_had_this_one(world, tmp_path):
    run = broken_off(world, tmp_path, [STEPS + 5], STEPS + 10)
    settings = json.loads((run / "settings.json").read_text())
    del settings["model"]["objective"]
    (run / "settings.json").write_text(json.dumps(settings))
    assert trainer_of(config_of(world, tmp_path, epoch_to_preload=-1)).folder == run
    config = config_of(world, tmp_path, epoch_to_preload=-1)
    causal = dataclasses.replace(config, model=dataclasses.replace(config.model, objective="causal"))
    with pytest.raises(ConfigError, match="objective is causal, but the checkpoint to resume was trained with cloze: go on with"):
        trainer_of(causal)


def test_whoever_goes_on_with_other_settings_is_told_all_options_that_he_lacks():
    saved = {"objective": "causal", "N": 2, "use_features": True, "d_songs": 64, "withheld": 0.0}
    with pytest.raises(ConfigError) as raised:
        refuse_other_settings(saved, {**saved, "N": 3, "use_features": False, "withheld": 0.15})
    said, options = str(raised.value).split(": go on with ")
    assert (
        said
        == "N is 3, but the checkpoint to resume was trained with 2; use_features is False, not True; withheld is 0.15, not 0.0"
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser, "model", "memory")
    config = config_from_arguments(parser.parse_args(options.split()))
    assert (config.model.N, config.model.use_features, config.memory.withheld) == (2, True, 0.0)
    refuse_other_settings(saved, saved)


def test_a_run_that_goes_on_with_other_settings_says_so(world, tmp_path, caplog):
    broken_off(world, tmp_path, [STEPS + 5], STEPS + 10)
    trainer_of(config_of(world, tmp_path, epoch_to_preload=-1, num_epochs=40, threads=2))
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [f"the run goes on with other settings than it began with: num_epochs is 40, it was {EPOCHS}"]


def test_states_are_written_by_the_clock(world, tmp_path, monkeypatch):
    written, clock = [], count(0, 7)  # seven seconds a look
    monkeypatch.setattr(train, "save_stand", lambda run, model, optimizer, progress, **rest: written.append(progress.step))
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    for minutes in (0, 1):
        assert written == []
        config = config_of(world, tmp_path, checkpoint_minutes=minutes, num_epochs=1)
        with process_group(config.training) as process:
            train.Trainer(config, open_snapshot(world / "snapshot"), process, show_progress=False).run()
    assert written == [8, 17]  # the first look at the clock after 60 seconds, counted anew from there


# --- torchrun ----------------------------------------------------------------------------------------------------------------


def torchrun(max_restarts):
    return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(max_restarts)]


@pytest.fixture(scope="module")
def whole_of_two(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "out"
    done = run_train(world, out, "--batch-size", "2", launcher=torchrun(0))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize(("states_at", "dies_at", "goes_on_at"), [([30], 38, 30), ([], 4, 0)])
def test_torchrun_goes_on_with_its_run_when_a_process_is_killed(world, whole_of_two, tmp_path, states_at, dies_at, goes_on_at):
    out = tmp_path / "out"
    shutil.copytree(whole_of_two / "models", out / "models")  # somebody else's finished run
    theirs = only_run(out)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    told = {"states_at": states_at, "dies_at": dies_at, "dying": 1}
    done = run_train(world, out, "--batch-size", "2", launcher=torchrun(1), **told)
    assert done.returncode == 0, done.stderr
    (ours,) = set((out / "models").iterdir()) - {theirs}
    for rank in range(2):
        assert losses_of(out, rank) == losses_of(whole_of_two, rank)
        lines = [json.loads(line) for line in (out / f"losses-{rank}.jsonl").read_text().splitlines()]
        assert min(line["step"] for line in lines if line["restarts"]) == goes_on_at + 1
    assert_alike(ours, theirs)
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before


def noted(models, name, job):
    run = models / name
    run.mkdir(parents=True)
    write_json(run / JOB, job.noted())
    return run


def test_a_restart_knows_the_run_of_its_job(tmp_path):
    first, second = (Job(run_id=name, agent=f"host {name} 1", restarts=0) for name in ("a", "b"))
    theirs, ours = noted(tmp_path, "1", first), noted(tmp_path, "2", second)
    (tmp_path / "3").mkdir()
    training = SimpleNamespace(model_folder=tmp_path, epoch_to_preload=None)
    assert where_to_go_on(training, Job(run_id="b", agent="host b 1", restarts=1)) == Stand(ours, None)
    assert where_to_go_on(training, Job(run_id="a", agent="elsewhere", restarts=1)) == Stand(theirs, None)
    assert where_to_go_on(training, Job(run_id="a", agent="elsewhere", restarts=0)) is None  # a new job of an old name
    assert where_to_go_on(training, Job(run_id="c", agent="host a 2", restarts=1)) is None
    assert where_to_go_on(training, None) is None


def test_jobs_without_a_name_are_told_apart_by_their_torchrun(tmp_path):
    ours = noted(tmp_path, "1", Job(run_id="none", agent="host 5 1", restarts=0))
    training = SimpleNamespace(model_folder=tmp_path, epoch_to_preload=None)
    assert where_to_go_on(training, Job(run_id="none", agent="host 6 1", restarts=1)) is None
    assert where_to_go_on(training, Job(run_id="none", agent="host 5 1", restarts=1)) == Stand(ours, None)


def test_a_restart_goes_on_where_its_job_was_and_not_where_the_settings_began(tmp_path):
    job = Job(run_id="a", agent="host 5 1", restarts=1)
    run = noted(tmp_path, "1", job)
    state = save_state(run, {}, epoch=3, step=7)
    assert where_to_go_on(SimpleNamespace(model_folder=tmp_path, epoch_to_preload=1), job) == Stand(run, state)


def test_the_environment_tells_the_job(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert Job.of_environment() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "night")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    job = Job.of_environment()
    assert (job.run_id, job.restarts) == ("night", 2)
    assert f" {os.getppid()} " in job.agent
