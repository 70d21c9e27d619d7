"""An hour of everything at once, and whether memory stays flat.

    python -m benchmarks.soak                               (or: make bench-soak)
    python -m benchmarks.soak --seconds 120 --rate 20       shorter

The service runs as `python flask_app.py` on loopback, on an embedded PostgreSQL of its own: 20,000 songs, 2,000 playlists.
Requests are due at random times, 50 a second, whatever it does (see `benchmarks.serve.client`).  It ends by itself, early when
the service ends, and takes everything down that it started.  The last line is one JSON object; a whole hour is stored.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.chain import store
from benchmarks.serve.client import LoadPlan, Request
from benchmarks.serve.processes import (
    Loaded,
    RunningLoad,
    Server,
    Usage,
    end_on_sigterm,
    first_answer_seconds,
    is_running,
    loading,
    rest,
    service,
    usage,
)
from benchmarks.serve.records import slope_per_hour
from benchmarks.serve.world import COUNT, catalogue_database, run_of, sequences, with_every_rule
from errors import exit_code_of
from storage.connections import connect

N_SONGS, N_PLAYLISTS, N_LISTENERS, N_REQUESTS = 20_000, 2_000, 500, 5_000
WHOLE_SECONDS, WHOLE_RATE = 3_600.0, 50.0
LONGEST_SECONDS = 6 * WHOLE_SECONDS
SAMPLES_AT_LEAST = 30  # of memory, where an hour has one a minute
SETTLING_SHARE = 1 / 6  # of the time, in which caches fill and memory may grow: ten minutes of an hour
CONNECTIONS = 32
BATCH = 20

PLAYLISTS = "INSERT INTO music.playlist (playlist_id) SELECT n::text FROM generate_series(1, %s) AS n"
PLAYLIST_SONGS = """
INSERT INTO music.playlist_song (playlist_id, position, song_id)
SELECT %s, position, song_id
FROM unnest(%s::text[]) WITH ORDINALITY AS held (song_id, position)
"""


@dataclass(frozen=True)
class Moment:
    """What was seen at one moment of the soak."""

    seconds: float  # since its beginning
    usage: Usage


def main(argv: Sequence[str] | None = None) -> int:
    """Load the service for a bounded time and print the verdict."""
    parser = argparse.ArgumentParser(description="An hour of everything at once, and whether memory stays flat.")
    parser.add_argument("--seconds", type=float, default=WHOLE_SECONDS, help=f"length, {LONGEST_SECONDS:g} at most")
    parser.add_argument("--rate", type=float, default=WHOLE_RATE, help="requests a second")
    arguments = parser.parse_args(argv)
    end_on_sigterm()
    figures = soak(min(arguments.seconds, LONGEST_SECONDS), arguments.rate)
    if arguments.seconds >= WHOLE_SECONDS and arguments.rate >= WHOLE_RATE:
        store("soak", figures)
    print(json.dumps(figures))
    return 0


def soak(seconds: float, rate: float) -> dict[str, Any]:
    """Carry it out."""
    run = run_of(N_SONGS)
    with catalogue_database(N_SONGS) as database:
        make_playlists(database)
        with service("--model", str(run), database=database) as server:
            requests = mixed_requests()
            first_answer_seconds(server, "/v1/recommend", {"songs": sequences(N_SONGS)[0]})
            rest(server.pid)
            plan = LoadPlan(port=server.port, requests=requests, connections=CONNECTIONS, seconds=seconds, rate=rate)
            with loading(plan, "soak") as load:
                moments = watch(server, load, seconds)
                return verdict(load.finish(), moments, seconds)


def make_playlists(database: str) -> None:
    """Playlists of the songs that are there."""
    with connect(database) as connection:
        connection.execute(PLAYLISTS, [N_PLAYLISTS])
        held = enumerate(sequences(N_SONGS, N_PLAYLISTS, seed=2), start=1)
        connection.cursor().executemany(PLAYLIST_SONGS, [(str(number), songs) for number, songs in held])


# --- what is asked -----------------------------------------------------------------------------------------------------------


def _songs(kind: int, rng: random.Random) -> Request:
    body: dict[str, Any] = {"songs": _sequence(rng), "count": COUNT, "explain": rng.random() < 0.05}
    if rng.random() < 0.5:
        body["listener"] = _listener(rng)
    return Request(kind=kind, path="/v1/recommend", body=body, songs=COUNT)


def _rules(kind: int, rng: random.Random) -> Request:
    return Request(kind=kind, path="/v1/recommend", body=with_every_rule(_sequence(rng), rng))  # which may leave fewer songs


def _batch(kind: int, rng: random.Random) -> Request:
    body = {"sequences": [_sequence(rng) for _ in range(BATCH)], "count": COUNT}
    return Request(kind=kind, path="/v1/recommend/batch", body=body, songs=BATCH * COUNT)


def _similar(kind: int, rng: random.Random) -> Request:
    path = f"/v1/songs/{rng.randint(1, N_SONGS)}/similar?count={COUNT}"
    return Request(kind=kind, method="GET", path=path, songs=COUNT)


def _search(kind: int, rng: random.Random) -> Request:
    words = rng.choice([f"song%20{rng.randint(1, N_SONGS)}", f"artist%20{rng.randint(1, 1000)}", "alb", "no%20such%20thing"])
    return Request(kind=kind, method="GET", path=f"/v1/songs?q={words}")


def _playlist(kind: int, rng: random.Random) -> Request:
    body = {"playlist_id": str(rng.randint(1, N_PLAYLISTS)), "count": COUNT}
    return Request(kind=kind, path="/v1/recommend", body=body, statuses=(202,))


def _waited(kind: int, rng: random.Random) -> Request:
    body = {"playlist_id": str(rng.randint(1, N_PLAYLISTS)), "count": COUNT, "wait": True}
    return Request(kind=kind, path="/v1/recommend", body=body, statuses=(200, 202), songs=COUNT)


def _feedback(kind: int, rng: random.Random) -> Request:
    event = rng.choices(["played", "skipped", "liked", "never_again"], [70, 20, 9, 1])[0]
    events = [{"event": event, "song_id": str(rng.randint(1, N_SONGS)), "recommended": rng.random() < 0.5}]
    return Request(kind=kind, path="/v1/feedback", body={"listener": _listener(rng), "events": events})


def _sequence(rng: random.Random) -> list[str]:
    return sequences(N_SONGS, 1, seed=rng.randrange(2**31))[0]


def _listener(rng: random.Random) -> str:
    return f"listener {rng.randint(1, N_LISTENERS)}"


# Kinds of requests, and how many of a hundred are of each.
MIX: Sequence[tuple[str, Callable[[int, random.Random], Request], int]] = (
    ("songs", _songs, 50), ("rules", _rules, 10), ("batch", _batch, 2), ("similar", _similar, 10), ("search", _search, 10),
    ("playlist", _playlist, 8), ("waited", _waited, 2), ("feedback", _feedback, 8),
)  # fmt: skip


def mixed_requests(n: int = N_REQUESTS, seed: int = 3) -> list[Request]:
    """Requests of all kinds in a random order."""
    rng = random.Random(seed)
    kinds = rng.choices(range(len(MIX)), [share for _, _, share in MIX], k=n)
    return [MIX[kind][1](kind, rng) for kind in kinds]


# --- what is seen ------------------------------------------------------------------------------------------------------------


def watch(server: Server, load: RunningLoad, seconds: float) -> list[Moment]:
    """Look at the service's process once a minute, or more often in a short soak, until the load is over or the service ends."""
    pause = min(60.0, seconds / SAMPLES_AT_LEAST)
    began = time.monotonic()
    moments = [Moment(0.0, usage(server.pid))]
    while (left := began + seconds - time.monotonic()) > 0 and is_running(server.pid):
        time.sleep(min(pause, left))
        if not is_running(server.pid):
            load.process.terminate()
            break
        moments.append(Moment(time.monotonic() - began, usage(server.pid)))
        tell(moments[-1], load, pause)
    return moments


