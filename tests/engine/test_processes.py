import json
import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
import torch

from config import PROJECT_ROOT, TrainingConfig
from dataset import Asked, Windows
from engine.processes import Process, choose_bf16, choose_device, own_share, process_group
from engine.runs import read_history
from errors import BERT4MusicRecError, ConfigError
from tests.engine.small import small_snapshot

EXACT = {"unknown_song_probability": 0.0, "last_item_probability": 0.5, "lr": 0.003}  # without dropout, nothing differs by rank


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    small_snapshot(folder, n_lists=101)  # 81 to train on: five batches of 16, and one of a single row
    return folder


def start_group(n, world, out, **told):
    """Start n processes of tests/engine/member.py and wait for them: exit code and standard error of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(n)}
    out.mkdir()
    command = [sys.executable, "-m", "tests.engine.member", str(world), str(out), json.dumps(told)]
    environ = {**os.environ, **address, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, cwd=PROJECT_ROOT, env={**environ, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(n)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def seen_by(out, rank):
    return json.loads((out / f"seen-{rank}.json").read_text())


@pytest.fixture(scope="module", params=[("cloze", None), ("cloze", 1), ("causal", 1)], ids=str)
def settings(request):
    objective, memory_places = request.param
    training = {**EXACT, "num_epochs": 2, "memory_places": memory_places}
    return {"model": {"objective": objective}, "training": training}


def of_batches(settings, batch_size):
    return {**settings, "training": {**settings["training"], "batch_size": batch_size}}


@pytest.fixture(scope="module")
def two(world, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "out"
    codes, said = start_group(2, world, out, **of_batches(settings, 8))
    assert codes == [0, 0], said
    return out


def test_two_processes_end_with_the_same_weights(two):
    weights = [torch.load(two / f"weights-{rank}.pt") for rank in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert seen_by(two, 0)["broadcasts"] is False


def test_two_processes_learn_what_one_with_double_batches_learns(two, world, settings, tmp_path):
    alone = tmp_path / "alone"
    assert start_group(1, world, alone, **of_batches(settings, 16))[0] == [0]
    expected = [step["loss"] for step in seen_by(alone, 0)["steps"]]
    pairs = list(zip(seen_by(two, 0)["steps"], seen_by(two, 1)["steps"], strict=True))
    losses = [sum(s["loss"] * s["places"] for s in pair) / sum(s["places"] for s in pair) for pair in pairs]
    assert len(losses) == 12
    assert losses == pytest.approx(expected, abs=1e-4)
    assert any(first["places"] != second["places"] for first, second in pairs)
    history = [[line["loss"] for line in read_history(next(out.glob("models/*")))] for out in (two, alone)]
    assert history[0] == pytest.approx(history[1], abs=1e-4)


def test_the_clock_of_the_main_process_counts_for_all(world, tmp_path):
    out = tmp_path / "out"
    training = {"num_epochs": 500, "batch_size": 8, "minutes": 1.0, "warmup_steps": 0}
    codes, said = start_group(2, world, out, training=training, seconds_per_look=6)
    assert codes == [0, 0], said
    steps = [seen_by(out, rank)["steps"] for rank in range(2)]
    assert [step["rate"] for step in steps[0]] == [step["rate"] for step in steps[1]]
    assert 0 < len(steps[0]) < 100
    assert json.loads(next(out.glob("models/*/finished.json")).read_text())["reason"] == "minutes"


def test_a_killed_process_ends_the_others_with_a_clear_line(world, tmp_path):
    codes, said = start_group(2, world, tmp_path / "out", training={"num_epochs": 500, "batch_size": 8}, dies_at=3)
    assert codes == [2, -9]
    (line,) = [line for line in said[0].splitlines() if line.startswith("error:")]
    assert "process 0 of 2 lost another one" in line
    assert "go on with --epoch-to-preload -1" in line


def masked_rows(n_rows, hidden):
    """Rows of two songs each, hidden where `hidden` lists (row, songs behind it in the row)."""
    firsts = 2 * torch.arange(n_rows)
    row, back = torch.tensor(hidden).T
    return Asked(Windows(firsts, firsts + 2, 10 * firsts, firsts < 0, firsts + 2), row, back)


def test_a_share_holds_every_other_row_with_its_own_places():
    masked = masked_rows(3, hidden=[(0, 0), (1, 1), (1, 0), (2, 1)])
    own, weight, n_places, memory_weight = own_share(masked, rank=0, world_size=2)
    assert (own.windows.firsts.tolist(), own.windows.ends.tolist(), own.windows.lists.tolist()) == ([0, 4], [2, 6], [0, 40])
    assert (own.row.tolist(), own.back.tolist()) == ([0, 1], [0, 1])
    assert own.places(width=2).tolist() == [1, 2]
    assert (weight, n_places, memory_weight) == (1.0, 4, 1.0)  # two of four places, two processes
    assert own_share(masked, rank=1, world_size=2).asked.places(width=2).tolist() == [0, 1]


def test_the_weights_of_shares_follow_their_places():
    masked = masked_rows(2, hidden=[(0, 0), (1, 1), (1, 0)])
    assert [own_share(masked, rank, 2).weight for rank in range(2)] == pytest.approx([2 / 3, 4 / 3])
    assert [own_share(masked, rank, 2).memory_weight for rank in range(2)] == pytest.approx([2 / 3, 4 / 3])


def test_the_memorys_weights_follow_the_places_at_which_it_is_asked():
    asked = masked_rows(3, hidden=[(0, 1), (0, 0), (1, 1), (1, 0), (2, 0)])
    asked = asked._replace(remembered=torch.tensor([False, True, True, False, True]))
    shares = [own_share(asked, rank, 2) for rank in range(2)]
    assert [share.asked.remembered.tolist() for share in shares] == [[False, True, True], [True, False]]
    assert [share.weight for share in shares] == pytest.approx([6 / 5, 4 / 5])
    assert [share.memory_weight for share in shares] == pytest.approx([4 / 3, 2 / 3])


def test_a_batch_of_fewer_rows_than_processes_is_taken_whole():
    masked = masked_rows(2, hidden=[(0, 0), (1, 1)])
    assert [own_share(masked, rank, 3) for rank in range(3)] == [(masked, 1.0, 2, 1.0)] * 3


def test_only_what_comes_from_the_group_is_taken_for_a_lost_process():
    process = Process(rank=0, world_size=2, device=torch.device("cpu"), use_bf16=False)
    with pytest.raises(RuntimeError, match="out of memory"), process.peers():
        raise RuntimeError("out of memory")
    with pytest.raises(BERT4MusicRecError, match="lost another one"), process.peers():
        raise RuntimeError("[/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234")


def test_the_group_waits_for_minutes_while_the_main_process_preprocesses(monkeypatch):
    asked = {}
    monkeypatch.setattr("engine.processes.distributed.init_process_group", lambda backend, **named: asked.update(named))
    monkeypatch.setattr("engine.processes.distributed.destroy_process_group", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with process_group(TrainingConfig(device="cpu")) as process:
        assert process.world_size == 2
    assert asked["timeout"] == timedelta(minutes=60)


def test_cuda_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        choose_device("cuda", 0)
    assert choose_device("auto", 0) == torch.device("cpu")


def test_bf16_is_used_as_asked_and_never_by_itself_on_a_cpu():
    cpu = torch.device("cpu")
    assert [choose_bf16(wanted, cpu) for wanted in ("auto", "fp32", "bf16")] == [False, False, True]
