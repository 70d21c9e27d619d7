"""Reads Yambda, the events of a million listeners of Yandex Music, a set for research.

    flat/50m/listens.parquet       uid, item_id, timestamp, is_organic, played_ratio_pct, track_length_seconds
    flat/50m/likes.parquet         uid, item_id, timestamp, is_organic; so dislikes, unlikes, undislikes
    flat/50m/multi_event.parquet   all of them, with event_type

The times are seconds in steps of five, and nobody told since when: they are taken to begin with 2024, so that intervals are
right, and days, weekdays and hours are not.  What played for half of its length was heard, other listens are kept as skips.  What
a recommender had chosen is not organic.  Songs have numbers only, and listeners too: "yambda:17".

Files of many gigabytes are read in batches.  The sequential layout, a row for each listener, is left alone.  https://huggingface.co/datasets/yandex/yambda
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from errors import DataError
from importers.fields import LARGEST_INTEGER
from importers.files import TextFile, reading
from importers.formats import Format
from importers.lists import in_order
from importers.policy import Policy
from importers.records import Heard, Opinion, Play, Record, Score
from importers.tally import Kind, Tally

ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
SECONDS_PER_STEP = 5.0
ROWS_PER_BATCH = 20_000
BUFFER_BYTES = 1_048_576  # of each column; without it, a whole row group is held
NUMBERS = ("uid", "item_id", "timestamp")
COLUMNS = (*NUMBERS, "is_organic", "played_ratio_pct", "track_length_seconds", "event_type")
LISTEN = "listen"
SCORES: Mapping[str, Score] = {
    "like": Score.LIKED,
    "dislike": Score.NEVER_AGAIN,
    "unlike": Score.NONE,
    "undislike": Score.NONE,
}
_MAGIC = "PAR1"
_FILES = {"listens": LISTEN, "likes": "like", "dislikes": "dislike", "unlikes": "unlike", "undislikes": "undislike"}
_ALL_EVENTS = "multi_event"

Row = Mapping[str, Any]


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_events, files))


def _is_events(file: TextFile) -> bool:
    """By the name alone: what a parquet file holds stands at its end."""
    name = PurePosixPath(file.base_name)
    return (
        name.suffix == ".parquet"
        and "sequential" not in PurePosixPath(file.name).parts
        and (name.stem in _FILES or name.stem == _ALL_EVENTS)
        and file.head(len(_MAGIC)) == _MAGIC
    )


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        for number, row in enumerate(_rows(file), start=1):
            event = row["event_type"]
            kind: Kind = "feedback" if isinstance(event, str) and event in SCORES else "plays"
            faults: list[str] = []
            try:
                found = _opinion(number, row) if kind == "feedback" else _play(number, row, policy, faults)
            except ValueError as exc:
                tally.skip(kind, str(exc), f"{file.name} row {number}")
                continue
            for fault in faults:
                tally.empty(fault, f"{file.name} row {number}")
            yield found


def _rows(file: TextFile) -> Iterator[Row]:
    """The rows with all of COLUMNS, None where a file does not have one.  Raises DataError for what is no such file."""
    with reading(file) as stream:
        try:
            parquet = pq.ParquetFile(stream, buffer_size=BUFFER_BYTES)
            _check(file, parquet.schema_arrow)
            there = [name for name in COLUMNS if name in parquet.schema_arrow.names]
            missing = dict.fromkeys(COLUMNS) | {"event_type": _FILES.get(PurePosixPath(file.base_name).stem)}
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=there):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield {**missing, **dict(zip(batch.schema.names, cells, strict=True))}
        except (pa.ArrowException, OSError, ValueError) as exc:  # the last one: a text that is not UTF-8
            raise DataError(f"{file.name} is damaged, or ends in the middle (cut off?): fetch it again ({exc})") from exc


def _check(file: TextFile, schema: pa.Schema) -> None:
    absent = [name for name in NUMBERS if name not in schema.names]
    if absent:
        raise DataError(f"{file.name} has no column {absent[0]!r}: it is no file of Yambda's events")
    other = [name for name in NUMBERS if not pa.types.is_integer(schema.field(name).type)]
    if other:
        raise DataError(f"{file.name} has no whole numbers in {other[0]!r}: fetch the flat layout, not the sequential one")


def _play(number: int, row: Row, policy: Policy, faults: list[str]) -> Play:
    if row["event_type"] != LISTEN:
        raise ValueError(f"event_type is none of {LISTEN}, {', '.join(SCORES)}")
    ratio = _amount(row, "played_ratio_pct", faults)
    length = _amount(row, "track_length_seconds", faults)
    duration_ms = None if length is None else round(1000 * length)
    ms_played = None if length is None or ratio is None else round(10 * length * ratio)
    if ms_played is not None and ms_played > LARGEST_INTEGER:
        faults.append("played_ratio_pct is no amount")
        ms_played = None
    organic = row["is_organic"]
    return Play(
        line=number,
        heard=_song(row)._replace(duration_ms=duration_ms),
        listened_at=_time(row),
        ms_played=ms_played,
        skipped=None if ratio is None else ratio < 100 * policy.min_play_share,
        is_recommended=None if organic is None else not organic,
        listener=_listener(row),
    )


def _opinion(number: int, row: Row) -> Opinion:
    return Opinion(
        line=number,
        heard=_song(row),
        score=SCORES[row["event_type"]],
        happened_at=_time(row),
        listener=_listener(row),
    )


def _song(row: Row) -> Heard:
    return Heard(item=f"yambda:{_number(row, 'item_id')}")


def _listener(row: Row) -> str:
    return f"yambda:{_number(row, 'uid')}"


def _time(row: Row) -> datetime:
    try:
        return ORIGIN + timedelta(seconds=_number(row, "timestamp"))
    except OverflowError:
        raise ValueError("timestamp lies beyond the year 9999") from None


def _number(row: Row, name: str) -> int:
    found = row[name]
    if found is None:
        raise ValueError(f"{name} is empty")
    if found < 0:
        raise ValueError(f"{name} is below 0")
    return int(found)


def _amount(row: Row, name: str, faults: list[str]) -> float | None:
    """A share or a length; a share may well be above 100, where something was played again."""
    found = row[name]
    if found is None:
        return None
    if not isinstance(found, int | float) or not 0 <= found <= LARGEST_INTEGER / 1000:  # no NaN is between two numbers
        faults.append(f"{name} is no amount")
        return None
    return found


YAMBDA = Format(
    name="yambda", title="Yambda, a set for research", recognise=_recognise, read=_read, precision_seconds=SECONDS_PER_STEP
)
FORMATS = (YAMBDA,)
