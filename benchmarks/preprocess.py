"""Preprocessing against its floor: the very same streams from the database, read and thrown away.

    python -m benchmarks.preprocess [--rows 1000000 5000000 20000000]      (make bench-preprocess)
    python -m benchmarks.preprocess --tables music                          the schema music with its own queries: text ids, joins
    python -m benchmarks.preprocess --incremental                           and a second run after 1 % more rows

Rows are made in the embedded server by SQL: lists of 20 songs, a hundredth as many songs as rows (a million at most), a tenth of
the songs with nearly half of the plays, times known.  With `--tables own` they stand in two tables with bigint keys, read in the
order of an index: the fastest that a source can be, and so the hardest to keep up with.  What is measured is the whole of
`preprocess`: contract, mark, reading, splitting, encoding, writing, digests.  Each measurement is a process of its own, floor and
preprocessing in turn; ratios are between neighbours, and the median counts.  On a machine that others work on, too, compare the
CPU seconds, of the process and the server together.

`peak_mb` is the largest resident size of the process (VmHWM); beside it stands what of that is no file (RssAnon, sampled): the
rest are libraries and the memory-mapped rows, which the system takes back when it needs the room.
The last line is one JSON object, for 5 million rows where they are among the sizes, else for the largest.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chain import WORK, store
from config import PROJECT_ROOT, Config, DatabaseConfig, PreprocessingConfig
from errors import exit_code_of
from preprocessing import preprocess
from storage.connections import connect, create_database
from storage.embedded import EmbeddedServer
from storage.migrate import migrate
from storage.named import as_statement
from storage.places import find_place
from storage.source import stream_sequences, stream_songs

FOLDER = WORK / "preprocess"
DEFAULT_ROWS = (1_000_000, 5_000_000, 20_000_000)
JSON_ROWS = 5_000_000
SONGS_PER_LIST = 20
MOST_SONGS = 1_000_000
SECONDS_BETWEEN_SAMPLES = 0.02

# For making rows quickly; what is read afterwards is read as from any other server.
SETTINGS = {"fsync": "off", "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "4GB"}

OWN_QUERIES = {
    "songs": "SELECT song_id, artist_id, album_id, title, tempo, energy, loudness, danceability, valence, duration_ms, mode, "
    "key, time_signature FROM song ORDER BY song_id",
    "sequences": "SELECT playlist_id AS sequence_id, song_id, position, added_at AS listened_at FROM playlist_song "
    "ORDER BY playlist_id, position",
    "songs_by_id": "SELECT song_id FROM song WHERE song_id = ANY(%(song_ids)s::bigint[])",
    "sequence_by_id": "SELECT song_id FROM playlist_song WHERE playlist_id = %(sequence_id)s ORDER BY position",
}

FEATURES = """60 + random() * 120 AS tempo, random() AS energy, -30 * random() AS loudness, random() AS danceability,
    random() AS valence, 100000 + (random() * 200000)::integer AS duration_ms"""

OWN_SONGS = f"""
CREATE TABLE song AS SELECT n AS song_id, n / 10 AS artist_id, n / 5 AS album_id, 'song ' || n AS title, {FEATURES},
    (mod(n, 2) = 0) AS mode, (mod(n, 12))::integer AS key, (3 + mod(n, 2))::integer AS time_signature
FROM generate_series(1::bigint, %(songs)s) AS n;
ALTER TABLE song ADD PRIMARY KEY (song_id);
CREATE TABLE playlist_song (
    playlist_id bigint NOT NULL, position integer NOT NULL, song_id bigint NOT NULL, added_at timestamptz NOT NULL
);
"""
OWN_ROWS = """
INSERT INTO playlist_song (playlist_id, position, song_id, added_at)
SELECT list, place, 1 + floor(%(songs)s * power(random(), 3))::bigint,
    '2015-01-01Z'::timestamptz + list * INTERVAL '10 s' + place * INTERVAL '0.1 s'
FROM generate_series(%(first)s::bigint, %(last)s) AS list, generate_series(0, 19) AS place;
"""
OWN_INDEX = "ALTER TABLE playlist_song ADD PRIMARY KEY (playlist_id, position);"

MUSIC_SONGS = f"""
SET LOCAL session_replication_role = replica;
INSERT INTO music.artist (artist_id, name) SELECT 'artist' || n, 'Artist ' || n FROM generate_series(0, %(songs)s / 10) AS n;
INSERT INTO music.album (album_id, title) SELECT 'album' || n, 'Album ' || n FROM generate_series(0, %(songs)s / 5) AS n;
INSERT INTO music.song (song_id, title, artist_id, album_id, mode, key, time_signature,
    tempo, energy, loudness, danceability, valence, duration_ms)
