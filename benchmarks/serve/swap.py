"""Another model comes into service while requests come in: what fails, and how long the slowest answer takes."""

import functools
import itertools
import os
import shutil
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.serve.client import LoadPlan
from benchmarks.serve.processes import FOLDER, Loaded, Server, first_answer_seconds, loading, rest, run_load, service
from benchmarks.serve.world import CONNECTIONS, RECOMMEND, Plan, catalogue_database, plain_requests, run_of

SHARE_OF_MOST = 0.5  # requests that are due, of those that the service can answer
PATIENCE_SECONDS = 90.0  # for a model to come into service
CALM_SECONDS, AFTER_SECONDS = 3.0, 1.0  # between two swaps; after one, still counted as its window
LOOK_SECONDS = 0.1


def swapping(plan: Plan) -> dict[str, Any]:
    """Swap two runs of one size under an open load of half of what the service can take, several times."""
    runs = [run_of(plan.songs, seed) for seed in (0, 1)]
    models = FOLDER / "models"
    shutil.rmtree(models, ignore_errors=True)
    put_newest(models, runs[0], 0)
    requests = plain_requests(plan.songs)
    with catalogue_database(plan.songs) as database, service("--model-folder", str(models), database=database) as server:
        first_answer_seconds(server, RECOMMEND, requests[0].body)
        rest(server.pid)
        triggers = TRIGGERS[plan.trigger](server, models, runs)
        most = LoadPlan(port=server.port, requests=requests, connections=CONNECTIONS, seconds=1 + plan.seconds)
        found = run_load(most)
        rate = SHARE_OF_MOST * found.records.answers_per_second(found.began + 1, found.began + 1 + plan.seconds)
        longest = plan.swaps * (PATIENCE_SECONDS + CALM_SECONDS + AFTER_SECONDS)
        steady = LoadPlan(port=server.port, requests=requests, connections=CONNECTIONS, seconds=longest, rate=rate)
        with loading(steady, "swap") as load:
            time.sleep(CALM_SECONDS)
            windows = [swap_once(server, trigger) for trigger in itertools.islice(triggers, plan.swaps)]
            load.process.terminate()
            return verdict(load.finish(), windows, rate)


def by_newest_run(server: Server, models: Path, runs: Sequence[Path]) -> Iterator[Callable[[], object]]:
    """Swaps that the service makes by itself, because a newer run is there."""
    for number in itertools.count(1):
        yield functools.partial(put_newest, models, runs[number % 2], number)


def by_activation(server: Server, models: Path, runs: Sequence[Path]) -> Iterator[Callable[[], object]]:
    """Swaps that somebody asks for: both models have answered before, then they are activated in turn."""
    known = [model_in_service(server)]
    swap_once(server, functools.partial(put_newest, models, runs[1], 1))
    known.append(model_in_service(server))
    for model_id in itertools.cycle(known):
        yield functools.partial(server.post, f"/v1/models/{model_id}/activate")


TRIGGERS = {"newest": by_newest_run, "activation": by_activation}


def put_newest(models: Path, run: Path, number: int) -> None:
    """Make a run the newest of the folder that the service watches.

    It appears whole, under a name that sorts after those before it; its files are links, so that nothing is copied.
    """
    models.mkdir(exist_ok=True)
    draft = models.with_name("draft-of-a-run")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(run, draft, copy_function=os.link)
    draft.rename(models / f"run-{number:03d}")


def swap_once(server: Server, trigger: Callable[[], object]) -> tuple[float, float]:
    """Trigger a swap and wait until it is done: the window in which answers may suffer from it."""
    before = model_in_service(server)
    began = time.monotonic()
    trigger()
    while model_in_service(server) in (before, None):
        if time.monotonic() > began + PATIENCE_SECONDS:
            raise TimeoutError(f"the service still answers with {before}, {PATIENCE_SECONDS:g} s after another was to come")
        time.sleep(LOOK_SECONDS)
    ended = time.monotonic() + AFTER_SECONDS
    time.sleep(AFTER_SECONDS + CALM_SECONDS)
    return began, ended


def model_in_service(server: Server) -> str | None:
    """The model that the service names; None where it does not answer."""
    with suppress(urllib.error.URLError, ConnectionError):
        return str(server.get("/readyz")["model_id"])
    return None


def verdict(loaded: Loaded, windows: Sequence[tuple[float, float]], rate: float) -> dict[str, Any]:
    """Failures of the whole load, and the slowest answer of those that were due in a window."""
    records = loaded.records
    slowest = [records.due_within(*window).longest_ms for window in windows]
    calm = records.due_within(loaded.began, windows[0][0])
    seconds = ", ".join(f"{end - begin - AFTER_SECONDS:.1f}" for begin, end in windows)
    print(
        f"swap: {rate:.0f} requests/s, {len(records)} in all; swaps took {seconds} s, slowest answers "
        f"{', '.join(f'{ms:.0f}' for ms in slowest)} ms; before them p99 {calm.quantile_ms(0.99):.0f} ms, "
        f"slowest {calm.longest_ms:.0f} ms; client {loaded.cpu_share:.0%} of a core; wrong: {list(loaded.samples)}",
        file=sys.stderr,
    )
    return {"swap_failed": records.failed, "swap_max_ms": round(max(slowest), 1)}
