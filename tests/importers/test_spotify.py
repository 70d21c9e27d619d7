"""Spotify's extended history: when a play began, what is a skip, what is left out, and files that are not what they should be."""

import json
from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.policy import Policy
from importers.records import Heard, Play
from importers.spotify import SPOTIFY
from importers.tally import Tally
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

ID = "5Q7vla0EpIHVcEL9SuE0Ka"
NAME = "Streaming_History_Audio_2019-2020_3.json"
LOW_TIDE = Heard(spotify_id=ID, title="Low Tide", artist="The Piers", album="Harbour")


def record(uri=f"spotify:track:{ID}", title="Low Tide", artist="The Piers", album="Harbour", **others):
    return {
        "ts": "2019-05-25T16:52:18Z",
        "username": "somebody",
        "platform": "Radio",
        "ms_played": 218000,
        "conn_country": "ZZ",
        "ip_addr": "192.0.2.7",
        "user_agent_decrypted": "unknown",
        "master_metadata_track_name": title,
        "master_metadata_album_artist_name": artist,
        "master_metadata_album_album_name": album,
        "spotify_track_uri": uri,
        "episode_name": None,
        "episode_show_name": None,
        "spotify_episode_uri": None,
        "reason_start": "trackdone",
        "reason_end": "trackdone",
        "shuffle": False,
        "skipped": None,
        "offline": False,
        "offline_timestamp": None,
        "incognito_mode": False,
        **others,
    }


def nameless(**others):
    return record(uri=None, title=None, artist=None, album=None, **others)


