import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN, ModelConfig
from judgement import Evidence
from losses import NegativeSampler
from memory import LookedUp, Memory
from model import GELU, BERT4Rec, Catalogue, Dropout, SelfAttention, drawn_mask
from sources import Origin, Source
from sums import Weighing

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


def test_the_gradients_of_many_targets_are_the_same_each_time():
    """Several threads may share a sum from 32,768 numbers on."""
    M, threads, model = 200_000, torch.get_num_threads(), small_model(n_fitted=12)
    queries, targets = torch.randn(M, 16), torch.arange(M) % 9 + FIRST_NUMBER
    torch.set_num_threads(max(2, threads))
    try:
        losses = (model._sampled_loss(queries, targets, drawn_once(), 0.0) for _ in range(8))
        gradients = [torch.autograd.grad(loss, model.bias)[0] for loss in losses]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(later, gradients[0]) for later in gradients)


class Says(Source):
    """Speaks for song 7 with 2 and for song 11 with 0.5, wherever the context, `reach` songs back, holds song 4."""

    names, initial_weights = ("says",), (1.0,)
    WEIGHING = Weighing(plain=(None,), logs=(0,), sharpness=(1.0,))  # the logarithm of one amount

    def __init__(self, reach):
        super().__init__()
        self.reach = reach

    def forward(self, place, origin, song_plays):
        holds = (place.context(self.reach) == 4).any(1)  # (M,)
        said = holds[:, None] * torch.tensor([2.0, 0.5])
        return Evidence(holds[:, None] * torch.tensor([7, 11]), said.expm1()[None], self.WEIGHING)


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


def of_memory(*places):
    """The memory's loss by definition: the scores of the songs found at each place, and its target; which may be none of them."""
    losses = [math.log(sum(map(math.exp, found.values()))) - found[target] if target in found else 0 for found, target in places]
    return torch.tensor(sum(losses) / len(places))


def said_songs(edition=0):
    """The memory's scores of the two songs that it finds where the context holds song 4."""
    scores = remembered(1, edition)[0]
    return {song: float(scores[song - FIRST_NUMBER]) for song in (7, 11)}


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
    rows, places, targets = torch.tensor([[3, 4, MASK], [5, 6, MASK]]), torch.tensor([2, 5]), torch.tensor([7, 7])
    of_encoder = F.cross_entropy(bare.score(rows)[:, FIRST_NUMBER:], targets - FIRST_NUMBER)
    origin = Origin(lists=torch.tensor([5, 6]), editions=torch.tensor([2, 1]))
    for given, edition in ((origin, 2), (None, 0)):
        expected = of_encoder + of_memory((said_songs(edition), 7), ({}, 7))
        torch.testing.assert_close(full(rows, places, targets, origin=given, negatives=negatives), expected)


def test_the_memory_may_look_further_back_than_the_encoder_reads(monkeypatch):
    monkeypatch.setattr("memory.LOOKED_OVER", 1)  # gates and judgement see no more than the sources do
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
def test_gradients_reach_every_parameter_but_the_two_that_are_chosen(negatives):
    _, model = model_with_memory()
    songs = torch.tensor([[3, 4, MASK], [PAD, 5, MASK]])
    loss = model.train()(songs, torch.tensor([2, 5]), torch.tensor([7, 8]), unknown_song_probability=0.5, negatives=negatives)
    loss.backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == ["encoder_weight", "newcomer_bonus"]


def test_checkerboard_is_learned():
    """Even songs follow even ones, odd follow odd: the answer is obvious."""
    torch.manual_seed(0)
    model = BERT4Rec(SMALL, small_catalogue(n_songs=13, n_fitted=13))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    evens, odds = torch.arange(4, 13, 2), torch.arange(3, 13, 2)
    for _ in range(300):
        rows = torch.stack([side[torch.randperm(len(side))[:4]] for side in (evens, odds) for _ in range(8)])
        targets, rows = rows[:, -1].clone(), rows.index_fill(1, torch.tensor([3]), MASK)
        optimizer.zero_grad()
        model(rows, torch.arange(16) * 4 + 3, targets).backward()
        optimizer.step()
    scores = model.eval().score(torch.tensor([[4, 6, 8, MASK], [3, 5, 7, MASK]]))
    # Of those that are not in the row already: in training none of these was ever asked for.
    assert scores[0, [10, 12]].min() > scores[0, odds].max() + 1
    assert scores[1, [9, 11]].min() > scores[1, evens].max() + 1


