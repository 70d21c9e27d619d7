"""Songs that no list holds, against loops over every song, artist and album."""

import math

import numpy as np
import pytest
import torch

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN
from engine.tables import unheard_groups
from memory import Memory
from newcomers import CONTEXT_WEIGHT, ROOM_FOR_NEW, Groups, GroupTable, Newcomers
from sources import SHARPNESS_OF_LOG, Origin, Place
from sums import distinct
from tests.test_judgement import small_memory
from tests.test_memory import Fixed, bonuses, origin_of

V, E, REACH = 40, 3, 4
RNG = np.random.default_rng(0)
# Six artists and nine albums from 3 on; some songs are by nobody known.
ARTIST = np.array([PAD, MASK, UNKNOWN, *RNG.choice([UNKNOWN, *range(3, 9)], V - 3)])
ALBUM = np.array([PAD, MASK, UNKNOWN, *RNG.choice([PAD, UNKNOWN, *range(3, 12)], V - 3)])
# Songs 30 to 39 were played by nobody, and each edition but the full one lacks a quarter of the others.
PLAYS = RNG.integers(1, 9, (1 + E, V)) * (RNG.random((1 + E, V)) < 0.75)
PLAYS[0] = np.maximum(1, PLAYS.max(0))
PLAYS[:, 30:] = PLAYS[:, :FIRST_NUMBER] = 0
PLAYS = PLAYS.astype(np.float32)


def newcomers_of(artist=ARTIST, album=ALBUM, plays=PLAYS, reach=REACH):
    newcomers = Newcomers([unheard_groups(key, plays, len(key)) for key in (artist, album)], reach)
    newcomers.fading.data[:] = torch.tensor([[1.0, 0.5, 0.25, 2.0], [0.3, 0.0, 0.7, 0.1]])[:, :reach]
    return newcomers


@pytest.fixture
def few(monkeypatch):
    """Of what was found the best five songs are looked at, and two artists and albums."""
    monkeypatch.setattr(Newcomers, "FOUND", 5)
    monkeypatch.setattr(Newcomers, "GROUPS", 2)


def found_by(newcomers, contexts, found, editions=None, plays=PLAYS):
    """What each relation says after each context of which so much was `found`, song -> bonus: a pair of song -> amounts."""
    width, most = max(map(len, contexts)) + 1, max(map(len, found))
    songs = torch.tensor([[PAD] * (width - 1 - len(context)) + [*context, MASK] for context in contexts])
    listed = [[*of_place.items(), *[(PAD, 0.0)] * (most - len(of_place))] for of_place in found]
    keys = distinct(torch.tensor([[song for song, _ in row] for row in listed]), len(plays[0]))
    bonus = torch.tensor(
        [[of_place.get(song, 0.0) for song in row] for of_place, row in zip(found, keys.keys.tolist(), strict=True)]
    )
    M = len(contexts)
    origin = None if editions is None else Origin(torch.zeros(M, dtype=torch.int64), torch.tensor(editions))
    place = Place(songs, torch.arange(M), torch.full((M,), width - 1))
    with torch.no_grad():
        evidence = newcomers(place, origin, keys, bonus, torch.from_numpy(plays))
    assert evidence.amounts.shape == (4, *evidence.songs.shape)
    assert len(evidence.widths) == len(newcomers.names)
    of_relations = []
    for part, amounts in evidence.relations():
        rows = zip(evidence.songs[:, part].tolist(), torch.stack(amounts, dim=2).tolist(), strict=True)
        of_places = [[(song, told) for song, told in zip(*row, strict=True) if song != PAD or any(told)] for row in rows]
        assert all(len(dict(of_place)) == len(of_place) for of_place in of_places)
        of_relations.append([dict(of_place) for of_place in of_places])
    return list(zip(*of_relations, strict=True))