def test_a_play_began_before_its_time_by_as_long_as_it_lasted():
    plays, tally = read(SPOTIFY, handed(NAME, [record(ms_played=218500)]))
    assert plays == [
        Play(
            line=1,
            heard=LOW_TIDE,
            listened_at=datetime(2019, 5, 25, 16, 48, 39, 500000, tzinfo=UTC),
            ms_played=218500,
            skipped=False,
        )
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_nothing_about_the_listener_is_passed_on():
    plays, tally = read(SPOTIFY, handed(NAME, [record(), record(ts=None), nameless()]))
    told = f"{plays} {tally}"
    assert not any(secret in told for secret in ("somebody", "Radio", "ZZ", "192.0.2.7", "unknown"))


@pytest.mark.parametrize("reason_end", ["fwdbtn", "clickrow", "clickside", "playbtn", "remote", "endplay", "popup"])
def test_a_song_left_early_for_another_is_a_skip(reason_end):
    plays, _ = read(SPOTIFY, handed(NAME, [record(ms_played=29_999, reason_end=reason_end)]))
    assert [play.skipped for play in plays] == [True]


ODD_ENDS = ["trackdone", "backbtn", "logout", "trackerror", "unexpected-exit", "unexpected-exit-while-paused", "unknown", "none"]


@pytest.mark.parametrize("reason_end", [*ODD_ENDS, "", None, 7, ["fwdbtn"], {}])
def test_a_short_play_that_ended_otherwise_says_nothing(reason_end):
    plays, tally = read(SPOTIFY, handed(NAME, [record(ms_played=29_999, reason_end=reason_end)]))
    reason = "played for less than 30 s, and nothing says that the listener left it"
    assert (plays, left_out(tally)) == ([], {("plays", reason): 1})
    assert tally.skipped["plays", Policy().too_short].first == f"{NAME} record 1"


def test_in_a_year_without_reasons_the_mark_of_a_skip_is_enough():
    records = [record(ms_played=5000, reason_end="none", skipped=skipped) for skipped in (True, False, None, "yes")]
    plays, tally = read(SPOTIFY, handed(NAME, records))
    assert [(play.line, play.skipped) for play in plays] == [(1, True)]
    assert left_out(tally) == {("plays", Policy().too_short): 3}


def test_what_played_long_enough_was_heard_however_it_ended():
    records = [record(ms_played=30_000, reason_end=end, skipped=True) for end in ("fwdbtn", "logout", None)]
    plays, _ = read(SPOTIFY, handed(NAME, records))
    assert [play.skipped for play in plays] == [False, False, False]


def test_private_sessions_are_kept_only_where_asked_for():
    file, tally = handed(NAME, [record(incognito_mode=True), record()]), Tally(source="t")
    assert [play.line for play in SPOTIFY.read([file], Policy(), tally)] == [2]
    assert left_out(tally) == {("plays", "played in a private session"): 1}
    assert [play.line for play in SPOTIFY.read([file], Policy(keep_incognito=True), tally)] == [1, 2]


def test_podcasts_and_audiobooks_are_counted_and_left_out():
    records = [
        nameless(spotify_episode_uri="spotify:episode:5Q7vla0EpIHVcEL9SuE0Ka", episode_name="Talk"),
        nameless(episode_show_name="Talks"),
        record(uri="spotify:episode:5Q7vla0EpIHVcEL9SuE0Ka", title=None, spotify_episode_uri="x"),
        nameless(audiobook_title="Book", audiobook_uri="spotify:show:x"),
        nameless(),
        record(),
    ]
    plays, tally = read(SPOTIFY, handed(NAME, records))
    assert [play.line for play in plays] == [6]
    assert left_out(tally) == {
        ("plays", "is an episode of a podcast"): 3,
        ("plays", "is a chapter of an audiobook"): 1,
        ("plays", "names neither a Spotify track nor artist and title"): 1,
    }


def test_a_song_is_known_by_its_id_or_by_its_names():
    records = [
        record(title=None, artist=None, album=None),
        record(uri=None),
        record(uri="spotify:local:The+Piers:Harbour:Low+Tide:218"),
        record(title="", artist=" ", album=" "),
    ]
    plays, tally = read(SPOTIFY, handed(NAME, records))
    assert [play.heard for play in plays] == [
        Heard(spotify_id=ID),
        LOW_TIDE._replace(spotify_id=None),
        LOW_TIDE._replace(spotify_id=None),
        Heard(spotify_id=ID),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_a_song_keeps_the_name_of_its_first_record_that_has_one():
    records = [record(title=None), record(album=7), record(), record(title="Low Tide - Live")]
    plays, _ = read(SPOTIFY, handed(NAME, records))
    assert [play.heard.title for play in plays] == [None, "Low Tide", "Low Tide", "Low Tide"]
    assert [play.heard.album for play in plays] == ["Harbour", None, "Harbour", "Harbour"]


def test_songs_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("importers.spotify.MAX_SONGS_KEPT", 2)
    songs = [("a", "Low Tide"), ("b", "Rain"), ("a", "Not kept"), ("c", "Fog"), ("a", "Low Tide again")]
    plays, _ = read(
        SPOTIFY, handed(NAME, [record(uri=f"spotify:track:{ID[:-1]}{letter}", title=title) for letter, title in songs])
    )
    assert [play.heard.title for play in plays] == ["Low Tide", "Rain", "Low Tide", "Fog", "Low Tide again"]


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ({"album": 7}, "master_metadata_album_album_name is not a text"),
        ({"title": ["a"]}, "master_metadata_track_name is not a text"),
        ({"artist": "a\0b"}, "master_metadata_album_artist_name holds a NUL character"),
        ({"title": "a\ud800"}, "master_metadata_track_name is not Unicode"),
        ({"title": "a" * 1001}, "master_metadata_track_name is longer than 1,000 characters"),
        ({"uri": "spotify:track:short"}, "spotify_track_uri is no spotify:track:..."),
        ({"uri": {"a": 1}}, "spotify_track_uri is not a text"),
        ({"uri": 10**400}, "spotify_track_uri is not a text"),
    ],
)
def test_a_name_that_cannot_be_used_costs_itself(odd, fault):
    plays, tally = read(SPOTIFY, handed(NAME, [record(**odd), record()]))
    assert [play.line for play in plays] == [1, 2]
    assert (left_out(tally), emptied(tally)) == ({}, {fault: 1})
    assert tally.emptied[fault].first == f"{NAME} record 1"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (None, "is no object"),
        ([record()], "is no object"),
        ("a play", "is no object"),
        (record(ts=None), "ts is empty"),
        (record(ts=1558803138), "ts is not a time in ISO 8601"),
        (record(ts="yesterday"), "ts is not a time in ISO 8601"),
        (record(ts="\ud800"), "ts is not a time in ISO 8601"),
        (record(ts=["2019-05-25T16:52:18Z"]), "ts is not a time in ISO 8601"),
        (record(ts="10000-01-01T00:00:00Z"), "ts is not a time in ISO 8601"),
        (record(ts="0001-01-01T00:00:00Z"), "ts is not a time in ISO 8601"),
        (record(ts="1970-01-01T01:00:00Z"), "ts is before 1990, from a clock that was not set"),
        (record(ms_played=None), "ms_played is empty"),
        (record(ms_played=-1), "ms_played is not between 0 and 2147483647"),
        (record(ms_played=10**30), "ms_played is not between 0 and 2147483647"),
        (record(ms_played=1.5), "ms_played is not a whole number"),
        (record(ms_played=float("nan")), "ms_played is not a whole number"),
        (record(ms_played=True), "ms_played is not a whole number"),
        (record(ms_played="long"), "ms_played is not a number"),
        (record(ms_played=[]), "ms_played is not a whole number"),
        (record(uri=[], title={}, artist="\0"), "names neither a Spotify track nor artist and title"),
    ],
)
def test_a_bad_record_costs_itself(odd, reason):
    plays, tally = read(SPOTIFY, handed(NAME, [odd, record()]))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", reason): 1}