# --- from left to right

CAUSAL = dataclasses.replace(SMALL, objective="causal")


def causal_queries(model, row):
    """The output of the encoder at each place of one row that shows all of its songs."""
    return model.encode(model.read(torch.tensor([row])))[0]


def test_a_causal_place_reads_the_songs_before_it_and_no_other():
    model = small_model(CAUSAL)
    row = [3, 4, 5, 6, 7]
    queries = causal_queries(model, row)
    for place in range(len(row)):
        changed = causal_queries(model, [*row[:place], 8, *row[place + 1 :]])
        is_same = [torch.allclose(one, other, atol=1e-6) for one, other in zip(queries, changed, strict=True)]
        assert is_same == [other <= place for other in range(len(row))]


def test_a_causal_model_is_trained_on_what_it_is_used_for():
    """The loss at the last place of a row that shows its song is that of the scores of a row that does not."""
    model = small_model(CAUSAL, n_fitted=12)
    scores = model.score(torch.tensor([[3, 4, MASK], [PAD, 6, MASK]]))
    expected = F.cross_entropy(scores[:, FIRST_NUMBER:], torch.tensor([7, 8]) - FIRST_NUMBER)
    shown = model(torch.tensor([[3, 4, 7], [PAD, 6, 8]]), torch.tensor([2, 5]), torch.tensor([7, 8]))
    torch.testing.assert_close(shown, expected)


def test_a_causal_row_longer_than_the_encoder_reads_begins_with_the_song_before():
    model = small_model(CAUSAL)
    assert model.read(torch.tensor([[9, 8, 3, 4, 5, 6, 7, MASK]])).tolist() == [[8, 3, 4, 5, 6, 7]]
    assert model.read(torch.tensor([[3, MASK]])).tolist() == [[PAD, 3]]


def test_the_songs_that_an_encoder_reads_are_those_that_its_answer_hangs_on():
    for config, newest in ((SMALL, 5), (CAUSAL, 5)):
        model = small_model(config)
        assert (model.songs_read, model.row_len) == (newest, 6)
    _, remembering = model_with_memory(reach=9)
    causal = BERT4Rec(CAUSAL, small_catalogue(n_fitted=12), remembering.memory).eval()
    assert (remembering.songs_read, causal.songs_read) == (5, 6)
    row = torch.tensor([[8, 7, 6, 5, 4, 3, 9, 10, MASK]])
    for model in (remembering, causal):
        for back in range(1, 9):
            changed = row.clone()
            changed[0, -1 - back] = 11
            is_read = not torch.allclose(model.encode_last(changed), model.encode_last(row), atol=1e-6)
            assert is_read == (back <= model.songs_read)


def test_a_causal_model_ignores_padding_and_answers_without_any_song():
    model = small_model(CAUSAL)
    bare, padded = model.score(torch.tensor([[3, 4, MASK]])), model.score(torch.tensor([[PAD, PAD, 3, 4, MASK]]))
    torch.testing.assert_close(bare, padded)
    alone = model.score(torch.tensor([[MASK]]))
    torch.testing.assert_close(alone, model.score(torch.tensor([[PAD, PAD, MASK]])))
    assert alone[:, FIRST_NUMBER:].isfinite().all()


def test_causal_attention_in_training_is_torchs_where_nothing_is_dropped():
    model = small_model(CAUSAL)
    rows = torch.tensor([[PAD, 3, 4, 5], [6, 7, 8, 9]])
    without = model.encode(rows)
    for block in model.blocks:
        block.attention.training, block.attention.dropout_prob = True, 1e-9  # and Dropout stays in evaluation
    torch.testing.assert_close(model.encode(rows)[:, 1:], without[:, 1:])


def test_the_memory_learns_at_the_places_where_it_is_asked():
    _, full = model_with_memory()
    bare = small_model(CAUSAL, n_fitted=12)
    causal = BERT4Rec(CAUSAL, small_catalogue(n_fitted=12), full.memory).eval()
    causal.load_state_dict({**causal.state_dict(), **bare.state_dict()})
    rows, places, targets = torch.tensor([[3, 4, 7, 5]]), torch.tensor([1, 2, 3]), torch.tensor([4, 7, 5])
    of_encoder = bare(rows, places, targets)
    for asked, expected in (([1], of_memory((said_songs(), 7))), ([0, 1], of_memory(({}, 4), (said_songs(), 7)))):
        loss = causal(rows, places, targets, remembered=torch.tensor(asked), memory_weight=0.5)
        torch.testing.assert_close(loss, of_encoder + 0.5 * expected)


