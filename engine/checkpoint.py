"""Runs and checkpoints on disk: written beside and renamed, verified by digest, and free of anything that executes.

models/<run>/settings.json              every setting of the run, and the machine
models/<run>/origin.json                what it was trained on: counts of the data, features, device, machine; not in older runs
models/<run>/encoders/                  the encoders that belong to it (joblib, opened only after their digest matched)
models/<run>/epoch-007/weights.safetensors     parameters and the catalogue (artist, album, features of each song)
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
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from config import ModelConfig
from errors import CheckpointError
from memory import EDITED, Memory
from model import BERT4Rec, Catalogue
from newcomers import Groups, Newcomers
from settings import as_plain, build_section
from snapshot import file_digest
from sources import CountedRelations, HeardBefore, ListIndex, NearestLists, Relations, Source

FORMAT_VERSION = 5
FULL_BELOW_MB = 100  # a failed write with less than this free is put down to the disk
WEIGHTS, CATALOGUE = "weights.safetensors", "catalogue.safetensors"
DESCRIPTION, TRAINING_STATE, BEST, SETTINGS = "checkpoint.json", "training_state.pt", "best.json", "settings.json"
HISTORY, FINISHED, EVALUATION, ORIGIN = "history.jsonl", "finished.json", "evaluation.json", "origin.json"
MAP, JOB = "map.json", "job.json"
STATE = re.compile(r"within-(\d+)-(\d+)-([0-9a-f]+)\.pt")
DIGITS_OF_STATE = 16  # of its digest, in its name
VALIDATION_METRIC = "ndcg10"  # what the best checkpoint is best in

# What every checkpoint.json names; a folder that lacks one of them is not ours.
DESCRIBED = frozenset(
    {
        "epoch",
        "model",
        "memory",
        "judged",
        "newcomers",
        "counts",
        "metrics",
        "weights_digest",
        "catalogue_digest",
        "training_state_digest",
    }
    | {"encoders_digest", "snapshot_digest", "trained_at"}
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded model with everything that a recommended song is traced to."""

    model: BERT4Rec
    path: Path
    model_id: str  # run, epoch and the first digits of the weights' digest
    epoch: int
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    encoders_folder: Path
    encoders_digest: str
    snapshot_digest: str
    trained_at: datetime


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


def save_catalogue(run: Path, model: BERT4Rec) -> None:
    """Write the part of a model that training does not change, once per run."""
    with writing(run / CATALOGUE):
        beside = run / f".{CATALOGUE}.new"
        save_file(_stored(model), beside)
        beside.replace(run / CATALOGUE)


