"""Sums over few of many keys: what the memory's look-ups are made of, with gradients by hand.

Each of M places finds C keys (songs, or pieces of lists) of which some are the same: `distinct` tells which, `added_up` adds up
what belongs together, `weighed` makes signals of the sums and weighs them.  Autograd would keep and clear several tensors of that
size for each of these steps; here only what gradients need is kept, and most of what is looked up needs none.

Shape letters: M places, C keys of a place (with doubles), U distinct ones, W context songs, K keys of each, R relations, A
amounts, S signals.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Entries of a table of places in `distinct`, for several rows at a time: 2 MB, which stay in the cache.
LARGEST_TABLE = 2**19
LEAST_ROWS = 4  # that are looked at together, however large their table
# Keys up to which a table of gaps is cheaper than its few more operations.
FEW_KEYS, MOST_GAPS = 2**13, 2**22
# A best amount below this counts as this, so that nothing is divided by 0.
LEAST_BEST = 1e-9


class Weighing(NamedTuple):
    """Which signals are made of A amounts: each as it is, its logarithm, and the first beside the best one of its relation.

    Signals are numbered 0..S-1, as the gates are.
    """

    plain: tuple[int | None, ...]  # (A,) the signal that an amount is by itself; None: it is none
    logs: tuple[int, ...]  # (A,) the signal log(1 + sharpness * amount)
    sharpness: tuple[float, ...]  # (A,)
    best: int | None = None  # the signal that is the first amount over the largest one
    scaled: int | None = None  # the amount that is multiplied by `Evidence.scale` first

    @property
    def n_signals(self) -> int:
        """S."""
        return 1 + max(number for number in (*self.plain, *self.logs, self.best) if number is not None)


def places_of_best(values: Tensor, keys: Tensor, most: int) -> Tensor:
    """Where the largest of `values` (M, C), 0 and above, stand, at most so many: (M, most).

    Of equal ones that with the higher key (M, C), whatever the batch: the bits of a float that is not negative rise with it.

    >>> places_of_best(torch.tensor([[0.5, 0.0, 0.5]]), torch.tensor([[7, 5, 8]]), 2)
    tensor([[2, 0]])
    """
    rank = (values.detach().float().view(torch.int32).long() << 32) + keys
    return rank.topk(min(most, rank.shape[1]), dim=1).indices


class Found(NamedTuple):
    """The distinct keys of each row, PAD for none, and where each key of the row stands among them."""

    keys: Tensor  # (M, U) int64
    slots: Tensor  # (M, C) int64
    widths: list[int]  # how many of the U columns belong to each block


def distinct(keys: Tensor, n_keys: int, block_widths: Sequence[int] | None = None) -> Found:
    """The distinct ones of `keys` (M, C), which are below `n_keys`; of several blocks of columns each by itself.

    >>> distinct(torch.tensor([[7, 5, 7]]), 8)
    Found(keys=tensor([[0, 5, 7]]), slots=tensor([[2, 1, 2]]), widths=[3])
    """
    M, C = keys.shape
    block_widths = block_widths or [C]
    if keys.numel() <= FEW_KEYS and M * len(block_widths) * n_keys <= MOST_GAPS:
        return _distinct_with_gaps(keys, n_keys, block_widths)
    blocks = list(pairwise(accumulate(block_widths, initial=0)))
    by_order = keys.is_cuda and M * n_keys > MOST_GAPS
    winner = _winner_by_order(keys, blocks) if by_order else _winner_by_table(keys, n_keys, blocks)
    numbers = (winner == torch.arange(C, dtype=winner.dtype, device=keys.device)).cumsum(1)  # (M, C) from 1
    slots = numbers.gather(1, winner.long())
    before, widths = torch.zeros_like(numbers[:, :1]), list[int]()
    for left, right in blocks:
        slots[:, left:right] += sum(widths) - 1 - before
        # On a GPU to wait for the largest number would cost more than columns without a key.
        U = right - left if keys.is_cuda or left == right else int((numbers[:, right - 1 : right] - before).max()) if M else 0
        widths.append(U)
        before = numbers[:, right - 1 : right] if right else before
    found = torch.zeros(M, sum(widths), dtype=torch.int64, device=keys.device).scatter_(1, slots, keys)
    return Found(found, slots, widths)


def _distinct_with_gaps(keys: Tensor, n_keys: int, block_widths: Sequence[int]) -> Found:
    """The same with PAD for the doubles, C columns: fewer operations."""
    M, C = keys.shape
    told_apart = keys if len(block_widths) == 1 else keys + n_keys * _repeated(block_widths, keys.device)
    place = torch.arange(C, device=keys.device)
    table = torch.empty(M, len(block_widths) * n_keys, dtype=torch.int64, device=keys.device)
    slots = table.scatter_(1, told_apart, place.expand(M, C)).gather(1, told_apart)
    return Found(keys * (slots == place), slots, list(block_widths))


def _winner_by_table(keys: Tensor, n_keys: int, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """For each key the place of one like it in its block, the same for all of them: (M, C) int32.

    A table has an entry for every key there could be, of which only those are read that were written, as many rows at a time as
    stay in the cache: three to five times faster than sorting.
    """
    M, C = keys.shape
    at_once = min(M, max(LEAST_ROWS, LARGEST_TABLE // n_keys))
    place = torch.arange(C, dtype=torch.int32, device=keys.device).expand(at_once, C)
    table = torch.empty(at_once, n_keys, dtype=torch.int32, device=keys.device)
    winner = torch.empty(M, C, dtype=torch.int32, device=keys.device)
    for begin, (left, right) in product(range(0, M, max(1, at_once)), blocks):
        part = keys[begin : begin + at_once, left:right]
        written = table[: len(part)].scatter_(1, part, place[: len(part), left:right])
        winner[begin : begin + at_once, left:right] = written.gather(1, part)
    return winner


def _winner_by_order(keys: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """The same by sorting, (M, C) int64: without a table, for the many rows that a GPU sorts at once."""
    winner = torch.empty_like(keys)
    for left, right in blocks:
        ordered, order = keys[:, left:right].sort(dim=1, stable=True)
        is_new = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
        first = torch.where(is_new, torch.arange(right - left, device=keys.device), 0).cummax(1).values
        winner[:, left:right] = torch.empty_like(order).scatter_(1, order, order.gather(1, first)) + left
    return winner


def added_up(weights: Tensor, factors: Tensor | None, found: Found) -> Tensor:
    """Add up what belongs to the same key: amounts (A, M, C), which are `weights` times `factors`, to (A, M, U).

    `weights` (A, M, W) stand for K keys each; `factors` are (M, W, K), (A, M, W, K), or None for ones.

    >>> added_up(torch.tensor([[[1.0, 2.0, 3.0]]]), None, distinct(torch.tensor([[7, 5, 7]]), 8))
    tensor([[[0., 2., 4.]]])
    """
    _, M, W = weights.shape
    if factors is None:
        factors = torch.ones((), dtype=weights.dtype, device=weights.device).expand(1, M, W, found.slots.shape[1] // max(1, W))
    elif factors.dim() == 3:
        factors = factors[None]
    given = weights, factors, found.slots, found.keys.shape[1]
    # Beside one row that is answered, the bookkeeping for gradients would take a tenth of the time.
    sums: Tensor = _AddedUp.apply(*given) if torch.is_grad_enabled() else _sums(*given)  # type: ignore[no-untyped-call]
    return sums


def _sums(weights: Tensor, factors: Tensor, slots: Tensor, U: int) -> Tensor:
    """`weights` (A, M, W), `factors` (A or 1, M, W, K), `slots` (M, W * K) to (A, M, U)."""
    sums = torch.zeros(*weights.shape[:2], U, dtype=weights.dtype, device=weights.device)
    for amount, (of_amount, weight) in enumerate(zip(sums, weights, strict=True)):
        factor = factors[min(amount, len(factors) - 1)]
        of_amount.scatter_add_(1, slots, (weight[..., None] * factor).flatten(1))
    return sums


class _AddedUp(torch.autograd.Function):
    """What `added_up` does; nothing of the size of the amounts is kept for the gradients but factors and slots."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, factors: Tensor, slots: Tensor, U: int) -> Tensor:
        """See `_sums`."""
        ctx.save_for_backward(weights, factors, slots)
        return _sums(weights, factors, slots, U)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The gradients of weights and, where they have any, of factors."""
        weights, factors, slots = ctx.saved_tensors
        of_weights = torch.empty_like(weights)
        of_factors = torch.zeros_like(factors) if ctx.needs_input_grad[1] else None
        for amount, gradient in enumerate(gradients[0]):
            of_amounts = gradient.gather(1, slots).view(factors.shape[1:])
            which = min(amount, len(factors) - 1)
            if of_factors is not None:
                of_factors[which].addcmul_(of_amounts, weights[amount][..., None])
            of_weights[amount] = of_amounts.mul_(factors[which]).sum(-1)
        return of_weights, of_factors, None, None


def weighed(amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing) -> Tensor:
    """The signals that `weighing` makes of amounts (A, M, U), times the gates of their relation (M, R * S), added up: (M, U).

    `widths` says how many of the U columns belong to each of the R relations; `scale` (M, U) is that of the scaled amount.
    """
    given = amounts, gates, scale, widths, weighing
    bonus: Tensor = _Weighed.apply(*given) if torch.is_grad_enabled() else _bonus(*given)  # type: ignore[no-untyped-call]
    return bonus


class _Weighed(torch.autograd.Function):
    """What `Evidence.weighed` does, relation by relation, without keeping a single signal for the gradients."""

    @staticmethod
    def forward(
        ctx: Any, amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing
    ) -> Tensor:
        """See `_bonus`."""
        ctx.save_for_backward(amounts, gates, scale)
        ctx.widths, ctx.weighing = widths, weighing
        return _bonus(amounts, gates, scale, widths, weighing)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """The gradients of amounts and gates."""
        amounts, gates, scale = ctx.saved_tensors
        of_amounts = torch.empty_like(amounts)
        parts = _parts(amounts, gates, scale, ctx.widths, ctx.weighing)
        places = split_in(gradients[0], ctx.widths, 1), split_in(of_amounts, ctx.widths, 2)
        of_gates = [part.backward(gradient, of_part) for part, gradient, of_part in zip(parts, *places, strict=True)]
        return of_amounts, torch.cat(of_gates, dim=1), None, None, None


def _bonus(amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing) -> Tensor:
    """`amounts` (A, M, U), `gates` (M, R * S), `scale` (M, U) to (M, U)."""
    bonus = torch.empty_like(amounts[0])
    for part, of_part in zip(_parts(amounts, gates, scale, widths, weighing), split_in(bonus, widths, 1), strict=True):
        for number, amount in enumerate(part.amounts):
            gate_of_log = part.gates[weighing.logs[number]]
            log = torch.mul(amount, weighing.sharpness[number]).log1p_()
            if number == 0:
                torch.mul(log, gate_of_log, out=of_part)
            else:
                of_part.addcmul_(log, gate_of_log)
            if (coefficient := part.coefficient(number)) is not None:
                of_part.addcmul_(amount, coefficient)
    return bonus


def _parts(amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing) -> "Iterator[_Part]":
    """What belongs to each relation."""
    by_relation = gates.T.reshape(len(widths), -1, len(gates), 1)  # (R, S, M, 1)
    scales = [None] * len(widths) if scale is None else split_in(scale, widths, 1)
    for part, of_relation, of_part in zip(split_in(amounts, widths, 2), by_relation, scales, strict=True):
        yield _Part(part, of_relation, of_part, weighing)


class _Part:
    """The amounts and gates of one relation."""

    def __init__(self, amounts: Tensor, gates: Tensor, scale: Tensor | None, weighing: Weighing):
        """`amounts` (A, M, U) of which one is to be multiplied by `scale` (M, U), `gates` (S, M, 1)."""
        self.amounts = [amount * scale if number == weighing.scaled else amount for number, amount in enumerate(amounts)]
        self.gates, self.scale, self.weighing = gates, scale, weighing
        self.best = None
        if weighing.best is not None and amounts.shape[2]:
            self.best = self.amounts[0].amax(dim=1, keepdim=True).clamp_(min=LEAST_BEST)  # (M, 1)

    def coefficient(self, number: int) -> Tensor | None:
        """What an amount is multiplied with, beside its logarithm: (M, 1)."""
        plain = self.weighing.plain[number]
        if number == 0 and self.best is not None:
            summed: Tensor = self.gates[plain] + self.gates[self.weighing.best] / self.best
            return summed
        return None if plain is None else self.gates[plain]

    def backward(self, gradient: Tensor, of_amounts: Tensor) -> Tensor:
        """Write the gradients of the amounts (A, M, U), and return those of the gates, (M, S)."""
        weighing, of_gates = self.weighing, torch.zeros_like(self.gates)
        for number, (amount, of_amount) in enumerate(zip(self.amounts, of_amounts, strict=True)):
            sharpness, log = weighing.sharpness[number], weighing.logs[number]
            sharpened = amount * sharpness
            of_gates[log] = (sharpened.log1p() * gradient).sum(1, keepdim=True)
            torch.div(self.gates[log] * sharpness, sharpened.add_(1), out=of_amount)
            if (coefficient := self.coefficient(number)) is not None:
                of_amount += coefficient
            of_amount *= gradient
            if (plain := weighing.plain[number]) is not None:
                of_gates[plain] = torch.mul(amount, gradient, out=sharpened).sum(1, keepdim=True)
            if number == weighing.scaled:
                of_amount *= self.scale
        if self.best is not None:
            self._through_best(of_amounts[0], of_gates)
        return of_gates[..., 0].T

    def _through_best(self, of_first: Tensor, of_gates: Tensor) -> None:
        """Add to the gradients what goes through the best amount, which those that reach it share."""
        assert self.best is not None
        total = of_gates[self.weighing.plain[0]]  # (M, 1) sum of gradient times amount
        of_gates[self.weighing.best] = total / self.best
        of_best = -total * self.gates[self.weighing.best] / self.best.square() * (self.best > LEAST_BEST)
        reaches = (self.amounts[0] == self.best).to(of_first.dtype)
        of_first.addcmul_(reaches, of_best / reaches.sum(1, keepdim=True).clamp(min=1))


def split_in(table: Tensor, widths: Sequence[int], dim: int) -> Sequence[Tensor]:
    """Parts of so many columns each, which share the memory of the table."""
    parts: Sequence[Tensor] = table.split(list(widths), dim=dim)  # type: ignore[no-untyped-call]
    return parts


def _repeated(widths: Sequence[int], device: torch.device) -> Tensor:
    """0, 1, ... as often as each width says: (sum of widths,)."""
    # Filled on the device: a tensor made of a list would be copied there, for which the host waits.
    return torch.cat([torch.full((width,), number, device=device) for number, width in enumerate(widths)])


def take(flat: Tensor, first: Tensor, width: int) -> Tensor:
    """The `width` entries from each place (...) of a flat table on: (..., width).

    Nothing may begin within the last `width` entries of the table, which `_padded` puts there.
    """
    windows = flat.as_strided((len(flat) - width + 1, width), (1, 1))
    return windows.index_select(0, first.flatten()).view(*first.shape, width)


def padded(table: Tensor, n: int, width: int) -> Tensor:
    """The n entries of a flat table (..., n or more) with `width` zeros behind them; the table itself where it has them."""
    if table.shape[-1] == n + width:
        return table.contiguous()
    return F.pad(table[..., :n], (0, width)).contiguous()


def first_ones(width: int) -> Tensor:
    """Row r has r ones first: (width + 1, width) bool."""
    return torch.arange(width) < torch.arange(width + 1)[:, None]


def rows_of(table: Tensor, numbers: Tensor) -> Tensor:
    """`table[numbers]`, copied row by row: (...) numbers of a table (rows, ...) that is not trained; three times faster."""
    return table.index_select(0, numbers.flatten()).view(*numbers.shape, *table.shape[1:])
