import copy

import pytest
import torch
from torch import nn

from config import TrainingConfig
from engine.optimizer import build_optimizer, clip_gradients
from errors import ConfigError
from tests.test_model import small_model


def loss_of(model):
    songs, places, targets = torch.tensor([[3, 4, 1], [5, 6, 1]]), torch.tensor([2, 5]), torch.tensor([7, 8])
    return model(songs, places, targets)


def trained(sparse, steps=3):
    model = small_model().train()
    model.embedding.sparse_gradients(sparse)
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.0))
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        clip_gradients(model.parameters(), 0.1)
        optimizer.step()
    return model, optimizer


def test_sparse_and_dense_gradients_make_the_same_step_where_all_rows_are_looked_up():
    """The full softmax looks up every row in every step, so that both kinds of Adam are the same."""
    dense, sparse = trained(False)[0], trained(True)[0]
    assert sparse.embedding.song.weight.grad.is_sparse
    assert not dense.embedding.song.weight.grad.is_sparse
    for name, weight in dense.named_parameters():
        torch.testing.assert_close(dict(sparse.named_parameters())[name], weight, atol=1e-5, rtol=1e-4, msg=name)


def test_rows_that_are_not_looked_up_stay_as_they_are():
    table = nn.Embedding(6, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = torch.optim.SparseAdam([table.weight], lr=0.1)
    table(torch.tensor([1, 4, 4])).sum().backward()
    clip_gradients([table.weight], 1.0)
    optimizer.step()
    assert (table.weight != before).any(1).tolist() == [False, True, False, False, True, False]


def test_a_saved_optimiser_goes_on_exactly():
    model, optimizer = trained(True)
    again, fresh = trained(True, steps=1)
    again.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its in ((model, optimizer), (again, fresh)):
        its.zero_grad()
        loss_of(one).backward()
        its.step()
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_state_of_tables_that_were_updated_otherwise_is_refused_with_the_way_out(sparse):
    (_, saved), (_, fresh) = trained(sparse, steps=1), trained(not sparse, steps=1)
    with pytest.raises(ConfigError, match="use the same negatives"):
        fresh.load_state_dict(saved.state_dict())


def test_gradients_dense_and_sparse_are_shortened_together():
    dense, sparse = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3, 1))
    dense.grad = torch.tensor([3.0, 0.0])
    sparse.grad = torch.sparse_coo_tensor([[1, 1]], [[2.0], [2.0]], (3, 1), check_invariants=True)  # one row, told twice: 4
    assert float(clip_gradients([dense, sparse, nn.Parameter(torch.zeros(1))], 1.0)) == 5.0
    torch.testing.assert_close(dense.grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(sparse.grad.to_dense(), torch.tensor([[0.0], [0.8], [0.0]]))
    assert float(clip_gradients([dense, sparse], 10.0)) < 1.001
    torch.testing.assert_close(dense.grad, torch.tensor([0.6, 0.0]))  # short ones stay
