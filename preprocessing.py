"""From PostgreSQL to encoders and snapshot: read, clean, split, encode, write.

    python preprocessing.py                                        the embedded server, schema music
    python preprocessing.py --full                                 read everything, and number songs afresh
    DATABASE_URL=postgresql://me@host/db python preprocessing.py   your own server, with --queries-folder YOUR_QUERIES
    python preprocessing.py --split leave_one_out --snapshot .local/leave-one-out

The steps stand in `preparation`, a file each: reading, splitting, encoding, growth.  Everything is read in one moment of the
database.  Song numbers are provisional while they stream; after the split they are replaced by the final ones, which fall with
training frequency.  Encoders are fitted on the training part alone.  A further run reads only what is new, where the rest is as
it was, and keeps all numbers: see `preparation.growth`.  Until the very end nothing that is in use is touched.

Letters: V songs, the three specials included; S sequences.
"""

import argparse
import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from config import FIRST_NUMBER, Config, PreprocessingConfig
from encoder_files import Encoders, draft_encoders, encoders_digest, has_encoders, install_encoders, staged_encoders
from errors import EncoderError, SnapshotError, exit_code_of
from options import add_arguments, config_from_arguments
from preparation.encoding import SongColumns, encode_sequences, encode_songs, fit_encoders
from preparation.growth import (
    Kept,
    NotIncremental,
    attachments,
    kept_by,
    key_of,
    left_out_rows,
    newer_sequences,
    require_all_there,
)
from preparation.reading import Catalogue, Reading, SequenceFile, columns_to_read, read_sequences, read_songs
from preparation.splitting import Split, TrainingPart, clean, history_starts, list_numbers, split_sequences, training_part
from settings import as_plain
from snapshot import Snapshot, file_digest, open_snapshot, write_snapshot
from splits import LEFT_OUT
from storage.connections import database_url
from storage.source import Id, Moment, SourceColumns, check_contract, high_water_mark, one_moment

log = logging.getLogger(__name__)

Mark = Mapping[str, Any]

