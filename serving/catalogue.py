"""What is known of every song by its number: artist, album, recording, features in their own units, popularity, names.

A model and its encoders make a catalogue by themselves (`SongCatalogue.of_model`), and so does a snapshot (`of_snapshot`).  Where
the database answers, `read_songs` reads it once, and `SongCatalogue.of` puts both together: names and features are then the
database's; songs that only the database has get the numbers behind the known ones, in the order of its rows, and so do their
artists and albums; songs that have left it stay known without being available.

Letters: V song numbers, the specials included; n rows of the query; N songs that the model does not know; F encoded features.
"""

import copy
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from config import FIRST_NUMBER, UNKNOWN
from encoder_files import Encoders
from errors import DatabaseError, EncoderError, SchemaError
from model import BERT4Rec
from preprocessing_utils import FeatureEncoder, IdEncoder, as_arrow
from serving.recordings import recording_numbers
from serving.search import TitleSearch
from snapshot import Snapshot
from storage.source import stream_songs

log = logging.getLogger(__name__)

IDS = ("song_id", "artist_id", "album_id")
TEXTS = ("title", "artist_name", "album_title", "isrc", "recording_mbid")
SONGS_PER_BLOCK = 100_000


# --- the songs of the database -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SongRows:
    """The songs query, n rows, read once; it can be put beside any model of this database."""

    song_ids: pa.Array
    artist_ids: pa.Array | None  # None where the query has no such column
    album_ids: pa.Array | None
    texts: Mapping[str, pa.Array]  # those of `TEXTS` that the query has, as strings
    features: Mapping[str, np.ndarray]  # every numeric column in its own unit, float32, NaN where unknown
    digest: str
    """The same for the same rows in the same order."""

    def __len__(self) -> int:
        """Rows; a song that a join has doubled counts twice."""
        return len(self.song_ids)


def read_songs(url: str, queries_folder: Path, encoders: Encoders) -> SongRows:
    """Read the songs query: which songs there are, their names, artists, albums and features.

    Raises DatabaseUnreachable or SchemaError when the query cannot be answered or breaks its contract, DatabaseError when it
    yields no song, and EncoderError when its song ids are of another type than those that the encoders know.
    """
    table = _read(url, queries_folder)
    ids = {name: _ids(table, name) for name in IDS}
    texts = {name: _text(table, name) for name in TEXTS if name in table.column_names}
    numeric = [name for name in table.column_names if name not in (*IDS, *TEXTS)]
    features = {name: _raw(encoders.features, name, table[name]) for name in numeric}
    rows = SongRows(
        song_ids=ids["song_id"],
        artist_ids=ids["artist_id"],
        album_ids=ids["album_id"],
        texts=texts,
        features=features,
        digest=_digest([*ids.values(), *texts.values(), *features.values()], table.column_names),
    )
    _require_same_type(encoders.songs, rows.song_ids)
    _give_back_memory()
    return rows


def _give_back_memory() -> None:
    """Return what Arrow holds ready for its next arrays: 200 to 400 MB after a million songs."""
    pa.default_memory_pool().release_unused()


def _read(url: str, queries_folder: Path) -> pa.Table:
    """The rows with a song id, without the columns that nobody asks for."""
    with stream_songs(url, queries_folder) as reader:
        names = reader.schema.names
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise SchemaError(f"songs.sql yields the column {doubled} twice: name one of them otherwise, or leave it out")
        wanted = [column.name for column in reader.schema if column.name in (*IDS, *TEXTS) or _is_number(column.type)]
        schema = pa.schema([reader.schema.field(name) for name in wanted])
        table = pa.Table.from_batches((batch.select(wanted) for batch in reader), schema)
    table = table.filter(pc.is_valid(table["song_id"])) if table["song_id"].null_count else table
    if not len(table):
        raise DatabaseError("the query songs returned no song: load songs, or correct songs.sql")
    return table.combine_chunks()


def _is_number(arrow_type: pa.DataType) -> bool:
    return pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type) or pa.types.is_boolean(arrow_type)


def _ids(table: pa.Table, name: str) -> pa.Array | None:
    if name not in table.column_names:
        return None
    try:
        return as_arrow(table[name], name.removesuffix("_id"))
    except EncoderError as exc:
        raise SchemaError(f"{name} in songs.sql cannot be used: {exc}") from exc


def _text(table: pa.Table, name: str) -> pa.Array:
    try:
        return table[name].cast(pa.string()).combine_chunks()
    except pa.ArrowException as exc:
        raise SchemaError(f"{name} in songs.sql is {table[name].type}, which is no text: cast it ({name}::text)") from exc


