"""The folder of runs: what lies where, which run and which checkpoint a path means, and what is noted of a run.

models/<run>/settings.json              every setting of the run, and the machine
models/<run>/origin.json                what it was trained on: counts of the data, features, device, machine; not in older runs
models/<run>/encoders/                  the encoders that belong to it (joblib, opened only after their digest matched)
models/<run>/catalogue.safetensors      what training does not change: artist, album, features of each song, the memory's tables
models/<run>/epoch-007/weights.safetensors     parameters
models/<run>/epoch-007/checkpoint.json         shapes, digests, metrics
models/<run>/epoch-007/training_state.pt       optimiser and counters, for resuming only
models/<run>/epoch-007/map.json         a sample of its songs laid out in the plane, where one was made
models/<run>/within-008-000120-<digest>.pt     where epoch 8 stood after 120 steps, for resuming only
models/<run>/best.json                  which epoch validated best
models/<run>/history.jsonl              losses and metrics, a line per epoch
models/<run>/finished.json              why the run ended; missing while it runs, and where it was interrupted
models/<run>/evaluation.json            the test table beside the baselines
models/<run>/job.json                   which torchrun trains it, so that its restarts go on with it

What goes: of the epochs all but the best one, the newest `keep_checkpoints` and the one just written, each time that one is
written; of the states within an epoch all but the newest, and that one when the epoch's own checkpoint stands.
"""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.description import DESCRIPTION, read_description
from engine.files import replace_text, write_json, writing
from engine.states import load_training_state, states_of
from errors import CheckpointError

SETTINGS, ORIGIN, BEST, HISTORY = "settings.json", "origin.json", "best.json", "history.jsonl"
FINISHED, EVALUATION, JOB = "finished.json", "evaluation.json", "job.json"
VALIDATION_METRIC = "ndcg10"  # what the best checkpoint is best in


# --- writing -----------------------------------------------------------------------------------------------------------------


def make_run(model_folder: Path, name: str) -> Path:
    """Make a new run's folder; a second run of that name gets -2 behind it.  Raises CheckpointError where that cannot be."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    with writing(model_folder, "name another with --model-folder"):
        model_folder.mkdir(parents=True, exist_ok=True)
        return next(run for run in map(model_folder.joinpath, names) if _made(run))


def _made(folder: Path) -> bool:
    """Make a folder, unless another command has made it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def mark_best(run: Path, checkpoint: Path) -> None:
    """Point the run's best.json at a checkpoint, atomically."""
    write_json(run / BEST, {"checkpoint": checkpoint.name})


def mark_finished(run: Path, *, epochs: int, seconds: float, reason: str) -> None:
    """Say that a run came to its end: after so many epochs and seconds, by "epochs", "minutes" or "patience"."""
    write_json(run / FINISHED, {"epochs": epochs, "seconds": seconds, "reason": reason})


def append_history(run: Path, line: Mapping[str, Any]) -> None:
    """Add an epoch to the run's history."""
    with writing(run / HISTORY), (run / HISTORY).open("a", encoding="utf-8") as history:
        history.write(json.dumps(line) + "\n")


def prune(run: Path, keep: int, written: Path) -> None:
    """Remove all checkpoints of a run but the best, the newest `keep`, and the one just `written`."""
    kept = {find_checkpoint(run), written, *epochs_of(run)[-keep:]}
    with writing(run):
        for old in epochs_of(run):
            if old not in kept:
                shutil.rmtree(old)


def go_back(run: Path, epoch: int, state: Path | None = None) -> Path | None:
    """Make a run what it was after an epoch, to go on from there, and return the best checkpoint that is left; None after 0.

    Later checkpoints, their history, the mark of a finished run and the evaluation go, and states within an epoch but the one
    to go on from.  The best one is found from the metrics of the checkpoints, for an interruption may have come between a
    checkpoint and its mark.
    """
    best = best_of(run, up_to=epoch) if epoch else None
    if best is not None:
        mark_best(run, best)
    with writing(run):
        for later in reversed(epochs_of(run)):  # the newest first, so that an interruption leaves no gap
            if epoch_of(later) > epoch:
                shutil.rmtree(later)
        stale_states = [other for other in states_of(run) if other != state]
        for stale in (*run.glob("evaluation.*"), *stale_states, *([] if epoch else [run / BEST]), run / FINISHED):
            stale.unlink(missing_ok=True)
        for unfinished in (*run.glob(".draft-*"), *run.glob(".replaced-*")):
            shutil.rmtree(unfinished)
        told = {line["epoch"]: line for line in read_history(run) if line["epoch"] <= epoch}
        untold = [folder for folder in epochs_of(run) if epoch_of(folder) not in told]  # interrupted between checkpoint and line
        lines = [*told.values(), *map(_history_line, untold)]
        lines.sort(key=lambda line: line["epoch"])
        replace_text(run / HISTORY, "".join(json.dumps(line) + "\n" for line in lines))
    return best


