import dataclasses
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

import train
from config import FIRST_NUMBER, PAD, PROJECT_ROOT, EvaluationConfig, MemoryConfig
from dataset import ask, training_batch
from engine.checkpoint import load_checkpoint
from engine.processes import process_group
from engine.runs import HISTORY, ORIGIN, append_history, find_checkpoint, is_finished
from engine.scoring import score_function
from errors import CheckpointError, ConfigError, DataError, EncoderError, exit_code_of
from memory import Memory
from snapshot import Snapshot, open_snapshot
from splits import TRAIN, fold_of_lists
from tests.engine.small import CIRCLE, small_config, small_snapshot


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    small_snapshot(folder)
    return folder


# At twice this rate the judgement of so small a world falls silent with some seeds: a withheld song costs much at first.
CALM = 0.005


def trained(folder, config):
    with process_group(config.training) as process:
        return train.train(config, open_snapshot(folder / "snapshot"), process, show_progress=False)


def paths_of(world, models):
    return ["--snapshot", world / "snapshot", "--encoders-folder", world / "encoders", "--model-folder", models]


def history_of(run):
    return [json.loads(line) for line in (run / HISTORY).read_text().splitlines()]


def changed(config, **training):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


@contextmanager
def trainer_of(world, tmp_path, **training):
    """A trainer that has not begun, in a model folder of the test's own."""
    config = small_config(world, model_folder=tmp_path / "models", **training)
    with process_group(config.training) as process:
        yield train.Trainer(config, open_snapshot(world / "snapshot"), process, show_progress=False)


class KilledError(Exception):
    """Stands for an interruption."""


def killed(*arguments, **named):
    raise KilledError


def scripted(trainer, values):
    """Let the epochs of a trainer validate with these values of NDCG@10."""
    said = iter(values)

    def judge(score):
        return SimpleNamespace(metrics={"ndcg10": next(said), "hr10": 0.0})

    trainer.validation = SimpleNamespace(**vars(trainer.validation), judge=judge)
    return trainer


