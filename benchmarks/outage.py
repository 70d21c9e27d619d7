"""The database goes away for half a minute while requests come in.

    python -m benchmarks.outage                     (or: make bench-outage)
    python -m benchmarks.outage --how frozen        it takes connections but says nothing any more, as behind a dead network

Sequences must be answered all the time.  Playlists, which stand in the database, are refused while it is away, with 503 and a
Retry-After, and accepted and worked on again within seconds after.  The embedded PostgreSQL is this benchmark's own.  The last
line is one JSON object.
"""

import argparse
import json
import os
import signal
import sys
import time
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chain import store
from benchmarks.queue_crew import N_PLAYLISTS, fresh_database, make_world
from benchmarks.serve.client import LoadPlan, Request
from benchmarks.serve.processes import (
    FOLDER,
    Loaded,
    Server,
    end_on_sigterm,
    first_answer_seconds,
    loading,
    parent_of,
    rest,
    service,
)
from benchmarks.serve.records import Records
from benchmarks.serve.world import COUNT, RECOMMEND, run_of, sequences
from errors import exit_code_of
from storage.connections import connect
from storage.embedded import EmbeddedServer

N_SONGS = 20_000
WHOLE_SECONDS = 30.0
BEFORE_SECONDS, AFTER_SECONDS = 10.0, 30.0
RATE, CONNECTIONS = 30.0, 16
SONGS, PLAYLIST = 0, 1  # kinds of requests
SONGS_PER_PLAYLIST = 5  # requests of one kind for one of the other
RECOVERY_SECONDS = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Cut the database off under load and print what became of the requests."""
    parser = argparse.ArgumentParser(description="The database goes away for half a minute while requests come in.")
    parser.add_argument("--seconds", type=float, default=WHOLE_SECONDS, help="how long the database is away")
    parser.add_argument("--how", choices=["killed", "frozen"], default="killed", help="what happens to PostgreSQL")
    arguments = parser.parse_args(argv)
    end_on_sigterm()
    figures = outage(arguments.seconds, arguments.how)
    if arguments.seconds >= WHOLE_SECONDS:
        store("outage", figures)
    print(json.dumps(figures))
    return 0


def outage(seconds: float, how: str) -> dict[str, Any]:
    """Carry it out."""
    run, folder = run_of(N_SONGS), FOLDER / "outage"
    with EmbeddedServer(folder) as postgres:
        database = fresh_database(postgres, "outage")
        with connect(database) as connection:
            make_world(connection, watched=False)
        with service("--model", str(run), database=database) as server:
            requests = both_kinds()
            first_answer_seconds(server, RECOMMEND, requests[0].body)
            worked_on_within(server)
            rest(server.pid)
            length = BEFORE_SECONDS + seconds + AFTER_SECONDS
            plan = LoadPlan(port=server.port, requests=requests, connections=CONNECTIONS, seconds=length, rate=RATE)
            with loading(plan, "outage") as load:
                time.sleep(BEFORE_SECONDS)
                postmaster = postmaster_of(database)
                gone = time.monotonic()
                with away(postmaster, folder, how):
                    time.sleep(seconds)
                back = time.monotonic()
                worker_seconds = worked_on_within(server)
                return {"how": how, **verdict(load.finish(), gone, back), "worker_recovery_s": round(worker_seconds, 2)}


def both_kinds() -> list[Request]:
    """Sequences, and now and then a playlist."""
    requests = []
    for number, songs in enumerate(sequences(N_SONGS), start=1):
        requests.append(Request(kind=SONGS, path=RECOMMEND, body={"songs": songs, "count": COUNT}, songs=COUNT))
        if number % SONGS_PER_PLAYLIST == 0:
            body = {"playlist_id": str(1 + number % N_PLAYLISTS)}
            requests.append(Request(kind=PLAYLIST, path=RECOMMEND, body=body, statuses=(202,)))
    return requests


# --- the database ------------------------------------------------------------------------------------------------------------


def postmaster_of(database: str) -> int:
    """The process id of the server behind a URL."""
    with connect(database) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return int((Path(row[0]) / "postmaster.pid").read_text(encoding="ascii").split()[0])


@contextmanager
def away(postmaster: int, folder: Path, how: str) -> Iterator[None]:
    """Within, the database does not answer; after it, it does again."""
    if how == "killed":
        os.kill(postmaster, signal.SIGKILL)
        yield
        with EmbeddedServer(folder):  # starts what does not run; whoever started it before keeps it running
            return
    processes = [postmaster, *(pid for pid in processes_now() if parent_of(pid) == postmaster)]
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def processes_now() -> list[int]:
    """All processes that this one may see."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def worked_on_within(server: Server) -> float:
    """Seconds until a playlist that is asked for now has its songs; asked again while it is refused or still waits."""
    began = time.monotonic()
    while time.monotonic() < began + RECOVERY_SECONDS:
        try:
            if server.post(RECOMMEND, {"playlist_id": "1", "wait": True}).get("songs"):
                return time.monotonic() - began
        except urllib.error.HTTPError as exc:
            if exc.code != 503:
                raise
        time.sleep(0.1)
    return float("nan")


# --- what became of the requests ---------------------------------------------------------------------------------------------


def verdict(loaded: Loaded, gone: float, back: float) -> dict[str, Any]:
    """Sequences that failed at any time; playlists by what they were told while the database was away; the way back."""
    songs, playlists = loaded.records.of_kind(SONGS), loaded.records.of_kind(PLAYLIST)
    asked_away = playlists.due_within(gone, back)
    refused = asked_away.rows["status"] == 503
    told_when = refused & asked_away.has_retry_after
    # What was due shortly before the database came back may well have been accepted after it.
    accepted_later = asked_away.is_right & (asked_away.rows["due"] + asked_away.rows["took"] >= back)
    print(
        f"outage: sequences: p99 {songs.due_within(0, gone).quantile_ms(0.99):.1f} ms before, "
        f"{songs.due_within(gone, back).quantile_ms(0.99):.1f} ms while it is away; playlists: slowest refusal "
        f"{asked_away.longest_ms:.0f} ms; client {loaded.cpu_share:.0%} of a core; wrong: {list(loaded.samples)}",
        file=sys.stderr,
    )
    return {
        "outage_s": round(back - gone, 1),
        "songs": len(songs),
        "songs_failed": songs.failed,
        "songs_max_ms": round(songs.longest_ms, 1),
        "playlists_away": len(asked_away),
        "playlists_503": int(told_when.sum()),
        "playlists_other": int((~told_when & ~accepted_later).sum()),
        "recovery_s": round(recovery_seconds(playlists, back), 2),
    }


def recovery_seconds(playlists: Records, back: float) -> float:
    """Seconds from the database's return to the last playlist that was still not accepted; 0 where all were."""
    due = playlists.rows["due"][~playlists.is_right]
    return max(0.0, float(np.max(due - back, initial=0.0)))


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
