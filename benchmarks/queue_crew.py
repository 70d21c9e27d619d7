"""What the benchmark of the queue and its short form in the tests share: workers that are killed, clients that keep asking.

Workers are processes of their own, forked by a server that has imported everything, so that a killed one is replaced within
milliseconds.  Clients note each number that they were given after its commit; `judge` then looks at what became of them.
"""

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import numpy as np
import psycopg
from psycopg import sql

from config import Config, ServiceConfig
from errors import DatabaseError
from jobs.process import stopped_by_signals
from jobs.worker import Worker
from serving.answers import Answer, ModelInfo, PreparedQuery, Query, RecommendedSong
from serving.controls import Controls, Rules
from serving.eligible import Eligible
from serving.live import LiveRecommender
from serving.reasons import KnownSongs
from serving.recommender import Recommender, Stage, untimed
from storage.connections import Connection, connect, create_database
from storage.embedded import EmbeddedServer
from storage.migrate import migrate
from storage.requests import add_request, listen

STUB_COUNT = 10  # songs in an answer of the stub
N_PLAYLISTS, SONGS_PER_PLAYLIST = 5_000, 20
PATIENCE_SECONDS = 120.0

# Playlists to ask for, and a note of each time that a request was ended, which nothing in the queue itself keeps.
WORLD = f"""
INSERT INTO music.song (song_id) SELECT n::text FROM generate_series(1, 1000) AS n;
INSERT INTO music.playlist (playlist_id) SELECT n::text FROM generate_series(1, {N_PLAYLISTS}) AS n;
INSERT INTO music.playlist_song (playlist_id, position, song_id)
SELECT n::text, place, (1 + (n * 31 + place * 17) % 1000)::text
FROM generate_series(1, {N_PLAYLISTS}) AS n, generate_series(1, {SONGS_PER_PLAYLIST}) AS place;
CREATE SCHEMA benchmark;
CREATE TABLE benchmark.ended (request_id bigint NOT NULL, state text NOT NULL);
CREATE FUNCTION benchmark.note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO benchmark.ended (request_id, state) VALUES (NEW.request_id, NEW.state);
    RETURN NULL;
END $$;
"""
WATCH = """
CREATE TRIGGER note_end AFTER UPDATE OF state ON recommender.request
FOR EACH ROW WHEN (NEW.state IN ('done', 'failed')) EXECUTE FUNCTION benchmark.note_end();
"""
# Through the same index as a claim.
TAKE_ALL = """
DELETE FROM recommender.request
WHERE request_id = ANY(ARRAY(
    SELECT request_id
    FROM recommender.request
    WHERE state = 'queued' AND not_before <= statement_timestamp()
    ORDER BY priority DESC, not_before, request_id
    FOR UPDATE SKIP LOCKED
))
"""
# Of the acknowledged numbers: which have no answer, which were ended more than once; of all: whose songs are not one whole list.
JUDGE = """
WITH asked AS (
    SELECT unnest(%(asked)s::bigint[]) AS request_id
), list AS (
    SELECT request_id, count(*) AS songs, max(rank) AS last, count(DISTINCT created_at) AS written
    FROM recommender.recommendation
    GROUP BY request_id
)
SELECT
    (
        SELECT count(*) FROM asked
        WHERE NOT EXISTS (
            SELECT FROM recommender.request WHERE request.request_id = asked.request_id AND request.state = 'done'
        )
    ) AS lost,
    (
        SELECT count(*) FROM (SELECT FROM benchmark.ended GROUP BY request_id HAVING count(*) > 1) AS again
    ) AS doubled,
    (
        SELECT count(*)
        FROM recommender.request
        FULL JOIN list USING (request_id)
        WHERE (request.state = 'done') IS DISTINCT FROM (list.songs = %(count)s AND list.last = %(count)s AND list.written = 1)
            AND NOT (request.state <> 'done' AND list.songs IS NULL)
    ) AS torn,
    (SELECT count(*) FROM recommender.request WHERE attempts > 1) AS retried
"""

log = logging.getLogger(__name__)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["benchmarks.queue_crew"])


