import math

import pytest
import torch

from config import MASK, PAD
from judgement import Evidence, Judgement, n_signals_of
from memory import Memory
from newcomers import Newcomers
from sources import CountedRelations, HeardBefore, NearestLists
from sums import Weighing, distinct
from tests.test_memory import V, bonuses, origin_of, plays_of, relation_of, small_index

# Of two amounts the first is a signal by itself and beside the best one, the second is scaled; of one the logarithm alone.
TWO = Weighing(plain=(0, None), logs=(1, 2), sharpness=(30.0, 1.0), best=3, scaled=1)
ONE = Weighing(plain=(None,), logs=(0,), sharpness=(5.0,))
N_SIGNALS = 4 + 4 + 1

# What two relations of one source and one of another say at two places: song -> amounts.
FIRST = [{7: (0.2, 3.0), 8: (1.5, 1.0)}, {5: (0.1, 2.0)}]
SECOND = [{8: (0.4, 0.5), 9: (0.7, 4.0)}, {}]
OTHER = [{9: (0.3,), 7: (2.0,), 5: (0.6,)}, {6: (1.0,), 5: (0.7,)}]
SCALE = {5: 0.5, 6: 0.6, 7: 0.7, 8: 0.8, 9: 0.9, PAD: 1.0}
PLAYS = {5: 0, 6: 3, 7: 1, 8: 20, 9: 7, PAD: 0}
SUMS = [{5: 0.6, 7: 3.0, 8: 2.5, 9: 0.1}, {5: 0.2, 6: 1.7}]
CONTEXT = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]], dtype=torch.float64)


def columns_of(relation, width):
    """Songs (M, width) and amounts (A, M, width) of a relation, PAD beyond those that there are."""
    A = next(len(amounts) for found in relation for amounts in found.values())
    rows = [[*found.items(), *[(PAD, (0.0,) * A)] * (width - len(found))] for found in relation]
    songs = [[song for song, _ in row] for row in rows]
    amounts = torch.tensor([[amounts for _, amounts in row] for row in rows], dtype=torch.float64)
    return torch.tensor(songs), amounts.permute(2, 0, 1)


def evidence_of(weighing, *relations):
    songs, amounts = zip(*(columns_of(relation, 2 + number) for number, relation in enumerate(relations)), strict=True)
    songs = torch.cat(songs, dim=1)
    scale = torch.tensor([[SCALE[song] for song in row] for row in songs.tolist()], dtype=torch.float64)
    return Evidence(songs, torch.cat(amounts, dim=2), weighing, [column.shape[2] for column in amounts], scale)


def everything():
    """All the evidence, the distinct songs of it, and a column of SUMS and of the logarithm of PLAYS for each."""
    evidence = [evidence_of(TWO, FIRST, SECOND), Evidence(*columns_of(OTHER, 4), ONE)]
    found = distinct(torch.cat([one.songs for one in evidence], dim=1), V)
    listed = found.keys.tolist()
    bonus = [[sums.get(song, 0.0) for song in row] for row, sums in zip(listed, SUMS, strict=True)]
    plays = [[PLAYS[song] for song in row] for row in listed]
    return evidence, found, torch.tensor(bonus, dtype=torch.float64), torch.tensor(plays, dtype=torch.float64).log1p()


def judgement_of(most, *, is_trained=True):
    torch.manual_seed(0)
    judgement = Judgement(3, N_SIGNALS, most)
    for weight in judgement.parameters() if is_trained else ():
        torch.nn.init.normal_(weight, std=0.4)
    return judgement.double()


def judged(judgement):
    """Song -> bonus at each place."""
    evidence, found, *rest = everything()
    bonus = judgement(evidence, found, *rest, CONTEXT)
    return [
        {song: more for song, more in zip(*row, strict=True) if song != PAD}
        for row in zip(found.keys.tolist(), bonus.tolist(), strict=True)
    ]


def softplus(number):
    return math.log1p(math.exp(number))


def approximately(places):
    return [pytest.approx(found, rel=1e-9) for found in places]