def by_hand(newcomers, context, found, edition=0, keys=(ARTIST, ALBUM), plays=PLAYS):
    """The same at one place, by definition."""
    heard = sorted(((bonus, song) for song, bonus in found.items() if plays[edition, song] > 0), reverse=True)
    likely = {song: math.exp(bonus) for bonus, song in heard[: newcomers.FOUND]}
    said = []
    for fading, key in zip(newcomers.fading.tolist(), keys, strict=True):
        shares, weights = {}, {}
        for song, likelihood in likely.items():
            shares[key[song]] = shares.get(key[song], 0) + likelihood / sum(likely.values())
        for song, weight in zip(context[::-1], fading, strict=False):
            weights[key[song]] = weights.get(key[song], 0) + max(0, weight)
        known = {row for row in (*shares, *weights) if row >= FIRST_NUMBER}
        ranked = sorted(((shares.get(row, 0) + CONTEXT_WEIGHT * weights.get(row, 0), row) for row in known), reverse=True)
        amounts = {}
        for _, row in ranked[: newcomers.GROUPS]:
            lacking = [song for song in range(FIRST_NUMBER, len(key)) if key[song] == row and plays[edition, song] == 0]
            for song in lacking:
                each = [shares.get(row, 0), weights.get(row, 0)]
                amounts[song] = [each[0], each[0] / (len(lacking) + 1), each[1], each[1] / (len(lacking) + 1)]
        said.append(amounts)
    return tuple(said)


def approximately(places):
    return [tuple({song: pytest.approx(told, rel=1e-5) for song, told in said.items()} for said in place) for place in places]


def random_places(seed, n=30):
    """Contexts of up to six songs, and what was found after each, at least five songs that are heard in each edition."""
    rng = np.random.default_rng(seed)
    contexts = [rng.integers(UNKNOWN, V, rng.integers(0, 7)).tolist() for _ in range(n)]
    always = np.flatnonzero(PLAYS.min(0) > 0)
    songs = [
        {*rng.choice(always, 5, replace=False).tolist(), *rng.integers(3, V, rng.integers(0, 12)).tolist()} for _ in range(n)
    ]
    return contexts, [dict(zip(of_place, (rng.random(len(of_place)) * 4).tolist(), strict=True)) for of_place in songs]


@pytest.mark.parametrize("edition", range(1 + E))
def test_songs_without_a_play_are_found_by_what_speaks_for_their_artist_and_album(few, edition):
    newcomers, (contexts, found) = newcomers_of(), random_places(edition)
    editions = [edition] * len(contexts) if edition else None
    expected = [by_hand(newcomers, *place, edition) for place in zip(contexts, found, strict=True)]
    assert found_by(newcomers, contexts, found, editions) == approximately(expected)
    of_editions = {song for said in expected for songs in said for song in songs}
    assert of_editions >= set(range(30, 40)) - set(np.flatnonzero((ARTIST < FIRST_NUMBER) & (ALBUM < FIRST_NUMBER)))
    assert (min(of_editions) < 30) == (edition > 0)


def test_each_place_looks_up_the_edition_of_its_origin(few):
    newcomers, (contexts, found) = newcomers_of(), random_places(9)
    editions = [1 + number % E for number in range(len(contexts))]
    expected = [by_hand(newcomers, *place) for place in zip(contexts, found, editions, strict=True)]
    assert found_by(newcomers, contexts, found, editions) == approximately(expected)


def test_a_song_that_an_edition_lacks_is_found_there_and_not_in_the_full_one():
    """Songs 3 and 4 are by one artist on two albums; the lists of the first fold alone hold song 4, and none song 5."""
    artist, album, plays = np.array([0, 1, 2, 3, 3, 3]), np.array([0, 1, 2, 3, 4, 3]), np.ones((3, 6), np.float32)
    plays[1, 4] = plays[:, 5] = 0
    newcomers = newcomers_of(artist, album, plays, reach=2)
    songs = [
        tuple(set(said) for said in found_by(newcomers, [[3]], [{3: 2.0}], editions, plays)[0]) for editions in (None, [1], [2])
    ]
    assert songs == [({5}, {5}), ({4, 5}, {5}), ({5}, {5})]