def test_a_causal_model_learns_an_order_that_only_the_last_song_tells():
    """Songs go round in a circle of ten, from any beginning: each is followed by the next one."""
    torch.manual_seed(0)
    model = BERT4Rec(CAUSAL, small_catalogue(n_songs=13, n_fitted=13))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(200):
        rows = FIRST_NUMBER + (torch.randint(10, (16, 1)) + torch.arange(6)) % 10
        places = torch.arange(16 * 6).view(16, 6)[:, 1:].flatten()
        optimizer.zero_grad()
        model(rows, places, rows.flatten()[places]).backward()
        optimizer.step()
    for song in range(FIRST_NUMBER, 13):
        scores = model.eval().score(torch.tensor([[song, MASK]]))[0]
        assert int(scores.argmax()) == FIRST_NUMBER + (song - FIRST_NUMBER + 1) % 10


def with_gaps(**parts):
    """The small catalogue, fitted up to song 9, with songs 5 and 8 known but not in training."""
    catalogue = small_catalogue(**parts)
    fitted = torch.ones(9, dtype=torch.bool)
    fitted[[5, 8]] = False
    return dataclasses.replace(catalogue, fitted=fitted)


def test_a_gap_in_the_numbers_is_as_unknown_as_a_later_song():
    torch.manual_seed(0)
    model = BERT4Rec(SMALL, with_gaps()).eval()
    torch.nn.init.normal_(model.bias)
    same_parts = 9  # song 9 comes after training, with artist 3 and album 6; 5 has artist 3 and album 2
    model.embedding.song_album[5] = model.embedding.song_album[same_parts]
    model.embedding.song_features[5] = model.embedding.song_features[same_parts]
    assert torch.equal(model.embedding(torch.tensor([5])), model.embedding(torch.tensor([same_parts])))
    scores = model.score(torch.tensor([[3, 4, MASK]]))[0]
    assert scores[5] == scores[same_parts]
    assert model.embedding.are_fitted().nonzero().flatten().tolist() == [3, 4, 6, 7]


def test_artists_and_albums_of_gaps_alone_are_unknown():
    catalogue = small_catalogue(n_songs=12)
    catalogue.song_artist[5:9] = torch.tensor([4, 3, 3, 4])  # artist 4 has the songs 5 and 8 and, before, song 4
    catalogue.song_artist[[3, 4]] = 3
    fitted = torch.ones(9, dtype=torch.bool)
    fitted[[5, 8]] = False
    known = dataclasses.replace(catalogue, fitted=fitted)
    assert known.fitted_numbers(5, known.song_artist).tolist() == [True, True, True, True, False]
    model = BERT4Rec(SMALL, known).eval()
    assert torch.equal(model.embedding.artist(torch.tensor([4])), model.embedding.artist.weight[[UNKNOWN]])


def test_a_gap_is_no_candidate_in_training_and_its_row_stays():
    torch.manual_seed(0)
    model, bare = BERT4Rec(SMALL, with_gaps()).eval(), BERT4Rec(SMALL, with_gaps()).eval()
    bare.load_state_dict(model.state_dict())
    torch.nn.init.normal_(bare.embedding.song.weight[[5, 8]])
    songs, places, targets = torch.tensor([[3, 5, MASK]]), torch.tensor([2]), torch.tensor([7])
    loss = model(songs, places, targets)
    assert torch.equal(loss, bare(songs, places, targets))
    scores = model.score(songs)[0, [3, 4, 6, 7]]
    torch.testing.assert_close(loss, F.cross_entropy(scores[None], torch.tensor([3])))
    loss.backward()
    assert not model.embedding.song.weight.grad[[5, 8]].any()
    assert not model.bias.grad[[5, 8]].any()


def test_features_are_standardised_without_the_gaps():
    catalogue = with_gaps()
    catalogue.song_features[5] = 1e6
    projection = BERT4Rec(SMALL, catalogue).embedding.features
    assert torch.allclose(projection.mean, catalogue.song_features[[3, 4, 6, 7]].mean(0))


