"""ListenBrainz: which recording it was, feedback, dumps of many listeners, and lines that cannot be used."""

import json
from datetime import UTC, datetime

import pytest

from errors import DataError
from importers.listenbrainz import LISTENBRAINZ
from importers.policy import Policy
from importers.records import Heard, Opinion, Play, Score
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

MAPPED = "64ff5f53-d187-4512-827e-7606c69e66ff"
SENT = "00476c23-fd9e-464b-9b27-a62d69f3d4f4"
MSID = "18f6dc98-d3a2-4f81-b967-97359d14c68c"
ARTIST = "980a78b5-5bdd-4f50-9e3a-e13261e2817b"
RELEASE = "5e97ed9f-c8cc-4282-9cbe-f8e17aee5128"
ID = "5Q7vla0EpIHVcEL9SuE0Ka"
MONTH = "listens/2015/9.jsonl"
AT = datetime(2015, 9, 29, 10, 19, 25, tzinfo=UTC)
NAMES = {"artist_name": "The Piers", "track_name": "Low Tide", "release_name": "Harbour"}
LOW_TIDE = Heard(artist="The Piers", title="Low Tide", album="Harbour")


def listen(info=None, mapping=None, **others):
    metadata = NAMES | {"additional_info": info, "mbid_mapping": mapping}
    return {"inserted_at": 1443521999, "listened_at": 1443521965, "track_metadata": metadata, **others}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def heard_of(record):
    [play], tally = read(LISTENBRAINZ, handed(MONTH, lines(record)))
    assert (left_out(tally), emptied(tally)) == ({}, {})
    return play.heard


def test_a_listen_with_everything_that_tells_its_song():
    info = {
        "recording_mbid": SENT,
        "track_mbid": SENT,
        "release_mbid": SENT,
        "artist_mbids": [SENT],
        "isrc": "QZAB12300001",
        "spotify_id": f"https://open.spotify.com/track/{ID}",
        "duration_ms": 218_000,
        "duration_played": 200,
        "tags": ["sea"],
        "submission_client": "a client",
    }
    mapping = {"recording_mbid": MAPPED, "release_mbid": RELEASE, "artist_mbids": [ARTIST, SENT], "caa_id": 5, "artists": []}
    plays, tally = read(LISTENBRAINZ, handed(MONTH, lines(listen(info, mapping, recording_msid=MSID))))
    assert plays == [
        Play(
            line=1,
            heard=LOW_TIDE._replace(
                spotify_id=ID,
                recording_mbid=MAPPED,
                isrc="QZAB12300001",
                recording_msid=MSID,
                duration_ms=218_000,
                artist_mbid=ARTIST,
                release_mbid=RELEASE,
            ),
            listened_at=AT,
            ms_played=200_000,
            skipped=False,
        )
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_without_a_mapping_the_ids_are_those_of_who_sent_it():
    info = {
        "recording_mbid": SENT.upper(),
        "release_mbid": RELEASE,
        "artist_mbids": [ARTIST],
        "spotify_id": ID,
        "duration": "218.4",
    }
    expected = LOW_TIDE._replace(
        spotify_id=ID, recording_mbid=SENT, release_mbid=RELEASE, artist_mbid=ARTIST, duration_ms=218_400
    )
    assert heard_of(listen(info)) == expected
    assert heard_of(listen(info, {"recording_mbid": None, "artist_mbids": []})) == expected
    assert heard_of(listen({"spotify_id": f"spotify:track:{ID}"})) == LOW_TIDE._replace(spotify_id=ID)


def test_the_number_of_a_name_may_stand_in_the_metadata():
    record = listen()
    record["track_metadata"]["recording_msid"] = MSID
    assert heard_of(record) == LOW_TIDE._replace(recording_msid=MSID)


def test_a_listen_may_have_nothing_but_names():
    plays, _ = read(LISTENBRAINZ, handed(MONTH, lines(listen(listened_at=1443521965.25))))
    assert plays == [Play(line=1, heard=LOW_TIDE, listened_at=AT.replace(microsecond=250_000))]
    assert heard_of({"listened_at": 1443521965, "track_metadata": NAMES}) == LOW_TIDE


def test_what_was_played_for_a_moment_only_says_nothing():
    records = [
        listen({"duration_played": 29.9, "duration_ms": 218_000}),
        listen({"duration_played": 12, "duration_ms": 20_000}),
        listen({"duration_played": 30}),
    ]
    plays, tally = read(LISTENBRAINZ, handed(MONTH, lines(*records)))
    assert [(play.line, play.ms_played, play.skipped) for play in plays] == [(2, 12_000, False), (3, 30_000, False)]
    assert left_out(tally) == {("plays", Policy().too_short): 1}


def test_a_dump_tells_the_numbers_of_its_listeners_and_their_names_are_not_looked_at():
    records = [listen(user_id=17, user_name="somebody"), {"user_id": 18, "timestamp": 1443521965, "track_metadata": NAMES}]
    plays, tally = read(LISTENBRAINZ, handed("listens/2015/9.listens", lines(*records)))
    assert [(play.listener, play.listened_at) for play in plays] == [("listenbrainz:17", AT), ("listenbrainz:18", AT)]
    assert "somebody" not in f"{plays} {tally}"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (None, "is no object"),
        ([listen()], "is no object"),
        (listen(listened_at=None), "listened_at is empty"),
        (listen(listened_at="noon"), "listened_at is not a number"),
        (listen(listened_at=-5), "listened_at is before 1990, from a clock that was not set"),
        (listen(listened_at=1443521965000), "listened_at is not a time in seconds since 1970"),
        (listen(listened_at=10**400), "listened_at is not a finite number"),
        (listen(listened_at=float("nan")), "listened_at is not a finite number"),
        (listen(track_metadata=None), "track_metadata is empty"),
        (listen(track_metadata="Low Tide"), "track_metadata is no object"),
        (listen(track_metadata={"artist_name": "The Piers"}), "names no song"),
        (listen(track_metadata={"artist_name": ["The Piers"], "track_name": {}}), "names no song"),
    ],
)
def test_a_bad_line_costs_itself(odd, reason):
    plays, tally = read(LISTENBRAINZ, handed(MONTH, lines(odd, listen())))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", reason): 1}
    assert tally.skipped["plays", reason].first == f"{MONTH} line 1"


