"""Runs and checkpoints on disk: written beside and renamed, verified by digest, and free of anything that executes.

models/<run>/settings.json              every setting of the run, and the machine
models/<run>/encoders/                  the encoders that belong to it (joblib, opened only after their digest matched)
models/<run>/epoch-007/weights.safetensors     parameters and the catalogue (artist, album, features of each song)
models/<run>/epoch-007/checkpoint.json         shapes, digests, metrics
models/<run>/epoch-007/training_state.pt       optimiser and counters, for resuming only
models/<run>/best.json                  which epoch validated best
models/<run>/evaluation.json            the test table beside the baselines
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from config import ModelConfig, as_plain, build_section
from dataset import file_digest
from errors import CheckpointError
from model import AGAIN, BERT4Rec, Catalogue, Memory, Relation

FORMAT_VERSION = 1
WEIGHTS, CATALOGUE = "weights.safetensors", "catalogue.safetensors"
DESCRIPTION, TRAINING_STATE, BEST, SETTINGS = "checkpoint.json", "training_state.pt", "best.json", "settings.json"


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


def save_catalogue(run: Path, model: BERT4Rec) -> None:
    """Write the part of a model that training does not change, once per run."""
    with _explained(run / CATALOGUE):
        beside = run / f".{CATALOGUE}.new"
        save_file({name: buffer.detach().clone() for name, buffer in model.named_buffers()}, beside)
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
    with _explained(target):
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=run))
        try:
            save_file({name: weight.detach().contiguous() for name, weight in model.named_parameters()}, draft / WEIGHTS)
            torch.save(dict(training_state), draft / TRAINING_STATE)
            description = {
                "format_version": FORMAT_VERSION,
                "epoch": epoch,
                "model": as_plain(model.config),
                "relations": _relations_of(model),
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
            if target.exists():
                shutil.rmtree(target)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Turn a failed write into one clear line; torch and safetensors report a full disk in their own ways."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise CheckpointError(f"{target} could not be written ({exc}); the last good checkpoint stays") from exc


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
        settings = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
        checkpoint = Checkpoint(
            model=model.eval(),
            path=folder,
            model_id=f"{run.name}/{folder.name}/{described['weights_digest'][:12]}",
            epoch=described["epoch"],
            settings=settings,
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
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def read_description(folder: Path) -> dict[str, Any]:
    """The checkpoint.json of a checkpoint folder."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = described["format_version"]
        complete = (folder / WEIGHTS).is_file()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{folder} is not a checkpoint of this project ({exc})") from exc
    if version != FORMAT_VERSION or not complete:
        raise CheckpointError(
            f"checkpoint {folder} has format {version} (this version reads {FORMAT_VERSION}) or lacks {WEIGHTS}"
        )
    return dict(described)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that a path means: itself, the best epoch of a run, or that of the newest run below it."""
    if (path / DESCRIPTION).is_file():
        return path
    run = path if (path / SETTINGS).is_file() else newest_run(path)
    if run is None:
        raise CheckpointError(f"no trained model in {path}: run train.py first, or name a run with --model PATH")
    try:
        return run / str(json.loads((run / BEST).read_text(encoding="utf-8"))["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"run {run} has no finished checkpoint yet ({exc}): let train.py finish an epoch") from exc


def newest_run(model_folder: Path) -> Path | None:
    """The newest run below a model folder that has a checkpoint; run names begin with their time."""
    runs = sorted(folder.parent for folder in model_folder.glob(f"*/{BEST}"))
    return runs[-1] if runs else None


def mark_best(run: Path, checkpoint: Path) -> None:
    """Point the run's best.json at a checkpoint, atomically."""
    write_json(run / BEST, {"checkpoint": checkpoint.name})


def prune(run: Path, keep: int) -> None:
    """Remove all but the best and the newest `keep` epoch checkpoints of a run."""
    best = json.loads((run / BEST).read_text(encoding="utf-8"))["checkpoint"]
    for old in sorted(run.glob("epoch-*"))[:-keep]:
        if old.name != best:
            shutil.rmtree(old)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    beside.replace(path)


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
    )
    relations = [
        Relation(
            name=relation["name"],
            songs=buffers[f"memory.{relation['name']}_songs"],
            counts=buffers[f"memory.{relation['name']}_counts"],
            totals=buffers[f"memory.{relation['name']}_totals"],
            key_of_song=buffers.get(f"memory.{relation['name']}_key_of_song"),
            reach=relation["reach"],
            is_counted=relation["is_counted"],
        )
        for relation in described["relations"]
        if relation["name"] != AGAIN
    ]
    again_reach = sum(relation["reach"] for relation in described["relations"] if relation["name"] == AGAIN)
    has_memory = bool(described["relations"])
    memory = Memory(config.d_model, relations, buffers["memory.song_plays"], again_reach) if has_memory else None
    return BERT4Rec(config, catalogue, memory)


def _relations_of(model: BERT4Rec) -> list[dict[str, Any]]:
    if model.memory is None:
        return []
    columns = zip(model.memory.names, model.memory.reaches, model.memory.is_counted, strict=False)
    return [{"name": name, "reach": reach, "is_counted": is_counted} for name, reach, is_counted in columns]


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