WORK_PREFIX = ".preprocessing-"
# What a mark says of the contents; the rest of it is for the next run.
CONTENTS = ("songs", "rows", "latest", "content")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The database in one moment, seen through the queries."""

    url: str
    queries: Path
    moment: Moment
    columns: SourceColumns
    progress: bool


@dataclass(frozen=True, kw_only=True)
class Material:
    """All that was read, and what it was built upon."""

    catalogue: Catalogue
    reading: Reading
    known: Encoders | None  # whose numbers are kept; None: songs are numbered afresh
    left_out: Counter[str]


def preprocess(config: Config, url: str, *, progress: bool = True, full: bool = False) -> Snapshot:
    """Read the database at `url` and write encoders and snapshot where the settings say.

    Either both are replaced or, with any error, both stay as they were.  `progress` shows bars on standard error.  `full` reads
    everything even where what is new would be enough.

    Raises DatabaseUnreachable or SchemaError when the queries cannot be answered or break their contract, DataError when they
    yield too little to learn from, EncoderError for ids that do not fit together, SnapshotError when the disk is full.
    """
    with _alone(config), _source(config, url, progress=progress) as source:
        return _run(config, source, None, full=full)


def refresh(config: Config, url: str, *, progress: bool = True) -> Snapshot:
    """The snapshot, made anew where it does not say what the database and the settings say; asks both once.

    Raises what `preprocess` raises.
    """
    with _alone(config), _source(config, url, progress=progress) as source:
        reason, mark = _stale_by_itself(config), None
        if reason is None:
            mark = high_water_mark(source.moment.connection, source.queries)
            reason = _moved_on(config, mark)
        if reason is None:
            log.info("the snapshot %s is up to date with the database", config.preprocessing.snapshot)
            return open_snapshot(config.preprocessing.snapshot)
        log.info("preprocessing first: %s", reason)
        return _run(config, source, mark, full=False)


@contextmanager
def _source(config: Config, url: str, *, progress: bool) -> Iterator[Source]:
    """A moment of the database whose queries keep their contract."""
    queries, seconds = config.database.queries_folder, config.database.connect_timeout_seconds
    with one_moment(url, connect_timeout_seconds=seconds) as moment:
        columns = check_contract(moment.connection, queries)
        yield Source(url=url, queries=queries, moment=moment, columns=columns, progress=progress)


def _run(config: Config, source: Source, mark: Mark | None, *, full: bool) -> Snapshot:
    """Read what is new, or everything, and write; `mark` is that of the moment where it is known already."""
    with _work_folder(config.preprocessing.snapshot.parent) as work:
        try:
            kept, before = _usable(config, source, full=full)
            mark = mark or high_water_mark(source.moment.connection, source.queries)
            material = read_new(config, source, kept, before, mark, work)
        except NotIncremental as why:
            log.info("a full run: %s", why)
            with _marking(source, mark) as marking:
                material = read_all(config, source, work)
            mark = marking.result()
        return _written(config, material, mark)


# --- read --------------------------------------------------------------------------------------------------------------------


def read_all(config: Config, source: Source, work: Path) -> Material:
    """Read both queries from beginning to end.

    Raises DataError without a row, SchemaError when the rows of a sequence do not follow each other.
    """
    left_out: Counter[str] = Counter()
    catalogue = read_songs(source.url, source.queries, left_out, moment=source.moment, progress=source.progress)
    path = work / "all.int32"
    with SequenceFile(path, catalogue.songs, left_out) as file:
        _read_sequences(config, source, file, None)
    reading = file.reading()
    _tell_of_sequences(catalogue, reading, left_out, file.n_rows_read)
    return Material(catalogue=catalogue, reading=reading, known=None, left_out=left_out)


def read_new(config: Config, source: Source, kept: Kept, before: Mark, mark: Mark, work: Path) -> Material:
    """Read the catalogue, and of the sequences those that have rows beyond the mark `before`.

    Raises NotIncremental when what lies before the mark is not as it was.
    """
    key = key_of(source.columns.sequences)
    assert key is not None
    newer = newer_sequences(source.moment, source.queries, key, before, mark)
    left_out: Counter[str] = Counter()
    songs = kept.encoders.songs
    try:
        catalogue = read_songs(source.url, source.queries, left_out, known=songs, moment=source.moment, progress=source.progress)
        require_all_there(kept, catalogue)
    except EncoderError as exc:  # ids have another type than before
        raise NotIncremental(str(exc)) from exc
    path = work / "new.int32"
    kept.write_rows(path)
    with SequenceFile(path, catalogue.songs, Counter()) as file:
        if newer:
            _read_sequences(config, source, file, newer)
    reading = kept.together(file.reading() if file.n_sequences else None, path)
    left_out.update(left_out_rows(mark, recommended="is_recommended" in _columns(config, source)))
    log.info("incremental: %d sequences have rows beyond %s", len(newer), before.get("last_row") or before["latest"])
    _tell_of_sequences(catalogue, reading, left_out, file.n_rows_read)
    return Material(catalogue=catalogue, reading=reading, known=kept.encoders, left_out=left_out)


def _usable(config: Config, source: Source, *, full: bool) -> tuple[Kept, Mark]:
    """What an incremental run builds upon, with its mark; raises NotIncremental when there is nothing of that kind."""
    if full:
        raise NotIncremental("asked for")
    if key_of(source.columns.sequences) is None:
        raise NotIncremental("sequences.sql has neither listened_at nor row_id")
    if reason := _stale_by_itself(config):
        raise NotIncremental(reason)
    try:
        snapshot = open_snapshot(config.preprocessing.snapshot, verify=True)
    except SnapshotError as exc:
        raise NotIncremental(str(exc)) from exc
    return kept_by(snapshot, config.preprocessing.encoders_folder), snapshot.manifest["source"]["high_water_mark"]


@contextmanager
def _marking(source: Source, mark: Mark | None) -> Iterator[Future[Mark]]:
    """Ask for the mark on the moment's own connection while others read; it is cancelled when they fail."""
    connection = source.moment.connection
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(lambda: mark or high_water_mark(connection, source.queries))
        try:
            yield asked
        except BaseException:  # an interruption too must not wait for a scan of all rows
            connection.cancel_safe()
            raise


