"""The log of players without a network: listened or skipped, with or without MBIDs, and clocks that were never set."""

from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.records import Heard, Play
from importers.scrobbler_log import SCROBBLER_LOG
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

MBID = "64ff5f53-d187-4512-827e-7606c69e66ff"
HEAD = "#AUDIOSCROBBLER/1.1\n#TZ/UNKNOWN\n#CLIENT/Rockbox toaster\n#ARTIST\t#ALBUM\t#TITLE\n"
LOW_TIDE = f"The Piers\tHarbour\tLow Tide\t4\t218\tL\t1767217094\t{MBID}\n"
AT = datetime(2025, 12, 31, 21, 38, 14, tzinfo=UTC)


def log(*lines):
    return handed(".scrobbler.log", HEAD + "".join(lines))


def test_a_line_is_a_song_that_was_heard_or_skipped():
    plays, tally = read(SCROBBLER_LOG, log(LOW_TIDE, "The Piers\t\tFog\t\t\tS\t1767217300\t\r\n"))
    assert plays == [
        Play(
            line=5,
            heard=Heard(
                artist="The Piers", title="Low Tide", album="Harbour", recording_mbid=MBID, duration_ms=218_000, track_number=4
            ),
            listened_at=AT,
            skipped=False,
        ),
        Play(line=6, heard=Heard(artist="The Piers", title="Fog"), listened_at=AT.replace(minute=41, second=40), skipped=True),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_a_log_of_the_first_version_has_no_mbids():
    file = handed("log.txt", "#AUDIOSCROBBLER/1.0\n#TZ/UTC\nThe Piers\tHarbour\tLow Tide\t4\t218\tL\t1767217094\n")
    plays, _ = read(SCROBBLER_LOG, file)
    assert [(play.listened_at, play.heard.recording_mbid) for play in plays] == [(AT, None)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("The Piers\tLow Tide", "wrong number of fields"),
        (LOW_TIDE.strip() + "\tmore", "wrong number of fields"),
        (LOW_TIDE.strip().replace("\tL\t", "\tX\t"), "rating is neither L nor S"),
        (LOW_TIDE.strip().replace("The Piers", ""), "artist is empty"),
        (LOW_TIDE.strip().replace("Low Tide", "a\0"), "title holds a NUL character"),
        (LOW_TIDE.strip().replace("1767217094", ""), "time is empty"),
        (LOW_TIDE.strip().replace("1767217094", "0"), "time is before 1990, from a clock that was not set"),
        (LOW_TIDE.strip().replace("1767217094", "noon"), "time is not a number"),
    ],
)
def test_a_bad_line_costs_itself(line, reason):
    plays, tally = read(SCROBBLER_LOG, log(line + "\n", LOW_TIDE))
    assert [play.line for play in plays] == [6]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == ".scrobbler.log line 5"


def test_odd_fields_cost_themselves():
    [play], tally = read(SCROBBLER_LOG, log("The Piers\ta\0\tLow Tide\tfour\t-1\tL\t1767217094\tnone\n"))
    assert play == Play(line=5, heard=Heard(artist="The Piers", title="Low Tide"), listened_at=AT, skipped=False)
    assert emptied(tally) == {
        "seconds is no duration in seconds": 1,
        "album holds a NUL character": 1,
        "recording_mbid is not a UUID": 1,
        "track_number is not a number": 1,
    }


def test_a_log_cut_at_any_byte_is_an_error_but_between_two_lines():
    content = HEAD + LOW_TIDE + LOW_TIDE
    counts = outcomes_of_cutting(SCROBBLER_LOG, ".scrobbler.log", content)
    ends = {0: 0} | {i + 1: max(0, content[: i + 1].count("\n") - 4) for i, sign in enumerate(content) if sign == "\n"}
    assert counts == [ends.get(end) for end in range(len(content))]


def test_another_encoding_than_utf_8_is_an_error():
    with pytest.raises(DataError, match=r"^\.scrobbler\.log is not UTF-8 after line"):
        read(SCROBBLER_LOG, handed(".scrobbler.log", (HEAD + LOW_TIDE.replace("Harbour", "Élan")).encode("latin-1")))


def test_a_log_is_known_by_its_first_line():
    files = [log(LOW_TIDE), handed("log.txt", HEAD), handed("other.log", LOW_TIDE), handed(".scrobbler.log", "")]
    assert SCROBBLER_LOG.recognise(files) == files[:2]
