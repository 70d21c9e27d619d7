"""The optimiser of a run: AdamW on what every step changes, and row by row on embedding tables of which a step touches little.

A table of a million songs has a hundred million numbers, and Adam reads and writes each of them three times a step, for the few
thousand rows that a batch looks up.  With sparse gradients (`SongEmbedding.sparse_gradients`) torch's SparseAdam updates those
rows alone: the averages of a row stand still while it is not looked up.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from config import TrainingConfig
from errors import ConfigError
from model import BERT4Rec

BETAS = (0.9, 0.98)
# The memory has few parameters, and every row speaks to each: they learn so many times faster than the rest.
MEMORY_PACE = 5.0


class Optimizer:
    """AdamW and, for tables with sparse gradients, SparseAdam, as one optimiser."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; a group's learning rate is the schedule's times its `pace`."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes to go on exactly."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved; ConfigError where tables are updated by row in only one of the two."""
        if len(state["parts"]) != len(self.parts):
            by_row, whole = "row by row", "as a whole"
            saved, wanted = (whole, by_row) if len(self.parts) > len(state["parts"]) else (by_row, whole)
            raise ConfigError(
                f"the embedding tables were updated {saved}, and now it would be {wanted}: use the same negatives and device, "
                "and with negatives on CUDA one process or several as before"
            )
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def build_optimizer(model: BERT4Rec, config: TrainingConfig) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019); weight decay on the matrices of the encoder only, not on embeddings, norms, biases and
    the memory.  Tables whose gradients are sparse are updated by row."""
    tables = [table for table in model.modules() if isinstance(table, nn.Embedding)]
    by_row = [table.weight for table in tables if table.sparse]
    ids_of_tables, ids_by_row = {id(table.weight) for table in tables}, set(map(id, by_row))
    of_memory = list(model.memory.parameters()) if model.memory is not None else []
    elsewhere = ids_by_row | set(map(id, of_memory))
    trained = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in elsewhere]
    decayed = [weight for weight in trained if weight.ndim >= 2 and id(weight) not in ids_of_tables]
    others = [weight for weight in trained if weight.ndim < 2 or id(weight) in ids_of_tables]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "pace": 1.0},
        {"params": others, "weight_decay": 0.0, "pace": 1.0},
        {"params": of_memory, "weight_decay": 0.0, "pace": MEMORY_PACE},
    ]
    groups = [group for group in groups if group["params"]]
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, fused=True)]
    if by_row:
        parts.append(torch.optim.SparseAdam([{"params": by_row, "pace": 1.0}], lr=config.lr, betas=BETAS))
    return Optimizer(parts)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten the gradients, all together, to a Euclidean length of `max_norm`, sparse ones too; returns what it was."""
    gradients = []
    for weight in parameters:
        if weight.grad is not None:
            weight.grad = weight.grad.coalesce() if weight.grad.is_sparse else weight.grad
            gradients.append(weight.grad.values() if weight.grad.is_sparse else weight.grad)
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
    return norm
