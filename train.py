"""Train BERT4Rec, with the cloze objective or from left to right.

    python train.py                                     against the database; preprocesses first where needed
    python train.py --snapshot PATH                     from a snapshot, without a database
    python train.py --no-database                       the same, from the snapshot that environment or TOML file name
    python train.py --minutes 10 --device cuda          ten minutes on one GPU
    torchrun --nproc-per-node 2 train.py --snapshot PATH    several processes, one GPU or CPU share each
    torchrun --nproc-per-node 2 --max-restarts 3 train.py   go on by itself when a process dies
    python train.py --epoch-to-preload -1               go on with the newest run where it was interrupted
    python train.py --continue                          a new run that begins with what the newest finished one learned

Each run writes its own folder below `model_folder`: settings, what it is trained on, encoders, a checkpoint per epoch, the best
one marked, the history of losses and metrics, why it ended, and at last the test table beside the baselines.

Without `--minutes` a run with the same seed, settings and snapshot repeats exactly on one machine's processor (on a GPU, which
adds up in any order, nearly), also where it was interrupted and gone on with: within an epoch its state is written every
`checkpoint_minutes`.  To go on after an earlier epoch than the last one (`--epoch-to-preload 3`) takes the run back to it: what
came later is deleted.

A run that goes on keeps its snapshot, whatever the database holds by now, and is told the options that it was begun with.

BERT4MUSICREC_SNAPSHOT and the TOML file say where preprocessing writes the snapshot, so with them alone the database is asked
whether it has moved on; only an option of the command, `--snapshot` or `--no-database`, takes the snapshot as it is.
"""

import argparse
import logging
import platform
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from config import FIRST_NUMBER, Config
from dataset import TrainingRows, ask
from encoder_files import load_encoders
from engine.checkpoint import load_checkpoint, save_catalogue, save_checkpoint
from engine.comparison import baseline_scores, compare, repeats_allowed, validation_part
from engine.compiling import compile_forward
from engine.continuing import checkpoint_to_continue, continue_from
from engine.feeding import Part, home_of_songs, parts_on
from engine.files import write_json, writing
from engine.fusion import weigh
from engine.optimizer import build_optimizer, clip_gradients
from engine.processes import Job, Process, Randomness, Share, own_share, process_group, seed_everything
from engine.progress import Scalars, bar
from engine.relations import build_memory
from engine.resuming import Progress, go_on, save_stand, take_back, where_to_go_on
from engine.runs import (
    EVALUATION,
    JOB,
    ORIGIN,
    SETTINGS,
    VALIDATION_METRIC,
    append_history,
    find_checkpoint,
    make_run,
    mark_best,
    mark_finished,
    prune,
    run_of_job,
)
from engine.schedule import Schedule
from engine.scoring import score_function
from engine.song_map import ensure_map
from engine.states import drop_states
from errors import CheckpointError, ConfigError, exit_code_of
from evaluation.protocols import Evaluation
from evaluation.report import as_json, comparison_table
from losses import NegativeSampler, negatives_of
from model import BERT4Rec, Catalogue
from options import add_arguments, config_from_arguments
from preprocessing import refresh
from settings import as_plain
from snapshot import Snapshot, open_snapshot
from splits import TEST, TRAIN, VALIDATION
from storage.connections import database_url
from system import cores

log = logging.getLogger("train")

LOG_EVERY_STEPS = 20  # reading a loss waits for the device, so not at every step
CLOCK_EVERY_STEPS = 10  # several processes agree on the time that often; one alone looks at every step
ENDINGS = {
    "epochs": "num_epochs is reached",
    "minutes": "the minutes are used up",
    "patience": "early_stopping_epochs without a better validation",
}
VALIDATION_TASKS = 2000  # looked at after each epoch; the test uses all of its tasks


# --- set-up ------------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate, print the table and where the model is."""
    parser = argparse.ArgumentParser(
        description="Train BERT4Rec.", epilog="Settings may also stand in a TOML file or BERT4MUSICREC_*."
    )
    add_arguments(parser, "model", "memory", "training", "preprocessing", "evaluation", "database")
    parser.add_argument("--no-database", action="store_true", help="take the snapshot as it is, wherever the settings place it")
    parser.add_argument("--no-evaluation", action="store_true", help="stop after the last epoch, without the test table")
    parser.add_argument("--continue", dest="is_continued", action="store_true", help="--continue-from the model folder")
    arguments = parser.parse_args(argv)
    config = config_from_arguments(arguments)
    if arguments.is_continued:
        config = replace(config, training=replace(config.training, continue_from=config.training.model_folder))
    with process_group(config.training) as process:
        logging.basicConfig(level=logging.INFO if process.is_main else logging.ERROR, format="%(message)s", stream=sys.stderr)
        # A run that goes on needs the snapshot that it began with, also where the database has moved on since.
        goes_on = config.training.epoch_to_preload is not None
        from_database = arguments.snapshot is None and not arguments.no_database and not goes_on
        snapshot = prepare_snapshot(config, process, from_database=from_database)
        run = train(config, snapshot, process)
        if process.is_main and not arguments.no_evaluation:
            print(comparison_table(evaluate_run(run, config, snapshot)))
        if process.is_main:
            print(f"model: {find_checkpoint(run)}")
    return 0


