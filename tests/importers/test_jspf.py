"""JSPF of several programs and years."""

import json
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from errors import DataError
from importers.jspf import JSPF
from importers.records import Heard, Place
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

RECORDING, ARTIST, RELEASE, LIST = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")
SPOTIFY_ID = "5Q7vla0EpIHVcEL9SuE0Ka"
TRACK_EXTENSION = "https://musicbrainz.org/doc/jspf#track"
MUSICBRAINZ = "https://musicbrainz.org"


def jspf(*tracks, **playlist):
    return {"playlist": {"title": "Evening", "track": list(tracks), **playlist}}


def of_listenbrainz():
    """A playlist as ListenBrainz gives it away."""
    extension = {
        "added_by": "somebody",
        "added_at": "2024-02-03T04:05:06.700000+00:00",
        "artist_identifiers": [f"{MUSICBRAINZ}/artist/{ARTIST}"],
        "release_identifier": f"{MUSICBRAINZ}/release/{RELEASE}",
        "additional_metadata": {"isrc": "QZABC2000001"},
    }
    track = {
        "title": "Low Tide",
        "creator": "The Piers",
        "album": "Harbour",
        "duration": 218_000,
        "identifier": [f"{MUSICBRAINZ}/recording/{RECORDING}"],
        "location": ["file:///music/Low%20Tide.flac"],
        "extension": {TRACK_EXTENSION: extension},
    }
    return jspf(
        track, creator="somebody", date="2024-01-01T00:00:00+01:00", identifier=f"https://listenbrainz.org/playlist/{LIST}"
    )


def test_a_track_of_listenbrainz_is_a_song_at_a_place():
    [place], tally = read(JSPF, handed("a.jspf", of_listenbrainz()))
    assert place == Place(
        line=1,
        playlist=LIST,
        name="Evening",
        created_at=datetime(2023, 12, 31, 23, tzinfo=UTC),
        added_at=datetime(2024, 2, 3, 4, 5, 6, 700_000, tzinfo=UTC),
        heard=Heard(
            title="Low Tide",
            artist="The Piers",
            album="Harbour",
            duration_ms=218_000,
            recording_mbid=RECORDING,
            artist_mbid=ARTIST,
            release_mbid=RELEASE,
            isrc="QZABC2000001",
            location="/music/Low Tide.flac",
        ),
    )
    assert (left_out(tally), emptied(tally)) == ({}, {})
    assert "somebody" not in repr(place)


@pytest.mark.parametrize(
    ("track", "heard"),
    [
        ({"identifier": f"http://musicbrainz.org/recording/{RECORDING.upper()}/"}, Heard(recording_mbid=RECORDING)),
        ({"identifier": ["x", None, f"https://beta.musicbrainz.org/recording/{RECORDING}"]}, Heard(recording_mbid=RECORDING)),
        ({"identifier": f"spotify:track:{SPOTIFY_ID}"}, Heard(spotify_id=SPOTIFY_ID)),
        ({"location": [f"https://open.spotify.com/intl-de/track/{SPOTIFY_ID}?si=1"]}, Heard(spotify_id=SPOTIFY_ID)),
        ({"location": "http://nas/a.mp3?u=anna"}, Heard(location="http://nas/a.mp3")),
        ({"location": ["C:\\a.mp3"]}, Heard(location="C:\\a.mp3")),
        ({"title": "x", "creator": ["The Piers", "Nova"]}, Heard(title="x", artist="The Piers")),
        ({"title": "x", "creator": [{"name": "The Piers"}]}, Heard(title="x", artist="The Piers")),
        ({"title": "x", "creator": {"name": "The Piers"}}, Heard(title="x", artist="The Piers")),
        ({"title": "x", "creator": "y", "duration": 1234.6}, Heard(title="x", artist="y", duration_ms=1235)),
        ({"title": "x", "creator": "y", "duration": "1234"}, Heard(title="x", artist="y", duration_ms=1234)),
        ({"title": "x", "creator": "y", "duration": 0}, Heard(title="x", artist="y")),
        (
            {
                "title": "x",
                "creator": "y",
                "extension": {TRACK_EXTENSION: [{"artist_identifier": f"{MUSICBRAINZ}/artist/{ARTIST}"}]},
            },
            Heard(title="x", artist="y", artist_mbid=ARTIST),
        ),
        (
            {
                "title": "x",
                "creator": "y",
                "extension": {TRACK_EXTENSION: {"release_identifier": [f"{MUSICBRAINZ}/release/{RELEASE}"]}},
            },
            Heard(title="x", artist="y", release_mbid=RELEASE),
        ),
        ({"title": "x", "creator": "y", "extension": [TRACK_EXTENSION]}, Heard(title="x", artist="y")),
        ({"title": "x", "creator": "y", "extension": {TRACK_EXTENSION: "z"}}, Heard(title="x", artist="y")),
    ],
)
def test_the_shapes_of_other_programs_mean_the_same(track, heard):
    [place], tally = read(JSPF, handed("a.jspf", jspf(track)))
    assert (place.heard, left_out(tally), emptied(tally)) == (heard, {}, {})