def test_a_line_that_is_no_json_costs_itself():
    plays, tally = read(LISTENBRAINZ, handed(MONTH, "{broken\n" + lines(listen())))
    assert [play.line for play in plays] == [2]
    assert left_out(tally) == {("plays", "is no line of JSON"): 1}
    assert tally.skipped["plays", "is no line of JSON"].first == f"{MONTH} line 1"


@pytest.mark.parametrize(
    ("info", "mapping", "fault"),
    [
        ([1], None, "additional_info is no object"),
        (None, "none", "mbid_mapping is no object"),
        (None, {"recording_mbid": "none"}, "recording_mbid is not a UUID"),
        (None, {"artist_mbids": ARTIST}, "artist_mbids is no array"),
        (None, {"artist_mbids": [[]]}, "artist_mbids is not a text"),
        ({"spotify_id": "https://open.spotify.com/album/5Q7vla0EpIHVcEL9SuE0Ka"}, None, "spotify_id is no Spotify track"),
        ({"isrc": ["QZAB12300001"]}, None, "isrc is not a text"),
        ({"duration_ms": -1}, None, "duration_ms is not between 0 and 2147483647"),
        ({"duration": "long"}, None, "duration is not a number"),
        ({"duration_played": {}}, None, "duration_played is not a number"),
    ],
)
def test_a_field_that_cannot_be_used_costs_itself(info, mapping, fault):
    plays, tally = read(LISTENBRAINZ, handed(MONTH, lines(listen(info, mapping))))
    assert [play.heard for play in plays] == [LOW_TIDE]
    assert emptied(tally) == {fault: 1}