def by_hand(judgement, place, song):
    """The bonus of one song, number by number."""
    signals = [0.5 * math.log1p(PLAYS[song]), 0.25 * SUMS[place][song]]
    for relation in (FIRST, SECOND):
        found = relation[place]
        share, count = found.get(song, (0.0, 0.0))
        best = max((amounts[0] for amounts in found.values()), default=1.0)
        signals += [1.5 * math.log1p(30 * share), min(10 * share, 8.0), 8 * share / best]
        signals += [1.5 * math.log1p(count * SCALE[song])]
    signals += [1.5 * math.log1p(5 * OTHER[place].get(song, (0.0,))[0])]

    def through(layer, numbers):
        bias = [0.0] * len(layer.weight) if layer.bias is None else layer.bias.tolist()
        rows = zip(layer.weight.tolist(), bias, strict=True)
        return [sum(w * number for w, number in zip(row, numbers, strict=True)) + more for row, more in rows]

    def gelu(numbers):
        return [number * (1 + math.erf(number / math.sqrt(2))) / 2 for number in numbers]

    of_song, of_place = through(judgement.signals, signals), through(judgement.context, CONTEXT[place].tolist())
    hidden = gelu([a + b for a, b in zip(of_song, of_place, strict=True)])
    (verdict,) = through(judgement.out, gelu(through(judgement.hidden, hidden)))
    return softplus(SUMS[place][song] + verdict)


def test_a_song_is_judged_by_every_signal_its_plays_the_sum_and_the_place():
    judgement = judgement_of(256)
    expected = [{song: by_hand(judgement, place, song) for song in sums} for place, sums in enumerate(SUMS)]
    assert judged(judgement) == approximately(expected)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_songs_beyond_the_best_keep_their_sum(most):
    judgement = judgement_of(most)
    best = [[7, 8, 5], [6, 5]]
    expected = [
        {song: by_hand(judgement, place, song) if song in best[place][:most] else total for song, total in sums.items()}
        for place, sums in enumerate(SUMS)
    ]
    assert judged(judgement) == approximately(expected)


def test_of_equal_sums_the_song_with_the_higher_number_is_judged(monkeypatch):
    monkeypatch.setitem(SUMS[0], 8, 3.0)
    found, _ = judged(judgement_of(1))
    assert found[7] == 3.0 != found[8]


def test_a_judgement_that_was_just_made_changes_nothing_but_the_softplus_of_the_sum():
    expected = [{song: softplus(total) for song, total in sums.items()} for sums in SUMS]
    assert judged(judgement_of(256, is_trained=False)) == approximately(expected)


def test_a_relation_without_a_column_says_nothing():
    """As where no song of a batch is by a known artist."""
    judgement = judgement_of(256)
    evidence, found, *rest = everything()
    none = Evidence(found.keys[:, :0], torch.zeros(2, 2, 0).double(), TWO, [0, 0], torch.zeros(2, 0).double())
    slots = found.slots[:, 5:]  # of the other source alone
    bonus = judgement([none, evidence[1]], found._replace(slots=slots), *rest, CONTEXT)
    judgement.signals.weight.data[:, 2:10] = 0  # what the first source says
    torch.testing.assert_close(bonus, judgement(*everything(), CONTEXT))


def test_the_signals_of_a_relation_are_counted_as_they_are_made():
    assert [n_signals_of(weighing) for weighing in (TWO, ONE)] == [4, 1]
    sources = (CountedRelations, HeardBefore, NearestLists, Newcomers)
    assert all(n_signals_of(source.WEIGHING) == source.WEIGHING.n_signals for source in sources)


def test_the_gradients_of_a_judgement_are_right(monkeypatch):
    """By finite differences; the sum is read without a gradient, so its column is left out."""
    monkeypatch.setitem(SECOND[1], 5, (0.3, 2.0))  # beside nothing there is no best one, and no gradient
    judgement = judgement_of(256)
    judgement.signals.weight.data[:, 1] = 0
    evidence, found, bonus, log_plays = everything()

    def bonus_of(two, one, bonus, context):
        amounts = [evidence[0]._replace(amounts=two), evidence[1]._replace(amounts=one)]
        return judgement(amounts, found, bonus, log_plays, context) * (found.keys != PAD)

    given = [evidence[0].amounts, evidence[1].amounts, bonus, CONTEXT]
    assert torch.autograd.gradcheck(bonus_of, [tensor.clone().requires_grad_() for tensor in given])


