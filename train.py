"""Train BERT4Rec with the cloze objective.

    python train.py                                     against the database; preprocesses first where needed
    python train.py --snapshot PATH                     from a snapshot, without a database
    python train.py --minutes 10 --device cuda          ten minutes on one GPU
    torchrun --nproc-per-node 2 train.py --snapshot PATH    several processes, one GPU or CPU share each
    python train.py --epoch-to-preload -1               go on with the newest run after its last epoch

Each run writes its own folder below `model_folder`: settings, encoders, a checkpoint per epoch, the best one marked, the
history of losses and metrics, and after the last epoch the test table beside the baselines.  Without `--minutes` a run with the
same seed, settings and snapshot repeats exactly on one machine.
"""

import argparse
import json
import logging
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from config import Config, TrainingConfig, add_arguments, as_plain, config_from_arguments
from dataset import TRAIN, VALIDATION, Batch, Snapshot, TrainingRows, open_snapshot, training_batch
from engine.checkpoint import (
    SETTINGS,
    find_checkpoint,
    load_checkpoint,
    load_training_state,
    mark_best,
    newest_run,
    prune,
    read_description,
    save_catalogue,
    save_checkpoint,
    write_json,
)
from engine.comparison import baseline_scores, compare, held_out
from engine.processes import Process, process_group, seed_everything
from engine.progress import Scalars, bar
from engine.relations import build_relations, song_plays
from engine.schedule import Schedule
from engine.scoring import score_function
from errors import CheckpointError, ConfigError, exit_code_of
from evaluation.protocols import Evaluation
from evaluation.report import as_json, comparison_table
from model import BERT4Rec, Catalogue, Memory, NegativeSampler
from preprocessing import is_stale, preprocess
from preprocessing_utils import load_encoders
from storage.connections import database_url

log = logging.getLogger("train")

LOG_EVERY_STEPS = 20  # reading a loss waits for the device, so not at every step
VALIDATION_TASKS = 2000  # looked at after each epoch; the test uses all of its tasks
VALIDATION_METRIC = "ndcg10"
HISTORY = "history.jsonl"  # one line per epoch, in the run's folder


# --- set-up ------------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate, print the table and where the model is."""
    parser = argparse.ArgumentParser(
        description="Train BERT4Rec.", epilog="Settings may also stand in a TOML file or BERT4MUSICREC_*."
    )
    add_arguments(parser, "model", "memory", "training", "preprocessing", "evaluation", "database")
    parser.add_argument("--no-evaluation", action="store_true", help="stop after the last epoch, without the test table")
    arguments = parser.parse_args(argv)
    config = config_from_arguments(arguments)
    with process_group(config.training) as process:
        logging.basicConfig(level=logging.INFO if process.is_main else logging.ERROR, format="%(message)s", stream=sys.stderr)
        snapshot = prepare_snapshot(config, process, from_database=arguments.snapshot is None)
        run = train(config, snapshot, process)
        if process.is_main and not arguments.no_evaluation:
            print(comparison_table(evaluate_run(run, config, snapshot)))
        if process.is_main:
            print(f"model: {find_checkpoint(run)}")
    return 0


def prepare_snapshot(config: Config, process: Process, *, from_database: bool) -> Snapshot:
    """The snapshot to train on; from the database it is made anew where it is missing or out of date, by the main process."""
    if from_database and process.is_main:
        with database_url(config.database) as url:
            reason = is_stale(config, url)
            if reason is None:
                log.info("the snapshot %s is up to date with the database", config.preprocessing.snapshot)
            else:
                log.info("preprocessing first: %s", reason)
                preprocess(config, url)
    if process.world_size > 1:
        distributed.barrier()
    return open_snapshot(config.preprocessing.snapshot)