def save_checkpoint(
    run: Path,
    *,
    epoch: int,
    model: BERT4Rec,
    training_state: Mapping[str, Any],
    metrics: Mapping[str, float],
    encoders_digest: str,
    snapshot_digest: str,
) -> Path:
    """Write one epoch's checkpoint; whatever happens meanwhile, the earlier ones stay as they are.

    Raises CheckpointError when the disk is full or the folder cannot be written.
    """
    target = run / f"epoch-{epoch:03d}"
    with writing(target):
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=run))
        try:
            save_file({name: weight.detach().contiguous() for name, weight in model.named_parameters()}, draft / WEIGHTS)
            torch.save(dict(training_state), draft / TRAINING_STATE)
            description = {
                "format_version": FORMAT_VERSION,
                "epoch": epoch,
                "model": as_plain(model.config),
                "memory": _describe_memory(model.memory),
                "judged": _judged_by(model.memory),
                "newcomers": _describe_newcomers(model.memory),
                "counts": _counts_of(model),
                "metrics": dict(metrics),
                "weights_digest": file_digest(draft / WEIGHTS),
                "catalogue_digest": file_digest(run / CATALOGUE),
                "training_state_digest": file_digest(draft / TRAINING_STATE),
                "encoders_digest": encoders_digest,
                "snapshot_digest": snapshot_digest,
                "trained_at": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
            (draft / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
            _flush(draft)
            _put_in_place(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


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


def _put_in_place(draft: Path, target: Path) -> None:
    """Rename a folder to its name; what had that name is kept aside until then, and comes back if the rename fails."""
    if not target.exists():
        draft.rename(target)
        return
    aside = target.with_name(f".replaced-{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    try:
        draft.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


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
        _replace_text(run / HISTORY, "".join(json.dumps(line) + "\n" for line in lines))
    return best


def _history_line(checkpoint: Path) -> dict[str, Any]:
    """What the history says of an epoch, from its checkpoint."""
    progress, metrics = load_training_state(checkpoint)["progress"], dict(read_description(checkpoint)["metrics"])
    loss = metrics.pop("train_loss")
    return {**{name: progress[name] for name in ("epoch", "step", "seconds")}, "loss": loss, "validation": metrics}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically; CheckpointError when the disk is full or the folder cannot be written."""
    with writing(path):
        _replace_text(path, json.dumps(content, indent=1, default=str))


@contextmanager
def writing(target: Path, way_out: str = "the last good checkpoint stays") -> Iterator[None]:
    """Turn a failed write into one clear line; torch and safetensors report a full disk in their own ways."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise CheckpointError(f"{target} could not be written ({_cause(target, exc)}): {way_out}") from exc


def _cause(target: Path, exc: Exception) -> str:
    """Why a write failed; torch tells a full disk by where its archive broke off, which helps nobody."""
    free_mb = shutil.disk_usage(next(parent for parent in target.parents if parent.exists())).free / 1e6
    if isinstance(exc, OSError) or free_mb > FULL_BELOW_MB:
        return str(exc)
    return f"the disk is full: {free_mb:.0f} MB are free"


def _replace_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


# --- reading -----------------------------------------------------------------------------------------------------------------


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint folder (or the best of a run, or the newest run of a model folder) for evaluation or serving.

    Raises CheckpointError when it is missing, truncated, of another format, or does not match its digest.
    """
    folder = find_checkpoint(path)
    described = read_description(folder)
    run = folder.parent
    for path, digest in ((folder / WEIGHTS, described["weights_digest"]), (run / CATALOGUE, described["catalogue_digest"])):
        if not path.is_file() or file_digest(path) != digest:
            raise CheckpointError(
                f"{path} is missing or does not match its digest (truncated or changed): use another checkpoint"
            )
    try:
        buffers = load_file(run / CATALOGUE)
        model = _empty_model(described, buffers)
        model.load_state_dict({**buffers, **load_file(folder / WEIGHTS)})
        model.to(device)
        checkpoint = Checkpoint(
            model=model.eval(),
            path=folder,
            model_id=_model_id(folder, described),
            epoch=described["epoch"],
            settings=read_settings(run),
            metrics=described["metrics"],
            encoders_folder=run / "encoders",
            encoders_digest=described["encoders_digest"],
            snapshot_digest=described["snapshot_digest"],
            trained_at=datetime.fromisoformat(described["trained_at"]),
        )
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as exc:
        raise CheckpointError(
            f"checkpoint {folder} is not one of ours or is damaged ({exc}): train again or name another"
        ) from exc
    return checkpoint


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


def load_catalogue(run: Path) -> dict[str, torch.Tensor]:
    """The part of a run's model that training does not change."""
    try:
        return dict(load_file(run / CATALOGUE))
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"{run / CATALOGUE} cannot be read ({exc}): start a new run") from exc


def read_description(folder: Path) -> dict[str, Any]:
    """The checkpoint.json of a checkpoint folder, with all that `DESCRIBED` lists; CheckpointError where it is not one."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = described["format_version"]
        lacking = sorted(DESCRIBED - set(described))
        complete = (folder / WEIGHTS).is_file()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{folder} is not a checkpoint of this project ({exc})") from exc
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {folder} has format {version} (this version reads {FORMAT_VERSION}): train a new model"
        )
    if not complete:
        raise CheckpointError(f"checkpoint {folder} lacks {WEIGHTS}: name another one")
    if lacking:
        raise CheckpointError(f"{folder} is not a checkpoint of this project ({DESCRIPTION} lacks {', '.join(lacking)})")
    return dict(described)


def model_id_of(checkpoint: Path) -> str:
    """The id under which a checkpoint's answers are known, without loading it.  Raises CheckpointError where it is none."""
    return _model_id(checkpoint, read_description(checkpoint))


def _model_id(checkpoint: Path, described: Mapping[str, Any]) -> str:
    return f"{checkpoint.parent.name}/{checkpoint.name}/{described['weights_digest'][:12]}"


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


def states_of(run: Path) -> list[Path]:
    """The states within epochs that a run keeps, oldest first."""
    found = [(match, path) for path in run.glob("within-*.pt") if (match := STATE.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2])))]


