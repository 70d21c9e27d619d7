"""What a processor computes a CUDA device computes too; without one these tests are skipped.

On a device some sums are added up in whatever order its threads come, so equal means equal to float32's last digits.
"""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import train
from dataset import ask
from engine.checkpoint import load_checkpoint
from engine.feeding import parts_on
from engine.fusion import ScoresOfBoth
from engine.processes import own_share, process_group
from engine.runs import HISTORY, ORIGIN, find_checkpoint
from engine.scoring import score_function
from losses import NegativeSampler, linear_cross_entropy
from snapshot import open_snapshot
from sums import added_up, distinct
from tests.engine.small import CIRCLE, small_config, small_snapshot

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda", 0)
OBJECTIVES = ["cloze", "causal"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    small_snapshot(folder)
    return folder


@pytest.fixture(scope="module")
def long_world(tmp_path_factory):
    """Lists that are longer than what the encoder reads, and than what the memory looks at beside it."""
    folder = tmp_path_factory.mktemp("long")
    small_snapshot(folder, n_lists=30, length=70)
    return folder


def settings(world, models, objective="cloze", **training):
    config = small_config(world, model_folder=models, **{"device": "cuda", "precision": "fp32", **training})
    return dataclasses.replace(config, model=dataclasses.replace(config.model, objective=objective))


def without_chance(config):
    """Nothing that a device draws: no dropout, no hidden ids."""
    training = dataclasses.replace(config.training, unknown_song_probability=0.0)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dropout_prob=0.0), training=training)


def trained(world, config):
    with process_group(config.training) as process:
        return train.train(config, open_snapshot(world / "snapshot"), process, show_progress=False)


def losses_of(run):
    return [json.loads(line)["loss"] for line in (run / HISTORY).read_text().splitlines()]


@pytest.fixture(scope="module", params=OBJECTIVES)
def run(request, world, tmp_path_factory):
    """A run on the device that has learned the circles."""
    return trained(world, settings(world, tmp_path_factory.mktemp("models"), request.param, num_epochs=12, lr=0.005))


def test_the_circle_is_learned_on_the_device(run, world):
    config = settings(world, run.parent)
    assert train.evaluate_run(run, config, open_snapshot(world / "snapshot"))["BERT4Rec"].metrics["hr1"] > 0.95
    assert json.loads((run / ORIGIN).read_text())["device"] == torch.cuda.get_device_name(0)


def test_a_model_scores_alike_on_both(run, world):
    model = load_checkpoint(find_checkpoint(run)).model
    prefixes = [np.array([3, 4, 5]), np.array([14]), np.array([20, 21, 22, 13, 14, 15, 16, 17, 18]), np.array([], np.int64)]
    here = score_function(model)(prefixes)
    both_here = ScoresOfBoth(model)(prefixes)
    there = copy.deepcopy(model).to(CUDA)
    np.testing.assert_allclose(score_function(there, CUDA)(prefixes), here, atol=1e-3)
    for on_device, on_host in zip(ScoresOfBoth(there, CUDA)(prefixes), both_here, strict=True):
        np.testing.assert_allclose(on_device, on_host, atol=1e-3)
    assert here[0].argmax() == 6