def build_model(config: Config, snapshot: Snapshot) -> BERT4Rec:
    """A fresh model for the snapshot's catalogue; its weights follow torch's global generator."""
    counts = snapshot.manifest["counts"]
    catalogue = Catalogue(
        song_artist=torch.from_numpy(snapshot.song_artist[:].copy()),
        song_album=torch.from_numpy(snapshot.song_album[:].copy()),
        song_features=torch.from_numpy(snapshot.song_features[:].copy()),
        n_fitted_songs=counts["fitted_songs"],
        n_fitted_albums=counts["fitted_albums"],
        n_fitted_artists=counts["fitted_artists"],
    )
    relations = build_relations(snapshot, config.memory)
    again_reach = config.memory.again_reach
    has_memory = bool(relations) or again_reach > 0
    memory = Memory(config.model.d_model, relations, song_plays(snapshot), again_reach) if has_memory else None
    return BERT4Rec(config.model, catalogue, memory)


def build_optimizer(model: BERT4Rec, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay on the matrices of the encoder only, not on embeddings, norms and biases."""
    tables = {id(table.weight) for table in model.modules() if isinstance(table, torch.nn.Embedding)}
    decayed = [weight for weight in model.parameters() if weight.ndim >= 2 and id(weight) not in tables]
    others = [weight for weight in model.parameters() if weight.ndim < 2 or id(weight) in tables]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)


def start_run(config: Config, snapshot: Snapshot) -> Path:
    """Make the run's folder with its settings and a verified copy of the encoders that the snapshot was made with."""
    encoders = config.preprocessing.encoders_folder
    load_encoders(encoders, expected_digest=snapshot.manifest["encoders_digest"])
    run = config.training.model_folder / f"{datetime.now():%Y%m%d-%H%M%S}-seed{config.training.seed}"
    run.mkdir(parents=True)
    shutil.copytree(encoders, run / "encoders")
    machine = {
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    write_json(run / SETTINGS, {**as_plain(config), "machine": machine, "snapshot_digest": snapshot.digest})
    return run


# --- the loop ----------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; saved with each checkpoint, so that it can go on from there."""

    epoch: int = 0  # epochs done
    step: int = 0
    best: float = -1.0  # the best validation metric so far; only rises
    epochs_without_gain: int = 0
    seconds: float = 0.0


def train(config: Config, snapshot: Snapshot, process: Process, *, show_progress: bool = True) -> Path:
    """Train in this process (every process of a group calls it alike) and return the run's folder."""
    return Trainer(config, snapshot, process, show_progress=show_progress).run()


class Trainer:
    """One run: model, optimiser, rows and counters, and the loop over them."""

    def __init__(self, config: Config, snapshot: Snapshot, process: Process, *, show_progress: bool = True):
        self.config, self.snapshot, self.process = config, snapshot, process
        self.show_progress = show_progress and process.is_main
        training = config.training
        seed_everything(training.seed)
        self.model = build_model(config, snapshot).to(process.device)
        self.optimizer = build_optimizer(self.model, training)
        self.progress, self.folder = Progress(), Path()
        if training.epoch_to_preload is not None:
            self.folder, self.progress = resume(self.model, self.optimizer, config, snapshot)
        elif process.is_main:
            self.folder = start_run(config, snapshot)
            save_catalogue(self.folder, self.model)
        self.wrapped = DistributedDataParallel(self.model) if process.world_size > 1 else self.model
        starts, ends = snapshot.ranges(TRAIN)
        lists = snapshot.lists[snapshot.indices(TRAIN)]
        self.rows = TrainingRows(snapshot.sequences, starts, ends, config.model.seq_len, process.device, lists)
        self.steps_per_epoch = self.rows.n_batches(training.batch_size, process.world_size)
        self.schedule = Schedule.of(training, self.steps_per_epoch, self.progress.seconds)
        self.sampler = NegativeSampler(
            torch.bincount(self.rows.flat, minlength=self.model.n_fitted_songs)[: self.model.n_fitted_songs]
        )
        self.validation = held_out(snapshot, VALIDATION, config.evaluation, max_tasks=VALIDATION_TASKS)

    def run(self) -> Path:
        """Epochs until their number, the minutes or the patience are used up; returns the run's folder."""
        folder = self.config.training.writer_dict or self.folder / "tensorboard"
        with Scalars(folder, enabled=self.process.is_main) as scalars:
            while self.progress.epoch < self.config.training.num_epochs:
                loss = self._epoch(scalars)
                self.progress.epoch += 1
                self.progress.seconds = self.schedule.seconds_used()
                out_of_patience = self.process.is_main and self._finish_epoch(loss, scalars)
                if self.process.broadcast_flag(out_of_patience or self.schedule.is_over()):
                    break
        return self.folder

    def _epoch(self, scalars: Scalars) -> float:
        """One pass over the batches; returns the mean loss per masked place (nats)."""
        epoch, process = self.progress.epoch, self.process
        # Everything random in an epoch follows from seed and epoch, so a resumed run repeats it.
        seed_everything(self.config.training.seed, epoch, process.rank)
        negatives = process.generator(self.config.training.seed, epoch, 1_000_000 + process.rank)
        self.model.train()
        total, n_places = torch.zeros((), device=process.device), 0
        title = f"epoch {epoch + 1}/{self.config.training.num_epochs}"
        with bar(self._batches(), total=self.steps_per_epoch, title=title, enabled=self.show_progress) as batches:
            for batch in batches:
                loss, rate = self._step(batch, negatives)
                total += loss * len(batch.targets)
                n_places += len(batch.targets)
                self.progress.step += 1
                if self.progress.step % LOG_EVERY_STEPS == 0:
                    value = loss.item()
                    scalars.add("train", {"loss": value, "lr": rate}, self.progress.step)
                    batches.set_postfix_str(f"loss {value:.3f}", refresh=False)
                # Processes of a group must take the same number of steps, so there only the end of an epoch ends the run.
                if process.world_size == 1 and self.schedule.is_over():
                    break
        return float(total) / max(1, n_places)

    def _batches(self) -> Iterator[Batch]:
        """The batches of this epoch for this process: the order is shared by all processes, masks are each process's own."""
        training, process, epoch = self.config.training, self.process, self.progress.epoch
        order = process.generator(training.seed, epoch)
        masks = process.generator(training.seed, epoch, 1 + process.rank)
        for windows in self.rows.epoch(training.batch_size, order, process.rank, process.world_size):
            yield training_batch(self.rows, windows, training, masks)

    def _step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, float]:
        """Forward, backward, clip, update; returns the loss, still on the device, and the learning rate."""
        training = self.config.training
        rate = self.schedule.rate(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        negatives = self.sampler.draw(training.negatives, generator) if training.negatives else None
        with self.process.autocast():
            loss: Tensor = self.wrapped(
                batch.songs,
                batch.places,
                batch.targets,
                unknown_song_probability=training.unknown_song_probability,
                label_smoothing=training.label_smoothing,
                negatives=negatives,
                own=batch.own,
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.max_grad_norm)
        self.optimizer.step()
        return loss.detach(), rate

    def _finish_epoch(self, loss: float, scalars: Scalars) -> bool:
        """Validate, write the checkpoint and the history; returns whether the patience is used up."""
        progress = self.progress
        metrics = dict(self.validation.judge(score_function(self.model, self.process.device)).metrics)
        gained = metrics[VALIDATION_METRIC] > progress.best
        progress.best = max(progress.best, metrics[VALIDATION_METRIC])
        progress.epochs_without_gain = 0 if gained else progress.epochs_without_gain + 1
        checkpoint = save_checkpoint(
            self.folder,
            epoch=progress.epoch,
            model=self.model,
            training_state={"optimizer": self.optimizer.state_dict(), "progress": dict(vars(progress))},
            metrics={"train_loss": loss, **metrics},
            encoders_digest=self.snapshot.manifest["encoders_digest"],
            snapshot_digest=self.snapshot.digest,
        )
        if gained:
            mark_best(self.folder, checkpoint)
        prune(self.folder, self.config.training.keep_checkpoints)
        self._tell(loss, metrics, gained, scalars)
        patience = self.config.training.early_stopping_epochs
        return bool(patience) and progress.epochs_without_gain >= patience

    def _tell(self, loss: float, metrics: Mapping[str, float], gained: bool, scalars: Scalars) -> None:
        progress = self.progress
        scalars.add("epoch", {"loss": loss, **{f"validation_{name}": value for name, value in metrics.items()}}, progress.epoch)
        line = {
            "epoch": progress.epoch,
            "step": progress.step,
            "seconds": progress.seconds,
            "loss": loss,
            "validation": dict(metrics),
        }
        with (self.folder / HISTORY).open("a", encoding="utf-8") as history:
            history.write(json.dumps(line) + "\n")
        log.info(
            "epoch %d: loss %.4f, validation NDCG@10 %.4f, HR@10 %.4f after %.0f s%s",
            progress.epoch, loss, metrics["ndcg10"], metrics["hr10"], progress.seconds, ", the best so far" if gained else "",
        )  # fmt: skip


def resume(model: BERT4Rec, optimizer: torch.optim.Optimizer, config: Config, snapshot: Snapshot) -> tuple[Path, Progress]:
    """Load the newest run's epoch that the settings name into model and optimiser."""
    run = newest_run(config.training.model_folder)
    if run is None:
        raise CheckpointError(
            f"epoch_to_preload is set, but {config.training.model_folder} holds no run: leave it out to start one"
        )
    wanted = config.training.epoch_to_preload
    epochs = sorted(run.glob("epoch-*"))
    folder = epochs[-1] if wanted == -1 else run / f"epoch-{wanted:03d}"
    if folder not in epochs:
        raise CheckpointError(f"run {run.name} has no epoch {wanted}: it keeps {', '.join(path.name for path in epochs)}")
    described = read_description(folder)
    if described["snapshot_digest"] != snapshot.digest:
        raise CheckpointError(f"{folder} was trained on another snapshot: start a new run, or name its snapshot with --snapshot")
    refuse_other_shape(described["model"], as_plain(config.model))
    model.load_state_dict(load_checkpoint(folder).model.state_dict())
    state = load_training_state(folder)
    optimizer.load_state_dict(state["optimizer"])
    log.info("resuming %s after epoch %d", run.name, state["progress"]["epoch"])
    return run, Progress(**state["progress"])


def refuse_other_shape(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ConfigError naming the first model setting that differs from the checkpoint's."""
    for name, value in wanted.items():
        if saved.get(name) != value:
            raise ConfigError(f"{name} is {value}, but the checkpoint to resume was trained with {saved.get(name)}: use the same")


# --- evaluation --------------------------------------------------------------------------------------------------------------


def evaluate_run(
    run: Path, config: Config, snapshot: Snapshot, extra: Mapping[str, Callable[..., Any]] | None = None
) -> dict[str, Evaluation]:
    """The best checkpoint on the test part beside the baselines (and `extra` score functions); written into the run's folder."""
    checkpoint = load_checkpoint(find_checkpoint(run))
    if checkpoint.snapshot_digest != snapshot.digest:
        raise CheckpointError(f"{checkpoint.path} was trained on another snapshot: its test part may have been training here")
    scores = {"BERT4Rec": score_function(checkpoint.model), **baseline_scores(snapshot, config.evaluation), **(extra or {})}
    results = compare(scores, snapshot, config.evaluation, report=lambda name: log.info("evaluating %s", name))
    write_json(checkpoint.path.parent / "evaluation.json", {"split": snapshot.policy, "results": as_json(results)})
    return results


def peak_memory_mb() -> float:
    """The largest resident size of this process so far, in MB (10**6 bytes)."""
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
