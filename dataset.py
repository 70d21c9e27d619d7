"""The snapshot on disk, the splits, and the batches made from it.

A snapshot is what training needs of a database, and nothing else:

    <folder>/current                    the name of the version in use, replaced atomically
    <folder>/<version>/manifest.json    counts, columns, split policy, digests, where it came from
    <folder>/<version>/*.npy            memory-mapped columns
    <folder>/<version>/*.arrow          what the next run of preprocessing reads, where it may read only what is new

Song numbers are kept by an incremental run of preprocessing: training holds `fitted_songs - 1` and no number from there on, and
numbers below that it does not hold are gaps (songs that were known before without it); the same goes for albums and artists.

Features stand once per song, not once per row: `song_artist`, `song_album` (V,) and `song_features` (V, F) are indexed by song
number; sequences are one flat array of song numbers with offsets.  A batch is song numbers only, (B, L).

Shape letters: V songs (the three specials included), F feature columns, S sequences, R rows of all sequences together,
B batch, L length of a row, M places asked for in a batch.
"""

import hashlib
import io
import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from config import MASK, PAD, TrainingConfig
from errors import DataError, SnapshotError
from sources import Origin

FORMAT_VERSION = 3
COLUMNS = ("song_artist", "song_album", "song_features", "sequences", "offsets", "split", "lists", "history_starts")

TRAIN, VALIDATION, TEST = 0, 1, 2
LEFT_OUT = 3  # dated versions of a training list from after the cut, which would let training see the future

MOST_VERSIONS = 5  # of one held-out list
ROUNDING = 1e-9  # 10 * (1 - 2 * 0.3) is 3.9999999999999996

ROWS_AT_ONCE = 2**22  # where songs are counted

# Rows of similar length share a batch: rows are shuffled, then sorted by length within pools of this many batches.
BATCHES_PER_POOL = 32


# --- the snapshot ------------------------------------------------------------------------------------------------------------


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


# --- splits ------------------------------------------------------------------------------------------------------------------


def split_by_time(times: np.ndarray, groups: np.ndarray, train_size: float, rng: np.random.Generator) -> np.ndarray:
    """Train on what comes before a moment, hold out what comes after it: (S,) uint8 of TRAIN, VALIDATION, TEST and LEFT_OUT.

    `times` (S,) are seconds, `groups` (S,) numbers shared by the versions of one list.  The moment is where `train_size` of the
    sequences have passed.  Where lists have versions before and after it, it is moved back to leave twice as many sequences
    after it, and a drawn share of those lists is held out whole, so that no list stands on both sides: earlier versions of
    held-out lists and later versions of training lists are LEFT_OUT.  Of each held-out list at most MOST_VERSIONS versions are
    kept, or a list that was saved every day would outweigh all others.  Held-out lists are dealt in turn to test and
    validation, so that both come from the same time.  Raises DataError when nothing comes before or after.
    """
    first, last, index = _spans(times, groups)
    moment = _moment(times, train_size)
    both_sides = (first < moment) & (last >= moment)
    if both_sides.any():
        moment = _moment(times, max(train_size / 2, 1 - 2 * (1 - train_size)))
        both_sides = (first < moment) & (last >= moment)
    else:  # two new lists at least, where there are three in all: one to validate, one to test
        moment = min(moment, int(np.sort(first)[-2 if len(first) > 2 else -1]))
    drawn = rng.permutation(np.flatnonzero(both_sides))
    new = np.flatnonzero(first >= moment)
    held_out = np.concatenate(
        [new[np.argsort(first[new], kind="stable")], drawn[: int(len(drawn) * _share_drawn(train_size) + ROUNDING)]]
    )
    after = times >= moment
    kept = after & _evenly_spaced(times, index, after, MOST_VERSIONS)

    side_of_list = np.full(len(first), TRAIN, np.uint8)
    side_of_list[held_out] = _dealt_in_turn(np.bincount(index[kept], minlength=len(first))[held_out])
    is_training = side_of_list[index] == TRAIN
    side = np.where(is_training, np.where(after, LEFT_OUT, TRAIN), np.where(kept, side_of_list[index], LEFT_OUT)).astype(np.uint8)
    if not (side == TRAIN).any() or not len(held_out):
        raise DataError(f"all {len(first)} lists begin at the same time: set split to sequence")
    return side


