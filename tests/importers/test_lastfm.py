"""Tables of scrobbles in the layouts that are about, and pages of the API, with what goes wrong in them."""

import json
from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.lastfm import FORMATS, LASTFM, LASTFM_MINUTES, time_of
from importers.records import Heard, Opinion, Play, Score
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

MBID = "9cea062d-0000-4000-8000-000000000000"
GHAN = f"""uts,utc_time,artist,artist_mbid,album,album_mbid,track,track_mbid
"1767217094","31 Dec 2025, 21:38","The Piers","{MBID}","Harbour","","Low Tide","{MBID}"
"1767217000","31 Dec 1970, 21:36","The Piers","","","","Rain, Again",""
"""
LOW_TIDE = Heard(artist="The Piers", title="Low Tide", album="Harbour")
RAIN = Heard(artist="The Piers", title="Rain, Again")
AT = datetime(2025, 12, 31, 21, 38, 14, tzinfo=UTC)
THE_MINUTE = AT.replace(second=0)


def names_of(reader, *files):
    return [file.name for file in reader.recognise(files)]


def test_the_seconds_of_a_table_are_trusted_and_last_fms_mbids_are_not():
    plays, tally = read(LASTFM, handed("recenttracks-1767217200.csv", GHAN))
    assert plays == [
        Play(line=2, heard=LOW_TIDE, listened_at=AT),
        Play(line=3, heard=RAIN, listened_at=AT.replace(minute=36, second=40)),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


SAME_PLAY_EXACTLY = [
    "time,artist,track,album\n1767217094,The Piers,Low Tide,Harbour\n",
    "time,artist,track,album\n2025-12-31T21:38:14Z,The Piers,Low Tide,Harbour",
    "Artist;Album;AlbumId;Track;Date#somebody\r\nThe Piers;Harbour;;Low Tide;1767217094000\r\n",
    'name,mbid,"artist.#text",album.#text,date.#text,date.uts\nLow Tide,,The Piers,Harbour,"31 Dec 2025, 21:38",1767217094\n',
    "Timestamp\tTrack Name\tArtist Name\tAlbum Name\n1767217094\tLow Tide\tThe Piers\tHarbour\n",
    "\ufeffalbum,TRACK, Artist ,date_uts,date\n\nHarbour,Low Tide,The Piers,1767217094,never\n",
    "Artist,Album,Song,RawDateTime\nThe Piers,Harbour,Low Tide,31 Dec 2025 21:38:14\n",
]


@pytest.mark.parametrize("content", SAME_PLAY_EXACTLY)
def test_columns_are_found_by_their_names(content):
    file = handed("scrobbles.csv", content)
    plays, tally = read(LASTFM, file)
    assert [(play.heard, play.listened_at) for play in plays] == [(LOW_TIDE, AT)]
    assert (left_out(tally), emptied(tally)) == ({}, {})
    assert [names_of(each, file) for each in FORMATS] == [["scrobbles.csv"], []]


SAME_PLAY_TO_THE_MINUTE = [
    "The Piers,Harbour,Low Tide,31 Dec 2025 21:38\n",
    '"The Piers","Harbour","Low Tide","31 Dec 2025, 21:38"',
    "utc_time,artist,album,track\n2025-12-31 21:38,The Piers,Harbour,Low Tide\n",
    'artist;album;track;utc_time\nThe Piers;Harbour;Low Tide;"31 December 2025, 21:38"\n',
]


@pytest.mark.parametrize("content", SAME_PLAY_TO_THE_MINUTE)
def test_times_in_whole_minutes_are_a_format_of_their_own(content):
    file = handed("scrobbles.csv", content)
    plays, _ = read(LASTFM_MINUTES, file)
    assert [(play.heard, play.listened_at) for play in plays] == [(LOW_TIDE, THE_MINUTE)]
    assert [names_of(each, file) for each in FORMATS] == [[], ["scrobbles.csv"]]
    assert [each.precision_seconds for each in FORMATS] == [0, 60]


def test_without_a_header_the_first_line_is_a_play():
    rows = "The Piers,Harbour,Now,\nThe Piers,Harbour,Low Tide,31 Dec 2025 21:38\nThe Piers,,Fog,31 Dec 2025 21:34\n"
    plays, tally = read(LASTFM_MINUTES, handed("somebody.csv", rows))
    assert [(play.line, play.heard.title, play.heard.album) for play in plays] == [(2, "Low Tide", "Harbour"), (3, "Fog", None)]
    assert left_out(tally) == {("plays", "time is empty"): 1}


def test_a_row_at_the_edge_of_what_was_looked_at_does_not_tell_the_layout():
    content = "artist,track,time\n" + "The Piers,Low Tide,1767217094\n" * 100
    edge = "The Piers,Low Tide,2025-12-31 21:38"
    padded = content + "x" * (4096 - len(content) - len(edge) - 1) + f"\n{edge}:14\n"
    assert padded[:4096].endswith(edge)
    assert names_of(LASTFM, handed("a.csv", padded)) == ["a.csv"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("", "wrong number of fields"),
        ("1767217094,The Piers,Low Tide,Harbour", "wrong number of fields"),
        ('1767217094,"The Piers"s,Low Tide', "quotes that do not match, or a field too long"),
        ('1767217094,"The Piers,Low Tide', "quotes that do not match, or a field too long"),
        (f"1767217094,{'x' * 140_000},Low Tide", "quotes that do not match, or a field too long"),
        (f"1767217094,{'x' * 1_001},Low Tide", "artist is longer than 1,000 characters"),
        ("1767217094,,Low Tide", "artist is empty"),
        ("1767217094,The Piers, ", "title is empty"),
        ("1767217094,The Piers,Low\0Tide", "title holds a NUL character"),
        (",The Piers,Low Tide", "time is empty"),
        ("0,The Piers,Low Tide", "time is before 1990, from a clock that was not set"),
        ("01 Jan 1970 00:00,The Piers,Low Tide", "time is before 1990, from a clock that was not set"),
        ("-1767217094,The Piers,Low Tide", "time is not a time in ISO 8601"),
        ("32 Dec 2025 21:38,The Piers,Low Tide", "time is not a time"),
        (f"{'9' * 5000},The Piers,Low Tide", "time is not a finite number"),
        ("99999999999,The Piers,Low Tide", "time is before 1990, from a clock that was not set"),
        ("999999999999999,The Piers,Low Tide", "time is not a time in seconds since 1970"),
        ("²,The Piers,Low Tide", "time is not a number"),
        ("yesterday,The Piers,Low Tide", "time is not a time in ISO 8601"),
    ],
)
def test_a_bad_row_costs_itself(row, reason):
    good = "1767217094,The Piers,Low Tide\n"
    plays, tally = read(LASTFM, handed("a.csv", f"uts,artist,track\n{good}{row or 'x'}\n{good}"))
    assert [play.line for play in plays] == [2, 4]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == "a.csv line 3"


