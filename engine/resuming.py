"""Going on with a run: which one, from where in it, and how its state comes back.

A run stands at the checkpoint of an epoch, or at a state within one.  What follows depends on seed, epoch and step alone, so one
that goes on repeats the uninterrupted one, bit by bit on a CPU.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from config import Config, TrainingConfig
from engine.checkpoint import load_catalogue, load_checkpoint
from engine.description import read_description
from engine.optimizer import Optimizer
from engine.processes import Job
from engine.runs import VALIDATION_METRIC, epoch_of, epochs_of, go_back, newest_begun_run, read_settings, run_of_job
from engine.states import check_state, epoch_within, load_state, load_training_state, save_state, states_of
from errors import CheckpointError, ConfigError
from model import BERT4Rec
from settings import as_plain
from snapshot import Snapshot

# Settings of training that leave the losses of a run as they are, or are how it is told to go on.
FREE_TO_CHANGE = frozenset(
    {"epoch_to_preload", "continue_from", "device", "threads", "model_folder", "writer_dict", "keep_checkpoints", "map_songs"}
    | {"checkpoint_minutes", "compile", "minutes"}
)

log = logging.getLogger("train")


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; saved with each checkpoint and state, so that it can go on from there."""

    epoch: int = 0  # epochs done
    step: int = 0
    best: float = -1.0  # the best validation metric so far; only rises
    epochs_without_gain: int = 0
    seconds: float = 0.0
    step_of_epoch: int = 0  # steps done of the epoch that has begun
    places_of_epoch: int = 0  # places asked for in them, of all processes together

    def count_step(self, n_places: int) -> None:
        """Count a step with so many places asked for as done."""
        self.step, self.step_of_epoch = self.step + 1, self.step_of_epoch + 1
        self.places_of_epoch += n_places

    def end_epoch(self, seconds: float) -> None:
        """Count an epoch as done."""
        self.epoch, self.seconds = self.epoch + 1, seconds
        self.step_of_epoch = self.places_of_epoch = 0


class Stand(NamedTuple):
    """A run to go on with, and the checkpoint or state to go on from; None where it has none yet."""

    run: Path
    at: Path | None


# --- where to go on ----------------------------------------------------------------------------------------------------------


def where_to_go_on(training: TrainingConfig, job: Job | None) -> Stand | None:
    """Where to go on, or None for a new run.

    A restart by torchrun goes on with the run that its job trains, whatever the settings say; nothing else takes a run over
    without `epoch_to_preload`.  Raises CheckpointError where that names nothing.
    """
    if job is not None and (run := run_of_job(training.model_folder, job.has_begun)) is not None:
        return Stand(run, newest_stand(run))
    if training.epoch_to_preload is None:
        return None
    run = newest_begun_run(training.model_folder)
    if run is None:
        raise CheckpointError(f"epoch_to_preload is set, but {training.model_folder} holds no run: leave it out to start one")
    if training.epoch_to_preload != -1:
        return Stand(run, checkpoint_of_epoch(run, training.epoch_to_preload))
    stand = Stand(run, newest_stand(run))
    if stand.at is None:
        raise CheckpointError(f"run {run.name} keeps nothing whole to go on from: leave epoch_to_preload out to start a new one")
    return stand


def newest_stand(run: Path) -> Path | None:
    """The newest state within an epoch, or the last epoch's checkpoint where it has none that is whole; None for neither."""
    epochs = epochs_of(run)
    last = epochs[-1] if epochs else None
    done = 0 if last is None else epoch_of(last)
    for state in reversed(states_of(run)):
        if epoch_within(state) > done:
            try:
                check_state(state)
            except CheckpointError as exc:
                log.warning("%s: going on from %s instead", exc, "the beginning" if last is None else last.name)
            else:
                return state
    return last


def checkpoint_of_epoch(run: Path, epoch: int) -> Path:
    """The checkpoint of one epoch of a run."""
    epochs = epochs_of(run)
    found = [folder for folder in epochs if epoch_of(folder) == epoch]
    if not found:
        raise CheckpointError(f"run {run.name} has no epoch {epoch}: it keeps {', '.join(folder.name for folder in epochs)}")
    return found[0]


# --- going on ----------------------------------------------------------------------------------------------------------------


def save_stand(
    run: Path,
    model: BERT4Rec,
    optimizer: Optimizer,
    progress: Progress,
    *,
    losses: tuple[float, ...],
    order: Mapping[str, float],
) -> None:
    """Write a state within an epoch: `losses` are the sums of each process, `order` is what its order of rows follows from."""
    state = {
        "weights": {name: weight.detach() for name, weight in model.named_parameters()},
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "losses": list(losses),
        "order": dict(order),
    }
    save_state(run, state, epoch=progress.epoch + 1, step=progress.step_of_epoch)


