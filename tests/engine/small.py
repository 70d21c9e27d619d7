"""A small snapshot whose answer is obvious: lists go round in one of two circles of songs."""

from pathlib import Path

import numpy as np
import pandas as pd

from config import Config, EvaluationConfig, MemoryConfig, ModelConfig, PreprocessingConfig, TrainingConfig
from encoder_files import Encoders, save_encoders
from preprocessing_utils import FeatureEncoder, IdEncoder
from snapshot import Snapshot, write_snapshot
from splits import split_by_sequence

CIRCLE = 10
N_SONGS = 2 * CIRCLE


def circle_lists(n_lists: int, length: int) -> np.ndarray:
    """Lists of song numbers 3 to 22: each goes round the first or the second ten, from a random start, (n_lists, length)."""
    rng = np.random.default_rng(0)
    circle, start = rng.integers(0, 2, n_lists), rng.integers(0, CIRCLE, n_lists)
    return 3 + circle[:, None] * CIRCLE + (start[:, None] + np.arange(length)) % CIRCLE


def small_snapshot(folder: Path, n_lists: int = 120, length: int = 7) -> tuple[Snapshot, Path]:
    """The snapshot and the folder of its encoders; song ids are "song 3" to "song 22"."""
    ids = [f"song {number}" for number in range(3, 3 + N_SONGS)]
    artists = [f"artist {number % 4}" for number in range(N_SONGS)]
    frame = pd.DataFrame({"tempo": np.linspace(80.0, 160.0, N_SONGS)})
    encoders = Encoders(
        songs=IdEncoder("song").fit(ids, counts=np.arange(N_SONGS, 0, -1)),
        albums=IdEncoder("album").fit(artists),
        artists=IdEncoder("artist").fit(artists),
        features=FeatureEncoder().fit(frame),
    )
    digest = save_encoders(encoders, folder / "encoders")
    features = encoders.features.encode(frame)
    artist = np.concatenate([[0, 1, 2], encoders.artists.encode(artists)])
    snapshot = write_snapshot(
        folder / "snapshot",
        song_artist=artist,
        song_album=artist,
        song_features=np.concatenate([np.zeros((3, features.shape[1]), np.float32), features]),
        feature_names=encoders.features.feature_names,
        n_fitted_songs=3 + N_SONGS,
        n_fitted_albums=7,
        n_fitted_artists=7,
        n_albums=7,
        n_artists=7,
        sequences=circle_lists(n_lists, length).ravel().astype(np.int32),
        offsets=np.arange(n_lists + 1) * length,
        split=split_by_sequence(np.arange(n_lists), 0.8, np.random.default_rng(0)),
        encoders_digest=digest,
        source={},
    )
    return snapshot, folder / "encoders"


def small_config(folder: Path, **training: object) -> Config:
    """Settings of a network that learns the circles within seconds."""
    settings = {"num_epochs": 2, "batch_size": 32, "threads": 1, "model_folder": folder / "models", "device": "cpu", **training}
    return Config(
        model=ModelConfig(seq_len=8, d_songs=16, d_albums=8, d_artists=8, d_ff=32, N=1, heads=2, dropout_prob=0.1),
        memory=MemoryConfig(neighbours=4, near_reach=3, same_reach=7),
        training=TrainingConfig(**training_settings(settings)),
        evaluation=EvaluationConfig(),
        preprocessing=PreprocessingConfig(encoders_folder=folder / "encoders", snapshot=folder / "snapshot"),
    )


def training_settings(settings: dict[str, object]) -> dict[str, object]:
    """Defaults that suit so small a task."""
    return {"lr": 0.01, "warmup_steps": 5, "early_stopping_epochs": 0, **settings}
