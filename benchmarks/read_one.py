"""One playlist out of 2 million rows, read through sequence_by_id.sql as `cli.py map` writes it, by the restricted role.

    python -m benchmarks.read_one

Makes a database of its own on the embedded server and drops it.  The last line is one JSON object; `cast_ms` is the median of
the same question with the key cast to text, which no index fits.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np

import map_tables
from benchmarks.chain import WORK, store
from errors import exit_code_of
from storage.connections import Connection, connect, create_database
from storage.embedded import EmbeddedServer
from storage.named import as_statement
from storage.source import sequence_by_id

DATABASE, ROLE = "benchmark_read_one", "benchmark_read_one"
SONGS_PER_LIST = 25
TABLES = """
CREATE TABLE songs (id uuid PRIMARY KEY, title text);
CREATE TABLE playlists (id uuid PRIMARY KEY);
CREATE TABLE playlist_songs (playlist_id uuid, song_id uuid, position integer, PRIMARY KEY (playlist_id, position));
INSERT INTO songs SELECT md5('song' || n)::uuid, 'Song ' || n FROM generate_series(0, 99999) AS n;
INSERT INTO playlists SELECT md5('list' || n)::uuid FROM generate_series(0, {lists} - 1) AS n;
INSERT INTO playlist_songs
SELECT md5('list' || n / {per_list})::uuid, md5('song' || (n * 7919::bigint) % 100000)::uuid, n % {per_list}
FROM generate_series(0, {rows} - 1) AS n ORDER BY md5(n::text);
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Fill, map, set up, measure, drop."""
    parser = argparse.ArgumentParser(description="One playlist out of many rows, by its id.")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--reads", type=int, default=2_000)
    arguments = parser.parse_args(argv)
    with EmbeddedServer(WORK / "read_one") as server, tempfile.TemporaryDirectory() as folder:
        create_database(server.maintenance_url, DATABASE)
        url = server.database_url(DATABASE)
        try:
            figures = measure(url, Path(folder), arguments.rows, arguments.reads)
        finally:
            drop(server.maintenance_url)
    store("read_one", figures)
    print(json.dumps(figures))
    return 0


def measure(url: str, folder: Path, rows: int, reads: int) -> dict[str, float]:
    """Milliseconds of one read, from the call to the list of ids."""
    fill(url, rows)
    with contextlib.redirect_stdout(io.StringIO()):
        map_tables.main(["--dsn", url, "--out", str(folder), "--role", ROLE])
    with connect(url) as owner:
        owner.execute(as_statement((folder / "setup.sql").read_text(encoding="utf-8")))
    with connect(f"{url}&options=-c%20role%3D{ROLE}") as connection:
        lists = ids(connection, rows // SONGS_PER_LIST, reads)
        milliseconds = [timed(lambda one=one: sequence_by_id(connection, folder, one)) for one in lists]  # type: ignore[misc]
        cast = [timed(lambda one=one: read_cast(connection, one)) for one in lists[:5]]  # type: ignore[misc]
    with connect(url) as owner:
        owner.execute(as_statement((folder / "uninstall.sql").read_text(encoding="utf-8")))
    return {
        "rows": rows,
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
        "cast_ms": round(statistics.median(cast), 1),
    }


def fill(url: str, rows: int) -> None:
    text = TABLES.format(rows=rows, lists=rows // SONGS_PER_LIST, per_list=SONGS_PER_LIST)
    with connect(url) as connection:
        connection.execute(as_statement(text))
    with connect(url) as connection:  # what autovacuum and the next checkpoint would do meanwhile, so that they do not do it now
        connection.autocommit = True
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def ids(connection: Connection, n_lists: int, reads: int) -> list[str]:
    """The ids of lists at random, known without asking for them in the measured time."""
    chosen = Random(0).choices(range(n_lists), k=reads)
    query = "SELECT md5('list' || n)::uuid::text FROM unnest(%s::bigint[]) AS n"
    return [one for (one,) in connection.execute(query, [chosen]).fetchall()]


def read_cast(connection: Connection, one: str) -> None:
    query = "SELECT song_id FROM playlist_songs WHERE playlist_id::text = %s ORDER BY position"
    assert len(connection.execute(query, [one]).fetchall()) == SONGS_PER_LIST


def timed(read: Callable[[], object]) -> float:
    started = time.perf_counter()
    read()
    return 1000 * (time.perf_counter() - started)


def drop(maintenance_url: str) -> None:
    with connect(maintenance_url) as administrator:
        administrator.autocommit = True
        administrator.execute(as_statement(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
