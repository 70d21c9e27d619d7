"""A second run that reads only what is new gives what a full run gives, apart from the numbers."""

import itertools
import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

import preprocessing
from config import PROJECT_ROOT, Config, DatabaseConfig, PreprocessingConfig
from encoder_files import load_encoders
from errors import SchemaError
from preparation import growth
from preprocessing import is_stale, preprocess, refresh
from snapshot import Snapshot, file_digest, open_snapshot
from splits import TRAIN
from storage.connections import connect
from storage.source import high_water_mark

START = datetime(2020, 1, 1, tzinfo=UTC)
TYPES = {
    "bigint": int,
    "text": lambda number: f"id {number * 7919 % 1000}",
    "uuid": lambda number: UUID(int=number * 7919 % 1000),
}
SONGS = "SELECT song_id, artist_id, album_id, tempo, time_signature FROM song ORDER BY song_id"
SEQUENCES = """SELECT sequence_id, song_id, place AS position, {key}, group_id, history_id, is_recommended FROM play
ORDER BY {order}, place"""


def configured(url: str, folder: Path, **settings: Any) -> Config:
    return Config(
        database=DatabaseConfig(url=url, queries_folder=folder.parent / "queries"),
        preprocessing=PreprocessingConfig(
            **{"encoders_folder": folder / "encoders", "snapshot": folder / "snapshot", "train_size": 0.6} | settings
        ),
    )


def write_queries(folder: Path, id_type: str, key: str = "listened_at", order: str = "sequence_id") -> None:
    (folder / "queries").mkdir()
    texts = {
        "songs": SONGS,
        "sequences": SEQUENCES.format(key=key, order=order),
        "songs_by_id": f"SELECT song_id FROM song WHERE song_id = ANY(%(song_ids)s::{id_type}[])",
        "sequence_by_id": "SELECT song_id FROM play WHERE sequence_id = %(sequence_id)s ORDER BY place",
    }
    for name, text in texts.items():
        (folder / "queries" / f"{name}.sql").write_text(f"{text};\n")


