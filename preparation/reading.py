"""Songs and sequences as the two queries yield them, in provisional song numbers.

Both queries stream as Arrow record batches, and songs become int32 numbers while they stream: first those that are known before,
then the catalogue's in its order, then others by first appearance.  Rows go to a file; held in memory are one entry per song and
one per sequence, none per row.

Letters: S sequences; R rows of all sequences.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from config import UNKNOWN
from errors import DataError, SchemaError, SnapshotError
from preprocessing_utils import IdEncoder, as_arrow, mark_starts
from snapshot import take_ranges
from storage.source import Moment, stream_sequences, stream_songs

log = logging.getLogger(__name__)

# Columns of the songs query that are not features, whatever their type.
SONG_IDS = ("song_id", "artist_id", "album_id")
NAMES = ("title", "artist_name", "album_title")
FEATURE_SOURCE = "feature_source"  # a text: who measured the features of a song
SEQUENCE_COLUMNS = ("sequence_id", "song_id", "listened_at", "group_id", "history_id", "is_recommended")

UNKNOWN_TIME = np.iinfo(np.int64).min
ROWS_PER_BLOCK = 1_000_000
BATCHES_AHEAD = 2  # of about 16 MB each


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What the songs query said, a row a song."""

    songs: IdEncoder
    """Provisional numbers; grows while sequences name songs that the catalogue lacks."""
    numbers: np.ndarray  # (n,) int32 the provisional number of each row
    artist_ids: pa.Array
    album_ids: pa.Array
    features: pa.Table

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences of song numbers: sequence i is songs[starts[i]:ends[i]], oldest first."""

    songs: np.ndarray  # (R,) int32, memory-mapped
    starts: np.ndarray  # (S,) int64
    ends: np.ndarray  # (S,) int64
    times: np.ndarray  # (S,) int64 seconds of the latest listened_at, UNKNOWN_TIME where there is none
    groups: np.ndarray  # (S,) int64, equal for the versions of one list
    histories: np.ndarray  # (S,) int64, equal for the sessions of one listener, which stand side by side, oldest first

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def n_rows(self) -> int:
        """Rows of all sequences together."""
        return int((self.ends - self.starts).sum())

    def where(self, chosen: np.ndarray) -> "Sequences":
        """Only the chosen sequences, (S,) bool."""
        if chosen.all():
            return self
        return replace(
            self,
            starts=self.starts[chosen],
            ends=self.ends[chosen],
            times=self.times[chosen],
            groups=self.groups[chosen],
            histories=self.histories[chosen],
        )

    def without_last(self, n: int) -> "Sequences":
        """Every sequence without its last n songs."""
        return replace(self, ends=np.maximum(self.ends - n, self.starts))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All sequences as pairs of flat songs and offsets, about ROWS_PER_BLOCK rows at a time."""
        rows_before = np.cumsum(self.ends - self.starts)
        last_row = int(rows_before[-1]) if len(self) else 0
        edges = np.unique(np.searchsorted(rows_before, np.arange(ROWS_PER_BLOCK, last_row, ROWS_PER_BLOCK), side="right"))
        for first, end in zip([0, *edges], [*edges, len(self)], strict=True):
            starts, ends = self.starts[first:end], self.ends[first:end]
            if len(starts) and (starts[1:] == ends[:-1]).all():  # side by side already
                yield self.songs[starts[0] : ends[-1]], np.append(starts, ends[-1]) - starts[0]
            else:
                yield take_ranges(self.songs, starts, ends)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All sequences that were read, in an order that is the same whatever that of the query or of the runs.

    It is that of their ids, but the sequences of one history stand side by side, oldest first, where the first by id would stand.
    """

    ids: pa.Array
    group_ids: pa.Array
    history_ids: pa.Array
    sequences: Sequences

    @classmethod
    def of(cls, *, songs: np.ndarray, ids: pa.Array, group_ids: pa.Array, history_ids: pa.Array, starts: np.ndarray,
           ends: np.ndarray, times: np.ndarray) -> "Reading":  # fmt: skip
        """Put sequences into their order, number groups and histories; all but `songs` have one entry a sequence."""
        if (order := _order(ids, history_ids, times)) is not None:
            ids, group_ids, history_ids = (column.take(pa.array(order)) for column in (ids, group_ids, history_ids))
            starts, ends, times = starts[order], ends[order], times[order]
        sequences = Sequences(songs=songs, starts=starts, ends=ends, times=times, groups=_group_numbers(group_ids),
                              histories=_group_numbers(history_ids))  # fmt: skip
        return cls(ids=ids, group_ids=group_ids, history_ids=history_ids, sequences=sequences)


def read_songs(
    url: str,
    queries: Path,
    left_out: Counter[str],
    *,
    known: IdEncoder | None = None,
    moment: Moment | None = None,
    progress: bool = True,
) -> Catalogue:
    """Read the songs query: ids and numeric columns, one row a song.

    Songs that `known` has keep their numbers.  Rows without a song id and further rows of the same song (a join with several
    artists makes them) are counted and left out.
    Raises DataError without a row.
    """
    with stream_songs(url, queries, moment=moment) as reader:
        names = [field.name for field in reader.schema if field.name in (*SONG_IDS, FEATURE_SOURCE) or _is_feature(field)]
        batches = [batch.select(names) for batch in _with_progress(reader, "songs", progress)]
        table = pa.Table.from_batches(batches, pa.schema([reader.schema.field(name) for name in names]))
    if not len(table):
        raise DataError("the query songs returned no row: load songs (cli.py import), or correct songs.sql")
    kept = table.filter(pc.is_valid(table["song_id"]))
    left_out["songs without song_id"] += len(table) - len(kept)
    first_rows, ids = _first_rows(as_arrow(kept["song_id"], "song"))
    left_out["rows of songs listed before"] += len(kept) - len(ids)
    kept = kept.take(first_rows) if len(ids) < len(kept) else kept
    features = [name for name in names if name not in (*SONG_IDS, FEATURE_SOURCE)]
    _tell_of_sources(kept)
    log.info("songs: %d rows in, %d songs out; numeric columns: %s", len(table), len(ids), ", ".join(features) or "none")
    songs = IdEncoder("song").extend(ids if known is None else known.ids).extend(ids)
    return Catalogue(
        songs=songs,
        numbers=songs.encode(ids),
        artist_ids=_ids_or_nulls(kept, "artist_id"),
        album_ids=_ids_or_nulls(kept, "album_id"),
        features=kept.select(features),
    )


def _tell_of_sources(songs: pa.Table) -> None:
    """Warn where several programs measured the features: they are scaled as one, and what they call loud may differ."""
    if FEATURE_SOURCE not in songs.column_names:
        return
    counts = pc.value_counts(songs[FEATURE_SOURCE].drop_null()).to_pylist()
    if len(counts) > 1:
        by_size = sorted(counts, key=lambda count: (-count["counts"], str(count["values"])))
        told = ", ".join(f"{count['values']}: {count['counts']} songs" for count in by_size)
        log.warning(
            "features come from %d sources (%s) and are scaled as one: their scales may differ, so better keep one of them",
            len(counts),
            told,
        )


def columns_to_read(columns: Iterable[str], *, leave_out_recommended: bool) -> list[str]:
    """Those columns of the sequences query that matter here.

    `leave_out_recommended` leaves out, and counts, rows whose is_recommended is true, whatever part their sequence will stand in:
    a model that learns what its predecessor proposed narrows with each training, and one that is judged by it is praised for
    agreeing with its predecessor.
    """
    wanted = set(SEQUENCE_COLUMNS) if leave_out_recommended else set(SEQUENCE_COLUMNS) - {"is_recommended"}
    return [name for name in columns if name in wanted]


def read_sequences(
    url: str,
    queries: Path,
    file: "SequenceFile",
    *,
    columns: Sequence[str],
    sequence_ids: Sequence[Any] | None = None,
    moment: Moment | None = None,
    progress: bool = True,
) -> None:
    """Read columns of the sequences query, of all sequences or only of some, into a file.

    Raises SchemaError when the query fails or misses a column.
    """
    with stream_sequences(url, queries, columns=columns, sequence_ids=sequence_ids, moment=moment) as reader:
        for batch in _with_progress(_ahead(reader), "sequences", progress):
            file.append(batch)


class SequenceFile:
    """Takes the rows of the sequences query batch by batch: songs go to a file, one entry per sequence stays in memory.

    `songs` learns ids that it lacks.  A file that is there already is appended to.
    """

    def __init__(self, path: Path, songs: IdEncoder, left_out: Counter[str]):
        self.path = path
        self.n_rows_read = 0
        self._songs = songs
        self._left_out = left_out
        self._n_rows = path.stat().st_size // np.dtype(np.int32).itemsize if path.exists() else 0
        self._last_id: pa.Scalar | None = None
        # One piece a batch, one entry for each sequence that begins in it.
        self._ids: list[pa.Array] = []
        self._starts: list[np.ndarray] = []
        self._times: list[np.ndarray] = []
        self._groups: list[pa.Array] = []
        self._histories: list[pa.Array] = []

    def __enter__(self) -> "SequenceFile":
        self._file = self.path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, batch: pa.RecordBatch) -> None:
        """Number the songs of a batch and note where sequences begin; a sequence may go on in the next batch."""
        self.n_rows_read += len(batch)
        batch = self._without_recommended(self._without_nulls(batch))
        if not len(batch):
            return
        ids = as_arrow(batch["sequence_id"], "sequence")
        is_start = mark_starts(ids)
        is_start[0] = self._last_id is None or not ids[0].equals(self._last_id)
        starts = np.flatnonzero(is_start)
        places = pa.array(starts)
        append_numbers(self._file, _number(self._songs, batch["song_id"]), self.path)
        self._note_times(batch, is_start, starts)
        self._ids.append(ids.take(places))
        self._groups.append(_groups_or_nulls(batch).take(places))
        self._histories.append(_ids_or_nulls(batch, "history_id").take(places))
        self._starts.append(starts + self._n_rows)
        self._n_rows += len(batch)
        self._last_id = ids[-1]

    @property
    def n_sequences(self) -> int:
        """Sequences that were appended."""
        return sum(map(len, self._starts))

    def reading(self) -> Reading:
        """All that was appended.  Raises DataError without a row, SchemaError when a sequence began twice."""
        if not self._ids:
            raise DataError(
                "the query sequences returned no row with sequence_id and song_id"
                f"{self._recommended()}: load sequences, or correct sequences.sql"
            )
        ids = _concatenated(self._ids)
        self._require_contiguous(ids)
        starts = np.concatenate(self._starts)
        return Reading.of(
            songs=np.memmap(self.path, np.int32, mode="r"),
            ids=ids,
            group_ids=_concatenated(self._groups),
            history_ids=_concatenated(self._histories),
            starts=starts,
            ends=np.append(starts[1:], self._n_rows),
            times=np.concatenate(self._times),
        )

    def _without_nulls(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        has_sequence, has_song = pc.is_valid(batch["sequence_id"]), pc.is_valid(batch["song_id"])
        kept = pc.and_(has_sequence, has_song)
        n_kept, n_with_sequence = (pc.sum(flags, min_count=0).as_py() for flags in (kept, has_sequence))
        self._left_out["rows without sequence_id"] += len(batch) - n_with_sequence
        self._left_out["rows without song_id"] += n_with_sequence - n_kept
        return batch if n_kept == len(batch) else batch.filter(kept)

    def _without_recommended(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Without the rows that are marked as recommended by us; where the column is not there, none is."""
        if "is_recommended" not in batch.schema.names:
            return batch
        kept = pc.invert(pc.fill_null(batch["is_recommended"], False))
        n_kept = pc.sum(kept, min_count=0).as_py()
        self._left_out["rows recommended by us"] += len(batch) - n_kept
        return batch if n_kept == len(batch) else batch.filter(kept)

    def _note_times(self, batch: pa.RecordBatch, is_start: np.ndarray, starts: np.ndarray) -> None:
        """Keep the latest time of each sequence; the first rows may belong to the last sequence of the batch before."""
        seconds = _seconds(batch)
        edges = starts if is_start[0] else np.concatenate([[0], starts])
        latest = np.maximum.reduceat(seconds, edges)
        if not is_start[0]:
            before = next(times for times in reversed(self._times) if len(times))
            before[-1] = max(before[-1], latest[0])
            latest = latest[1:]
        self._times.append(latest)

    def _recommended(self) -> str:
        """How an error says that rows were left out on purpose."""
        n = self._left_out["rows recommended by us"]
        return f" besides {n} recommended by us (leave_out_recommended)" if n else ""

    def _require_contiguous(self, ids: pa.Array) -> None:
        if pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py():  # rising, so each comes once
            return
        first_rows, distinct = _first_rows(ids)
        if len(distinct) < len(ids):
            again = np.setdiff1d(np.arange(len(ids)), first_rows)[0]
            raise SchemaError(
                f"the query sequences yields the rows of sequence {ids[again].as_py()!r} in several pieces: "
                "let sequences.sql end with ORDER BY sequence_id and then the place in the sequence"
            )