class StubRecommender:
    """Knows every song and always recommends the same ones: what is left is the queue."""

    def __init__(self) -> None:
        self.info = ModelInfo(
            model_id="stub",
            trained_at=datetime(2026, 1, 1, tzinfo=UTC),
            path=Path("stub"),
            encoders_digest="",
            snapshot_digest="",
            settings={},
            metrics={},
        )
        songs = tuple(
            RecommendedSong(song_id=f"stub {rank}", rank=rank, score=1 / rank, reasons=()) for rank in range(1, STUB_COUNT + 1)
        )
        self._answer = Answer(songs=songs, unknown=(), model=self.info)
        self._rules = Rules.of(Controls(), ServiceConfig())

    def prepare(self, query: Query) -> PreparedQuery:
        """Take any sequence."""
        numbers = np.zeros(len(query.songs), np.int64)
        known = KnownSongs(numbers=numbers, ids=tuple(query.songs))
        return PreparedQuery(
            sequence=known,
            unknown=(),
            eligible=Eligible(hard=None, excluded=numbers),
            applied=(),
            rules=self._rules,
            seed=0,
            fallback=None,
            unavailable=(),
            explain=False,
        )

    def answer(self, queries: Sequence[PreparedQuery], stage: Stage = untimed) -> list[Answer]:
        """The same songs for each."""
        return [self._answer] * len(queries)


def work(url: str, settings: ServiceConfig) -> None:
    """The life of a stub worker's process: until SIGTERM."""
    logging.disable(logging.ERROR)
    stub = cast(Recommender, StubRecommender())
    with stopped_by_signals() as stop:
        Worker(url, live=LiveRecommender(stub), config=Config(service=settings)).run(stop)


@dataclass(kw_only=True)
class Crew:
    """Stub workers in processes of their own."""

    url: str
    settings: ServiceConfig
    size: int = 2
    kills: int = 0
    _processes: list[BaseProcess] = field(default_factory=list)

    def __enter__(self) -> "Crew":
        self._processes = [self._start() for _ in range(self.size)]
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(PATIENCE_SECONDS)

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL a worker, whatever it is doing, and put another one in its place."""
        place = rng.randrange(self.size)
        victim = self._processes[place]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        self.kills += 1
        self._processes[place] = self._start()

    def _start(self) -> BaseProcess:
        process = _context.Process(target=work, args=[self.url, self.settings], daemon=True)
        process.start()
        return process


@dataclass(kw_only=True)
class Clients:
    """Threads that ask for playlists at random and note the numbers that they were given after the commit."""

    url: str
    threads: int = 4
    pause_seconds: float = 0.0
    seed: int = 0
    acknowledged: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator["Clients"]:
        """Ask while this is held."""
        threads = [threading.Thread(target=self._ask, args=[random.Random(self.seed + n)]) for n in range(self.threads)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, rng: random.Random) -> None:
        """Keep asking, with a new connection whenever the old one is lost."""
        while not self._stop.is_set():
            with suppress(psycopg.OperationalError, DatabaseError), connect(self.url) as connection:
                while not self._stop.is_set():
                    request_id = add_request(connection, str(rng.randint(1, N_PLAYLISTS)))
                    connection.commit()
                    self.acknowledged.add(request_id)  # from here on it must not be lost
                    self._stop.wait(self.pause_seconds)
            self._stop.wait(0.05)


class EmptiedQueue:
    """A session that takes whatever waits, at once and over and over, and one that counts what LISTEN hears meanwhile.

    Workers that answer fall behind as many clients; then something always waits, and asking hardly ever sends a NOTIFY.
    """

    def __init__(self, url: str) -> None:
        self.taken = 0
        """Requests so far."""
        self.heard = 0
        """Notifications so far."""
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._take), threading.Thread(target=self._hear)]
        self._ready = threading.Barrier(1 + len(self._threads))

    def __enter__(self) -> "EmptiedQueue":
        for thread in self._threads:
            thread.start()
        self._ready.wait(PATIENCE_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _take(self) -> None:
        with connect(self._url) as connection:
            connection.autocommit = True
            connection.execute("SET synchronous_commit = off")  # as quick as can be: these commits are not what is measured
            self._ready.wait(PATIENCE_SECONDS)
            while not self._stop.is_set():
                self.taken += connection.execute(TAKE_ALL).rowcount

    def _hear(self) -> None:
        with connect(self._url) as connection:
            connection.autocommit = True
            listen(connection)
            self._ready.wait(PATIENCE_SECONDS)
            while not self._stop.is_set():
                self.heard += sum(1 for _ in connection.notifies(timeout=0.1))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the requests."""

    requests: int
    kills: int
    lost: int
    """Acknowledged and not answered."""
    doubled: int
    """Ended more than once."""
    torn: int
    """Answered without songs, with songs from two answers or with gaps, or with songs though not answered."""
    retried: int
    """Claimed more than once.  Without any, no kill met a worker at work, and the other numbers say nothing."""


