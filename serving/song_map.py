"""The map of a model's songs as the service shows it: read from beside the checkpoint, with names, and places for other songs.

`engine.song_map` makes it; what is not there, or is of other weights, is no map.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config import FIRST_NUMBER, UNKNOWN
from engine.checkpoint import MAP
from model import BERT4Rec
from serving.reasons import SongId, plain_id
from serving.recommender import Recommender

LARGEST_FILE_BYTES = 4_000_000
MOST_SONGS = 20_000
NEIGHBOURS = 5
SONGS_PER_BLOCK = 1_000  # placed at once: a block of (SONGS_PER_BLOCK, n) cosines
NO_MODEL = "there is no model yet, only counts of what stands together: train one"
NO_MAP = "this model has no map: python cli.py publish makes one, unless the setting map_songs is 0"


@dataclass(frozen=True, kw_only=True, eq=False)
class SongMap:
    """n songs and their places in the unit square."""

    method: str
    songs: np.ndarray  # (n,) int64 song numbers
    places: np.ndarray  # (n, 2) float64


def map_of(recommender: Recommender) -> SongMap | None:
    """The map of the model in service; None where there is none."""
    info = recommender.info
    if info is None or recommender.model_scorer is None:
        return None
    path = info.path / MAP
    try:
        status = path.stat()
    except OSError:
        return None
    return _read(path, status.st_mtime_ns, status.st_size, info.version, len(recommender.catalogue))


@functools.lru_cache(maxsize=2)
def _read(path: Path, written_at: int, size: int, version: str, n_songs: int) -> SongMap | None:
    """The map in a file that was written at a time; None unless it is of the weights whose digest begins with `version`."""
    if size > LARGEST_FILE_BYTES or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        songs = np.array(content["songs"], np.int64)
        places = np.array([content["x"], content["y"]], np.float64).T
        method, digest = str(content["method"])[:200], str(content["weights_digest"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    is_whole = songs.ndim == 1 and places.shape == (len(songs), 2) and 0 < len(songs) <= MOST_SONGS
    if not is_whole or not digest.startswith(version) or not version:
        return None
    if songs.min() < FIRST_NUMBER or songs.max() >= n_songs or not ((places >= 0) & (places <= 1)).all():
        return None
    return SongMap(method=method, songs=songs, places=places)


def map_json(recommender: Recommender) -> dict[str, Any]:
    """The map with titles and artists, as plain values; songs that have left the database are left out.

    `n_songs` are all songs that there are, of which the map has a sample.
    """
    found, info = map_of(recommender), recommender.info
    model_id = None if info is None else info.model_id
    if found is None:
        missing = NO_MODEL if info is None else NO_MAP
        return {"model_id": model_id, "method": None, "n_songs": 0, "songs": [], "missing": missing}
    catalogue = recommender.catalogue
    shown = catalogue.is_available[found.songs]
    numbers, places = found.songs[shown], found.places[shown].tolist()
    titles, artists = (column.take(numbers).to_pylist() for column in (catalogue.titles, catalogue.artist_names))
    ids = map(plain_id, catalogue.songs.decode(numbers))
    songs = [
        {"song_id": song_id, "x": x, "y": y, "title": title, "artist": artist}
        for song_id, (x, y), title, artist in zip(ids, places, titles, artists, strict=True)
    ]
    n_songs = int(catalogue.is_available.sum())
    return {"model_id": model_id, "method": found.method, "n_songs": n_songs, "songs": songs, "missing": None}


def places_of(recommender: Recommender, ids: Sequence[SongId]) -> list[dict[str, Any]]:
    """Where some songs lie, as plain values in the order asked; unknown ones are left out, without a map all of them.

    A song outside the sample is put into the middle of the songs of the sample that are most like it.  Raises InvalidSequence
    for ids of another type than the catalogue's.
    """
    numbers = recommender.catalogue.songs.encode(ids).astype(np.int64)
    found = map_of(recommender)
    if found is None or recommender.model_scorer is None:
        return []
    place_of = dict(zip(found.songs.tolist(), found.places.tolist(), strict=True))
    others = np.array(sorted({n for n in numbers.tolist() if n != UNKNOWN and n not in place_of}), np.int64)
    near = dict(zip(others.tolist(), _among(recommender.model_scorer.model, found, others).tolist(), strict=True))
    return [
        {"song_id": plain_id(song_id), "x": x, "y": y, "exact": n in place_of}
        for song_id, n in zip(ids, numbers.tolist(), strict=True)
        if n != UNKNOWN
        for x, y in [place_of[n] if n in place_of else near[n]]
    ]


@torch.inference_mode()
def _among(model: BERT4Rec, found: SongMap, songs: np.ndarray) -> np.ndarray:
    """The mean place of the nearest songs of the map, by cosine, for each of m songs: (m, 2)."""
    if not len(songs):
        return np.empty((0, 2))
    sample = _directions(model, found.songs)  # (n, D)
    means = []
    for block in np.array_split(songs, -(-len(songs) // SONGS_PER_BLOCK)):
        cosines = _directions(model, block) @ sample.T  # (block, n)
        nearest = cosines.topk(min(NEIGHBOURS, len(found.songs)), dim=1).indices.numpy()
        means.append(found.places[nearest].mean(axis=1))
    return np.concatenate(means).round(4)


def _directions(model: BERT4Rec, songs: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(model.embedding(torch.from_numpy(songs)).float(), dim=-1)
