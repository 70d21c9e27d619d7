"""Processes and devices: one process, or one of several that torchrun started."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as distributed

from config import TrainingConfig
from errors import ConfigError

log = logging.getLogger(__name__)


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

    def broadcast_flag(self, flag: bool) -> bool:
        """The main process's answer, in every process."""
        if self.world_size == 1:
            return flag
        answer = torch.tensor([int(flag)], device=self.device)
        distributed.broadcast(answer, src=0)
        return bool(answer.item())


@contextmanager
def process_group(config: TrainingConfig) -> Iterator[Process]:
    """Join the group that torchrun describes in the environment, or be alone; leave it at the end."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = choose_device(config.device, int(os.environ.get("LOCAL_RANK", "0")))
    if config.threads:
        torch.set_num_threads(config.threads)
    if world_size > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(rank=rank, world_size=world_size, device=device, use_bf16=choose_bf16(config.precision, device))
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