def test_texts_that_cannot_be_stored_are_left_empty():
    metadata = {"artist_name": "a\0", "track_name": "a\ud800", "release_name": "a" * 1001, "recording_msid": MSID}
    plays, tally = read(LISTENBRAINZ, handed(MONTH, lines(listen(track_metadata=metadata))))
    assert [play.heard for play in plays] == [Heard(recording_msid=MSID)]
    assert emptied(tally) == {
        "artist_name holds a NUL character": 1,
        "track_name is not Unicode": 1,
        "release_name is longer than 1,000 characters": 1,
    }


def feedback(score, mbid=MAPPED, msid=MSID, created=1443521965):
    return {"recording_msid": msid, "recording_mbid": mbid, "score": score, "created": created}


def test_feedback_is_a_word_on_a_song_or_takes_it_back():
    records = [feedback(1), feedback(-1, mbid=None), feedback(0, msid=None, created=None)]
    opinions, tally = read(LISTENBRAINZ, handed("feedback.jsonl", lines(*records)))
    assert opinions == [
        Opinion(line=1, heard=Heard(recording_mbid=MAPPED, recording_msid=MSID), score=Score.LIKED, happened_at=AT),
        Opinion(line=2, heard=Heard(recording_msid=MSID), score=Score.NEVER_AGAIN, happened_at=AT),
        Opinion(line=3, heard=Heard(recording_mbid=MAPPED), score=Score.NONE),
    ]
    assert (left_out(tally), emptied(tally)) == ({}, {})


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("loved", "is no object"),
        (feedback(2), "score is not 1, 0 or -1"),
        (feedback(True), "score is not 1, 0 or -1"),
        (feedback([1]), "score is not 1, 0 or -1"),
        (feedback(None), "score is not 1, 0 or -1"),
        (feedback(1, mbid=None, msid=None), "names no song"),
        (feedback(1, mbid=7, msid="none"), "names no song"),
    ],
)
def test_bad_feedback_costs_itself(odd, reason):
    opinions, tally = read(LISTENBRAINZ, handed("feedback.jsonl", lines(feedback(1), odd)))
    assert [opinion.line for opinion in opinions] == [1]
    assert left_out(tally) == {("feedback", reason): 1}


def test_a_file_cut_at_any_byte_is_an_error_but_between_two_lines():
    content = lines(listen(), listen())
    counts = outcomes_of_cutting(LISTENBRAINZ, MONTH, content)
    whole = len(content) // 2
    assert counts == [{0: 0, whole - 1: 1, whole: 1, 2 * whole - 1: 2}.get(end) for end in range(len(content))]


def test_another_encoding_than_utf_8_is_an_error():
    content = json.dumps(listen() | {"track_metadata": NAMES | {"track_name": "Élan"}}, ensure_ascii=False) + "\n"
    with pytest.raises(DataError, match=r"^listens/2015/9\.jsonl is not UTF-8"):
        read(LISTENBRAINZ, handed(MONTH, content.encode("latin-1")))


def test_listens_come_by_month_and_feedback_last():
    files = [
        handed("feedback.jsonl", lines(feedback(1))),
        handed("export/listens/2016/2.jsonl", lines(listen())),
        handed("export/listens/2015/10.jsonl", lines(listen())),
        handed("export/listens/2015/9.jsonl", "damaged"),
        handed("1.listens", lines(listen())),
        handed("pinned_recording.jsonl", lines({"recording_msid": MSID, "blurb_content": "good", "created": 1})),
        handed("user.json", {"user_id": 1, "username": "somebody"}),
        handed("._feedback.jsonl", lines(feedback(1))),
        handed("._1.listens", lines(listen())),
        handed("other.jsonl", '{"a": 1}\n'),
        handed("listens.json", lines(listen())),
    ]
    assert [file.name for file in LISTENBRAINZ.recognise(files)] == [
        "1.listens",
        "export/listens/2015/9.jsonl",
        "export/listens/2015/10.jsonl",
        "export/listens/2016/2.jsonl",
        "feedback.jsonl",
    ]
