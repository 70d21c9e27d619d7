"""Features out of one's own audio files: tempo, key, mode, loudness and energy for songs that have none of any source.

    python cli.py import m3u ~/Music/lists                 songs whose files are known
    python -m pip install -r requirements-audio.txt        once: the optional packages
    python cli.py features                                 goes on where an earlier run was interrupted

What the numbers mean is told in importers/audio.py.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

import system
from errors import DataError
from importers.audio import FEATURE_SOURCE
from importers.audio_workers import Analysts, require_packages
from importers.records import Features
from importers.tally import Count, Tally
from options import add_arguments, config_from_arguments
from storage import features
from storage.connections import Connection, connect, database_url, expected_errors
from storage.features import SongFile
from storage.migrate import migrate

SONGS_AT_A_TIME = 500  # as many are asked of the database at once
FOREIGN_PATH = "its path is relative, or of another system"


def features_command(argv: Sequence[str]) -> int:
    """Compute what is missing, and print how many songs got features, which did not, and why."""
    parser = argparse.ArgumentParser(
        prog="cli.py features", description="Tempo, key, mode, loudness and energy of songs whose audio files are here."
    )
    add_arguments(parser, "imports", "database")
    config = config_from_arguments(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    require_packages()
    n_processes = config.imports.audio_processes or len(system.cores())
    with database_url(config.database) as url, connect(url) as connection, expected_errors():
        migrate(connection)
        n_songs = features.count_songs_without(connection)
        connection.commit()
        if not n_songs:
            print("nothing to do: every song whose file is known has features")
            return 0
        with Analysts(min(n_processes, n_songs), config.imports.audio_seconds) as analysts:
            tally = compute_features(connection, analysts.analyse, n_at_once=n_processes)
    print(tally.table())
    return 0


def compute_features(
    connection: Connection, analyse: Callable[[Path], Features], *, n_at_once: int, progress: bool = True
) -> Tally:
    """Analyse the files of songs without features, store what comes out, and return an account of it.

    Commits after each song: an analysis takes a second, a commit milliseconds, and whatever stops the run, the next one goes on
    from there.  `analyse` is called from `n_at_once` threads, and raises DataError with the reason where a file is of no use.
    """
    tally = Tally(source=FEATURE_SOURCE)
    n_read = n_stored = 0
    threads = ThreadPoolExecutor(n_at_once)
    try:
        with tqdm(total=_total(connection), desc="analysing files", unit=" songs", disable=None if progress else True) as bar:
            after = None
            while songs := _next_songs(connection, after):
                tasks = {threads.submit(_analysed, analyse, song): song for song in songs}
                for task in _as_they_end(list(tasks)):
                    n_stored += _store(connection, tasks[task], task, tally)
                    bar.update()
                n_read += len(songs)
                after = songs[-1].song_id
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    n_skipped = tally.skipped_of("songs")
    tally.counts["songs"] = Count(read=n_read, added=0, updated=n_stored, already_there=n_read - n_stored - n_skipped)
    return tally


def _total(connection: Connection) -> int:
    n_songs = features.count_songs_without(connection)
    connection.commit()
    return n_songs


def _next_songs(connection: Connection, after: str | None) -> list[SongFile]:
    songs = features.songs_without(connection, after=after, at_most=SONGS_AT_A_TIME)
    connection.commit()  # no transaction stays open while files are analysed
    return songs


def _as_they_end(tasks: "list[Future[Features]]") -> "Iterator[Future[Features]]":
    """The tasks when they are done; of several at once the earlier first, so that one that raises costs none before it."""
    while tasks:
        done, _ = wait(tasks, return_when=FIRST_COMPLETED)
        yield from [task for task in tasks if task in done]
        tasks = [task for task in tasks if task not in done]


def _analysed(analyse: Callable[[Path], Features], song: SongFile) -> Features:
    path = Path(song.location)
    if not path.is_absolute():
        raise DataError(FOREIGN_PATH)
    return analyse(path)


def _store(connection: Connection, song: SongFile, task: "Future[Features]", tally: Tally) -> bool:
    """Whether the song got features."""
    try:
        found = task.result()
    except DataError as exc:
        tally.skip("songs", str(exc), song.location)
        return False
    is_stored = features.store(
        connection,
        song.song_id,
        tempo=found.tempo,
        key=found.key,
        mode=found.mode,
        loudness=found.loudness,
        energy=found.energy,
        source=found.feature_source,
    )
    connection.commit()
    return is_stored
