"""The page in a real Chromium: how long until somebody who opens it sees suggestions.

    python -m benchmarks.page --demo               (any model and database of the service's settings)

Each round is a browser profile of its own, with nothing kept from the one before: it opens the page, takes the first playlist
that is offered there, and waits for the first suggestion; then it adds a song that it searches for.  The last line is one JSON
object, times in milliseconds: `first_result_ms` counts from the request for the page until a suggestion is seen.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence

from playwright.sync_api import Browser, sync_playwright

from benchmarks.browser import FLAGS, WAY_OUT, find_chromium
from benchmarks.chain import store
from benchmarks.served import add_service_arguments, address_of, app_of
from errors import ConfigError, exit_code_of

SUGGESTION = "#suggestions .song"


def main(argv: Sequence[str] | None = None) -> int:
    """Open the page again and again and print how long it took."""
    parser = argparse.ArgumentParser(description="The page, timed.")
    parser.add_argument("--rounds", type=int, default=20, help="browser profiles that open the page (default 20)")
    add_service_arguments(parser)
    arguments = parser.parse_args(argv)
    program = find_chromium()
    if program is None:
        raise ConfigError(f"no Chromium: {WAY_OUT}")
    with app_of(arguments) as app, address_of(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        rounds = [one_round(browser, address) for _ in range(arguments.rounds + 1)][1:]  # the first one warms both sides up
        browser.close()
    figures: dict[str, float] = {"rounds": len(rounds)}
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        figures |= {f"{name}_ms": round(statistics.median(values)), f"{name}_max_ms": round(max(values))}
    store("page", figures)
    print(json.dumps(figures))
    return 0


def one_round(browser: Browser, address: str) -> dict[str, float]:
    """Milliseconds from the request for the page until a suggestion is seen, and what of it was what."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("#suggestions .empty")
    ready = time.perf_counter()
    page.click("#suggestions .empty button")
    page.wait_for_selector(SUGGESTION)
    first = time.perf_counter()
    page.fill("#find-song", "the")
    page.wait_for_selector("#found-songs [role=option]")
    found = time.perf_counter()
    page.click("#found-songs [role=option]")
    page.wait_for_selector(f"{SUGGESTION} >> nth=0")
    page.wait_for_selector("#suggestions:not([aria-busy])")
    again = time.perf_counter()
    context.close()
    parts = {"page": ready - began, "first_result": first - began, "search": found - first, "next_result": again - found}
    return {name: 1000 * seconds for name, seconds in parts.items()}


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
