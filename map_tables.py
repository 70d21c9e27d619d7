"""Map somebody's tables: guess them from the catalogue, write the query files, setup.sql, uninstall.sql and a settings file.

    python cli.py map --dsn postgresql://me@host/music              the files are written to `mapping/`
    python cli.py map --schema app --sequences app.plays            where the guess is wrong or finds nothing
    python cli.py map --time-zone Europe/Vienna --force             times without a zone, and files that may be replaced

Nothing in the database is changed: the transaction is read-only, and the owner runs setup.sql after reading it.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from errors import exit_code_of
from settings import load_config
from storage.connections import database_url
from storage.mapping.files import DEFAULT_ROLE, mapped_files, write_files
from storage.mapping.guess import TableMapping, map_tables
from storage.tables import read_tables, require_zone

DEFAULT_FOLDER = Path("mapping")
DEFAULT_ZONE = "UTC"


def main(argv: Sequence[str] | None = None) -> int:
    """Guess, write, and say what was taken for what and what to do next."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    config = load_config(file=arguments.config, overrides={"url": arguments.dsn})
    with database_url(config.database) as url:
        require_zone(url, arguments.time_zone)
        tables = read_tables(url, arguments.schema)
    mapping = map_tables(tables, songs=arguments.songs, sequences=arguments.sequences, zone=arguments.time_zone)
    files = mapped_files(mapping, role=arguments.role, folder=arguments.out)
    write_files(arguments.out, files, force=arguments.force)
    print("\n".join(report(mapping, arguments.out, len(tables))))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cli.py map", description="Guess which of your tables are songs and sequences, and write the files to review."
    )
    parser.add_argument("--dsn", metavar="URL", help="the database (default: the one that the environment or the settings name)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML settings file")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="where to write (default mapping)")
    parser.add_argument("--schema", action="append", default=[], help="look at this schema only; may be given several times")
    parser.add_argument("--songs", metavar="TABLE", help="the table of songs, where the guess is wrong")
    parser.add_argument("--sequences", metavar="TABLE", help="the table of playlist songs or plays, where the guess is wrong")
    parser.add_argument(
        "--time-zone", default=DEFAULT_ZONE, metavar="ZONE", help="of times that are stored without one (default UTC)"
    )
    parser.add_argument("--role", default=DEFAULT_ROLE, help=f"the service's role in setup.sql (default {DEFAULT_ROLE})")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    return parser


def report(mapping: TableMapping, folder: Path, n_tables: int) -> Iterator[str]:
    """What was taken for what, what the owner must know, and the next commands; one line each."""
    songs, sequences = mapping.songs, mapping.sequences
    kind = "plays, cut into sessions" if sequences.is_play_log else "playlists"
    yield f"looked at   {n_tables} tables and views"
    yield f"songs       {songs.key.table}, key {songs.key.column.name} ({songs.key.column.type_name})"
    yield f"            with {', '.join(value.name for value in songs.values) or 'nothing else'}"
    yield f"sequences   {sequences.owner.table}: {kind} of {sequences.owner.column.name} ({sequences.owner.column.type_name})"
    yield f"order       {sequences.order.value}: {sequences.sort[0].column.name}"
    for value in songs.values:
        if "has no unit" in value.why:
            yield f"NOTE        {value.why}"
    for note in mapping.notes:
        yield f"NOTE        {note}"
    if secured := secured_tables(mapping):
        yield f"NOTE        row-level security is on for {', '.join(secured)}: setup.sql has a policy for the service's role"
    queries = "five queries" if sequences.is_play_log or mapping.lists else "four queries"
    yield f"wrote       {folder}: {queries}, setup.sql, uninstall.sql, bert4musicrec.toml; nothing in the database was changed"
    yield "next        read them, then"
    yield f"""              psql "$DATABASE_URL" -1 -v ON_ERROR_STOP=1 -f '{folder / "setup.sql"}'"""
    yield f"              python cli.py doctor --config '{folder / 'bert4musicrec.toml'}'"
    yield f"              python cli.py train --config '{folder / 'bert4musicrec.toml'}' --minutes 3"
    yield f"              python cli.py serve --config '{folder / 'bert4musicrec.toml'}'"


def secured_tables(mapping: TableMapping) -> list[str]:
    """The tables that are read and have row-level security."""
    return sorted({str(place.table) for place in mapping.places() if place.table.has_row_security})


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
