import numpy as np
import pytest
import torch

from benchmarks.training.material import made_up_lists, made_up_snapshot
from benchmarks.training.ours import ARCHITECTURES
from benchmarks.training.products import Products
from benchmarks.training.reference import Reference
from config import FIRST_NUMBER, MASK, ModelConfig
from losses import linear_cross_entropy
from splits import TRAIN


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return made_up_snapshot(tmp_path_factory.mktemp("made_up"), n_songs=300, n_rows=3_000)


def test_made_up_lists_hold_every_song_and_are_as_long_as_playlists():
    lists = made_up_lists(n_songs=500, n_rows=20_000)
    assert set(lists.songs.tolist()) == set(range(FIRST_NUMBER, 500 + FIRST_NUMBER))
    lengths = np.diff(lists.offsets)
    assert abs(len(lists.songs) / 20_000 - 1) < 0.1
    assert (lengths.min(), 18 <= np.median(lengths) <= 26) == (3, True)


def test_made_up_songs_are_played_unevenly_and_stay_in_their_cluster():
    lists = made_up_lists(n_songs=4_000, n_rows=40_000)
    plays = np.sort(np.bincount(lists.songs))[::-1]
    assert plays[:400].sum() > 2 * plays[2_000:2_400].sum()
    cluster = (lists.songs - FIRST_NUMBER) % 10
    first = lists.offsets[:-1]
    same = [(cluster[a:b] == np.bincount(cluster[a:b]).argmax()).mean() for a, b in zip(first, lists.offsets[1:], strict=True)]
    assert np.mean(same) > 0.7


def test_every_training_song_is_below_the_fitted_ones(snapshot):
    songs, _ = snapshot.part(TRAIN)
    assert songs.max() == snapshot.manifest["counts"]["fitted_songs"] - 1


def test_products_are_counted_with_those_inside_our_own_functions():
    left, right = torch.randn(4, 6, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    with Products() as recorded:
        linear_cross_entropy(left, right, torch.zeros(5), torch.tensor([0, 1, 2, 3])).backward()
    # Scores, the gradients of either side, and of the bias.
    assert recorded.flops == 3 * 2 * 4 * 6 * 5 + 2 * 4 * 5
    assert recorded.seconds(torch.device("cpu")) > 0


def test_products_know_batches_and_layouts():
    with Products() as recorded:
        torch.bmm(torch.randn(7, 2, 3), torch.randn(7, 5, 3).transpose(1, 2))
    assert recorded.flops == 2 * 7 * 2 * 3 * 5
    ((shape, count),) = recorded.counts.items()
    assert (shape[:4], count) == (((7, 2, 3), False, (7, 3, 5), True), 1)


def test_the_reference_hides_songs_with_their_parts_and_learns(snapshot):
    torch.manual_seed(0)
    reference = Reference(snapshot, ModelConfig(seq_len=20, d_ff=32, N=1), batch_size=16, cloze_probability=0.5)
    item = reference.data[3]
    hidden = item["song"] == MASK
    assert hidden.any()
    assert torch.equal(hidden, item["label"] > 0)
    assert item["artist"][hidden].eq(MASK).all()
    assert not item["features"][hidden].any()
    songs, offsets = snapshot.part(TRAIN)
    whole = torch.where(hidden, item["label"], item["song"])
    expected = songs[offsets[3] : offsets[4]][-20:]
    assert whole[20 - len(expected) :].tolist() == expected.tolist()
    batch = next(iter(reference.loader))
    probabilities = reference.network(batch)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:2]))
    before = -probabilities[batch["label"] > 0].gather(1, batch["label"][batch["label"] > 0][:, None]).log().mean()
    for _ in range(30):
        reference._step(batch)
    after = -reference.network(batch)[batch["label"] > 0].gather(1, batch["label"][batch["label"] > 0][:, None]).log().mean()
    assert after.item() < before.item() - 0.5


def test_both_parties_have_the_same_widths():
    model, _, objective = ARCHITECTURES["rectools"]
    assert (model.d_model, model.N, model.heads, model.d_ff, model.seq_len) == (128, 2, 2, 4 * 128, 50)
    assert (objective["cloze_probability"], objective["last_item_probability"]) == (0.15, 0.0)