def test_songs_that_nobody_has_played_speak_for_nobody_where_they_were_found(few):
    """In the context they do."""
    newcomers, (_, found) = newcomers_of(), random_places(11)
    more = [{**of_place, 35: 9.0, 38: 8.0} for of_place in found]
    contexts = [[31, 33]] * len(found)
    assert found_by(newcomers, contexts, more) == approximately(found_by(newcomers, contexts, found))
    assert any(told[2] for said in found_by(newcomers, contexts, found) for songs in said for told in songs.values())


def test_what_is_found_does_not_depend_on_the_batch_around_it(few):
    newcomers, (contexts, found) = newcomers_of(), random_places(12)
    together = found_by(newcomers, contexts, found)
    singly = [found_by(newcomers, [context], [of_place])[0] for context, of_place in zip(contexts, found, strict=True)]
    assert together == approximately(singly)


def test_a_share_is_that_of_what_was_found_however_little_that_is():
    newcomers = newcomers_of()
    contexts, found = [[4], [5, 6]], [{3: 0.5, 7: 1.0}, {song: 0.1 * song for song in range(3, 30)}]
    expected = [by_hand(newcomers, *place) for place in zip(contexts, found, strict=True)]
    assert found_by(newcomers, contexts, found) == approximately(expected)
    assert found_by(newcomers, contexts[:1], found[:1]) == approximately(expected[:1])


def test_of_artists_that_are_as_likely_those_with_the_highest_numbers_are_looked_up_in_any_batch(few):
    """Six artists of a heard and an unheard song each, all with the same bonus; the context knows none of them."""
    songs = np.arange(15)
    key = np.where(songs < FIRST_NUMBER, songs, FIRST_NUMBER + (songs - 3) % 6)
    plays = np.where((songs >= 3) & (songs < 9), 5.0, 0.0).astype(np.float32)[None]
    newcomers, found = newcomers_of(key, key, plays), dict.fromkeys(range(3, 9), 1.0)
    contexts, others = [[UNKNOWN]], [[3, 4, 5, 9, 10, 8], [6]]
    expected = ({13, 14}, {13, 14})
    assert [tuple(map(set, found_by(newcomers, contexts, [found], plays=plays)[0]))] == [expected]
    for before in ([], others[:1], others):
        batch = found_by(newcomers, [*before, *contexts, *others], [found] * (len(before) + 3), plays=plays)
        assert tuple(map(set, batch[len(before)])) == expected


def test_the_context_chooses_among_artists_that_nothing_was_found_of(few):
    """Song 3 is the last one; nothing found is by anybody known."""
    key = np.array([0, 1, 2, 3, 4, 5, UNKNOWN, 3, 4, 5])
    plays = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0]], np.float32)
    newcomers, found = newcomers_of(key, key, plays), dict.fromkeys([6], 2.0)
    ((by_artist, by_album),) = found_by(newcomers, [[5, 4, 3]], [found], plays=plays)
    assert {song: told[2:] for song, told in by_artist.items()} == {7: [1.0, 0.5], 8: [0.5, 0.25]}
    assert set(by_album) == {7, 9}  # the fading of albums leaves out the song before the last
    assert not any(told[0] for songs in (by_artist, by_album) for told in songs.values())


