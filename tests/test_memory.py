import math
from dataclasses import replace
from itertools import accumulate

import pytest
import torch

import sums
from config import FIRST_NUMBER, MASK, PAD, UNKNOWN
from judgement import Evidence
from memory import LOOKED_OVER, Memory
from sources import SHARPNESS_OF_LOG, CountedRelations, HeardBefore, ListIndex, NearestLists, Origin, Place, Relations, Source
from sums import Weighing, added_up, distinct, take

V = 12
NO_PLAYS = torch.zeros(1, V)


def table(rows, width=2, dtype=torch.float32):
    """(V, width): the given rows, 0 elsewhere."""
    filled = torch.zeros(V, width, dtype=dtype)
    for row, values in rows.items():
        filled[row, : len(values)] = torch.tensor(values, dtype=dtype)
    return filled


def plays_of(*editions):
    return torch.stack([table({song: [plays] for song, plays in edition.items()}, width=1)[:, 0] for edition in editions])


def relation_of(full, *without_fold, reach=2, key_of_song=None):
    """A counted relation from the full edition and those without each fold: (songs by row, counts by row, totals by row)."""
    songs, counts, _ = full
    entries = [(row, song, count) for row in sorted(songs) for song, count in zip(songs[row], counts[row], strict=True)]
    rows, listed, support = zip(*entries, strict=True)
    left = [
        [dict(zip(songs.get(row, ()), counts.get(row, ()), strict=True)).get(song, 0) for row, song, _ in entries]
        for songs, counts, _ in without_fold
    ]
    row_of_song = torch.arange(V) if key_of_song is None else key_of_song
    return CountedRelations(
        Relations(
            names=("next",),
            reaches=(reach,),
            rows=(V,),
            most=max(map(len, songs.values())),
            row_of_song=torch.where((torch.arange(V) >= FIRST_NUMBER) & (row_of_song >= FIRST_NUMBER), row_of_song, PAD)[
                None
            ].int(),
            starts=torch.searchsorted(torch.tensor(rows), torch.arange(V + 1)),
            songs=torch.tensor(listed, dtype=torch.int32),
            counts=torch.tensor(support, dtype=torch.float32),
            totals=plays_of(*(totals for _, _, totals in (full, *without_fold))),
            fold_counts=(torch.tensor(support) - torch.tensor(left)).half() if left else None,
        )
    )


def signals_of(evidence):
    """(S, M, U) of one relation: what is left when all gates but one are 0."""
    S, M = evidence.weighing.n_signals, len(evidence.songs)
    return torch.stack([evidence.weighed(torch.eye(S)[signal].expand(M, S)) for signal in range(S)])


def found_by(source, *rows, origin=None, song_plays=NO_PLAYS):
    """Song -> signals at the last place of each row, without songs that no signal speaks for."""
    songs = torch.tensor(rows)
    B, L = songs.shape
    place = Place(songs, torch.arange(B), torch.full((B,), L - 1))
    with torch.no_grad():
        evidence = source(place, origin, song_plays)
        all_signals = signals_of(evidence)
    assert all_signals.shape == (len(source.initial_weights), *evidence.songs.shape)
    assert all_signals.isfinite().all()
    found = []
    for listed, signals in zip(evidence.songs.tolist(), all_signals.permute(1, 2, 0).tolist(), strict=True):
        assert len(set(listed) - {PAD}) == len([song for song in listed if song != PAD])
        found.append({song: signal for song, signal in zip(listed, signals, strict=True) if any(signal)})
    return found


def origin_of(*pairs):
    """Of rows from these (list, edition)."""
    lists, editions = zip(*pairs, strict=True)
    return Origin(lists=torch.tensor(lists), editions=torch.tensor(editions))


def approximately(signals):
    return {song: pytest.approx(values, rel=1e-5) for song, values in signals.items()}


# --- added_up


