"""Processes and devices: one process, or one of several that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor

from config import TrainingConfig
from dataset import Batch
from errors import BERT4MusicRecError, ConfigError
from memory import Origin

# The others wait at a barrier while the main process preprocesses or validates, which takes minutes on large data.  A peer that
# died is noticed at once, by its closed connection; this bounds only how long one that hangs is waited for.
TIMEOUT_MINUTES = 60


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process among its peers, and the device it trains on."""

    rank: int
    world_size: int
    device: torch.device
    use_bf16: bool

    @property
    def is_main(self) -> bool:
        """Whether this process evaluates, logs and writes checkpoints."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in bfloat16 where the settings and the hardware say so."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.use_bf16 else nullcontext()

    def generator(self, *seeds: int) -> torch.Generator:
        """A generator on the device, fixed by the seeds."""
        state = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(self.device).manual_seed(state)

    def broadcast(self, value: float) -> float:
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        answer = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(answer, src=0)
        return float(answer.item())

    def broadcast_flag(self, flag: bool) -> bool:
        """The main process's answer, in every process."""
        return bool(self.broadcast(float(flag)))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in every process; overwrites `values`."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            distributed.barrier()

    @contextmanager
    def peers(self) -> Iterator[None]:
        """Around what talks to the other processes: one that is gone becomes one clear line."""
        try:
            yield
        except RuntimeError as exc:
            # gloo has no error class of its own, but each of its messages names the file in gloo that it comes from.
            if self.world_size > 1 and (isinstance(exc, distributed.DistError) or "gloo" in str(exc)):
                raise BERT4MusicRecError(
                    f"process {self.rank} of {self.world_size} lost another one ({exc}): see what that one said, "
                    f"then go on with --epoch-to-preload -1"
                ) from exc
            raise


class Part(NamedTuple):
    """One process's share of a batch."""

    batch: Batch
    weight: float  # of this part's mean loss among those of all processes; 1 on average
    n_places: int  # masked places of the whole batch


def own_part(batch: Batch, rank: int, world_size: int) -> Part:
    """Every n-th row of a batch that all processes have made alike.

    Order and masks are drawn for the batch of the whole group in every process: they follow the row, so that n processes with
    B rows each learn what one with n * B rows does.  To make the others' rows too is index arithmetic, little beside the model.
    The weight counts masked places, since gradients are averaged over processes as if all had equally many.  A batch with fewer
    rows than processes is taken whole by each, which averages to the same.
    """
    B, L = batch.songs.shape
    if world_size == 1 or world_size > B:
        return Part(batch, 1.0, len(batch.targets))
    row = batch.places // L
    mine = row % world_size == rank
    own = Batch(
        songs=batch.songs[rank::world_size],
        places=row[mine] // world_size * L + batch.places[mine] % L,
        targets=batch.targets[mine],
        origin=Origin(*(column[rank::world_size] for column in batch.origin)),
    )
    return Part(own, len(own.targets) * world_size / len(batch.targets), len(batch.targets))


@contextmanager
def process_group(config: TrainingConfig) -> Iterator[Process]:
    """Join the group that torchrun describes in the environment, or be alone; leave it at the end.

    Raises one clear error in the block where another process of the group is gone.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = choose_device(config.device, int(os.environ.get("LOCAL_RANK", "0")))
    if config.threads:
        torch.set_num_threads(config.threads)
    if world_size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=TIMEOUT_MINUTES))
    process = Process(rank=rank, world_size=world_size, device=device, use_bf16=choose_bf16(config.precision, device))
    try:
        with process.peers():
            yield process
    finally:
        if world_size > 1:
            distributed.destroy_process_group()


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """The device of a process; ConfigError when CUDA is asked for and missing."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no CUDA device: set device to cpu or auto")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def choose_bf16(wanted: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as asked, and for "auto" on CUDA devices that have it."""
    if wanted == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return wanted == "bf16"


def seed_everything(*seeds: int) -> None:
    """Fix torch's global generators, which dropout and initial weights draw from."""
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))