def test_an_album_that_cannot_be_used_costs_itself():
    plays, tally = read(LASTFM, handed("a.csv", "uts,artist,track,album\n1767217094,The Piers,Low Tide,a\0\n"))
    assert [play.heard for play in plays] == [LOW_TIDE._replace(album=None)]
    assert emptied(tally) == {"album holds a NUL character": 1}


@pytest.mark.parametrize("content", [GHAN, *SAME_PLAY_EXACTLY, *SAME_PLAY_TO_THE_MINUTE])
def test_a_table_that_was_cut_ends_in_an_error_or_with_a_row_whose_time_is_whole(content):
    for end, count in enumerate(outcomes_of_cutting(LASTFM, "lastfm.csv", content)):
        if count:
            plays, tally = read(LASTFM, handed("lastfm.csv", content.encode()[:end]))
            assert {play.listened_at for play in plays} <= {AT, THE_MINUTE, AT.replace(minute=36, second=40)}
            assert left_out(tally) == {}


def test_a_row_that_is_cut_is_an_error_that_names_its_line():
    with pytest.raises(DataError, match=r"^a\.csv ends in the middle of line 3 \(cut off\?\): fetch it again$"):
        read(LASTFM, handed("a.csv", GHAN[:-20]))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_than_utf_8_is_an_error(encoding):
    file = handed("lastfm.csv", GHAN.replace("Harbour", "Élan").encode(encoding))
    with pytest.raises(DataError, match=r"^lastfm\.csv (is not UTF-8 after line|has no column for artist, title or time: )"):
        read(LASTFM, file)


@pytest.mark.parametrize(
    ("name", "header", "missing"),
    [
        ("lastfm.csv", "artist,track", "time"),
        ("mine.csv", "uts,artist,album", "title"),
        ("scrobbles.csv", "time;track;album", "artist"),
    ],
)
def test_a_table_that_is_nearly_one_says_what_is_missing(name, header, missing):
    file = handed(name, f"{header}\na,b,c\n")
    assert names_of(LASTFM, file) == [name]
    with pytest.raises(DataError, match=rf"^{name} has no column for {missing}: its first line must name the columns"):
        read(LASTFM, file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "exportify.csv",
            "Track URI,Track Name,Artist Name(s),Album Name,Added At\nspotify:track:x,a,b,c,2020-01-01T00:00:00Z\n",
        ),
        ("songs.csv", "song_id,song_name,artist_name,tempo\n1,a,b,120\n"),
        ("sequences.csv", "playlist_id,pos,song_id\n1,0,a\n"),
        ("lastfm.csv", "track,count\nLow Tide,3\n"),
        ("lastfm.csv", "tag,count\nrock,3\n"),
        ("list.csv", "artist,track\na,b\n"),
        ("empty.csv", ""),
        ("quotes.csv", '"artist,track'),
        ("scrobbles.pdf", GHAN),
        ("page.json", {"toptracks": {"track": []}}),
        ("notes.json", '"a text"'),
    ],
)
def test_other_files_are_left_alone(name, content):
    assert [names_of(each, handed(name, content)) for each in FORMATS] == [[], []]


