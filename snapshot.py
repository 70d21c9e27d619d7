"""The snapshot on disk: what training needs of a database, and nothing else.

    <folder>/current                    the name of the version in use, replaced atomically
    <folder>/<version>/manifest.json    counts, columns, split policy, digests, where it came from
    <folder>/<version>/*.npy            memory-mapped columns
    <folder>/<version>/*.arrow          what the next run of preprocessing reads, where it may read only what is new

Song numbers are kept by an incremental run of preprocessing: training holds `fitted_songs - 1` and no number from there on, and
numbers below that it does not hold are gaps (songs that were known before without it); the same goes for albums and artists.

Features stand once per song, not once per row: `song_artist`, `song_album` (V,) and `song_features` (V, F) are indexed by song
number; sequences are one flat array of song numbers with offsets.

Shape letters: V songs (the three specials included), F feature columns, S sequences, R rows of all sequences together.
"""

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from errors import SnapshotError
from splits import TEST, TRAIN, VALIDATION

FORMAT_VERSION = 3
COLUMNS = ("song_artist", "song_album", "song_features", "sequences", "offsets", "split", "lists", "history_starts")

ROWS_AT_ONCE = 2**22  # where songs are counted


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """An opened snapshot: columns are memory-mapped and read-only."""

    path: Path
    manifest: Mapping[str, Any]
    digest: str
    song_artist: np.ndarray  # (V,) int32
    song_album: np.ndarray  # (V,) int32
    song_features: np.ndarray  # (V, F) float32
    sequences: np.ndarray  # (R,) int32 song numbers
    offsets: np.ndarray  # (S + 1,) int64
    split: np.ndarray  # (S,) uint8: TRAIN, VALIDATION or TEST
    lists: np.ndarray  # (S,) int64 the list that each sequence is a version of
    history_starts: (
        np.ndarray
    )  # (S,) int64 the row at which the history before each begins, the listener's first; else its own first

    @property
    def n_songs(self) -> int:
        """V: song numbers in use, the specials included."""
        return len(self.song_artist)

    @property
    def policy(self) -> str:
        """How sequences were held out: "time", "sequence" or "leave_one_out"."""
        return str(self.manifest["split"]["policy"])

    def indices(self, part: int) -> np.ndarray:
        """The numbers of the sequences in a part; with leave_one_out every sequence is in all three."""
        if self.policy == "leave_one_out":
            return np.arange(len(self.split))
        return np.flatnonzero(np.asarray(self.split) == part)

    def ranges(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """First row and end row (excluded) of what a part may see of each of its sequences, two (n,) int64 arrays.

        With leave_one_out training sees all but the last two songs, validation all but the last, the test everything.
        """
        chosen = self.indices(part)
        starts, ends = self.offsets[chosen], self.offsets[chosen + 1]
        if self.policy == "leave_one_out":
            ends = np.maximum(ends - {TRAIN: 2, VALIDATION: 1, TEST: 0}[part], starts)
        return np.asarray(starts), np.asarray(ends)

    def training_plays(self) -> np.ndarray:
        """How often training plays each song below the fitted ones, (T,) int64; what it does not hold is a gap among them.

        What is held out is not looked at.
        """
        n_fitted = self.manifest["counts"]["fitted_songs"]
        starts, ends = self.ranges(TRAIN)
        rows = np.cumsum(ends - starts)
        cuts = np.searchsorted(rows, np.arange(ROWS_AT_ONCE, rows[-1:].sum(), ROWS_AT_ONCE))
        plays = np.zeros(n_fitted, np.int64)
        for some in zip(np.split(starts, cuts), np.split(ends, cuts), strict=True):
            songs, _ = take_ranges(self.sequences, *some)
            plays += np.bincount(songs[songs < n_fitted], minlength=n_fitted)
        return plays

    def part(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """The songs of a part as one flat array (r,) with offsets (n + 1,); copied, so meant for what fits in memory."""
        return take_ranges(self.sequences, *self.ranges(part))


def take_ranges(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the slices flat[starts[i]:ends[i]] side by side: values (r,) and offsets (n + 1,).

    >>> values, offsets = take_ranges(np.array([7, 8, 9, 10]), np.array([0, 3]), np.array([2, 4]))
    >>> values.tolist(), offsets.tolist()
    ([7, 8, 10], [0, 2, 3])
    """
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    return flat[np.repeat(starts, np.diff(offsets)) + within], offsets


def write_snapshot(
    folder: Path,
    *,
    song_artist: np.ndarray,
    song_album: np.ndarray,
    song_features: np.ndarray,
    feature_names: Sequence[str],
    n_fitted_songs: int,
    n_fitted_albums: int,
    n_fitted_artists: int,
    n_albums: int,
    n_artists: int,
    sequences: np.ndarray | Iterable[np.ndarray],
    offsets: np.ndarray,
    split: np.ndarray,
    encoders_digest: str,
    source: Mapping[str, Any],
    policy: str = "sequence",
    lists: np.ndarray | None = None,
    history_starts: np.ndarray | None = None,
    attachments: Mapping[str, Callable[[Path], None]] | None = None,
) -> Snapshot:
    """Write a new version beside the old one, point `current` at it, and remove the old one.

    An interruption at any moment leaves the old version in use.  `sequences` may come in blocks, one after the other; there are
    `offsets[-1]` rows in all.  `lists` None makes every sequence a list of its own, `history_starts` None leaves every sequence
    without a history.  `attachments` are files beside the columns, by name, and what writes them.
    Raises SnapshotError when the disk is full or the folder cannot be written.
    """
    n_rows = int(offsets[-1])
    columns: dict[str, np.ndarray] = {
        "song_artist": song_artist.astype(np.int32, copy=False),
        "song_album": song_album.astype(np.int32, copy=False),
        "song_features": song_features.astype(np.float32, copy=False),
        "offsets": offsets.astype(np.int64, copy=False),
        "split": split.astype(np.uint8, copy=False),
        "lists": (np.arange(len(split)) if lists is None else lists).astype(np.int64, copy=False),
        "history_starts": (offsets[:-1] if history_starts is None else history_starts).astype(np.int64, copy=False),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder))
        try:
            files = {name: _write_column(draft / f"{name}.npy", [column], column.shape) for name, column in columns.items()}
            blocks = [sequences] if isinstance(sequences, np.ndarray) else sequences
            files["sequences"] = _write_column(draft / "sequences.npy", blocks, (n_rows,))
            for name, write in (attachments or {}).items():
                write(draft / name)
            manifest = {
                "format_version": FORMAT_VERSION,
                "counts": {
                    "songs": len(song_artist), "albums": n_albums, "artists": n_artists,
                    "fitted_songs": n_fitted_songs, "fitted_albums": n_fitted_albums, "fitted_artists": n_fitted_artists,
                    "sequences": len(split), "rows": n_rows,
                },
                "feature_names": list(feature_names),
                "split": {"policy": policy, "sequences": [int((split == part).sum()) for part in (TRAIN, VALIDATION, TEST)]},
                "files": files,
                "attachments": {name: file_digest(draft / name) for name in attachments or {}},
                "encoders_digest": encoders_digest,
                "source": dict(source),
            }  # fmt: skip
            text = json.dumps(manifest, indent=1, sort_keys=True)
            (draft / "manifest.json").write_text(text, encoding="utf-8")
            version = hashlib.sha256(text.encode()).hexdigest()[:16]
            _put_in_use(folder, draft, version)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as exc:
        raise SnapshotError(
            f"the snapshot {folder} could not be written ({exc.strerror}: {exc.filename}); the old one stays in use"
        ) from exc
    return open_snapshot(folder)


def _write_column(path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, ...]) -> str:
    """Write one column as .npy, block after block, and return the file's SHA-256, which is summed on the way."""
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for number, block in enumerate(blocks):
            if number == 0:
                header = io.BytesIO()
                described = {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(header, described)
                sha256.update(header.getvalue())
                file.write(header.getvalue())
            content = np.ascontiguousarray(block).data
            sha256.update(content)
            file.write(content)
    return sha256.hexdigest()


def _put_in_use(folder: Path, draft: Path, version: str) -> None:
    there = folder / version
    if there.exists() and not _hold_the_same(draft, there):  # its name says what it held before it was damaged
        there.rename(folder / f".damaged-{version}")
    if not there.exists():
        draft.rename(there)
    pointer = folder / ".current.new"
    pointer.write_text(version, encoding="utf-8")
    pointer.replace(folder / "current")
    for other in folder.iterdir():
        if other.is_dir() and other.name != version:
            shutil.rmtree(other, ignore_errors=True)


def _hold_the_same(draft: Path, version: Path) -> bool:
    """Whether every file of the draft is in the version as well."""
    return all(
        (version / file.name).exists() and file_digest(version / file.name) == file_digest(file) for file in draft.iterdir()
    )


def open_snapshot(folder: Path, *, verify: bool = False) -> Snapshot:
    """Open the version in use; `verify` also checks every file's digest.

    Raises SnapshotError when there is none, or when it is truncated or of another format.
    """
    path = _version_in_use(folder)
    try:
        text = (path / "manifest.json").read_text(encoding="utf-8")
        manifest = json.loads(text)
        if manifest["format_version"] != FORMAT_VERSION:
            found = manifest["format_version"]
            raise SnapshotError(f"snapshot {path} has format {found}, this version reads {FORMAT_VERSION}: run preprocessing.py")
        columns = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in COLUMNS}
        counts = manifest["counts"]
        agree = (
            len(columns["song_artist"]) == len(columns["song_album"]) == len(columns["song_features"]) == counts["songs"]
            and columns["song_features"].shape[1] == len(manifest["feature_names"])
            and len(columns["sequences"]) == counts["rows"] == columns["offsets"][-1]
            and len(columns["split"]) == len(columns["lists"]) == len(columns["history_starts"]) == counts["sequences"]
            and len(columns["offsets"]) == counts["sequences"] + 1
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as exc:
        raise SnapshotError(f"snapshot {path} is truncated or not a snapshot ({exc}): run preprocessing.py") from exc
    if not agree:
        raise SnapshotError(f"snapshot {path}: columns and manifest disagree on the counts: run preprocessing.py")
    if verify:
        for name, digest in manifest["files"].items():
            if file_digest(path / f"{name}.npy") != digest:
                raise SnapshotError(f"snapshot file {path / name}.npy does not match its digest: run preprocessing.py")
        for name, digest in manifest.get("attachments", {}).items():
            if not (path / name).exists() or file_digest(path / name) != digest:
                raise SnapshotError(f"snapshot file {path / name} does not match its digest: run preprocessing.py")
    return Snapshot(path=path, manifest=manifest, digest=hashlib.sha256(text.encode()).hexdigest(), **columns)


def _version_in_use(folder: Path) -> Path:
    pointer = folder / "current"
    if pointer.is_file():
        return folder / pointer.read_text(encoding="utf-8").strip()
    if (folder / "manifest.json").is_file():
        return folder  # a version that was copied by itself to a machine without a database
    raise SnapshotError(f"no snapshot in {folder}: run preprocessing.py, or name one with --snapshot PATH")


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
