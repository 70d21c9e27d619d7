"""The routes over a recommender that answers at once: what is passed on, what is answered, what is refused."""

import threading

import pytest

from config import Config, ServiceConfig
from errors import ServiceUnavailable
from flask_app import service_of
from serving.controls import Controls, Range
from storage.connections import connect
from storage.models import Model, refuse_model, register_model
from tests.api.fakes import MODEL, SONG, FakeAnswer, FakeLive, fake_app
from tests.jobs.world import add_playlist

ANSWER = FakeAnswer().as_json()


@pytest.fixture
def new_client():
    apps = []

    def make(config=None, **arguments):
        apps.append(fake_app(config, **arguments))
        return apps[-1].test_client()

    yield make
    for app in apps:
        service_of(app).close()


def problem_of(response):
    assert response.mimetype == "application/problem+json"
    return response.status_code, response.json["detail"]


# --- why ---------------------------------------------------------------------------------------------------------------------


def test_each_song_of_the_sequence_has_its_weight(new_client):
    live = FakeLive()
    response = new_client(live=live).post("/v1/why", json={"songs": ["s01", "other"], "song_id": "s05", "listener": "anna"})
    weights = [{"song_id": "s01", "weight": 0.5}, {"song_id": "other", "weight": None}]
    assert (response.status_code, response.json) == (
        200,
        {"song_id": "s05", "model_id": MODEL["model_id"], "weights": weights, "missing": None},
    )
    assert live.asked[0].controls.listener == "anna"


def test_where_no_model_speaks_for_a_song_that_is_said(new_client, monkeypatch):
    monkeypatch.setattr(FakeLive, "why", lambda *arguments: (None, None))
    response = new_client().post("/v1/why", json={"songs": ["s01"], "song_id": "s05"})
    assert response.json["weights"] == []
    assert response.json["missing"].startswith("No model speaks for this song")


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"songs": [], "song_id": "s05"}, (422, "the sequence is empty: send at least one song")),
        ({"songs": ["s01"], "song_id": "s99"}, (404, "no song 's99' in the catalogue")),
        ({"songs": ["s01"]}, (422, "song_id: it is required")),
    ],
)
def test_what_cannot_be_explained_is_refused(new_client, body, refused):
    assert problem_of(new_client().post("/v1/why", json=body)) == refused


# --- recommend ---------------------------------------------------------------------------------------------------------------


def test_all_controls_reach_the_recommender(new_client):
    live = FakeLive()
    controls = {
        "count": 7,
        "exclude": ["s03"],
        "listener": "u1",
        "exclude_played_days": 2.5,
        "max_per_artist": 1,
        "artist_spacing": 3,
        "one_per_recording": False,
        "discovery": 0.25,
        "temperature": 1.5,
        "seed": 42,
        "ranges": {"tempo": {"min": 90, "max": 120}},
        "allow_explicit": False,
        "only": ["s04", "s05"],
        "filter": "calm",
        "order": "flow",
        "min_confidence": 0.1,
        "explain": True,
    }
    assert set(controls) == set(Controls.model_fields)
    response = new_client(live=live).post("/v1/recommend", json={"songs": ["s00", "s01"], **controls})
    assert (response.status_code, response.json) == (200, ANSWER)
    [query] = live.asked
    given = {name: getattr(query.controls, name) for name in controls}
    assert given == {**controls, "ranges": {"tempo": Range(min=90, max=120)}}
    assert query.songs == ["s00", "s01"]


def test_the_old_address_answers_alike(new_client):
    client = new_client()
    body = {"songs": ["s00"]}
    assert client.post("/recommend", json=body).json == client.post("/v1/recommend", json=body).json == ANSWER


