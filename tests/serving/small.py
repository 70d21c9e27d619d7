"""A small world for tests of serving: a dozen songs, untrained weights from a seed."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from config import FIRST_NUMBER, PAD, ModelConfig, ServiceConfig
from encoder_files import Encoders, save_encoders
from engine.checkpoint import save_catalogue, save_checkpoint
from engine.files import write_json
from engine.runs import mark_best
from memory import Memory
from model import BERT4Rec, Catalogue
from preprocessing_utils import FeatureEncoder, IdEncoder
from serving.answers import ModelInfo
from serving.recommender import Recommender
from sources import CountedRelations, Relations

SONGS = [f"s{number:02d}" for number in range(12)]
SEQ_LEN = 6
# Which product is faster on a dozen songs is chance.
NO_RULES = ServiceConfig(max_per_artist=0, artist_spacing=0, one_per_recording=False, index="fp32")


def small_encoders(ids=SONGS):
    """Song i gets number FIRST_NUMBER + i; every third song shares an artist, every sixth an album."""
    frame = pd.DataFrame({"tempo": np.linspace(80.0, 160.0, len(ids)), "energy": np.linspace(0.9, 0.1, len(ids))})
    artists = IdEncoder("artist").fit([f"artist {number}" for number in range(3)])
    albums = IdEncoder("album").fit([f"album {number}" for number in range(6)])
    return Encoders(songs=IdEncoder().fit(list(ids)), albums=albums, artists=artists, features=FeatureEncoder().fit(frame)), frame


def small_model(encoders, frame, seed=0):
    V = len(encoders.songs)
    features = np.zeros((V, len(encoders.features.feature_names)), np.float32)
    features[FIRST_NUMBER:] = encoders.features.encode(frame)
    places = np.arange(V - FIRST_NUMBER)
    torch.manual_seed(seed)
    config = ModelConfig(seq_len=SEQ_LEN, d_songs=8, d_albums=4, d_artists=4, d_ff=16, N=1, heads=2)
    return BERT4Rec(
        config,
        Catalogue(
            song_artist=torch.tensor([0, 1, 2, *(FIRST_NUMBER + places % 3)]),
            song_album=torch.tensor([0, 1, 2, *(FIRST_NUMBER + places % 6)]),
            song_features=torch.from_numpy(features),
            n_fitted_songs=V,
            n_fitted_albums=FIRST_NUMBER + 6,
            n_fitted_artists=FIRST_NUMBER + 3,
        ),
        Memory(config.d_model, [CountedRelations(successors(V))], song_plays=torch.full((1, V), 5.0)),
    )


def successors(V):
    """Each song was followed by the next one in five of its five training sequences; the last song by nothing."""
    followed = torch.arange(FIRST_NUMBER, V - 1)
    return Relations(
        names=("next",),
        reaches=(1,),
        rows=(V,),
        most=1,
        row_of_song=torch.where(torch.arange(V) >= FIRST_NUMBER, torch.arange(V), PAD)[None].int(),
        starts=torch.searchsorted(followed, torch.arange(V + 1)),
        songs=(followed + 1).int(),
        counts=torch.full(followed.shape, 5.0),
        totals=torch.full((1, V), 5.0),
    )


def small_recommender(ids=SONGS, seed=0, config=None, model_id="run/epoch-001/0123456789ab"):
    encoders, frame = small_encoders(ids)
    model = small_model(encoders, frame, seed)
    return Recommender.of(model, encoders, small_info(model_id), config or NO_RULES)


def small_run(run, ids=SONGS):
    """A run on disk whose one checkpoint is the model of `small_recommender`."""
    encoders, frame = small_encoders(ids)
    run.mkdir(parents=True)
    write_json(run / "settings.json", {"seed": 0})
    model = small_model(encoders, frame)
    save_catalogue(run, model)
    checkpoint = save_checkpoint(
        run,
        epoch=1,
        model=model,
        training_state={},
        metrics={"ndcg@10": 0.5},
        encoders_digest=save_encoders(encoders, run / "encoders"),
        snapshot_digest="f" * 64,
    )
    mark_best(run, checkpoint)
    return run


def small_info(model_id="run/epoch-001/0123456789ab"):
    return ModelInfo(
        model_id=model_id,
        trained_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        path=Path("models/run/epoch-001"),
        encoders_digest="e" * 64,
        snapshot_digest="f" * 64,
        settings={},
        metrics={"ndcg@10": 0.5},
    )


def ranking_by_hand(recommender, row):
    """Ids by falling score of one row of song numbers, straight from the model."""
    with torch.inference_mode():
        scores = recommender.model_scorer.model.score(torch.tensor([row]))[0]
    return [SONGS[number - FIRST_NUMBER] for number in scores.argsort(descending=True).tolist() if number >= FIRST_NUMBER]