def prepare_snapshot(config: Config, process: Process, *, from_database: bool) -> Snapshot:
    """The snapshot to train on, verified; from the database the main process makes it anew where it is missing or out of date.

    A job that torchrun has restarted goes on with the snapshot that it began with.
    """
    if from_database and process.is_main and not has_run_already(config):
        with database_url(config.database) as url:
            refresh(config, url)
    process.barrier()
    return open_snapshot(config.preprocessing.snapshot, verify=process.is_main)


def has_run_already(config: Config) -> bool:
    """Whether torchrun has restarted a job that had begun a run."""
    job = Job.of_environment()
    return job is not None and run_of_job(config.training.model_folder, job.has_begun) is not None


def build_model(config: Config, snapshot: Snapshot, frequencies: Tensor) -> BERT4Rec:
    """A fresh model for the snapshot's catalogue; its weights follow torch's global generator.

    `frequencies` (T,) are the training plays of the fitted songs; those with none are gaps in their numbers.
    """
    counts = snapshot.manifest["counts"]
    fitted = frequencies > 0
    has_gaps = not bool(fitted[FIRST_NUMBER:].all())
    catalogue = Catalogue(
        song_artist=torch.from_numpy(snapshot.song_artist[:].copy()),
        song_album=torch.from_numpy(snapshot.song_album[:].copy()),
        song_features=torch.from_numpy(snapshot.song_features[:].copy()),
        n_fitted_songs=counts["fitted_songs"],
        n_fitted_albums=counts["fitted_albums"],
        n_fitted_artists=counts["fitted_artists"],
        fitted=fitted if has_gaps else None,
    )
    return BERT4Rec(config.model, catalogue, build_memory(snapshot, config.memory, config.model.d_model))


def start_run(config: Config, snapshot: Snapshot) -> Path:
    """Make the run's folder with its settings and a verified copy of the encoders that the snapshot was made with.

    Raises EncoderError for other encoders, before anything is written, and CheckpointError where the folder cannot be made.
    """
    encoders = config.preprocessing.encoders_folder
    load_encoders(encoders, expected_digest=snapshot.manifest["encoders_digest"])
    run = make_run(config.training.model_folder, f"{datetime.now():%Y%m%d-%H%M%S}-seed{config.training.seed}")
    with writing(run / "encoders", "free the disk and start again"):
        shutil.copytree(encoders, run / "encoders")
    machine = {
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    write_json(run / SETTINGS, {**as_plain(config), "machine": machine, "snapshot_digest": snapshot.digest})
    return run


def origin_of(snapshot: Snapshot, model: BERT4Rec, process: Process) -> dict[str, Any]:
    """What a run is trained on, for whoever looks at its model later: data, features, device, machine."""
    counts = snapshot.manifest["counts"]
    starts, ends = snapshot.ranges(TRAIN)
    is_gpu = process.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(process.device) if is_gpu else process.device.type,
        "processes": process.world_size,
        "machine": f"{platform.system()} {platform.machine()}, {len(cores())} cores, torch {torch.__version__}",
        "data": {
            **{kind: counts[kind] - FIRST_NUMBER for kind in ("songs", "artists", "albums")},
            "songs_training": int(model.embedding.are_fitted().sum()),
            "sequences": counts["sequences"],
            "rows": counts["rows"],
            "sequences_training": len(starts),
            "rows_training": int((ends - starts).sum()),
            "sequences_validation": len(snapshot.indices(VALIDATION)),
            "sequences_test": len(snapshot.indices(TEST)),
        },
        "features": known_features(snapshot),
    }


def known_features(snapshot: Snapshot) -> list[str]:
    """The features that some song has; each has a column that marks where it is missing, and one or more for its value."""
    songs = snapshot.song_features[FIRST_NUMBER:]
    marks = [(place, name) for place, name in enumerate(snapshot.manifest["feature_names"]) if name.endswith("_missing")]
    return [name.removesuffix("_missing") for place, name in marks if (songs[:, place] == 0).any()]


