"""Lists as files over HTTP: what is in them, how they are called, and what is answered where there is none."""

import json
from uuid import UUID

import pytest

from api.exporting import saved_as
from config import Config, ServiceConfig
from flask_app import create_app, service_of
from storage.connections import connect
from tests.api.fakes import MODEL, fake_app
from tests.jobs.world import add_playlist, new_worker, running
from tests.serving.small import small_recommender

MEDIA_TYPES = {
    "jspf": "application/jspf+json",
    "m3u8": "audio/x-mpegurl",
    "csv": "text/csv",
    "json": "application/json",
    "sql": "application/sql",
}
SONGS = {"songs": ["s03", "s00"], "count": 3}


@pytest.fixture
def new_client():
    """Over a real recommender, whose app is closed at the end."""
    apps = []

    def make(config=Config(), **arguments):  # noqa: B008, it is frozen
        apps.append(create_app(config, **{"recommender": small_recommender(config=config.service), **arguments}))
        return apps[-1].test_client()

    yield make
    for app in apps:
        service_of(app).close()


@pytest.fixture
def named_url(database_url):
    """A database that knows all of the toy songs by name, and the files of some."""
    with connect(database_url) as connection:
        connection.execute("INSERT INTO music.artist VALUES ('a', 'Nova', %s)", [UUID(int=1)])
        connection.execute(
            "INSERT INTO music.song (song_id, title, artist_id, recording_mbid, location)"
            " SELECT 's' || lpad(n::text, 2, '0'), 'Song ' || n, 'a', lpad(n::text, 32, '0')::uuid,"
            " CASE WHEN n <> 5 THEN '/music/' || n || '.mp3' END FROM generate_series(0, 40) AS n"
        )
    return database_url


def problem_of(response):
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.json["detail"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("Evening.csv", "attachment; filename=Evening.csv"),
        ("AC_DC_ läut.csv", "attachment; filename=\"AC_DC_ laut.csv\"; filename*=UTF-8''AC_DC_%20l%C3%A4ut.csv"),
        ("夜.csv", "attachment; filename=playlist.csv; filename*=UTF-8''%E5%A4%9C.csv"),
    ],
)
def test_a_file_has_a_name_that_every_browser_can_read(name, header):
    assert saved_as(name) == header
    assert header.isascii()


@pytest.mark.parametrize("extension", MEDIA_TYPES)
def test_the_ending_of_the_address_says_which_form_and_the_answer_how_the_file_is_called(new_client, extension):
    response = new_client().post(f"/v1/recommend.{extension}?name=AC/DC: l%C3%A4ut", json=SONGS)
    assert (response.status_code, response.content_type) == (200, f"{MEDIA_TYPES[extension]}; charset=utf-8")
    assert response.headers["Content-Disposition"] == saved_as(f"AC_DC_ läut.{extension}")


def test_the_file_holds_the_songs_of_the_usual_answer_in_their_order(new_client, named_url):
    client = new_client(database_url=named_url)
    answer = client.post("/v1/recommend", json=SONGS).json
    exported = client.post("/v1/recommend.json", json=SONGS).json
    assert [(song["song_id"], song["rank"], song["score"]) for song in exported["songs"]] == [
        (song["song_id"], song["rank"], song["score"]) for song in answer["songs"]
    ]
    number = int(answer["songs"][0]["song_id"][1:])
    first = exported["songs"][0]
    assert {name: first[name] for name in ("title", "artist", "recording_mbid", "location", "artist_mbid")} == {
        "title": f"Song {number}",
        "artist": "Nova",
        "recording_mbid": str(UUID(f"{number:032}")),
        "location": f"/music/{number}.mp3",
        "artist_mbid": str(UUID(int=1)),
    }
    assert exported["name"] == "Suggestions"
    assert exported["model"] == {"model_id": answer["model"]["model_id"], "version": answer["model"]["version"]}


def test_a_reason_names_the_song_by_its_title(new_client, named_url):
    exported = new_client(database_url=named_url).post("/v1/recommend.json", json={**SONGS, "explain": True}).json
    reasons = [reason for song in exported["songs"] for reason in song["reasons"]]
    assert any(reason.endswith(('"Song 3"', '"Song 0"')) for reason in reasons)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/csv;q=0.9", "application/json"),
        ("image/png", "application/json"),
        ("nonsense", "application/json"),
        ("application/jspf+json", "application/jspf+json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("application/sql", "application/sql"),
        ("audio/mpegurl", "audio/x-mpegurl"),
        ("application/vnd.apple.mpegurl, */*;q=0.1", "audio/x-mpegurl"),
    ],
)
def test_an_accept_header_asks_for_a_file(new_client, accept, media_type):
    headers = {} if accept is None else {"Accept": accept}
    response = new_client().post("/v1/recommend", json=SONGS, headers=headers)
    assert (response.status_code, response.mimetype) == (200, media_type)
    assert ("Content-Disposition" in response.headers) == (media_type != "application/json")


def test_without_a_database_songs_go_by_what_is_in_memory(new_client):
    exported = new_client().post("/v1/recommend.json", json=SONGS).json
    assert [song["song_id"] for song in exported["songs"]] == [
        song["song_id"] for song in new_client().post("/v1/recommend", json=SONGS).json["songs"]
    ]
    assert {song["location"] for song in exported["songs"]} == {None}


def test_with_the_database_away_too(new_client):
    client = new_client(database_url="postgresql://nobody@127.0.0.1:1/nowhere")
    assert client.post("/v1/recommend.m3u8", json=SONGS).status_code == 200
    assert client.post("/v1/playlist.csv", json={"name": "a", "songs": ["s03"]}).status_code == 200