def _columns(config: Config, source: Source) -> list[str]:
    return columns_to_read(source.columns.sequences, leave_out_recommended=config.preprocessing.leave_out_recommended)


def _read_sequences(config: Config, source: Source, file: SequenceFile, sequence_ids: Sequence[Id] | None) -> None:
    read_sequences(
        source.url,
        source.queries,
        file,
        columns=_columns(config, source),
        sequence_ids=sequence_ids,
        moment=source.moment,
        progress=source.progress,
    )


def _tell_of_sequences(catalogue: Catalogue, reading: Reading, left_out: Counter[str], n_rows_read: int) -> None:
    n_lacking = len(catalogue.songs) - FIRST_NUMBER - len(catalogue)
    if n_lacking:
        log.info("sequences: %d songs are not in the songs query: kept, with unknown artist, album and features", n_lacking)
    left_out["songs of sequences that the songs query lacks (kept)"] += n_lacking
    sequences = reading.sequences
    log.info("sequences: %d rows in, %d rows in %d sequences out", n_rows_read, sequences.n_rows, len(sequences))


# --- write -------------------------------------------------------------------------------------------------------------------


def _written(config: Config, material: Material, mark: Mark) -> Snapshot:
    """Clean, split, fit, encode and write what was read."""
    settings, catalogue, left_out = config.preprocessing, material.catalogue, material.left_out
    read = material.reading.sequences
    is_long, sequences = clean(read, settings.min_sequence_length, left_out)
    split = split_sequences(sequences, settings, left_out)
    training = training_part(sequences, split, n_numbers=len(catalogue.songs))
    encoders = fit_encoders(catalogue, training, material.known)
    source = {
        "settings": settings_in_source(settings),
        "queries": query_digests(config.database.queries_folder),
        "high_water_mark": dict(mark),
        "read": {"songs": len(catalogue), "sequences": len(read), "rows": read.n_rows},
        "left_out": dict(left_out),
        "training": describe_training(training, split),
    }
    is_used = np.zeros(len(read), bool)
    is_used[is_long] = split.parts != LEFT_OUT
    return write(settings, encoders, encode_songs(catalogue, encoders), material, is_used, split, source)


def write(
    settings: PreprocessingConfig,
    encoders: Encoders,
    columns: SongColumns,
    material: Material,
    is_used: np.ndarray,
    split: Split,
    source: dict[str, Any],
) -> Snapshot:
    """Replace encoders and snapshot; whatever can fail for want of space or rights is done before either is touched.

    `is_used` (S,) says which of the sequences that were read the snapshot holds.
    """
    folder, sequences = _made(settings.encoders_folder), material.reading.sequences.where(is_used)
    final = encoders.songs.encode(material.catalogue.songs.ids)
    number = np.concatenate([np.arange(FIRST_NUMBER, dtype=np.int32), final])
    parts = split.parts[split.parts != LEFT_OUT]
    offsets = np.concatenate([[0], np.cumsum(sequences.ends - sequences.starts)])
    reached = history_starts(offsets, sequences.histories, parts, split.policy)
    log.info("histories: %d of %d sequences have others before them", (reached < offsets[:-1]).sum(), len(sequences))
    with _drafted(encoders, folder) as digest:
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
            sequences=encode_sequences(sequences, number),
            offsets=offsets,
            split=parts,
            encoders_digest=digest,
            source=source,
            policy=split.policy,
            lists=list_numbers(sequences.groups, sequences.times, split.policy),
            history_starts=reached,
            attachments=attachments(material.reading, is_used, number) if _has_mark(source["high_water_mark"]) else {},
        )
    install_encoders(folder, digest)
    log.info("write: snapshot %s and encoders %s", snapshot.path, folder)
    return snapshot


def _has_mark(mark: Mark) -> bool:
    """Whether a later run can tell which rows are new."""
    return mark["last_row"] is not None or mark["latest"] is not None


def settings_in_source(settings: PreprocessingConfig) -> dict[str, Any]:
    """The settings that decide what a snapshot holds; folders do not."""
    return {name: value for name, value in as_plain(settings).items() if name not in ("encoders_folder", "snapshot")}