WAYS = {"with gaps": (2**13, 2**19), "by a table": (0, 2**19), "by a small table": (0, 1)}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way in which `distinct` finds the distinct keys."""
    few_keys, largest_table = WAYS[request.param]
    monkeypatch.setattr(sums, "FEW_KEYS", few_keys)
    monkeypatch.setattr(sums, "LARGEST_TABLE", largest_table)
    monkeypatch.setattr(sums, "LEAST_ROWS", 1)


def summed(found, sums):
    """Key -> sum of each row, where one of them is not 0; each key stands there once."""
    for row in found.keys.tolist():
        assert len([key for key in row if key]) == len({key for key in row if key})
    return [
        {key: value for key, value in zip(*row, strict=True) if key or value}
        for row in zip(found.keys.tolist(), sums.tolist(), strict=True)
    ]


def test_amounts_of_one_key_are_added_up_row_by_row(way):
    found = distinct(torch.tensor([[7, 5, 7, 0], [5, 5, 5, 5], [9, 8, 7, 6]]), 10)
    ones, second = added_up(torch.tensor([[[1.0, 2, 3, 4]] * 3, [[0.0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]]), None, found)
    assert summed(found, ones) == [{7: 4.0, 5: 2.0, 0: 4.0}, {5: 10.0}, {9: 1.0, 8: 2.0, 7: 3.0, 6: 4.0}]
    assert summed(found, second) == [{5: 1.0, 7: 0.0}, {5: 1.0}, dict.fromkeys([9, 8, 7, 6], 0.0)]


def test_a_key_in_two_blocks_is_two(way):
    found = distinct(torch.tensor([[7, 5, 7, 7, 5], [0, 5, 4, 6, 4]]), 10, [3, 2])
    (sums,) = added_up(torch.tensor([[[1.0, 2, 3, 4, 5]] * 2]), None, found)
    assert sum(found.widths) == found.keys.shape[1]
    left, right = zip(found.keys.split(found.widths, dim=1), sums.split(found.widths, dim=1), strict=True)
    nonzero = [
        [{k: v for k, v in zip(*row, strict=True) if k} for row in zip(*map(torch.Tensor.tolist, part), strict=True)]
        for part in (left, right)
    ]
    assert nonzero == [[{7: 4.0, 5: 2.0}, {5: 2.0, 4: 3.0}], [{7: 4.0, 5: 5.0}, {6: 4.0, 4: 5.0}]]


def test_sorting_finds_the_same_as_a_table():
    keys = torch.randint(0, 20, (5, 30), generator=torch.Generator().manual_seed(0))
    blocks = [(0, 12), (12, 30)]
    for winner in (sums._winner_by_order(keys, blocks), sums._winner_by_table(keys, 20, blocks).long()):
        assert keys.gather(1, winner).equal(keys)
        for row, of_row in zip(keys.tolist(), winner.tolist(), strict=True):
            for left, right in blocks:
                assert len(set(of_row[left:right])) == len(set(row[left:right]))
                assert all(left <= place < right for place in of_row[left:right])


def test_rows_of_one_width_are_taken_from_a_flat_table():
    flat = torch.arange(10, 20)
    assert take(flat, torch.tensor([[0, 7], [3, 3]]), 3).tolist() == [[[10, 11, 12], [17, 18, 19]], [[13, 14, 15]] * 2]


# --- what is found in tables


def six_signals(share, cosine, count, best_share):
    logs = [math.log1p(SHARPNESS_OF_LOG * share), math.log1p(SHARPNESS_OF_LOG * cosine), math.log1p(count)]
    return [share, cosine, *logs, share / best_share]


def test_signals_are_added_up_over_the_context_and_fade():
    """Song 3, two places back, stands beside 7 in 2 of 4 lists; song 4, one back, beside 7 in 1 of 9 and beside 8 in 5 of 9."""
    source = relation_of(({3: [7], 4: [8, 7]}, {3: [2], 4: [5, 1]}, {3: 4, 4: 9}))
    (found,) = found_by(source, [3, 4, MASK], song_plays=plays_of({7: 3, 8: 6}))
    two_back = 1 / math.sqrt(2)
    share, cosine = 1 / 10 + 2 / 5 * two_back, 1 / math.sqrt(10 * 4) + 2 / math.sqrt(5 * 4) * two_back
    assert found == approximately(
        {
            7: six_signals(share, cosine, 1 + 2 * two_back, best_share=5 / 10),
            8: six_signals(5 / 10, 5 / math.sqrt(10 * 7), 5, best_share=5 / 10),
        }
    )


def test_each_amount_has_a_fading_of_its_own_that_never_turns_evidence_around():
    source = relation_of(({3: [7]}, {3: [2]}, {3: 4}))
    source.fading.data[:] = torch.tensor([[0.0, 0.5], [0.0, -0.5], [0.0, 2.0]])  # share, cosine, count by distance
    assert found_by(source, [3, 5, MASK]) == [approximately({7: six_signals(0.2, 0, 4, best_share=0.2)})]


def test_only_songs_before_the_place_and_within_reach_are_looked_up():
    source = relation_of(({3: [7], 4: [8], 5: [9]}, {3: [1], 4: [1], 5: [1]}, {3: 1, 4: 1, 5: 1}), reach=1)
    place = Place(torch.tensor([[3, 4, MASK, 5]]), torch.tensor([0]), torch.tensor([2]))
    assert set(source(place, None, NO_PLAYS).songs.flatten().tolist()) - {PAD} == {8}
    assert source.looks_back == 1


def test_a_row_looks_up_the_edition_that_its_origin_names_and_every_row_the_full_one_without():
    """The lists of fold 1 hold 3 -> 7 twice, that of fold 2 holds 3 -> 8 once."""
    full = ({3: [7, 8]}, {3: [2, 1]}, {3: 3})
    source = relation_of(full, ({3: [8]}, {3: [1]}, {3: 1}), ({3: [7]}, {3: [2]}, {3: 2}))
    plays = plays_of({7: 2, 8: 1}, {8: 1}, {7: 2})
    rows = [[3, MASK], [3, MASK]]
    without_first = {8: six_signals(1 / 2, 1 / 2, 1, best_share=1 / 2)}
    without_second = {7: six_signals(2 / 3, 2 / 3, 2, best_share=2 / 3)}
    everything = {
        7: six_signals(2 / 4, 2 / math.sqrt(4 * 3), 2, best_share=2 / 4),
        8: six_signals(1 / 4, 1 / math.sqrt(4 * 2), 1, best_share=2 / 4),
    }
    found = found_by(source, *rows, origin=origin_of((0, 1), (1, 2)), song_plays=plays)
    assert found == [approximately(without_first), approximately(without_second)]
    assert found_by(source, *rows, song_plays=plays) == [approximately(everything)] * 2


def test_a_relation_that_holds_by_itself_has_one_edition_for_every_origin():
    source = relation_of(({3: [7]}, {3: [1]}, {3: 1}))
    found = found_by(source, [3, MASK], [3, MASK], origin=origin_of((0, 1), (1, 2)), song_plays=plays_of({7: 9}, {7: 1}, {}))
    cosines = [1 / math.sqrt(2 * 2), 1 / math.sqrt(2 * 1)]  # only the plays of song 7 differ
    assert found == [approximately({7: six_signals(1 / 2, cosine, 1, best_share=1 / 2)}) for cosine in cosines]


def test_padding_masks_and_unknown_songs_look_nothing_up():
    filled = {MASK: [8], UNKNOWN: [9]}  # row PAD is empty in every table
    source = relation_of((filled, {row: [5] for row in filled}, dict.fromkeys(filled, 9)), reach=4)
    assert found_by(source, [PAD, UNKNOWN, MASK, UNKNOWN, MASK]) == [{}]


def test_songs_without_an_artist_look_nothing_up():
    artist = torch.tensor([PAD, MASK, UNKNOWN, 3, UNKNOWN, PAD, *[3] * 6])
    source = relation_of(({UNKNOWN: [7], 3: [8]}, {UNKNOWN: [9], 3: [1]}, {3: 1}), key_of_song=artist)
    assert found_by(source, [4, 5, MASK]) == [{}]
    assert set(found_by(source, [4, 6, MASK])[0]) == {8}


# --- what was heard before


def signals_of_copies(totals):
    best = max(totals.values())
    return approximately({song: [total, math.log1p(total), total / best] for song, total in totals.items()})


def test_what_followed_the_last_song_before_is_heard_again():
    """The kernel begins with 0.05 everywhere and 1, 1/2, 1/3, 1/4 more where a suffix matches in order.

    6 follows a 5, the last song; all other matches are out of order: of 5 those of 5, 7, 6 and 5 again, of 7 those of 5, 6, 5.
    """
    assert found_by(HeardBefore(8), [5, 6, 7, 5, MASK]) == [signals_of_copies({5: 4 * 0.05, 6: 1.05 + 0.05, 7: 3 * 0.05})]


def test_two_songs_heard_in_the_same_order_outweigh_one():
    (found,) = found_by(HeardBefore(8), [8, 5, 6, 9, 5, 7, 8, 5, MASK])
    assert found[6][0] == pytest.approx(1.05 + 0.55 + 0.05)  # after 8, 5
    assert found[7][0] == pytest.approx(1.05 + 0.3 + 3 * 0.05)  # after 9, 5, which is later
    assert max(found, key=lambda song: found[song][0]) == 6


def test_specials_are_no_songs_to_hear_again_nor_to_be_reminded_by():
    rows = [UNKNOWN, 6, UNKNOWN, MASK], [PAD, PAD, PAD, MASK], [6, UNKNOWN, 6, MASK], [MASK, 6, MASK, MASK]
    assert found_by(HeardBefore(8), *rows) == [{}, {}, signals_of_copies({6: 2 * 0.05}), {}]


def test_songs_come_again_within_reach_and_are_compared_beyond_it():
    source = HeardBefore(2)
    assert source.looks_back == 2 + HeardBefore.BEFORE
    assert found_by(source, [5, 6, 7, 5, MASK]) == [signals_of_copies({5: 4 * 0.05, 7: 3 * 0.05})]  # 6 is three songs back


def test_a_copy_fades_by_the_logarithm_of_its_distance():
    source = HeardBefore(8)
    source.fading.data[:] = torch.tensor([0, math.log(10), 0, 0])  # two or three songs back
    assert found_by(source, [5, 6, 7, 5, MASK]) == [signals_of_copies({5: 4 * 0.05, 6: 11.0, 7: 30 * 0.05})]


# --- lists like this one


def index_of(pieces, pieces_of_song, rarity):
    """Pieces 1, 2, ..., each a list of its own, numbered from 0."""
    held = [pieces_of_song.get(song, []) for song in range(V)]
    lengths = [0, *map(len, pieces)]
    return ListIndex(
        songs=torch.tensor([song for piece in pieces for song in piece], dtype=torch.int32),
        starts=torch.tensor([0, *accumulate(lengths)][:-1]),
        lengths=torch.tensor(lengths),
        list_of_piece=torch.arange(-1, len(pieces)),
        pieces=torch.tensor([piece for of_song in held for piece in of_song], dtype=torch.int32),
        pieces_of_song=torch.tensor([0, *accumulate(map(len, held))]),
        rarity=torch.tensor([rarity.get(song, 0.0) for song in range(V)]),
    )


def small_index():
    """Three lists: 0 is 4, 7, 3; 1 is 3, 5, 8, 9; 2 is 10, 3.  Song 3 is in all of them, 11 in none."""
    pieces_of_song = {3: [3, 2, 1], 4: [1], 5: [2], 7: [1], 8: [2], 9: [2], 10: [3]}
    rarity = {3: 0.1, 4: 2.0, 5: 1.0, 7: 2.0, 8: 2.0, 9: 2.0, 10: 2.0}
    return index_of([[4, 7, 3], [3, 5, 8, 9], [10, 3]], pieces_of_song, rarity)


def votes_of(similarities, sharpness):
    """The share of each piece in a vote, by its similarity to the power of the sharpness."""
    total = sum(similarity**sharpness for similarity in similarities)
    return [similarity**sharpness / total for similarity in similarities]


def two_votes(flat, sharp):
    return [flat, sharp, math.log1p(SHARPNESS_OF_LOG * flat), math.log1p(SHARPNESS_OF_LOG * sharp)]


# By common songs 4 and 3, 5 and 3, and 3 alone, over the root of the size.
SIMILARITIES = [2.1 / math.sqrt(3), 1.1 / math.sqrt(4), 0.1 / math.sqrt(2)]


def test_the_list_with_the_rarer_common_songs_has_the_larger_vote():
    (found,) = found_by(NearestLists(small_index(), 3, 4), [5, 4, 3, MASK])
    (a, b, c), (sharp_a, sharp_b, sharp_c) = (votes_of(SIMILARITIES, sharpness) for sharpness in (1, 5))
    assert a > b > c
    expected = {4: two_votes(a, sharp_a), 5: two_votes(b, sharp_b), 10: two_votes(c, sharp_c), 3: two_votes(1, 1)}
    assert found == approximately({**expected, 7: expected[4], 8: expected[5], 9: expected[5]})


def test_only_the_nearest_lists_vote():
    (found,) = found_by(NearestLists(small_index(), 1, 4), [5, 4, 3, MASK])
    assert found == approximately({song: two_votes(1, 1) for song in (4, 7, 3)})


def test_in_training_the_list_at_hand_is_no_neighbour_of_itself():
    source, row = NearestLists(small_index(), 3, 4), [3, 4, MASK]
    without_own, everything = found_by(source, row, row, origin=origin_of((0, 1), (9, 1)))
    b, c = votes_of([0.1 / math.sqrt(4), 0.1 / math.sqrt(2)], 1)
    assert {song: signals[0] for song, signals in without_own.items()} == approximately({3: 1, 5: b, 8: b, 9: b, 10: c})
    assert everything == found_by(source, row)[0]
    assert {4, 7} < set(everything)


def test_songs_that_no_list_of_an_edition_holds_get_no_vote_and_bring_no_list_near():
    """The row is of list 9; edition 1 holds neither 4 nor 8, edition 2 not 5.  Without an origin all count."""
    unheard = plays_of({}, {4: 1, 8: 1}, {5: 1}) > 0
    source, rows = NearestLists(replace(small_index(), unheard=unheard), 3, 4), [[4, 5, MASK]] * 2
    found = [
        {song: signals[0] for song, signals in of_place.items()}
        for of_place in found_by(source, *rows, origin=origin_of((9, 1), (9, 2)))
    ]
    assert found == [approximately({3: 1, 5: 1, 9: 1}), approximately({4: 1, 7: 1, 3: 1})]
    a, b = votes_of([2 / math.sqrt(3), 1 / math.sqrt(4)], 1)
    for everything in (
        found_by(source, *rows),
        found_by(NearestLists(small_index(), 3, 4), *rows, origin=origin_of((9, 1), (9, 2))),
    ):
        for of_place in everything:
            votes = {song: signals[0] for song, signals in of_place.items()}
            assert votes == approximately({3: 1, 4: a, 7: a, 5: b, 8: b, 9: b})


def test_a_song_counts_by_its_place_from_the_last_song():
    """Column 16 + n of `offset` is n places after the last song, which is 3; the last column is for lists without it."""
    source = NearestLists(small_index(), 3, 4)
    source.offset.data[0, 17], source.offset.data[0, 14], source.offset.data[0, 33] = math.log(3), math.log(7), math.log(5)
    (found,) = found_by(source, [5, 4, 3, MASK])
    a, b, c = votes_of(SIMILARITIES, 1)
    assert {song: signals[0] for song, signals in found.items()} == approximately(
        {3: 1, 4: 7 * a, 7: a, 5: 3 * b, 8: b, 9: b, 10: c}
    )
    assert found[5][1] == pytest.approx(votes_of(SIMILARITIES, 5)[1])  # the other vote has offsets of its own
    (found,) = found_by(source, [4, 11, MASK])
    assert {song: signals[0] for song, signals in found.items()} == approximately({3: 5, 4: 5, 7: 5})


def test_the_context_fades_and_ends():
    source = NearestLists(small_index(), 3, 2)
    source.fading.data[:] = torch.tensor([0, math.log(8)])  # the song before the last
    (found,) = found_by(source, [10, 4, 5, MASK])
    a, b = votes_of([8 * 2 / math.sqrt(3), 1 / math.sqrt(4)], 1)
    assert {song: signals[0] for song, signals in found.items()} == approximately({4: a, 7: a, 3: 1, 5: b, 8: b, 9: b})


def test_a_context_of_unknown_songs_is_like_no_list():
    rows = [UNKNOWN, UNKNOWN, MASK], [PAD, 11, MASK], [PAD, PAD, MASK]
    assert found_by(NearestLists(small_index(), 3, 4), *rows) == [{}, {}, {}]


def test_of_equally_similar_lists_the_newest_vote_whoever_is_in_the_batch(way):
    """All eight pieces are 4, 5 and a song of their own; pieces 1 and 2 are the oldest."""
    pieces = [[4, 5, song] for song in (3, 6, 7, 8, 9, 10, 11, 3)]
    index = index_of(pieces, {4: [5, 8, 2, 1, 7, 6, 4, 3], 5: [1, 2, 3, 4, 5, 6, 7, 8]}, {4: 1.0, 5: 0.5})
    for rows in ([[4, 5, MASK]], [[4, 5, MASK], [PAD, 4, MASK], [5, 4, MASK]]):
        for found in found_by(NearestLists(index, 3, 4), *rows):
            assert set(found) == {4, 5, 10, 11, 3}


# --- all together


@pytest.mark.parametrize("source", [0, 1, 2])
def test_a_batch_finds_what_its_rows_find(source, way):
    """Rows of 1 to 9 songs; a single one is read no further than it goes."""
    generator = torch.Generator().manual_seed(source)
    songs = {song: torch.randint(3, V, (2,), generator=generator).tolist() for song in range(3, V)}
    relation = (songs, {song: [song, 2] for song in songs}, {song: 9 + song for song in songs})
    made = [relation_of(relation, reach=5), HeardBefore(7), NearestLists(small_index(), 2, 6)][source]
    made.fading.data += torch.rand(made.fading.shape, generator=generator)
    rows = [torch.randint(3, V, (length,), generator=generator).tolist() for length in range(1, 10)]
    plays = torch.arange(float(V))[None]
    singly = [found_by(made, [*row, MASK], song_plays=plays)[0] for row in rows]
    together = found_by(made, *([PAD] * (9 - len(row)) + [*row, MASK] for row in rows), song_plays=plays)
    assert together == [approximately(found) for found in singly]
    assert any(singly)


def test_bonuses_and_gradients_are_those_of_plain_sums(way):
    """Two relations in one source against loops over every neighbour, in double precision, gradients by autograd."""
    generator = torch.Generator().manual_seed(0)
    tables = [{song: torch.randperm(V - 3, generator=generator)[:4].add(3).tolist() for song in range(3, V)} for _ in range(2)]
    counts = [{song: torch.randint(1, 9, (4,), generator=generator).tolist() for song in range(3, V)} for _ in range(2)]
    totals, plays = [{song: 10 + song for song in range(3, V)} for _ in range(2)], torch.arange(float(V))[None].double()
    parts = [
        relation_of((songs, count, total), reach=reach).tables()
        for songs, count, total, reach in zip(tables, counts, totals, (3, 2), strict=True)
    ]
    source = CountedRelations(Relations.joined(parts)).double()
    source.fading.data += torch.rand(source.fading.shape, generator=generator, dtype=torch.float64)
    rows = torch.tensor([[3, 4, 5, MASK], [PAD, 6, UNKNOWN, MASK], [7, 7, 11, MASK]])
    gates = torch.rand(3, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    place = Place(rows, torch.arange(3), torch.full((3,), 3))
    evidence = source(place, None, plays)
    wanted = torch.rand(3, 2, V, generator=generator, dtype=torch.float64)

    def dense():
        """(M, R, V) bonuses by the source."""
        bonus = evidence.weighed(gates).split(evidence.widths, dim=1)
        songs = evidence.songs.split(evidence.widths, dim=1)
        return torch.stack([torch.zeros(3, V).double().scatter_add(1, *pair) for pair in zip(songs, bonus, strict=True)], dim=1)

    def by_loops():
        """The same by definition."""
        bonuses = []
        for row, of_place in zip(rows.tolist(), gates, strict=True):
            for relation, (begin, reach) in enumerate([(0, 3), (3, 2)]):
                sums = torch.zeros(3, V).double()
                for back, song in enumerate(row[-2::-1][:reach]):
                    for neighbour, count in zip(tables[relation].get(song, ()), counts[relation].get(song, ()), strict=True):
                        n, m = 11 + song, float(plays[0, neighbour]) + 1
                        one = torch.zeros(V).double()
                        one[neighbour] = 1.0
                        amounts = torch.tensor([count / n, count / math.sqrt(n * m), count]).double()
                        sums = sums + (amounts * source.fading[:, begin + back].clamp(min=0))[:, None] * one
                share, cosine, count = sums
                logs = [(SHARPNESS_OF_LOG * share).log1p(), (SHARPNESS_OF_LOG * cosine).log1p(), count.log1p()]
                best = share / share.max().clamp(min=1e-9)
                signals = torch.stack([share, cosine, *logs, best])
                bonuses.append((of_place[relation * 6 : relation * 6 + 6, None] * signals).sum(0))
        return torch.stack(bonuses).view(3, 2, V)

    found, expected = dense(), by_loops()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    leaves = (source.fading, gates)
    of_found, of_expected = (torch.autograd.grad((bonus * wanted).sum(), leaves) for bonus in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=1e-6, atol=1e-9)


def test_the_gradients_of_votes_are_right(way):
    """By finite differences, in double precision."""
    source = NearestLists(small_index(), 2, 4).double()
    for weight in source.parameters():
        weight.data += torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
    place = Place(torch.tensor([[5, 4, 3, MASK], [PAD, 3, 10, MASK]]), torch.arange(2), torch.full((2,), 3))

    def bonus(gates, fading, sharpness, offset):
        found = torch.func.functional_call(
            source, {"fading": fading, "sharpness": sharpness, "offset": offset}, (place, None, NO_PLAYS)
        )
        return found.weighed(gates)

    given = [torch.rand(2, 4, dtype=torch.float64), *(weight.detach().clone() for weight in source.parameters())]
    assert torch.autograd.gradcheck(bonus, [tensor.requires_grad_() for tensor in given])


class Fixed(Source):
    """Finds the same songs at every place, with signals (S, songs): the logarithms of as many amounts."""

    names = ("fixed",)

    def __init__(self, reach, songs, signals, weights):
        super().__init__()
        self.reach, self.initial_weights = reach, weights
        self.songs, self.amounts = torch.tensor(songs), torch.tensor(signals).expm1()
        S = len(signals)
        self.WEIGHING = Weighing(plain=(None,) * S, logs=tuple(range(S)), sharpness=(1.0,) * S)

    def forward(self, place, origin, song_plays):
        M = len(place.row)
        return Evidence(self.songs.expand(M, -1), self.amounts[:, None].expand(-1, M, -1), self.WEIGHING)


def bonuses(looked_up):
    """Song -> bonus at each place; a song stands there once, and where there is none nothing is added."""
    songs, bonus = looked_up.songs.tolist(), looked_up.bonus.tolist()
    for of_place, added in zip(songs, bonus, strict=True):
        found = [song for song in of_place if song != PAD]
        assert len(found) == len(set(found))
        assert not any(more for song, more in zip(of_place, added, strict=True) if song == PAD)
    return [{song: more for song, more in zip(*row, strict=True) if song != PAD} for row in zip(songs, bonus, strict=True)]


def test_a_bonus_is_the_sum_of_signals_times_gates_over_all_sources(way):
    """Both sources find song 8."""
    memory = Memory(2, [Fixed(3, [7, 8], [[1.0, 2.0], [0.0, 5.0]], (4.0, 0.2)), Fixed(9, [8], [[3.0]], (2.0,))], NO_PLAYS)
    assert memory.reach == LOOKED_OVER  # by the gates; no source looks as far
    assert Memory(2, [Fixed(60, [7], [[1.0]], (4.0,))], NO_PLAYS).reach == 60
    queries = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    memory.gate.weight.data[:, 0] = torch.tensor([0.0, 1.5, -0.5])
    looked_up = memory(torch.tensor([[3, MASK], [4, MASK]]), torch.tensor([1, 3]), queries)
    second, third = (math.log1p(math.expm1(weight) * math.exp(moved)) for weight, moved in ((0.2, 1.5), (2.0, -0.5)))  # softplus
    expected = [{7: 4 * 1, 8: 4 * 2 + 0.2 * 5 + 2 * 3}, {7: 4 * 1, 8: 4 * 2 + second * 5 + third * 3}]
    assert bonuses(looked_up) == [pytest.approx(of_place, rel=1e-5) for of_place in expected]


def test_gates_read_how_much_of_the_context_nobody_has_played_and_how_long_it_is():
    """Songs 3 and 5 are played in all lists, without fold 1 song 3 alone; the last 50 songs are looked over."""
    memory = Memory(2, [Fixed(60, [7], [[1.0]], (2.0,))], plays_of({3: 1, 5: 2}, {3: 1}))
    memory.gate.weight.data[0, 2:] = torch.tensor([0.5, 0.7, 0.9])

    def found(*contexts, editions=None):
        songs = torch.tensor([[PAD] * (60 - len(context)) + [*context, MASK] for context in contexts])
        origin = editions and origin_of(*((0, edition) for edition in editions))
        places = torch.arange(1, len(contexts) + 1) * 61 - 1
        return [of_place[7] for of_place in bonuses(memory(songs, places, torch.zeros(len(contexts), 2), origin))]

    def expected(unheard, of_songs, last_is_unheard):
        moved = 0.5 * unheard / of_songs + 0.7 * last_is_unheard + 0.9 * math.log(of_songs) / 4
        return pytest.approx(math.log1p(math.expm1(2.0) * math.exp(moved)), rel=1e-5)

    assert found([3, 4, 5], [3, 5, 4], [4, UNKNOWN], []) == [
        expected(1, 3, 0),
        expected(1, 3, 1),
        expected(1, 1, 0),
        expected(0, 1, 0),
    ]
    assert found([3, 4, 5], [3, 4, 5], editions=(1, 1)) == [expected(2, 3, 1)] * 2
    assert found([4] * 10 + [3] * 25 + [4] * 25) == [expected(25, 50, 1)]


def test_a_song_that_nothing_speaks_for_is_not_found():
    """The lists of fold 1 alone have 7 after 3, that of fold 2 alone 8; one table has both, and tells no list what it listed."""
    full = ({3: [7, 8]}, {3: [2, 1]}, {3: 3})
    source = relation_of(full, ({3: [8]}, {3: [1]}, {3: 1}), ({3: [7]}, {3: [2]}, {3: 2}))
    memory = Memory(2, [source], plays_of({7: 2, 8: 1}, {8: 1}, {7: 2}))
    looked_up = memory(torch.tensor([[3, MASK]] * 2), torch.tensor([1, 3]), torch.zeros(2, 2), origin_of((0, 1), (1, 2)))
    assert [set(found) for found in bonuses(looked_up)] == [{8}, {7}]


def test_a_list_finds_none_of_its_songs_in_itself():
    """List 0 is 4, 7, 3, and two other lists hold song 3: less than the four that may vote."""
    memory = Memory(2, [NearestLists(small_index(), 4, 4)], plays_of({}, {}))
    looked_up = memory(torch.tensor([[3, 4, MASK]]), torch.tensor([2]), torch.zeros(1, 2), origin_of((0, 1)))
    assert set(bonuses(looked_up)[0]) == {3, 5, 8, 9, 10}


def test_each_place_is_looked_up_as_part_of_its_own_row_and_origin():
    seen = []

    class Watching(Fixed):
        def forward(self, place, origin, song_plays):
            seen.append((place.context(2).tolist(), origin and [column.tolist() for column in origin]))
            return super().forward(place, origin, song_plays)

    memory = Memory(2, [Watching(2, [7], [[1.0]], (1.0,))], plays_of({}, {}, {}))
    rows, places = torch.tensor([[3, 4, MASK], [MASK, 6, MASK]]), torch.tensor([2, 3, 5])
    memory(rows, places, torch.zeros(3, 2), origin_of((10, 1), (20, 2)))
    memory(rows, places, torch.zeros(3, 2))
    contexts = [[4, 3], [PAD, PAD], [6, MASK]]
    assert seen == [(contexts, [[10, 20, 20], [1, 2, 2]]), (contexts, None)]


def test_popularity_is_that_of_the_edition():
    memory = Memory(2, [Fixed(1, [7], [[1.0]], (1.0,))], plays_of({3: 2, 4: 1}, {3: 2}, {4: 1}))
    memory.popularity.data.fill_(math.log(math.e - 1))  # softplus of it is one
    expected = plays_of({3: math.log(3), 4: math.log(2)}, {3: math.log(3)}, {4: math.log(2)})
    torch.testing.assert_close(memory.prior().detach(), expected)


def test_the_prior_of_some_songs_is_that_of_the_whole():
    memory = Memory(2, [Fixed(1, [7], [[1.0]], (1.0,))], torch.arange(24.0).view(2, 12))
    songs = torch.tensor([[3, 7], [8, 3], [11, 0]])
    prior, editions = memory.prior(), torch.tensor([1, 0, 1])
    assert memory.prior_at(editions, songs).equal(prior[editions[:, None], songs])
    assert memory.prior_at(None, songs).equal(prior[0][songs])


@pytest.mark.parametrize("judged", [0, 3])
def test_gradients_are_finite_where_nothing_is_found_and_reach_every_parameter_where_something_is(judged):
    sources = [relation_of(({3: [7]}, {3: [2]}, {3: 4})), NearestLists(small_index(), 3, 4), HeardBefore(4)]
    memory = Memory(2, sources, plays_of({3: 2}), judged)
    if judged:
        torch.nn.init.normal_(memory.judgement.out.weight)  # what was just made lets no gradient through
    nothing, something = [[PAD, PAD, PAD, MASK], [PAD, UNKNOWN, 11, MASK]], [[3, 5, 3, MASK], [PAD, PAD, PAD, MASK]]
    for rows in (nothing, something):
        memory.zero_grad()
        looked_up = memory(torch.tensor(rows), torch.tensor([3, 7]), torch.ones(2, 2))
        (looked_up.bonus.square().sum() + memory.prior().sum()).backward()
        assert all(weight.grad.isfinite().all() for weight in memory.parameters())
    assert [name for name, weight in memory.named_parameters() if not weight.grad.any()] == []
