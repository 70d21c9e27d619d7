"""Yambda: listens and opinions of numbered listeners, half played or more, and files that are cut off or of the other layout."""

import contextlib
import io
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from errors import DataError
from importers.policy import Policy
from importers.records import Heard, Opinion, Play, Score
from importers.tally import Tally
from importers.yambda import YAMBDA
from tests.importers.handed import emptied, handed, left_out, read

ROW = {
    "uid": 17,
    "timestamp": 86_405,
    "item_id": 5,
    "is_organic": 0,
    "played_ratio_pct": 50,
    "track_length_seconds": 200,
}
AT = datetime(2024, 1, 2, 0, 0, 5, tzinfo=UTC)
SONG = Heard(item="yambda:5", duration_ms=200_000)


def parquet(*rows, schema=None, name="listens.parquet", **settings):
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), data, **settings)
    return handed(f"flat/50m/{name}", data.getvalue())


def test_a_listen_of_half_a_song_was_heard_and_a_shorter_one_was_a_skip():
    plays, tally = read(YAMBDA, parquet(ROW, ROW | {"played_ratio_pct": 49, "is_organic": 1}, ROW | {"played_ratio_pct": 250}))
    play = Play(line=1, heard=SONG, listened_at=AT, ms_played=100_000, skipped=False, is_recommended=True, listener="yambda:17")
    assert plays == [
        play,
        play._replace(line=2, ms_played=98_000, skipped=True, is_recommended=False),
        play._replace(line=3, ms_played=500_000),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_the_share_that_counts_is_a_setting():
    records = YAMBDA.read([parquet(ROW)], Policy(min_play_share=0.6), Tally(source="t"))
    assert [record.skipped for record in records if isinstance(record, Play)] == [True]


def test_all_events_in_one_file():
    event = {"uid": 17, "timestamp": 86_405, "item_id": 5, "is_organic": 1}
    rows = [
        ROW | {"event_type": "listen"},
        *({**event, "event_type": kind} for kind in ("like", "dislike", "unlike", "undislike")),
    ]
    schema = pa.schema([*((name, pa.int64()) for name in ROW), ("event_type", pa.dictionary(pa.int8(), pa.string()))])
    records, _ = read(YAMBDA, parquet(*rows, schema=schema, name="multi_event.parquet"))
    opinion = Opinion(line=2, heard=Heard(item="yambda:5"), score=Score.LIKED, happened_at=AT, listener="yambda:17")
    assert isinstance(records[0], Play)
    assert records[1:] == [
        opinion,
        opinion._replace(line=3, score=Score.NEVER_AGAIN),
        opinion._replace(line=4, score=Score.NONE),
        opinion._replace(line=5, score=Score.NONE),
    ]


@pytest.mark.parametrize(
    ("name", "score"),
    [("likes", Score.LIKED), ("dislikes", Score.NEVER_AGAIN), ("unlikes", Score.NONE), ("undislikes", Score.NONE)],
)
def test_a_file_of_one_event_tells_it_by_its_name(name, score):
    rows = [{"uid": 17, "timestamp": 86_405, "item_id": 5, "is_organic": 1}, {"uid": None, "timestamp": 0, "item_id": 5}]
    opinions, tally = read(YAMBDA, parquet(*rows, name=f"{name}.parquet"))
    assert opinions == [Opinion(line=1, heard=Heard(item="yambda:5"), score=score, happened_at=AT, listener="yambda:17")]
    assert left_out(tally) == {("feedback", "uid is empty"): 1}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"uid": None}, "uid is empty"),
        ({"uid": -1}, "uid is below 0"),
        ({"item_id": None}, "item_id is empty"),
        ({"timestamp": None}, "timestamp is empty"),
        ({"timestamp": -5}, "timestamp is below 0"),
        ({"timestamp": 2**62}, "timestamp lies beyond the year 9999"),
        ({"timestamp": 10**12}, "timestamp lies beyond the year 9999"),
    ],
)
def test_a_bad_row_costs_itself(odd, reason):
    plays, tally = read(YAMBDA, parquet(ROW | odd, ROW))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == "flat/50m/listens.parquet row 1"