@pytest.mark.parametrize("n_found", [1, 4, 7, 13, 30])
def test_a_share_is_the_same_to_the_last_bit_however_much_was_found_at_other_places(n_found):
    """Whoever asks alone gets the very amounts of a batch.  Forty artists have a song that is heard and one that is not."""
    rng, songs = np.random.default_rng(n_found), np.arange(83)
    key = np.where(songs < FIRST_NUMBER, songs, 3 + (songs - 3) % 40)
    plays = ((songs >= FIRST_NUMBER) & (songs < 43)).astype(np.float32)[None]
    newcomers = newcomers_of(key, key, plays)
    found = [dict(zip(rng.permutation(40)[:n_found] + 3, rng.random(n_found, np.float32) * 4, strict=True)) for _ in range(20)]
    singly = [found_by(newcomers, [[]], [of_place], plays=plays)[0] for of_place in found]
    assert {len(songs) for said in singly for songs in said} == {min(n_found, Newcomers.GROUPS)}
    for others in (dict.fromkeys(range(3, 20), 1.0), {song: 0.1 * song for song in range(3, 83)}):
        assert found_by(newcomers, [[]] * 21, [*found, others], plays=plays)[:-1] == singly


def test_specials_and_padding_find_nothing():
    rows = [[PAD, PAD], [MASK, UNKNOWN], []]
    assert found_by(newcomers_of(), rows, [{}, {UNKNOWN: 3.0}, {PAD: 0.0, MASK: 1.0}]) == [({}, {})] * 3