def _spans(times: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last time of each list, (G,) each, and the list of each sequence, (S,) in 0..G-1."""
    _, index = np.unique(groups, return_inverse=True)
    first, last = np.full(index.max() + 1, np.iinfo(np.int64).max), np.full(index.max() + 1, np.iinfo(np.int64).min)
    np.minimum.at(first, index, times.astype(np.int64))
    np.maximum.at(last, index, times.astype(np.int64))
    return first, last, index


def _moment(times: np.ndarray, share_before: float) -> int:
    """The time before which that share of the sequences lies."""
    return int(np.sort(times)[min(int(len(times) * share_before + ROUNDING), len(times) - 1)])


def _share_drawn(train_size: float) -> float:
    """The share of the lists on both sides that is held out: three in ten for a train_size of 0.9, never over half.

    Each one costs training its earlier versions, each one less makes validation and test smaller.
    """
    return min(0.5, 3 * (1 - train_size))


def _evenly_spaced(times: np.ndarray, index: np.ndarray, eligible: np.ndarray, most: int) -> np.ndarray:
    """Mark at most `most` of the eligible sequences of each list, evenly spaced in time order, (S,) bool."""
    order = np.lexsort((times, index))
    order = order[eligible[order]]
    begins = np.concatenate([[True], np.diff(index[order]) != 0]) if len(order) else np.zeros(0, bool)
    number = np.cumsum(begins) - 1
    place = np.arange(len(order)) - np.flatnonzero(begins)[number]
    size = np.bincount(number)[number] if len(order) else place
    step = (place * most) // np.maximum(size, most)
    first_of_step = np.concatenate([[True], (np.diff(step) != 0) | begins[1:]]) if len(order) else begins
    marked = np.zeros(len(times), bool)
    marked[order[first_of_step | (size <= most)]] = True
    return marked


def _dealt_in_turn(sizes: np.ndarray) -> np.ndarray:
    """TEST or VALIDATION for held-out lists of these sizes, each to the part that has fewer sequences so far."""
    sides, ahead = [], 0  # ahead: by how many sequences the test leads
    for size in sizes.tolist():
        sides.append(TEST if ahead <= 0 else VALIDATION)
        ahead += size if ahead <= 0 else -size
    return np.array(sides, np.uint8)


def split_by_sequence(groups: np.ndarray, train_size: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out lists at random, versions of one list together: (S,) uint8 of TRAIN, VALIDATION and TEST.

    With at least three lists each part gets one.  Raises DataError with fewer than two lists.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(f"{len(sizes)} list cannot be split into training and held-out parts: at least two are needed")
    order = rng.permutation(len(sizes))
    side = np.empty(len(sizes), np.uint8)
    side[order] = _sides_in_order(sizes[order], train_size)
    return side[index]


def _sides_in_order(sizes: np.ndarray, train_size: float) -> np.ndarray:
    """Deal lists of these sizes, in this order, to TRAIN, VALIDATION and TEST; of three lists or more each part gets one."""
    share_before = (np.cumsum(sizes) - sizes) / sizes.sum()
    sides = np.select([share_before < train_size, share_before < (1 + train_size) / 2], [TRAIN, VALIDATION], TEST)
    sides[-1] = TEST
    if len(sizes) > 2 and VALIDATION not in sides:
        sides[-2] = VALIDATION
    return sides


# --- batches -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A training batch: rows, the places that are asked for, and what stands there, which in cloze rows is hidden by MASK."""

    songs: Tensor  # (B, L) int64, left-padded with PAD
    places: Tensor  # (M,) int64 indices into the B * L flattened places
    targets: Tensor  # (M,) int64 song numbers
    origin: Origin  # the list of each row
    remembered: Tensor | None = None  # (m,) int64 indices into `places` at which the memory is asked; None: everywhere


def numbered_lists(lists: np.ndarray) -> np.ndarray:
    """The lists of the training sequences (S,) numbered 0..G-1, as everybody who counts or trains numbers them."""
    return np.unique(lists, return_inverse=True)[1].astype(np.int64)


def fold_of_lists(n_lists: int, folds: int) -> np.ndarray:
    """Deal lists into folds of equal size, neighbours into one: (G,) int64 in 0..folds-1.

    Where lists come in the order of time, leaving a fold out is then like the time after training: with what is close in time go
    songs that were new, and a memory learns what to make of songs that nobody has played.
    """
    return np.arange(n_lists) * folds // max(1, n_lists)


class Windows(NamedTuple):
    """Rows to be made into a batch, as places in the flat array of songs, each (B,) int64 and on the host."""

    firsts: Tensor  # where the window's sequence begins, or the history before it
    ends: Tensor  # where the window ends; it reaches back up to row_len songs, but not before `firsts`
    lists: Tensor  # the list that the window's sequence is a version of
    only_last: Tensor  # bool: only the last song is hidden
    own: Tensor  # songs before its end that belong to the window's sequence, and may be hidden

    def take(self, rows: Tensor | slice) -> "Windows":
        """Some of the windows."""
        return Windows(*(column[rows] for column in self))


class Asked(NamedTuple):
    """Windows and the places that are asked for in them.  Lengths alone decide that, so no song has been read yet."""

    windows: Windows  # (B,)
    row: Tensor  # (M,) the row of each such place, rising
    back: Tensor  # (M,) songs between the place and the end of its row: 0 for the last one
    remembered: Tensor | None = None  # (M,) bool: the memory is asked as well; None: everywhere

    def width(self, row_len: int) -> int:
        """L, the longest row, at most `row_len`."""
        return min(row_len, int((self.windows.ends - self.windows.firsts).max()))

    def places(self, width: int) -> Tensor:
        """The places (M,) in rows that are laid out L wide."""
        return self.row * width + (width - 1) - self.back

    def share(self, rank: int, n_shares: int) -> "Asked":
        """Every n-th row, from row `rank` on."""
        mine = self.row % n_shares == rank
        remembered = None if self.remembered is None else self.remembered[mine]
        return Asked(self.windows.take(slice(rank, None, n_shares)), self.row[mine] // n_shares, self.back[mine], remembered)


class TrainingRows:
    """The training part as tensors; every batch is index arithmetic on them.

    A sequence longer than `seq_len` is cut into adjoining windows whose phase is drawn anew in every epoch, so that all of a long
    history is used and no place is favoured.  The songs are a view of the memory-mapped file, or a copy on `device`; the rest is
    on the host, where the shapes of batches are so known without asking a device for them.
    """

    def __init__(
        self,
        sequences: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        seq_len: int,
        device: torch.device | str = "cpu",
        lists: np.ndarray | None = None,
        *,
        history_starts: np.ndarray | None = None,
        row_len: int | None = None,
        folds: int = 2,
        hides: bool = True,
    ):
        """`lists` (S,) names the list that each sequence is a version of; None: each is its own.

        Rows reach back into the history before their sequence, to `history_starts` (S,); None: sequences have none.

        Rows are cut to `row_len` songs (None: `seq_len`), of which the last `seq_len` are predicted.  `folds` as in MemoryConfig.
        Where it `hides`, the songs that are asked for do not stand in the rows.
        """
        usable = ends - starts >= 2
        self.flat = _view_of(sequences).to(device)  # (R,) int32
        self.starts = torch.from_numpy(np.ascontiguousarray(starts[usable]))  # (S,)
        self.ends = torch.from_numpy(np.ascontiguousarray(ends[usable]))  # (S,)
        reached = starts if history_starts is None else history_starts
        self.firsts = torch.from_numpy(np.ascontiguousarray(reached[usable]))  # (S,)
        self.seq_len, self.hides = seq_len, hides
        self.row_len = max(seq_len, row_len or 0)
        if not len(self.starts):
            raise DataError("no training sequence has two songs: nothing can be learned from this snapshot")
        lists = np.arange(len(starts)) if lists is None else np.asarray(lists)
        number = numbered_lists(lists)
        self.lists = torch.from_numpy(number[usable])  # (S,) 0..G-1
        self.editions = torch.from_numpy(1 + fold_of_lists(int(number.max()) + 1, folds))  # (G,)

    def epoch(
        self, batch_size: int, generator: torch.Generator, *, last_item_probability: float = 0.0, first: int = 0
    ) -> Iterator[Windows]:
        """All windows once, in random order, B at a time; batches before number `first` are passed over unmade.

        In a share of `last_item_probability` of the windows the end is moved to a random earlier place, by less than one window,
        so that every window of a long history keeps its own targets; where songs are hidden, it will be the last one alone.
        """
        sequence, ends = self._cut(generator)
        firsts = self.firsts[sequence]
        only_last = torch.rand(len(ends), generator=generator) < last_item_probability
        earliest = torch.minimum(torch.maximum(self.starts[sequence] + 2, ends - self.seq_len + 1), ends)
        moved = earliest + (torch.rand(len(ends), generator=generator) * (ends - earliest + 1)).long()
        ends = torch.where(only_last, torch.minimum(moved, ends), ends)
        windows = Windows(firsts, ends, self.lists[sequence], only_last, ends - self.starts[sequence])
        order = torch.randperm(len(ends), generator=generator)
        order = self._sort_within_pools(order, (ends - firsts).clamp(max=self.row_len), batch_size * BATCHES_PER_POOL)
        numbers = torch.randperm(math.ceil(len(order) / batch_size), generator=generator)
        for number in numbers[first:].tolist():
            yield windows.take(order[number * batch_size : (number + 1) * batch_size])

    def n_batches(self, batch_size: int) -> int:
        """Batches in an epoch on average: how many windows a long sequence makes depends on its phase."""
        lengths = (self.ends - self.starts).double()
        windows = torch.where(lengths > self.seq_len, lengths / self.seq_len + 1, 1.0).sum()
        return max(1, math.ceil(float(windows) / batch_size))

    def _cut(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut every sequence into windows, long ones with a random phase: the sequence and the end of each window, (W,) both."""
        lengths = self.ends - self.starts
        phase = (torch.rand(len(lengths), generator=generator) * self.seq_len).long()
        phase = torch.where(lengths > self.seq_len, phase, torch.zeros_like(phase))
        # Ends are counted backwards from the sequence's end: end, end - L + phase, end - 2L + phase, ...
        n_windows = torch.div(lengths - phase + self.seq_len - 1, self.seq_len, rounding_mode="floor") + (phase > 0)
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), n_windows)
        nth = torch.arange(len(sequence)) - (torch.cumsum(n_windows, 0) - n_windows)[sequence]
        back = torch.where((nth > 0) & (phase[sequence] > 0), phase[sequence] + (nth - 1) * self.seq_len, nth * self.seq_len)
        ends = self.ends[sequence] - back
        long_enough = ends - self.starts[sequence] >= 2
        return sequence[long_enough], ends[long_enough]

    @staticmethod
    def _sort_within_pools(order: Tensor, lengths: Tensor, pool: int) -> Tensor:
        """Sort rows by length inside each pool of rows, so that a batch holds rows of like length and pads little."""
        pool_number = torch.div(torch.arange(len(order)), pool, rounding_mode="floor")
        key = pool_number * (lengths.max() + 1) + lengths[order]
        return order[torch.argsort(key, stable=True)]


def _view_of(array: np.ndarray) -> Tensor:
    """A tensor over the memory of an array, which may be a read-only map of a file: nothing may be written to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def ask(rows: TrainingRows, windows: Windows, config: TrainingConfig, generator: torch.Generator) -> Asked:
    """Choose the places to predict: some, which are hidden, or where nothing is hidden every one."""
    if rows.hides:
        return mask(windows, rows.seq_len, config, generator)
    return ask_everywhere(windows, rows.seq_len, rows.row_len, config.memory_places or 1, generator)


def ask_everywhere(windows: Windows, seq_len: int, row_len: int, memory_places: int, generator: torch.Generator) -> Asked:
    """All of the last `seq_len` places that have a song before them, for a causal encoder (SASRec, Kang and McAuley 2018, 3.5).

    The memory, which looks songs up at each place anew, is asked at `memory_places` of each row, drawn at random.
    """
    have_one_before = (windows.ends - windows.firsts).clamp(max=row_len) - 1
    n_asked = torch.minimum(windows.own.clamp(max=seq_len), have_one_before)  # (B,)
    back = torch.arange(int(n_asked.max()))
    is_asked = back < n_asked[:, None]
    chance = torch.rand(is_asked.shape, generator=generator)
    row, back = is_asked.nonzero(as_tuple=True)
    return Asked(windows, row, back, remembered=_least_of_each_row(chance, is_asked, memory_places)[row, back])


def mask(windows: Windows, seq_len: int, config: TrainingConfig, generator: torch.Generator) -> Asked:
    """Choose what to hide for the cloze objective (BERT4Rec, Sun et al. 2019, section 3.6).

    Where `only_last` says so it is the last song alone, as it is when the model is used; in the other rows each of the last
    `seq_len` places is hidden with `cloze_probability`, at least one.  What stands in the history is not hidden: the lists that
    it belongs to are not left out of what a memory looks up.
    """
    lengths = windows.own.clamp(max=seq_len)  # (B,)
    back = torch.arange(int(lengths.max()))
    chance = torch.rand(len(lengths), len(back), generator=generator).masked_fill(back >= lengths[:, None], 2.0)
    hidden = chance < config.cloze_probability
    hidden |= chance == chance.amin(dim=1, keepdim=True)  # at least one
    hidden = torch.where(windows.only_last[:, None], back == 0, hidden)
    row, back = hidden.nonzero(as_tuple=True)
    if config.memory_places is None:
        return Asked(windows, row, back)
    return Asked(windows, row, back, remembered=_least_of_each_row(chance, hidden, config.memory_places)[row, back])


def _least_of_each_row(chance: Tensor, candidates: Tensor, n: int) -> Tensor:
    """The candidates (B, L) with the `n` least chances of each row, or all where a row has fewer: (B, L) bool."""
    chance = chance.masked_fill(~candidates, torch.inf)
    return candidates & (chance <= chance.kthvalue(min(n, chance.shape[1]), dim=1, keepdim=True).values)


def training_batch(rows: TrainingRows, asked: Asked) -> Batch:
    """Gather the songs of the rows and hide those that are to be predicted; `rows` hold their songs on the host.

    Rows are cut on the left to the last `row_len` songs before their end and padded on the left.
    """
    width = asked.width(rows.row_len)
    places = asked.places(width)
    songs, targets = gather_songs(rows.flat, asked.windows.firsts, asked.windows.ends, places, width, hides=rows.hides)
    remembered = None if asked.remembered is None else asked.remembered.nonzero()[:, 0]
    return Batch(songs=songs, places=places, targets=targets, origin=origin_of_rows(rows, asked), remembered=remembered)


def origin_of_rows(rows: TrainingRows, asked: Asked) -> Origin:
    """The list of each row, and the edition of the memory that leaves it out."""
    lists = asked.windows.lists
    return Origin(lists=lists, editions=rows.editions[lists])


def gather_songs(
    flat: Tensor, firsts: Tensor, ends: Tensor, places: Tensor, width: int, *, hides: bool = True
) -> tuple[Tensor, Tensor]:
    """Rows (B, L), with MASK at the places (M,) where it `hides`, and what stood there (M,); all tensors are on one device."""
    songs = left_padded(flat, firsts, ends, width).flatten()
    shown = songs.index_fill(0, places, MASK) if hides else songs
    return shown.view(len(ends), width), songs[places]


def left_padded(flat: Tensor, firsts: Tensor, ends: Tensor, width: int) -> Tensor:
    """Gather flat[end - L : end] for each row, PAD where that reaches before the row's first: (B, L) int64."""
    index = ends[:, None] - width + torch.arange(width, device=flat.device)  # (B, L)
    inside = index >= firsts[:, None]
    return torch.where(inside, flat[index.clamp(min=0)].long(), PAD)


def inference_batch(prefixes: Sequence[np.ndarray], seq_len: int) -> Tensor:
    """Rows for validation and serving: the last seq_len - 1 songs, then MASK; padded on the left, (B, L) int64.

    >>> inference_batch([np.array([5, 6, 7]), np.array([8])], seq_len=3).tolist()
    [[6, 7, 1], [0, 8, 1]]
    """
    kept = [prefix[-(seq_len - 1) :] for prefix in prefixes]
    L = 1 + max((len(prefix) for prefix in kept), default=0)
    songs = np.full((len(kept), L), PAD, np.int64)
    songs[:, -1] = MASK
    lengths = np.array([len(prefix) for prefix in kept])
    inside = np.arange(L - 1) >= (L - 1 - lengths)[:, None]
    if inside.any():
        songs[:, :-1][inside] = np.concatenate(kept)
    return torch.from_numpy(songs)
