"""The fitted encoders that belong together, on disk: a joblib file each, and a manifest that names them and their digests.

    <folder>/manifest.json              which files belong together, the SHA-256 of each, and the libraries' versions
    <folder>/songs-<digest>.joblib      and the same for albums, artists and features
    <folder>/manifest-<digest>.json     a set that is staged: beside the one in use, for the snapshot that comes into use with it

The SHA-256 of the manifest is the digest of the set; the snapshot and every checkpoint name the one they were made with.
"""

import hashlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import sklearn

from errors import EncoderError
from preprocessing_utils import FeatureEncoder, IdEncoder

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The fitted encoders that belong together: one set, one digest."""

    songs: IdEncoder
    albums: IdEncoder
    artists: IdEncoder
    features: FeatureEncoder


_CLASSES: dict[str, type] = {"songs": IdEncoder, "albums": IdEncoder, "artists": IdEncoder, "features": FeatureEncoder}


def save_encoders(encoders: Encoders, folder: Path) -> str:
    """Write one joblib file per encoder and a manifest of their digests into a folder; returns the manifest's SHA-256.

    An interruption at any moment leaves either the old or the new set in use, see `staged_encoders`.
    Raises EncoderError when the disk is full or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder) as draft:
            digest = draft_encoders(encoders, Path(draft))
            with staged_encoders(Path(draft), folder, digest):
                pass
            install_encoders(folder, digest)
    except OSError as exc:
        raise EncoderError(f"the encoders in {folder} could not be written ({exc.strerror}); the old ones stay in use") from exc
    return digest


def draft_encoders(encoders: Encoders, draft: Path) -> str:
    """Write a set into an empty folder, ready for `staged_encoders`; returns its digest."""
    files = {}
    for name in _CLASSES:
        stream = io.BytesIO()
        joblib.dump(getattr(encoders, name), stream)
        sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
        files[name] = {"file": f"{name}-{sha256[:12]}.joblib", "sha256": sha256}
        _write_through(draft / files[name]["file"], stream.getvalue())
    versions = {
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }
    manifest = json.dumps(
        {"format_version": FORMAT_VERSION, "files": files, "versions": versions}, indent=1, sort_keys=True
    ).encode()
    _write_through(draft / MANIFEST, manifest)
    return hashlib.sha256(manifest).hexdigest()


@contextmanager
def staged_encoders(draft: Path, folder: Path, digest: str) -> Iterator[None]:
    """Put a drafted set beside the one in use, where `load_encoders` finds it by its digest; an error takes it away again.

    Whoever puts a snapshot in use does so while this is held, and then installs the set: whatever is in use at any moment, the
    encoders that belong to it can be loaded.  File names carry their digest, so nothing of the set in use is replaced.  Both
    folders must be on one file system.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (draft / MANIFEST).rename(draft / _staged_name(digest))
    new = [name for name in sorted(entry.name for entry in draft.iterdir()) if not (folder / name).exists()]
    for name in new:
        (draft / name).replace(folder / name)
    try:
        yield
    except BaseException:  # an interruption too leaves no staged set behind
        for name in new:
            (folder / name).unlink(missing_ok=True)
        raise


def install_encoders(folder: Path, digest: str) -> None:
    """Make a staged set the one in use; replacing the manifest is the moment of change, and only then the old files go."""
    (folder / _staged_name(digest)).replace(folder / MANIFEST)
    files = _files_of((folder / MANIFEST).read_bytes(), folder)
    names = {entry["file"] for entry in files.values()}
    for old in [*folder.glob("*.joblib"), *folder.glob(_staged_name("*"))]:
        if old.name not in names:
            old.unlink(missing_ok=True)


def _staged_name(digest: str) -> str:
    return f"manifest-{digest[:12]}.json"


def encoders_digest(folder: Path) -> str:
    """The digest of the set in use, without opening it.  Raises EncoderError when there is none."""
    return hashlib.sha256(_read(folder / MANIFEST, folder)).hexdigest()


def has_encoders(folder: Path, digest: str) -> bool:
    """Whether the set with that digest is in use, or staged by a run that was interrupted after its snapshot came into use."""
    return hashlib.sha256(_manifest(folder, digest)).hexdigest() == digest


def _manifest(folder: Path, digest: str | None) -> bytes:
    """The manifest of the staged set with that digest, where there is one, else that of the set in use."""
    if digest is not None and (staged := folder / _staged_name(digest)).exists():
        content = _read(staged, folder)
        if hashlib.sha256(content).hexdigest() == digest:
            return content
    return _read(folder / MANIFEST, folder)


def load_encoders(folder: Path, expected_digest: str | None = None) -> Encoders:
    """Read a set back, opening a joblib file only after its bytes match the manifest.

    A joblib file can execute code when opened, so pass the digest that the snapshot or checkpoint names as `expected_digest`:
    then nothing is opened unless it is exactly the set that was saved with it.  Without it only files that do not fit their
    manifest are refused, which finds damage, not malice.
    Raises EncoderError when the set is missing, damaged, of another format, or another one than expected.
    """
    manifest = _manifest(folder, expected_digest)
    digest = hashlib.sha256(manifest).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise EncoderError(
            f"the encoders in {folder} (digest {digest[:12]}) are not those that were asked for (digest {expected_digest[:12]}): "
            "name the folder that belongs to the checkpoint or snapshot, or run preprocessing.py and train again"
        )
    contents = {name: _verified(folder, name, entry) for name, entry in _files_of(manifest, folder).items()}
    encoders = {name: joblib.load(io.BytesIO(content)) for name, content in contents.items()}
    for name, cls in _CLASSES.items():
        if not isinstance(encoders[name], cls):
            raise EncoderError(f"{folder} holds no {cls.__name__} under {name!r}: run preprocessing.py")
    return Encoders(**encoders)


def _files_of(manifest: bytes, folder: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(manifest)
        if content["format_version"] != FORMAT_VERSION:
            found = content["format_version"]
            raise EncoderError(
                f"the encoders in {folder} have format {found}, this version reads {FORMAT_VERSION}: run preprocessing.py"
            )
        return {name: {key: str(content["files"][name][key]) for key in ("file", "sha256")} for name in _CLASSES}
    except (ValueError, KeyError, TypeError) as exc:
        raise EncoderError(f"{folder / MANIFEST} is damaged ({exc}): run preprocessing.py") from exc


def _verified(folder: Path, name: str, entry: Mapping[str, str]) -> bytes:
    """The bytes of one file: read once, so that what was checked is what will be opened."""
    content = _read(folder / Path(entry["file"]).name, folder)
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise EncoderError(
            f"{entry['file']} in {folder} does not match its digest, so the {name} encoder was not opened: run preprocessing.py"
        )
    return content


def _read(path: Path, folder: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise EncoderError(
            f"no encoders in {folder} ({path.name}: {exc.strerror}): run preprocessing.py, or name others with --encoders-folder"
        ) from exc


def _write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk, so that a later rename never points to an empty one."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