def test_labels_are_smoothed_for_the_encoder_alone():
    bare, full = model_with_memory()
    rows, places, targets = torch.tensor([[3, 4, MASK], [5, 6, MASK]]), torch.tensor([2, 5]), torch.tensor([7, 8])
    of_encoder = F.cross_entropy(bare.score(rows)[:, FIRST_NUMBER:], targets - FIRST_NUMBER, label_smoothing=0.3)
    expected = of_encoder + of_memory((said_songs(), 7), ({}, 8))
    torch.testing.assert_close(full(rows, places, targets, label_smoothing=0.3), expected)


def test_the_memory_is_compared_among_what_it_found_at_the_places_whose_target_is_there():
    """Three editions; the last place but one does not find its target, and at the last nothing is found."""
    _, full = model_with_memory(n_editions=3)
    found = [{7: 2.0, 3: 0.5, 9: 0.0}, {11: 1.5}, {3: 4.0, 4: 0.1, 8: 3.0}, {5: 1.0, 6: 2.0}, {}]
    editions, targets = [0, 2, 1, 0, 1], [9, 11, 4, 7, 3]
    songs = [[PAD, *of_place, *[PAD] * (4 - len(of_place))] for of_place in found]
    bonus = [[0.0, *of_place.values(), *[0.0] * (4 - len(of_place))] for of_place in found]
    looked_up = LookedUp(torch.tensor(songs), torch.tensor(bonus))
    priors = [remembered(1, edition, bonus=False)[0].tolist() for edition in editions]
    scores = [
        {song: more + prior[song - FIRST_NUMBER] for song, more in of_place.items()}
        for of_place, prior in zip(found, priors, strict=True)
    ]
    expected = of_memory(*zip(scores, targets, strict=True))
    assert expected > 0.5
    torch.testing.assert_close(full._memory_loss(looked_up, torch.tensor(editions), torch.tensor(targets)), expected)


def test_a_place_that_found_its_target_teaches_and_another_one_does_not():
    _, full = model_with_memory()
    songs, bonus = torch.tensor([[7, 11, PAD], [7, 11, PAD]]), torch.tensor([[2.0, 0.5, 0.0]] * 2, requires_grad=True)
    full._memory_loss(LookedUp(songs, bonus), None, torch.tensor([7, 8])).backward()
    taught, untaught = bonus.grad.tolist()
    scores = said_songs()
    share = math.exp(scores[11]) / (math.exp(scores[7]) + math.exp(scores[11]))
    assert taught == pytest.approx([-share / 2, share / 2, 0])
    assert untaught == [0, 0, 0]


def test_songs_that_no_list_holds_are_rivals_in_the_memorys_loss_and_specials_are_none():
    """Song 5 is a gap among the fitted ones, 9 comes after them."""
    full = BERT4Rec(SMALL, with_gaps(), Memory(16, [Says(9)], torch.zeros(1, 12)))
    songs = {7: 1.0, 5: 3.0, 9: 2.0, 4: 0.5}
    found = {**songs, PAD: 8.0, MASK: 9.0, UNKNOWN: 7.0}
    looked_up = LookedUp(torch.tensor([list(found)]), torch.tensor([list(found.values())]))
    for target in (7, 9):
        loss = full._memory_loss(looked_up, None, torch.tensor([target]))
        torch.testing.assert_close(loss, of_memory((songs, target)))


def test_songs_that_training_does_not_hold_have_the_newcomers_bonus_however_they_came_to_be_known():
    """Songs 5 and 8 are gaps among the fitted ones, 9 to 11 come after them, and 12 and 13 were added."""
    torch.manual_seed(0)
    model = BERT4Rec(SMALL, with_gaps(), Memory(16, [Says(9)], torch.arange(12.0)[None])).eval()
    model.encoder_weight.data.fill_(0.3)
    rows = torch.tensor([[3, 4, MASK], [PAD, 6, MASK]])
    longer = model.grown(torch.tensor([3, UNKNOWN]), torch.tensor([4, 99]), torch.randn(2, 3))
    before = longer.score(rows)
    model.newcomer_bonus.data.fill_(0.75)
    assert model.output_bias()[:FIRST_NUMBER].tolist() == [-torch.inf] * FIRST_NUMBER
    bonus = torch.zeros(14).index_fill(0, torch.tensor([5, 8, 9, 10, 11, 12, 13]), 0.75)
    torch.testing.assert_close(longer.score(rows), before + bonus)
    torch.testing.assert_close(model.score(rows), (before + bonus)[:, :12])