def go_on(
    at: Path, model: BERT4Rec, optimizer: Optimizer, config: Config, snapshot: Snapshot, order: Mapping[str, float]
) -> tuple[Progress, tuple[float, ...]]:
    """Load a checkpoint or a state into model and optimiser; returns the progress, and the sums of losses of each process.

    Raises ConfigError for other settings of model or memory, and within an epoch for another order of rows; CheckpointError for
    another snapshot and what cannot be read.
    """
    run = at.parent
    settings = read_settings(run)
    if settings.get("snapshot_digest") != snapshot.digest:
        raise CheckpointError(f"{at} was trained on another snapshot: start a new run, or name its snapshot with --snapshot")
    # Runs from before there was another objective had this one.
    saved = {"objective": "cloze", **settings.get("model", {}), **settings.get("memory", {})}
    training = other_settings(settings.get("training", {}), as_plain(config.training))
    refuse_other_settings(saved, {**as_plain(config.model), **as_plain(config.memory)}, also=training)
    state = load_state(at) if at.is_file() else _state_of_checkpoint(at, order)
    if state["order"] != order:
        raise ConfigError(_of_another_order(at, state["order"], order, training))
    try:
        # The memory's tables are those of training, with all editions, and not the stored ones.
        stored = {name: column for name, column in load_catalogue(run).items() if not name.startswith("memory.")}
        model.load_state_dict({**model.state_dict(), **stored, **state["weights"]})
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
    except ConfigError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{at} does not fit the model that it is to go on with ({exc}): start a new run") from exc
    for changed in changes(settings.get("training", {}), as_plain(config.training)):
        log.warning("the run goes on with other settings than it began with: %s", changed)
    within = f" and {progress.step_of_epoch} steps" if progress.step_of_epoch else ""
    log.info("resuming %s after epoch %d%s", run.name, progress.epoch, within)
    return progress, tuple(state["losses"])


def changes(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, the settings of training that decide on what comes out and are not those that a run began with.

    >>> changes({"lr": 0.001, "device": "cpu"}, {"lr": 0.002, "device": "cuda"})
    ['lr is 0.002, it was 0.001']
    """
    return [f"{name} is {wanted[name]}, it was {value}" for name, value in other_settings(saved, wanted).items()]


def other_settings(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of training that decide on what comes out, as they were, where others are wanted."""
    names = [name for name in wanted if name in saved and name not in FREE_TO_CHANGE and saved[name] != wanted[name]]
    return {name: saved[name] for name in names}


def _state_of_checkpoint(folder: Path, order: Mapping[str, float]) -> dict[str, Any]:
    """The checkpoint of an epoch as a state: nothing of the next one is done yet, so its rows may come in any order."""
    weights = dict(load_checkpoint(folder).model.named_parameters())
    return {**load_training_state(folder), "weights": weights, "losses": [], "order": dict(order)}


def _of_another_order(at: Path, saved: Mapping[str, float], wanted: Mapping[str, float], training: Mapping[str, Any]) -> str:
    """What differs between the order of rows of a state and that of now, and the ways out."""
    names = [name for name in {**wanted, **saved} if wanted.get(name) != saved.get(name)]
    ways = [f"go on with {_options(training)}"] if training else []
    if "rows_per_step" in names and "batch_size" not in training:
        ways.append("use as many processes as before")
    if "row_len" in names:  # it follows from the model's settings, which are the same: a version before had shorter rows
        ways = ["start a new run"]
    if epochs_of(at.parent):
        ways.append("name an epoch to go on after with --epoch-to-preload")
    told = f"{_told(saved, names)}, not {_told(wanted, names)}"
    return f"{at.name} is within an epoch whose rows came by {told}: {', or '.join(ways)}"


def _told(order: Mapping[str, float], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {order.get(name)}" for name in names)


def _options(settings: Mapping[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def take_back(run: Path, at: Path, progress: Progress) -> None:
    """Let the run forget what came after where it goes on, and judge gains by the best checkpoint that is left."""
    best = go_back(run, progress.epoch, at)
    progress.best = -1.0 if best is None else float(read_description(best)["metrics"][VALIDATION_METRIC])
    progress.epochs_without_gain = 0 if best is None else progress.epoch - epoch_of(best)


def refuse_other_settings(
    saved: Mapping[str, Any],
    wanted: Mapping[str, Any],
    done: str = "the checkpoint to resume",
    also: Mapping[str, Any] | None = None,
) -> None:
    """Raise ConfigError where settings differ from the checkpoint's, naming them all and the options that make them the same.

    `also` are further settings that may differ, which are then among the options.
    """
    unknown = [name for name in wanted if name not in saved]
    if unknown:
        raise ConfigError(f"{done} is of a version that had no {unknown[0]}: train a new model")
    other = [name for name, value in wanted.items() if saved[name] != value]
    if other:
        first, *more = other
        told = f"{first} is {wanted[first]}, but {done} was trained with {saved[first]}"
        rest = "".join(f"; {name} is {wanted[name]}, not {saved[name]}" for name in more)
        options = _options({**{name: saved[name] for name in other}, **(also or {})})
        raise ConfigError(f"{told}{rest}: go on with {options}")
