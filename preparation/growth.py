"""An incremental run: what the snapshot in use keeps of the last one, whether it can be built upon, and what comes on top.

Beside its columns a snapshot keeps the ids, lengths, times, groups and histories of all sequences that were read, and the rows
of those that no part of the split holds.  The next run reads the whole catalogue again, but only those sequences that have rows
beyond the mark, the highest row_id or the latest listened_at of the last run.  Everything before the mark must be as it was: its
count and its checksum say so, and a deletion, an edit in place or a row with an earlier time leads to a full run.

Letters: S sequences; R rows of all sequences.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from config import FIRST_NUMBER
from encoder_files import Encoders, load_encoders
from errors import EncoderError
from preparation.reading import Catalogue, Reading, append_numbers
from preprocessing_utils import IdEncoder
from snapshot import Snapshot
from storage.source import Id, Moment, newer_rows

SEQUENCES_READ = "sequences_read.arrow"
ROWS_LEFT_OUT = "rows_left_out.arrow"
NEW_SHARE = 1 / 3  # with more new rows than this share of all a full run is as fast, and numbers songs afresh

Key = Literal["row_id", "listened_at"]
MARK_OF: Mapping[Key, str] = {"row_id": "last_row", "listened_at": "latest"}


class NotIncremental(Exception):
    """Why a full run is needed, as a clause."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the snapshot in use keeps of the run that made it; all but `left_out` have one entry a sequence."""

    encoders: Encoders
    rows: np.ndarray  # the snapshot's own rows, memory-mapped
    left_out: np.ndarray  # rows of sequences that the snapshot does not hold
    ids: pa.Array
    group_ids: pa.Array
    history_ids: pa.Array
    starts: np.ndarray  # (S,) places in `rows` and then `left_out`
    ends: np.ndarray
    times: np.ndarray

    def write_rows(self, path: Path) -> None:
        """Begin a file of song numbers with all rows."""
        with path.open("wb") as file:
            for rows in (self.rows, self.left_out):
                append_numbers(file, rows, path)

    def together(self, new: Reading | None, path: Path) -> Reading:
        """The sequences of both, new ones in place of those with the same id; rows stand in the file at `path`."""
        songs = np.memmap(path, np.int32, mode="r")
        if new is None:
            return Reading.of(songs=songs, ids=self.ids, group_ids=self.group_ids, history_ids=self.history_ids,
                              starts=self.starts, ends=self.ends, times=self.times)  # fmt: skip
        now, before = ([part.ids.type, part.group_ids.type, part.history_ids.type] for part in (new, self))
        if now != before:
            raise NotIncremental("sequence_id, group_id or history_id has another type than before")
        stays, added = ~np.asarray(pc.is_in(self.ids, value_set=new.ids)), new.sequences
        return Reading.of(
            songs=songs,
            ids=pa.concat_arrays([self.ids.filter(pa.array(stays)), new.ids]),
            group_ids=pa.concat_arrays([self.group_ids.filter(pa.array(stays)), new.group_ids]),
            history_ids=pa.concat_arrays([self.history_ids.filter(pa.array(stays)), new.history_ids]),
            starts=np.concatenate([self.starts[stays], added.starts]),
            ends=np.concatenate([self.ends[stays], added.ends]),
            times=np.concatenate([self.times[stays], added.times]),
        )


# --- keep --------------------------------------------------------------------------------------------------------------------


def attachments(reading: Reading, is_used: np.ndarray, number: np.ndarray) -> dict[str, Callable[[Path], None]]:
    """The files that a snapshot keeps for the next run.

    `is_used` (S,) says which of the sequences the snapshot holds, `number` gives the final number of each provisional one.
    """
    sequences = reading.sequences
    columns = {
        "sequence_id": reading.ids,
        "group_id": reading.group_ids,
        "history_id": reading.history_ids,
        "length": sequences.ends - sequences.starts,
        "time": sequences.times,
        "is_used": is_used,
    }
    left_out = [number[songs] for songs, _ in sequences.where(~is_used).blocks()]
    return {
        SEQUENCES_READ: lambda path: _write(path, pa.table(columns)),
        ROWS_LEFT_OUT: lambda path: _write(path, pa.table({"song": np.concatenate(left_out)})),
    }