@pytest.mark.parametrize("rows_are_there", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_batches_losses_and_gradients_are_alike_on_both(long_world, tmp_path, objective, rows_are_there):
    config = without_chance(settings(long_world, tmp_path, objective, device="cpu"))
    config = dataclasses.replace(config, memory=dataclasses.replace(config.memory, again_reach=12, lists_reach=12, same_reach=12))
    with process_group(config.training) as process:
        trainer = train.Trainer(config, open_snapshot(long_world / "snapshot"), process, show_progress=False)
    model, rows, shares = trainer.model, trainer.rows, []
    with torch.no_grad():
        for weight in model.parameters():  # as they begin, some weights are 0 and let no gradient through
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    twin = copy.deepcopy(model).to(CUDA)
    for number, windows in enumerate(rows.epoch(16, torch.Generator().manual_seed(0), last_item_probability=0.5)):
        asked = ask(rows, windows, config.training, torch.Generator().manual_seed(number))
        shares.append(own_share(asked, 0, 1))
    here = list(parts_on(torch.device("cpu"), rows, shares))
    if rows_are_there:
        rows.flat = rows.flat.to(CUDA)
    there = list(parts_on(CUDA, rows, shares))
    assert max(part.batch.songs.shape[1] for part in here) > model.row_len > config.model.seq_len
    for ours, theirs in zip(here, there, strict=True):
        losses = []
        for network, part in ((model, ours), (twin, theirs)):
            batch = part.batch
            network.zero_grad()
            loss = network(batch.songs, batch.places, batch.targets, origin=batch.origin, remembered=batch.remembered)
            loss.backward()
            losses.append(loss.item())
        for column, other in zip(columns_of(ours.batch), columns_of(theirs.batch), strict=True):
            assert torch.equal(other.cpu(), column)
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        for (name, weight), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert (weight.grad is None) == (other.grad is None), name
            if weight.grad is not None:
                largest = weight.grad.abs().max().item()
                torch.testing.assert_close(
                    other.grad.cpu(), weight.grad, atol=1e-3 * largest + 1e-9, rtol=1e-3, msg=lambda said, n=name: f"{n}: {said}"
                )


def columns_of(batch):
    return [batch.songs, batch.places, batch.targets, *batch.origin, *([] if batch.remembered is None else [batch.remembered])]


@pytest.mark.parametrize("training", [{}, {"negatives": 8}, {"precision": "bf16"}, {"objective": "causal", "precision": "bf16"}])
def test_two_runs_on_the_device_learn_alike(world, tmp_path, training):
    first, second = (trained(world, settings(world, tmp_path / name, **training)) for name in "ab")
    assert losses_of(second) == pytest.approx(losses_of(first), rel=0.01 if training.get("precision") == "bf16" else 1e-3)


def test_a_run_of_the_device_goes_on_there_and_on_a_processor(world, tmp_path):
    config = without_chance(settings(world, tmp_path / "models", num_epochs=3))
    whole = losses_of(trained(world, config))
    for device in ("cuda", "cpu"):
        models = shutil.copytree(tmp_path / "models", tmp_path / device)
        going_on = without_chance(settings(world, models, num_epochs=3, epoch_to_preload=2, device=device))
        gone_on = losses_of(trained(world, going_on))
        assert gone_on[:2] == whole[:2]
        assert gone_on[2] == pytest.approx(whole[2], rel=2e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_softmax_in_pieces_is_torchs_own(monkeypatch, smoothing):
    monkeypatch.setattr("losses.SCORES_AT_ONCE", {"cuda": 5000 * 16})
    monkeypatch.setattr("losses.FEWEST_PLACES", 16)
    generator = torch.Generator().manual_seed(0)
    queries, songs, bias = (torch.randn(shape, generator=generator) for shape in ((70, 16), (5000, 16), (5000,)))
    targets = torch.randint(0, 5000, (70,), generator=generator)
    ours = [part.to(CUDA, copy=True).requires_grad_() for part in (queries, songs, bias)]
    theirs = [part.double().requires_grad_() for part in (queries, songs, bias)]
    loss = linear_cross_entropy(*ours, targets.to(CUDA), smoothing)
    expected = torch.nn.functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], targets, label_smoothing=smoothing)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.cpu().double(), other.grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("most_gaps", [0, 2**40])
@pytest.mark.parametrize("few_keys", [0, 2**40])
def test_what_is_alike_is_added_up_alike(monkeypatch, most_gaps, few_keys):
    monkeypatch.setattr("sums.MOST_GAPS", most_gaps)
    monkeypatch.setattr("sums.FEW_KEYS", few_keys)
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(0, 40, (50, 90), generator=generator)
    weights = torch.rand(2, 50, 90, generator=generator)
    sums = torch.zeros(2, 50, 40).scatter_add_(2, keys.expand(2, -1, -1), weights)
    found = distinct(keys.to(CUDA), 40)
    added = added_up(weights.to(CUDA), None, found).cpu()
    listed = found.keys.cpu()
    for row in range(50):
        known = {key: place for place, key in enumerate(listed[row].tolist()) if key}
        assert set(known) == set(keys[row].tolist()) - {0}
        for key, place in known.items():
            torch.testing.assert_close(added[:, row, place], sums[:, row, key])


def test_negatives_are_drawn_on_the_device_as_often_as_they_should():
    frequencies = torch.tensor([5.0, 5.0, 5.0, *range(CIRCLE)])
    sampler = NegativeSampler(frequencies.to(CUDA))
    drawn = [sampler.draw(6, torch.Generator(CUDA).manual_seed(seed)) for seed in range(200)]
    often = torch.stack([torch.zeros(len(frequencies)).index_fill(0, one.songs.cpu(), 1.0) for one in drawn]).mean(0)
    expected = drawn[0].log_expected_count.exp().cpu()
    assert often[:4].tolist() == [0, 0, 0, 0]
    for song, share in zip(drawn[0].songs.tolist(), expected.tolist(), strict=True):
        assert often[song] == pytest.approx(share, abs=0.12)