@pytest.mark.parametrize("track", [{}, {"title": "x"}, {"identifier": "x"}, {"identifier": f"{MUSICBRAINZ}/artist/{ARTIST}"}])
def test_a_track_that_names_no_song_costs_itself(track):
    places, tally = read(JSPF, handed("a.jspf", jspf(track, {"title": "x", "creator": "y"})))
    assert [place.line for place in places] == [2]
    assert left_out(tally) == {("rows", "has neither an identifier nor a location nor artist and title"): 1}
    assert tally.skipped["rows", "has neither an identifier nor a location nor artist and title"].first == "a.jspf track 1"


def test_what_is_no_track_costs_itself():
    places, tally = read(JSPF, handed("a.jspf", jspf(None, 7, [], "x")))
    assert (places, left_out(tally)) == ([], {("rows", "is no object"): 4})


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ({"title": 7}, "title is not a text"),
        ({"creator": 7}, "creator is not a text"),
        ({"album": {"a": 1}}, "album is not a text"),
        ({"album": "\0"}, "album holds a NUL character"),
        ({"duration": -1}, "duration is not between 0 and 2147483647"),
        ({"duration": 1e300}, "duration is not between 0 and 2147483647"),
        ({"duration": True}, "duration is not a whole number"),
        ({"location": {"a": 1}}, "location is neither a text nor an array"),
        ({"location": "/" + "x" * 500}, "location is longer than 500 characters"),
        ({"extension": {TRACK_EXTENSION: {"added_at": "9999-99-99"}}}, "added_at is not a time in ISO 8601"),
    ],
)
def test_a_field_that_cannot_be_used_stays_empty(odd, fault):
    track = {"identifier": f"{MUSICBRAINZ}/recording/{RECORDING}", **odd}
    places, tally = read(JSPF, handed("a.jspf", jspf(track)))
    assert (len(places), left_out(tally), emptied(tally)) == (1, {}, {fault: 1})


def test_a_list_without_an_id_goes_by_its_title_and_one_without_a_title_by_its_file():
    song = {"title": "x", "creator": "y"}
    files = [
        handed("1.jspf", jspf(song)),
        handed("2.jspf", jspf(song)),
        handed("lists/Late.jspf", jspf(song, title=None, date="yesterday")),
        handed("4.jspf", jspf(song, identifier=["https://example.org/7"])),
    ]
    places, tally = read(JSPF, *files)
    assert [(place.playlist, place.name) for place in places] == [
        ("Evening", "Evening"),
        ("Evening (2)", "Evening"),
        ("Late", "Late"),
        (sha256(b"https://example.org/7").hexdigest()[:32], "Evening"),  # it may hold the name of an account
    ]
    assert emptied(tally) == {"date is not a time in ISO 8601": 1}


@pytest.mark.parametrize("content", [[], 7, {}, {"playlist": []}, {"playlist": {"track": {"0": {}}}}, "{", b"\xff\xfe"])
def test_what_is_no_playlist_is_an_error(content):
    with pytest.raises(DataError, match=r"^a\.jspf "):
        read(JSPF, handed("a.jspf", content))


def test_a_list_without_songs_is_none():
    assert read(JSPF, handed("a.jspf", {"playlist": {"title": "x"}}))[0] == []


def test_a_file_that_was_cut_anywhere_is_an_error():
    content = json.dumps(jspf({"title": "Ünï", "creator": "二"}), ensure_ascii=False)
    assert set(outcomes_of_cutting(JSPF, "a.jspf", content)) == {None}


def test_its_files_are_known_by_name_or_by_how_they_begin():
    ours = [handed("b.jspf", b""), handed("a.json", jspf())]
    foreign = [
        handed("c.json", {"playlists": []}),
        handed("d.json", []),
        handed("._e.jspf", jspf()),
        handed("f.txt", jspf()),
        handed("g.json", {"playlist": "x"}),
        handed("h.json", b"\xff"),
    ]
    assert [file.name for file in JSPF.recognise([*ours, *foreign])] == ["a.json", "b.jspf"]
