"""Extended streaming history from files to committed rows: plays a second, memory, and what a second run adds.

    python -m benchmarks.imports [--megabytes 200]      (make bench-import)

Writes a look-alike export (made-up listener, songs drawn by Zipf's law, skips, podcasts, nulls) in files of 12 MB, imports an
eighth of it and then the whole, each into an empty database of the embedded server, and then the whole again.  Each import is a
process of its own, whose largest resident size counts: `peak_mb`; of the eighth `peak_mb_eighth`, so that the two show whether
memory grows with the files.  `plays_per_s` counts all records of the files, and the time from the call to the end of the commit.
The last line is one JSON object.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chain import WORK, store
from config import ImportConfig
from errors import exit_code_of
from importers.history import import_history
from importers.spotify import FORMATS
from storage.connections import connect, create_database
from storage.embedded import EmbeddedServer
from storage.migrate import migrate

DATABASE = "benchmark_imports"
FILE_BYTES = 12_000_000
SONGS, ARTISTS, ALBUMS = 25_000, 4_000, 9_000
WORDS = (
    *("amber", "blue", "candle", "distant", "echo", "falling", "glass", "harbour", "iron", "june"),
    *("kite", "lantern", "mirror", "north", "olive", "paper", "quiet", "river", "silver", "tide"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write, import three times, print."""
    parser = argparse.ArgumentParser(description="Plays a second of an import.")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--import", dest="importing", nargs=2, metavar=("PATH", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.importing:
        print(json.dumps(timed_import(Path(arguments.importing[0]), arguments.importing[1])))
        return 0
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(WORK / "imports") as server:
        plays = write_history(Path(folder) / "whole", arguments.megabytes * 1_000_000)
        write_history(Path(folder) / "eighth", arguments.megabytes * 125_000)
        eighth = in_new_database(server, Path(folder) / "eighth", runs=1)
        first, second = in_new_database(server, Path(folder) / "whole", runs=2)
    figures = {
        "plays": plays,
        "plays_per_s": round(plays / first["seconds"]),
        "peak_mb": first["peak_mb"],
        "second_run_added": second["added"],
        "megabytes": arguments.megabytes,
        "peak_mb_eighth": eighth[0]["peak_mb"],
        "added": first["added"],
        "second_run_plays_per_s": round(plays / second["seconds"]),
    }
    store("imports", figures)
    print(json.dumps(figures))
    return 0


def in_new_database(server: EmbeddedServer, path: Path, *, runs: int) -> list[dict[str, Any]]:
    """What each of several imports of the same files into one new database told of itself."""
    drop(server.maintenance_url)
    create_database(server.maintenance_url, DATABASE)
    url = server.database_url(DATABASE)
    with connect(url) as connection:
        migrate(connection)
    command = [sys.executable, "-m", "benchmarks.imports", "--import", str(path), url]
    told = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(runs)]
    drop(server.maintenance_url)
    return [json.loads(text) for text in told]


def drop(maintenance_url: str) -> None:
    """Remove the benchmark's database."""
    with connect(maintenance_url) as administrator:
        administrator.autocommit = True
        administrator.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")


def timed_import(path: Path, url: str) -> dict[str, Any]:
    """Import and commit in this process."""
    began = time.perf_counter()
    with connect(url) as connection:
        tallies = import_history(connection, path, FORMATS, ImportConfig(), progress=False)
        connection.commit()
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"seconds": seconds, "peak_mb": peak_mb, "added": sum(tally.counts["plays"].added for tally in tallies)}


def write_history(folder: Path, n_bytes: int) -> int:
    """Write files of about 12 MB each until there are `n_bytes`; returns how many records they hold."""
    folder.mkdir()
    records = made_up_records(Random(7))
    n_records = written = n_files = 0
    while written < n_bytes:
        name = folder / f"Streaming_History_Audio_{2012 + n_files // 2}_{n_files}.json"
        lines: list[str] = []
        size = 0
        while size < min(FILE_BYTES, n_bytes - written):
            lines.append(json.dumps(next(records)))
            size += len(lines[-1])
        name.write_text("[" + ",".join(lines) + "]", encoding="utf-8")
        n_records, written, n_files = n_records + len(lines), written + size, n_files + 1
    return n_records


def made_up_records(random: Random) -> Iterator[dict[str, Any]]:
    """Plays one after another, with the fields that an export has."""
    at = datetime(2012, 1, 1, tzinfo=UTC)
    while True:
        song = min(int(SONGS * random.paretovariate(0.9) / 400), SONGS - 1)
        is_skip, is_podcast = random.random() < 0.2, random.random() < 0.02
        ms_played = random.randrange(500, 25_000) if is_skip else random.randrange(120_000, 300_000)
        at += timedelta(milliseconds=ms_played + (random.randrange(3 * 10**7) if random.random() < 0.05 else 0))
        yield {
            "ts": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "platform": "android",
            "ms_played": ms_played,
            "conn_country": "XX",
            "ip_addr": "203.0.113.7",
            "master_metadata_track_name": None if is_podcast else title_of(song),
            "master_metadata_album_artist_name": None if is_podcast else f"The {title_of(song % ARTISTS + 31)}",
            "master_metadata_album_album_name": None if is_podcast else title_of(song % ALBUMS + 77),
            "spotify_track_uri": None if is_podcast else f"spotify:track:{song:022d}",
            "episode_name": "An episode" if is_podcast else None,
            "episode_show_name": "A podcast" if is_podcast else None,
            "spotify_episode_uri": f"spotify:episode:{song:022d}" if is_podcast else None,
            "audiobook_title": None,
            "audiobook_uri": None,
            "audiobook_chapter_uri": None,
            "audiobook_chapter_title": None,
            "reason_start": "trackdone",
            "reason_end": "fwdbtn" if is_skip else "trackdone",
            "shuffle": random.random() < 0.5,
            "skipped": is_skip if random.random() < 0.9 else None,
            "offline": False,
            "offline_timestamp": None,
            "incognito_mode": random.random() < 0.01,
        }


def title_of(number: int) -> str:
    """Three words, other ones for each number below 8,000, and the number."""
    n = len(WORDS)
    return f"{WORDS[number % n]} {WORDS[number // n % n]} {WORDS[number // n // n % n]} {number}".title()


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
