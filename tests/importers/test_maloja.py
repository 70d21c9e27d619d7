"""Maloja's export: songs of several artists, lengths that are not known, and scrobbles that cannot be used."""

import json
from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.maloja import MALOJA
from importers.policy import Policy
from importers.records import Heard, Play
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

AT = datetime(2025, 12, 31, 21, 38, 14, tzinfo=UTC)
LOW_TIDE = Heard(artist="The Piers", title="Low Tide", album="Harbour", duration_ms=218_000)
TRACK = {
    "artists": ["The Piers", "A Guest"],
    "title": "Low Tide",
    "album": {"artists": ["The Piers"], "albumtitle": "Harbour"},
    "length": 218,
}


def scrobble(duration=200, time=1767217094, **track):
    return {"time": time, "track": TRACK | track, "duration": duration, "origin": "client:somebody"}


def export(*scrobbles):
    return handed("maloja.json", {"maloja": {"export_time": 1767217100}, "scrobbles": list(scrobbles)})


def test_a_scrobble_is_a_play_of_its_first_artist():
    plays, tally = read(MALOJA, export(scrobble()))
    assert plays == [Play(line=1, heard=LOW_TIDE, listened_at=AT, ms_played=200_000, skipped=False)]
    assert (left_out(tally), emptied(tally)) == ({}, {})
    assert "somebody" not in f"{plays} {tally}"


def test_lengths_and_albums_may_not_be_known():
    plays, tally = read(MALOJA, export(scrobble(duration=None, album=None, length=None), scrobble(album="Harbour")))
    assert plays == [
        Play(line=1, heard=Heard(artist="The Piers", title="Low Tide"), listened_at=AT),
        Play(line=2, heard=LOW_TIDE, listened_at=AT, ms_played=200_000, skipped=False),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_an_export_before_version_3_has_no_track_around_the_names():
    old = {"time": 1767217094, "artists": ["The Piers"], "title": "Low Tide", "album": "Harbour", "duration": 200}
    file = handed("old.json", {"scrobbles": [old]})
    assert MALOJA.recognise([file]) == [file]
    plays, _ = read(MALOJA, file)
    assert [(play.heard, play.ms_played) for play in plays] == [(LOW_TIDE._replace(duration_ms=None), 200_000)]


def test_what_was_played_for_a_moment_only_says_nothing():
    plays, tally = read(MALOJA, export(scrobble(duration=29.9), scrobble(duration=29.9, length=50), scrobble(duration=30)))
    assert [play.line for play in plays] == [2, 3]
    assert left_out(tally) == {("plays", Policy().too_short): 1}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (None, "is no object"),
        (7, "is no object"),
        ({"time": 1767217094, "track": "Low Tide"}, "track is no object"),
        ({"time": 1767217094, "track": None}, "track is no object"),
        (scrobble(artists=[]), "artists is empty"),
        (scrobble(artists=None), "artists is empty"),
        (scrobble(artists="The Piers"), "artists is no array"),
        (scrobble(artists=[["The Piers"]]), "artists is not a text"),
        (scrobble(artists=["a\ud800"]), "artists is not Unicode"),
        (scrobble(title=None), "title is empty"),
        (scrobble(title="a\0"), "title holds a NUL character"),
        (scrobble(time=None), "time is empty"),
        (scrobble(time=-1), "time is before 1990, from a clock that was not set"),
        (scrobble(time=10**20), "time is not a time in seconds since 1970"),
        (scrobble(time=[]), "time is not a number"),
    ],
)
def test_a_bad_scrobble_costs_itself(odd, reason):
    plays, tally = read(MALOJA, export(odd, scrobble()))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == "maloja.json record 1"


def test_odd_fields_cost_themselves():
    plays, tally = read(MALOJA, export(scrobble(duration="long", album=[1], length=-1)))
    assert plays == [Play(line=1, heard=Heard(artist="The Piers", title="Low Tide"), listened_at=AT)]
    assert emptied(tally) == {"duration is not a number": 1, "album is not a text": 1, "length is no duration in seconds": 1}


def test_a_file_cut_at_any_byte_is_an_error():
    content = json.dumps({"maloja": {"export_time": 1}, "scrobbles": [scrobble(), scrobble()]})
    assert outcomes_of_cutting(MALOJA, "maloja.json", content) == [None] * len(content)


def test_another_encoding_than_utf_8_is_an_error():
    content = json.dumps({"scrobbles": [scrobble(title="Élan")]}, ensure_ascii=False).encode("latin-1")
    with pytest.raises(DataError, match=r"^maloja\.json is not UTF-8"):
        read(MALOJA, handed("maloja.json", content))


def test_an_export_is_known_by_its_beginning():
    files = [
        export(scrobble()),
        handed("stats.json", {"username": "somebody", "scrobbles": [{"track": "a", "artist": "b", "date": 1767217094000}]}),
        handed("list.json", [scrobble()]),
        handed("maloja.txt", {"maloja": {}, "scrobbles": []}),
        handed("empty.json", ""),
    ]
    assert [file.name for file in MALOJA.recognise(files)] == ["maloja.json"]
