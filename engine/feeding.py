"""Batches on their way to the device: made ahead by a thread, copied without waiting.

On the CPU a batch is gathered from the memory-mapped songs when it is asked for.  On a CUDA device the songs live there if they
fit; then only places are sent.  Else a batch is gathered on the host.  Either way what is sent lies in one pinned block.
"""

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dataset import Batch, TrainingRows, gather_songs, origin_of_rows, training_batch
from engine.processes import Share
from sources import Origin

# The songs live on the device when they take no more than this share of what is free beside the model: optimiser states,
# activations and gradients are still to come.
SHARE_OF_FREE = 0.25
BATCHES_AHEAD = 3

Item = TypeVar("Item")


class Part(NamedTuple):
    """One process's share of a batch, ready to train on."""

    batch: Batch
    weight: float  # of this part's mean loss among those of all processes; 1 on average
    n_places: int  # places asked for in the whole batch
    memory_weight: float  # of this part's mean loss of the memory, as `weight`


def home_of_songs(n_bytes: int, device: torch.device, free_bytes: Callable[[], int] | None = None) -> torch.device:
    """Where the flat songs are kept: on the device if they take at most a quarter of its free memory, else on the host."""
    if device.type == "cpu":
        return device
    free = free_bytes() if free_bytes is not None else torch.cuda.mem_get_info(device)[0]
    return device if n_bytes <= SHARE_OF_FREE * free else torch.device("cpu")


def parts_on(device: torch.device, rows: TrainingRows, shares: Iterable[Share]) -> Generator[Part]:
    """The batches of the shares, on the device; closing the iterator ends the thread that works ahead."""
    if device.type == "cpu":
        for share in shares:
            yield Part(training_batch(rows, share.asked), share.weight, share.n_places, share.memory_weight)
        return
    rows_are_there = rows.flat.device == device

    def prepared(share: Share) -> tuple[Share, Packed]:
        torch.cuda.set_device(device)  # of this thread
        return share, pack(_what_is_sent(rows, share, rows_are_there), pin=True)

    with closing(ahead(map(prepared, shares), BATCHES_AHEAD)) as ready:
        for share, packed in ready:
            batch = _received(rows, share, packed.unpack(device), rows_are_there)
            yield Part(batch, share.weight, share.n_places, share.memory_weight)


def _what_is_sent(rows: TrainingRows, share: Share, rows_are_there: bool) -> tuple[Tensor, ...]:
    asked = share.asked
    remembered = () if asked.remembered is None else (asked.remembered.nonzero()[:, 0],)
    if not rows_are_there:
        batch = training_batch(rows, asked)
        return batch.songs, batch.targets, batch.places, *batch.origin, *remembered
    places = asked.places(asked.width(rows.row_len))
    return asked.windows.firsts, asked.windows.ends, places, *origin_of_rows(rows, asked), *remembered


def _received(rows: TrainingRows, share: Share, sent: list[Tensor], rows_are_there: bool) -> Batch:
    songs, targets, places, lists, editions, *remembered = sent
    if rows_are_there:  # then the first two are the firsts and ends of the rows
        songs, targets = gather_songs(rows.flat, songs, targets, places, share.asked.width(rows.row_len), hides=rows.hides)
    origin = Origin(lists, editions)
    return Batch(songs=songs, places=places, targets=targets, origin=origin, remembered=remembered[0] if remembered else None)


class Packed(NamedTuple):
    """Integer tensors in one block, which reach a device in one copy."""

    block: Tensor
    shapes: tuple[torch.Size, ...]

    def unpack(self, device: torch.device | str) -> list[Tensor]:
        """The tensors on the device; nobody waits for the copy of a pinned block."""
        parts = self.block.to(device, non_blocking=True).split([shape.numel() for shape in self.shapes])  # type: ignore[no-untyped-call]
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def pack(tensors: Iterable[Tensor], *, pin: bool = False) -> Packed:
    """Lay int64 tensors of the host into one block, pinned if asked."""
    tensors = list(tensors)
    block = torch.cat([tensor.flatten() for tensor in tensors])
    return Packed(block.pin_memory() if pin else block, tuple(tensor.shape for tensor in tensors))


class Failure(NamedTuple):
    """What a maker of items raised."""

    error: BaseException


def ahead(items: Iterable[Item], depth: int) -> Generator[Item]:
    """The items in their order, made by a thread that keeps up to `depth` ready.

    What their maker raises is raised here, in its place.  The thread ends when the items do or this iterator is closed.
    """
    ready: SimpleQueue[Item | Failure | None] = SimpleQueue()
    room, closed = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                ready.put(item)
            ready.put(None)
        except BaseException as error:  # whatever it is, it is raised where the items are taken
            ready.put(Failure(error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Failure):
                raise item.error
            room.release()
            yield item
    finally:
        closed.set()
        room.release()
        thread.join()