def test_signals_are_the_amounts_and_their_logarithms():
    newcomers, (contexts, found) = newcomers_of(), random_places(13, n=1)
    keys = distinct(torch.tensor([list(found[0])]), V)
    songs = torch.tensor([[*contexts[0], MASK]])
    place = Place(songs, torch.tensor([0]), torch.tensor([songs.shape[1] - 1]))
    bonus = torch.tensor([[found[0].get(song, 0.0) for song in keys.keys[0].tolist()]])
    with torch.no_grad():
        evidence = newcomers(place, None, keys, bonus, torch.from_numpy(PLAYS))
    amounts = evidence.amounts[:, 0]
    sharpness = torch.tensor([SHARPNESS_OF_LOG, SHARPNESS_OF_LOG, 3.0, 3.0])[:, None]
    signals = torch.cat([amounts, (sharpness * amounts).log1p()])
    for number in range(16):
        weighed = evidence.weighed(torch.eye(16)[number][None])[0]
        relation = torch.repeat_interleave(torch.arange(2), torch.tensor(evidence.widths))
        torch.testing.assert_close(weighed, signals[number % 8] * (relation == number // 8))


def test_the_gradients_of_gates_and_fading_are_right():
    """By finite differences, in double precision."""
    newcomers = newcomers_of().double()
    newcomers.fading.data.clamp_(min=0.1)
    contexts, found = [[5, 33, 7, 12], [MASK, 20, 21, 8]], distinct(torch.tensor([[4, 9, 14], [22, 6, 3]]), V)
    place = Place(torch.tensor([[*context, MASK] for context in contexts]), torch.arange(2), torch.full((2,), 4))
    bonus = (found.keys > 0).double() * (1 + found.keys % 5)

    def weighed(gates, fading):
        given = (place, origin_of((0, 1), (0, 2)), found, bonus, torch.from_numpy(PLAYS))
        return torch.func.functional_call(newcomers, {"fading": fading}, given).weighed(gates)

    gates = torch.rand(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(weighed, [gates.requires_grad_(), newcomers.fading.detach().clone().requires_grad_()])


def test_a_table_without_editions_is_the_full_one_for_every_origin():
    groups = unheard_groups(ARTIST, PLAYS[:1], V)
    table = GroupTable(Groups(**{**vars(groups), "lacking": None}))
    rows = torch.arange(9).expand(2, -1)
    for told, other in zip(table.songs_of(rows, origin_of((0, 1), (0, 3))), GroupTable(groups).songs_of(rows, None), strict=True):
        assert told.equal(other)


# --- as a part of the memory


def memory_of(sources, newcomers=None, judged=0):
    return Memory(2, sources, torch.from_numpy(PLAYS), judged, newcomers)


def test_a_memory_adds_what_newcomers_say_to_what_was_said_of_the_same_songs():
    """Song 33 was found by another source as well."""
    heard, strength = [4, 7, 12, 33], [3.0, 1.0, 2.0, 0.5]
    source = Fixed(2, heard, [strength], (1.0,))
    songs, context = torch.tensor([[5, 9, MASK]]), [5, 9]
    newcomers = newcomers_of()
    newcomers.FOUND = 3
    memory = memory_of([source], newcomers)
    (alone,), (found,) = (bonuses(one(songs, torch.tensor([2]), torch.zeros(1, 2))) for one in (memory_of([source]), memory))
    expected = dict(alone)
    of_relations = by_hand(newcomers, context, alone)
    for said, gates in zip(of_relations, np.split(np.array(Newcomers.initial_weights), 2), strict=True):
        for song, amounts in said.items():
            logs = [math.log1p(sharp * told) for sharp, told in zip((30, 30, 3, 3), amounts, strict=True)]
            expected[song] = expected.get(song, 0) + float(np.dot(gates, [*amounts, *logs]))
    assert found == pytest.approx(expected, rel=1e-4)
    assert alone[33] < found[33]
    assert len(found) > len(alone) + 3


def test_newcomers_are_sources_among_others_to_whoever_asks_what_was_learned(monkeypatch):
    monkeypatch.setattr("memory.LOOKED_OVER", 1)  # gates and judgement see no more than the sources do
    newcomers = newcomers_of()
    memory = memory_of([Fixed(2, [7], [[1.0]], (1.0,))], newcomers)
    assert memory.reach == REACH
    assert list(memory.learned()) == ["fixed", "unheard of artist", "unheard of album"]
    for number, name in enumerate(Newcomers.names):
        weight, bias, fading = memory.learned()[name]
        assert (weight.shape, bias.shape, fading.tolist()) == ((8, 5), (8,), newcomers.fading[number].tolist())


@pytest.mark.parametrize("judged", [0, 5])
def test_a_loss_teaches_the_fading_of_newcomers(judged):
    """Whether the songs are judged or not, and though what was found before is read without a gradient."""
    memory = small_memory(judged)
    plays, key = np.arange(12.0, dtype=np.float32).repeat(2).reshape(12, 2).T.copy(), np.array([0, 1, 2, *[3, 4, 5] * 3])
    plays[:, 9:] = 0
    memory = Memory(2, list(memory.sources), torch.from_numpy(plays), judged, newcomers_of(key, key, plays))
    for weight in memory.judgement.parameters() if judged else ():
        torch.nn.init.normal_(weight, std=0.3)
    memory.newcomers.fading.data.fill_(0.5)
    looked_up = memory(torch.tensor([[5, 4, 3, 8, MASK]]), torch.tensor([4]), torch.ones(1, 2))
    assert set(bonuses(looked_up)[0]) >= {9, 10, 11}
    looked_up.bonus.logsumexp(1).sum().backward()
    assert memory.newcomers.fading.grad.all()
    still = [name for name, weight in memory.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == ["popularity"]


@pytest.mark.parametrize("judged", [0, 5])
def test_a_judgement_reads_what_newcomers_say(judged):
    """Its signals of a song follow those of the other sources."""
    newcomers, source = newcomers_of(), Fixed(2, [4, 7, 12, 33], [[3.0, 1.0, 2.0, 0.5]], (1.0,))
    memory = memory_of([source], newcomers, judged)
    songs, place = torch.tensor([[5, 9, MASK]]), torch.tensor([2])
    before = bonuses(memory(songs, place, torch.zeros(1, 2)))[0]
    if judged:
        assert memory.judgement.signals.in_features == 2 + 1 + 16
        torch.nn.init.normal_(memory.judgement.out.weight)
        judgement = memory.judgement.signals.weight.data
        judgement[:, 3:] *= 5
        assert bonuses(memory(songs, place, torch.zeros(1, 2)))[0] != pytest.approx(before)
    assert set(before) > {4, 7, 12, 33}


# --- grown by new songs


def contents_of(table):
    """Row by row the songs that nobody has played, and all that tells where they stand."""
    groups = table.groups()
    rows = torch.arange(len(table))[None]
    songs, many = table.songs_of(rows, None)
    listed = [[song for song in row if song != PAD] for row in songs[0].tolist()]
    assert [len(row) for row in listed] == many[0].tolist()
    return listed, groups.row_of_song.tolist(), groups.starts.tolist(), groups.songs.tolist(), groups.n_unheard.tolist()


MORE = np.array([3, 9, PAD, 8, 9, UNKNOWN, 3, 11, MASK, 3])  # artists 9 and 11 are new, and nobody has number 10


@pytest.mark.parametrize("steps", [[10], [4, 6], [1] * 10])
def test_a_grown_table_is_one_that_had_the_songs_from_the_beginning(steps):
    numbers = torch.from_numpy(MORE).split(steps)
    table, n_songs = GroupTable(unheard_groups(ARTIST, PLAYS, V)), V
    before = contents_of(table)
    larger = table
    for part in numbers:
        larger, n_songs = larger.grown(n_songs, part), n_songs + len(part)
    anew = GroupTable(unheard_groups(np.concatenate([ARTIST, MORE]), np.pad(PLAYS, ((0, 0), (0, len(MORE)))), V))
    assert contents_of(larger) == contents_of(anew)
    assert contents_of(table) == before
    assert contents_of(larger)[0][9] == [V + 1, V + 4]
    assert larger.row_of_song.dtype == table.row_of_song.dtype


def test_an_artist_takes_so_many_new_songs_beyond_the_longest_row():
    """Artist 3 has two songs that nobody has played, artist 4 one, and artist 5 is new."""
    key, plays = np.array([0, 1, 2, 3, 3, 4, 4]), np.array([[0, 0, 0, 0, 0, 0, 7]], np.float32)
    table = GroupTable(unheard_groups(key, plays, 64))
    larger = table.grown(7, torch.tensor([3] * 30 + [4] * 30 + [5] * 30))
    most = 2 + ROOM_FOR_NEW
    listed = contents_of(larger)[0]
    assert listed[3:] == [[3, 4, *range(7, 5 + most)], [5, *range(37, 36 + most)], list(range(67, 67 + most))]
    assert larger.row_of_song.tolist() == [0, 0, 0, 3, 3, 4, 4, *[3] * 30, *[4] * 30, *[5] * 30]


def test_new_songs_of_nobody_known_are_in_no_row():
    table = GroupTable(unheard_groups(ARTIST, PLAYS, V))
    larger = table.grown(V, torch.tensor([UNKNOWN, PAD, MASK]))
    assert contents_of(larger)[0] == contents_of(table)[0]
    assert larger.row_of_song.tolist() == [*table.row_of_song.tolist(), PAD, PAD, PAD]


def test_a_grown_memory_finds_new_songs_and_shares_what_was_learned(few):
    newcomers, (contexts, found) = newcomers_of(), random_places(14)
    numbers = {"artist": torch.from_numpy(MORE), "album": torch.from_numpy(MORE[::-1].copy())}
    larger = newcomers.grown(V, numbers)
    larger.GROUPS = 12
    keys = [np.concatenate([old, more.numpy()]) for old, more in zip((ARTIST, ALBUM), numbers.values(), strict=True)]
    plays = np.pad(PLAYS, ((0, 0), (0, len(MORE))))
    contexts = [[*context, V + number % len(MORE)] for number, context in enumerate(contexts)]
    expected = [by_hand(larger, *place, 0, keys, plays) for place in zip(contexts, found, strict=True)]
    assert found_by(larger, contexts, found, plays=plays) == approximately(expected)
    assert {song for said in expected for songs in said for song in songs} >= {V, V + 1, V + 4, V + 6}
    assert larger.fading is newcomers.fading