@dataclass
class History:
    """Tables that grow as a service's do: listeners hear songs, the catalogue gets longer, features are measured later."""

    url: str
    id_type: str
    rng: random.Random
    has_times: bool = True
    now: int = 0
    songs: list[int] = field(default_factory=list)
    sequences: list[tuple[int, int, str | None]] = field(default_factory=list)  # number, rows, group

    def create(self) -> None:
        with connect(self.url) as connection:
            connection.execute(
                f"CREATE TABLE song (song_id {self.id_type}, artist_id text, album_id int, tempo real, time_signature int);"
                f"CREATE TABLE play (row_id bigserial, sequence_id {self.id_type}, song_id {self.id_type}, place int,"
                f" listened_at timestamptz, group_id text, history_id {self.id_type}, is_recommended boolean)"
            )

    def grow(self, n_songs: int, n_sequences: int, n_longer: int) -> None:
        rng, new = self.rng, []
        for _ in range(n_songs):
            self.songs.append(len(self.songs) + 1)
            if rng.random() < 0.9:  # the others are known from sequences alone
                new.append(self.songs[-1])
        songs = [
            (self._id(song), f"a{rng.randint(1, 1 + song // 3)}" if rng.random() < 0.9 else None, rng.randint(1, 1 + song // 2),
             rng.choice([None, 60 + 10.0 * rng.randint(0, 9)]), rng.choice([None, 3, 4, 5]))
            for song in new
        ]  # fmt: skip
        plays: list[tuple[Any, ...]] = []
        for _ in range(n_sequences):
            group = rng.choice([None, None, f"g{rng.randint(1, 5)}"])
            self.sequences.append((len(self.sequences) + 1, 0, group))
            self._play(len(self.sequences) - 1, rng.randint(1, 6), plays)
        for place in rng.sample(range(len(self.sequences)), min(n_longer, len(self.sequences))):
            self._play(place, rng.randint(1, 3), plays)
        plays += [(None, self._id(1), 0, self._time(), None, None, None)] * rng.randint(0, 1)
        with connect(self.url) as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO song VALUES (%s, %s, %s, %s, %s)", songs)
            cursor.executemany(
                "INSERT INTO play (sequence_id, song_id, place, listened_at, group_id, history_id, is_recommended)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                plays,
            )
            measured = [(80.0 + rng.randint(0, 50), self._id(song)) for song in rng.sample(self.songs, 2)]
            cursor.executemany("UPDATE song SET tempo = %s WHERE song_id = %s", measured)

    def _play(self, index: int, n: int, plays: list[tuple[Any, ...]]) -> None:
        number, length, group = self.sequences[index]
        history = self._id(number % 4) if number % 4 else None  # three listeners, and a fourth of the sequences is nobody's
        for place in range(length, length + n):
            song = None if self.rng.random() < 0.05 else self._id(self.rng.choice(self.songs))
            proposed = self.rng.choice([None, False, False, True])
            plays.append((self._id(number), song, place, self._time(), group, history, proposed))
        self.sequences[index] = (number, length + n, group)

    def _id(self, number: int) -> Any:
        return TYPES[self.id_type](number)

    def _time(self) -> datetime | None:
        self.now += 1
        return START + timedelta(hours=self.now) if self.has_times else None


def decoded(snapshot: Snapshot, config: Config) -> dict[str, Any]:
    """Everything that a snapshot and its encoders say, without the numbers in which they say it."""
    encoders = load_encoders(config.preprocessing.encoders_folder, snapshot.manifest["encoders_digest"])
    songs = encoders.songs.decode(range(snapshot.n_songs))
    artists, albums = encoders.artists.decode(snapshot.song_artist), encoders.albums.decode(snapshot.song_album)
    counts = {name: n for name, n in snapshot.manifest["counts"].items() if not name.startswith("fitted_")}
    of_songs = {id_: (artist, album, tuple(row)) for id_, artist, album, row in
                zip(songs, artists, albums, snapshot.song_features.tolist(), strict=True)}  # fmt: skip
    return {
        "sequences": [[songs[number] for number in snapshot.sequences[first:end]]
                      for first, end in itertools.pairwise(snapshot.offsets.tolist())],
        "split": snapshot.split.tolist(),
        "lists": snapshot.lists.tolist(),
        "history_starts": snapshot.history_starts.tolist(),
        "songs": of_songs,
        "artists": set(encoders.artists.ids.to_pylist()),
        "albums": set(encoders.albums.ids.to_pylist()),
        "counts": counts,
        "feature_names": snapshot.manifest["feature_names"],
        "policy": snapshot.manifest["split"],
        "source": snapshot.manifest["source"],
    }  # fmt: skip


def require_numbers_end_with_training(snapshot: Snapshot) -> None:
    songs = snapshot.part(TRAIN)[0]
    counts = snapshot.manifest["counts"]
    for name, numbers in (("songs", songs), ("artists", snapshot.song_artist[songs]), ("albums", snapshot.song_album[songs])):
        assert counts[f"fitted_{name}"] == 1 + max(2, int(numbers.max(initial=0)))


def numbers_of(config: Config) -> list[list[Any]]:
    encoders = load_encoders(config.preprocessing.encoders_folder)
    return [encoder.ids.to_pylist() for encoder in (encoders.songs, encoders.albums, encoders.artists)]


@pytest.mark.parametrize("seed", range(16))
def test_an_incremental_run_equals_a_full_one_apart_from_the_numbers(database_url, tmp_path, caplog, seed):
    caplog.set_level(logging.INFO)
    rng = random.Random(seed)
    history = History(database_url, rng.choice(list(TYPES)), rng, has_times=seed % 4 != 3)
    history.create()
    key = "listened_at" if seed % 4 == 0 else "listened_at, row_id"
    order = rng.choice(["sequence_id", "md5(sequence_id::text)"])
    write_queries(tmp_path, history.id_type, key, order)
    settings = {"split": rng.choice(["auto", "auto", "sequence", "leave_one_out"]), "leave_out_recommended": rng.random() < 0.7}
    one, other = (configured(database_url, tmp_path / name, **settings) for name in ("one", "other"))
    history.grow(12, 30, 0)
    preprocess(one, database_url, progress=False)
    for _ in range(3):
        before = numbers_of(one)
        history.grow(rng.randint(0, 4), rng.randint(0, 5), rng.randint(0, 3))
        caplog.clear()
        grown = preprocess(one, database_url, progress=False)
        assert any(message.startswith("incremental: ") for message in caplog.messages), caplog.messages
        assert all(now[: len(then)] == then for now, then in zip(numbers_of(one), before, strict=True))
        require_numbers_end_with_training(grown)
        full = preprocess(other, database_url, progress=False, full=True)
        assert decoded(grown, one) == decoded(full, other)
        open_snapshot(one.preprocessing.snapshot, verify=True)
        assert is_stale(one, database_url) is None


@pytest.fixture
def history(database_url, tmp_path):
    history = History(database_url, "bigint", random.Random(0))
    history.create()
    history.grow(12, 30, 0)
    write_queries(tmp_path, "bigint")
    return history


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DELETE FROM play WHERE row_id = (SELECT max(row_id) FROM play WHERE sequence_id = 3)", "rows were deleted"),
        ("UPDATE play SET song_id = 1 + song_id % 12 WHERE sequence_id = 4", "rows with no later .* have changed"),
        ("UPDATE play SET group_id = 'other' WHERE sequence_id = 4", "have changed"),
        ("UPDATE play SET history_id = 7 WHERE sequence_id = 4", "have changed"),
        ("UPDATE play SET listened_at = now() WHERE sequence_id = 4", "rows were deleted, or came with an earlier one"),
        ("INSERT INTO play (sequence_id, song_id, listened_at) VALUES (77, 1, '2020-01-01 05:00Z')", "with an earlier one"),
        ("INSERT INTO play (sequence_id, song_id) VALUES (77, 1)", "or came with an earlier one"),
        ("DELETE FROM song WHERE song_id = 13", "1 of .* songs are gone"),
        ("UPDATE song SET song_id = NULL", "songs are gone"),
        ("UPDATE song SET artist_id = 'new' WHERE artist_id = 'a1'", "1 of .* artists are gone"),
        ("INSERT INTO play (sequence_id, song_id, listened_at) SELECT n, 1, now() FROM generate_series(100, 900) AS n",
         "801 of .* rows are new"),
    ],
)  # fmt: skip
def test_what_a_mark_cannot_see_leads_to_a_full_run(history, tmp_path, caplog, change, reason):
    caplog.set_level(logging.INFO)
    one, other = (configured(history.url, tmp_path / name) for name in ("one", "other"))
    with connect(history.url) as connection:
        connection.execute("INSERT INTO song (song_id) VALUES (13)")
    preprocess(one, history.url, progress=False)
    with connect(history.url) as connection:
        connection.execute(change)
    grown = preprocess(one, history.url, progress=False)
    assert preprocess(other, history.url, progress=False, full=True).digest == grown.digest
    told = [message for message in caplog.messages if message.startswith("a full run: ")]
    assert re.search(reason, told[1]), told


