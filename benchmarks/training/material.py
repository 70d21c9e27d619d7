"""What all parties are timed on: made-up histories of any size, or a data set, as a snapshot for us and as files for the others.

Made-up songs live in clusters: a list stays in one for most of its songs, few songs are played much, and artists, albums and
features are known.  Nothing here is worth learning; it only has the shape that costs time.

Shape letters: V songs with the three specials, S sequences, R rows of all sequences, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from config import FIRST_NUMBER
from encoder_files import Encoders, save_encoders
from preprocessing_utils import FeatureEncoder, IdEncoder
from snapshot import Snapshot, write_snapshot
from splits import TEST, TRAIN, VALIDATION

SONGS_PER_CLUSTER, SONGS_PER_ALBUM, ALBUMS_PER_ARTIST = 400, 8, 3
SHARE_OF_CLUSTER = 0.8  # of the songs of a list
MEDIAN_LENGTH, LENGTH_SPREAD, LENGTHS = 22, 0.6, (3, 200)  # songs of a list: log-normal, as playlists are, within bounds
FEATURES = ("tempo", "energy", "danceability", "loudness", "valence", "speechiness", "acousticness", "liveness", "mode", "key")
HELD_OUT = 2_000  # sequences at most, for validation and for the test


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Made-up sequences of song numbers."""

    songs: np.ndarray  # (R,) int32
    offsets: np.ndarray  # (S + 1,) int64


def made_up_lists(n_songs: int, n_rows: int, seed: int = 0) -> Lists:
    """About `n_rows` rows of lists over `n_songs` songs, each of which occurs where there are rows enough."""
    rng = np.random.default_rng(seed)
    n_lists = max(8, round(n_rows / (MEDIAN_LENGTH * np.exp(LENGTH_SPREAD**2 / 2))))
    lengths = np.exp(np.log(MEDIAN_LENGTH) + LENGTH_SPREAD * rng.standard_normal(n_lists))
    lengths = lengths.round().astype(np.int64).clip(*LENGTHS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    popularity = 1 / (20 + np.arange(n_songs)) ** 0.8
    songs = np.searchsorted(np.cumsum(popularity / popularity.sum()), rng.random(offsets[-1])).clip(max=n_songs - 1)
    n_clusters = max(1, n_songs // SONGS_PER_CLUSTER)
    cluster = np.repeat(rng.integers(n_clusters, size=n_lists), lengths)
    # Songs of a cluster are those whose number has the same remainder, so that each cluster has popular ones and rare ones.
    near = (songs // n_clusters * n_clusters + cluster).clip(max=n_songs - 1)
    songs = np.where(rng.random(len(songs)) < SHARE_OF_CLUSTER, near, songs)
    songs[rng.permutation(len(songs))[:n_songs]] = np.arange(min(n_songs, len(songs)))
    return Lists(songs=(songs + FIRST_NUMBER).astype(np.int32), offsets=offsets)


def made_up_snapshot(folder: Path, n_songs: int, n_rows: int) -> Snapshot:
    """A snapshot of such lists, with artists, albums and features, and its encoders beside it; kept ones are used again."""
    lists = made_up_lists(n_songs, n_rows)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({name: rng.standard_normal(n_songs).astype(np.float32) for name in FEATURES[:-2]})
    frame["mode"], frame["key"] = rng.integers(2, size=n_songs), rng.integers(12, size=n_songs)
    album = np.arange(n_songs) // SONGS_PER_ALBUM
    artist = album // ALBUMS_PER_ARTIST
    features = FeatureEncoder().fit(frame)
    encoders = Encoders(
        songs=_numbers("song", n_songs),
        albums=_numbers("album", int(album[-1]) + 1),
        artists=_numbers("artist", int(artist[-1]) + 1),
        features=features,
    )
    n_held_out = min(HELD_OUT, max(1, (len(lists.offsets) - 1) // 20))
    split = np.full(len(lists.offsets) - 1, TRAIN, np.uint8)
    split[-n_held_out:], split[-2 * n_held_out : -n_held_out] = TEST, VALIDATION
    present = np.zeros(n_songs + FIRST_NUMBER, bool)
    present[lists.songs[: lists.offsets[-1 - 2 * n_held_out]]] = True
    return write_snapshot(
        folder / "snapshot",
        song_artist=_with_specials(artist),
        song_album=_with_specials(album),
        song_features=_with_no_features(features.encode(frame)),
        feature_names=features.feature_names,
        n_fitted_songs=int(np.flatnonzero(present)[-1]) + 1,
        n_fitted_albums=len(encoders.albums),
        n_fitted_artists=len(encoders.artists),
        n_albums=len(encoders.albums),
        n_artists=len(encoders.artists),
        sequences=lists.songs,
        offsets=lists.offsets,
        split=split,
        encoders_digest=save_encoders(encoders, folder / "encoders"),
        source={"made_up": {"songs": n_songs, "rows": n_rows}},
    )


def write_for_others(snapshot: Snapshot, path: Path, settings: Mapping[str, Any]) -> None:
    """The training part, as a process reads it that has none of our packages: songs (r,), offsets (n + 1,) and the settings."""
    songs, offsets = snapshot.part(TRAIN)
    np.savez(path, songs=songs, offsets=offsets, **settings)


def _numbers(kind: str, n: int) -> IdEncoder:
    return IdEncoder(kind).fit(np.arange(n), counts=np.arange(n, 0, -1))


def _with_specials(numbers: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(FIRST_NUMBER), numbers + FIRST_NUMBER]).astype(np.int32)


def _with_no_features(features: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((FIRST_NUMBER, features.shape[1]), np.float32), features])
