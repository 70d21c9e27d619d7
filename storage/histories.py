"""Plays, opinions and playlists on their way into the schema `music`: staged, their songs found or made, brought.

The order of the calls is that of `importers.bring`.  Every function takes a connection first and leaves the commit to its caller;
the temporary tables end with the transaction.  Playlists go on through `storage.imports`, whose tables must have been begun.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from psycopg.rows import class_row

from storage.connections import Connection
from storage.imports import Brought
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "histories.sql")

Staged = Literal["heard", "key", "play", "opinion", "place", "keyless"]
"""The temporary tables that are copied into; their columns are those of histories.sql, in that order."""

KINDS = ("spotify", "mbid", "isrc", "msid", "item", "location", "name")
"""Kinds of keys, the one that says most first; songs are made in this order, so that a name finds the song that an id made."""


@dataclass(frozen=True, kw_only=True)
class KeylessSong:
    """A song that no key leads to yet."""

    song_id: str
    title: str | None
    artist: str | None
    isrc: str | None
    recording_mbid: str | None


@dataclass(frozen=True, kw_only=True)
class PlaysBefore:
    """Whether there are plays in the schema `music`, and whether other sources than this one told some of them."""

    has_any: bool
    has_others: bool


def begin(connection: Connection) -> None:
    """Make the temporary tables, empty."""
    connection.execute(_SQL["drop_staging"])
    connection.execute(_SQL["create_staging"])


def copy(connection: Connection, table: Staged, block: str) -> None:
    """Copy CSV lines (no header, empty for NULL) into a temporary table."""
    with connection.cursor() as cursor, cursor.copy(_SQL[f"copy_{table}"]) as sink:
        sink.write(block)


def keyless_songs(connection: Connection, at_a_time: int) -> Iterator[list[KeylessSong]]:
    """Songs that came in by other ways and have no key, in blocks; enter their keys with `copy` and `enter_keyless`."""
    # A cursor of the server's, closed before anything is entered: it would not see what comes in meanwhile, and must not.
    with connection.cursor(name="keyless_songs", row_factory=class_row(KeylessSong)) as cursor:
        cursor.execute(_SQL["keyless"])
        while block := cursor.fetchmany(at_a_time):
            yield block


def enter_keyless(connection: Connection) -> None:
    """Enter the keys that were copied for songs without any."""
    connection.execute(_SQL["enter_keyless"])


def find_songs(connection: Connection, source: str) -> None:
    """Find the song of each staged ref, or make it; afterwards `resolved` has all of them, and every key leads to its song."""
    connection.execute(_SQL["analyze_staging"])
    kinds = {kind for (kind,) in connection.execute(_SQL["kinds"]).fetchall()}
    _resolve(connection)
    for kind in KINDS:
        if kind in kinds and connection.execute(_SQL["create_songs"], {"kind": kind, "source": source}).rowcount:
            connection.execute(_SQL["claim_keys"])
            _resolve(connection)


def bring_artists(connection: Connection) -> Brought:
    """Enter the artists of staged songs that have none yet."""
    return _brought(connection, "bring_artists")


def bring_albums(connection: Connection) -> Brought:
    """Enter the albums of staged songs that have none yet."""
    return _brought(connection, "bring_albums")


def fill_songs(connection: Connection) -> None:
    """Fill in what was not known of the staged songs, artists and albums included."""
    connection.execute(_SQL["fill_songs"])
    connection.execute(_SQL["fill_features"])


def count_songs(connection: Connection) -> Brought:
    """What became of all songs of the import."""
    return _brought(connection, "count_songs")


def plays_before(connection: Connection, source: str) -> PlaysBefore:
    """What there was before the import; asked once, since imports wait for each other."""
    with connection.cursor(row_factory=class_row(PlaysBefore)) as cursor:
        row = cursor.execute(_SQL["plays_before"], {"source": source}).fetchone()
    assert row is not None
    return row


def bring_plays(
    connection: Connection, source: str, before: PlaysBefore, same_play: timedelta, covered_by: str | None = None
) -> int:
    """Enter the staged plays that are not there yet, and return how many.

    What another source tells within `same_play` of a play is the same one.  What lies within the time that the source
    `covered_by` has told of a listener is left out.
    """
    if not before.has_any:
        return connection.execute(_SQL["bring_first_listens"], {"source": source}).rowcount
    connection.execute(_SQL["stage_listens"], {"source": source})
    if before.has_others:
        connection.execute(_SQL["drop_same_plays"], {"source": source, "span": same_play})
        if covered_by is not None:
            connection.execute(_SQL["drop_covered_plays"], {"covered_by": covered_by})
    return connection.execute(_SQL["bring_listens"], {"source": source}).rowcount


def clear(connection: Connection) -> None:
    """Make room for the next part of the import; songs stay known by their refs."""
    connection.execute(_SQL["clear_staging"])


def bring_opinions(connection: Connection) -> Brought:
    """Enter what listeners said of songs as feedback."""
    return _brought(connection, "bring_opinions")


def stage_playlists(connection: Connection, listener: str) -> None:
    """Hand the playlists over to `storage.imports.bring_playlists`."""
    connection.execute(_SQL["stage_playlists"], {"listener": listener})


def set_session_gap(connection: Connection, minutes: float) -> None:
    """Have a pause of more than so many minutes end a session."""
    connection.execute(_SQL["set_session_gap"], {"minutes": minutes})


def _resolve(connection: Connection) -> None:
    """Find what known keys lead to, enter the other keys of what was found, and find what these lead to."""
    while connection.execute(_SQL["resolve"]).rowcount:
        connection.execute(_SQL["claim_keys"])


def _brought(connection: Connection, query: str) -> Brought:
    with connection.cursor(row_factory=class_row(Brought)) as cursor:
        row = cursor.execute(_SQL[query]).fetchone()
    assert row is not None, "an aggregate always gives a row"
    return row
