"""From PostgreSQL to encoders and snapshot: read, clean, split, encode, write.

    python preprocessing.py                                        the embedded server, schema music
    DATABASE_URL=postgresql://me@host/db python preprocessing.py   your own server, with --queries-folder YOUR_QUERIES
    python preprocessing.py --split leave_one_out --snapshot .local/leave-one-out

Both queries stream as Arrow record batches, and songs become int32 numbers while they stream: first provisional ones (the
catalogue's order, then first appearance), in a file beside the snapshot; after the split they are replaced by the final
ones, which fall with training frequency.  Held in memory are one entry per song and one per sequence, none per row.  Encoders are
fitted on the training part alone.  Until the very end nothing that is in use is touched.

Letters: V songs, the three specials included; F features; S sequences; R rows of all sequences.
"""

import argparse
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

import dataset
from config import FIRST_NUMBER, MASK, PAD, UNKNOWN, Config, PreprocessingConfig, add_arguments, as_plain, config_from_arguments
from dataset import LEFT_OUT, TEST, TRAIN, VALIDATION, Snapshot, take_ranges, write_snapshot
from errors import DataError, EncoderError, SchemaError, SnapshotError, exit_code_of
from preprocessing_utils import (
    Encoders,
    FeatureEncoder,
    IdEncoder,
    as_arrow,
    count_repeats,
    draft_encoders,
    encoders_digest,
    install_encoders,
    mark_starts,
)
from storage.connections import connect, database_url
from storage.source import check_contract, high_water_mark, stream_sequences, stream_songs

log = logging.getLogger(__name__)

# Columns of the songs query that are not features, whatever their type.
SONG_IDS = ("song_id", "artist_id", "album_id")
NAMES = ("title", "artist_name", "album_title")
FEATURE_SOURCE = "feature_source"  # a text: who measured the features of a song
SEQUENCE_COLUMNS = ("sequence_id", "song_id", "listened_at", "group_id", "is_recommended")