def test_songs_of_a_file_of_loved_ones_are_opinions():
    file = handed("lovedtracks-1767217200.csv", "uts,artist,track\n1767217094,The Piers,Low Tide\n1,The Piers,Fog\n")
    opinions, tally = read(LASTFM, file)
    assert opinions == [Opinion(line=2, heard=LOW_TIDE._replace(album=None), score=Score.LIKED, happened_at=AT)]
    assert left_out(tally) == {("feedback", "time is before 1990, from a clock that was not set"): 1}


@pytest.mark.parametrize("cell", ["", "  "])
def test_a_blank_time_is_none(cell):
    assert time_of(cell) is None


# --- pages of the API


def track(title="Low Tide", artist="The Piers", album="Harbour", uts="1767217094", **others):
    return {
        "artist": {"mbid": MBID, "#text": artist},
        "streamable": "0",
        "image": [{"size": "small", "#text": "https://example.org/a.png"}],
        "mbid": MBID,
        "album": {"mbid": "", "#text": album},
        "name": title,
        "url": "https://example.org/a",
        "date": {"uts": uts, "#text": "31 Dec 2025, 21:38"},
        **others,
    }


NOW_PLAYING = {key: value for key, value in track().items() if key != "date"} | {"@attr": {"nowplaying": "true"}}
PAGE = {"recenttracks": {"@attr": {"user": "somebody", "page": "1"}, "track": [NOW_PLAYING, track()]}}


@pytest.mark.parametrize(
    "content",
    [
        PAGE,
        [PAGE],
        [{"track": [NOW_PLAYING]}, {"track": [track()]}],
        [{"track": [NOW_PLAYING]}, {"track": track()}],
        {"track": [NOW_PLAYING, track()]},
        [NOW_PLAYING, track()],
    ],
)
def test_pages_of_the_api_one_or_many(content):
    file = handed("pages.json", content)
    assert names_of(LASTFM, file) == ["pages.json"]
    plays, tally = read(LASTFM, file)
    assert plays == [Play(line=2, heard=LOW_TIDE, listened_at=AT)]
    assert left_out(tally) == {("plays", "is playing now, and has no time yet"): 1}
    assert "somebody" not in str(tally)


def test_artists_may_stand_in_other_ways():
    tracks = [track() | {"artist": {"name": "The Piers", "url": "https://example.org/a"}}, track() | {"artist": "The Piers"}]
    tracks.append(track() | {"album": None})
    plays, _ = read(LASTFM, handed("pages.json", tracks))
    assert [play.heard for play in plays] == [LOW_TIDE, LOW_TIDE, LOW_TIDE._replace(album=None)]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (None, "is no object"),
        (7, "is no object"),
        (["a"], "is no object"),
        (track(title=None), "name is empty"),
        (track(title=["a"]), "name is not a text"),
        (track(artist=""), "artist is empty"),
        (track(artist={"a": 1}), "artist is not a text"),
        (track(artist="a\ud800"), "artist is not Unicode"),
        (track(date=None), "uts is empty"),
        (track(date=["1767217094"]), "uts is not a number"),
        (track(uts="0"), "uts is before 1990, from a clock that was not set"),
        (track(uts=10**400), "uts is not a finite number"),
    ],
)
def test_a_bad_track_costs_itself(odd, reason):
    plays, tally = read(LASTFM, handed("pages.json", [{"track": [odd, track()]}]))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == "pages.json record 1"


def test_an_album_of_the_wrong_type_costs_itself():
    plays, tally = read(LASTFM, handed("pages.json", [track(album=["Harbour"])]))
    assert [play.heard for play in plays] == [LOW_TIDE._replace(album=None)]
    assert emptied(tally) == {"album is not a text": 1}


@pytest.mark.parametrize("content", [PAGE, [PAGE], [track(), track()]])
def test_a_page_cut_at_any_byte_is_an_error(content):
    data = json.dumps(content)
    assert outcomes_of_cutting(LASTFM, "pages.json", data) == [None] * len(data)


def test_loved_songs_of_the_api_are_opinions():
    loved = track() | {"artist": {"name": "The Piers"}}
    opinions, _ = read(LASTFM, handed("lovedtracks.json", {"lovedtracks": {"track": [loved], "@attr": {}}}))
    assert opinions == [Opinion(line=1, heard=LOW_TIDE, score=Score.LIKED, happened_at=AT)]