# --- columns -----------------------------------------------------------------------------------------------------------------


def _is_feature(field: pa.Field) -> bool:
    """Whether a column is numeric, and neither id nor name."""
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return field.name not in (*SONG_IDS, *NAMES, FEATURE_SOURCE) and any(test(field.type) for test in tests)


def _seconds(batch: pa.RecordBatch) -> np.ndarray:
    """listened_at in seconds since 1970, (n,) int64; UNKNOWN_TIME where it is null or absent."""
    if "listened_at" not in batch.schema.names:
        return np.full(len(batch), UNKNOWN_TIME, np.int64)
    seconds = batch["listened_at"].cast(pa.timestamp("s", "UTC"), safe=False).cast(pa.int64())
    return np.asarray(seconds.fill_null(UNKNOWN_TIME))


def _ids_or_nulls(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """A column of ids, or nulls where there is no such column."""
    if name not in table.schema.names:
        return pa.nulls(len(table))
    return as_arrow(table[name], name.removesuffix("_id"))


def _groups_or_nulls(batch: pa.RecordBatch) -> pa.Array:
    """The column group_id, of whatever type, or nulls where there is none."""
    if "group_id" not in batch.schema.names:
        return pa.nulls(len(batch))
    column = batch["group_id"]
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _number(songs: IdEncoder, ids: pa.Array) -> np.ndarray:
    """Provisional numbers (n,) int32; ids that `songs` lacks are learned."""
    ids = as_arrow(ids, "song")
    numbers = songs.encode(ids)
    is_new = numbers == UNKNOWN
    if is_new.any():
        new = ids.filter(pa.array(is_new))
        numbers[is_new] = songs.extend(new).encode(new)
    return numbers


def _first_rows(ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The row in which each distinct id first occurs, and the distinct ids in that order."""
    distinct = ids.dictionary_encode()
    # Arrow numbers the distinct values by first appearance: a row that raises the highest number so far holds a new one.
    highest = np.maximum.accumulate(np.asarray(distinct.indices))
    return np.flatnonzero(np.diff(highest, prepend=-1)), distinct.dictionary


def _group_numbers(groups: pa.Array) -> np.ndarray:
    """Groups or histories as numbers, (S,) int64; a sequence without one is one of its own."""
    if pa.types.is_null(groups.type):
        return np.arange(len(groups))
    distinct = groups.dictionary_encode()
    alone = len(distinct.dictionary) + np.arange(len(groups))
    return np.where(np.asarray(groups.is_null()), alone, np.asarray(distinct.indices.fill_null(0)))


def _order(ids: pa.Array, history_ids: pa.Array, times: np.ndarray) -> np.ndarray | None:
    """The places of sequences in the order of a Reading, (S,) int64; None where they stand so already.

    An unknown time comes first; sequences of one history and one time keep the order of their ids.
    """
    by_id = _rising(ids)
    if history_ids.null_count == len(history_ids):
        return by_id
    by_id = np.arange(len(ids)) if by_id is None else by_id
    _, first, history = np.unique(_group_numbers(history_ids)[by_id], return_index=True, return_inverse=True)
    return np.asarray(by_id[np.lexsort((times[by_id], first[history]))])


def _rising(ids: pa.Array) -> np.ndarray | None:
    """The places of ids in rising order, (S,) int64; None where they rise already."""
    if len(ids) < 2 or not pc.any(pc.less(ids.slice(1), ids.slice(0, len(ids) - 1))).as_py():
        return None
    return np.asarray(pc.sort_indices(ids)).astype(np.int64)


def _concatenated(pieces: list[pa.Array]) -> pa.Array:
    return pa.chunked_array(pieces).combine_chunks()


def _ahead(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches of a reader, read ahead by a thread: the driver waits and decodes without holding Python's lock."""
    waiting: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
    is_over = threading.Event()

    def put(item: pa.RecordBatch | BaseException | None) -> None:
        while not is_over.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for batch in reader:
                put(batch)
                if is_over.is_set():
                    return
            put(None)
        except BaseException as exc:  # whatever it is, it is raised where the batches are taken
            put(exc)

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_over.set()
        thread.join()


def _with_progress(reader: Iterable[pa.RecordBatch], name: str, progress: bool) -> Iterator[pa.RecordBatch]:
    """The batches of a reader, with a bar that counts rows on standard error."""
    with tqdm(desc=f"reading {name}", unit=" rows", unit_scale=True, disable=not progress) as bar:
        for batch in reader:
            bar.update(batch.num_rows)
            yield batch


def append_numbers(file: Any, numbers: np.ndarray, path: Path) -> None:
    """Append song numbers to a file; raises SnapshotError when the disk is full."""
    try:
        file.write(np.ascontiguousarray(numbers, dtype=np.int32).data)
    except OSError as exc:
        raise SnapshotError(f"{path.parent} could not be written ({exc.strerror}); the old snapshot stays in use") from exc