UNKNOWN_TIME = np.iinfo(np.int64).min
HELD_OUT_OF_EACH = 2  # leave_one_out: the last song of a sequence tests, the one before validates
ROWS_PER_BLOCK = 1_000_000
SONGS_PER_BLOCK = 100_000


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What the songs query said: row i belongs to the song with the provisional number FIRST_NUMBER + i."""

    songs: IdEncoder
    """Provisional numbers; grows while sequences name songs that the catalogue lacks."""
    artist_ids: pa.Array
    album_ids: pa.Array
    features: pa.Table

    def __len__(self) -> int:
        return len(self.artist_ids)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences of song numbers: sequence i is songs[starts[i]:ends[i]], oldest first."""

    songs: np.ndarray  # (R,) int32, memory-mapped
    starts: np.ndarray  # (S,) int64
    ends: np.ndarray  # (S,) int64
    times: np.ndarray  # (S,) int64 seconds of the latest listened_at, UNKNOWN_TIME where there is none
    groups: np.ndarray  # (S,) int64, equal for the versions of one list

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def n_rows(self) -> int:
        """Rows of all sequences together."""
        return int((self.ends - self.starts).sum())

    def where(self, chosen: np.ndarray) -> "Sequences":
        """Only the chosen sequences, (S,) bool."""
        return replace(
            self, starts=self.starts[chosen], ends=self.ends[chosen], times=self.times[chosen], groups=self.groups[chosen]
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
            yield take_ranges(self.songs, self.starts[first:end], self.ends[first:end])


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which sequence stands in which part."""

    policy: str  # "time", "sequence" or "leave_one_out"
    parts: np.ndarray  # (S,) uint8: TRAIN, VALIDATION, TEST or LEFT_OUT
    cut_time: int | None  # seconds of the first held-out sequence; None unless split by time


@dataclass(frozen=True, kw_only=True)
class TrainingPart:
    """What the encoders may learn from."""

    counts: np.ndarray  # (V,) int64: how often the training part holds each provisional number
    n_sequences: int
    n_repeats: int  # rows whose song occurred earlier in the same sequence

    @property
    def n_rows(self) -> int:
        """Training rows."""
        return int(self.counts.sum())


@dataclass(frozen=True, kw_only=True)
class SongColumns:
    """What the snapshot says of each song, by its final number."""

    artist: np.ndarray  # (V,) int32
    album: np.ndarray  # (V,) int32
    features: np.ndarray  # (V, F) float32


def preprocess(config: Config, url: str, *, progress: bool = True) -> Snapshot:
    """Read the database at `url` and write encoders and snapshot where the settings say.

    Either both are replaced or, with any error, both stay as they were.  `progress` shows bars on standard error.

    Raises DatabaseUnreachable or SchemaError when the queries cannot be answered or break their contract, DataError when they
    yield too little to learn from, EncoderError for ids that do not fit together, SnapshotError when the disk is full.
    """
    settings, queries = config.preprocessing, config.database.queries_folder
    left_out: Counter[str] = Counter()
    # The mark is taken before reading: what arrives in between is read again next time rather than overlooked.
    mark = read_high_water_mark(config, url)
    folder = _made(settings.snapshot.parent)
    with tempfile.TemporaryDirectory(prefix=".preprocessing-", dir=folder) as work:
        catalogue = read_songs(url, queries, left_out, progress=progress)
        read = read_sequences(
            url,
            queries,
            catalogue.songs,
            Path(work),
            left_out,
            leave_out_recommended=settings.leave_out_recommended,
            progress=progress,
        )
        sequences = clean(read, settings.min_sequence_length, left_out)
        split = split_sequences(sequences, settings, left_out)
        training = training_part(sequences, split, n_numbers=len(catalogue.songs))
        encoders = fit_encoders(catalogue, training)
        columns = encode_songs(catalogue, encoders)
        used = sequences.where(split.parts != LEFT_OUT)
        songs = encode_sequences(used, encoders.songs.encode(catalogue.songs.ids), Path(work))
        source = {
            "settings": settings_in_source(settings),
            "queries": query_digests(queries),
            "high_water_mark": mark,
            "read": {"songs": len(catalogue), "sequences": len(read), "rows": len(read.songs)},
            "left_out": dict(left_out),
            "training": describe_training(training, split),
        }
        return write(settings, encoders, columns, used, songs, split, source)


# --- read --------------------------------------------------------------------------------------------------------------------


def read_high_water_mark(config: Config, url: str) -> dict[str, Any]:
    """Check the queries against their contract and say how far the database has come."""
    queries = config.database.queries_folder
    timeout = config.database.connect_timeout_seconds
    with connect(url, connect_timeout_seconds=timeout) as connection:
        check_contract(connection, queries)
        return dict(high_water_mark(connection, queries))


def read_songs(url: str, queries: Path, left_out: Counter[str], *, progress: bool = True) -> Catalogue:
    """Read the songs query: ids and numeric columns, one row a song.

    Rows without a song id and further rows of the same song (a join with several artists makes them) are counted and left out.
    Raises DataError without a row.
    """
    with stream_songs(url, queries) as reader:
        names = [field.name for field in reader.schema if field.name in (*SONG_IDS, FEATURE_SOURCE) or _is_feature(field)]
        batches = [batch.select(names) for batch in _with_progress(reader, "songs", progress)]
        table = pa.Table.from_batches(batches, pa.schema([reader.schema.field(name) for name in names]))
    if not len(table):
        raise DataError("the query songs returned no row: load songs, or correct songs.sql")
    kept = table.filter(pc.is_valid(table["song_id"]))
    left_out["songs without song_id"] += len(table) - len(kept)
    first_rows, ids = _first_rows(as_arrow(kept["song_id"], "song"))
    left_out["rows of songs listed before"] += len(kept) - len(ids)
    kept = kept.take(first_rows) if len(ids) < len(kept) else kept
    features = [name for name in names if name not in (*SONG_IDS, FEATURE_SOURCE)]
    _tell_of_sources(kept)
    log.info("songs: %d rows in, %d songs out; numeric columns: %s", len(table), len(ids), ", ".join(features) or "none")
    return Catalogue(
        songs=IdEncoder("song").extend(ids),
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


def read_sequences(
    url: str,
    queries: Path,
    songs: IdEncoder,
    work: Path,
    left_out: Counter[str],
    *,
    leave_out_recommended: bool = True,
    progress: bool = True,
) -> Sequences:
    """Read the sequences query into a file of provisional song numbers below `work`; `songs` learns ids that it lacks.

    `leave_out_recommended` leaves out, and counts, rows whose is_recommended is true, whatever part their sequence will stand in:
    a model that learns what its predecessor proposed narrows with each training, and one that is judged by it is praised for
    agreeing with its predecessor.

    Raises DataError without a row, SchemaError when the rows of a sequence do not follow each other.
    """
    known = len(songs)
    with stream_sequences(url, queries) as reader:
        wanted = set(SEQUENCE_COLUMNS) if leave_out_recommended else set(SEQUENCE_COLUMNS) - {"is_recommended"}
        names = [name for name in reader.schema.names if name in wanted]
        with SequenceFile(work / "provisional.int32", songs, left_out) as file:
            for batch in _with_progress(reader, "sequences", progress):
                file.append(batch.select(names))
    sequences = file.sequences()
    if len(songs) > known:
        log.info(
            "sequences: %d songs are not in the songs query: kept, with unknown artist, album and features", len(songs) - known
        )
    left_out["songs of sequences that the songs query lacks (kept)"] += len(songs) - known
    log.info("sequences: %d rows in, %d rows in %d sequences out", file.n_rows_read, len(sequences.songs), len(sequences))
    return sequences


class SequenceFile:
    """Takes the rows of the sequences query batch by batch: songs go to a file, one entry per sequence stays in memory."""

    def __init__(self, path: Path, songs: IdEncoder, left_out: Counter[str]):
        self.path = path
        self.n_rows_read = 0
        self._songs = songs
        self._left_out = left_out
        self._n_rows = 0
        self._last_id: pa.Scalar | None = None
        # One piece a batch, one entry for each sequence that begins in it.
        self._ids: list[pa.Array] = []
        self._starts: list[np.ndarray] = []
        self._times: list[np.ndarray] = []
        self._groups: list[pa.Array] = []

    def __enter__(self) -> "SequenceFile":
        self._file = self.path.open("wb")
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
        _append(self._file, _number(self._songs, batch["song_id"]), self.path)
        self._note_times(batch, is_start, starts)
        self._ids.append(ids.take(places))
        self._groups.append(_groups_or_nulls(batch).take(places))
        self._starts.append(starts + self._n_rows)
        self._n_rows += len(batch)
        self._last_id = ids[-1]

    def sequences(self) -> Sequences:
        """All that was appended.  Raises DataError without a row, SchemaError when a sequence began twice."""
        if not self._n_rows:
            raise DataError(
                "the query sequences returned no row with sequence_id and song_id"
                f"{self._recommended()}: load sequences, or correct sequences.sql"
            )
        self._require_contiguous(_concatenated(self._ids))
        starts = np.concatenate(self._starts)
        return Sequences(
            songs=np.memmap(self.path, np.int32, mode="r"),
            starts=starts,
            ends=np.append(starts[1:], self._n_rows),
            times=np.concatenate(self._times),
            groups=_group_numbers(_concatenated(self._groups)),
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
        first_rows, distinct = _first_rows(ids)
        if len(distinct) < len(ids):
            again = np.setdiff1d(np.arange(len(ids)), first_rows)[0]
            raise SchemaError(
                f"the query sequences yields the rows of sequence {ids[again].as_py()!r} in several pieces: "
                "let sequences.sql end with ORDER BY sequence_id and then the place in the sequence"
            )


# --- clean and split ---------------------------------------------------------------------------------------------------------


def clean(sequences: Sequences, min_sequence_length: int, left_out: Counter[str]) -> Sequences:
    """Leave out, and count, the sequences that are too short.  Raises DataError unless two remain."""
    kept = sequences.where(sequences.ends - sequences.starts >= min_sequence_length)
    left_out[f"sequences of fewer than {min_sequence_length} songs"] += len(sequences) - len(kept)
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(sequences)} sequences have at least {min_sequence_length} songs, two are needed: "
            "load more sequences, or lower min_sequence_length"
        )
    log.info("clean: %d sequences in, %d out; %d rows in, %d out", len(sequences), len(kept), sequences.n_rows, kept.n_rows)
    return kept


def split_sequences(sequences: Sequences, settings: PreprocessingConfig, left_out: Counter[str]) -> Split:
    """Put each sequence into a part, by the policy that the settings name; `auto` takes time where every sequence has one.

    Raises DataError when the policy cannot be followed.
    """
    if settings.split == "leave_one_out":
        split = Split(policy="leave_one_out", parts=np.full(len(sequences), TRAIN, np.uint8), cut_time=None)
    elif settings.split == "time":
        split = _split_by_time(sequences, settings)
    elif settings.split == "auto" and (sequences.times != UNKNOWN_TIME).all():
        try:
            split = _split_by_time(sequences, settings)
        except DataError as exc:
            log.warning("split: not by time (%s), so by sequence", exc)
            split = _split_by_sequence(sequences, settings)
    else:
        split = _split_by_sequence(sequences, settings)
    n_training, n_validation, n_test, n_left_out = np.bincount(split.parts, minlength=LEFT_OUT + 1).tolist()
    left_out["sequences outside the split"] += n_left_out
    log.info("split by %s: %d sequences in; %d for training, %d for validation, %d for the test, %d left out",
             split.policy, len(sequences), n_training, n_validation, n_test, n_left_out)  # fmt: skip
    return split


def _split_by_time(sequences: Sequences, settings: PreprocessingConfig) -> Split:
    n_unknown = int((sequences.times == UNKNOWN_TIME).sum())
    if n_unknown:
        raise DataError(
            f"{n_unknown} of {len(sequences)} sequences have no listened_at, which a split by time needs: "
            "fill it in sequences.sql, or set split to sequence"
        )
    parts = dataset.split_by_time(
        sequences.times, sequences.groups, settings.train_size, np.random.default_rng(settings.split_seed)
    )
    held_out = (parts == VALIDATION) | (parts == TEST)
    return Split(policy="time", parts=parts, cut_time=int(sequences.times[held_out].min()))


def _split_by_sequence(sequences: Sequences, settings: PreprocessingConfig) -> Split:
    rng = np.random.default_rng(settings.split_seed)
    parts = dataset.split_by_sequence(sequences.groups, settings.train_size, rng)
    return Split(policy="sequence", parts=parts, cut_time=None)


def training_part(sequences: Sequences, split: Split, n_numbers: int) -> TrainingPart:
    """Count what training may see; with leave_one_out that is all but the last two songs of each sequence.

    Raises DataError when no training sequence has two songs.
    """
    training = sequences.where(split.parts == TRAIN)
    if split.policy == "leave_one_out":
        training = training.without_last(HELD_OUT_OF_EACH)
    training = training.where(training.ends > training.starts)
    if not (training.ends - training.starts >= 2).any():
        raise DataError(
            f"no training sequence has two songs (split by {split.policy}, {len(sequences)} sequences): "
            "load more sequences, or change split or train_size"
        )
    counts, n_repeats = np.zeros(n_numbers, np.int64), 0
    for songs, offsets in training.blocks():
        counts += np.bincount(songs, minlength=n_numbers)
        n_repeats += count_repeats(songs, offsets)
    return TrainingPart(counts=counts, n_sequences=len(training), n_repeats=n_repeats)


# --- encode ------------------------------------------------------------------------------------------------------------------


def fit_encoders(catalogue: Catalogue, training: TrainingPart) -> Encoders:
    """Fit all encoders on the training part; ids from elsewhere are appended in their own order, beyond `n_fitted`.

    Albums and artists rank by the training rows of their songs; scales and categories come from the training songs, each once.
    """
    counts = training.counts[FIRST_NUMBER:]
    of_catalogue = counts[: len(catalogue)]
    encoders = Encoders(
        songs=_fit_ids("song", catalogue.songs.ids, counts),
        albums=_fit_ids("album", catalogue.album_ids, of_catalogue),
        artists=_fit_ids("artist", catalogue.artist_ids, of_catalogue),
        features=FeatureEncoder().fit(_frame(catalogue.features.take(pa.array(np.flatnonzero(of_catalogue))))),
    )
    for encoder in (encoders.songs, encoders.albums, encoders.artists):
        n_fitted, n_all = encoder.n_fitted - FIRST_NUMBER, len(encoder) - FIRST_NUMBER
        log.info("encode: %d %ss, %d of them in training", n_all, encoder.kind, n_fitted)
    return encoders


def _fit_ids(kind: str, ids: pa.Array, counts: np.ndarray) -> IdEncoder:
    encoder = IdEncoder(kind).fit(ids, counts)
    rest = ids.unique()
    return encoder if pa.types.is_null(rest.type) else encoder.extend(rest.sort())


def encode_songs(catalogue: Catalogue, encoders: Encoders) -> SongColumns:
    """Artist, album and features of every song number; what nobody knows is UNKNOWN, or missing.

    PAD and MASK have artist and album PAD and MASK, and no features at all, not even missing ones.
    """
    V, F = len(encoders.songs), len(encoders.features.feature_names)
    numbers = encoders.songs.encode(catalogue.songs.ids)[: len(catalogue)]
    artist, album = (_special_numbers(V) for _ in range(2))
    artist[numbers] = encoders.artists.encode(catalogue.artist_ids)
    album[numbers] = encoders.albums.encode(catalogue.album_ids)
    features = np.zeros((V, F), np.float32)
    features[UNKNOWN:] = encoders.features.encode(pd.DataFrame(index=[0]))
    for first in range(0, len(catalogue) if F else 0, SONGS_PER_BLOCK):  # a slice of no columns has no rows either
        block = slice(first, first + SONGS_PER_BLOCK)
        features[numbers[block]] = encoders.features.encode(_frame(catalogue.features[block]))
    log.info("encode: %d songs in, %d numbers with %d features out", len(catalogue), V, F)
    return SongColumns(artist=artist, album=album, features=features)


def _special_numbers(V: int) -> np.ndarray:
    column = np.full(V, UNKNOWN, np.int32)
    column[[PAD, MASK]] = PAD, MASK
    return column


def encode_sequences(sequences: Sequences, final: np.ndarray, work: Path) -> np.ndarray:
    """Replace provisional by final numbers: one flat (R,) int32 column, memory-mapped from a file below `work`.

    `final` holds the final number of the real provisional ones, in their order.
    """
    path = work / "final.int32"
    number = np.concatenate([np.arange(FIRST_NUMBER, dtype=np.int32), final])
    with path.open("wb") as file:
        for songs, _ in sequences.blocks():
            _append(file, number[songs], path)
    log.info("encode: %d rows of %d sequences renumbered", sequences.n_rows, len(sequences))
    return np.memmap(path, np.int32, mode="r")


# --- write -------------------------------------------------------------------------------------------------------------------


def write(
    settings: PreprocessingConfig,
    encoders: Encoders,
    columns: SongColumns,
    sequences: Sequences,
    songs: np.ndarray,
    split: Split,
    source: dict[str, Any],
) -> Snapshot:
    """Replace encoders and snapshot; whatever can fail for want of space or rights is done before either is touched."""
    folder = _made(settings.encoders_folder)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder) as draft:
        digest = _drafted(encoders, Path(draft))
        snapshot = write_snapshot(
            settings.snapshot,
            song_artist=columns.artist,
            song_album=columns.album,
            song_features=columns.features,
            feature_names=encoders.features.feature_names,
            n_fitted_songs=encoders.songs.n_fitted,
            n_fitted_albums=encoders.albums.n_fitted,
            n_fitted_artists=encoders.artists.n_fitted,
            n_albums=len(encoders.albums),
            n_artists=len(encoders.artists),
            sequences=songs,
            offsets=np.concatenate([[0], np.cumsum(sequences.ends - sequences.starts)]),
            split=split.parts[split.parts != LEFT_OUT],
            encoders_digest=digest,
            source=source,
            policy=split.policy,
            lists=sequences.groups,
        )
        install_encoders(Path(draft), folder)
    log.info("write: snapshot %s and encoders %s", snapshot.path, folder)
    return snapshot


def settings_in_source(settings: PreprocessingConfig) -> dict[str, Any]:
    """The settings that decide what a snapshot holds; folders do not."""
    return {name: value for name, value in as_plain(settings).items() if name not in ("encoders_folder", "snapshot")}


def query_digests(queries: Path) -> dict[str, str]:
    """SHA-256 of the two query files that preprocessing reads."""
    return {name: dataset.file_digest(queries / f"{name}.sql") for name in ("songs", "sequences")}


def describe_training(training: TrainingPart, split: Split) -> dict[str, Any]:
    """The training part in figures, for the snapshot's manifest."""
    cut_time = None if split.cut_time is None else datetime.fromtimestamp(split.cut_time, UTC).isoformat()
    return {
        "sequences": training.n_sequences,
        "rows": training.n_rows,
        "songs": int((training.counts > 0).sum()),
        "repeat_share": training.n_repeats / training.n_rows,
        "cut_time": cut_time,
    }


# --- is it fresh? ------------------------------------------------------------------------------------------------------------


def is_stale(config: Config, url: str) -> str | None:
    """Why the snapshot should be made anew, as a clause; None when it says what the database and the settings say.

    Raises DatabaseUnreachable or SchemaError when the database cannot be asked.
    """
    try:
        snapshot = dataset.open_snapshot(config.preprocessing.snapshot)
        digest = encoders_digest(config.preprocessing.encoders_folder)
    except (SnapshotError, EncoderError) as exc:
        return str(exc)
    source = snapshot.manifest["source"]
    if digest != snapshot.manifest["encoders_digest"]:
        return "the encoders are not those of the snapshot"
    if source.get("settings") != settings_in_source(config.preprocessing):
        return "the settings of preprocessing have changed"
    mark = read_high_water_mark(config, url)
    if source.get("queries") != query_digests(config.database.queries_folder):
        return "songs.sql or sequences.sql has changed"
    before = source.get("high_water_mark", {})
    return None if before == mark else f"the database has moved on ({_changes(before, mark)})"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    counted = [
        f"{name} {before.get(name)} -> {after[name]}" for name in ("songs", "rows", "latest") if before.get(name) != after[name]
    ]
    return ", ".join(counted) or "as many songs and rows as before, with other contents"


# --- columns -----------------------------------------------------------------------------------------------------------------


def _is_feature(field: pa.Field) -> bool:
    """Whether a column is numeric, and neither id nor name."""
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return field.name not in (*SONG_IDS, *NAMES, FEATURE_SOURCE) and any(test(field.type) for test in tests)


def _frame(table: pa.Table) -> pd.DataFrame:
    """Numeric Arrow columns as a frame of float64, null as NaN."""
    columns = {name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in table.column_names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))


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
    """Provisional numbers (n,) int32; ids that `songs` lacks are learned.  Only the distinct ids of a batch are looked up."""
    distinct = as_arrow(ids, "song").dictionary_encode()
    numbers = songs.encode(distinct.dictionary)
    if (numbers == UNKNOWN).any():
        numbers = songs.extend(distinct.dictionary).encode(distinct.dictionary)
    return np.asarray(numbers[np.asarray(distinct.indices)])


