"""One command for everything: ``python cli.py COMMAND --help`` tells each one's options.

demo          the whole way on the made-up catalogue of `demo data`: import, preprocess, train, evaluate, continue a playlist
migrate       bring the schemas `music` and `recommender` of the database up to date
import        read what a service exported, histories or playlists, into the schema `music`
features      compute tempo, key, loudness and energy of songs from one's own audio files (optional packages)
map           guess which of your tables are songs and sequences; write queries and setup.sql to review
doctor        say in one screen whether your tables will do, and why not
preprocess    database -> encoders and snapshot          (the same as preprocessing.py)
train         snapshot -> model                          (the same as train.py)
evaluate      a model beside the baselines, on the held-out part
recommend     continue a sequence of song ids, with titles; --export FILE writes the new songs to a file
serve         answer over HTTP and from the request table (the same as flask_app.py)
worker        answer from the request table only, beside or instead of the service's own worker
keys          make, list and revoke the keys of those who ask over HTTP
models        list the models, which of them answers, and how they fare
publish       have a run answer from now on: the newest one, or one that is named
activate      have a known model answer, and a challenger for a share of the sequences
rollback      go back to the model that answered before
health        whether the service answers, is ready (--ready), or its worker is well (--worker)

With --demo a command works on the demo's database, snapshot and models instead of your own: cli.py serve --demo.
"""

import argparse
import csv
import importlib.util
import logging
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import audio_features
import doctor
import flask_app
import health
import manage
import map_tables
import preprocessing
import train
from config import FIRST_NUMBER, PROJECT_ROOT, Config
from encoder_files import load_encoders
from engine.checkpoint import load_checkpoint
from engine.files import writing
from engine.processes import process_group
from engine.runs import find_checkpoint, is_finished
from errors import CheckpointError, DataError, exit_code_of
from evaluation.report import comparison_table
from exporters import DEFAULT_TABLE, EXPORTERS, exporter_for, write_file
from importers import IMPORTERS, NAMES, import_path
from jobs import process
from options import add_arguments, config_from_arguments
from preprocessing import refresh
from preprocessing_utils import IdEncoder
from serving.answers import Answer, Query, RecommendedSong
from serving.catalogue import read_songs
from serving.choice import serving_config
from serving.controls import Controls
from serving.exporting import SUGGESTIONS, as_exported
from serving.reasons import Reason, ReasonKind, SongId
from serving.recommender import Recommender
from snapshot import Snapshot, open_snapshot
from storage.catalogue import SongCard, song_cards
from storage.connections import Connection, connect, database_url, expected_errors
from storage.imports import song_not_of
from storage.migrate import migrate

log = logging.getLogger("cli")

