"""Keys, limits and headers: who gets an answer, and what nobody else may learn."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from api.access import KeyRing, MovingWindow, is_loopback
from config import Config, ServiceConfig
from errors import DatabaseUnreachable, ServiceUnavailable
from flask_app import service_of
from storage.keys import ApiKey, create_key, revoke_key
from tests.api.fakes import LAN, fake_app, new_key
from tests.jobs.world import wait_until

ADDRESSES = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi/"),
    ("GET", "/openapi/openapi.json"),
    ("GET", "/openapi/swagger"),
    ("GET", "/openapi/swagger/js/swagger-ui-bundle.js"),
    ("GET", "/v1/songs"),
    ("GET", "/v1/songs/s00/similar"),
    ("POST", "/v1/songs/lookup"),
    ("GET", "/v1/playlists"),
    ("GET", "/v1/playlists/p"),
    ("GET", "/v1/models"),
    ("GET", "/v1/figures/popularity"),
    ("GET", "/v1/map"),
    ("POST", "/v1/map/places"),
    ("GET", "/v1/overview"),
    ("GET", "/v1/models/run/card"),
    ("GET", "/v1/requests/1"),
    ("GET", "/requests/1"),
    ("POST", "/recommend"),
    ("POST", "/v1/recommend"),
    ("POST", "/v1/recommend.jspf"),
    ("POST", "/v1/playlist.m3u8"),
    ("POST", "/v1/recommend/batch"),
    ("POST", "/v1/why"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/models/run/activate"),
    ("POST", "/v1/models/rollback"),
    ("GET", "/no/such/address"),
    ("GET", "//healthz"),
    ("GET", "/openapi"),
    ("DELETE", "/v1/recommend"),
    ("OPTIONS", "/v1/recommend"),
    ("TRACE", "/"),
    ("HEAD", "/healthz"),
]


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def problem_of(response):
    return response.status_code, response.json["detail"]


# --- who needs a key ---------------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_list_of_addresses():
    app = fake_app()
    adapter = app.url_map.bind("localhost")
    found = [(path, method) for method, path in ADDRESSES if path != "/openapi" and adapter.test(path, method)]
    named = {adapter.match(path, method)[0] for path, method in found}
    unnamed = {"openapi.static", "swagger.oauth2-redirect", "page.index", "page.static"}  # of the page: tests/web/test_files.py
    assert {rule.endpoint for rule in app.url_map.iter_rules()} - named == unnamed


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_on_a_lan_address_nothing_answers_without_a_key(method, path):
    response = fake_app(LAN, keys=[new_key()[0]]).test_client().open(path, method=method)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert response.mimetype == "application/problem+json"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_on_loopback_nobody_needs_a_key(host):
    assert is_loopback(host)
    response = fake_app(Config(service=ServiceConfig(host=host))).test_client().get("/healthz")
    assert response.status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "music.example", "10.0.0.1", "0"])
def test_any_other_address_needs_one(host):
    assert not is_loopback(host)
    assert fake_app(Config(service=ServiceConfig(host=host)), keys=[]).test_client().get("/healthz").status_code == 401


def test_the_setting_asks_for_keys_on_loopback_as_well():
    app = fake_app(Config(service=ServiceConfig(require_key="always")), keys=[])
    assert app.test_client().get("/healthz").status_code == 401


def test_without_a_key_the_body_is_not_looked_at():
    response = fake_app(LAN, keys=[]).test_client().post("/v1/recommend", data=b"{", content_type="text/plain")
    assert response.status_code == 401


# --- which host --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:4517", "127.0.0.1", "127.0.0.1:4517", "127.8.8.8:", "[::1]", "[::1]:80"]
)
def test_on_loopback_a_request_names_loopback(host):
    assert fake_app().test_client().get("/healthz", environ_overrides={"HTTP_HOST": host}).status_code == 200


def test_a_request_of_http_1_0_need_not_name_a_host():
    environ = create_environ("/healthz")
    del environ["HTTP_HOST"]
    assert run_wsgi_app(fake_app(), environ)[1] == "200 OK"


@pytest.mark.parametrize(
    "host",
    [
        *("music.example", "music.example:4517", "localhost.music.example", "127.0.0.1.music.example", "localhost@music.example"),
        *("192.168.1.7:4517", "0.0.0.0", "[::2]", "::1", "[localhost]", "localhost:4517:1", "localhost:x", "", "localhost "),
        *("127.0.0.1, music.example", "l\xf6calhost"),
    ],
)
def test_a_page_whose_name_leads_to_loopback_is_refused(host):
    environ = {"HTTP_HOST": host}
    response = fake_app().test_client().post("/v1/models/rollback", json={}, environ_overrides=environ)
    told = (
        f"without keys only requests to localhost are answered (the Host header is {host!r}): "
        'ask 127.0.0.1, or have the service ask for keys (require_key = "always")'
    )
    assert problem_of(response) == (421, told)
    assert response.mimetype == "application/problem+json"


def test_where_keys_are_needed_the_service_may_have_any_name():
    client = fake_app(Config(service=ServiceConfig(require_key="always")), keys=[KEY]).test_client()
    assert client.get("/healthz", headers={**bearer(TEXT), "Host": "music.example"}).status_code == 200


# --- which key ---------------------------------------------------------------------------------------------------------------


def test_a_known_key_opens():
    key, text = new_key()
    client = fake_app(LAN, keys=[key]).test_client()
    assert client.post("/v1/recommend", json={"songs": ["s00"]}, headers=bearer(text)).status_code == 200
    assert client.get("/healthz", headers={"Authorization": f"bearer  {text} "}).status_code == 200


KEY, TEXT = new_key()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        TEXT,
        f"Basic {TEXT}",
        f"Bearer {TEXT}x",
        f"Bearer {TEXT[:-1]}",
        f"Bearer {TEXT[:-1]}f",
        f"Bearer {new_key('ba9876543210')[1]}",
        f"Bearer {TEXT.upper()}",
        "Bearer b4mr__",
        "Bearer " + "b4mr_" * 1000,
        "Bearer b4mr_\xff_\xff",
        f"Bearer {TEXT}, Bearer {TEXT}",
    ],
)
def test_anything_else_does_not_and_is_told_the_same(header):
    response = fake_app(LAN, keys=[KEY]).test_client().get("/healthz", headers={"Authorization": header})
    told = "the API key is unknown, expired or revoked: ask whoever runs the service for another"
    assert problem_of(response) == (401, told)


@pytest.mark.parametrize(("key_id", "status"), [("0123456789ab", 200), ("ba9876543210", 401)])
def test_a_secret_is_compared_also_where_no_key_has_the_id(monkeypatch, key_id, status):
    opens, compared = ApiKey.opens, []
    monkeypatch.setattr(ApiKey, "opens", lambda key, secret: (compared.append(secret), opens(key, secret))[1])
    response = fake_app(LAN, keys=[KEY]).test_client().get("/healthz", headers=bearer(new_key(key_id)[1]))
    assert (response.status_code, compared) == (status, ["5e" * 32])


def test_a_key_past_its_end_opens_nothing():
    key, text = new_key(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert fake_app(LAN, keys=[key]).test_client().get("/healthz", headers=bearer(text)).status_code == 401


def test_keys_that_cannot_be_checked_are_told_to_come_back():
    response = fake_app(LAN).test_client().get("/healthz", headers=bearer(TEXT))
    assert problem_of(response) == (503, "API keys cannot be checked: the database with the keys is away")
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize(("path", "body"), [("/v1/models/run/activate", {}), ("/v1/models/rollback", {})])
def test_managing_models_needs_a_key_for_that(path, body):
    key, text = new_key()
    response = fake_app(LAN, keys=[key]).test_client().post(path, json=body, headers=bearer(text))
    assert problem_of(response) == (403, "this API key may not manage models: use one that was made for that")


def test_no_log_record_holds_the_text_of_a_key(caplog):
    caplog.set_level(logging.DEBUG)
    client = fake_app(LAN, keys=[KEY]).test_client()
    secret = TEXT.rpartition("_")[2]
    for header in (TEXT, f"Bearer {TEXT}", f"Bearer {TEXT}x", f"Basic {TEXT}", f"Bearer {TEXT}\xff"):
        client.get("/healthz", headers={"Authorization": header, "X-Request-ID": TEXT})
    client.get(f"/{TEXT}", headers=bearer(TEXT))
    client.post("/v1/recommend", json={"songs": [TEXT], "count": TEXT}, headers=bearer(TEXT))
    client.post("/v1/recommend", json={TEXT: 1}, headers={**bearer(TEXT), "Content-Type": TEXT})
    told = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert len(caplog.records) >= 7
    assert secret not in told
    assert KEY.key_id in told


# --- keys kept in memory -----------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_revoked_key_is_refused_after_the_next_look():
    clock, keys = Clock(), [KEY]
    ring = KeyRing(lambda: keys, clock=clock)
    assert ring.find(KEY.key_id) == KEY
    keys.clear()
    clock.now += 1.9
    assert ring.find(KEY.key_id) == KEY
    clock.now += 2.0  # nothing was asked meanwhile: the next request waits for the look
    assert ring.find(KEY.key_id) is None


def test_a_look_is_taken_beside_the_requests():
    clock, keys, may_look = Clock(), [KEY], threading.Event()
    may_look.set()

    def load():
        may_look.wait(10)
        return list(keys)

    ring = KeyRing(load, clock=clock)
    assert ring.find(KEY.key_id) == KEY
    may_look.clear()
    keys.clear()
    clock.now += 2.5
    assert ring.find(KEY.key_id) == KEY
    may_look.set()
    wait_until(lambda: ring.find(KEY.key_id) is None)


def test_keys_stay_while_the_database_is_away():
    clock, is_away = Clock(), False

    def load():
        if is_away:
            raise DatabaseUnreachable("no connection")
        return [KEY]

    ring = KeyRing(load, clock=clock)
    assert ring.find(KEY.key_id) == KEY
    is_away = True
    for _ in range(3):
        clock.now += 60
        assert ring.find(KEY.key_id) == KEY


def test_keys_that_were_never_read_open_nothing():
    def load():
        raise DatabaseUnreachable("no connection")

    with pytest.raises(ServiceUnavailable, match="keys cannot be checked"):
        KeyRing(load).find(KEY.key_id)


# --- limits ------------------------------------------------------------------------------------------------------------------


def test_a_window_moves_with_the_time():
    clock = Clock()
    window = MovingWindow(clock)
    assert [window.hit("a", 2), window.hit("a", 2)] == [0.0, 0.0]
    clock.now += 20
    assert [window.hit("a", 2), window.hit("b", 2)] == [40.0, 0.0]
    clock.now += 40
    assert [window.hit("a", 2), window.hit("a", 2), window.hit("a", 2)] == [0.0, 0.0, 60.0]


def test_a_batch_counts_as_often_as_it_has_sequences_or_not_at_all():
    clock = Clock()
    window = MovingWindow(clock)
    assert [window.hit("a", 5), window.hit("a", 5, 3, counted=1)] == [0.0, 0.0]
    clock.now += 20
    assert [window.hit("a", 5), window.hit("a", 5, 3, counted=1)] == [0.0, 40.0]  # three of four hits have to go
    clock.now += 40
    assert [window.hit("a", 5), window.hit("a", 5, 3, counted=1), window.hit("a", 5)] == [0.0, 0.0, 0.0]
    assert window.hit("a", 5) == 20.0


def test_the_sequences_of_a_batch_count_towards_the_limit():
    key, text = new_key(requests_per_minute=5)
    client = fake_app(LAN, keys=[key]).test_client()

    def batch(n):
        return client.post("/v1/recommend/batch", json={"sequences": [["s00"]] * n}, headers=bearer(text))

    answers = [batch(3), batch(3), batch(1), batch(1)]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
    told = problem_of(answers[1])[1]
    assert told.startswith(
        "the 3 sequences are more than is left of the 5 requests a minute of the key 0123456789ab: ask again in "
    )
    assert 1 <= int(answers[1].headers["Retry-After"]) <= 60


def test_a_batch_that_no_minute_has_room_for_is_not_told_to_come_back():
    key, text = new_key(requests_per_minute=5)
    body = {"sequences": [["s00"]] * 6}
    response = fake_app(LAN, keys=[key]).test_client().post("/v1/recommend/batch", json=body, headers=bearer(text))
    told = "the batch has 6 sequences, over the 5 requests a minute of the key 0123456789ab: send them in several requests"
    assert problem_of(response) == (422, told)


def test_a_key_over_its_limit_is_told_when_to_come_back():
    key, text = new_key(requests_per_minute=2)
    other, other_text = new_key("ba9876543210")
    client = fake_app(LAN, keys=[key, other]).test_client()
    answers = [client.get("/healthz", headers=bearer(text)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert problem_of(answers[2])[1].startswith("the key 0123456789ab made its 2 requests of this minute: ask again in ")
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    metrics = client.get("/metrics", headers=bearer(other_text)).text
    assert "bert4musicrec_rate_limited_total 1.0" in metrics


def test_without_keys_there_is_no_limit():
    client = fake_app(Config(service=ServiceConfig(requests_per_minute=1))).test_client()
    assert [client.get("/healthz").status_code for _ in range(3)] == [200, 200, 200]
    assert client.post("/v1/recommend/batch", json={"sequences": [["s00"]] * 3}).status_code == 200


def test_a_key_of_the_database_opens_until_it_is_revoked(database_url, connection):
    new = create_key(connection, "a test")
    connection.commit()
    app = fake_app(LAN, database_url=database_url)
    client = app.test_client()
    assert client.get("/healthz", headers=bearer(new.text)).status_code == 200
    revoke_key(connection, new.key_id)
    connection.commit()
    wait_until(lambda: client.get("/healthz", headers=bearer(new.text)).status_code == 401)
    service_of(app).close()


# --- headers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/v1/songs?q=a", "/no", "/metrics", "/v1/songs"])
def test_an_answer_tells_browsers_to_do_nothing_with_it(path):
    headers = dict(fake_app().test_client().get(path, headers={"Origin": "https://elsewhere.example"}).headers)
    for name in ("Content-Type", "Content-Length", "X-Request-ID"):
        del headers[name]
    assert headers == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
    }


def test_the_page_to_try_the_api_needs_nothing_from_elsewhere():
    client = fake_app().test_client()
    page = client.get("/openapi/swagger")
    policy = page.headers["Content-Security-Policy"]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in page.text
    assert client.get("/openapi/swagger").headers["Content-Security-Policy"] != policy
    files = [part.partition('"')[0] for part in page.text.replace('href="', 'src="').split('src="')[1:]]
    assert len(files) == 4
    for file in files:
        with client.get(f"/openapi/{file}") as response:
            assert response.status_code == 200
    assert '\\"validatorUrl\\": null' in page.text or '"validatorUrl": null' in page.text