def test_a_huge_bonus_leaves_the_memorys_loss_finite():
    _, full = model_with_memory()
    full.memory.gate.bias.data.fill_(500.0)
    rows, places, targets = torch.tensor([[3, 4, MASK], [5, 4, MASK]]), torch.tensor([2, 5]), torch.tensor([11, 7])
    looked_up = full.memory(rows, places, torch.zeros(2, 16))
    scores = remembered(1, bonus=False)[0]
    lead = float(scores[7 - FIRST_NUMBER] + 1000 - scores[11 - FIRST_NUMBER] - 250)  # of song 7, which is asked for once
    torch.testing.assert_close(full._memory_loss(looked_up, None, targets), torch.tensor(lead / 2))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.001, 0.999])
def test_dropout_drops_that_share_and_keeps_the_mean(probability):
    torch.manual_seed(0)
    mask = drawn_mask(torch.Size([1000, 1000]), probability)
    dropped = (mask == 0).float().mean().item()
    assert abs(dropped - probability) < 1 / 256
    assert mask.unique().numel() == 2
    assert abs(mask.mean().item() - 1) < 0.05


def test_dropout_is_drawn_anew_from_the_global_generator_and_off_outside_training():
    layer, values = Dropout(0.5), torch.ones(10, 10)
    torch.manual_seed(3)
    first, second = layer(values), layer(values)
    torch.manual_seed(3)
    assert torch.equal(layer(values), first)
    assert not torch.equal(first, second)
    assert layer.eval()(values) is values


def test_the_gradient_of_gelu_is_torchs():
    values = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    for ours, theirs in ((GELU()(values), F.gelu(values)),):
        torch.testing.assert_close(ours, theirs)
        weights = torch.arange(101.0, dtype=torch.float64)
        torch.testing.assert_close(*(torch.autograd.grad((out * weights).sum(), values)[0] for out in (ours, theirs)))


def test_gelu_in_bfloat16_is_as_near_as_torchs():
    values = torch.linspace(-4, 4, 801).bfloat16()
    exact = F.gelu(values.double())
    far = (GELU()(values).double() - exact).abs()
    assert (far <= exact.abs() * 2**-7 + 2**-11).all()
    assert (far <= 2 * (F.gelu(values).double() - exact).abs().max()).all()


def test_attention_in_training_is_torchs_where_nothing_is_dropped():
    ours = SelfAttention(dataclasses.replace(SMALL, dropout_prob=0.5)).train()
    hidden, visible = torch.randn(3, 5, 16), torch.tensor([[1, 1, 0, 1, 1]] * 3, dtype=torch.bool)[:, None, None, :]
    ours.dropout.probability = 0.0  # the path of training, with nothing to drop
    expected = SelfAttention(SMALL).eval()
    expected.load_state_dict(ours.state_dict())
    for n_last in (5, 2):
        torch.testing.assert_close(ours(hidden, visible, n_last), expected(hidden, visible, n_last))


def test_a_row_of_padding_alone_trains_without_nan():
    model = small_model(dataclasses.replace(SMALL, dropout_prob=0.2)).train()
    loss = model(torch.tensor([[PAD, PAD, MASK], [PAD, 3, MASK]]), torch.tensor([2, 5]), torch.tensor([7, 8]))
    loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_candidates_are_the_embeddings_up_to_what_is_the_same_for_all():
    model = small_model()
    torch.nn.init.normal_(model.embedding.features.out.bias)
    nothing_hidden = torch.zeros(9, dtype=torch.bool)
    candidates, embedded = model.embedding.candidates(9, nothing_hidden), model.embedding(torch.arange(9))
    differences = (embedded - candidates)[FIRST_NUMBER:]
    torch.testing.assert_close(differences, model.embedding.features.out.bias.expand(6, -1))
    hidden = torch.ones(9, dtype=torch.bool)
    differences = (model.embedding(torch.arange(9), hidden) - model.embedding.candidates(9, hidden))[FIRST_NUMBER:]
    torch.testing.assert_close(differences, model.embedding.features.out.bias.expand(6, -1))