@pytest.mark.parametrize("event", ["share", None, ["listen"], b"listen"])
def test_an_event_that_nobody_knows_costs_its_row(event):
    records, tally = read(YAMBDA, parquet(ROW | {"event_type": event}, name="multi_event.parquet"))
    assert records == []
    assert left_out(tally) == {("plays", "event_type is none of listen, like, dislike, unlike, undislike"): 1}


def test_what_is_not_known_of_a_listen_stays_unknown():
    nothing = dict.fromkeys(("is_organic", "played_ratio_pct", "track_length_seconds"))
    plays, tally = read(YAMBDA, parquet(ROW, ROW | nothing))
    assert plays[1] == Play(line=2, heard=Heard(item="yambda:5"), listened_at=AT, listener="yambda:17")
    assert (left_out(tally), emptied(tally)) == ({}, {})


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0, 1e30])
def test_odd_amounts_cost_themselves(odd):
    plays, tally = read(YAMBDA, parquet(ROW | {"played_ratio_pct": odd}, ROW | {"played_ratio_pct": 50.0}))
    assert [(play.ms_played, play.skipped) for play in plays] == [(None, None), (100_000, False)]
    assert emptied(tally) == {"played_ratio_pct is no amount": 1}


def test_a_play_that_would_last_for_months_has_no_length():
    [play], tally = read(YAMBDA, parquet(ROW | {"played_ratio_pct": 2_000_000, "track_length_seconds": 2_000_000}))
    assert (play.ms_played, play.heard.duration_ms) == (None, 2_000_000_000)
    assert emptied(tally) == {"played_ratio_pct is no amount": 1}


def test_rows_are_numbered_over_row_groups_and_batches(monkeypatch):
    monkeypatch.setattr("importers.yambda.ROWS_PER_BATCH", 2)
    plays, _ = read(YAMBDA, parquet(*(ROW | {"item_id": i} for i in range(7)), row_group_size=3))
    assert [(play.line, play.heard.item) for play in plays] == [(i + 1, f"yambda:{i}") for i in range(7)]


def test_a_file_cut_at_any_byte_is_an_error():
    file = parquet(ROW, ROW)
    with file.open() as stream:
        data = stream.read()
    for end in range(len(data)):
        with pytest.raises(DataError, match=r"is damaged, or ends in the middle \(cut off\?\): fetch it again"):
            read(YAMBDA, handed("listens.parquet", data[:end]))


def test_a_file_with_any_spoiled_byte_is_an_error_or_is_read():
    file = parquet(ROW | {"event_type": "listen"}, name="multi_event.parquet")
    with file.open() as stream:
        data = bytearray(stream.read())
    for place in range(0, len(data), 3):
        spoiled = bytes(data[:place]) + bytes([data[place] ^ 0xFF]) + bytes(data[place + 1 :])
        with contextlib.suppress(DataError):
            read(YAMBDA, handed("multi_event.parquet", spoiled))


def test_a_text_that_is_not_utf_8_is_an_error():
    texts = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    table = pa.table({"uid": [1], "item_id": [1], "timestamp": [1], "event_type": texts})
    data = io.BytesIO()
    pq.write_table(table, data)
    with pytest.raises(DataError, match=r"^multi_event\.parquet is damaged"):
        read(YAMBDA, handed("multi_event.parquet", data.getvalue()))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"uid": 1, "item_id": [1, 2], "timestamp": [0, 5]}, "has no whole numbers in 'item_id': fetch the flat layout"),
        ({"uid": "a", "item_id": 1, "timestamp": 0}, "has no whole numbers in 'uid'"),
        ({"item_id": 1, "embed": [0.5]}, "has no column 'uid': it is no file of Yambda's events"),
    ],
)
def test_another_layout_is_an_error(row, message):
    with pytest.raises(DataError, match=f"^flat/50m/listens.parquet {message}"):
        read(YAMBDA, parquet(row))


def test_files_are_known_by_their_names():
    files = [
        parquet(ROW),
        parquet(ROW, name="multi_event.parquet"),
        parquet(ROW, name="embeddings.parquet"),
        parquet(ROW, name="._likes.parquet"),
        handed("listens.parquet", "no parquet"),
        handed("sequential/50m/listens.parquet", "PAR1"),
        handed("listens.csv", "PAR1"),
    ]
    assert [file.name for file in YAMBDA.recognise(files)] == ["flat/50m/listens.parquet", "flat/50m/multi_event.parquet"]
