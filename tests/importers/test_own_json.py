"""The JSON files of our own exports; tests/exporters/test_read_back.py reads those that are written."""

import json
from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.own_json import OWN_JSON
from importers.records import Heard, Place
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

MBID = "11111111-0000-4000-8000-000000000000"
SPOTIFY_ID = "5Q7vla0EpIHVcEL9SuE0Ka"
SONG = {"song_id": 7, "title": "Low Tide", "artist": "The Piers", "album": None, "duration_ms": 218_000, "spotify_id": SPOTIFY_ID}


def exported(*songs, name="Evening"):
    return {"name": name, "created_at": "2026-01-02T03:04:05+00:00", "model": None, "songs": list(songs)}


def test_a_song_stands_at_a_place_with_what_is_known_of_it():
    song = SONG | {"recording_mbid": MBID, "location": "/music/a.mp3", "rank": 1, "score": 1.5, "reasons": ["x"]}
    [place], tally = read(OWN_JSON, handed("a.json", exported(song)))
    assert place == Place(
        line=1,
        playlist="Evening",
        name="Evening",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        heard=Heard(
            title="Low Tide",
            artist="The Piers",
            duration_ms=218_000,
            spotify_id=SPOTIFY_ID,
            recording_mbid=MBID,
            location="/music/a.mp3",
        ),
    )
    assert (left_out(tally), emptied(tally)) == ({}, {})


@pytest.mark.parametrize(
    ("song", "reason"),
    [
        (7, "is no object"),
        ({"song_id": 7}, "has neither an id that counts elsewhere nor a location nor artist and title"),
    ],
)
def test_what_names_no_song_costs_itself(song, reason):
    places, tally = read(OWN_JSON, handed("a.json", exported(song, SONG)))
    assert ([place.line for place in places], left_out(tally)) == ([2], {("rows", reason): 1})


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ({"title": 7}, "title is not a text"),
        ({"recording_mbid": "x"}, "recording_mbid is not a UUID"),
        ({"duration_ms": -1}, "duration_ms is not between 0 and 2147483647"),
        ({"location": "x" * 501}, "location is longer than 500 characters"),
        ({"spotify_id": "x", "isrc": "QZABC2000001"}, "spotify_id is no id of a Spotify track"),
    ],
)
def test_a_field_that_cannot_be_used_stays_empty(odd, fault):
    places, tally = read(OWN_JSON, handed("a.json", exported(SONG | odd)))
    assert (len(places), emptied(tally)) == (1, {fault: 1})


@pytest.mark.parametrize("content", [[], {}, {"songs": {}}, b"\xff"])
def test_what_is_no_list_is_an_error(content):
    with pytest.raises(DataError, match=r"^a\.json is "):
        read(OWN_JSON, handed("a.json", content))


def test_a_file_that_was_cut_anywhere_is_an_error():
    content = json.dumps(exported(SONG, name="Ünï"), ensure_ascii=False, indent=2)
    assert set(outcomes_of_cutting(OWN_JSON, "a.json", content)) == {None}


def test_its_files_are_known_by_how_they_begin():
    ours = handed("a.json", exported(SONG, name='a "b" \\'))
    foreign = [handed("b.json", {"name": "x", "songs": []}), handed("c.json", {"playlist": {}}), handed("._d.json", exported())]
    assert OWN_JSON.recognise([ours, *foreign]) == [ours]