def test_new_sessions_alone_are_read_and_stand_behind_the_earlier_ones_of_their_listener(history, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    one, other = (configured(history.url, tmp_path / name) for name in ("one", "other"))
    before = preprocess(one, history.url, progress=False)
    history.grow(0, 4, 0)
    grown = preprocess(one, history.url, progress=False)
    assert any(message.startswith("incremental: 4 sequences") for message in caplog.messages)
    full = preprocess(other, history.url, progress=False, full=True)
    assert decoded(grown, one) == decoded(full, other)
    for snapshot in (before, grown):
        # Split by time, every sequence reaches back to the first of its listener: 1, 2 and 3, which stand first by their ids.
        firsts, n_sequences = np.unique(snapshot.history_starts, return_counts=True)
        ends = [first + np.diff(snapshot.offsets)[snapshot.history_starts == first].sum() for first in firsts]
        assert firsts.tolist() == [0, *ends[:-1]]
        assert (n_sequences > 1).sum() == 3


EXCHANGE = """UPDATE play AS here SET {column} = there.{column} FROM play AS there
WHERE (here.row_id, there.row_id) IN ((%(one)s, %(other)s), (%(other)s, %(one)s))"""


@pytest.mark.parametrize("column", ["song_id", "place", "listened_at", "sequence_id"])
def test_rows_that_exchange_a_value_have_another_checksum(history, tmp_path, column):
    with connect(history.url) as connection:
        before = high_water_mark(connection, tmp_path / "queries")["rows_content"]
        pairs = connection.execute(
            "SELECT one.row_id, other.row_id FROM play AS one, play AS other WHERE one.row_id < other.row_id"
            f" AND one.{column} <> other.{column} AND one.song_id <> other.song_id"
            " AND one.sequence_id <= 3 AND other.sequence_id <= 3"
        ).fetchall()
        assert len(pairs) > 3
        for one, other in pairs:
            connection.execute(EXCHANGE.format(column=column), {"one": one, "other": other})
            assert high_water_mark(connection, tmp_path / "queries")["rows_content"] != before, (one, other)
            connection.execute(EXCHANGE.format(column=column), {"one": one, "other": other})


def test_a_full_run_can_be_asked_for_and_numbers_songs_afresh(history, tmp_path):
    config = configured(history.url, tmp_path / "one")
    preprocess(config, history.url, progress=False)
    history.grow(3, 8, 0)
    preprocess(config, history.url, progress=False)
    arguments = ["--url", history.url, "--queries-folder", str(config.database.queries_folder), "--train-size", "0.6",
                 "--snapshot", str(config.preprocessing.snapshot), "--encoders-folder", str(config.preprocessing.encoders_folder),
                 "--full"]  # fmt: skip
    assert preprocessing.main(arguments) == 0
    full = preprocess(configured(history.url, tmp_path / "other"), history.url, progress=False)
    assert open_snapshot(config.preprocessing.snapshot).digest == full.digest


@pytest.mark.pooled
def test_the_snapshot_is_refreshed_when_it_must_be_and_the_mark_is_asked_once(history, tmp_path, monkeypatch):
    config, asked = configured(history.url, tmp_path / "one"), []
    mark = preprocessing.high_water_mark
    monkeypatch.setattr(preprocessing, "high_water_mark", lambda *arguments: asked.append(1) or mark(*arguments))
    first = refresh(config, history.url, progress=False)
    assert (refresh(config, history.url, progress=False).path, len(asked)) == (first.path, 2)
    history.grow(0, 2, 0)
    assert refresh(config, history.url, progress=False).digest != first.digest
    assert len(asked) == 3
    assert is_stale(config, history.url) is None


def test_a_row_that_is_written_while_others_are_read_is_new_the_next_time(history, tmp_path, monkeypatch):
    config, read_songs = configured(history.url, tmp_path / "one"), preprocessing.read_songs

    def meanwhile(*arguments, **options):
        catalogue = read_songs(*arguments, **options)
        monkeypatch.undo()
        history.grow(2, 3, 0)
        return catalogue

    monkeypatch.setattr(preprocessing, "read_songs", meanwhile)
    before = preprocess(config, history.url, progress=False)
    assert is_stale(config, history.url) is not None
    after = preprocess(config, history.url, progress=False)
    rows = [snapshot.manifest["source"]["high_water_mark"]["rows"] for snapshot in (before, after)]
    with connect(history.url) as connection:
        assert rows[1] == connection.execute("SELECT count(*) FROM play").fetchone()[0] > rows[0]
    full = preprocess(configured(history.url, tmp_path / "other"), history.url, progress=False)
    assert decoded(after, config)["sequences"] == decoded(full, configured(history.url, tmp_path / "other"))["sequences"]


def test_a_run_waits_for_another_one_that_writes_to_the_same_folders(history, tmp_path, monkeypatch):
    config, write = configured(history.url, tmp_path / "one"), preprocessing.write_snapshot
    waits = threading.Event()
    monkeypatch.setattr(preprocessing.log, "info", lambda text, *_: waits.set() if text.startswith("waiting for") else None)
    with ThreadPoolExecutor(1) as executor:

        def meanwhile(*arguments, **options):
            monkeypatch.setattr(preprocessing, "write_snapshot", write)
            others.append(executor.submit(preprocess, config, history.url, progress=False, full=True))
            assert waits.wait(timeout=30)
            return write(*arguments, **options)

        others = []
        monkeypatch.setattr(preprocessing, "write_snapshot", meanwhile)
        first = preprocess(config, history.url, progress=False)
        assert others[0].result().digest == first.digest


def test_work_folders_of_somebody_else_are_left_alone(history, tmp_path, monkeypatch):
    (theirs := tmp_path / "one" / f"{preprocessing.WORK_PREFIX}theirs").mkdir(parents=True)
    opened = os.open

    def refuse(path, *arguments, **options):
        if path == theirs:
            raise PermissionError
        return opened(path, *arguments, **options)

    monkeypatch.setattr("preprocessing.os.open", refuse)
    preprocess(configured(history.url, tmp_path / "one"), history.url, progress=False)
    assert theirs.exists()


def test_a_row_id_must_be_a_whole_number(history, tmp_path):
    file = tmp_path / "queries" / "sequences.sql"
    file.write_text(file.read_text().replace("listened_at,", "row_id::text AS row_id,"))
    with pytest.raises(SchemaError, match=r"row_id in sequences\.sql is text: make it a whole number that rises"):
        preprocess(configured(history.url, tmp_path / "one"), history.url, progress=False)


def test_snapshots_that_keep_nothing_are_made_anew(history, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = configured(history.url, tmp_path / "one")
    first = preprocess(config, history.url, progress=False)
    manifest = json.loads((first.path / "manifest.json").read_text())
    del manifest["attachments"]  # as an earlier version wrote it
    (first.path / "manifest.json").write_text(json.dumps(manifest))
    assert preprocess(config, history.url, progress=False).digest == first.digest
    assert "a full run: the snapshot in use keeps nothing for an incremental run" in caplog.messages


def test_snapshots_that_keep_no_histories_are_made_anew(history, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = configured(history.url, tmp_path / "one")
    first = preprocess(config, history.url, progress=False)
    kept = first.path / growth.SEQUENCES_READ
    table = growth._read(kept).drop_columns("history_id")
    kept.unlink()
    growth._write(kept, table)  # as an earlier version wrote it
    manifest = json.loads((first.path / "manifest.json").read_text())
    manifest["attachments"][growth.SEQUENCES_READ] = file_digest(kept)
    (first.path / "manifest.json").write_text(json.dumps(manifest))
    history.grow(0, 1, 0)
    preprocess(config, history.url, progress=False)
    assert "a full run: the snapshot in use keeps no history_id" in caplog.messages


def test_snapshots_of_an_earlier_format_are_made_anew(history, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = configured(history.url, tmp_path / "one")
    first = preprocess(config, history.url, progress=False)
    (first.path / "manifest.json").write_text(json.dumps({**first.manifest, "format_version": 2}))
    assert preprocess(config, history.url, progress=False).digest == first.digest
    [told] = [message for message in caplog.messages if message.startswith("a full run: snapshot")]
    assert "has format 2, this version reads 3" in told


# --- kill -9 -----------------------------------------------------------------------------------------------------------------

# For each number n from 0 on a child of this process preprocesses and kills itself, with no chance to tidy up, before the n-th
# time that it opens, renames, makes or removes a file of ours; until one comes to its end.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from encoder_files import load_encoders
from preprocessing import preprocess
from snapshot import open_snapshot
from tests.test_preprocessing_growth import configured

url, folder, full = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "full"
old = open_snapshot(folder / "snapshot").digest
shutil.copytree(folder, folder.parent / "pristine")
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def preprocess_until(n):
    count = 0

    def kill_before(event, arguments):
        nonlocal count
        if event in EVENTS and str(folder) in str(arguments[0]):
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(kill_before)
    preprocess(configured(url, folder), url, progress=False, full=full)
    os._exit(0)


status, n, in_use = 1, 0, []
while status != 0:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "pristine", folder)
    if (child := os.fork()) == 0:
        preprocess_until(n)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    snapshot = open_snapshot(folder / "snapshot", verify=True)
    load_encoders(folder / "encoders", snapshot.manifest["encoders_digest"])
    in_use.append("old" if snapshot.digest == old else snapshot.digest)
    if n % 5 == 0:  # the next run has no trouble, and sweeps up
        again = preprocess(configured(url, folder), url, progress=False, full=full)
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
        assert sorted(path.name for path in (folder / "snapshot").iterdir()) == sorted(["current", again.path.name])
        assert len(list((folder / "encoders").iterdir())) == 5
    n += 1
print(" ".join(in_use))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_a_run_that_is_killed_leaves_the_old_snapshot_with_its_encoders_or_the_new_one(history, tmp_path, kind):
    preprocess(configured(history.url, tmp_path / "one"), history.url, progress=False)
    history.grow(3, 5, 2)
    command = [sys.executable, "-c", KILLED, history.url, str(tmp_path / "one"), kind]
    told = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    in_use = told.stdout.split()
    n_old = in_use.count("old")
    assert n_old > 20
    assert len(in_use) - n_old > 5
    assert in_use == ["old"] * n_old + [in_use[-1]] * (len(in_use) - n_old)