def _raw(encoder: FeatureEncoder, name: str, column: pa.ChunkedArray) -> np.ndarray:
    values = pd.Series(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return encoder.usable(name, values).astype(np.float32)


def _digest(columns: list[pa.Array | np.ndarray | None], names: list[str]) -> str:
    """SHA-256 over the names of the columns and what stands in them."""
    digest = hashlib.sha256(repr(names).encode())
    for column in columns:
        buffers = [] if column is None else [column.data] if isinstance(column, np.ndarray) else column.buffers()
        for buffer in buffers:
            digest.update(b"" if buffer is None else buffer)
    return digest.hexdigest()


def _require_same_type(songs: IdEncoder, ids: pa.Array) -> None:
    """Raise EncoderError unless the encoder's songs and these ids are of one type."""
    found = IdEncoder("song").extend(ids.slice(0, 1)).id_type
    if songs.id_type is not None and found != songs.id_type:
        raise EncoderError(
            f"song ids are of type {found} in the database and {songs.id_type} in the model, which was trained on another "
            "database: train on this one, or name the one that belongs to the model"
        )


# --- the catalogue -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SongCatalogue:
    """Columns of all songs by number, V rows each, the specials included.  Nothing in it changes."""

    encoders: Encoders = field(repr=False)
    """Those of the model; where the database was read, with the songs, artists and albums appended that only it has."""
    artists: np.ndarray  # (V,) int64 artist numbers; a special where unknown
    albums: np.ndarray  # (V,) int64
    recordings: np.ndarray  # (V,) int32: two editions of one recording share a number
    features: Mapping[str, np.ndarray]  # name -> (V,) float32 in its own unit, NaN where unknown
    popularity: np.ndarray  # (V,) float32 training lists that hold the song; 0 for new songs
    is_available: np.ndarray  # (V,) bool: may be recommended; not the specials, nor what the database no longer has
    titles: pa.Array = field(repr=False)  # (V,) string, null where unknown
    artist_names: pa.Array = field(repr=False)
    album_titles: pa.Array = field(repr=False)
    searched: TitleSearch | None = field(repr=False, default=None)  # None where no title is known
    digest: str | None = None  # of the rows of the database; None where it was not read

    def __len__(self) -> int:
        """V, the specials included."""
        return len(self.artists)

    @property
    def songs(self) -> IdEncoder:
        """Ids of all songs to numbers and back."""
        return self.encoders.songs

    @property
    def availability(self) -> np.ndarray | None:
        """`is_available`, or None where all songs are, the specials aside."""
        return None if self.is_available[FIRST_NUMBER:].all() else self.is_available

    @classmethod
    def of_model(cls, model: BERT4Rec, encoders: Encoders) -> "SongCatalogue":
        """What a loaded model and its encoders say by themselves: no names, and every recording is another."""
        songs = model.embedding
        columns = [column.cpu().numpy() for column in (songs.song_artist, songs.song_album, songs.song_features)]
        plays = np.zeros(len(columns[0])) if model.memory is None else model.memory.song_plays[0].cpu().numpy()
        return cls._of_columns(encoders, *columns, popularity=plays)

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot, encoders: Encoders) -> "SongCatalogue":
        """What a snapshot and its encoders say by themselves; popularity counts the rows with a song."""
        columns = [np.asarray(column) for column in (snapshot.song_artist, snapshot.song_album, snapshot.song_features)]
        plays = np.bincount(snapshot.sequences, minlength=snapshot.n_songs)
        plays[:FIRST_NUMBER] = 0
        return cls._of_columns(encoders, *columns, popularity=plays)

    @classmethod
    def _of_columns(
        cls, encoders: Encoders, artists: np.ndarray, albums: np.ndarray, features: np.ndarray, *, popularity: np.ndarray
    ) -> "SongCatalogue":
        V = len(artists)
        no_names = pa.nulls(V, pa.string())
        return cls(
            encoders=encoders,
            artists=artists.astype(np.int64),
            albums=albums.astype(np.int64),
            recordings=np.arange(V, dtype=np.int32),
            features=_decoded(features, encoders.features),
            popularity=popularity.astype(np.float32),
            is_available=np.arange(V) >= FIRST_NUMBER,
            titles=no_names,
            artist_names=no_names,
            album_titles=no_names,
        )

    @classmethod
    def of(cls, by_itself: "SongCatalogue", rows: SongRows) -> "SongCatalogue":
        """The catalogue of a model (or snapshot), corrected and continued by the database; the given one stays as it is.

        Of several rows of a song the first counts.  Of a song that the database has lost stays what was known of it.  Raises
        EncoderError when the songs are not those of the model: their ids are of another type, or not one is the same.
        """
        _require_same_type(by_itself.songs, rows.song_ids)
        songs, numbers = _numbered(by_itself.songs, rows.song_ids)
        places = Places.of(numbers, len(songs))
        _require_own_songs(places, len(by_itself))
        artists, artist_of_row = _numbered_if_any(by_itself.encoders.artists, rows.artist_ids)
        albums, album_of_row = _numbered_if_any(by_itself.encoders.albums, rows.album_ids)
        features = {name: places.laid_out(None, column, np.nan) for name, column in by_itself.features.items()}
        features |= {name: places.laid_out(column, features.get(name), np.nan) for name, column in rows.features.items()}
        titles, artist_names, album_titles, isrc, mbid = (places.texts(rows.texts.get(name)) for name in TEXTS)
        popularity = places.laid_out(None, by_itself.popularity, 0)
        searched = TitleSearch.over(titles, artist_names, popularity) if titles.null_count < len(titles) else None
        log.info("%d songs in the database, %d of them new to the model", len(rows), len(songs) - len(by_itself))
        _give_back_memory()
        return cls(
            encoders=replace(by_itself.encoders, songs=songs, artists=artists, albums=albums),
            artists=places.laid_out(artist_of_row, by_itself.artists, UNKNOWN),
            albums=places.laid_out(album_of_row, by_itself.albums, UNKNOWN),
            recordings=recording_numbers(
                len(songs), isrc=isrc, mbid=mbid, title=titles, artist_name=artist_names, duration_ms=features.get("duration_ms")
            ),
            features=features,
            popularity=popularity,
            is_available=places.row >= 0,
            titles=titles,
            artist_names=artist_names,
            album_titles=album_titles,
            searched=searched,
            digest=rows.digest,
        )

    def grown(self, model: BERT4Rec) -> BERT4Rec:
        """The model with the songs appended that it lacks; the model itself where it lacks none."""
        new = slice(model.n_songs, len(self))
        if model.n_songs == len(self):
            return model
        encoder = self.encoders.features
        raw = {name: self.features[name][new] for name in encoder.raw_columns if name in self.features}
        features = encoder.encode(pd.DataFrame(raw, index=pd.RangeIndex(len(self) - model.n_songs)))
        return model.grown(*(torch.from_numpy(column) for column in (self.artists[new], self.albums[new], features)))

    def search(self, text: str, limit: int = 20) -> np.ndarray:
        """The numbers of at most `limit` songs whose title or artist hold all words of a text, best first, (k,) int64.

        See `TitleSearch.find`.  Nothing for a text without a word, or where no title is known.
        """
        return np.empty(0, np.int64) if self.searched is None else self.searched.find(text, limit)

    def describe(self, number: int) -> dict[str, Any]:
        """Names and features of a song as plain values for JSON; a name that is not known is None, a feature left out.

        `{"title": "Rise", "artist": "Nova", "album": None, "features": {"tempo": 120.5}}`
        """
        values = {name: column[number] for name, column in self.features.items()}
        return {
            "title": self.titles[number].as_py(),
            "artist": self.artist_names[number].as_py(),
            "album": self.album_titles[number].as_py(),
            # In as few digits as float32 has: 120.1 and not 120.0999984741211.
            "features": {name: float(str(value)) for name, value in values.items() if not np.isnan(value)},
        }


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where each song number stands in the rows of the database."""

    row: np.ndarray  # (V,) int64, -1 for a song that has no row

    @classmethod
    def of(cls, numbers: np.ndarray, n_songs: int) -> "Places":
        """From the number of each row; of several rows of a song the first counts."""
        row = np.full(n_songs, -1)
        row[numbers[::-1]] = np.arange(len(numbers))[::-1]  # what is written last stays
        return cls(row=row)

    def laid_out(self, of_row: np.ndarray | None, known: np.ndarray | None, unknown: float) -> np.ndarray:
        """A column by song number, (V,): of the rows (None: there is none), else what was `known` of the first songs."""
        given = of_row if known is None else known
        assert given is not None
        column = np.full(len(self.row), unknown, given.dtype)
        if known is not None:
            column[: len(known)] = known
        if of_row is not None:
            there = self.row >= 0
            column[there] = of_row[self.row[there]]
        return column

    def texts(self, of_row: pa.Array | None) -> pa.Array:
        """A column of texts by song number, (V,) string; null where there is none."""
        if of_row is None:
            return pa.nulls(len(self.row), pa.string())
        return of_row.take(pa.array(self.row, mask=self.row < 0))


def _numbered(encoder: IdEncoder, ids: pa.Array) -> tuple[IdEncoder, np.ndarray]:
    """An encoder that knows all of `ids`, and their numbers, (n,) int64; the given encoder stays as it is."""
    extended = copy.copy(encoder).extend(ids)
    return extended, extended.encode(ids).astype(np.int64)


def _numbered_if_any(encoder: IdEncoder, ids: pa.Array | None) -> tuple[IdEncoder, np.ndarray | None]:
    return (encoder, None) if ids is None else _numbered(encoder, ids)


def _require_own_songs(places: Places, n_known: int) -> None:
    if n_known > FIRST_NUMBER and (places.row[:n_known] < 0).all():
        raise EncoderError(
            f"none of the {n_known - FIRST_NUMBER} songs of the model is in the database, so it was trained on another one: "
            "train on this database, or name the one that belongs to the model"
        )


def _decoded(features: np.ndarray, encoder: FeatureEncoder) -> dict[str, np.ndarray]:
    """Encoded features (V, F) in their own units, (V,) float32 each, NaN where missing; the specials have none."""
    decoded = {name: np.full(len(features), np.nan, np.float32) for name in encoder.raw_columns}
    for first in range(FIRST_NUMBER, len(features), SONGS_PER_BLOCK):
        block = slice(first, first + SONGS_PER_BLOCK)
        for name, column in encoder.decode(features[block]).items():
            decoded[str(name)][block] = column.to_numpy()
    return decoded
