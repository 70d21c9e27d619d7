import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN, ModelConfig
from model import PAIR_SLOTS, BERT4Rec, Catalogue, Memory, NegativeSampler, OwnList, Relation, SelfAttention, pair_slots

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
    assert torch.allclose(ours(hidden, ~padding[:, None, None, :]), expected, atol=1e-6)


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


def test_sampled_loss_with_every_song_drawn_once_equals_the_full_one():
    model = small_model(n_fitted=12)
    songs, places, targets = torch.tensor([[3, 4, MASK]]), torch.tensor([2]), torch.tensor([7])
    everyone = torch.arange(FIRST_NUMBER, 12)
    once = type("Drawn", (), {"songs": everyone, "log_expected_count": torch.zeros(len(everyone))})
    assert torch.allclose(model(songs, places, targets, negatives=once), model(songs, places, targets), atol=1e-5)


def test_the_correction_makes_the_sampled_partition_function_unbiased():
    frequencies = torch.tensor([0, 0, 0, 100, 10, 1, 1])
    sampler, generator = NegativeSampler(frequencies), torch.Generator().manual_seed(0)
    logits = torch.tensor([0, 0, 0, 0.3, -1.0, 2.0, 0.5])
    samples = [sampler.draw(4, generator) for _ in range(20_000)]
    estimates = [float((logits[drawn.songs] - drawn.log_expected_count).exp().sum()) for drawn in samples]
    assert math.isclose(sum(estimates) / len(estimates), float(logits[FIRST_NUMBER:].exp().sum()), rel_tol=0.03)
    assert min(int(drawn.songs.min()) for drawn in samples) >= FIRST_NUMBER


def table(rows, n_rows=12, width=2, dtype=torch.float32):
    filled = torch.zeros(n_rows, width, dtype=dtype)
    for row, values in rows.items():
        filled[row, : len(values)] = torch.tensor(values, dtype=dtype)
    return filled


def small_memory(songs, counts, totals, plays, reach=2, again_reach=0, key_of_song=None, is_counted=True, counts_pairs=False):
    """A memory of one relation whose gates are all one, so that a bonus is the sum of its channels over distance."""
    relation = Relation(
        name="next",
        songs=table(songs, dtype=torch.int32),
        counts=table(counts),
        totals=table(totals, width=1)[:, 0],
        reach=reach,
        key_of_song=key_of_song,
        is_counted=is_counted,
        counts_pairs=counts_pairs,
    )
    memory = Memory(16, [relation], table(plays, width=1)[:, 0], again_reach)
    torch.nn.init.constant_(memory.gate.bias, math.log(math.e - 1))  # softplus of it is one
    return memory


def bonuses(looked_up, place=0):
    """Song -> what the memory adds to its score at one place."""
    total = torch.zeros(13).index_add(0, looked_up.songs[place], looked_up.bonus[place].detach())
    return {song: round(float(total[song]), 4) for song in total.nonzero()[:, 0].tolist()}


def evidence(c, n, m):
    """Share, logarithm and cosine of c of n sequences, for a song in m."""
    return c / (n + 1) + math.log1p(c) + c / math.sqrt((n + 1) * (m + 1))


def test_a_bonus_is_the_evidence_worked_out_by_hand_and_fades_with_distance():
    memory = small_memory({3: [7], 4: [7, 8]}, {3: [2], 4: [1, 5]}, {3: [4], 4: [9]}, {7: [3], 8: [6]})
    found = memory(torch.tensor([[3, 4, MASK]]), torch.tensor([2]), torch.zeros(1, 16))
    assert bonuses(found) == {7: round(evidence(1, 9, 3) + evidence(2, 4, 3) / 2, 4), 8: round(evidence(5, 9, 6), 4)}


def test_only_songs_before_the_place_and_within_reach_are_looked_up():
    memory = small_memory({3: [7], 4: [8], 5: [9]}, {3: [1], 4: [1], 5: [1]}, {3: [1], 4: [1], 5: [1]}, {}, reach=1)
    found = memory(torch.tensor([[3, 4, MASK, 5]]), torch.tensor([2]), torch.zeros(1, 16))
    assert set(bonuses(found)) == {8}


def own_of(songs, pairs=()):
    """What one list has put into the counts: its songs, and which directly follow each other."""
    slots = [[int(pair_slots(torch.tensor(a), torch.tensor(b))) for a, b in pairs] or [0]]
    return OwnList(songs=torch.tensor([songs]), pairs=torch.tensor(slots))


def test_the_support_of_the_list_at_hand_is_taken_out():
    """Songs 7 and 8 belong to the row's own list, 9 does not: one of each count, total and plays is its own."""
    memory = small_memory({3: [7, 9], 4: [8]}, {3: [1, 1], 4: [4]}, {3: [2], 4: [6]}, {7: [1], 8: [5], 9: [2]})
    found = memory(torch.tensor([[4, 3, MASK]]), torch.tensor([2]), torch.zeros(1, 16), own_of([3, 4, 7, 8, PAD]))
    assert bonuses(found) == {8: round(evidence(3, 5, 4) / 2, 4), 9: round(evidence(1, 1, 2), 4)}


