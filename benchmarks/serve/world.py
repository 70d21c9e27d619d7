"""What the parts of the benchmark ask for, and the database that the service stands on meanwhile."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.queue_crew import fresh_database
from benchmarks.serve.client import Request
from benchmarks.serve.processes import FOLDER
from benchmarks.untrained import copy_songs, random_songs, untrained_run
from storage.connections import connect
from storage.embedded import EmbeddedServer

RECOMMEND = "/recommend"
SEQUENCE_SONGS, COUNT = 20, 10
N_SEQUENCES = 500
CONNECTIONS = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything."""

    songs: int
    large_songs: int
    seconds: float  # of one measurement
    rounds: int
    swaps: int
    trigger: str  # what makes the service swap: newest (a newer run), activation (POST /v1/models/ID/activate)


def run_of(n_songs: int, seed: int = 0) -> Path:
    """The run over a catalogue of that size, made where it is not there yet."""
    return untrained_run(FOLDER / f"untrained-{n_songs}-{seed}", n_songs, seed=seed)


@contextmanager
def catalogue_database(n_songs: int) -> Iterator[str]:
    """The URL of a migrated database that holds the songs of `run_of(n_songs)`, with names, on a server of its own."""
    with EmbeddedServer(FOLDER) as server:
        url = fresh_database(server, f"songs_{n_songs}")
        with connect(url) as connection:
            copy_songs(connection, random_songs(n_songs))
        with connect(url) as connection:
            connection.autocommit = True
            connection.execute("ANALYZE")
        yield url


def sequences(n_songs: int, n: int = N_SEQUENCES, *, seed: int = 0) -> list[list[str]]:
    """Sequences of 20 different songs; well-known songs stand in more of them than others."""
    rng = random.Random(seed)
    return [_sequence(rng, n_songs) for _ in range(n)]


def _sequence(rng: random.Random, n_songs: int) -> list[str]:
    songs: dict[str, None] = {}
    while len(songs) < SEQUENCE_SONGS:
        songs[str(1 + int(n_songs * rng.random() ** 2))] = None
    return list(songs)


def plain_requests(n_songs: int) -> list[Request]:
    """Sequences to continue by ten songs, with the rules that the service has by itself."""
    bodies = [{"songs": songs, "count": COUNT} for songs in sequences(n_songs)]
    return [Request(path=RECOMMEND, body=body, songs=COUNT) for body in bodies]


def with_every_rule(songs: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """A body with every control that needs no listener and no file, each with a value that has something to do."""
    tempo, minutes = rng.uniform(70, 130), rng.uniform(2, 4)
    return {
        "songs": songs,
        "count": COUNT,
        "exclude": [str(number) for number in rng.sample(range(1, 200), 20)],
        "max_per_artist": rng.choice([1, 2]),
        "artist_spacing": rng.choice([1, 3]),
        "one_per_recording": True,
        "discovery": round(rng.random(), 2),
        "temperature": rng.choice([0.5, 1.0]),
        "seed": rng.randrange(2**31),
        "ranges": {
            "tempo": {"min": round(tempo, 1), "max": round(tempo + 50, 1)},
            "energy": {"min": 0.1, "max": 0.9},
            "duration_ms": {"min": round(60_000 * minutes), "max": round(60_000 * (minutes + 3))},
        },
        "allow_explicit": False,
        "order": "flow",
        "min_confidence": rng.choice([1e-9, 1e-7]),
    }


def without_rules(songs: Sequence[str]) -> dict[str, Any]:
    """A body that turns off what would keep a song out, but for the songs of the sequence itself."""
    off = {"max_per_artist": 0, "artist_spacing": 0, "one_per_recording": False}
    return {"songs": songs, "count": COUNT, **off}