DEMO_DATA = PROJECT_ROOT / "demo data"
DEMO_SOURCE = "demo"  # in the column `source` of the schema music
# Six passes are where validation NDCG@10 of the demo data stops rising; the minutes are a cap for slow machines.
DEMO_TRAINING: Mapping[str, Any] = {"num_epochs": 6, "minutes": 1.5}
Score = Callable[[Sequence[np.ndarray]], np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; everything after its name is its own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"error: unknown command {arguments[0]!r}: known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return command(arguments[1:])


# --- the commands ------------------------------------------------------------------------------------------------------------


def migrate_command(argv: Sequence[str]) -> int:
    """Apply the migrations that the database lacks."""
    parser = argparse.ArgumentParser(prog="cli.py migrate", description="Bring the database's schemas up to date.")
    config = _parsed(parser, argv, "database")[0]
    with database_url(config.database) as url, connect(url) as connection:
        applied = migrate(connection)
    print(f"applied migrations {', '.join(map(str, applied))}" if applied else "the database is up to date")
    return 0


def import_command(argv: Sequence[str]) -> int:
    """Import a file, folder or zip in one transaction and print what was added, left out and why."""
    parser = argparse.ArgumentParser(prog="cli.py import", description="Read playlists or histories into the schema music.")
    parser.add_argument("format", choices=NAMES, help="what the path holds; auto finds out")
    parser.add_argument("path", type=Path, help="file, folder or zip")
    parser.add_argument("--source", help="name under which the rows stand in the database (default: the format, or the path)")
    parser.add_argument("--prefix", help="csv and movielens: put PREFIX: before all ids, where two sources use the same ones")
    config, given = _parsed(parser, argv, "imports", "database")
    with database_url(config.database) as url, connect(url) as connection, expected_errors():
        migrate(connection)
        tallies = import_path(connection, given.format, given.path, config.imports, source=given.source, prefix=given.prefix)
    print("\n\n".join(tally.table() for tally in tallies))
    if any(tally.changed for tally in tallies):
        print("\nNext: .venv/bin/python train.py --minutes 3, then flask_app.py, and open its address in a browser.")
    return 0


def evaluate_command(argv: Sequence[str]) -> int:
    """Judge a model beside the baselines on the test part of its snapshot."""
    parser = argparse.ArgumentParser(prog="cli.py evaluate", description="A model beside the baselines.")
    parser.add_argument("--oracle", action="store_true", help="also rank by the law that the demo data was made by")
    config, arguments = _parsed(parser, argv, "service", "training", "preprocessing", "evaluation", "database")
    run = find_checkpoint(config.service.model or config.training.model_folder)
    snapshot = open_snapshot(config.preprocessing.snapshot)
    extra = {"oracle": demo_oracle(run, snapshot)} if arguments.oracle else {}
    print(comparison_table(train.evaluate_run(run, config, snapshot, extra)))
    return 0


def recommend_command(argv: Sequence[str]) -> int:
    """Continue a sequence and print it with its new songs."""
    parser = argparse.ArgumentParser(prog="cli.py recommend", description="Continue a sequence of songs.")
    parser.add_argument("songs", nargs="*", help="song ids, oldest first")
    parser.add_argument("--file", type=Path, help="a CSV file with a column song_id, oldest first")
    endings = ", ".join(f".{extension}" for extension in EXPORTERS)
    parser.add_argument(
        "--export",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"write the new songs to a file as well, in the form that its ending says: {endings}; may be given again",
    )
    parser.add_argument(
        "--export-name", default=SUGGESTIONS, metavar="NAME", help="what the list is called (default: %(default)s)"
    )
    parser.add_argument(
        "--export-table", default=DEFAULT_TABLE, metavar="TABLE", help="the table of a .sql file, with or without its schema"
    )
    _, arguments = _parsed(parser, argv, "service", "training", "database")
    for path in arguments.export:
        exporter_for(path)  # a wrong ending is told at once
    config = serving_config(arguments)
    recommender = Recommender.load(config.service.model or config.training.model_folder, config.service)
    texts = read_sequence(arguments.file) if arguments.file else arguments.songs
    songs = [recommender.id_from(text) for text in texts]
    with database_url(config.database) as url:
        answer, cards = print_continued(recommender, songs, config, url)
    exported = as_exported(answer, cards, name=arguments.export_name)
    for path in arguments.export:
        written = write_file(path, exported, table=arguments.export_table)
        log.info("%s", "\n".join([f"wrote {path}", *(f"  {note}" for note in written.notes)]))
    return 0


def demo_command(argv: Sequence[str]) -> int:
    """The whole way on made-up data, apart from your own; a second run starts from what is there."""
    parser = argparse.ArgumentParser(prog="cli.py demo", description=demo_command.__doc__)
    parser.set_defaults(demo=True)
    config, _ = _parsed(parser, argv, "model", "memory", "training", "preprocessing", "evaluation", "service", "database")
    started = time.monotonic()
    with database_url(config.database) as url:
        step(1, "a database" if config.database.is_embedded else "YOUR database: made-up music goes into its schema music")
        with connect(url) as connection, expected_errors():
            migrate(connection)
            refuse_other_songs(connection)
            step(2, "the made-up catalogue in `demo data`")
            print(IMPORTERS["csv"](connection, DEMO_DATA, source=DEMO_SOURCE).line())
        step(3, "encoders and snapshot")
        snapshot = refresh(config, url)
        step(4, "training")
        run = trained_run(config, snapshot)
        step(5, "the model beside the baselines, and the law that the data was made by")
        print(demo_results(run, config, snapshot))
        step(6, "a playlist and its next ten songs")
        recommender = Recommender.load(run, config.service)
        print_continued(recommender, list(read_sequence(DEMO_DATA / "sequence.csv")), config, url)
    took = f"{time.monotonic() - started:.0f} s"
    print(f"\nAll of it took {took}. Next: .venv/bin/python cli.py serve --demo serves this model; README.md goes on.")
    return 0


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "demo": demo_command,
    "migrate": migrate_command,
    "import": import_command,
    "features": audio_features.features_command,
    "map": map_tables.main,
    "doctor": doctor.main,
    "preprocess": preprocessing.main,
    "train": train.main,
    "evaluate": evaluate_command,
    "recommend": recommend_command,
    "serve": flask_app.main,
    "worker": process.main,
    "keys": manage.keys_command,
    "models": manage.models_command,
    "publish": manage.publish_command,
    "activate": manage.activate_command,
    "rollback": manage.rollback_command,
    "health": health.main,
}


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str], *sections: str) -> tuple[Config, argparse.Namespace]:
    add_arguments(parser, *sections)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return config_from_arguments(arguments), arguments


# --- the steps of the demo ---------------------------------------------------------------------------------------------------


def step(number: int, title: str) -> None:
    """Announce a step."""
    print(f"\n[{number}/6] {title}", flush=True)


def refuse_other_songs(connection: Connection) -> None:
    """Raise DataError where the demo would train on a mixture of its songs and somebody's own."""
    other = song_not_of(connection, DEMO_SOURCE)
    if other is not None:
        source = "without a source" if other.source is None else f"of source {other.source!r}"
        raise DataError(
            f"music.song holds other songs than the demo's ({other.id!r}, {source}): name a database without them, "
            "or none (no DATABASE_URL) for the embedded one"
        )


