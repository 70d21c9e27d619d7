import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from config import FIRST_NUMBER, ModelConfig
from dataset import inference_batch
from engine import fusion
from engine.comparison import HeldOut
from engine.fusion import weigh
from engine.scoring import score_function
from evaluation.protocols import NextSongTask
from judgement import Evidence
from memory import Memory
from model import BERT4Rec, Catalogue
from sources import Source
from sums import Weighing
from tests.serving.small import small_encoders, small_model
from tests.test_model import SMALL, small_catalogue
from tests.test_model import Says as Echo

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
    """Gives the song that `thinks` maps the last one to a score of one, and all others 0; trained on `n_fitted` songs."""

    def __init__(self, thinks, speaks, n_fitted=V):
        nobody = torch.zeros(V, dtype=torch.int64)
        catalogue = Catalogue(
            song_artist=nobody, song_album=nobody, song_features=torch.zeros(V, 0),
            n_fitted_songs=n_fitted, n_fitted_albums=3, n_fitted_artists=3,
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
    assert weigh(model, UP)[0] == 0.0
    assert float(model.encoder_weight) == 0.0


def test_an_encoder_that_is_right_outweighs_a_memory_of_noise():
    """From 0.3 on the encoder's song is before the memory's, whose bonus is 0.25."""
    model = Encoder(RIGHT, strong(WRONG, 0.25))
    assert weigh(model, UP)[0] == 0.3
    assert float(model.encoder_weight) == pytest.approx(0.3)


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_the_weight_with_the_largest_quality_wins(monkeypatch, batch_size):
    """The encoder errs on the first list, where the memory knows better by 0.25; the second needs it above 0.15: 0.2 is both."""
    monkeypatch.setattr(fusion, "batch_within", lambda n_songs: 2 * batch_size)
    model = Encoder({5: 12, 8: 9, 9: 10}, {5: (6, 0.25), 8: (13, 0.15), 9: (10, 0.1)})
    assert weigh(model, UP)[0] == 0.2


def test_lists_count_alike_however_many_songs_they_are_asked_for():
    """Three tasks of one list want the encoder before the memory, one each of two others the memory before the encoder."""
    held = held_of([4, 5, 6], [4, 8, 9], [4, 9, 10], [3, 10, 11], [3, 11, 12])
    object.__setattr__(held.tasks, "sequence", np.array([0, 0, 0, 1, 2]))
    object.__setattr__(held.tasks, "offsets", np.array([0, 9, 12, 15]))
    object.__setattr__(held.tasks, "position", np.array([2, 5, 8, 2, 2]))
    wrong = {10: 13, 11: 14}
    assert weigh(Encoder({**RIGHT, **wrong}, strong({**WRONG, 10: 11, 11: 12}, 0.25)), held)[0] == 0.03


def test_without_a_memory_the_encoder_is_alone_whatever_was_chosen_before():
    model = Encoder(WRONG, None, n_fitted=12)
    model.encoder_weight.data.fill_(0.3)
    model.newcomer_bonus.data.fill_(9.0)
    assert weigh(model, UP) == (1.0, 0.0)
    assert (float(model.encoder_weight), float(model.newcomer_bonus)) == (1.0, 0.0)


# Of the songs 14 and 15, which no list holds, the first one follows 8 and the second one 5.
NEW = held_of([4, 5, 15], [7, 8, 14], [9, 10])


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_new_songs_are_given_the_largest_bonus_that_pushes_nothing_back(monkeypatch, batch_size):
    """The memory gives others 0.6 and 0.4 before them, and the third list its own song 1.2; the encoder knows only noise."""
    monkeypatch.setattr(fusion, "batch_within", lambda n_songs: 2 * batch_size)
    model = Encoder({5: 12, 8: 13, 9: 3}, {5: (6, 0.6), 8: (9, 0.4), 9: (10, 1.2)}, n_fitted=14)
    assert weigh(model, NEW) == (0.0, 1.0)
    assert float(model.newcomer_bonus) == 1.0


@pytest.mark.parametrize("lead", [0.2, 4.0])
def test_where_no_held_out_target_is_new_no_song_has_a_bonus_however_little_it_would_cost(lead):
    """The memory is right by so much; a lead of 4 is more than any bonus."""
    model = Encoder(WRONG, strong(RIGHT, lead), n_fitted=14)
    model.newcomer_bonus.data.fill_(9.0)
    assert weigh(model, UP) == (0.0, 0.0)
    assert float(model.newcomer_bonus) == 0.0


@pytest.mark.parametrize(("gained", "pushed_back", "bonus"), [(1, 1, 3.0), (1, 2, 0.25), (0, 1, 0.0), (0, 0, 0.0), (1, 0, 3.0)])
def test_half_a_percent_of_the_quality_is_given_away_for_new_songs_where_they_gain_and_no_more(gained, pushed_back, bonus):
    """Of a hundred lists one has the only new song, 15, which 0.25 brings from the eleventh place before 13.

    From 0.5 on a song that leads by 0.3 comes second: 0.37 of a list.  The others lead by 4.
    """
    model = Encoder({5: 12, 8: 12, 9: 3}, {5: (6, 0.3), 8: (13, 0.2), 9: (10, 4.0)}, n_fitted=15)
    lists = [[7, 8, 15]] * gained + [[4, 5, 6]] * pushed_back
    assert weigh(model, held_of(*lists, *[[9, 10]] * (100 - len(lists)))) == (0.0, bonus)
    assert float(model.newcomer_bonus) == bonus


def test_what_counts_is_whether_a_bonus_gains_beside_the_weight_that_is_chosen():
    """A weight of 1 alone brings 15, the new song, and 14 before 13, which leads by 0.9; a bonus of 1 would bring 15."""
    model = Encoder({5: 12, 7: 14, 11: 15}, {5: (6, 1.1), 7: (13, 0.9), 11: (13, 0.9)}, n_fitted=15)
    assert weigh(model, held_of([4, 5, 6], [12, 7, 14], [12, 11, 15])) == (1.0, 0.0)


def test_new_songs_that_are_overrated_are_taken_back():
    """On fifty lists the memory puts 15, which no list holds, 2.9 before a song that the encoder alone knows."""
    model = Encoder({5: 6, 8: 13}, {5: (15, 2.9), 8: (15, 0.5)}, n_fitted=15)
    assert weigh(model, held_of(*[[4, 5, 6]] * 50, [7, 8, 15])) == (0.03, -3.0)
    assert float(model.newcomer_bonus) == -3.0


def test_without_a_new_target_they_are_left_where_they_are_and_the_weight_is_the_best_beside_that():
    """The memory puts 15 1.2 before the song that the encoder knows: taken back by 2 a weight of 0.03 would do."""
    assert weigh(Encoder({5: 6}, {5: (15, 1.2)}, n_fitted=15), held_of([4, 5, 6])) == (1.5, 0.0)


def test_known_songs_pay_no_more_than_a_hundredth_however_much_new_ones_gain():
    known, new = np.full(len(fusion.BONUSES), 0.9), np.linspace(0.0, 0.3, len(fusion.BONUSES))
    known[9:] *= 0.98
    assert fusion._bonus(0.99 * known + 0.01 * new, known) == fusion.BONUSES[8]
    known[3:] *= 0.98  # below 0 already
    assert fusion._bonus(0.99 * known + 0.01 * new, known) == fusion.BONUSES[2]
    rising = np.linspace(0.8, 0.801, len(fusion.BONUSES))  # all together gain a little with every bonus
    assert fusion._bonus(rising, np.where(np.arange(len(fusion.BONUSES)) < 9, 0.9, 0.89)) == fusion.BONUSES[8]
    assert fusion._bonus(0.6 * known + 0.4 * new, known) == fusion.BONUSES[-1]  # where new songs are many they are worth it


def test_where_no_song_is_new_none_has_a_bonus():
    model = Encoder(WRONG, strong(RIGHT, 4.0))
    model.newcomer_bonus.data.fill_(9.0)
    assert weigh(model, UP) == (0.0, 0.0)
    assert float(model.newcomer_bonus) == 0.0


def test_where_nothing_is_found_whatever_the_bonus_none_is_given():
    """The target of the only list is no candidate."""
    model = Encoder(WRONG, strong(WRONG, 5.0), n_fitted=4)
    held = held_of([4, 5, 3])
    object.__setattr__(held.tasks, "targets", np.array([2]))
    assert weigh(model, held) == (0.0, 0.0)


def test_a_bonus_that_costs_known_songs_more_than_it_brings_is_not_given():
    """It would bring song 15 from nowhere to the first place of one list, and the memory's songs to the second of three."""
    model = Encoder({**WRONG, 11: 7}, {5: (6, 0.6), 8: (9, 0.2), 9: (10, 0.2), 11: (13, 0.2)}, n_fitted=15)
    assert weigh(model, held_of([4, 5, 15], [7, 8, 9], [9, 10], [12, 11, 13])) == (0.0, 0.0)


def test_weight_and_bonus_are_chosen_together():
    """Song 14 needs more than 1.0 of both, song 6 a weight not below the bonus, and song 10 a weight below 0.9."""
    model = Encoder({5: 6, 8: 14, 9: 3}, {5: (12, 0.25), 8: (13, 1.0), 9: (10, 0.9)}, n_fitted=14)
    assert weigh(model, held_of([4, 5, 6], [7, 8, 14], [9, 10])) == (0.75, 0.75)


def test_ranks_are_those_of_sorting_all_songs_with_each_bonus():
    """Quarters tie with one another; what is not in the list may have any rank beyond it."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        scores, is_new = (rng.integers(0, 16, 40) / 4).astype(np.float32), rng.random(40) < rng.choice([0.3, 0.9])
        target, excluded = int(rng.integers(3, 40)), rng.choice(np.arange(3, 40), 4, replace=False)
        candidates = np.setdiff1d(np.arange(40), np.setdiff1d(excluded, target))
        for bonus, rank in zip(fusion.BONUSES, fusion._ranks(scores, is_new, target, excluded), strict=True):
            ranking = candidates[np.lexsort((candidates, -(scores + bonus * is_new)[candidates]))].tolist()
            expected = len(scores) + 1 if target in excluded else 1 + ranking.index(target)
            assert rank == expected or min(rank, expected) > fusion.LIST_LENGTH
            seen.add((bool(is_new[target]), bonus, expected <= fusion.LIST_LENGTH))
    assert len(seen) == 2 * 2 * len(fusion.BONUSES)


@pytest.mark.parametrize("is_grown", [False, True])
def test_a_model_scores_as_what_was_weighed_with_what_was_chosen(is_grown):
    """Memory, encoder times its weight, and the bonus of songs that training does not hold, also of those added later."""
    torch.manual_seed(0)
    model = BERT4Rec(SMALL, small_catalogue(), Memory(16, [Echo(2)], torch.arange(12.0)[None])).eval()
    torch.nn.init.normal_(model.bias)
    model.encoder_weight.data.fill_(0.3)
    model.newcomer_bonus.data.fill_(1.5)
    if is_grown:
        model = model.grown(torch.tensor([3, 77]), torch.tensor([4, 99]), torch.randn(2, 3))
    prefixes = [np.array([3, 4]), np.array([5, 6, 7, 8, 9, 10, 11])]
    remembered, encoded = fusion.ScoresOfBoth(model)(prefixes)
    is_new = np.arange(14 if is_grown else 12) >= 9
    expected = (remembered + 0.3 * encoded + 1.5 * is_new)[:, FIRST_NUMBER:]
    with torch.inference_mode():
        scores = model.score(inference_batch(prefixes, model.row_len)).numpy()
    for answered in (scores, score_function(model)(prefixes)):
        np.testing.assert_allclose(answered[:, FIRST_NUMBER:], expected, atol=1e-5)


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
