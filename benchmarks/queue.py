"""The request queue under kills and under load, on a PostgreSQL of its own with everything durable.

    python -m benchmarks.queue                                          (or: make bench-queue)
    python -m benchmarks.queue --only kills --requests 2000 --kills 10  smaller, one part
    python -m benchmarks.queue --only stub slowdown

Parts: `kills` (SIGKILL to workers and to the postmaster while clients keep asking), `stub` (requests a second with a worker that
need not compute), `model` (playlists a second, and request to rows when idle, with an untrained model of full size; two workers
of one thread each), `slowdown` (what asking clients lose to the NOTIFY while the queue is kept empty).  The last line is one JSON
object.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from psycopg.conninfo import conninfo_to_dict

from benchmarks.chain import WORK, store
from benchmarks.queue_crew import (
    N_PLAYLISTS,
    Crew,
    EmptiedQueue,
    fresh_database,
    kill_postmaster,
    kill_workers,
    make_world,
    wait_until_empty,
)
from benchmarks.untrained import untrained_run
from config import PROJECT_ROOT, ServiceConfig
from errors import exit_code_of
from storage.connections import Connection, connect
from storage.embedded import EmbeddedServer
from storage.places import find_place

PARTS = ("kills", "stub", "model", "slowdown")
# Options that are hardly ever twice the same: nobody joins, each question is a request.  The stub does not look at them.
ASK = f"""\\set playlist random(1, {N_PLAYLISTS})
\\set count random(1, 1000)
SELECT recommender.request(:playlist, '{{"count": :count}}');
"""
ASKING_CLIENTS = 64
SERVER_SETTINGS = {"max_connections": "120"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything."""

    requests: int
    kills: int
    postmaster_kills: int
    songs: int
    seconds: float
    rounds: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and print their figures."""
    parser = argparse.ArgumentParser(description="The request queue under kills and under load.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="run these parts")
    parser.add_argument("--requests", type=int, default=20_000, help="requests at least while workers are killed")
    parser.add_argument("--kills", type=int, default=100, help="workers that are killed")
    parser.add_argument("--postmaster-kills", type=int, default=10, help="times that PostgreSQL itself is killed")
    parser.add_argument("--songs", type=int, default=100_000, help="songs of the model's catalogue")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds with and without NOTIFY, of which the medians count")
    arguments = vars(parser.parse_args(argv))
    parts, plan = arguments.pop("only"), Plan(**arguments)
    figures: dict[str, Any] = dict.fromkeys(
        ("requests", "kills", "lost", "doubled", "torn", "stub_requests_per_s", "playlists_per_s", "p50_ms", "p99_ms",
         "insert_slowdown")
    )  # fmt: skip
    for part in PARTS:
        if part in parts:
            told = MEASURES[part](plan)
            print(f"{part}: {told}", file=sys.stderr, flush=True)
            figures.update(told)
    if set(parts) == set(PARTS):
        store("queue", figures)
    print(json.dumps(figures))
    return 0


def kills(plan: Plan) -> dict[str, Any]:
    """Both kinds of kills, added up: nothing may be lost, doubled or torn."""
    with own_server() as server:
        workers = kill_workers(fresh_database(server, "kills"), kills=plan.kills, requests=plan.requests)
    postmaster = kill_postmaster(WORK / "queue", "kills", kills=plan.postmaster_kills, requests=plan.requests // 10)
    both = (workers, postmaster)
    print(f"kills: {sum(verdict.retried for verdict in both)} requests were in hand when something was killed", file=sys.stderr)
    return {
        "requests": workers.requests + postmaster.requests,
        "kills": workers.kills + postmaster.kills,
        "lost": sum(verdict.lost for verdict in both),
        "doubled": sum(verdict.doubled for verdict in both),
        "torn": sum(verdict.torn for verdict in both),
    }


def stub(plan: Plan) -> dict[str, Any]:
    """Requests a second from the first question to the last answer, while 64 clients ask and two stub workers answer."""
    with own_server() as server:
        url = fresh_database(server, "stub")
        with connect(url) as connection, Crew(url=url, settings=ServiceConfig()):
            make_world(connection, watched=False)
            began = time.monotonic()
            asked = pgbench(url, clients=ASKING_CLIENTS, seconds=plan.seconds)
            print(f"stub: {asked:.0f} requests/s were asked", file=sys.stderr)
            return {"stub_requests_per_s": round(answered(connection) / (time.monotonic() - began))}


def model(plan: Plan) -> dict[str, Any]:
    """Playlists a second with two workers and a deep queue; request to rows of single requests, one worker, idle."""
    run = untrained_run(WORK / "untrained", plan.songs)
    with own_server() as server:
        url = fresh_database(server, "model")
        with connect(url) as connection:
            make_world(connection, watched=False)
            with workers(url, run, 2):
                wait_until_empty(connection)
                began = time.monotonic()
                every_playlist = "SELECT recommender.request_many(array_agg(n)) FROM generate_series(1, %s) AS n"
                connection.execute(every_playlist, [N_PLAYLISTS])
                playlists_per_s = answered(connection) / (time.monotonic() - began)
            with workers(url, run, 1):
                waits = np.array([seconds_to_rows(connection, number) for number in range(1, int(30 * plan.seconds) + 1)])
    p50, p99 = 1000 * np.percentile(waits[len(waits) // 10 :], [50, 99])  # the first tenth warms up
    return {"playlists_per_s": round(playlists_per_s), "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


def slowdown(plan: Plan) -> dict[str, Any]:
    """Share of their throughput that 64 asking clients lose to the NOTIFY, while one session keeps the queue empty.

    An empty queue is the worst case: each question that finds it so sends a NOTIFY.  A server with a queue that is never empty
    sends none and loses nothing.
    """
    told: dict[bool, list[float]] = {True: [], False: []}
    heard: dict[bool, list[float]] = {True: [], False: []}
    with own_server() as server:
        for number in range(plan.rounds):
            for is_notified in (True, False) if number % 2 == 0 else (False, True):  # neither is always the first
                requests_per_s, heard_per_s = asked_and_heard(server, plan.seconds, is_notified=is_notified)
                told[is_notified].append(requests_per_s)
                heard[is_notified].append(heard_per_s)
    for is_notified, name in ((True, "with"), (False, "without")):
        print(
            f"slowdown: {statistics.median(told[is_notified]):.0f} requests/s {name} NOTIFY "
            f"({min(told[is_notified]):.0f} to {max(told[is_notified]):.0f}), "
            f"{statistics.median(heard[is_notified]):.0f} notifications/s heard",
            file=sys.stderr,
        )
    return {"insert_slowdown": round(1 - statistics.median(told[True]) / statistics.median(told[False]), 3)}


def asked_and_heard(server: EmbeddedServer, seconds: float, *, is_notified: bool) -> tuple[float, float]:
    """Requests a second that clients ask for while the queue is kept empty, and notifications a second that a listener hears."""
    url = fresh_database(server, "slowdown")
    with connect(url) as connection:
        make_world(connection, watched=False)
        connection.execute("UPDATE recommender.setting SET notify = %s", [is_notified])
        with EmptiedQueue(url) as emptied:
            began = time.monotonic()
            requests_per_s = pgbench(url, clients=ASKING_CLIENTS, seconds=seconds)
            return requests_per_s, emptied.heard / (time.monotonic() - began)


MEASURES = {"kills": kills, "stub": stub, "model": model, "slowdown": slowdown}


# --- server, clients, workers ------------------------------------------------------------------------------------------------


@contextmanager
def own_server() -> Iterator[EmbeddedServer]:
    """The benchmark's own PostgreSQL, with the settings of any other embedded one and room for more clients."""
    with EmbeddedServer(WORK / "queue", settings=SERVER_SETTINGS) as server:
        yield server