def test_of_counted_pairs_only_those_of_the_list_at_hand_are_taken_out():
    """The own list holds 7 and 8, but only 7 directly follows 3 in it: 3 -> 8 is other lists' support alone."""
    memory = small_memory({3: [7, 8]}, {3: [2, 2]}, {3: [4]}, {7: [3], 8: [3]}, counts_pairs=True)
    own = own_of([3, 7, 8], pairs=[(3, 7), (7, 8)])
    found = memory(torch.tensor([[3, MASK]]), torch.tensor([1]), torch.zeros(1, 16), own)
    assert bonuses(found) == {7: round(evidence(1, 3, 2), 4), 8: round(evidence(2, 3, 2), 4)}


def test_pairs_have_slots_that_seldom_collide_and_never_take_the_padding():
    a, b = torch.meshgrid(torch.arange(3, 303), torch.arange(3, 303), indexing="ij")
    slots = pair_slots(a.flatten(), b.flatten())
    assert int(slots.min()) >= 1
    assert int(slots.max()) < PAIR_SLOTS
    assert len(slots.unique()) > 0.6 * PAIR_SLOTS  # 90,000 pairs thrown at random into 65,535 slots fill 75 %
    assert pair_slots(np.array([5]), np.array([9])).tolist() == pair_slots(torch.tensor([5]), torch.tensor([9])).tolist()


def test_a_relation_that_holds_by_itself_loses_nothing_to_the_list_at_hand():
    memory = small_memory({3: [7]}, {3: [1]}, {3: [1]}, {7: [1]}, is_counted=False)
    found = memory(torch.tensor([[3, MASK]]), torch.tensor([1]), torch.zeros(1, 16), own_of([3, 7]))
    assert bonuses(found) == {7: round(evidence(1, 1, 1), 4)}


def test_specials_and_songs_without_an_artist_look_nothing_up():
    artist = torch.tensor([0, 1, 2, 3, UNKNOWN, *range(5, 12)])
    memory = small_memory({UNKNOWN: [7], 3: [8]}, {UNKNOWN: [9], 3: [1]}, {UNKNOWN: [9], 3: [1]}, {}, key_of_song=artist, reach=4)
    found = memory(torch.tensor([[PAD, 4, UNKNOWN, 3, MASK]]), torch.tensor([4]), torch.zeros(1, 16))
    assert set(bonuses(found)) == {8}


def test_what_followed_the_last_song_before_is_heard_again():
    memory = small_memory({}, {}, {}, {}, again_reach=5)
    found = memory(torch.tensor([[5, 6, 7, 5, MASK]]), torch.tensor([4]), torch.zeros(1, 16))
    assert set(bonuses(found)) == {6}
    assert bonuses(memory(torch.tensor([[PAD, 6, 7, 5, MASK]]), torch.tensor([4]), torch.zeros(1, 16))) == {}


def test_scores_with_a_memory_are_those_without_plus_its_bonuses():
    memory = small_memory({4: [7, 11]}, {4: [3, 1]}, {4: [5]}, {7: [3], 11: [1]})
    bare = small_model(n_fitted=12)
    full = BERT4Rec(SMALL, small_catalogue(n_fitted=12), memory).eval()
    full.load_state_dict({**full.state_dict(), **bare.state_dict()})
    rows = torch.tensor([[3, 4, MASK]])
    added = (full.score(rows) - bare.score(rows)).detach()[0]
    moved = {number: round(float(added[number]), 4) for number in range(FIRST_NUMBER, 12) if abs(added[number]) > 1e-6}
    assert moved == {7: round(evidence(3, 5, 3), 4), 11: round(evidence(1, 5, 1), 4)}
    expected = F.cross_entropy(full.score(rows)[:, FIRST_NUMBER:], torch.tensor([7 - FIRST_NUMBER]))
    assert torch.allclose(full(rows, torch.tensor([2]), torch.tensor([7])), expected, atol=1e-5)
    everyone = torch.arange(FIRST_NUMBER, 12)
    once = type("Drawn", (), {"songs": everyone, "log_expected_count": torch.zeros(len(everyone))})
    assert torch.allclose(full(rows, torch.tensor([2]), torch.tensor([7]), negatives=once), expected, atol=1e-5)


def test_features_are_standardised_over_the_songs_of_training():
    catalogue = small_catalogue()
    catalogue.song_features[9:] = 1e6  # songs that training does not know
    projection = BERT4Rec(SMALL, catalogue).embedding.features
    assert torch.allclose(projection.mean, catalogue.song_features[3:9].mean(0))


def test_gradients_reach_every_parameter():
    model = small_model(n_fitted=12).train()
    model(
        torch.tensor([[3, 4, MASK], [PAD, 5, MASK]]), torch.tensor([2, 5]), torch.tensor([7, 8]), unknown_song_probability=0.5
    ).backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


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
