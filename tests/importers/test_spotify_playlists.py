"""Spotify's account data: lists of the same name, items that are no songs, and files that are not what they should be."""

import json
from datetime import UTC, datetime

import pytest

from importers.records import Heard, Place
from importers.spotify_playlists import SPOTIFY_PLAYLISTS
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

ID = "5Q7vla0EpIHVcEL9SuE0Ka"


def item(uri=f"spotify:track:{ID}", title="Low Tide", artist="The Piers", album="Harbour", added="2020-01-31", **others):
    track = {"trackName": title, "artistName": artist, "albumName": album, "trackUri": uri}
    return {"track": track, "episode": None, "localTrack": None, "addedDate": added, **others}


def playlist(name, *items):
    return {"name": name, "lastModifiedDate": "2021-02-03", "collaborators": ["somebody"], "items": list(items)}


def test_an_item_is_a_song_at_a_place_with_the_day_on_which_it_was_added():
    [place], tally = read(SPOTIFY_PLAYLISTS, handed("Playlist1.json", {"playlists": [playlist("Morning", item())]}))
    assert place == Place(
        line=1,
        playlist="Morning",
        heard=Heard(spotify_id=ID, title="Low Tide", artist="The Piers", album="Harbour"),
        added_at=datetime(2020, 1, 31, tzinfo=UTC),
        name="Morning",
    )
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_two_lists_of_one_name_stay_two_also_over_several_files():
    first = {"playlists": [playlist("Run", item(title="a")), playlist("Run", item(title="b"))]}
    second = {"playlists": [playlist("Run", item(title="c")), playlist(None, item(title="d")), playlist("", item(title="e"))]}
    places, _ = read(SPOTIFY_PLAYLISTS, handed("Playlist1.json", first), handed("Playlist2.json", second))
    assert [(place.playlist, place.name, place.heard.title) for place in places] == [
        ("Run", "Run", "a"),
        ("Run (2)", "Run", "b"),
        ("Run (3)", "Run", "c"),
        ("unnamed list", None, "d"),
        ("unnamed list (2)", None, "e"),
    ]


def test_podcasts_and_own_files_are_counted_and_left_out():
    items = [
        item(track=None, episode={"episodeName": "Talk"}),
        item(track=None, localTrack={"uri": "spotify:local:a:b:c:1"}),
        item(track=None, audiobook={"name": "Book"}),
        item(track=None),
        item(),
    ]
    places, tally = read(SPOTIFY_PLAYLISTS, handed("p.json", {"playlists": [playlist("a", *items)]}))
    assert [place.line for place in places] == [5]
    assert left_out(tally) == {
        ("rows", "is an episode of a podcast"): 1,
        ("rows", "is a file of the listener's own"): 1,
        ("rows", "is a chapter of an audiobook"): 1,
        ("rows", "has no track"): 1,
    }
    assert tally.skipped["rows", "is an episode of a podcast"].first == "p.json list 1 item 1"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (7, "is no object"),
        (None, "is no object"),
        (item(track="a song"), "track is no object"),
        (item(uri=None, artist=None), "names neither a Spotify track nor artist and title"),
        (item(uri=["x"], title={"a": 1}), "names neither a Spotify track nor artist and title"),
        (item(uri="spotify:track:short", artist="\0"), "names neither a Spotify track nor artist and title"),
    ],
)
def test_an_item_that_names_no_song_costs_itself(odd, reason):
    places, tally = read(SPOTIFY_PLAYLISTS, handed("p.json", {"playlists": [playlist("a", odd, item())]}))
    assert (len(places), left_out(tally)) == (1, {("rows", reason): 1})


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        (item(uri=17), "trackUri is not a text"),
        (item(uri="spotify:album:" + ID), "trackUri is no spotify:track:..."),
        (item(artist=["The Piers"]), "artistName is not a text"),
        (item(album="a\0b"), "albumName holds a NUL character"),
        (item(title="\ud800"), "trackName is not Unicode"),
        (item(added="31.01.2020"), "addedDate is not a time in ISO 8601"),
        (item(added=20200131), "addedDate is not a time in ISO 8601"),
        (item(added="99999-01-01"), "addedDate is not a time in ISO 8601"),
    ],
)
def test_a_field_that_cannot_be_used_stays_empty(odd, fault):
    places, tally = read(SPOTIFY_PLAYLISTS, handed("p.json", {"playlists": [playlist("a", odd)]}))
    assert (len(places), left_out(tally), emptied(tally)) == (1, {}, {fault: 1})


def test_what_is_no_list_is_counted_as_one():
    lists = [None, 3, {"name": "no items"}, {"name": "b", "items": {"0": item()}}, playlist("good", item())]
    places, tally = read(SPOTIFY_PLAYLISTS, handed("p.json", {"playlists": lists}))
    assert [place.playlist for place in places] == ["good"]
    assert left_out(tally) == {("playlists", "is no object"): 2, ("playlists", "items is no array"): 2}


def test_no_person_but_the_artist_is_in_a_record():
    named = playlist("a", item(addedBy="spotify:user:somebody"))
    assert "somebody" not in repr(read(SPOTIFY_PLAYLISTS, handed("p.json", {"playlists": [named]})))


def test_a_file_that_was_cut_anywhere_is_an_error():
    content = json.dumps({"playlists": [playlist("Ünï", item(), item(title="二"))]}, ensure_ascii=False)
    assert set(outcomes_of_cutting(SPOTIFY_PLAYLISTS, "Playlist1.json", content)) == {None}


def test_its_files_are_known_by_how_they_begin_and_come_in_the_order_of_their_numbers():
    ours = [handed(f"data/Playlist{n}.json", {"playlists": [playlist("a")]}) for n in (10, 2)] + [
        handed("renamed.json", {"playlists": []})
    ]
    foreign = [
        handed("Playlist3.json", {"playlist": {"title": "JSPF"}}),
        handed("StreamingHistory0.json", [{"endTime": "2020-01-01 00:00"}]),
        handed("._Playlist1.json", {"playlists": [playlist("a")]}),
        handed("lists.json", {"playlists": [{"playlist": {"title": "JSPF"}}]}),
        handed("Playlist1.txt", {"playlists": []}),
        handed("x.json", b"\xff\xfe\x00"),
    ]
    assert [file.name for file in SPOTIFY_PLAYLISTS.recognise([*ours, *foreign])] == [
        "renamed.json",
        "data/Playlist2.json",
        "data/Playlist10.json",
    ]


def test_a_damaged_one_is_recognised_by_its_name_so_that_somebody_says_what_is_wrong():
    assert [file.name for file in SPOTIFY_PLAYLISTS.recognise([handed("Playlist1.json", b""), handed("a.json", b"")])] == [
        "Playlist1.json"
    ]