def query_digests(queries: Path) -> dict[str, str]:
    """SHA-256 of the two query files that preprocessing reads."""
    return {name: file_digest(queries / f"{name}.sql") for name in ("songs", "sequences")}


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
    if reason := _stale_by_itself(config):
        return reason
    with _source(config, url, progress=False) as source:
        return _moved_on(config, high_water_mark(source.moment.connection, source.queries))


def _stale_by_itself(config: Config) -> str | None:
    """Why the snapshot is no good whatever the database says."""
    try:
        snapshot = open_snapshot(config.preprocessing.snapshot)
        encoders_digest(config.preprocessing.encoders_folder)
    except (SnapshotError, EncoderError) as exc:
        return str(exc).partition(": run preprocessing.py")[0]  # it is what runs
    source = snapshot.manifest["source"]
    if not has_encoders(config.preprocessing.encoders_folder, snapshot.manifest["encoders_digest"]):
        return "the encoders are not those of the snapshot"
    if source.get("settings") != settings_in_source(config.preprocessing):
        return "the settings of preprocessing have changed"
    if source.get("queries") != query_digests(config.database.queries_folder):
        return "songs.sql or sequences.sql has changed"
    return None


def _moved_on(config: Config, mark: Mark) -> str | None:
    """How the database differs from the one that the snapshot was made of."""
    before = open_snapshot(config.preprocessing.snapshot).manifest["source"].get("high_water_mark", {})
    if all(before.get(name) == mark[name] for name in CONTENTS):
        return None
    return f"the database has moved on ({_changes(before, mark)})"


def _changes(before: Mark, after: Mark) -> str:
    counted = [
        f"{name} {before.get(name)} -> {after[name]}" for name in ("songs", "rows", "latest") if before.get(name) != after[name]
    ]
    return ", ".join(counted) or "as many songs and rows as before, with other contents"


# --- files -------------------------------------------------------------------------------------------------------------------


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A folder for what is read, gone afterwards; those of runs that were killed go before."""
    _made(parent)
    for left in parent.glob(f"{WORK_PREFIX}*"):
        with _locked(left) as is_ours:
            if is_ours:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=parent) as work, _locked(Path(work)):
        yield Path(work)


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """Hold where snapshot and encoders stand, and wait while another run does: each replaces what the others stage there."""
    settings = config.preprocessing
    with ExitStack() as held:
        for folder in sorted({settings.snapshot.resolve().parent, settings.encoders_folder.resolve().parent}):
            if not held.enter_context(_locked(_made(folder))):
                log.info("waiting for another run of preprocessing, which writes to %s", folder)
                held.enter_context(_locked(folder, waits=True))
        yield


@contextmanager
def _locked(folder: Path, *, waits: bool = False) -> Iterator[bool]:
    """Hold a folder as long as this process lives, unless another one does: whether it is held."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # its owner was quicker, or is somebody else
        yield False
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except BlockingIOError:
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(held)


@contextmanager
def _drafted(encoders: Encoders, folder: Path) -> Iterator[str]:
    """Stage the encoders beside those in use and yield their digest; an error takes them away again."""
    with _work_folder(folder) as draft:
        try:
            digest = draft_encoders(encoders, draft)
        except OSError as exc:
            raise EncoderError(
                f"the encoders could not be written to {folder} ({exc.strerror}); the old ones stay in use"
            ) from exc
        with staged_encoders(draft, folder, digest):
            yield digest


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SnapshotError(f"the folder {folder} cannot be made ({exc.strerror}): choose another one") from exc
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run preprocessing with settings from the command line, the environment and the settings file."""
    parser = argparse.ArgumentParser(description="Read the database and write encoders and snapshot.")
    parser.add_argument(
        "--full", action="store_true", help="read everything and number songs afresh, even where new rows would do"
    )
    add_arguments(parser, "database", "preprocessing")
    arguments = parser.parse_args(argv)
    config = config_from_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with database_url(config.database) as url:
        snapshot = preprocess(config, url, full=arguments.full)
    counts = snapshot.manifest["counts"]
    print(f"{snapshot.path}: {counts['sequences']} sequences, {counts['rows']} rows, {counts['songs'] - FIRST_NUMBER} songs")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