SELECT 'song' || n, 'Song ' || n, 'artist' || n / 10, 'album' || n / 5, mod(n, 2), mod(n, 12), 3 + mod(n, 2), {FEATURES}
FROM generate_series(1, %(songs)s) AS n;
"""
MUSIC_ROWS = """
SET LOCAL session_replication_role = replica;
INSERT INTO music.playlist (playlist_id, created_at)
SELECT 'list' || list, '2015-01-01Z'::timestamptz + list * INTERVAL '10 s'
FROM generate_series(%(first)s::bigint, %(last)s) AS list;
INSERT INTO music.playlist_song (playlist_id, position, song_id)
SELECT 'list' || list, place, 'song' || 1 + floor(%(songs)s * power(random(), 3))::bigint
FROM generate_series(%(first)s::bigint, %(last)s) AS list, generate_series(0, 19) AS place;
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Make rows, measure in turn, print."""
    arguments = _parser().parse_args(argv)
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](arguments.url, arguments.tables, arguments.folder)))
        return 0
    results = []
    try:
        with EmbeddedServer(FOLDER, settings=SETTINGS) as server:
            for rows in arguments.rows:
                results.append(measured(server, arguments.tables, rows, arguments.repeats, incremental=arguments.incremental))
                store("preprocess", results[-1])
    finally:
        shutil.rmtree(FOLDER / "work", ignore_errors=True)
    print(table(results))
    chosen = next((result for result in results if result["rows"] == JSON_ROWS), max(results, key=lambda result: result["rows"]))
    print(json.dumps({name: chosen[name] for name in ("rows", "rows_per_s", "peak_mb", "vs_floor")}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Rows a second and memory of preprocessing, and how far it is from the floor.")
    parser.add_argument("--rows", type=int, nargs="+", default=list(DEFAULT_ROWS))
    parser.add_argument("--tables", choices=("own", "music"), default="own")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--incremental", action="store_true", help="also a second run after 1 %% more rows")
    parser.add_argument("--measure", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


# --- rows --------------------------------------------------------------------------------------------------------------------


@contextmanager
def made_rows(server: EmbeddedServer, tables: str, rows: int) -> Iterator[str]:
    """The URL of a database with that many rows, gone afterwards."""
    database = f"benchmark_preprocess_{tables}_{rows}"
    drop(server, database)
    create_database(server.maintenance_url, database)
    url = server.database_url(database)
    print(f"{rows} rows: making them ...", file=sys.stderr, flush=True)
    try:
        if tables == "music":
            with connect(url) as connection:
                migrate(connection)
        execute(url, OWN_SONGS if tables == "own" else MUSIC_SONGS, songs=n_songs(rows))
        add_lists(url, tables, rows, 1, rows // SONGS_PER_LIST)
        if tables == "own":
            execute(url, OWN_INDEX)
        vacuum(url)
        yield url
    finally:
        drop(server, database)


def n_songs(rows: int) -> int:
    return max(100, min(rows // 100, MOST_SONGS))


def add_lists(url: str, tables: str, rows: int, first: int, last: int) -> None:
    """Add the lists with these numbers, of songs as there are with so many rows."""
    execute(url, OWN_ROWS if tables == "own" else MUSIC_ROWS, songs=n_songs(rows), first=first, last=last)


def execute(url: str, statements: str, **values: int) -> None:
    """Run statements in one transaction, each with the values that it names."""
    with connect(url) as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.execute(as_statement(statement % {name: str(value) for name, value in values.items()}))


def vacuum(url: str) -> None:
    with connect(url) as connection:
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")


def drop(server: EmbeddedServer, database: str) -> None:
    with connect(server.maintenance_url) as connection:
        connection.autocommit = True
        connection.execute(as_statement(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)"))


# --- measure -----------------------------------------------------------------------------------------------------------------


def measured(server: EmbeddedServer, tables: str, rows: int, repeats: int, *, incremental: bool) -> dict[str, Any]:
    """All figures of one size."""
    work = FOLDER / "work" / f"{tables}_{rows}"
    with made_rows(server, tables, rows) as url:
        pairs = [[in_own_process(measure, url, tables, work) for measure in ("floor", "full")] for _ in range(repeats)]
        floors, fulls = zip(*pairs, strict=True)
        seconds = median(full["seconds"] for full in fulls)
        result = {
            "tables": tables,
            "rows": rows,
            "songs": n_songs(rows),
            "rows_per_s": round(rows / seconds),
            "seconds": round(seconds, 2),
            "floor_seconds": round(median(floor["seconds"] for floor in floors), 2),
            "vs_floor": round(median(full["seconds"] / floor["seconds"] for floor, full in pairs), 2),
            "vs_floor_all": [round(full["seconds"] / floor["seconds"], 2) for floor, full in pairs],
            "cpu_seconds": round(median(full["cpu_seconds"] for full in fulls), 2),
            "cpu_vs_floor": round(median(full["cpu_seconds"] / floor["cpu_seconds"] for floor, full in pairs), 2),
            "peak_mb": max(full["peak_mb"] for full in fulls),
            "anonymous_mb": max(full["anonymous_mb"] for full in fulls),
            "floor_peak_mb": max(floor["peak_mb"] for floor in floors),
        }
        return result | (in_increments(url, tables, rows, repeats, work) if incremental else {})


def in_increments(url: str, tables: str, rows: int, repeats: int, work: Path) -> dict[str, Any]:
    """A second run after 1 % more rows, in turn with a full run of the same rows."""
    before, n_lists = work.with_name(f"{work.name}_before"), rows // SONGS_PER_LIST
    shutil.copytree(work, before)
    add_lists(url, tables, rows, n_lists + 1, n_lists + n_lists // 100)
    ratios, seconds = [], []
    for _ in range(repeats):
        shutil.rmtree(work)
        shutil.copytree(before, work)
        second = in_own_process("incremental", url, tables, work)
        full = in_own_process("full", url, tables, work)
        ratios.append(second["seconds"] / full["seconds"])
        seconds.append(second["seconds"])
    return {"incremental_seconds": round(median(seconds), 2), "incremental_vs_full": round(median(ratios), 2)}


def in_own_process(measure: str, url: str, tables: str, folder: Path) -> dict[str, Any]:
    """What one measurement told of itself, with what the server did for it."""
    server_before = server_cpu_seconds()
    command = [sys.executable, "-m", "benchmarks.preprocess", "--measure", measure, "--url", url, "--tables", tables]
    told = subprocess.run(
        [*command, "--folder", str(folder)], cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    figures: dict[str, Any] = json.loads(told)
    figures["cpu_seconds"] = round(figures["cpu_seconds"] + server_cpu_seconds() - server_before, 2)
    print(f"  {measure}: {figures}", file=sys.stderr, flush=True)
    return figures


def measure_floor(url: str, tables: str, folder: Path) -> dict[str, Any]:
    """Read both queries as they are written and throw the batches away."""
    queries = queries_folder(tables, folder)

    def read() -> None:
        for stream in (stream_songs, stream_sequences):
            for _ in stream(url, queries):
                pass

    return timed(read)


def measure_full(url: str, tables: str, folder: Path) -> dict[str, Any]:
    """All of preprocessing, songs numbered afresh."""
    config = configured(tables, folder)
    return timed(lambda: preprocess(config, url, progress=False, full=True))


def measure_incremental(url: str, tables: str, folder: Path) -> dict[str, Any]:
    """All of preprocessing, what is there built upon."""
    config = configured(tables, folder)
    return timed(lambda: preprocess(config, url, progress=False))


MEASURES: dict[str, Callable[[str, str, Path], dict[str, Any]]] = {
    "floor": measure_floor,
    "full": measure_full,
    "incremental": measure_incremental,
}


def configured(tables: str, folder: Path) -> Config:
    return Config(
        database=DatabaseConfig(queries_folder=queries_folder(tables, folder)),
        preprocessing=PreprocessingConfig(encoders_folder=folder / "encoders", snapshot=folder / "snapshot"),
    )


def queries_folder(tables: str, folder: Path) -> Path:
    """The folder of the query files; those of our own tables are written first."""
    if tables == "music":
        return DatabaseConfig().queries_folder
    (folder / "queries").mkdir(parents=True, exist_ok=True)
    for name, query in OWN_QUERIES.items():
        (folder / "queries" / f"{name}.sql").write_text(f"{query};\n", encoding="utf-8")
    return folder / "queries"


def timed(run: Callable[[], object]) -> dict[str, Any]:
    """Seconds and memory of this process while something runs."""
    largest, is_over = [0], threading.Event()

    def sample() -> None:
        while not is_over.wait(SECONDS_BETWEEN_SAMPLES):
            largest[0] = max(largest[0], status_kb("RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    started, cpu_before = time.monotonic(), time.process_time()
    run()
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_before
    is_over.set()
    sampler.join()
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": cpu_seconds,
        "peak_mb": round(status_kb("VmHWM") * 1024 / 1e6),
        "anonymous_mb": round(largest[0] * 1024 / 1e6),
    }


def server_cpu_seconds() -> float:
    """What the server has worked so far: itself, and those of its processes that have ended, as those of closed connections."""
    pid = (find_place(FOLDER).home / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def status_kb(name: str) -> int:
    """A figure of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


# --- print -------------------------------------------------------------------------------------------------------------------


def table(results: Sequence[dict[str, Any]]) -> str:
    """One line a size."""
    lines = [
        f"{'rows':>12} {'songs':>10} {'rows/s':>10} {'seconds':>8} {'floor':>7} {'ratio':>6} {'peak MB':>8} {'not files':>9}"
    ]
    for one in results:
        lines.append(
            f"{one['rows']:>12,} {one['songs']:>10,} {one['rows_per_s']:>10,} {one['seconds']:>8} {one['floor_seconds']:>7} "
            f"{one['vs_floor']:>6} {one['cpu_vs_floor']:>6} {one['peak_mb']:>8,} {one['anonymous_mb']:>9,}"
        )
        if "incremental_vs_full" in one:
            lines.append(
                f"{'':>12} after 1 % more rows: {one['incremental_seconds']} s, {one['incremental_vs_full']} of a full run"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
