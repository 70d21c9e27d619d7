"""The state of training on disk, for resuming only: beside the weights of each checkpoint, and within an epoch.

models/<run>/epoch-007/training_state.pt       optimiser and counters
models/<run>/within-008-000120-<digest>.pt     where epoch 8 stood after 120 steps

Of the states within an epoch only the newest stays, and none when the epoch's own checkpoint stands.
"""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.description import read_description
from engine.files import writing
from errors import CheckpointError
from snapshot import file_digest

TRAINING_STATE = "training_state.pt"
STATE = re.compile(r"within-(\d+)-(\d+)-([0-9a-f]+)\.pt")
DIGITS_OF_STATE = 16  # of its digest, in its name


def save_state(run: Path, state: Mapping[str, Any], *, epoch: int, step: int) -> Path:
    """Write where an epoch stands after so many of its steps; the state before it goes once this one is in its place.

    Raises CheckpointError when the disk is full or the folder cannot be written.
    """
    with writing(run, "the last good state stays"):
        draft = run / ".within.new"
        try:
            with draft.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            target = run / f"within-{epoch:03d}-{step:06d}-{file_digest(draft)[:DIGITS_OF_STATE]}.pt"
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        for old in states_of(run):
            if old != target:
                old.unlink()
    return target


def drop_states(run: Path) -> None:
    """Remove what was written within epochs: the epoch's own checkpoint stands."""
    with writing(run):
        for state in states_of(run):
            state.unlink()


def load_training_state(folder: Path) -> dict[str, Any]:
    """The optimiser and counters of a checkpoint, verified; tensors and plain values only, nothing that executes."""
    described = read_description(folder)
    path = folder / TRAINING_STATE
    if not path.is_file() or file_digest(path) != described["training_state_digest"]:
        raise CheckpointError(f"{path} is missing or does not match its digest: resume from another epoch")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError) as exc:
        raise CheckpointError(f"{path} holds no training state ({exc}): resume from another epoch") from exc
    return state


def check_state(path: Path) -> None:
    """Raise CheckpointError unless a state within an epoch is what was written."""
    found = STATE.fullmatch(path.name)
    if found is None or not path.is_file() or file_digest(path)[:DIGITS_OF_STATE] != found[3]:
        raise CheckpointError(f"{path} does not match its digest (truncated or changed)")


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, verified; tensors and plain values only, nothing that executes."""
    check_state(path)
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError) as exc:
        raise CheckpointError(f"{path} holds no training state ({exc})") from exc
    return state


def states_of(run: Path) -> list[Path]:
    """The states within epochs that a run keeps, oldest first."""
    found = [(match, path) for path in run.glob("within-*.pt") if (match := STATE.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2])))]


def epoch_within(state: Path) -> int:
    """The number of the epoch that a state was written in, from 1."""
    found = STATE.fullmatch(state.name)
    assert found is not None
    return int(found[1])