# --- as a part of the memory


def small_memory(judged=5):
    torch.manual_seed(0)
    relation = {song: [3 + song % 9, 3 + (song + 4) % 9] for song in range(3, V)}
    counted = relation_of((relation, {song: [song, 2] for song in relation}, {song: 9 + song for song in relation}), reach=5)
    memory = Memory(2, [counted, NearestLists(small_index(), 2, 6), HeardBefore(7)], torch.arange(float(V)).repeat(2, 1), judged)
    for weight in (*memory.judgement.parameters(), memory.gate.weight) if judged else ():
        torch.nn.init.normal_(weight, std=0.3)
    return memory


@torch.no_grad()
def found_in(memory, rows, queries, origin=None):
    width = max(map(len, rows)) + 1
    songs = torch.tensor([[PAD] * (width - 1 - len(row)) + [*row, MASK] for row in rows])
    return bonuses(memory(songs, torch.arange(1, len(rows) + 1) * width - 1, queries, origin))


@pytest.mark.parametrize("most", [1, 3, 256])
def test_an_answer_does_not_depend_on_the_batch_around_it(most):
    memory, generator = small_memory(most), torch.Generator().manual_seed(1)
    rows = [torch.randint(3, V, (length,), generator=generator).tolist() for length in (1, 9, 4, 0, 6, 2)]
    queries = torch.randn(len(rows), 2, generator=generator)
    together = found_in(memory, rows, queries)
    for row, query, found in zip(rows, queries, together, strict=True):
        assert found == pytest.approx(found_in(memory, [row], query[None])[0], rel=1e-5)
    assert all(more >= 0 for found in together for more in found.values())
    assert len(together[1]) > 3 or most == 256  # some songs are not judged


def test_without_a_judgement_the_sum_is_the_bonus():
    rows, queries = [[3, 4, 5, 3, 4], [9]], torch.ones(2, 2)
    fresh = small_memory(5)
    for weight in (fresh.judgement.out.weight, fresh.judgement.out.bias):
        torch.nn.init.zeros_(weight)
    unjudged = small_memory(0)
    unjudged.load_state_dict({name: weight for name, weight in fresh.state_dict().items() if not name.startswith("judgement.")})
    for found, sums in zip(found_in(fresh, rows, queries), found_in(unjudged, rows, queries), strict=True):
        best = sorted(sums, key=lambda song: (-sums[song], -song))[:5]
        expected = {song: softplus(total) if song in best else total for song, total in sums.items()}
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_judgement_reads_the_plays_of_the_edition():
    memory = small_memory(256)
    memory.song_plays = plays_of({7: 1, 4: 90}, {7: 50})
    rows, queries = [[3, 4, 5]] * 2, torch.ones(2, 2)
    full, without_fold = found_in(memory, rows, queries)[0], found_in(memory, rows, queries, origin_of((8, 1), (9, 1)))[0]
    memory.song_plays = plays_of({7: 50})
    assert without_fold == pytest.approx(found_in(memory, rows, queries)[0])
    assert full != without_fold


def test_a_loss_teaches_gates_sources_and_judgement():
    memory = small_memory(5)
    songs = torch.tensor([[5, 4, 3, 8, 5, MASK], [PAD, PAD, 10, 3, 10, MASK]])
    queries = torch.ones(2, 2, requires_grad=True)
    looked_up = memory(songs, torch.tensor([5, 11]), queries)
    (looked_up.bonus.logsumexp(1).sum() + memory.prior().sum()).backward()
    assert [name for name, weight in memory.named_parameters() if not weight.grad.any()] == []
    assert queries.grad.all()


def test_a_judgement_that_was_just_made_learns_its_last_layer_first():
    memory = small_memory(5)
    for weight in (memory.judgement.context.weight, memory.judgement.out.weight, memory.judgement.out.bias):
        torch.nn.init.zeros_(weight)
    memory(torch.tensor([[5, 4, 3, MASK]]), torch.tensor([3]), torch.ones(1, 2)).bonus.sum().backward()
    learns = {name for name, weight in memory.judgement.named_parameters() if weight.grad.any()}
    assert learns == {"out.weight", "out.bias"}
    assert memory.gate.weight.grad.any()
