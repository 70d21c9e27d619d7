"""The page in a real Chromium, against the real service.  Without a Chromium these tests are skipped; in CI they fail.

`PAGE_PICTURES=docs .venv/bin/python -m pytest tests/web` also writes the pictures of the README.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from benchmarks.browser import FLAGS, WAY_OUT, find_chromium
from benchmarks.served import address_of
from flask_app import running_app
from tests.web.pictures import small_png
from tests.web.world import World, make_world

PATIENCE_MS = 15_000
DESKTOP = {"width": 1280, "height": 800}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None and "CI" in os.environ:
        pytest.fail(f"Chromium is missing: {WAY_OUT}")
    if program is None:
        pytest.skip(f"needs Chromium: {WAY_OUT}")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def world(browser, new_database, template_database, tmp_path_factory) -> Iterator[World]:
    with new_database(template_database) as url:
        yield make_world(url, tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def app(world):
    with running_app(world.config) as app:
        yield app


@pytest.fixture(scope="session")
def address(app) -> Iterator[str]:
    with address_of(app) as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """`visit(path)` -> the page in a browser of its own, ready; whatever goes wrong in it fails the test at the end.

    `refused` names the statuses that a test expects: the browser reports each of them as an error of its own.
    """
    contexts, wrong = [], []

    def open_page(path="", *, at=address, refused=(), **options):
        context = browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(f"error in the script: {error}"))
        page.on("console", lambda message: wrong.extend(errors_of(message, refused)))
        page.on("request", lambda request: wrong.extend(foreign(request.url, at)))
        page.goto(f"{at}/{path}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def errors_of(message, refused):
    """What the console was told that is no good news."""
    if message.type not in ("error", "warning"):
        return []
    status = re.search(r"status of (\d+)|(net::ERR)", message.text)
    if status is not None and (status[2] or int(status[1])) in refused:
        return []
    return [f"console: {message.text} ({message.location})"]


def foreign(url, address):
    """An address that is not the service's."""
    if url.startswith(("data:", f"blob:{address}/")) or urlsplit(url).netloc == urlsplit(address).netloc:
        return []
    return [f"asked {url}"]


@pytest.fixture
def picture():
    """`picture(page, name)` writes docs/page-NAME.png where pictures were asked for."""
    folder = os.environ.get("PAGE_PICTURES")

    def take(page, name):
        if folder is not None:
            page.evaluate("document.activeElement.blur()")
            page.mouse.move(0, 0)
            path = Path(folder) / f"page-{name}.png"
            path.write_bytes(small_png(page.screenshot()))

    return take
