"""The history in Spotify's account data: minutes, names without ids, and files that are not what they should be."""

import json
from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.policy import Policy
from importers.records import Heard, Play
from importers.spotify_account import SPOTIFY_ACCOUNT
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

NAME = "StreamingHistory_music_0.json"


def record(end="2025-03-01 12:00", artist="The Piers", title="Low Tide", ms_played=90_000, **others):
    return {"endTime": end, "artistName": artist, "trackName": title, "msPlayed": ms_played, **others}


def test_a_play_began_before_the_minute_of_its_end_by_as_long_as_it_lasted():
    plays, tally = read(SPOTIFY_ACCOUNT, handed(NAME, [record()]))
    assert plays == [
        Play(
            line=1,
            heard=Heard(artist="The Piers", title="Low Tide"),
            listened_at=datetime(2025, 3, 1, 11, 58, 30, tzinfo=UTC),
            ms_played=90_000,
            skipped=False,
        )
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})
    assert SPOTIFY_ACCOUNT.precision_seconds == 60


def test_a_short_play_may_be_anything_and_is_left_out():
    plays, tally = read(SPOTIFY_ACCOUNT, handed(NAME, [record(ms_played=29_999), record(ms_played=30_000), record(ms_played=0)]))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", Policy().too_short): 2}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (None, "is no object"),
        ([], "is no object"),
        (record(end=None), "endTime is empty"),
        (record(end="Saturday"), "endTime is not a time in ISO 8601"),
        (record(end=20250301), "endTime is not a time in ISO 8601"),
        (record(end="1970-01-01 00:00"), "endTime is before 1990, from a clock that was not set"),
        (record(artist=None), "artistName is empty"),
        (record(artist=["The Piers"]), "artistName is not a text"),
        (record(title=" "), "trackName is empty"),
        (record(title="a\0"), "trackName holds a NUL character"),
        (record(title="a\ud800"), "trackName is not Unicode"),
        (record(artist="Unknown Artist", title="Unknown Track"), "is of an unknown track"),
        (record(ms_played=None), "msPlayed is empty"),
        (record(ms_played=-5), "msPlayed is not between 0 and 2147483647"),
        (record(ms_played=10**40), "msPlayed is not between 0 and 2147483647"),
        (record(ms_played={}), "msPlayed is not a whole number"),
    ],
)
def test_a_bad_record_costs_itself(odd, reason):
    plays, tally = read(SPOTIFY_ACCOUNT, handed(NAME, [odd, record()]))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == f"{NAME} record 1"


def test_a_file_cut_at_any_byte_is_an_error():
    content = json.dumps([record(title="Élan"), record()], ensure_ascii=False)
    assert outcomes_of_cutting(SPOTIFY_ACCOUNT, NAME, content) == [None] * len(content.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_than_utf_8_is_an_error(encoding):
    content = json.dumps([record(title="Élan")], ensure_ascii=False).encode(encoding)
    with pytest.raises(DataError, match=r"^StreamingHistory_music_0\.json is not UTF-8"):
        read(SPOTIFY_ACCOUNT, handed(NAME, content))


def test_files_are_known_by_their_names_or_what_they_begin_with_and_come_in_order():
    files = [
        handed("MyData/StreamingHistory_music_10.json", [record()]),
        handed("MyData/StreamingHistory_music_9.json", "damaged"),
        handed("MyData/StreamingHistory0.json", [record()]),
        handed("renamed.json", [record()]),
        handed("MyData/._StreamingHistory1.json", "\0\5\x16\7"),
        handed("MyData/StreamingHistory_podcast_0.json", [{"endTime": "2025-03-01 12:00", "podcastName": "a", "msPlayed": 5}]),
        handed("Streaming_History_Audio_2019_3.json", [{"ts": "2019-05-25T16:52:18Z", "ms_played": 1}]),
        handed("StreamingHistory_music_0.csv", [record()]),
    ]
    assert [file.name for file in SPOTIFY_ACCOUNT.recognise(files)] == [
        "renamed.json",
        "MyData/StreamingHistory0.json",
        "MyData/StreamingHistory_music_9.json",
        "MyData/StreamingHistory_music_10.json",
    ]
