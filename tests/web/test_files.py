"""The files of the page: who may read them, what a browser may do with them, and what their script never does."""

import re

import pytest

from config import PROJECT_ROOT, Config, ServiceConfig
from tests.api.fakes import LAN, fake_app
from tests.api.test_access import problem_of
from web import POLICY

STATIC = PROJECT_ROOT / "web" / "static"
FILES = sorted(path.name for path in STATIC.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
CLOSED = fake_app(LAN, keys=[])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in FILES)])
def test_the_page_is_open_also_where_keys_are_needed(path, method):
    with CLOSED.test_client().open(path, method=method) as response:
        assert response.status_code == 200
        headers = response.headers
    assert headers["Content-Security-Policy"] == POLICY
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-cache")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("OPTIONS", "/"),
        ("DELETE", "/static/page.js"),
        ("GET", "//"),
        ("GET", "/static"),
        ("GET", "/static/"),
        ("GET", "/v1/songs"),
        ("GET", "/index.html"),
    ],
)
def test_and_nothing_beside_it(method, path):
    assert CLOSED.test_client().open(path, method=method).status_code == 401


@pytest.mark.parametrize(
    "name", ["../__init__.py", "../templates/page.html", "..%2f__init__.py", "no.js", "page", ".js", "%2e%2e/__init__.py"]
)
def test_no_other_file_is_given_away(name):
    assert fake_app().test_client().get(f"/static/{name}").status_code == 404


def test_the_policy_lets_the_page_do_nothing_but_ask_its_own_service():
    assert dict(part.split(" ", 1) for part in POLICY.split("; ")) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


def test_a_page_whose_name_leads_to_loopback_is_refused_as_on_every_route():
    for path in ("/", "/static/page.js"):
        response = fake_app().test_client().get(path, environ_overrides={"HTTP_HOST": "music.example"})
        assert problem_of(response)[0] == 421


@pytest.mark.parametrize("path", ["/", "/static/page.js"])
def test_what_a_browser_has_already_is_not_sent_again(path):
    client = fake_app().test_client()
    with client.get(path) as first:
        etag = first.headers["ETag"]
    with client.get(path, headers={"If-None-Match": etag}) as again:
        assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    ("name", "kind"), [("page.js", "text/javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_each_file_has_the_type_that_browsers_insist_on(name, kind):
    with fake_app().test_client().get(f"/static/{name}") as response:
        assert response.mimetype == kind


def test_the_fields_have_the_defaults_of_the_settings():
    settings = ServiceConfig(count=7, max_count=50, discovery=0.25, temperature=0.4, order="flow", allow_explicit=False)
    text = fake_app(Config(service=settings)).test_client().get("/").text
    for field in (
        'name="count" type="number" min="1" max="50" step="1" value="7"',
        'step="0.05"\n                     value="0.25"',
    ):
        assert field in text
    assert '<option value="flow" selected>' in text
    assert 'name="allow_explicit" type="checkbox">' in text


def test_nothing_stands_inline_and_nothing_comes_from_elsewhere():
    text = fake_app().test_client().get("/").text
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", text) == []
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses
    assert [address for address in addresses if not re.fullmatch(r"static/[a-z]+\.(js|css|svg)|openapi/swagger", address)] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_of_words_or_asks_elsewhere(name):
    text = (STATIC / name).read_text(encoding="utf-8")
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc", text) == []
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}
