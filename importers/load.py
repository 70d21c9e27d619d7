"""From an importer's rows to the schema `music`: copied, checked, brought, and counted.

An importer delivers a `History`: iterators of the three kinds of rows below, each with the line it came from.  Rows are pulled
from them while they are copied, so memory does not grow with the files.  Nothing that lasts changes before every row was read and
the ids were found free: a DataError leaves the database as it was, whatever the caller does next.  The caller commits.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, NamedTuple

from tqdm import tqdm

from errors import DataError
from importers.fields import RESERVED_PREFIX
from importers.tally import Count, Kind, Tally
from storage import imports
from storage.connections import Connection
from storage.imports import Brought, Foreign, Repeated, Staged

ROWS_PER_BLOCK = 10_000  # about 1 MB of text


# The three kinds of rows are tuples, in the order in which imports.sql copies them: a frozen dataclass costs three times as much
# to make, and there are millions.
class Song(NamedTuple):
    """What a file knows of one song; None where it does not."""

    line: int
    song_id: str
    title: str | None = None
    artist_id: str | None = None
    artist_name: str | None = None
    album_id: str | None = None
    album_title: str | None = None
    all_artist_ids: str | None = None
    """Separated by semicolons, the primary artist included."""
    disc_number: int | None = None
    track_number: int | None = None
    duration_ms: int | None = None
    explicit: bool | None = None
    danceability: float | None = None
    energy: float | None = None
    key: int | None = None
    loudness: float | None = None
    mode: int | None = None
    speechiness: float | None = None
    acousticness: float | None = None
    instrumentalness: float | None = None
    liveness: float | None = None
    valence: float | None = None
    tempo: float | None = None
    time_signature: int | None = None
    isrc: str | None = None
    recording_mbid: str | None = None
    release_date: date | None = None
    feature_source: str | None = None


class Playlist(NamedTuple):
    """What a file knows of one playlist, or of one dated version of it."""

    line: int
    playlist_id: str
    name: str | None = None
    group_id: str | None = None
    """Shared by the versions of one list."""
    user_id: str | None = None
    chunk: int | None = None
    """Which piece of a user's history this is."""
    created_at: datetime | None = None


class PlaylistRow(NamedTuple):
    """One song at one place of a playlist; `position` None where the order is that of `added_at`."""

    line: int
    playlist_id: str
    position: int | None
    song_id: str
    added_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class History:
    """The rows of one import and the names of the files they come from; songs are read first, playlists last."""

    songs: Iterable[Song]
    playlists: Iterable[Playlist]
    rows: Iterable[PlaylistRow]
    order: Literal["position", "time"]
    """time: rows are placed by `added_at`; where that is the same, by their line."""
    files: Mapping[Kind, str]
    """The name of the file of songs, playlists and rows, for messages."""


def load(connection: Connection, history: History, tally: Tally, *, prefix: str | None = None, progress: bool = True) -> None:
    """Bring a history into the schema `music` under the tally's source, and enter the counts.

    A field that the file leaves empty keeps what the database knows; a playlist whose rows differ is replaced as a whole.
    `prefix` puts "prefix:" before all ids.  Raises DataError when a file cannot be read, or an id belongs to another source.
    """
    if prefix is not None:
        _check_prefix(prefix)
    imports.begin(connection)
    _stage(connection, "songs", history.songs, progress)
    _stage(connection, "rows", history.rows, progress)
    _stage(connection, "playlists", history.playlists, progress)
    if prefix is not None:
        imports.prefix_ids(connection, f"{prefix}:")
    _drop_repeated(connection, history, tally)
    tally.bare_songs = imports.complete_staging(connection)
    check_sources(connection, tally.source)
    _bring(connection, tally)


def _check_prefix(prefix: str) -> None:
    if not re.fullmatch(r"[\w.-]{1,50}", prefix) or f"{prefix}:" == RESERVED_PREFIX:
        raise DataError(f"prefix {prefix!r} cannot be used: give 1 to 50 letters, digits, '.', '_' or '-', and not 'listen'")


def _stage(connection: Connection, table: Staged, rows: Iterable[NamedTuple], progress: bool) -> None:
    shown = tqdm(rows, desc=f"reading {table}", unit=" rows", disable=None if progress else True)  # None: only on a terminal
    imports.copy(connection, table, _csv_blocks(shown))


def _csv_blocks(rows: Iterable[NamedTuple]) -> Iterator[str]:
    remaining = iter(rows)
    while block := list(itertools.islice(remaining, ROWS_PER_BLOCK)):
        text = io.StringIO()
        # with \r\n as the end of a line, the writer quotes a field that holds either of the two, as COPY demands
        csv.writer(text, lineterminator="\r\n").writerows(block)
        yield text.getvalue()


def _drop_repeated(connection: Connection, history: History, tally: Tally) -> None:
    def note(kind: Kind, reason: str, repeated: Repeated) -> None:
        if repeated.first_line is not None:
            tally.skip(kind, reason, f"{history.files[kind]} line {repeated.first_line}", count=repeated.count)

    note("songs", "song_id was there before", imports.drop_repeated(connection, "songs"))
    note("playlists", "playlist_id was there before", imports.drop_repeated(connection, "playlists"))
    note("rows", "its place in the playlist is taken", imports.place_rows(connection, history.order))


def check_sources(connection: Connection, source: str) -> None:
    """Raise DataError when a staged song or playlist has an id of another source."""
    for table in ("song", "playlist"):
        taken = imports.foreign(connection, table, source)
        if taken is not None:
            raise DataError(_conflict(table, taken, source))


def _conflict(table: str, taken: Foreign, source: str) -> str:
    owner = "rows without a source" if taken.source is None else f"source {taken.source!r}"
    return f"{table} id {taken.id!r} of source {source!r} is in use by {owner}: import with --prefix NAME to keep the two apart"


def _bring(connection: Connection, tally: Tally) -> None:
    artists = imports.bring_artists(connection)
    albums = imports.bring_albums(connection)
    songs = imports.bring_songs(connection, tally.source)
    playlists, rows = imports.bring_playlists(connection, tally.source)
    brought: dict[Kind, Brought] = {"songs": songs, "artists": artists, "albums": albums, "playlists": playlists, "rows": rows}
    tally.counts = {kind: _count(outcome, tally.skipped_of(kind)) for kind, outcome in brought.items()}


def _count(brought: Brought, skipped: int) -> Count:
    return Count(
        read=brought.staged + skipped,
        added=brought.added,
        updated=brought.updated,
        removed=brought.removed,
        already_there=brought.staged - brought.added - brought.updated,
    )
