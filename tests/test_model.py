import math

import pytest
import torch
import torch.nn.functional as F

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN, ModelConfig
from losses import NegativeSampler
from memory import Evidence, Memory, Origin, Source
from model import BERT4Rec, Catalogue, SelfAttention

SMALL = ModelConfig(seq_len=6, d_songs=8, d_albums=4, d_artists=4, d_ff=16, N=2, heads=2, dropout_prob=0.0)


def small_catalogue(n_songs=12, n_fitted=9, n_features=3):
    generator = torch.Generator().manual_seed(0)
    return Catalogue(
        song_artist=torch.arange(n_songs) % 4 + 2,
        song_album=torch.arange(n_songs) % 5 + 2,
        song_features=torch.randn(n_songs, n_features, generator=generator),
        n_fitted_songs=n_fitted,
        n_fitted_albums=5,
        n_fitted_artists=5,
    )


def small_model(config=SMALL, **catalogue):
    torch.manual_seed(0)
    return BERT4Rec(config, small_catalogue(**catalogue)).eval()


def test_attention_equals_torchs_own_with_the_same_weights():
    ours = SelfAttention(SMALL).eval()
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    hidden, padding = torch.randn(3, 5, 16), torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    expected = theirs(hidden, hidden, hidden, key_padding_mask=padding)[0]
    visible = ~padding[:, None, None, :]
    assert torch.allclose(ours(hidden, visible, 5), expected, atol=1e-6)
    assert torch.allclose(ours(hidden, visible, 2), expected[:, -2:], atol=1e-6)


def test_padding_changes_nothing():
    model = small_model()
    bare = model.score(torch.tensor([[3, 4, MASK]]))
    padded = model.score(torch.tensor([[PAD, PAD, 3, 4, MASK]]))
    assert torch.allclose(bare, padded, atol=1e-6)


def test_a_batch_scores_as_its_rows_do():
    model = small_model()
    rows = torch.tensor([[PAD, 3, 4, MASK], [5, 6, 7, MASK], [PAD, PAD, PAD, MASK]])
    together = model.score(rows)
    singly = torch.cat([model.score(row[None]) for row in rows])
    assert torch.allclose(together, singly, atol=1e-6)
    assert together.isfinite()[:, FIRST_NUMBER:].all()


@pytest.mark.parametrize("n_blocks", [1, 2, 3])
def test_the_last_place_alone_is_encoded_as_it_is_among_all(n_blocks):
    model = small_model(ModelConfig(seq_len=6, d_songs=8, d_albums=4, d_artists=4, d_ff=16, N=n_blocks, heads=2))
    rows = torch.tensor([[PAD, 3, 4, MASK], [5, 6, 7, MASK], [PAD, PAD, PAD, MASK]])
    everywhere = model.encode(rows)
    assert everywhere.shape == (3, 4, 16)
    torch.testing.assert_close(model.encode(rows, n_last=2), everywhere[:, -2:], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.encode_last(rows), model.head(everywhere[:, -1]), atol=1e-6, rtol=1e-5)


def test_specials_are_never_scored_above_a_song():
    scores = small_model().score(torch.tensor([[3, 4, MASK]]))
    assert scores[0, :FIRST_NUMBER].tolist() == [-torch.inf] * FIRST_NUMBER


def test_both_directions_are_seen():
    model = small_model()
    hidden = model.encode(torch.tensor([[3, MASK, 5]]))[0, 1]
    assert not torch.allclose(hidden, model.encode(torch.tensor([[3, MASK, 6]]))[0, 1])
    assert not torch.allclose(hidden, model.encode(torch.tensor([[4, MASK, 5]]))[0, 1])


def test_a_song_not_seen_in_training_is_scored_from_its_parts():
    """Songs 9 and 10 differ in artist, album and features alone; two songs alike in all three score alike."""
    catalogue = small_catalogue()
    for column in (catalogue.song_artist, catalogue.song_album, catalogue.song_features):
        column[11] = column[10]
    scores = BERT4Rec(SMALL, catalogue).eval().score(torch.tensor([[3, 4, MASK]]))[0]
    assert scores[10] == scores[11]
    assert scores[9] != scores[10]


def test_an_unknown_artist_and_an_unfitted_one_are_the_same_to_the_embedding():
    model = small_model()
    assert torch.equal(model.embedding.artist(torch.tensor([5, 999])), model.embedding.artist(torch.tensor([UNKNOWN, UNKNOWN])))