@pytest.mark.parametrize("objective", ["cloze", "causal"])
def test_before_every_place_that_is_asked_for_stands_what_the_memory_looks_at_in_use(tmp_path, objective):
    small_snapshot(tmp_path, n_lists=12, length=40)
    config = small_config(tmp_path, last_item_probability=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, objective=objective))
    config = dataclasses.replace(config, memory=MemoryConfig(lists=0, again_reach=0, unheard_reach=0, same_reach=12))
    with process_group(config.training) as process:
        trainer = train.Trainer(config, open_snapshot(tmp_path / "snapshot"), process, show_progress=False)
    reach, rows, places = trainer.model.memory.reach, trainer.rows, set()
    assert reach > config.model.seq_len
    for windows in rows.epoch(4, torch.Generator().manual_seed(0)):
        asked = ask(rows, windows, config.training, torch.Generator().manual_seed(0))
        batch = training_batch(rows, asked)
        of_place = asked.windows.ends[asked.row] - 1 - asked.back - asked.windows.firsts[asked.row]  # in its list
        L = batch.songs.shape[1]
        for row, column, place in zip((batch.places // L).tolist(), (batch.places % L).tolist(), of_place.tolist(), strict=True):
            before = batch.songs[row, :column]
            assert int((before != PAD).sum()) >= min(reach, place)
            places.add(place)
    assert len(places) > 30


def test_the_circle_is_learned_and_beats_every_count(world):
    config = small_config(world, num_epochs=12, lr=CALM)
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


def test_a_run_stores_what_it_was_trained_on(world, tmp_path):
    with trainer_of(world, tmp_path) as trainer:
        origin = json.loads((trainer.folder / ORIGIN).read_text())
        snapshot = trainer.snapshot
    starts, ends = snapshot.ranges(TRAIN)
    assert (origin["device"], origin["processes"], origin["features"]) == ("cpu", 1, ["tempo"])
    assert f"torch {torch.__version__}" in origin["machine"]
    assert origin["data"] == {
        "songs": 2 * CIRCLE,
        "artists": 4,
        "albums": 4,
        "songs_training": 2 * CIRCLE,
        "sequences": 120,
        "rows": 840,
        "sequences_training": len(starts),
        "rows_training": int((ends - starts).sum()),
        "sequences_validation": 12,
        "sequences_test": 12,
    }


def test_a_gap_in_the_numbers_is_no_song_of_training(world, tmp_path, monkeypatch):
    plays = open_snapshot(world / "snapshot").training_plays()
    plays[7] = 0
    monkeypatch.setattr(Snapshot, "training_plays", lambda snapshot: plays.copy())
    with trainer_of(world, tmp_path) as trainer:
        origin = json.loads((trainer.folder / ORIGIN).read_text())
    assert origin["data"]["songs_training"] == 2 * CIRCLE - 1


@pytest.mark.parametrize(("map_songs", "n"), [(2_000, 2 * CIRCLE), (12, 12), (0, None)])
def test_a_finished_run_has_a_map_of_its_best_model_if_asked(world, tmp_path, map_songs, n):
    with trainer_of(world, tmp_path, num_epochs=3, keep_checkpoints=9, map_songs=map_songs) as trainer:
        best = find_checkpoint(scripted(trainer, [0.1, 0.9, 0.2]).run())
    maps = list(best.parent.glob("*/map.json"))
    assert [path.parent.name for path in maps] == ([] if n is None else ["epoch-002"])
    assert [len(json.loads(path.read_text())["songs"]) for path in maps] == ([] if n is None else [n])


def test_a_seed_fixes_everything(world, tmp_path):
    runs = [trained(world, dataclasses.replace(small_config(world, seed=seed), preprocessing=small_config(world).preprocessing,
            training=dataclasses.replace(small_config(world, seed=seed).training, model_folder=tmp_path / name)))
            for name, seed in (("a", 1), ("b", 1), ("c", 2))]  # fmt: skip
    losses = [[line["loss"] for line in history_of(run)] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    weights = [load_checkpoint(find_checkpoint(run)).model.state_dict() for run in runs[:2]]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_resumed_run_repeats_the_uninterrupted_one_exactly(world, tmp_path, monkeypatch):
    whole = small_config(world, num_epochs=4, keep_checkpoints=9, model_folder=tmp_path / "whole")
    expected = [line["loss"] for line in history_of(trained(world, whole))]
    broken = changed(whole, model_folder=tmp_path / "broken")
    monkeypatch.setattr(train, "append_history", lambda run, line: append_history(run, line) if line["epoch"] < 3 else killed())
    with pytest.raises(KilledError):
        trained(world, broken)
    monkeypatch.undo()
    run = trained(world, changed(broken, epoch_to_preload=2))
    assert [line["loss"] for line in history_of(run)] == expected


def shown_steps(run, tag):
    """The steps of a scalar that TensorBoard shows."""
    shown = EventAccumulator(str(run / "tensorboard")).Reload()
    return [event.step for event in shown.Scalars(tag)]


def test_going_back_forgets_what_came_later(world, tmp_path):
    with trainer_of(world, tmp_path, num_epochs=4, keep_checkpoints=9) as first:
        run = scripted(first, [0.3, 0.2, 0.9, 0.1]).run()
    assert shown_steps(run, "epoch/loss") == [3, 6, 9, 12]
    (written,) = (run / "tensorboard").iterdir()  # TensorBoard reads files by name, which begins with the second they are from
    written.rename(written.with_name("events.out.tfevents.0000000001.earlier"))
    with trainer_of(world, tmp_path, num_epochs=3, keep_checkpoints=9, epoch_to_preload=2) as second:
        assert (second.progress.best, second.progress.epochs_without_gain) == (0.3, 1)
        assert sorted(path.name for path in run.glob("epoch-*")) == ["epoch-001", "epoch-002"]
        assert not is_finished(run)
        assert scripted(second, [0.5]).run() == run
    assert [line["epoch"] for line in history_of(run)] == [1, 2, 3]
    assert find_checkpoint(run).name == "epoch-003"  # 0.5, though 0.9 was seen in another future
    assert shown_steps(run, "epoch/loss") == [3, 6, 9]


def test_an_interruption_before_the_mark_is_mended_by_going_on(world, tmp_path, monkeypatch):
    with trainer_of(world, tmp_path, num_epochs=3) as first:
        monkeypatch.setattr(train, "mark_best", killed)
        with pytest.raises(KilledError):
            scripted(first, [0.8]).run()
        monkeypatch.undo()
    with trainer_of(world, tmp_path, num_epochs=2, epoch_to_preload=-1) as second:
        assert scripted(second, [0.7]).run() == first.folder
    assert find_checkpoint(first.folder).name == "epoch-001"


def test_the_seconds_of_a_resumed_run_go_on(world, tmp_path, monkeypatch):
    clock = iter(range(0, 100000, 100))
    monkeypatch.setattr("engine.schedule.time.monotonic", lambda: float(next(clock)))
    with trainer_of(world, tmp_path, num_epochs=1) as first:
        run = first.run()
    used = history_of(run)[-1]["seconds"]
    assert used >= 100
    with trainer_of(world, tmp_path, num_epochs=2, epoch_to_preload=-1) as second:
        second.run()
    assert history_of(run)[-1]["seconds"] > used


@pytest.mark.parametrize(
    ("settings", "values", "reason", "epochs"),
    [
        ({"num_epochs": 2}, [0.1, 0.2], "epochs", 2),
        ({"num_epochs": 9, "early_stopping_epochs": 2}, [0.3, 0.2, 0.1], "patience", 3),
        ({"num_epochs": 9, "minutes": 1e-9}, [0.3], "minutes", 1),
    ],
)
def test_a_run_says_why_it_ended(world, tmp_path, settings, values, reason, epochs):
    with trainer_of(world, tmp_path, **settings) as trainer:
        assert not is_finished(trainer.folder)
        run = scripted(trainer, values).run()
    finished = json.loads((run / "finished.json").read_text())
    assert (finished["reason"], finished["epochs"]) == (reason, epochs)
    assert is_finished(run)


def test_the_minutes_end_a_run_within_an_epoch(world, tmp_path):
    with trainer_of(world, tmp_path, num_epochs=9, batch_size=8, minutes=1.0) as trainer:
        looks = iter([0.0, 0.5, 0.9, *[1.0] * 9])  # at the beginning, after one step, after two, after three
        object.__setattr__(trainer.schedule, "time_share", lambda: next(looks))
        run = scripted(trainer, [0.5]).run()
    assert [(line["epoch"], line["step"]) for line in history_of(run)] == [(1, 3)]


def test_early_stopping_waits_for_its_patience(world, tmp_path):
    config = small_config(world, num_epochs=50, early_stopping_epochs=3, lr=1e-9, model_folder=tmp_path / "models")
    assert len(history_of(trained(world, config))) == 4  # the first is the best, three without gain


def test_the_best_checkpoint_follows_the_validation(world, tmp_path):
    with trainer_of(world, tmp_path, num_epochs=5, keep_checkpoints=1) as trainer:
        run = scripted(trainer, [0.2, 0.6, 0.6, 0.5, 0.1]).run()
    assert find_checkpoint(run).name == "epoch-002"
    assert sorted(path.name for path in run.glob("epoch-*")) == ["epoch-002", "epoch-005"]
    assert trainer.progress.best == 0.6


def test_negatives_are_drawn_by_the_training_part_alone(world, tmp_path):
    snapshot = open_snapshot(world / "snapshot")
    songs, _ = snapshot.part(TRAIN)
    counts = np.bincount(songs, minlength=snapshot.n_songs)
    assert snapshot.training_plays().tolist() == counts.tolist()
    assert counts.sum() < len(snapshot.sequences)
    weights = np.where(np.arange(snapshot.n_songs) >= FIRST_NUMBER, counts.clip(min=1) ** 0.75, 0)
    with trainer_of(world, tmp_path) as trainer:
        assert trainer.sampler.probabilities.numpy() == pytest.approx(weights / weights.sum())


def test_each_row_is_looked_up_in_the_edition_that_leaves_its_list_out(world, tmp_path, monkeypatch):
    seen, forward = [], Memory.forward

    def watched(memory, songs, places, queries, origin=None):
        seen.append((memory.training, songs, origin))
        return forward(memory, songs, places, queries, origin)

    monkeypatch.setattr(Memory, "forward", watched)
    with trainer_of(world, tmp_path, num_epochs=1) as trainer:
        trainer.run()
    in_training = [(songs, origin) for training, songs, origin in seen if training]
    assert len(in_training) == 3
    assert all(origin is None for training, _, origin in seen if not training)
    flat, offsets = open_snapshot(world / "snapshot").part(TRAIN)
    lists, folds = flat.reshape(-1, 7), fold_of_lists(len(offsets) - 1, trainer.config.memory.folds)
    for songs, origin in in_training:
        for row, number, edition in zip(songs.tolist(), origin.lists.tolist(), origin.editions.tolist(), strict=True):
            assert {song for song in row if song >= FIRST_NUMBER} < set(lists[number].tolist())  # at least one is hidden
            assert edition == 1 + folds[number]
    assert torch.cat([origin.lists for _, origin in in_training]).sort().values.tolist() == list(range(len(lists)))


def targets_of(trainer, epoch):
    trainer.progress.epoch = epoch
    return torch.cat([part.batch.targets for part in trainer._parts()]).tolist()


def test_masks_differ_between_epochs_and_repeat_with_them(world, tmp_path, monkeypatch):
    with trainer_of(world, tmp_path) as trainer:
        windows = list(trainer.rows.epoch(32, torch.Generator().manual_seed(0)))
        assert targets_of(trainer, 0) == targets_of(trainer, 0)
        monkeypatch.setattr(trainer.rows, "epoch", lambda *arguments, **named: iter(windows))  # the same rows in the same order
        assert targets_of(trainer, 0) == targets_of(trainer, 0) != targets_of(trainer, 1)


def test_the_order_differs_between_epochs(world, tmp_path):
    with trainer_of(world, tmp_path, last_item_probability=0.0) as trainer:
        first = torch.cat([share.asked.windows.ends for share in trainer._shares()]).tolist()
        trainer.progress.epoch = 1
        second = torch.cat([share.asked.windows.ends for share in trainer._shares()]).tolist()
    assert first != second
    assert sorted(first) == sorted(second)


def test_gradients_are_shortened_before_the_update(world, tmp_path):
    with trainer_of(world, tmp_path, max_grad_norm=1e-3) as trainer:
        trainer._step(next(iter(trainer._parts())), torch.Generator().manual_seed(0))
        norm = torch.stack([weight.grad.norm() for weight in trainer.model.parameters() if weight.grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


class AskedDevice(TorchDispatchMode):
    """Notes the operations for whose answer, or for the copy of whose numbers, the host would have to wait for a CUDA device."""

    WAITED_FOR = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "is_nonzero", "equal", "lift_fresh")

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for given in args
            if isinstance(given, list | tuple)
            for index in given
        )
        if by_mask or name in self.WAITED_FOR or name.startswith(("unique", "_unique")):
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Without what is done on a processor alone: dropout drawn by numpy, and columns counted where keys are many."""
    monkeypatch.setattr("model.drawn_mask", lambda shape, probability: torch.rand(shape).ge(probability) / (1 - probability))
    monkeypatch.setattr("sums.FEW_KEYS", 2**40)
    monkeypatch.setattr("sums.MOST_GAPS", 2**40)


@pytest.mark.usefixtures("as_on_a_device")
def test_a_step_waits_for_nothing_that_the_device_would_have_to_say(world, tmp_path):
    with trainer_of(world, tmp_path) as trainer:
        (part, *_) = trainer._parts()
        with AskedDevice() as step:
            trainer.random.begin_step(0, 0)
            loss, _ = trainer._step(part, trainer.random.negatives)
            trainer.loss_of_epoch += loss.double() * (part.weight * part.n_places)
        with AskedDevice() as logging:
            loss.item()
    assert step.asked == []
    assert logging.asked == ["_local_scalar_dense"]


@pytest.mark.usefixtures("as_on_a_device")
def test_the_device_is_asked_only_when_a_loss_is_logged_and_at_the_end_of_an_epoch(world, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY_STEPS", 4)
    with trainer_of(world, tmp_path, batch_size=8) as trainer, trainer._scalars() as scalars:
        parts = list(trainer._parts())
        assert len(parts) == 12
        monkeypatch.setattr(trainer, "_parts", lambda: (part for part in parts))
        with AskedDevice() as loop:
            trainer._epoch(scalars)
    asked = [name for name in loop.asked if name != "lift_fresh"]  # what processes tell each other stays on the host
    assert asked == ["_local_scalar_dense"] * (12 // 4 + 1)


def test_a_compiled_forward_keeps_the_names_of_the_weights(world, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, **settings: compiled.append(settings) or call)
    with trainer_of(world, tmp_path, num_epochs=1, compile=True) as trainer:
        names = set(load_checkpoint(find_checkpoint(trainer.run())).model.state_dict())
    assert compiled == [{"dynamic": True}]
    assert "embedding.song.weight" in names
    assert not any("_orig_mod" in name for name in names)


@pytest.mark.parametrize("named", [None, "no-such-compiler"])
def test_a_missing_compiler_is_one_line(world, tmp_path, monkeypatch, named):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if named is not None:
        monkeypatch.setenv("CXX", named)
    said = f"compile is true, but there is no C.. compiler .*{named or 'clang'}.* install it"
    with pytest.raises(ConfigError, match=said), trainer_of(world, tmp_path, compile=True):
        pass
    assert not (tmp_path / "models").exists()


def test_only_the_matrices_of_the_encoder_decay_and_the_memory_learns_faster(world, tmp_path):
    with trainer_of(world, tmp_path, weight_decay=0.3) as trainer:
        trainer._step(next(iter(trainer._parts())), torch.Generator().manual_seed(0))
        names = {id(weight): name for name, weight in trainer.model.named_parameters()}
        groups = [({names[id(w)] for w in group["params"]}, group) for group in trainer.optimizer.param_groups]
    decayed, others, memory = (names_of_group for names_of_group, _ in groups)
    assert [group["weight_decay"] for _, group in groups] == [0.3, 0.0, 0.0]
    assert [group["lr"] / groups[0][1]["lr"] for _, group in groups] == [1, 1, 5]
    chosen = {"encoder_weight", "newcomer_bonus"}
    assert decayed | others | memory == set(names.values()) - chosen
    assert memory == {name for name in names.values() if name.startswith("memory.")}
    assert {"blocks.0.attention.qkv.weight", "embedding.features.hidden.weight"} <= decayed
    assert {"embedding.song.weight", "position.weight", "embedding_norm.weight", "bias", "blocks.0.attention.out.bias"} <= others


def test_label_smoothing_reaches_the_loss(world, tmp_path):
    """Song 5 leads all others by 10, and is always asked for: half of its probability lies on all 20 songs alike."""
    losses = []
    for share in (0.0, 0.5):
        with trainer_of(world, tmp_path, label_smoothing=share, unknown_song_probability=0.0) as trainer:
            trainer.model.eval()  # no dropout
            trainer.model.bias.data[5] = 10.0
            part = next(iter(trainer._parts()))
            asked = dataclasses.replace(part.batch, targets=torch.full_like(part.batch.targets, 5))
            loss, _ = trainer._step(part._replace(batch=asked), torch.Generator().manual_seed(0))
            losses.append(float(loss))
    assert losses[1] - losses[0] == pytest.approx(0.5 * 10 * 19 / 20, abs=0.3)  # and what an untrained encoder adds


def test_training_rows_reach_into_the_history_before_their_sequence(world, tmp_path):
    """Each list of seven songs has the one before it as its history, where a song that was heard may come again."""
    plain_config, snapshot = small_config(world), open_snapshot(world / "snapshot")
    config = dataclasses.replace(plain_config, evaluation=EvaluationConfig(allow_repeats="yes"))
    never = dataclasses.replace(plain_config, evaluation=EvaluationConfig(allow_repeats="no"))
    starts, _ = snapshot.ranges(TRAIN)
    history_starts = np.maximum(snapshot.offsets[:-1] - 7, 0)
    with process_group(config.training) as process:
        plain = train.training_rows(config, snapshot, process, 20)
        with_histories = dataclasses.replace(snapshot, history_starts=history_starts)
        longer = train.training_rows(config, with_histories, process, 20)
        without = train.training_rows(never, with_histories, process, 20)
    assert plain.firsts.tolist() == without.firsts.tolist() == starts.tolist()
    assert longer.firsts.tolist() == [max(start - 7, 0) for start in starts.tolist()]
    assert (longer.starts.tolist(), longer.lists.tolist()) == (starts.tolist(), plain.lists.tolist())


def test_the_same_second_and_seed_make_two_runs(world, tmp_path, monkeypatch):
    frozen = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    monkeypatch.setattr(train, "datetime", frozen)
    with trainer_of(world, tmp_path, seed=7) as first, trainer_of(world, tmp_path, seed=7) as second:
        names = [first.folder.name, second.folder.name]
    assert names == ["20260102-030405-seed7", "20260102-030405-seed7-2"]


def test_other_encoders_are_refused_before_anything_is_written(world, tmp_path):
    config = small_config(world, model_folder=tmp_path / "models")
    shutil.copytree(world / "encoders", tmp_path / "encoders")
    (tmp_path / "encoders" / "manifest.json").write_text("{}")
    other = dataclasses.replace(config, preprocessing=small_config(tmp_path).preprocessing)
    with pytest.raises(EncoderError):
        train.start_run(other, open_snapshot(world / "snapshot"))
    assert not (tmp_path / "models").exists()


def test_nothing_to_validate_with_is_said_before_a_run_begins(tmp_path):
    snapshot, _ = small_snapshot(tmp_path, n_lists=2)
    config = small_config(tmp_path)
    with process_group(config.training) as process, pytest.raises(DataError, match="1 training, 0 validation and 1 test"):
        train.Trainer(config, snapshot, process)
    assert not (tmp_path / "models").exists()


def test_another_snapshot_is_not_evaluated(world, tmp_path):
    config = small_config(world, num_epochs=1, model_folder=tmp_path / "models")
    run = trained(world, config)
    other, _ = small_snapshot(tmp_path, n_lists=60)
    with pytest.raises(CheckpointError, match="was trained on another snapshot"):
        train.evaluate_run(run, config, other)
    assert not (run / "evaluation.json").exists()


def test_the_folder_of_the_scalars_can_be_named(world, tmp_path):
    run = trained(world, small_config(world, num_epochs=1, model_folder=tmp_path / "models", writer_dict=tmp_path / "scalars"))
    assert list((tmp_path / "scalars").glob("events.out.tfevents.*"))
    assert not (run / "tensorboard").exists()


def test_scalars_and_settings_are_stored_with_the_run(world, tmp_path):
    run = trained(world, small_config(world, num_epochs=1, seed=5, model_folder=tmp_path / "models"))
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["training"]["seed"], settings["model"]["N"]) == (5, 1)
    assert settings["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize("negatives", [0, 8])
def test_both_losses_learn(world, tmp_path, negatives):
    run = trained(world, small_config(world, num_epochs=8, lr=CALM, negatives=negatives, model_folder=tmp_path / "models"))
    losses = [line["loss"] for line in history_of(run)]
    assert losses[-1] < 0.9 * losses[0]  # 0.44 to 0.71 over six seeds


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


@pytest.fixture
def database_asked(world, tmp_path, monkeypatch):
    """Where train.py asks the database, in a list; it neither preprocesses nor trains."""
    asked = []

    def note(what):
        asked.append(what)

    monkeypatch.setenv("BERT4MUSICREC_SNAPSHOT", str(world / "snapshot"))
    monkeypatch.setattr(train, "database_url", lambda config: nullcontext("postgresql://somewhere"))
    monkeypatch.setattr(train, "refresh", lambda config, url: note(url))
    monkeypatch.setattr(train, "train", lambda config, snapshot, process: note(snapshot.path.parent))
    monkeypatch.setattr(train, "find_checkpoint", lambda run: tmp_path)
    return asked


def test_a_snapshot_that_the_environment_names_is_checked_against_the_database(world, database_asked):
    train.main(["--no-evaluation"])
    assert database_asked == ["postgresql://somewhere", world / "snapshot"]


@pytest.mark.parametrize("arguments", [["--no-database"], ["--snapshot", "{snapshot}"], ["--epoch-to-preload", "-1"]])
def test_without_a_database_the_snapshot_is_taken_as_it_is(world, database_asked, arguments):
    train.main(["--no-evaluation", *[text.format(snapshot=world / "snapshot") for text in arguments]])
    assert database_asked == [world / "snapshot"]


def test_a_snapshot_that_was_changed_is_refused(world, tmp_path, capsys):
    shutil.copytree(world / "snapshot", tmp_path / "snapshot")
    column = next(tmp_path.glob("snapshot/*/sequences.npy"))
    column.write_bytes(column.read_bytes()[:-4] + b"\x05\0\0\0")
    assert exit_code_of(train.main, ["--snapshot", str(tmp_path / "snapshot"), "--device", "cpu"]) == 2
    assert "does not match its digest" in capsys.readouterr().err


def test_a_model_folder_that_cannot_be_made_is_one_line(world, tmp_path, capsys):
    (tmp_path / "models").write_text("")
    assert exit_code_of(train.main, list(map(str, [*paths_of(world, tmp_path / "models"), "--device", "cpu"]))) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "name another with --model-folder" in line


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