def make_world(connection: Connection, *, watched: bool) -> None:
    """Playlists to ask for; `watched` notes each end of a request."""
    connection.execute(WORLD)
    if watched:
        connection.execute(WATCH)
    connection.commit()
    connection.autocommit = True
    connection.execute("ANALYZE")


def judge(connection: Connection, acknowledged: set[int], kills: int) -> Verdict:
    """Count what went wrong."""
    parameters = {"asked": sorted(acknowledged), "count": STUB_COUNT}
    row = connection.execute(JUDGE, parameters).fetchone()
    assert row is not None
    return Verdict(requests=len(acknowledged), kills=kills, lost=row[0], doubled=row[1], torn=row[2], retried=row[3])


def kill_workers(url: str, *, kills: int, requests: int, seed: int = 0) -> Verdict:
    """SIGKILL workers at random moments while clients keep asking, until both numbers are reached and the queue is empty.

    Between two kills somebody has claimed: workers that are killed while they start would prove nothing.
    """
    rng = random.Random(seed)
    settings = ServiceConfig(lease_seconds=1.0, max_attempts=50)
    clients = Clients(url=url, pause_seconds=0.002, seed=seed)
    with connect(url) as connection, Crew(url=url, settings=settings) as crew:
        make_world(connection, watched=True)
        claims = claims_made(connection)
        with clients.asking():
            while crew.kills < kills or len(clients.acknowledged) < requests:
                time.sleep(rng.uniform(0.05, 0.4))
                if crew.kills < kills and claims_made(connection) > claims:
                    claims = claims_made(connection)
                    crew.kill_one(rng)
        wait_until_empty(connection)
        return judge(connection, clients.acknowledged, crew.kills)


def kill_postmaster(local_folder: Path, database: str, *, kills: int, requests: int, seed: int = 0) -> Verdict:
    """SIGKILL the postmaster of an embedded server of its own and bring it back, while clients and workers go on."""
    rng = random.Random(seed)
    with EmbeddedServer(local_folder) as server:
        url = fresh_database(server, database)
        with connect(url) as connection:
            make_world(connection, watched=True)
            row = connection.execute("SHOW data_directory").fetchone()
            assert row is not None
        clients = Clients(url=url, pause_seconds=0.002, seed=seed)
        with Crew(url=url, settings=ServiceConfig(lease_seconds=2.0, max_attempts=50)):
            with clients.asking():
                for _ in range(kills):
                    wanted = len(clients.acknowledged) + max(1, requests // kills)
                    while len(clients.acknowledged) < wanted:
                        time.sleep(rng.uniform(0.05, 0.3))
                    os.kill(int((Path(row[0]) / "postmaster.pid").read_text(encoding="ascii").split()[0]), signal.SIGKILL)
                    with EmbeddedServer(local_folder):  # starts what does not run; the outer one keeps it running
                        assert server.database_url(database) == url
            with connect(url) as connection:
                connection.autocommit = True
                wait_until_empty(connection)
                return judge(connection, clients.acknowledged, kills)


def fresh_database(server: EmbeddedServer, name: str) -> str:
    """The URL of a migrated database without rows; an earlier one of that name is dropped."""
    with connect(server.maintenance_url) as connection:
        connection.autocommit = True
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    create_database(server.maintenance_url, name)
    with connect(server.database_url(name)) as connection:
        migrate(connection)
    return server.database_url(name)


def wait_until_empty(connection: Connection) -> None:
    """Stay until nothing waits or runs, on a connection with autocommit.  Raises TimeoutError after PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while open_requests(connection):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{open_requests(connection)} requests are still open after {PATIENCE_SECONDS:g} s")
        time.sleep(0.005)


def claims_made(connection: Connection) -> int:
    """The number of the latest claim; 1 before the first."""
    row = connection.execute("SELECT last_value FROM recommender.fence").fetchone()
    assert row is not None
    return int(row[0])


def open_requests(connection: Connection) -> int:
    """How many wait or run; stops counting at 100."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM recommender.request WHERE state IN ('queued', 'running') LIMIT 100) AS open"
    ).fetchone()
    assert row is not None
    return int(row[0])