@pytest.mark.parametrize(
    "left_out", [{"d_albums": 0}, {"d_artists": 0}, {"use_features": False}, {"d_albums": 0, "d_artists": 0}]
)
def test_a_part_can_be_left_out(left_out):
    config = ModelConfig(**{"seq_len": 6, "d_songs": 8, "d_albums": 4, "d_artists": 4, "d_ff": 16, "heads": 2, **left_out})
    model = small_model(config)
    assert model.score(torch.tensor([[3, MASK]])).shape == (1, 12)
    assert (model.embedding.features is None) == (not config.use_features)


def test_a_catalogue_without_features_trains_without_them():
    assert small_model(n_features=0).embedding.features is None


def test_the_loss_is_the_cross_entropy_of_the_scores_at_the_masked_place():
    model = small_model(n_fitted=12)
    songs = torch.tensor([[3, 4, MASK], [5, 6, MASK]])
    scores = model.score(songs)
    expected = F.cross_entropy(scores[:, FIRST_NUMBER:], torch.tensor([7, 8]) - FIRST_NUMBER)
    assert torch.allclose(model(songs, torch.tensor([2, 5]), torch.tensor([7, 8])), expected, atol=1e-5)


def drawn_once():
    """Every song as a negative, each expected once: the sampled loss is the full one."""
    everyone = torch.arange(FIRST_NUMBER, 12)
    return type("Drawn", (), {"songs": everyone, "log_expected_count": torch.zeros(len(everyone))})


def test_sampled_loss_with_every_song_drawn_once_equals_the_full_one():
    model = small_model(n_fitted=12)
    songs, places, targets = torch.tensor([[3, 4, MASK]]), torch.tensor([2]), torch.tensor([7])
    assert torch.allclose(model(songs, places, targets, negatives=drawn_once()), model(songs, places, targets), atol=1e-5)


def test_the_correction_makes_the_sampled_partition_function_unbiased():
    frequencies = torch.tensor([0, 0, 0, 100, 10, 1, 1])
    sampler, generator = NegativeSampler(frequencies), torch.Generator().manual_seed(0)
    logits = torch.tensor([0, 0, 0, 0.3, -1.0, 2.0, 0.5])
    samples = [sampler.draw(4, generator) for _ in range(20_000)]
    estimates = [float((logits[drawn.songs] - drawn.log_expected_count).exp().sum()) for drawn in samples]
    assert math.isclose(sum(estimates) / len(estimates), float(logits[FIRST_NUMBER:].exp().sum()), rel_tol=0.03)
    assert min(int(drawn.songs.min()) for drawn in samples) >= FIRST_NUMBER


class Says(Source):
    """Speaks for song 7 with 2 and for song 11 with 0.5, wherever the context, `reach` songs back, holds song 4."""

    name, initial_weights = "says", (1.0,)

    def __init__(self, reach):
        super().__init__()
        self.reach = reach

    def forward(self, place, origin, song_plays):
        holds = (place.context(self.reach) == 4).any(1)  # (M,)
        return Evidence(torch.tensor([[7, 11]]).expand(len(holds), -1), (holds[:, None] * torch.tensor([2.0, 0.5]))[None])


def model_with_memory(reach=9, n_editions=1, encoder_weight=1.0):
    """A small model of 12 songs, all seen in training, without its memory and with it."""
    bare = small_model(n_fitted=12)
    torch.nn.init.normal_(bare.bias)
    plays = torch.arange(12.0).repeat(n_editions, 1) * torch.arange(1, n_editions + 1)[:, None]
    full = BERT4Rec(SMALL, small_catalogue(n_fitted=12), Memory(16, [Says(reach)], plays)).eval()
    full.load_state_dict({**full.state_dict(), **bare.state_dict()})
    full.encoder_weight.data.fill_(encoder_weight)
    return bare, full


