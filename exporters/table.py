"""Writes a list as a table: CSV with Exportify's names of columns, JSON, and rows for a database."""

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import sql

from errors import DataError
from exporters.playlist import ExportedList, ExportedSong, Exporter, Target, Written, one_line
from storage.source import Id

MAX_IDENTIFIER_BYTES = 63  # PostgreSQL cuts longer names off

# A spreadsheet computes what begins like this, and a title may be anybody's.  With apostrophes before it, so that the one which
# is put there can be taken off again.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_HARMLESS_ID = re.compile(r"[A-Za-z0-9_:.-]*")  # computes nothing, and is to be the same in the next program


# --- CSV ---------------------------------------------------------------------------------------------------------------------


def write_csv(exported: ExportedList, target: Target) -> Written:
    """The list as CSV, which `cli.py import exportify` reads back, and `cli.py recommend --file`, and Spotify's helpers.

    UTF-8 without a byte order mark.  A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(_CSV_HEADER)
    rows.writerows([_guarded(cell) for cell in _csv_row(song, exported)] for song in exported.songs)
    return Written(text=text.getvalue())


_CSV_HEADER = (
    *("Playlist Name", "Track URI", "Track Name", "Artist Name(s)", "Album Name", "Track Duration (ms)", "ISRC", "Added At"),
    *("Recording MBID", "Artist MBID", "Release MBID", "Location", "song_id", "Rank", "Score", "Reasons", "Model"),
)


def _csv_row(song: ExportedSong, exported: ExportedList) -> Sequence[Any]:
    uri = f"spotify:track:{song.spotify_id}" if song.spotify_id else None
    return (
        *(exported.name, uri, song.title, song.artist, song.album, song.duration_ms, song.isrc, exported.created_at.isoformat()),
        *(song.recording_mbid, song.artist_mbid, song.release_mbid, song.location, song.song_id, song.rank, song.score),
        *("; ".join(song.reasons), exported.model_id),
    )


def _guarded(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) and not _HARMLESS_ID.fullmatch(cell) else cell


# --- JSON --------------------------------------------------------------------------------------------------------------------


def write_json(exported: ExportedList, target: Target) -> Written:
    """The list as one object with all that is known; fields that are not are null."""
    model = None if exported.model_id is None else {"model_id": exported.model_id, "version": exported.model_version}
    plain = {
        "name": exported.name,
        "created_at": exported.created_at.isoformat(),
        "model": model,
        "songs": [_json_song(song) for song in exported.songs],
    }
    return Written(text=json.dumps(plain, ensure_ascii=False, indent=2) + "\n")


def _json_song(song: ExportedSong) -> dict[str, Any]:
    plain = dict(vars(song)) | {"reasons": list(song.reasons), "spotify_id": song.spotify_id}
    return plain | {"song_id": str(song.song_id) if isinstance(song.song_id, UUID) else song.song_id}


# --- SQL ---------------------------------------------------------------------------------------------------------------------

_SQL_COLUMNS = (
    ("playlist_name", "text"),
    ("position", "integer"),
    ("song_id", ""),  # by the type of the ids
    ("title", "text"),
    ("artist", "text"),
    ("album", "text"),
    ("duration_ms", "integer"),
    ("isrc", "text"),
    ("recording_mbid", "uuid"),
    ("location", "text"),
    ("score", "double precision"),
    ("reasons", "text"),
    ("model_id", "text"),
    ("created_at", "timestamptz"),
)


def write_sql(exported: ExportedList, target: Target) -> Written:
    """The list as a script for psql: one transaction that makes the table where there is none, and puts the rows into it.

    Raises DataError for a name that no table can have.
    """
    table = sql.Identifier(*_table_parts(target.table))
    id_type = _id_type([song.song_id for song in exported.songs])
    types = [(name, type_name or id_type) for name, type_name in _SQL_COLUMNS]
    columns = sql.SQL(",\n    ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in types)
    script = [
        sql.SQL("-- a list of BERT4MusicRec\nBEGIN;\n"),
        sql.SQL("CREATE TABLE IF NOT EXISTS {} (\n    {}\n);\n").format(table, columns),
    ]
    if exported.songs:
        names = sql.SQL(", ").join(sql.Identifier(name) for name, _ in types)
        rows = sql.SQL(",\n").join(
            _sql_row(place, song, exported, str(song.song_id) if id_type == "text" else song.song_id)
            for place, song in enumerate(exported.songs, start=1)
        )
        script.append(sql.SQL("INSERT INTO {} ({}) VALUES\n{};\n").format(table, names, rows))
    return Written(text=sql.Composed([*script, sql.SQL("COMMIT;\n")]).as_string(None))


def _sql_row(place: int, song: ExportedSong, exported: ExportedList, song_id: Id) -> sql.Composed:
    values = (
        *(exported.name, place, song_id, song.title, song.artist, song.album, song.duration_ms, song.isrc),
        *(song.recording_mbid, song.location, song.score),
        *("; ".join(map(one_line, song.reasons)) or None, exported.model_id, exported.created_at),
    )
    return sql.SQL("    ({})").format(sql.SQL(", ").join(map(sql.Literal, values)))


def _id_type(ids: Sequence[Id]) -> str:
    kinds = {type(song_id) for song_id in ids}
    return "bigint" if kinds == {int} else "uuid" if kinds == {UUID} else "text"


def _table_parts(name: str) -> Sequence[str]:
    """A table, or schema and table with a dot between them."""
    parts = name.split(".")
    are_names = all(0 < len(part.encode(errors="replace")) <= MAX_IDENTIFIER_BYTES and part.isprintable() for part in parts)
    if len(parts) > 2 or not are_names:
        raise DataError(
            f"no table can be called {name!r}: write TABLE or SCHEMA.TABLE, each of up to {MAX_IDENTIFIER_BYTES} bytes"
        )
    return parts


CSV = Exporter(extension="csv", media_type="text/csv", title="CSV, which spreadsheets open", write=write_csv)
JSON = Exporter(extension="json", media_type="application/json", title="JSON, with all that is known", write=write_json)
SQL = Exporter(extension="sql", media_type="application/sql", title="rows for a database", write=write_sql)