def trained_run(config: Config, snapshot: Snapshot) -> Path:
    """The newest run if it is a whole one on this snapshot, or a new one."""
    try:
        checkpoint = load_checkpoint(config.training.model_folder)
    except CheckpointError:
        checkpoint = None
    if checkpoint is not None and checkpoint.snapshot_digest == snapshot.digest and is_finished(checkpoint.path.parent):
        print(f"there is a model of this snapshot already: {checkpoint.path} (train again with python train.py --demo)")
        return checkpoint.path.parent
    given = {
        name: value for name, value in DEMO_TRAINING.items() if getattr(config.training, name) == getattr(Config().training, name)
    }
    config = replace(config, training=replace(config.training, **given))
    with process_group(config.training) as process:
        return train.train(config, snapshot, process)


def demo_results(run: Path, config: Config, snapshot: Snapshot) -> str:
    """The table of the test part, from the run's folder where it was made before."""
    table = run / "evaluation.md"
    if not table.exists():
        results = train.evaluate_run(run, config, snapshot, {"oracle (the law itself)": demo_oracle(run, snapshot)})
        with writing(table):
            beside = run / f".{table.name}.new"
            beside.write_text(comparison_table(results), encoding="utf-8")
            beside.replace(table)
    return table.read_text(encoding="utf-8")


def demo_oracle(run: Path, snapshot: Snapshot) -> Score:
    """Rank by the law that made the demo data: nothing that sees only the songs before can do better on average.

    Raises DataError when the snapshot holds other songs than the demo data.
    """
    spec = importlib.util.spec_from_file_location("demo_data_generate", DEMO_DATA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = generator  # dataclasses look their module up
    spec.loader.exec_module(generator)
    law = generator.load_law(DEMO_DATA)
    checkpoint = load_checkpoint(run)
    songs: IdEncoder = load_encoders(checkpoint.encoders_folder, checkpoint.encoders_digest).songs
    column = songs.encode(law.song_ids)
    if snapshot.n_songs != len(law.song_ids) + FIRST_NUMBER:
        raise DataError(f"the snapshot has {snapshot.n_songs - FIRST_NUMBER} songs, the demo data {len(law.song_ids)}: no oracle")
    law_number = np.zeros(snapshot.n_songs, np.int64)
    law_number[column] = np.arange(len(column))

    def score(prefixes: Sequence[np.ndarray]) -> np.ndarray:
        scores = np.full((len(prefixes), snapshot.n_songs), -np.inf)
        scores[:, column] = law.score([law_number[prefix] for prefix in prefixes])
        return scores

    return score


# --- a continued playlist ----------------------------------------------------------------------------------------------------


def read_sequence(path: Path) -> list[str]:
    """The column song_id of a CSV file, in its order."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if "song_id" not in (rows.fieldnames or []):
                raise DataError(f"{path} has no column song_id: its header is {', '.join(rows.fieldnames or ['empty'])}")
            return [row["song_id"] for row in rows if row["song_id"]]
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path} cannot be read as a CSV file: {exc}") from exc


def print_continued(
    recommender: Recommender, songs: Sequence[SongId], config: Config, url: str
) -> tuple[Answer, Mapping[SongId, SongCard]]:
    """Print a sequence and, below it, what comes next: title, artist, album, score and one reason each.

    Returns the answer, and the cards of all the songs.
    """
    recommender = recommender.with_songs(read_songs(url, config.database.queries_folder, recommender.catalogue.encoders))
    answer = recommender.recommend_many([Query(songs=songs, controls=Controls(explain=True))])[0]
    with connect(url) as connection, expected_errors():
        cards = song_cards(connection, config.database.queries_folder, [*songs, *(song.song_id for song in answer.songs)])
    for number, song_id in enumerate(songs, start=1):
        print(f"{number:>4}  {described(song_id, cards)}")
    print(f"{'':>4}  {'-' * 100}")
    for line in recommended_lines(answer, cards):
        print(line)
    if answer.unknown:
        print(f"not known to the model and left out: {', '.join(map(str, answer.unknown))}")
    return answer, cards


def recommended_lines(answer: Answer, cards: Mapping[SongId, SongCard]) -> list[str]:
    """One line per recommended song: place, title, artist, album, score, reason."""
    titles = {song_id: card.title for song_id, card in cards.items() if card.title}
    return [
        f"{f'+{song.rank}':>4}  {described(song.song_id, cards)}  {song.score:6.2f}  {plainest_reason(song).sentence(titles)}"
        for song in answer.songs
    ]


def plainest_reason(song: RecommendedSong) -> Reason:
    """The reason that says most in one line: a shared album or artist, else the song that moved the score most."""
    shared = [reason for reason in song.reasons if reason.kind in (ReasonKind.SAME_ALBUM, ReasonKind.SAME_ARTIST)]
    return (shared or list(song.reasons))[0]


def described(song_id: SongId, cards: Mapping[SongId, SongCard]) -> str:
    """Title, artist and album in columns; the id where the database knows no title."""
    card = cards.get(song_id)
    if card is None or card.title is None:
        return f"{song_id!s:<94}"
    cells = ((card.title, 34), (card.artist or "", 28), (card.album or "", 28))
    return "  ".join(f"{textwrap.shorten(text, width, placeholder='…'):<{width}}" for text, width in cells)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