def test_a_playlist_is_waited_for_and_comes_as_a_file(new_client, named_url):
    add_playlist(named_url, "p", ["s03", "s00"])
    client = new_client(database_url=named_url)
    with running(new_worker(named_url, small_recommender())):
        response = client.post("/v1/recommend.json", json={"playlist_id": "p", "count": 2})
        plain = client.post("/v1/recommend", json={"playlist_id": "p", "count": 2, "wait": True}).json
    exported = response.json
    assert [(song["song_id"], song["rank"]) for song in exported["songs"]] == [
        (song["song_id"], song["rank"]) for song in plain["songs"]
    ]
    assert exported["songs"][0]["title"] == f"Song {int(exported['songs'][0]['song_id'][1:])}"
    assert exported["songs"][0]["reasons"] == [reason["text"] for reason in plain["songs"][0]["reasons"]]
    assert exported["model"] == {"model_id": "run/epoch-001/0123456789ab", "version": "0123456789ab"}


def test_a_playlist_that_takes_longer_is_accepted(new_client, named_url):
    add_playlist(named_url, "p", ["s03"])
    client = new_client(Config(service=ServiceConfig(wait_seconds=0.05)), database_url=named_url)
    response = client.post("/v1/recommend.jspf", json={"playlist_id": "p"}, headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.json["status"]) == (202, "accepted")
    again = client.post("/v1/recommend", json={"playlist_id": "p"}, headers={"Idempotency-Key": "k"})
    assert again.json["request_id"] == response.json["request_id"]


def test_a_list_of_ones_own_is_written_as_it_is(new_client, named_url):
    body = {"name": "Evening", "songs": ["s07", "s05", "s07", "unknown"]}
    client = new_client(database_url=named_url)
    exported = client.post("/v1/playlist.json", json=body).json
    assert (exported["name"], exported["model"]) == ("Evening", None)
    assert [(song["song_id"], song["title"], song["rank"]) for song in exported["songs"]] == [
        ("s07", "Song 7", None),
        ("s05", "Song 5", None),
        ("s07", "Song 7", None),
        ("unknown", None, None),
    ]
    lines = client.post("/v1/playlist.m3u8", json=body).text.splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["/music/7.mp3", "/music/7.mp3"]
    assert "# 2 of 4 songs are left out, no file of theirs is known: 2, 4" in lines
    tracks = json.loads(client.post("/v1/playlist.jspf", json=body).text)["playlist"]["track"]
    assert tracks[0]["identifier"] == ["https://musicbrainz.org/recording/00000000-0000-0000-0000-000000000007"]


def test_a_list_that_was_recommended_says_so(new_client, named_url):
    suggested = [{"song_id": "s05", "score": 4.5, "reasons": ["because of song s07"]}, {"song_id": "away"}]
    body = {"name": "Evening", "songs": ["s07", "s05"], "suggested": suggested, "model_id": "run/epoch-001/abc"}
    exported = new_client(database_url=named_url).post("/v1/playlist.json", json=body).json
    assert [(song["song_id"], song["rank"], song["score"], song["reasons"]) for song in exported["songs"]] == [
        ("s07", None, None, []),
        ("s05", 2, 4.5, ["because of song s07"]),
    ]
    assert exported["model"] == {"model_id": "run/epoch-001/abc", "version": "abc"}


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("recommend.pls", SONGS, "extension: Input should be 'jspf', 'm3u8', 'csv', 'json' or 'sql' (got \"pls\")"),
        ("recommend.csv", {"songs": []}, "the sequence is empty: send at least one song"),
        ("recommend.csv", {**SONGS, "count": 0}, "count must be between 1 and 1000 (got 0)"),
        ("recommend.csv?title=x", SONGS, "unknown field 'title': known are name"),
        ("playlist.csv", {"name": "a", "songs": []}, "the list is empty: send at least one song"),
        ("playlist.csv", {"songs": ["s00"]}, "name: it is required"),
        (
            "playlist.csv",
            {"name": "a", "songs": ["s00"] * 4},
            "the list has 4 songs, over max_songs (3): write it in several files",
        ),
        ("playlist.csv", {"name": "a", "songs": ["s00", None]}, "songs.1: an id is an integer or a text (got null)"),
        ("playlist.csv", {"name": "a", "songs": [7]}, "song ids are texts here"),
    ],
)
def test_what_cannot_be_a_file_is_refused_in_one_line(new_client, path, body, told):
    client = fake_app(Config(service=ServiceConfig(max_songs=3))).test_client()
    status, detail = problem_of(client.post(f"/v1/{path}", json=body))
    assert (status, detail) == (422, told)


def test_without_a_model_there_is_no_file(new_client):
    client = new_client(recommender=None)
    for path, body in (("recommend.csv", SONGS), ("playlist.csv", {"name": "a", "songs": ["s00"]})):
        assert problem_of(client.post(f"/v1/{path}", json=body))[0] == 503


def test_the_model_stands_in_the_file(new_client):
    client = fake_app().test_client()
    exported = client.post("/v1/recommend.json", json=SONGS).json
    assert exported["model"] == {"model_id": MODEL["model_id"], "version": MODEL["version"]}
    assert exported["songs"][0]["reasons"] == ['same artist as "Song s00"']


def test_ids_that_are_uuids_are_looked_up_as_such(new_client):
    ids = [UUID(int=number) for number in range(1, 13)]
    client = new_client(recommender=small_recommender(ids=ids))
    exported = client.post("/v1/playlist.sql", json={"name": "a", "songs": [str(ids[0])]}).text
    assert f"'{ids[0].hex}'::uuid" in exported
    assert '"song_id" uuid' in exported