def test_only_the_controls_of_a_playlists_request_are_stored(new_client, database_url, connection):
    add_playlist(database_url, "p", ["s00"])
    body = {"playlist_id": "p", "wait": False, "count": 3, "discovery": 0.5, "ranges": {"tempo": {"min": 90}}}
    response = new_client(database_url=database_url).post("/v1/recommend", json=body)
    assert response.status_code == 202
    options = {"count": 3, "discovery": 0.5, "ranges": {"tempo": {"min": 90.0}}}
    assert connection.execute("SELECT options FROM recommender.request").fetchall() == [(options,)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"songs": ["s00"], "ranges": {"tempo": {}}}, 'ranges.tempo: a range has "min", "max" or both'),
        ({"songs": ["s00"], "ranges": {"tempo": {"mni": 1}}}, "unknown field 'ranges.tempo.mni'"),
        ({"songs": ["s00"], "order": "up"}, "order: Input should be 'score' or 'flow' (got \"up\")"),
        ({"songs": ["s00"], "discovery": 2}, "discovery: Input should be less than or equal to 1 (got 2)"),
        ({"songs": ["s00"] * 9_999 + [None]}, "songs.9999: an id is an integer or a text (got null)"),
        ({"songs": ["s00", "\0"]}, "songs.1: an id is a text that PostgreSQL can hold, without NUL and surrogates (got "),
        ({"songs": ["s00"], "count": 1_001}, "count must be between 1 and 1000 (got 1001)"),
    ],
)
def test_what_no_control_can_be_is_refused_in_one_line(new_client, body, detail):
    status, told = problem_of(new_client().post("/v1/recommend", json=body))
    assert status == 422
    assert told.startswith(detail)


# --- batch -------------------------------------------------------------------------------------------------------------------


def test_one_bad_sequence_does_not_fail_the_others(new_client):
    response = new_client().post("/v1/recommend/batch", json={"sequences": [["s00"], [], ["s01", "x"]]})
    failed = {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "the sequence is empty: send at least one song",
        "instance": response.headers["X-Request-ID"],
    }
    assert response.json == {"answers": [ANSWER, {"error": failed}, {**ANSWER, "unknown": ["x"]}]}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "sequences: it is required"),
        ({"sequences": []}, "sequences: List should have at least 1 item after validation, not 0 (got [])"),
        ({"sequences": [["s00"]] * 4}, "the batch has 4 sequences, over max_batch (3): send them in several requests"),
        ({"sequences": [["s00"], ["s01", None]]}, "sequences.1.1: an id is an integer or a text (got null)"),
        ({"sequences": [["s00"], "s01"]}, 'sequences.1: Input should be a valid list (got "s01")'),
        ({"sequences": [["s00"]], "count": 0}, "count must be between 1 and 1000 (got 0)"),
        ({"sequences": [["s00"]], "wait": True}, "unknown field 'wait': known are count, "),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(new_client, body, detail):
    status, told = problem_of(new_client(Config(service=ServiceConfig(max_batch=3))).post("/v1/recommend/batch", json=body))
    assert status == 422
    assert told.startswith(detail)


# --- songs -------------------------------------------------------------------------------------------------------------------


def test_songs_are_found_by_words(new_client):
    found = [{"song_id": "s05", "title": "let it", "artist": None, "album": None, "features": {}}]
    assert new_client().get("/v1/songs?q=let it&count=3").json == {"songs": found}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/songs", (422, "q: it is required")),
        ("/v1/songs?q=", (422, 'q: Value should have at least 1 item after validation, not 0 (got "")')),
        ("/v1/songs?q=a%00", (422, 'q: a text that PostgreSQL can hold has neither NUL nor surrogates (got "a\\u0000")')),
        ("/v1/songs?q=a&count=0", (422, 'count: Input should be greater than or equal to 1 (got "0")')),
        ("/v1/songs?q=a&count=1001", (422, "count must be between 1 and 1000 (got 1001)")),
        ("/v1/songs?q=a&cuont=1", (422, "unknown field 'cuont': known are count, q")),
        ("/v1/songs/s99/similar", (404, "no song 's99' in the catalogue")),
        ("/v1/songs/s00/similar?count=-1", (422, 'count: Input should be greater than or equal to 1 (got "-1")')),
    ],
)
def test_what_cannot_be_found_is_told(new_client, path, told):
    assert problem_of(new_client().get(path)) == told


@pytest.mark.parametrize("song_id", ["a/b", "/a//b/", "similar", "ä ö", "a%2Fb?x", "\n"])
def test_any_text_can_be_a_song_id_in_an_address(new_client, song_id):
    live, asked = FakeLive(), []
    live.similar = lambda *arguments: asked.append(arguments) or FakeAnswer()
    quoted = "".join(f"%{byte:02x}" for byte in song_id.encode())
    assert new_client(live=live).get(f"/v1/songs/{quoted}/similar?count=2").json == ANSWER
    assert asked == [(song_id, 2)]