def pgbench(url: str, *, clients: int, seconds: float) -> float:
    """Ask from many connections at once; returns requests a second."""
    script = WORK / "ask.sql"
    script.write_text(ASK, encoding="ascii")
    parts = conninfo_to_dict(url)
    environ = {**os.environ, "PGPASSWORD": str(parts["password"]), "PGSSLMODE": "disable"}
    command = [
        str(find_place(WORK / "queue").installation / "bin" / "pgbench"),
        *("--host", str(parts["host"]), "--port", str(parts["port"]), "--username", str(parts["user"])),
        *("--no-vacuum", "--client", str(clients), "--jobs", "2", "--time", str(max(1, round(seconds)))),
        *("--file", str(script), str(parts["dbname"])),
    ]
    told = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
    line = next(line for line in told.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


@contextmanager
def workers(url: str, run: Path, size: int) -> Iterator[None]:
    """Real workers, as `python cli.py worker` starts them; they have loaded their model."""
    command = [sys.executable, "cli.py", "worker", "--model", str(run)]
    environ = {**os.environ, "DATABASE_URL": url, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, cwd=PROJECT_ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(size)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise subprocess.CalledProcessError(process.wait(), command)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.communicate(timeout=60)


def answered(connection: Connection) -> int:
    """Wait for an empty queue, then count the answers."""
    wait_until_empty(connection)
    row = connection.execute("SELECT count(*) FROM recommender.request WHERE state = 'done'").fetchone()
    assert row is not None
    return int(row[0])


def seconds_to_rows(connection: Connection, number: int) -> float:
    """Ask for one playlist while nothing else waits, and look every millisecond until its songs are there."""
    time.sleep(random.Random(number).uniform(0.01, 0.05))
    began = time.monotonic()
    row = connection.execute("SELECT recommender.request(%s::int)", [number % N_PLAYLISTS + 1]).fetchone()
    while connection.execute("SELECT FROM recommender.recommendation WHERE request_id = %s LIMIT 1", row).fetchone() is None:
        time.sleep(0.001)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
