"""A small music collection out of the demo data, two models that were trained on it, and the service in front of them."""

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import train
from cli import DEMO_DATA
from config import Config, DatabaseConfig, ModelConfig, PreprocessingConfig, ServiceConfig, TrainingConfig
from engine.checkpoint import load_checkpoint
from engine.processes import process_group
from engine.runs import find_checkpoint
from importers import IMPORTERS
from manage import model_of
from preprocessing import preprocess
from storage.connections import connect
from storage.models import deploy, register_model

LISTS = 240  # of the demo data's 3,000
FILES = ("songs", "sequences", "playlists")
PLAYLIST = "Synth-pop 2021"  # one of them, the only one of that name
# Names that would be markup if somebody took them for it.
HOSTILE = '<img src="https://elsewhere.example/x" onerror="document.title=\'taken\'"><script>document.title="taken"</script>'


@dataclass(frozen=True, kw_only=True)
class World:
    """Its service is to answer with `newer` until it is told otherwise."""

    config: Config
    url: str
    older: str
    newer: str


def make_world(url, folder):
    (folder / "csv").mkdir()
    fill(url, folder / "csv")
    config = Config(
        database=DatabaseConfig(url=url, connect_timeout_seconds=2),
        preprocessing=PreprocessingConfig(encoders_folder=folder / "encoders", snapshot=folder / "snapshot"),
        model=ModelConfig(seq_len=20, d_songs=24, d_albums=12, d_artists=12, d_ff=64, N=1, heads=2),
        training=TrainingConfig(
            num_epochs=6,
            batch_size=32,
            lr=0.005,
            warmup_steps=5,
            threads=1,
            device="cpu",
            model_folder=folder / "models",
            map_songs=600,
        ),
        service=ServiceConfig(port=0, model_poll_seconds=0.2, index="fp32"),
    )
    snapshot = preprocess(config, url, progress=False)
    hasty = replace(config, training=replace(config.training, num_epochs=1, seed=1, map_songs=0))
    checkpoints = [trained(settings, snapshot) for settings in (hasty, config)]
    with connect(url) as connection:
        for checkpoint in checkpoints:
            register_model(connection, model_of(checkpoint))
        deploy(connection, checkpoints[-1].model_id)
    older, newer = [checkpoint.model_id for checkpoint in checkpoints]
    return World(config=config, url=url, older=older, newer=newer)


def trained(config, snapshot):
    with process_group(config.training) as process:
        run = train.train(config, snapshot, process, show_progress=False)
    train.evaluate_run(run, config, snapshot)
    return load_checkpoint(find_checkpoint(run))


def fill(url, folder):
    """Songs and playlists of the demo data into the schema music; one song and one playlist have names that are markup.

    All songs but that one have a file.
    """
    rows = {name: list(csv.reader(io.StringIO(gzip.decompress(demo_file(name)).decode()))) for name in FILES}
    rows["playlists"] = rows["playlists"][: LISTS + 1]
    lists = {row[0] for row in rows["playlists"]}
    rows["sequences"] = [row for row in rows["sequences"] if row[0] in lists]
    songs = {row[2] for row in rows["sequences"]}
    rows["songs"] = [row for row in rows["songs"] if row[0] in songs]
    for name, some in rows.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt", newline="") as file:
            csv.writer(file).writerows(some)
    with connect(url) as connection:
        IMPORTERS["csv"](connection, folder, source="demo")
        connection.execute("UPDATE music.song SET location = '/music/' || song_id || '.flac'")
        connection.execute("UPDATE music.song SET title = %s, location = NULL WHERE song_id = %s", [HOSTILE, rows["songs"][1][0]])
        connection.execute("UPDATE music.playlist SET name = %s WHERE playlist_id = %s", [HOSTILE, rows["playlists"][-1][0]])


def demo_file(name):
    return (DEMO_DATA / f"{name}.csv.gz").read_bytes()


@contextmanager
def away(url, server_url) -> Iterator[None]:
    """The database takes no connection and has lost those that it had."""
    name = url.rpartition("/")[2].partition("?")[0]

    def allow(is_allowed):
        with connect(server_url) as administrator:
            administrator.autocommit = True
            administrator.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {is_allowed}')

    with connect(url) as inside:  # the one that ends the others
        allow(is_allowed=False)
        inside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    try:
        yield
    finally:
        allow(is_allowed=True)
