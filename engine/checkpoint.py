"""Runs and checkpoints on disk: written beside and renamed, verified by digest, and free of anything that executes.

models/<run>/settings.json              every setting of the run, and the machine
models/<run>/encoders/                  the encoders that belong to it (joblib, opened only after their digest matched)
models/<run>/epoch-007/weights.safetensors     parameters and the catalogue (artist, album, features of each song)
models/<run>/epoch-007/checkpoint.json         shapes, digests, metrics
models/<run>/epoch-007/training_state.pt       optimiser and counters, for resuming only
models/<run>/best.json                  which epoch validated best
models/<run>/evaluation.json            the test table beside the baselines
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from config import ModelConfig, as_plain, build_section
from errors import CheckpointError
from model import BERT4Rec, Catalogue

FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION, TRAINING_STATE, BEST, SETTINGS = (
    "weights.safetensors", "checkpoint.json", "training_state.pt", "best.json", "settings.json",
)  # fmt: skip


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
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=run))
    try:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, draft / WEIGHTS)
        torch.save(dict(training_state), draft / TRAINING_STATE)
        description = {
            "format_version": FORMAT_VERSION,
            "epoch": epoch,
            "model": as_plain(model.config),
            "counts": {
                "songs": model.n_songs,
                "features": model.embedding.song_features.shape[1],
                "fitted_songs": model.n_fitted_songs,
                "fitted_albums": _rows(model.embedding.album),
                "fitted_artists": _rows(model.embedding.artist),
            },
            "metrics": dict(metrics),
            "weights_digest": _digest(draft / WEIGHTS),
            "training_state_digest": _digest(draft / TRAINING_STATE),
            "encoders_digest": encoders_digest,
            "snapshot_digest": snapshot_digest,
            "trained_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        (draft / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
        _flush(draft)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    except (OSError, SafetensorError, RuntimeError) as exc:  # torch.save reports a full disk as RuntimeError
        raise CheckpointError(f"the checkpoint {target} could not be written ({exc}); the last good one stays") from exc
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint folder (or the best of a run, or the newest run of a model folder) for evaluation or serving.

    Raises CheckpointError when it is missing, truncated, of another format, or does not match its digest.
    """
    folder = find_checkpoint(path)
    described = read_description(folder)
    if _digest(folder / WEIGHTS) != described["weights_digest"]:
        raise CheckpointError(f"{folder / WEIGHTS} does not match its digest (truncated or changed): use another checkpoint")
    try:
        weights = load_file(folder / WEIGHTS, device=str(device))
        model = _empty_model(described, weights).to(device)
        model.load_state_dict(weights)
        run = folder.parent
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
    if not path.is_file() or _digest(path) != described["training_state_digest"]:
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


def _empty_model(described: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> BERT4Rec:
    counts = described["counts"]
    catalogue = Catalogue(
        song_artist=weights["embedding.song_artist"],
        song_album=weights["embedding.song_album"],
        song_features=weights["embedding.song_features"],
        n_fitted_songs=counts["fitted_songs"],
        n_fitted_albums=counts["fitted_albums"],
        n_fitted_artists=counts["fitted_artists"],
    )
    return BERT4Rec(build_section(ModelConfig, described["model"]), catalogue)


def _rows(table: torch.nn.Embedding | None) -> int:
    return 0 if table is None else table.num_embeddings


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    """Make the files durable before the rename makes them visible."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
