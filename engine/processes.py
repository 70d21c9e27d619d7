"""Processes and devices: one process, or one of several that torchrun started."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as distributed
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from config import TrainingConfig
from dataset import Asked
from errors import BERT4MusicRecError, ConfigError

# The others wait at a barrier while the main process preprocesses or validates, which takes minutes on large data.  A peer that
# died is noticed at once, by its closed connection; this bounds only how long one that hangs is waited for.
TIMEOUT_MINUTES = 60
UNNAMED = "none"  # what torchrun calls a job without --rdzv-id on several machines

Value = TypeVar("Value")


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

    # What processes tell each other apart from gradients are numbers of the host: they go from host to host, and the devices of a
    # group need not wait for them.

    def broadcast(self, *values: float) -> tuple[float, ...]:
        """The main process's values, in every process."""
        if self.world_size == 1:
            return values
        answer = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(answer, src=0)
        return tuple(answer.tolist())

    def broadcast_flag(self, flag: bool) -> bool:
        """The main process's answer, in every process."""
        return bool(self.broadcast(float(flag))[0])

    def broadcast_object(self, value: Value | None) -> Value | None:
        """The main process's value, of any kind, in every process."""
        answer = [value]
        if self.world_size > 1:
            distributed.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        return answer[0]

    def gather(self, value: float) -> tuple[float, ...]:
        """The value of each process by its rank, in every process."""
        values = torch.zeros(self.world_size, dtype=torch.float64)
        values[self.rank] = value
        if self.world_size > 1:
            distributed.all_reduce(values)
        return tuple(values.tolist())

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


class Share(NamedTuple):
    """One process's rows of a batch."""

    asked: Asked
    weight: float  # of this share's mean loss among those of all processes; 1 on average
    n_places: int  # places asked for in the whole batch
    memory_weight: float  # the same of the memory's loss, which may be asked at fewer places


def own_share(asked: Asked, rank: int, world_size: int) -> Share:
    """Every n-th row of a batch for which all processes have drawn the same places.

    Order and masks are drawn for the batch of the whole group in every process: they follow the row, so that n processes with
    B rows each learn what one with n * B rows does.  The others' rows are lengths and places only, no song of them is read.
    The weights count places, since gradients are averaged over processes as if all had equally many.  A batch with fewer rows
    than processes is taken whole by each, which averages to the same.
    """
    n_places = len(asked.row)
    if world_size == 1 or world_size > len(asked.windows.ends):
        return Share(asked, 1.0, n_places, 1.0)
    own = asked.share(rank, world_size)
    weight = len(own.row) * world_size / n_places
    if asked.remembered is None or own.remembered is None:
        return Share(own, weight, n_places, weight)
    return Share(own, weight, n_places, int(own.remembered.sum()) * world_size / int(asked.remembered.sum()))


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
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        join_group(backend, timedelta(minutes=TIMEOUT_MINUTES))
    process = Process(rank=rank, world_size=world_size, device=device, use_bf16=choose_bf16(config.precision, device))
    try:
        with process.peers():
            yield process
    finally:
        if world_size > 1:
            distributed.destroy_process_group()


def join_group(backend: str, timeout: timedelta) -> None:
    """Meet the other processes at the address in the environment.

    A restart by torchrun (2.13) meets in the store of the attempt before, where the addresses of dead processes still stand, and
    would wait for those.  So each attempt keeps to names of its own.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if restarts is None:
        distributed.init_process_group(backend, timeout=timeout)
        return
    store, rank, world_size = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    own = PrefixStore(f"attempt-{restarts}", store)
    distributed.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=timeout)


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


# --- randomness --------------------------------------------------------------------------------------------------------------

ORDER, MASKS, CHANCE = range(3)  # what is drawn from a seed; the first numbers of its kind


def seeds_of(*numbers: int, n: int = 1) -> list[int]:
    """`n` seeds that follow from some numbers, whatever those are alike to; 10 microseconds."""
    return [int(word >> 1) for word in np.random.SeedSequence(numbers).generate_state(n, np.uint64)]


class Randomness:
    """Everything random of a run, by (seed, epoch, step of the epoch, rank), so that it can go on between any two steps."""

    def __init__(self, seed: int, process: Process):
        self.seed, self.process = seed, process
        self.negatives = torch.Generator(process.device)  # of each process; as of the last `begin_step`

    def of_order(self, epoch: int) -> torch.Generator:
        """What draws the windows of an epoch and their order, alike in all processes."""
        return torch.Generator().manual_seed(*seeds_of(self.seed, epoch, ORDER))

    def of_masks(self, epoch: int, step: int) -> torch.Generator:
        """What draws the masks of a step for the batch of the whole group, alike in all processes."""
        return torch.Generator().manual_seed(*seeds_of(self.seed, epoch, MASKS, step))

    def begin_step(self, epoch: int, step: int) -> None:
        """Seed torch's generators (dropout, hidden ids) and that of the negatives for this process's part of a step."""
        globally, negatives = seeds_of(self.seed, epoch, CHANCE, step, self.process.rank, n=2)
        _seed_globally(globally, self.process.device)
        self.negatives.manual_seed(negatives)


def seed_everything(seed: int) -> None:
    """Fix torch's global generators, which initial weights draw from."""
    torch.manual_seed(*seeds_of(seed))


def _seed_globally(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, which asks for devices of every kind and takes 120 microseconds where this takes one."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


# --- torchrun ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """Which torchrun a process was started by; all its restarts are of one job."""

    run_id: str  # --rdzv-id; torchrun makes one up on a single machine
    agent: str  # machine, number and start of the torchrun process
    restarts: int

    @classmethod
    def of_environment(cls) -> "Job | None":
        """The job that the environment tells of; None without torchrun."""
        run_id = os.environ.get("TORCHELASTIC_RUN_ID")
        if run_id is None:
            return None
        return cls(run_id=run_id, agent=_parent(), restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))

    def noted(self) -> dict[str, str]:
        """What a run's folder keeps of the job that trains it."""
        return {"run_id": self.run_id, "agent": self.agent}

    def has_begun(self, noted: dict[str, Any]) -> bool:
        """Whether what a run's folder keeps is of this job.

        It is where the very same torchrun process started both.  On several machines the main process may come to stand on
        another one after a restart; there the name of the job counts, which whoever named it must have given only once.
        """
        is_same_name = noted.get("run_id") == self.run_id and self.run_id != UNNAMED
        return noted.get("agent") == self.agent or (self.restarts > 0 and is_same_name)


def _parent() -> str:
    """The process that started this one: machine, number and, where the system tells, the tick at which it began."""
    number = os.getppid()
    try:
        began = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        began = "unknown"
    return f"{platform.node()} {number} {began}"