def kept_by(snapshot: Snapshot, encoders_folder: Path) -> Kept:
    """What a snapshot keeps; raises NotIncremental when it keeps nothing or its encoders are not there."""
    try:
        encoders = load_encoders(encoders_folder, snapshot.manifest["encoders_digest"])
    except EncoderError as exc:
        raise NotIncremental(str(exc)) from exc
    if SEQUENCES_READ not in snapshot.manifest.get("attachments", {}):
        raise NotIncremental("the snapshot in use keeps nothing for an incremental run")
    table, left_out = (_read(snapshot.path / name) for name in (SEQUENCES_READ, ROWS_LEFT_OUT))
    if "history_id" not in table.column_names:  # of a version that knew no histories
        raise NotIncremental("the snapshot in use keeps no history_id")
    lengths, is_used = np.asarray(table["length"]), np.asarray(table["is_used"])
    starts = np.empty(len(table), np.int64)
    starts[is_used] = np.asarray(snapshot.offsets[:-1])
    starts[~is_used] = len(snapshot.sequences) + np.cumsum(lengths[~is_used]) - lengths[~is_used]
    return Kept(
        encoders=encoders,
        rows=snapshot.sequences,
        left_out=np.asarray(left_out["song"]),
        ids=table["sequence_id"].combine_chunks(),
        group_ids=table["group_id"].combine_chunks(),
        history_ids=table["history_id"].combine_chunks(),
        starts=starts,
        ends=starts + lengths,
        times=np.asarray(table["time"]),
    )


def _write(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


# --- decide ------------------------------------------------------------------------------------------------------------------


def key_of(columns: Mapping[str, str]) -> Key | None:
    """The column of the sequences query by which new rows are known; None: only a full run is possible."""
    return "row_id" if "row_id" in columns else "listened_at" if "listened_at" in columns else None


def newer_sequences(moment: Moment, queries: Path, key: Key, before: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[Id]:
    """The sequences that have rows beyond the mark `before`; `now` is the mark of the moment.

    Raises NotIncremental unless all rows up to it are as they were.
    """
    last = before.get(MARK_OF[key])
    if last is None or "rows_content" not in before:
        raise NotIncremental(f"the snapshot in use knows no {key}")
    if now["rows"] < before["rows"]:
        raise NotIncremental(f"rows were deleted ({before['rows']} -> {now['rows']})")
    if now["rows"] - before["rows"] > NEW_SHARE * now["rows"]:
        raise NotIncremental(f"{now['rows'] - before['rows']} of {now['rows']} rows are new")
    newer = newer_rows(moment.connection, queries, key, last)
    if now["rows"] - newer.rows != before["rows"]:
        raise NotIncremental(
            f"{now['rows'] - newer.rows} rows have no later {key} than {last}, {before['rows']} had: rows were deleted, or came "
            "with an earlier one"
        )
    if int(now["rows_content"] or 0) - newer.content != int(before["rows_content"] or 0):
        raise NotIncremental(f"rows with no later {key} than {last} have changed")
    return newer.sequence_ids


def require_all_there(kept: Kept, catalogue: Catalogue) -> None:
    """Raise NotIncremental when a song, album or artist is gone, which a full run would no longer number."""
    known = len(kept.encoders.songs)
    seen = np.zeros(max(known, int(catalogue.numbers.max(initial=0)) + 1), bool)
    seen[:FIRST_NUMBER] = True
    seen[catalogue.numbers] = True
    if not seen[:known].all():  # those of sequences stay, whether the catalogue has them or not
        for rows in (kept.rows, kept.left_out):
            seen[rows] = True
    if gone := known - int(seen[:known].sum()):
        raise NotIncremental(f"{gone} of {known - FIRST_NUMBER} songs are gone")
    for encoder, ids in ((kept.encoders.albums, catalogue.album_ids), (kept.encoders.artists, catalogue.artist_ids)):
        if gone := _n_gone(encoder, ids):
            raise NotIncremental(f"{gone} of {len(encoder) - FIRST_NUMBER} {encoder.kind}s are gone")


def _n_gone(encoder: IdEncoder, ids: pa.Array) -> int:
    numbers = np.unique(encoder.encode(ids))
    return len(encoder) - FIRST_NUMBER - int((numbers >= FIRST_NUMBER).sum())


def left_out_rows(mark: Mapping[str, Any], *, recommended: bool) -> Counter[str]:
    """How many rows a full run would leave out, counted by the server; `recommended` says whether our own proposals are."""
    counts = {"rows without sequence_id": "rows_without_sequence", "rows without song_id": "rows_without_song"}
    if recommended:
        counts["rows recommended by us"] = "rows_recommended"
    return Counter({reason: mark[name] for reason, name in counts.items()})