@pytest.mark.parametrize("ts", ["2019-05-25 16:52:18", "2019-05-25T18:52:18+02:00", "2019-05-26T16:51:18+23:59"])
def test_times_are_in_utc_however_they_are_written(ts):
    [play], _ = read(SPOTIFY, handed(NAME, [record(ts=ts, ms_played=60_000)]))
    assert (play.listened_at, play.listened_at.tzinfo) == (datetime(2019, 5, 25, 16, 51, 18, tzinfo=UTC), UTC)


def test_a_file_cut_at_any_byte_is_an_error_and_no_file_is_nothing():
    content = json.dumps([record(title="Élan"), record()], ensure_ascii=False)
    assert outcomes_of_cutting(SPOTIFY, NAME, content) == [None] * len(content.encode())
    assert read(SPOTIFY, handed(NAME, "[]"))[0] == []


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_than_utf_8_is_an_error(encoding):
    content = json.dumps([record(title="Élan")], ensure_ascii=False).encode(encoding)
    with pytest.raises(DataError, match=r"^Streaming_History_Audio_2019-2020_3\.json is not UTF-8"):
        read(SPOTIFY, handed(NAME, content))


def test_a_mark_of_the_byte_order_does_no_harm():
    plays, _ = read(SPOTIFY, handed(NAME, json.dumps([record()]).encode("utf-8-sig")))
    assert [play.heard for play in plays] == [LOW_TIDE]


def test_files_are_known_by_their_names_or_what_they_begin_with_and_come_in_order():
    files = [
        handed("MyData/endsong_10.json", [record()]),
        handed("MyData/endsong_9.json", [record()]),
        handed("MyData/Streaming_History_Audio_2011-2013_0.json", "damaged"),
        handed("renamed.json", [record()]),
        handed("Streaming_History_Video_2018-2024.json", [record()]),
        handed("._Streaming_History_Audio_2011-2013_0.json", "\0\5\x16\7"),
        handed("StreamingHistory_music_0.json", [{"endTime": "2019-05-25 16:52", "msPlayed": 1}]),
        handed("Playlist1.json", {"playlists": []}),
        handed("endsong.txt", [record()]),
    ]
    assert [file.name for file in SPOTIFY.recognise(files)] == [
        "renamed.json",
        "MyData/endsong_9.json",
        "MyData/endsong_10.json",
        "MyData/Streaming_History_Audio_2011-2013_0.json",
    ]
