"""What a run tells while it goes: bars on the terminal, scalars for TensorBoard."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

Item = TypeVar("Item")


def bar(items: Iterable[Item], *, total: int | None = None, done: int = 0, title: str, enabled: bool = True) -> "tqdm[Item]":
    """A progress bar on standard error that begins at `done`; silent when `enabled` is false, seldom redrawn in a file."""
    redraw_seconds = 0.1 if sys.stderr.isatty() else 5.0
    return tqdm(
        items,
        total=total,
        initial=done,
        desc=title,
        disable=not enabled,
        file=sys.stderr,
        leave=False,
        mininterval=redraw_seconds,
    )


class Scalars:
    """TensorBoard scalars of a run by step; a disabled one writes nothing."""

    def __init__(self, folder: Path, *, first_step: int | None = None, enabled: bool = True):
        """`first_step` of a resumed run: what an earlier writer of the folder wrote from there on is no longer shown."""
        self._writer = SummaryWriter(str(folder), purge_step=first_step) if enabled else None

    def add(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        """Add one value per name as prefix/name."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
