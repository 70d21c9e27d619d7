import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from config import FIRST_NUMBER, ModelConfig
from dataset import inference_batch
from engine import fusion
from engine.comparison import HeldOut
from engine.fusion import weigh_encoder
from evaluation.protocols import NextSongTask
from judgement import Evidence
from memory import Memory, Source
from model import BERT4Rec, Catalogue
from sums import Weighing
from tests.serving.small import small_encoders, small_model

V = 16


class Says(Source):
    """Speaks at every place for the song that `speaks` maps the last one to, with its strength."""

    names, reach, initial_weights = ("says",), 1, (1.0,)
    WEIGHING = Weighing(plain=(None,), logs=(0,), sharpness=(1.0,))  # the logarithm of one amount

    def __init__(self, speaks):
        super().__init__()
        self.speaks = speaks

    def forward(self, place, origin, song_plays):
        said = [self.speaks[last] for last in place.context(1)[:, 0].tolist()]
        songs, strength = (torch.tensor(column)[:, None] for column in zip(*said, strict=True))
        return Evidence(songs, strength.expm1()[None], self.WEIGHING)


class Encoder(BERT4Rec):
    """Gives the song that `thinks` maps the last one to a score of one, and all others 0."""

    def __init__(self, thinks, speaks):
        nobody = torch.zeros(V, dtype=torch.int64)
        catalogue = Catalogue(
            song_artist=nobody, song_album=nobody, song_features=torch.zeros(V, 0),
            n_fitted_songs=V, n_fitted_albums=3, n_fitted_artists=3,
        )  # fmt: skip
        config = ModelConfig(seq_len=4, d_songs=V, d_albums=0, d_artists=0, d_ff=8, N=1, heads=1)
        super().__init__(config, catalogue, Memory(V, [Says(speaks)], torch.zeros(1, V)) if speaks else None)
        self.thinks = thinks

    def encode_last(self, songs, table=None):
        return F.one_hot(torch.tensor([self.thinks[last] for last in songs[:, -2].tolist()]), V).float()

    def embedding_table(self):
        return torch.eye(V)


def held_of(*sequences):
    """One task per sequence, its last song."""
    lengths = np.array([len(songs) for songs in sequences])
    tasks = NextSongTask(
        songs=np.concatenate(sequences),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        sequence=np.arange(len(sequences)),
        position=lengths - 1,
        targets=np.array([songs[-1] for songs in sequences]),
    )
    return HeldOut(tasks=tasks, n_songs=V, allow_repeats=False, trained=np.ones(V, bool))


UP = held_of([4, 5, 6], [7, 8, 9], [9, 10])
RIGHT, WRONG = {5: 6, 8: 9, 9: 10}, {5: 12, 8: 13, 9: 3}


def strong(songs, strength):
    return {last: (song, strength) for last, song in songs.items()}


def test_an_encoder_of_noise_beside_a_memory_that_is_right_counts_nothing():
    """Up to a weight of 0.2 the memory's 0.25 keeps the right song first: of equal weights the smallest is taken."""
    model = Encoder(WRONG, strong(RIGHT, 0.25))
    assert weigh_encoder(model, UP) == 0.0
    assert float(model.encoder_weight) == 0.0


def test_an_encoder_that_is_right_outweighs_a_memory_of_noise():
    """From 0.3 on the encoder's song is before the memory's, whose bonus is 0.25."""
    model = Encoder(RIGHT, strong(WRONG, 0.25))
    assert weigh_encoder(model, UP) == 0.3
    assert float(model.encoder_weight) == pytest.approx(0.3)


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_the_weight_with_the_largest_quality_wins(monkeypatch, batch_size):
    """The encoder errs on the first list, where the memory knows better by 0.25; the second needs it above 0.15: 0.2 is both."""
    monkeypatch.setattr(fusion, "batch_within", lambda n_songs: 2 * batch_size)
    model = Encoder({5: 12, 8: 9, 9: 10}, {5: (6, 0.25), 8: (13, 0.15), 9: (10, 0.1)})
    assert weigh_encoder(model, UP) == 0.2


def test_lists_count_alike_however_many_songs_they_are_asked_for():
    """Three tasks of one list want the encoder before the memory, one each of two others the memory before the encoder."""
    held = held_of([4, 5, 6], [4, 8, 9], [4, 9, 10], [3, 10, 11], [3, 11, 12])
    object.__setattr__(held.tasks, "sequence", np.array([0, 0, 0, 1, 2]))
    object.__setattr__(held.tasks, "offsets", np.array([0, 9, 12, 15]))
    object.__setattr__(held.tasks, "position", np.array([2, 5, 8, 2, 2]))
    wrong = {10: 13, 11: 14}
    assert weigh_encoder(Encoder({**RIGHT, **wrong}, strong({**WRONG, 10: 11, 11: 12}, 0.25)), held) == 0.03


def test_without_a_memory_the_encoder_is_alone():
    model = Encoder(WRONG, None)
    assert weigh_encoder(model, UP) == 1.0
    assert float(model.encoder_weight) == 1.0


def test_the_two_scores_add_up_to_the_models_and_leave_it_as_it_was():
    model = small_model(*small_encoders()).train()
    model.encoder_weight.data.fill_(0.3)
    prefixes = [np.array([3, 4]), np.array([5, 6, 7, 8, 9, 10, 11])]
    remembered, encoded = fusion.ScoresOfBoth(model)(prefixes)
    assert model.training
    assert float(model.encoder_weight) == pytest.approx(0.3)
    with torch.inference_mode():
        scores = model.eval().score(inference_batch(prefixes, model.row_len)).numpy()
    np.testing.assert_allclose((remembered + 0.3 * encoded)[:, FIRST_NUMBER:], scores[:, FIRST_NUMBER:], atol=1e-5)
    assert math.isfinite(remembered.sum() + encoded.sum())
