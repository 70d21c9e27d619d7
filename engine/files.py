"""Files written beside and renamed: whatever happens meanwhile, the old one stays, and a write that fails is one clear line."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from errors import CheckpointError

FULL_BELOW_MB = 100  # a failed write with less than this free is put down to the disk


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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically; CheckpointError when the disk is full or the folder cannot be written."""
    with writing(path):
        replace_text(path, json.dumps(content, indent=1, default=str))


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically; where that fails the old one stays, and the error passes through."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def put_in_place(draft: Path, target: Path) -> None:
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


def flush(folder: Path) -> None:
    """Make the files durable before the rename makes them visible."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
