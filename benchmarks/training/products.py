"""The matrix products of a training step, recorded with their shapes and done again by themselves.

What the same products take with nothing around them is the floor of a step: the share of it in the step's time is the fraction of
the hardware that is used, whatever the processor, its clock and its neighbours are doing.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# The two factors among the arguments of each operation, by its name without overload.
FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "addmm_": (1, 2), "baddbmm": (1, 2), "_addmm_activation": (1, 2)}
Shape = tuple[tuple[int, ...], bool, tuple[int, ...], bool, torch.dtype]


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records, while it is entered, every matrix product that runs: shapes, layouts and types of its factors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[Shape] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in FACTORS:
            left, right = (args[place] for place in FACTORS[name])
            self.counts[(*_layout(left), *_layout(right), left.dtype)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def flops(self) -> int:
        """Multiplications and additions of all that was recorded."""
        return sum(2 * count * _size(left) * right[-1] for (left, _, right, _, _), count in self.counts.items())

    def seconds(self, device: torch.device) -> float:
        """How long all that was recorded takes by itself, each product with factors and result at hand."""
        total = 0.0
        for shape, count in self.counts.items():
            multiply = self._product(shape, device)
            multiply()
            _synchronize(device)
            begin = time.perf_counter()
            for _ in range(count):
                multiply()
            _synchronize(device)
            total += time.perf_counter() - begin
        return total

    @staticmethod
    def _product(shape: Shape, device: torch.device) -> Callable[[], Tensor]:
        left, left_turned, right, right_turned, dtype = shape
        one, other = (_matrix(size, turned, dtype, device) for size, turned in ((left, left_turned), (right, right_turned)))
        out = one @ other
        return lambda: torch.matmul(one, other, out=out)


def _layout(matrix: Tensor) -> tuple[tuple[int, ...], bool]:
    """Shape, and whether it is stored column by column."""
    return tuple(matrix.shape), matrix.stride(-1) != 1 and matrix.stride(-2) == 1


def _matrix(size: Sequence[int], turned: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    stored = (*size[:-2], size[-1], size[-2]) if turned else tuple(size)
    made = torch.randn(stored, device=device).to(dtype)
    return made.transpose(-1, -2) if turned else made


def _size(shape: Sequence[int]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