# --- the loop ----------------------------------------------------------------------------------------------------------------


def train(config: Config, snapshot: Snapshot, process: Process, *, show_progress: bool = True) -> Path:
    """Train in this process (every process of a group calls it alike) and return the run's folder."""
    return Trainer(config, snapshot, process, show_progress=show_progress).run()


class Trainer:
    """One run: model, optimiser, rows and counters, and the loop over them."""

    def __init__(self, config: Config, snapshot: Snapshot, process: Process, *, show_progress: bool = True):
        self.config, self.snapshot, self.process = config, snapshot, process
        self.show_progress = show_progress and process.is_main
        training = config.training
        self.validation = validation_part(snapshot, config.evaluation, VALIDATION_TASKS)
        frequencies = torch.from_numpy(snapshot.training_plays())
        self.n_negatives = negatives_of(training.negatives, int((frequencies > 0).sum()))
        if self.n_negatives and training.label_smoothing:
            raise ConfigError(
                f"label_smoothing ({training.label_smoothing}) needs the whole catalogue, of which {self.n_negatives} songs are "
                "drawn: set it to 0, or negatives to 0"
            )
        self.sampler = NegativeSampler(frequencies.to(process.device))
        seed_everything(training.seed)
        self.model = build_model(config, snapshot, frequencies).to(process.device)
        adds_up_sparse = process.world_size == 1 or process.device.type == "cpu"  # NCCL does not
        self.model.embedding.sparse_gradients(bool(self.n_negatives) and adds_up_sparse)
        if training.compile:
            compile_forward(self.model, process.device)
        self.rows = training_rows(config, snapshot, process, self.model.training_row_len)
        self.optimizer = build_optimizer(self.model, training)
        self.random = Randomness(training.seed, process)
        self.loss_of_epoch = torch.zeros((), dtype=torch.float64, device=process.device)  # summed over this process's places
        self.folder, self.progress = self._begin()
        # The buffers are the catalogue and the counts, the same in all processes and never changed: nothing to broadcast.
        is_alone = process.world_size == 1
        self.wrapped = self.model if is_alone else DistributedDataParallel(self.model, broadcast_buffers=False)
        self.steps_per_epoch = self.rows.n_batches(self.rows_per_step)
        self.schedule = Schedule.of(training, self.steps_per_epoch, self.progress.seconds)
        self.state_written = time.monotonic()
        self.time_share, self.is_state_due = 0.0, False  # by the main process's clock

    @property
    def rows_per_step(self) -> int:
        """Rows of all processes in one step."""
        return self.config.training.batch_size * self.process.world_size

    def _begin(self) -> tuple[Path, Progress]:
        """A new run, or the one to go on with; its folder is known to all processes that go on, and else to the main one."""
        process, job = self.process, Job.of_environment()
        stand = process.broadcast_object(where_to_go_on(self.config.training, job) if process.is_main else None)
        if stand is not None and stand.at is not None:
            progress, losses = go_on(stand.at, self.model, self.optimizer, self.config, self.snapshot, self._order())
            self.loss_of_epoch += loss_of_process(losses, process)
            folder = stand.run
            if process.is_main:
                take_back(stand.run, stand.at, progress)
        else:
            progress, folder = Progress(), self._begin_new(None if stand is None else stand.run)
        if process.is_main and job is not None:
            write_json(folder / JOB, job.noted())
        return folder, progress

    def _begin_new(self, folder: Path | None) -> Path:
        """Begin with fresh weights, or with those to continue; in a folder that is there already only after a restart."""
        source, process = self.config.training.continue_from, self.process
        origin = origin_of(self.snapshot, self.model, process)
        if source is not None:
            source = process.broadcast_object(checkpoint_to_continue(source) if process.is_main else None)
            assert source is not None
            origin["continued_from"] = continue_from(source, self.model, self.config, self.snapshot)
        if not process.is_main:
            return Path()
        folder = folder or start_run(self.config, self.snapshot)
        write_json(folder / ORIGIN, origin)
        save_catalogue(folder, self.model)
        return folder

    def _order(self) -> dict[str, float]:
        """What the order of an epoch's rows follows from, besides the snapshot and the model's settings."""
        training = self.config.training
        return {
            "seed": training.seed,
            "rows_per_step": self.rows_per_step,
            "last_item_probability": training.last_item_probability,
            "row_len": self.rows.row_len,
        }

    def run(self) -> Path:
        """Epochs until their number, the minutes or the patience are used up; returns the run's folder."""
        with self._scalars() as scalars:
            # Only the main process validates and only its clock counts, so it decides for all.
            while not self.process.broadcast_flag(self._end() is not None):
                loss = self._epoch(scalars)
                self.progress.end_epoch(self.schedule.seconds_used())
                if self.process.is_main:
                    self._finish_epoch(loss, scalars)
                self._share_weights()
                self.state_written = time.monotonic()
        if self.process.is_main:
            self._finish()
        return self.folder

    def _share_weights(self) -> None:
        """What the main process chose on validation goes to all."""
        for chosen in (self.model.encoder_weight, self.model.newcomer_bonus):
            chosen.data.fill_(*self.process.broadcast(chosen.item()))

    def _scalars(self) -> Scalars:
        folder = self.config.training.writer_dict or self.folder / "tensorboard"
        with writing(folder, "name another folder with --writer-dict"):
            return Scalars(folder, first_step=self.progress.step + 1, enabled=self.process.is_main)

    def _end(self) -> str | None:
        """What ends the run here: "epochs", "minutes", "patience", or nothing yet."""
        training, progress = self.config.training, self.progress
        if progress.epoch >= training.num_epochs:
            return "epochs"
        if progress.epoch and self.schedule.time_share() >= 1:  # a new run makes a checkpoint, however short its time
            return "minutes"
        if 0 < training.early_stopping_epochs <= progress.epochs_without_gain:
            return "patience"
        return None

    def _finish(self) -> None:
        """Lay out the songs of the best model, and mark the run as finished."""
        best = find_checkpoint(self.folder)
        if self.config.training.map_songs:
            ensure_map(best, load_checkpoint(best).model, self.config.training.map_songs)
        reason, epochs = self._end() or "epochs", self.progress.epoch
        mark_finished(self.folder, epochs=epochs, seconds=self.schedule.seconds_used(), reason=reason)
        log.info("the run ends after epoch %d: %s", epochs, ENDINGS[reason])

    def _epoch(self, scalars: Scalars) -> float:
        """What is left of an epoch; returns its mean loss per place asked for (nats), of all processes together."""
        progress, process = self.progress, self.process
        self.model.train()
        title = f"epoch {progress.epoch + 1}/{self.config.training.num_epochs}"
        self._look_at_clock(is_beginning=True)
        with (
            closing(self._parts()) as parts,
            bar(parts, total=self.steps_per_epoch, done=progress.step_of_epoch, title=title, enabled=self.show_progress) as shown,
        ):
            for part in shown:
                self.random.begin_step(progress.epoch, progress.step_of_epoch)
                loss, rate = self._step(part, self.random.negatives)
                self.loss_of_epoch += loss.double() * (part.weight * part.n_places)
                progress.count_step(part.n_places)
                if progress.step % LOG_EVERY_STEPS == 0:
                    value = loss.item()
                    scalars.add("train", {"loss": value, "lr": rate}, progress.step)
                    shown.set_postfix_str(f"loss {value:.3f}", refresh=False)
                self._look_at_clock()
                if self.is_state_due:
                    self._save_state()
                if self.time_share >= 1:
                    break
        total = sum(process.gather(self.loss_of_epoch.item()))
        self.loss_of_epoch.zero_()
        return total / (process.world_size * max(1, progress.places_of_epoch))

    def _look_at_clock(self, *, is_beginning: bool = False) -> None:
        """Take over the main process's time, by which all have the same learning rate, take the same steps and save at one."""
        self.is_state_due = False
        if self.process.world_size > 1 and not is_beginning and self.progress.step % CLOCK_EVERY_STEPS:
            return
        share, is_due = self.process.broadcast(self.schedule.time_share(), float(self._is_time_to_save()))
        self.time_share, self.is_state_due = share, bool(is_due) and not is_beginning

    def _is_time_to_save(self) -> bool:
        seconds = 60 * self.config.training.checkpoint_minutes
        return seconds > 0 and time.monotonic() - self.state_written >= seconds

    def _save_state(self) -> None:
        """Write where the epoch stands."""
        losses = self.process.gather(self.loss_of_epoch.item())
        self.progress.seconds = self.schedule.seconds_used()
        if self.process.is_main:
            save_stand(self.folder, self.model, self.optimizer, self.progress, losses=losses, order=self._order())
        self.state_written = time.monotonic()

    def _parts(self) -> Generator[Part]:
        """The batches that are left of this epoch, as the parts of this process."""
        return parts_on(self.process.device, self.rows, self._shares())

    def _shares(self) -> Iterator[Share]:
        """What those batches are made from; a thread may run ahead with it."""
        training, process, rows = self.config.training, self.process, self.rows
        epoch, first = self.progress.epoch, self.progress.step_of_epoch
        windows_of_epoch = rows.epoch(
            self.rows_per_step,
            self.random.of_order(epoch),
            last_item_probability=training.last_item_probability,
            first=first,
        )
        for step, windows in enumerate(windows_of_epoch, start=first):
            asked = ask(rows, windows, training, self.random.of_masks(epoch, step))
            yield own_share(asked, process.rank, process.world_size)

    def _step(self, part: Part, generator: torch.Generator) -> tuple[Tensor, float]:
        """Forward, backward, clip, update; returns the loss, still on the device, and the learning rate."""
        training, batch = self.config.training, part.batch
        rate = self.schedule.rate(self.progress.step, self.time_share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["pace"]
        negatives = self.sampler.draw(self.n_negatives, generator) if self.n_negatives else None
        with self.process.autocast():
            loss: Tensor = self.wrapped(
                batch.songs,
                batch.places,
                batch.targets,
                unknown_song_probability=training.unknown_song_probability,
                label_smoothing=training.label_smoothing,
                negatives=negatives,
                origin=batch.origin,
                remembered=batch.remembered,
                memory_weight=part.memory_weight / part.weight,
            )
        self.optimizer.zero_grad()
        (loss * part.weight).backward()  # type: ignore[no-untyped-call]
        clip_gradients(self.model.parameters(), training.max_grad_norm)
        self.optimizer.step()
        return loss.detach(), rate

    def _finish_epoch(self, loss: float, scalars: Scalars) -> None:
        """Validate, write the checkpoint and the history."""
        progress = self.progress
        weigh(self.model, self.validation, self.process.device)
        metrics = dict(self.validation.judge(score_function(self.model, self.process.device)).metrics)
        gained = metrics[VALIDATION_METRIC] > progress.best
        progress.best = max(progress.best, metrics[VALIDATION_METRIC])
        progress.epochs_without_gain = 0 if gained else progress.epochs_without_gain + 1
        checkpoint = save_checkpoint(
            self.folder,
            epoch=progress.epoch,
            model=self.model,
            training_state={"optimizer": self.optimizer.state_dict(), "progress": asdict(progress)},
            metrics={"train_loss": loss, **metrics},
            encoders_digest=self.snapshot.manifest["encoders_digest"],
            snapshot_digest=self.snapshot.digest,
        )
        if gained:
            mark_best(self.folder, checkpoint)
        prune(self.folder, self.config.training.keep_checkpoints, checkpoint)
        drop_states(self.folder)
        self._tell(loss, metrics, gained, scalars)

    def _tell(self, loss: float, metrics: Mapping[str, float], gained: bool, scalars: Scalars) -> None:
        progress = self.progress
        # By step like the rest: a resumed run hides what was written from a step on, whatever it belongs to.
        scalars.add("epoch", {"loss": loss, **{f"validation_{name}": value for name, value in metrics.items()}}, progress.step)
        line = {
            "epoch": progress.epoch,
            "step": progress.step,
            "seconds": progress.seconds,
            "loss": loss,
            "validation": dict(metrics),
        }
        append_history(self.folder, line)
        log.info(
            "epoch %d: loss %.4f, validation NDCG@10 %.4f, HR@10 %.4f after %.0f s%s",
            progress.epoch, loss, metrics["ndcg10"], metrics["hr10"], progress.seconds, ", the best so far" if gained else "",
        )  # fmt: skip


def loss_of_process(losses: Sequence[float], process: Process) -> float:
    """A process's own sum of losses among those that were saved; of another number of processes the main one takes all."""
    if len(losses) == process.world_size:
        return losses[process.rank]
    return sum(losses) * process.world_size / max(1, len(losses)) if process.is_main else 0.0


def training_rows(config: Config, snapshot: Snapshot, process: Process, row_len: int) -> TrainingRows:
    """The training part, its songs on the process's device where they fit."""
    starts, ends = snapshot.ranges(TRAIN)
    chosen = snapshot.indices(TRAIN)
    home = home_of_songs(snapshot.sequences.nbytes, process.device)
    # As in evaluation: where what was heard cannot come again, a history would hold the very songs that are asked for.
    has_histories = repeats_allowed(snapshot, config.evaluation)
    return TrainingRows(
        snapshot.sequences,
        starts,
        ends,
        config.model.seq_len,
        home,
        snapshot.lists[chosen],
        history_starts=snapshot.history_starts[chosen] if has_histories else None,
        row_len=row_len,
        folds=config.memory.folds,
        hides=config.model.objective == "cloze",
    )


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
    write_json(checkpoint.path.parent / EVALUATION, {"split": snapshot.policy, "results": as_json(results)})
    return results


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