def _first_rows(ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The row in which each distinct id first occurs, and the distinct ids in that order."""
    distinct = ids.dictionary_encode()
    # Arrow numbers the distinct values by first appearance: a row that raises the highest number so far holds a new one.
    highest = np.maximum.accumulate(np.asarray(distinct.indices))
    return np.flatnonzero(np.diff(highest, prepend=-1)), distinct.dictionary


def _group_numbers(groups: pa.Array) -> np.ndarray:
    """Groups as numbers, (S,) int64; a sequence without a group is a group of its own."""
    if pa.types.is_null(groups.type):
        return np.arange(len(groups))
    distinct = groups.dictionary_encode()
    alone = len(distinct.dictionary) + np.arange(len(groups))
    return np.where(np.asarray(groups.is_null()), alone, np.asarray(distinct.indices.fill_null(0)))


def _concatenated(pieces: list[pa.Array]) -> pa.Array:
    return pa.chunked_array(pieces).combine_chunks()


def _with_progress(reader: pa.RecordBatchReader, name: str, progress: bool) -> Iterator[pa.RecordBatch]:
    """The batches of a reader, with a bar that counts rows on standard error."""
    with tqdm(desc=f"reading {name}", unit=" rows", unit_scale=True, disable=not progress) as bar:
        for batch in reader:
            bar.update(batch.num_rows)
            yield batch


# --- files -------------------------------------------------------------------------------------------------------------------


def _append(file: Any, numbers: np.ndarray, path: Path) -> None:
    try:
        file.write(np.ascontiguousarray(numbers, dtype=np.int32).data)
    except OSError as exc:
        raise SnapshotError(f"{path.parent} could not be written ({exc.strerror}); the old snapshot stays in use") from exc


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SnapshotError(f"the folder {folder} cannot be made ({exc.strerror}): choose another one") from exc
    return folder


def _drafted(encoders: Encoders, draft: Path) -> str:
    try:
        return draft_encoders(encoders, draft)
    except OSError as exc:
        raise EncoderError(
            f"the encoders could not be written to {draft.parent} ({exc.strerror}); the old ones stay in use"
        ) from exc


def main(argv: Sequence[str] | None = None) -> int:
    """Run preprocessing with settings from the command line, the environment and the settings file."""
    parser = argparse.ArgumentParser(description="Read the database and write encoders and snapshot.")
    add_arguments(parser, "database", "preprocessing")
    config = config_from_arguments(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with database_url(config.database) as url:
        snapshot = preprocess(config, url)
    counts = snapshot.manifest["counts"]
    print(f"{snapshot.path}: {counts['sequences']} sequences, {counts['rows']} rows, {counts['songs'] - FIRST_NUMBER} songs")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
