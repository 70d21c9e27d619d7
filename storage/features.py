"""Songs of the schema `music` that lie in files and have no features yet, and the features computed of them.

Every function takes a connection first and leaves the commit to its caller.
"""

from dataclasses import dataclass

from psycopg.rows import class_row

from storage.connections import Connection
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "features.sql")


@dataclass(frozen=True, kw_only=True)
class SongFile:
    """A song without features."""

    song_id: str
    location: str
    """Of its file: a path of this system or of another one."""


def count_songs_without(connection: Connection) -> int:
    """How many songs lie in files and have no features of any source."""
    row = connection.execute(_SQL["count_songs_without"]).fetchone()
    assert row is not None, "an aggregate always gives a row"
    return int(row[0])


def songs_without(connection: Connection, *, after: str | None, at_most: int) -> list[SongFile]:
    """The next of them in the order of their ids; `after` None begins."""
    with connection.cursor(row_factory=class_row(SongFile)) as cursor:
        return cursor.execute(_SQL["songs_without"], {"after": after, "at_most": at_most}).fetchall()


def store(
    connection: Connection,
    song_id: str,
    *,
    tempo: float | None,
    key: int | None,
    mode: int | None,
    loudness: float | None,
    energy: float | None,
    source: str | None,
) -> bool:
    """Give a song its features, and tell whether it still had none and was still there."""
    values = {"tempo": tempo, "key": key, "mode": mode, "loudness": loudness, "energy": energy, "source": source}
    return connection.execute(_SQL["store"], {"song_id": song_id, **values}).rowcount == 1