def tell(moment: Moment, load: RunningLoad, pause: float) -> None:
    """One line about the last minute."""
    now = time.monotonic()
    records, held = load.so_far().due_within(now - pause, now), moment.usage
    latencies = f"p50 {records.quantile_ms(0.5):.1f} ms, p99 {records.quantile_ms(0.99):.1f} ms"
    print(
        f"soak: {moment.seconds:.0f} s: {held.resident_mb:.1f} MB, {held.threads} threads, {held.files} files; "
        f"{len(records)} answers, {latencies}, {records.failed} failed",
        file=sys.stderr,
        flush=True,
    )


def verdict(loaded: Loaded, moments: Sequence[Moment], seconds: float) -> dict[str, Any]:
    """Failures, latencies, and how memory grew after it had settled."""
    records, settled = loaded.records, [moment for moment in moments if moment.seconds >= SETTLING_SHARE * seconds]
    times = np.array([moment.seconds for moment in settled])
    resident = np.array([moment.usage.resident_mb for moment in settled])
    by_kind = {name: records.of_kind(kind) for kind, (name, _, _) in enumerate(MIX)}
    for name, of_kind in by_kind.items():
        print(
            f"soak: {len(of_kind)} {name}: p50 {of_kind.quantile_ms(0.5):.1f} ms, p99 {of_kind.quantile_ms(0.99):.1f} ms, "
            f"{of_kind.failed} failed",
            file=sys.stderr,
        )
    print(f"soak: the client took {loaded.cpu_share:.0%} of a core; wrong answers: {list(loaded.samples)}", file=sys.stderr)
    return {
        "seconds": round(moments[-1].seconds),
        "requests": len(records),
        "failures": {name: of_kind.failed for name, of_kind in by_kind.items() if of_kind.failed},
        "failed": records.failed,
        "is_whole": moments[-1].seconds >= 0.99 * seconds,  # the service lived to the end
        "p50_ms": round(records.quantile_ms(0.5), 1),
        "p99_ms": round(records.quantile_ms(0.99), 1),
        "resident_mb": [round(float(each), 1) for each in resident[[0, -1]]] if len(resident) else [],
        "slope_mb_per_h": round(slope_per_hour(times, resident), 2),
        "threads": [moment.usage.threads for moment in (moments[0], moments[-1])],
        "files": [moment.usage.files for moment in (moments[0], moments[-1])],
    }


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