def _history_line(checkpoint: Path) -> dict[str, Any]:
    """What the history says of an epoch, from its checkpoint."""
    progress, metrics = load_training_state(checkpoint)["progress"], dict(read_description(checkpoint)["metrics"])
    loss = metrics.pop("train_loss")
    return {**{name: progress[name] for name in ("epoch", "step", "seconds")}, "loss": loss, "validation": metrics}


# --- reading -----------------------------------------------------------------------------------------------------------------


def read_settings(run: Path) -> dict[str, Any]:
    """The settings.json of a run."""
    try:
        return dict(json.loads((run / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as exc:
        raise CheckpointError(f"{run / SETTINGS} cannot be read ({exc}): {run} is not a run of this project") from exc


def read_history(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run's history; a line that an interruption cut off is passed over."""
    path = run / HISTORY
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [read for read in map(_whole_line, lines) if read is not None]


def _whole_line(line: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that a path means: itself, the best epoch of a run, or that of the newest run below it."""
    if (path / DESCRIPTION).is_file():
        return path
    run = path if (path / SETTINGS).is_file() else newest_run(path)
    if run is None:
        raise CheckpointError(f"no trained model in {path}: run train.py first, or name a run with --model PATH")
    if not (run / BEST).is_file():
        return best_of(run)
    try:
        return run / str(json.loads((run / BEST).read_text(encoding="utf-8"))["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{run / BEST} cannot be read ({exc}): name a checkpoint of the run instead") from exc


def best_of(run: Path, up_to: int | None = None) -> Path:
    """The checkpoint of a run that validated best, the first of equal ones, by what the checkpoints themselves say."""
    epochs = [folder for folder in epochs_of(run) if up_to is None or epoch_of(folder) <= up_to]
    if not epochs:
        raise CheckpointError(f"run {run} has no finished checkpoint yet: let train.py finish an epoch")
    return max(epochs, key=lambda folder: float(read_description(folder)["metrics"].get(VALIDATION_METRIC, -1.0)))


def epochs_of(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first: epoch-1000 comes after epoch-999."""
    return sorted((folder for folder in run.glob("epoch-*") if re.fullmatch(r"epoch-\d+", folder.name)), key=epoch_of)


def epoch_of(checkpoint: Path) -> int:
    """The epoch in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("epoch-"))


def newest_run(model_folder: Path) -> Path | None:
    """The newest run below a model folder that has a checkpoint; run names begin with their time."""
    return max(runs_of(model_folder), default=None)


def newest_finished_run(model_folder: Path) -> Path | None:
    """The newest run below a model folder that came to its end."""
    return max(filter(is_finished, runs_of(model_folder)), default=None)


def newest_begun_run(model_folder: Path) -> Path | None:
    """The newest run below a model folder that can be gone on with: it has a checkpoint, or a state within its first epoch."""
    return max({*runs_of(model_folder), *(path.parent for path in model_folder.glob("*/within-*.pt"))}, default=None)


def run_of_job(model_folder: Path, is_ours: Callable[[dict[str, Any]], bool]) -> Path | None:
    """The newest run below a model folder whose note of its job is recognised."""
    return max((path.parent for path in model_folder.glob(f"*/{JOB}") if is_ours(_read_job(path))), default=None)


def _read_job(path: Path) -> dict[str, Any]:
    """The note of a job; an empty one where it cannot be read, which is nobody's."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def runs_of(model_folder: Path) -> set[Path]:
    """The runs below a model folder that have a checkpoint."""
    return {folder.parent.parent for folder in model_folder.glob(f"*/epoch-*/{DESCRIPTION}")}


def is_finished(run: Path) -> bool:
    """Whether a run came to its end, and was not interrupted; then finished.json says when and why."""
    return (run / FINISHED).is_file()