def test_without_a_model_every_route_that_needs_one_says_so(new_client):
    live = FakeLive()
    live.recommender = None

    def nobody(query):
        raise ServiceUnavailable("no model is loaded: train one and start the service with --model")

    live.recommend = nobody
    client = new_client(live=live)
    answers = [
        client.post("/v1/recommend", json={"songs": ["s00"]}),
        client.post("/v1/recommend/batch", json={"sequences": [["s00"]]}),
        client.get("/v1/songs?q=a"),
        client.get("/v1/songs/s00/similar"),
    ]
    told = (503, "no model is loaded: train one and start the service with --model")
    assert [problem_of(answer) for answer in answers] == [told] * 4


# --- feedback ----------------------------------------------------------------------------------------------------------------


def test_feedback_is_stored(new_client, database_url, connection):
    with connect(database_url) as opened:
        register_model(opened, Model(model_id="run/1", path="models", encoders_digest="e", snapshot_digest="f"))
    time = "2026-01-31T20:15:00+01:00"
    events = [
        {"event": "played", "song_id": 17, "happened_at": time, "ms_played": 30_000, "recommended": True},
        {"event": "skipped", "song_id": "s01", "happened_at": time, "model_id": "run/1"},
        {"event": "never_again", "artist_id": "a1", "happened_at": time},
    ]
    client = new_client(database_url=database_url)
    body = {"listener": "u1", "events": events}
    assert client.post("/v1/feedback", json=body).json == {"stored": 3}
    assert client.post("/v1/feedback", json=body).json == {"stored": 0}
    stored = connection.execute(
        "SELECT listener, event, song_id, artist_id, model_id, is_recommended, ms_played FROM recommender.feedback ORDER BY event"
    ).fetchall()
    assert stored == [
        ("u1", "never_again", None, "a1", None, False, None),
        ("u1", "played", "17", None, None, True, 30_000),
        ("u1", "skipped", "s01", None, "run/1", True, None),
    ]


PLAYED = {"event": "played", "song_id": "s00"}


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({**PLAYED, "event": "heard"}, "events.0.event: Input should be 'played', 'skipped', 'liked' or 'never_again' (got "),
        ({"event": "liked"}, 'events.0: send either "song_id" or "artist_id"'),
        ({**PLAYED, "artist_id": "a"}, 'events.0: send either "song_id" or "artist_id"'),
        ({"event": "liked", "artist_id": "a"}, 'events.0: "artist_id" goes with "never_again" only: "liked" needs a song_id'),
        ({**PLAYED, "happened_at": "2026-01-31T20:15:00"}, "events.0.happened_at: Input should have timezone info (got "),
        ({**PLAYED, "happened_at": 1_700_000_000}, "events.0.happened_at: a time is a text with its zone, such as "),
        ({**PLAYED, "happened_at": "0001-01-01T00:00:00+10:00"}, "events.0: happened_at lies between the years 1970 and 9998"),
        ({**PLAYED, "song_id": "ä" * 501}, "events.0.song_id: an id has 1000 bytes at most"),
        ({**PLAYED, "ms_played": 2**31}, "events.0.ms_played: Input should be less than or equal to 2147483647"),
        ({**PLAYED, "user": 1}, "unknown field 'events.0.user'"),
    ],
)
def test_what_is_no_feedback_is_refused_in_one_line(new_client, event, detail):
    status, told = problem_of(new_client().post("/v1/feedback", json={"listener": "u1", "events": [event]}))
    assert status == 422
    assert told.startswith(detail)


def test_feedback_on_an_unknown_model_is_not_stored(new_client, database_url, connection):
    body = {"listener": "u1", "events": [PLAYED, {"event": "liked", "song_id": "s00", "model_id": "x"}]}
    status, told = problem_of(new_client(database_url=database_url).post("/v1/feedback", json=body))
    assert status == 404
    assert "'x'" in told
    assert connection.execute("SELECT count(*) FROM recommender.feedback").fetchone() == (0,)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/feedback", {"listener": "u1", "events": [PLAYED]}),
        ("GET", "/v1/models", None),
        ("POST", "/v1/models/m/activate", {}),
        ("POST", "/v1/models/rollback", {}),
    ],
)
def test_without_a_database_what_needs_one_says_so(new_client, method, path, body):
    response = new_client().open(path, method=method, json=body)
    assert problem_of(response) == (503, "no database is configured: start the service with DATABASE_URL")


