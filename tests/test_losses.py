import pytest
import torch
import torch.nn.functional as F

import losses
from losses import OUT, NegativeSampler, linear_cross_entropy, negatives_of


@pytest.fixture(params=[1, 2, 5, 128])
def places_at_once(request, monkeypatch):
    """As many places a piece: one, two, a last piece of fewer, and all at once."""
    monkeypatch.setattr(losses, "FEWEST_PLACES", request.param)
    monkeypatch.setitem(losses.SCORES_AT_ONCE, "cpu", 1)


def parts(M=12, T=9, D=4):
    generator = torch.Generator().manual_seed(1)
    shapes = ((M, D), (T, D), (T,))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes], torch.arange(M) % T


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_in_pieces_and_its_gradients_are_torchs(places_at_once, label_smoothing):
    (queries, songs, bias), targets = parts()
    expected = F.cross_entropy(queries @ songs.T + bias, targets, label_smoothing=label_smoothing)
    loss = linear_cross_entropy(queries, songs, bias, targets, label_smoothing)
    torch.testing.assert_close(loss, expected)
    wanted, got = (torch.autograd.grad(3 * value, (queries, songs, bias)) for value in (expected, loss))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_a_song_that_is_out_is_compared_with_nothing_and_learns_nothing(places_at_once, label_smoothing):
    (queries, songs, bias), targets = parts()
    targets = targets % 8  # never the last song
    expected = F.cross_entropy(queries @ songs[:8].T + bias[:8], targets, label_smoothing=label_smoothing)
    out = torch.cat([bias[:8], torch.tensor([OUT])])
    loss = linear_cross_entropy(queries, songs, out, targets, label_smoothing)
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.grad(loss, songs)[0][8].tolist() == [0.0] * 4


def test_a_gradient_can_be_asked_for_twice(places_at_once):
    (queries, songs, bias), targets = parts()
    loss = linear_cross_entropy(queries, songs, bias, targets)
    first, second = (torch.autograd.grad(2 * loss, queries, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_hopeless_target_has_a_finite_loss_and_still_learns():
    queries, songs = torch.tensor([[100.0]]), torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = linear_cross_entropy(queries, songs, torch.zeros(2), torch.tensor([1]))
    assert 80 < loss.item() < 201
    assert torch.autograd.grad(loss, songs)[0].tolist() == [[100.0], [-100.0]]


def test_without_gradients_none_are_made():
    (queries, songs, bias), targets = parts()
    with torch.no_grad():
        loss = linear_cross_entropy(queries, songs, bias, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, F.cross_entropy(queries @ songs.T + bias, targets).detach())


def test_in_bfloat16_the_gradients_are_close_and_in_the_parameters_own_type(places_at_once):
    (queries, songs, bias), targets = parts()
    expected = torch.autograd.grad(F.cross_entropy(queries @ songs.T + bias, targets), (queries, songs, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(queries, songs, bias, targets)
    for ours, theirs in zip(torch.autograd.grad(loss, (queries, songs, bias)), expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.05)


def test_a_song_without_a_play_is_never_drawn():
    sampler = NegativeSampler(torch.tensor([0, 0, 0, 5, 0, 0, 7, 0]))
    generator = torch.Generator().manual_seed(0)
    drawn = {int(song) for _ in range(200) for song in sampler.draw(3, generator).songs}
    assert drawn == {3, 6}


def test_large_catalogues_are_sampled_unless_told_otherwise():
    assert [negatives_of(None, n) for n in (100_000, 100_001)] == [0, 8_192]
    assert [negatives_of(asked, 10**6) for asked in (0, 64)] == [0, 64]


def test_no_place_at_all_moves_nothing():
    (queries, songs, bias), _ = parts()
    none = torch.zeros(0, dtype=torch.int64)
    loss = linear_cross_entropy(queries[:0], songs, bias, none)
    assert not torch.nan_to_num(torch.autograd.grad(loss, songs)[0]).any()
