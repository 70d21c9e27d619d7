"""One checkpoint: written beside and renamed, verified by digest, and free of anything that executes.

It is a folder of its run (see `engine/runs.py`), and loaded with what is the run's: catalogue, settings and encoders.
"""

import json
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

from engine.description import DESCRIPTION, FORMAT_VERSION, WEIGHTS, describe_model, empty_model, read_description, stored_buffers
from engine.files import flush, put_in_place, writing
from engine.runs import find_checkpoint, read_settings
from engine.states import TRAINING_STATE
from errors import CheckpointError
from model import BERT4Rec
from snapshot import file_digest

CATALOGUE, MAP = "catalogue.safetensors", "map.json"


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


def save_catalogue(run: Path, model: BERT4Rec) -> None:
    """Write the part of a model that training does not change, once per run."""
    with writing(run / CATALOGUE):
        beside = run / f".{CATALOGUE}.new"
        save_file(stored_buffers(model), beside)
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
                **describe_model(model),
                "metrics": dict(metrics),
                "weights_digest": file_digest(draft / WEIGHTS),
                "catalogue_digest": file_digest(run / CATALOGUE),
                "training_state_digest": file_digest(draft / TRAINING_STATE),
                "encoders_digest": encoders_digest,
                "snapshot_digest": snapshot_digest,
                "trained_at": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
            (draft / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
            flush(draft)
            put_in_place(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


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
        model = empty_model(described, buffers)
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


def load_catalogue(run: Path) -> dict[str, torch.Tensor]:
    """The part of a run's model that training does not change."""
    try:
        return dict(load_file(run / CATALOGUE))
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"{run / CATALOGUE} cannot be read ({exc}): start a new run") from exc


def model_id_of(checkpoint: Path) -> str:
    """The id under which a checkpoint's answers are known, without loading it.  Raises CheckpointError where it is none."""
    return _model_id(checkpoint, read_description(checkpoint))


def _model_id(checkpoint: Path, described: Mapping[str, Any]) -> str:
    return f"{checkpoint.parent.name}/{checkpoint.name}/{described['weights_digest'][:12]}"
