"""Say in one screen whether somebody's tables will do, and why not.

    python cli.py doctor --config mapping/bert4musicrec.toml

Run it as the role that the service will use: rights and row-level security are that role's.  Both big queries are read several
times on the server; nothing is changed.  Exit code 0: enough data and no problem; 1: not.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from config import Config
from errors import DatabaseError, SchemaError, exit_code_of
from options import add_arguments, config_from_arguments
from storage.connections import Connection, connect, database_url
from storage.health import (
    Meeting,
    Relation,
    SequenceCounts,
    Server,
    SongCounts,
    count_duplicates,
    count_meeting,
    count_sequences,
    count_songs,
    naive_times_read,
    read_queue,
    read_server,
    relations_read,
    scanned_tables,
    visible_rows,
    zones_named,
)
from storage.source import SourceColumns, check_contract

SHORT_SEQUENCE = 5
# Below these a test part of one twentieth holds less than three sequences, and no figure means anything.
LEAST_SEQUENCES, LEAST_ROWS = 50, 300
# Where fewer rows have a song that another sequence holds as well, songs are too rarely seen twice to be learned.
LEAST_SHARED = 0.5

# Measured with default settings on one thread of a two-core machine, at 2,000, 20,000 and 100,000 songs: CPU seconds of one pass
# per row, and peak memory.
SECONDS_PER_ROW, SECONDS_PER_ROW_AND_SONG = 1e-4, 5e-9
MEGABYTES, MEGABYTES_PER_SONG, MEGABYTES_PER_ROW = 640, 0.008, 4e-5


class Level(Enum):
    """How a finding is meant."""

    OK = "ok"
    NOTE = "note"  # works, and should be known
    PROBLEM = "PROBLEM"  # does not work, or not as meant


OWN_PLAYS = "music.listen"  # has the index that fits; a listener's sessions are numbered from all of their plays


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the screen."""

    topic: str
    text: str
    level: Level = Level.OK


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The last line of the screen."""

    is_enough: bool
    text: str


def main(argv: Sequence[str] | None = None) -> int:
    """Print the screen; 0 when it will work, 1 when not."""
    parser = argparse.ArgumentParser(prog="cli.py doctor", description="Will it work on these tables, and why not?")
    add_arguments(parser, "database", "training")
    config = config_from_arguments(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    findings, verdict = diagnose(config)
    print(screen(findings, verdict))
    return 0 if verdict.is_enough and not any(finding.level is Level.PROBLEM for finding in findings) else 1


def screen(findings: Sequence[Finding], verdict: Verdict) -> str:
    """One line per finding, problems marked, and the verdict."""
    lines = [f"{finding.level.value:<8} {finding.topic:<11} {finding.text}" for finding in findings]
    return "\n".join([*lines, "", verdict.text])


def diagnose(config: Config) -> tuple[list[Finding], Verdict]:
    """Ask everything that can be asked; what stands on an answer that did not come is left out."""
    findings: list[Finding] = []
    try:
        with (
            database_url(config.database) as url,
            connect(url, connect_timeout_seconds=config.database.connect_timeout_seconds) as connection,
        ):
            connection.read_only = True
            server = read_server(connection)
            findings += [connection_line(server), *rights_lines(server)]
            verdict = _diagnose_tables(connection, config, findings)
            findings.append(queue_line(connection))
            return findings, verdict
    except DatabaseError as exc:
        topic = "queries" if findings else "connection"
        findings.append(Finding(topic=topic, text=str(exc), level=Level.PROBLEM))
        return findings, Verdict(is_enough=False, text=f"It will not work: {exc}")


def _diagnose_tables(connection: Connection, config: Config, findings: list[Finding]) -> Verdict:
    queries = config.database.queries_folder
    relations = relations_read(connection, queries)
    findings += hidden_lines(relations, lambda relation: visible_rows(connection, relation))
    columns = check_contract(connection, queries)
    findings.append(contract_line(columns, queries))
    songs = count_songs(connection, queries, columns)
    sequences = count_sequences(connection, queries, columns, least=SHORT_SEQUENCE)
    meeting = count_meeting(connection, queries)
    findings += [songs_line(songs), *sequence_lines(sequences, columns), *time_lines(relations, queries)]
    findings += [orphans_line(meeting, sequences), duplicates_line(connection, queries, columns, songs), features_line(songs)]
    findings += [index_line(scanned_tables(connection, queries)), estimate_line(config, songs, meeting, sequences)]
    return verdict_of(sequences, meeting)


# --- the server --------------------------------------------------------------------------------------------------------------


def connection_line(server: Server) -> Finding:
    """That there is a server, and who we are on it."""
    return Finding(topic="connection", text=f"PostgreSQL {server.version}, as {server.role}")


def rights_lines(server: Server) -> Iterator[Finding]:
    """Rights that a service should not have."""
    too_much = ["is a superuser"] if server.is_superuser else []
    if not server.is_superuser:
        too_much += ["may create schemas"] if server.may_create_schemas else []
        too_much += [f"may create tables in {', '.join(server.may_create_in)}"] if server.may_create_in else []
    if too_much:
        text = f"{server.role} {', '.join(too_much)}: fine for setting up; let the service use the role that setup.sql makes"
        yield Finding(topic="rights", text=text, level=Level.NOTE)
    else:
        yield Finding(topic="rights", text="the role can create nothing")


def queue_line(connection: Connection) -> Finding:
    """Whether requests can be made in this database."""
    queue = read_queue(connection)
    if not queue.is_there:
        text = "the schema recommender is not there: training works; to ask for songs, the owner runs setup.sql"
        return Finding(topic="requests", text=text, level=Level.NOTE)
    if not queue.is_usable:
        text = "this role may not read recommender.request: the owner runs setup.sql"
        return Finding(topic="requests", text=text, level=Level.PROBLEM)
    return Finding(topic="requests", text="the schema recommender is there for this role")


# --- the tables --------------------------------------------------------------------------------------------------------------


def contract_line(columns: SourceColumns, queries: Path) -> Finding:
    """That the queries run and yield what they must."""
    ids = f"song_id {columns.songs['song_id']}, sequence_id {columns.sequences['sequence_id']}"
    return Finding(topic="queries", text=f"{queries} keeps the contract; {ids}")


def hidden_lines(relations: Sequence[Relation], count: Callable[[Relation], int]) -> Iterator[Finding]:
    """Tables of which row-level security shows this role nothing, or only a part, without an error."""
    for relation in relations:
        if not relation.is_filtered or not relation.may_read:
            continue
        try:
            seen, there = count(relation), relation.n_rows
        except SchemaError as exc:
            text = f"row-level security of {relation} asks for what this role may not read ({exc}); setup.sql has a policy for it"
            yield Finding(topic="hidden rows", text=text, level=Level.PROBLEM)
            continue
        if seen == 0 and there != 0:
            about = f"about {there:,} rows" if there else "an unknown number of rows"
            text = f"row-level security hides {relation}: 0 of {about} and no error; it needs a policy for this role (setup.sql)"
            yield Finding(topic="hidden rows", text=text, level=Level.PROBLEM)
        elif there is not None and seen < 0.9 * there:
            text = f"row-level security shows {seen:,} of about {there:,} rows of {relation}"
            yield Finding(topic="hidden rows", text=text, level=Level.NOTE)


def songs_line(songs: SongCounts) -> Finding:
    """How many songs there are."""
    again = songs.n_rows - songs.n_songs
    if not songs.n_songs:
        return Finding(topic="songs", text="songs.sql yields no row", level=Level.PROBLEM)
    if again:
        text = f"{songs.n_songs:,} songs, and {again:,} rows that repeat one or have no id: a join with several rows per song"
        return Finding(topic="songs", text=text, level=Level.NOTE)
    return Finding(topic="songs", text=f"{songs.n_songs:,} songs")


def sequence_lines(sequences: SequenceCounts, columns: SourceColumns) -> Iterator[Finding]:
    """Sizes, shares of short ones, and whether the order is known."""
    n = sequences.n_sequences
    if not n:
        yield Finding(topic="sequences", text="sequences.sql yields no row", level=Level.PROBLEM)
        return
    sizes = f"{n:,} with {sequences.n_rows:,} songs; median {sequences.median}, longest {sequences.longest:,}"
    short = f"; {sequences.n_short:,} ({_share(sequences.n_short, n)}) shorter than {SHORT_SEQUENCE}"
    level = Level.NOTE if sequences.n_short > n / 2 else Level.OK
    yield Finding(topic="sequences", text=sizes + short, level=level)
    yield order_line(sequences, columns)


def order_line(sequences: SequenceCounts, columns: SourceColumns) -> Finding:
    """By what the songs of a sequence are ordered, and where that fails."""
    n = sequences.n_sequences
    if "position" in columns.sequences:
        wrong, how, why = sequences.n_shared_positions, "by position", "have a position missing or twice"
    elif "listened_at" in columns.sequences:
        wrong, how, why = sequences.n_at_one_time, "by time", "have all songs at one time"
    else:
        text = "not known: neither position nor listened_at; what follows what cannot be learned, only what goes together"
        return Finding(topic="order", text=text, level=Level.NOTE)
    if wrong:
        return Finding(topic="order", text=f"{how}, but {wrong:,} sequences ({_share(wrong, n)}) {why}", level=Level.NOTE)
    return Finding(topic="order", text=how)


def time_lines(relations: Sequence[Relation], queries: Path) -> Iterator[Finding]:
    """Times without a zone, and the zone that the queries read them in."""
    naive = naive_times_read(list(relations), queries)
    if naive:
        zones = zones_named(queries)
        zone = f"read as {', '.join(zones)}" if zones else "and the queries name no zone, so the session's counts"
        text = f"{', '.join(naive)}: stored without a zone, {zone}; if that is wrong, map again with --time-zone"
        yield Finding(topic="times", text=text, level=Level.NOTE)


def orphans_line(meeting: Meeting, sequences: SequenceCounts) -> Finding:
    """Songs of sequences that the songs query lacks."""
    if not meeting.n_orphans:
        return Finding(topic="orphans", text="none: every song of the sequences is in songs.sql")
    share = _share(meeting.n_orphan_rows, sequences.n_rows)
    text = f"{meeting.n_orphans:,} songs ({share} of the rows) are not in songs.sql: they are kept, without artist and features"
    return Finding(topic="orphans", text=text, level=Level.NOTE)


def duplicates_line(connection: Connection, queries: Path, columns: SourceColumns, songs: SongCounts) -> Finding:
    """Recordings that are there under several ids."""
    found = count_duplicates(connection, queries, columns)
    if not found.n_duplicates:
        return Finding(topic="duplicates", text="none found by ISRC, or by title, artist and length")
    text = (
        f"{found.n_duplicates:,} of {songs.n_songs:,} songs ({_share(found.n_duplicates, songs.n_songs)}) repeat a recording: "
        f"{found.n_by_isrc:,} by ISRC, {found.n_by_title:,} by title, artist and length within 3 s; "
        "each is learned and recommended by itself"
    )
    return Finding(topic="duplicates", text=text, level=Level.NOTE)


def features_line(songs: SongCounts) -> Finding:
    """How many songs have each feature."""
    if not songs.n_known:
        return Finding(
            topic="features", text="none: songs that nobody has heard are placed by artist and album alone", level=Level.NOTE
        )
    shares = sorted(songs.n_known.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {_share(known, songs.n_rows)}" for name, known in shares)
    return Finding(topic="features", text=text)


def index_line(scanned: Sequence[str]) -> Finding:
    """Whether one sequence is found without reading a whole table."""
    if scanned:
        if all(table == OWN_PLAYS for table in scanned):
            text = f"reading a session reads all of {OWN_PLAYS}: it is most of it anyway where there are few listeners"
            return Finding(topic="one by id", text=text, level=Level.NOTE)
        text = f"reading one sequence reads all of {', '.join(scanned)}: make an index on what sequence_by_id.sql compares"
        return Finding(topic="one by id", text=text, level=Level.PROBLEM)
    return Finding(topic="one by id", text="no large table is read as a whole to find one sequence")


def estimate_line(config: Config, songs: SongCounts, meeting: Meeting, sequences: SequenceCounts) -> Finding:
    """What training will need, from measured rates."""
    n_songs = max(songs.n_songs, meeting.n_heard) + meeting.n_orphans
    seconds = sequences.n_rows * (SECONDS_PER_ROW + SECONDS_PER_ROW_AND_SONG * n_songs)
    megabytes = MEGABYTES + MEGABYTES_PER_SONG * n_songs + MEGABYTES_PER_ROW * sequences.n_rows
    text = (
        f"about {_duration(seconds)} a pass on one core, {config.training.num_epochs} passes at most, and {_memory(megabytes)} "
        "(an estimate for default sizes)"
    )
    return Finding(topic="training", text=text)


def verdict_of(sequences: SequenceCounts, meeting: Meeting) -> Verdict:
    """Enough data, or why not."""
    usable = sequences.n_sequences - sequences.n_short
    shared = meeting.n_rows_shared / sequences.n_rows if sequences.n_rows else 0.0
    reasons = []
    if usable < LEAST_SEQUENCES:
        reasons.append(f"{usable:,} sequences have {SHORT_SEQUENCE} songs or more, {LEAST_SEQUENCES} are needed")
    if sequences.n_rows < LEAST_ROWS:
        reasons.append(f"they have {sequences.n_rows:,} songs together, {LEAST_ROWS} are needed")
    if sequences.n_rows and shared < LEAST_SHARED:
        reasons.append(
            f"only {shared:.0%} of the rows have a song that a second sequence holds too, {LEAST_SHARED:.0%} are needed"
        )
    if reasons:
        return Verdict(is_enough=False, text=f"Not enough data, because {'; and '.join(reasons)}.")
    return Verdict(is_enough=True, text=f"Enough data: {usable:,} sequences of {SHORT_SEQUENCE} songs or more.")


# --- figures -----------------------------------------------------------------------------------------------------------------


def _share(part: int, whole: int) -> str:
    """A share in per cent, never rounded to all or nothing."""
    if not 0 < part < whole:
        return "0 %" if part == 0 else "100 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


def _duration(seconds: float) -> str:
    return (
        f"{max(seconds, 1):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    )


def _memory(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