def epoch_within(state: Path) -> int:
    """The number of the epoch that a state was written in, from 1."""
    found = STATE.fullmatch(state.name)
    assert found is not None
    return int(found[1])


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


# --- models ------------------------------------------------------------------------------------------------------------------


def _empty_model(described: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> BERT4Rec:
    """A model of the described shape around the stored catalogue, its parameters still random."""
    counts, config = described["counts"], build_section(ModelConfig, described["model"])
    catalogue = Catalogue(
        song_artist=buffers["embedding.song_artist"],
        song_album=buffers["embedding.song_album"],
        song_features=buffers["embedding.song_features"],
        n_fitted_songs=counts["fitted_songs"],
        n_fitted_albums=counts["fitted_albums"],
        n_fitted_artists=counts["fitted_artists"],
        fitted=buffers.get("embedding.fitted"),
    )
    memory = _empty_memory(config.d_model, described, buffers)
    return BERT4Rec(config, catalogue, memory)


def _empty_memory(d_model: int, described: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> Memory | None:
    """A memory with the described sources around their stored tables; None where there are none."""
    sources = [
        _empty_source(source, _below(f"memory.sources.{number}.", buffers)) for number, source in enumerate(described["memory"])
    ]
    if not sources:
        return None
    newcomers = None
    if described["newcomers"] is not None:
        tables = [Groups(**_below(f"memory.newcomers.tables.{number}.", buffers)) for number in range(len(Newcomers.names))]
        newcomers = Newcomers(tables, described["newcomers"]["reach"])
    return Memory(d_model, sources, buffers["memory.song_plays"], described["judged"], newcomers)


def _below(prefix: str, buffers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): buffer for name, buffer in buffers.items() if name.startswith(prefix)}


def _empty_source(described: Mapping[str, Any], tables: dict[str, torch.Tensor]) -> Source:
    names = tuple(described["names"])
    if names == HeardBefore.names:
        return HeardBefore(described["reach"])
    if names == NearestLists.names:
        return NearestLists(ListIndex(**tables), described["neighbours"], described["reach"])
    return CountedRelations(
        Relations(
            names=names, reaches=tuple(described["reaches"]), rows=tuple(described["rows"]), most=described["most"], **tables
        )
    )


def _describe_memory(memory: Memory | None) -> list[dict[str, Any]]:
    if memory is None:
        return []
    return [_describe_source(source) for source in memory.sources]


def _describe_newcomers(memory: Memory | None) -> dict[str, Any] | None:
    return None if memory is None or memory.newcomers is None else {"reach": memory.newcomers.reach}


def _judged_by(memory: Memory | None) -> int:
    """How many songs of a place are judged."""
    return 0 if memory is None or memory.judgement is None else memory.judgement.most


def _describe_source(source: torch.nn.Module) -> dict[str, Any]:
    """What `_empty_source` cannot tell from the tables."""
    if isinstance(source, CountedRelations):
        return {"names": source.names, "reaches": source.reaches, "rows": source.rows, "most": source.most}
    if isinstance(source, NearestLists):
        return {"names": source.names, "reach": source.reach, "neighbours": source.neighbours}
    return {"names": source.names, "reach": source.reach}


def _stored(model: BERT4Rec) -> dict[str, torch.Tensor]:
    """The buffers that a model is used with: of the memory's tables the full edition, the others are made anew for training."""
    kept = set(model.state_dict())
    return {
        name: (buffer[:1] if name.startswith("memory.") and name.rsplit(".", 1)[1] in EDITED else buffer).detach().clone()
        for name, buffer in model.named_buffers()
        if name in kept
    }


def _counts_of(model: BERT4Rec) -> dict[str, int]:
    return {
        "songs": model.n_songs,
        "features": model.embedding.song_features.shape[1],
        "fitted_songs": model.n_fitted_songs,
        "fitted_albums": model.n_fitted_albums,
        "fitted_artists": model.n_fitted_artists,
    }


def _flush(folder: Path) -> None:
    """Make the files durable before the rename makes them visible."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
