"""Lastfm-1K: several listeners in one file, and rows that cannot be used."""

from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.lastfm_1k import LASTFM_1K
from importers.records import Heard, Play
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

NAME = "userid-timestamp-artid-artname-traid-traname.tsv"
MBID = "64ff5f53-d187-4512-827e-7606c69e66ff"
ROW = f"user_000001\t2009-05-04T23:08:57Z\t{MBID}\tThe Piers\t{MBID}\tLow Tide\n"
OTHER = 'user_000002\t2009-05-04T13:54:10Z\t\t"Piers"\t\tFog, "Live\n'


def test_each_pseudonym_is_a_listener_and_mbids_are_left_alone():
    plays, tally = read(LASTFM_1K, handed(NAME, ROW + OTHER))
    assert plays == [
        Play(
            line=1,
            heard=Heard(artist="The Piers", title="Low Tide"),
            listened_at=datetime(2009, 5, 4, 23, 8, 57, tzinfo=UTC),
            listener="lastfm-1k:user_000001",
        ),
        Play(
            line=2,
            heard=Heard(artist='"Piers"', title='Fog, "Live'),
            listened_at=datetime(2009, 5, 4, 13, 54, 10, tzinfo=UTC),
            listener="lastfm-1k:user_000002",
        ),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW.replace("\tLow Tide", ""), "wrong number of fields"),
        (ROW.replace("Low Tide", "Low\tTide"), "wrong number of fields"),
        (ROW.replace("user_000001", " "), "user is empty"),
        (ROW.replace("user_000001", "\0"), "user holds a NUL character"),
        (ROW.replace("2009-05-04T23:08:57Z", "1241478537"), "time is not a time in ISO 8601"),
        (ROW.replace("2009", "1970"), "time is before 1990, from a clock that was not set"),
        (ROW.replace("The Piers", ""), "artist is empty"),
        (ROW.replace("Low Tide", ""), "title is empty"),
    ],
)
def test_a_bad_row_costs_itself(row, reason):
    plays, tally = read(LASTFM_1K, handed(NAME, row + "\n" + OTHER))
    assert [play.line for play in plays] == [3]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == f"{NAME} line 1"


def test_a_file_cut_at_any_byte_is_an_error_but_between_two_rows():
    content = ROW + OTHER
    counts = outcomes_of_cutting(LASTFM_1K, NAME, content)
    assert counts == [{0: 0, len(ROW): 1}.get(end) for end in range(len(content))]


def test_another_encoding_than_utf_8_is_an_error():
    with pytest.raises(DataError, match=r"is not UTF-8 after line"):
        read(LASTFM_1K, handed(NAME, ROW.replace("Low", "Él").encode("latin-1")))


def test_a_file_is_known_by_its_first_row():
    files = [handed("renamed.tsv", ROW), handed(NAME, "user_000001\tm\t22\tNowhere\n"), handed("a.tsv", "a\tb\tc\td\te\tf\n")]
    assert [file.name for file in LASTFM_1K.recognise(files)] == ["renamed.tsv"]