def remembered(n_rows, edition=0, bonus=True):
    """What the memory of `model_with_memory` gives the songs from FIRST_NUMBER on."""
    scores = math.log1p(math.exp(-1.0)) * (torch.arange(12.0) * (1 + edition)).log1p()  # softplus of its first popularity
    scores[7] += 2.0 * bonus
    scores[11] += 0.5 * bonus
    return scores[FIRST_NUMBER:].expand(n_rows, -1)


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_scores_are_the_memorys_plus_the_weighed_encoders(weight):
    bare, full = model_with_memory(encoder_weight=weight)
    rows = torch.tensor([[3, 4, MASK], [PAD, 4, MASK]])
    expected = remembered(2) + weight * bare.score(rows)[:, FIRST_NUMBER:]
    torch.testing.assert_close(full.score(rows)[:, FIRST_NUMBER:], expected)
    assert full.score(rows)[:, :FIRST_NUMBER].tolist() == [[-torch.inf] * FIRST_NUMBER] * 2


@pytest.mark.parametrize("negatives", [None, drawn_once()])
def test_encoder_and_memory_learn_by_losses_of_their_own_whatever_the_weight(negatives):
    bare, full = model_with_memory(n_editions=3, encoder_weight=0.3)
    rows, places, targets = torch.tensor([[3, 4, MASK], [5, 6, MASK]]), torch.tensor([2, 5]), torch.tensor([7, 8])
    of_encoder = F.cross_entropy(bare.score(rows)[:, FIRST_NUMBER:], targets - FIRST_NUMBER)
    origin = Origin(lists=torch.tensor([5, 6]), editions=torch.tensor([2, 1]))
    for given, editions in ((origin, (2, 1)), (None, (0, 0))):
        scores = torch.cat([remembered(1, editions[0]), remembered(1, editions[1], bonus=False)])
        expected = of_encoder + F.cross_entropy(scores, targets - FIRST_NUMBER)
        torch.testing.assert_close(full(rows, places, targets, origin=given, negatives=negatives), expected)


def test_the_memory_may_look_further_back_than_the_encoder_reads():
    bare, full = model_with_memory(reach=9)
    assert (bare.row_len, full.row_len, model_with_memory(reach=2)[1].row_len) == (6, 10, 6)
    row = [5, 4, 3, 5, 6, 8, 9, MASK]
    expected = remembered(1) + bare.score(torch.tensor([row[-6:]]))[:, FIRST_NUMBER:]
    torch.testing.assert_close(full.score(torch.tensor([row]))[:, FIRST_NUMBER:], expected)
    short, long = torch.tensor([[4, MASK, 9, MASK, 3, 5]] * 2), torch.tensor([[8, 8, 4, MASK, 9, MASK, 3, 5]] * 2)
    targets = torch.tensor([7, 8, 3, 7])
    in_short, in_long = full(short, torch.tensor([1, 3, 7, 9]), targets), full(long, torch.tensor([3, 5, 11, 13]), targets)
    torch.testing.assert_close(in_long, in_short)


def test_features_are_standardised_over_the_songs_of_training():
    catalogue = small_catalogue()
    catalogue.song_features[9:] = 1e6  # songs that training does not know
    projection = BERT4Rec(SMALL, catalogue).embedding.features
    assert torch.allclose(projection.mean, catalogue.song_features[3:9].mean(0))


@pytest.mark.parametrize("negatives", [None, drawn_once()])
def test_gradients_reach_every_parameter_but_the_weight_that_is_chosen(negatives):
    _, model = model_with_memory()
    songs = torch.tensor([[3, 4, MASK], [PAD, 5, MASK]])
    loss = model.train()(songs, torch.tensor([2, 5]), torch.tensor([7, 8]), unknown_song_probability=0.5, negatives=negatives)
    loss.backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == ["encoder_weight"]


def test_checkerboard_is_learned():
    """Even songs follow even ones, odd follow odd: the answer is obvious."""
    torch.manual_seed(0)
    model = BERT4Rec(SMALL, small_catalogue(n_songs=13, n_fitted=13))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    evens, odds = torch.arange(4, 13, 2), torch.arange(3, 13, 2)
    for _ in range(150):
        rows = torch.stack([side[torch.randperm(len(side))[:4]] for side in (evens, odds) for _ in range(8)])
        targets, rows = rows[:, -1].clone(), rows.index_fill(1, torch.tensor([3]), MASK)
        optimizer.zero_grad()
        model(rows, torch.arange(16) * 4 + 3, targets).backward()
        optimizer.step()
    scores = model.eval().score(torch.tensor([[4, 6, MASK], [3, 5, MASK]]))
    assert scores[0, evens].min() > scores[0, odds].max()
    assert scores[1, odds].min() > scores[1, evens].max()
