"""From provisional song numbers and raw columns to fitted encoders and what they make of songs and sequences.

Letters: V song numbers, the three specials included; F features; R rows of all sequences.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN
from encoder_files import Encoders
from preparation.reading import Catalogue, Sequences
from preparation.splitting import TrainingPart
from preprocessing_utils import FeatureEncoder, IdEncoder

log = logging.getLogger(__name__)

SONGS_PER_BLOCK = 100_000


@dataclass(frozen=True, kw_only=True)
class SongColumns:
    """What the snapshot says of each song, by its final number."""

    artist: np.ndarray  # (V,) int32
    album: np.ndarray  # (V,) int32
    features: np.ndarray  # (V, F) float32


def fit_encoders(catalogue: Catalogue, training: TrainingPart, known: Encoders | None = None) -> Encoders:
    """Fit all encoders on the training part; ids from elsewhere are appended in their own order, beyond `n_fitted`.

    Albums and artists rank by the training rows of their songs; scales and categories come from the training songs, each once.
    The ids of `known` keep their numbers, and new ones follow behind them: see `IdEncoder.grow` for what `n_fitted` means then.
    """
    counts = training.counts[FIRST_NUMBER:]
    of_catalogue = training.counts[catalogue.numbers]
    encoders = Encoders(
        songs=_fit_ids(IdEncoder("song"), known.songs if known else None, catalogue.songs.ids, counts),
        albums=_fit_ids(IdEncoder("album"), known.albums if known else None, catalogue.album_ids, of_catalogue),
        artists=_fit_ids(IdEncoder("artist"), known.artists if known else None, catalogue.artist_ids, of_catalogue),
        features=FeatureEncoder().fit(_frame(catalogue.features.take(pa.array(np.flatnonzero(of_catalogue))))),
    )
    for encoder in (encoders.songs, encoders.albums, encoders.artists):
        n_fitted, n_all = encoder.n_fitted - FIRST_NUMBER, len(encoder) - FIRST_NUMBER
        log.info("encode: %d %ss, training holds numbers up to %d of them", n_all, encoder.kind, n_fitted)
    return encoders


def _fit_ids(encoder: IdEncoder, known: IdEncoder | None, ids: pa.Array, counts: np.ndarray) -> IdEncoder:
    before = pa.nulls(0) if known is None else known.ids
    return encoder.extend(before).grow(ids, counts)


def encode_songs(catalogue: Catalogue, encoders: Encoders) -> SongColumns:
    """Artist, album and features of every song number; what nobody knows is UNKNOWN, or missing.

    PAD and MASK have artist and album PAD and MASK, and no features at all, not even missing ones.
    """
    V, F = len(encoders.songs), len(encoders.features.feature_names)
    numbers = encoders.songs.encode(catalogue.songs.ids)[catalogue.numbers - FIRST_NUMBER]
    artist, album = (_special_numbers(V) for _ in range(2))
    artist[numbers] = encoders.artists.encode(catalogue.artist_ids)
    album[numbers] = encoders.albums.encode(catalogue.album_ids)
    features = np.zeros((V, F), np.float32)
    features[UNKNOWN:] = encoders.features.encode(pd.DataFrame(index=[0]))
    for first in range(0, len(catalogue) if F else 0, SONGS_PER_BLOCK):  # a slice of no columns has no rows either
        block = slice(first, first + SONGS_PER_BLOCK)
        features[numbers[block]] = encoders.features.encode(_frame(catalogue.features[block]))
    log.info("encode: %d songs in, %d numbers with %d features out", len(catalogue), V, F)
    return SongColumns(artist=artist, album=album, features=features)


def _special_numbers(V: int) -> np.ndarray:
    column = np.full(V, UNKNOWN, np.int32)
    column[[PAD, MASK]] = PAD, MASK
    return column


def encode_sequences(sequences: Sequences, number: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of all sequences, (R,) int32 block after block; `number` gives the final number of each provisional one."""
    for songs, _ in sequences.blocks():
        yield number[songs]
    log.info("encode: %d rows of %d sequences renumbered", sequences.n_rows, len(sequences))


def _frame(table: pa.Table) -> pd.DataFrame:
    """Numeric Arrow columns as a frame of float64, null as NaN."""
    columns = {name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in table.column_names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))