# --- models ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def models_url(database_url):
    with connect(database_url) as connection:
        for model_id in ("old/1", "new/1", "bad/1"):
            model = Model(model_id=model_id, path="m", encoders_digest="e", snapshot_digest="f", metrics={"ndcg@10": 0.5})
            register_model(connection, model)
        refuse_model(connection, "bad/1", "its weights are broken")
    return database_url


def test_models_are_activated_compared_and_rolled_back(new_client, models_url):
    client = new_client(database_url=models_url)
    assert client.get("/v1/models").json["deployment"] is None
    first = client.post("/v1/models/old/1/activate", json={}).json
    second = client.post("/v1/models/new/1/activate", json={"challenger_id": "old/1", "share": 0.25}).json
    back = client.post("/v1/models/rollback", json={}).json
    named = [(one["model_id"], one["challenger_id"], one["challenger_share"]) for one in (first, second, back)]
    assert named == [("old/1", None, 0.0), ("new/1", "old/1", 0.25), ("old/1", None, 0.0)]
    assert sorted(second) == ["challenger_id", "challenger_share", "deployed_at", "deployment_id", "model_id"]
    answer = client.get("/v1/models").json
    assert answer["deployment"] == back
    figures = dict.fromkeys(("answers", "songs", "fallbacks", "played", "skipped", "liked", "never_again"), 0)
    assert {model["model_id"]: model for model in answer["models"]} == {
        model_id: {
            "model_id": model_id,
            "trained_at": None,
            "refused": "its weights are broken" if model_id == "bad/1" else None,
            "metrics": {"ndcg@10": 0.5},
            "figures": figures,
        }
        for model_id in ("old/1", "new/1", "bad/1")
    }


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("no/1/activate", {}, (404, "no model 'no/1' is known: GET /v1/models names those that are")),
        ("old/1/activate", {"challenger_id": "no/1", "share": 0.5}, (404, "no model 'no/1' is known")),
        ("old/1/activate", {"challenger_id": "old/1", "share": 0.5}, (422, "a model cannot challenge itself")),
        ("old/1/activate", {"challenger_id": "new/1"}, (422, '"challenger_id" and "share" go together')),
        ("old/1/activate", {"challenger_id": "new/1", "share": 1}, (422, "share: Input should be less than 1 (got 1)")),
        ("bad/1/activate", {}, (409, "")),
        ("rollback", {}, (409, "")),
        ("rollback", {"to": "old/1"}, (422, "unknown field 'to'")),
    ],
)
def test_what_cannot_be_activated_is_told(new_client, models_url, path, body, told):
    status, detail = problem_of(new_client(database_url=models_url).post(f"/v1/models/{path}", json=body))
    assert status == told[0]
    assert detail.startswith(told[1])
    assert "\n" not in detail


def test_a_form_of_another_site_cannot_roll_back(new_client):
    response = new_client().post("/v1/models/rollback", data="{}", content_type="text/plain")
    assert problem_of(response)[0] == 415


def test_readiness_tells_what_the_recommender_tells(new_client):
    assert new_client().get("/readyz").json == {
        "model": "loaded",
        "model_id": MODEL["model_id"],
        "database": "not configured",
        "worker": "none",
        "follower": "none",
        "new_songs": 3,
        "index": "int8",
        "catalogue_read_at": None,
        "refused": None,
    }


def test_a_service_whose_follower_has_ended_is_not_ready(new_client):
    client, may_end = new_client(), threading.Event()
    thread = service_of(client.application).follower_thread = threading.Thread(target=may_end.wait)
    thread.start()
    running = client.get("/readyz")
    may_end.set()
    thread.join()
    ended = client.get("/readyz")
    told = [(answer.status_code, answer.json["follower"]) for answer in (running, ended)]
    assert told == [(200, "running"), (503, "ended")]


def test_an_answer_that_is_no_models_has_none(new_client):
    live = FakeLive()
    live.recommend = lambda query: FakeAnswer(fallback="popular")
    answer = new_client(live=live).post("/v1/recommend", json={"songs": ["x"]}).json
    assert (answer["fallback"], answer["songs"]) == ("popular", [SONG])
