import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.flow import (
    camelot,
    flow_figures,
    in_flow_order,
    keys_go_together,
    tempo_goes_with,
    transition_cost,
)

# As printed on the wheel, copied by hand: roots C, C#, D ... B.
MAJOR = ["8B", "3B", "10B", "5B", "12B", "7B", "2B", "9B", "4B", "11B", "6B", "1B"]
MINOR = ["5A", "12A", "7A", "2A", "9A", "4A", "11A", "6A", "1A", "8A", "3A", "10A"]

unknown = float("nan")
tempos = st.sampled_from([unknown, 0.0, 60.0, 84.0, 90.0, 120.0, 124.0, 150.0, 170.0])
songs = st.tuples(tempos, st.integers(-1, 11), st.sampled_from([0.0, 1.0, unknown]))


def columns(rows):
    return tuple(np.array(column, float) for column in zip(*rows, strict=True))


def costs_of_all_orders(sounds, start=None):
    """Every order of the songs (n!, n), the given one first, and what it costs."""
    orders = np.array(list(itertools.permutations(range(len(sounds[0])))))
    between = transition_cost(tuple(column[:, None] for column in sounds), sounds)
    costs = between[orders[:, :-1], orders[:, 1:]].sum(axis=1)
    return orders, costs if start is None else costs + transition_cost(start, sounds)[orders[:, 0]]


def too_close(artists, spacing, before=()):
    heard = [*before, *artists]
    return sum(
        artist >= 3 and artist in heard[max(0, place - spacing) : place]
        for place, artist in enumerate(heard)
        if place >= len(before)
    )


@pytest.mark.parametrize(("mode", "codes"), [(1, MAJOR), (0, MINOR)])
def test_every_key_has_its_published_code(mode, codes):
    number, letter = camelot(np.arange(12), np.full(12, mode))
    assert [f"{n}{a}" for n, a in zip(number, letter, strict=True)] == codes


def test_what_is_no_key_has_no_code():
    number, letter = camelot([-1, 12, 3.5, unknown, np.inf, 4, 4], [1, 1, 1, 1, 1, unknown, 2])
    assert (number.tolist(), letter.tolist()) == ([0] * 7, [""] * 7)


def test_tempos_go_together_within_8_percent_of_the_slower_one_up_and_down_double_and_half():
    others = [100, 108, 108.2, 92.7, 92.5, 200, 216, 216.4, 185.3, 185, 50, 54, 54.2, 46.3, 400, 25]
    expected = [True, True, False, True, False, True, True, False, True, False, True, True, False, True, False, False]
    assert tempo_goes_with(100, others).tolist() == expected
    assert tempo_goes_with(others, 100).tolist() == expected


def test_8_percent_holds_for_tempos_that_float32_rounds():
    slower = np.arange(60, 200, dtype=np.float32)
    assert tempo_goes_with(slower, slower * np.float32(1.08)).all()


def test_an_unknown_tempo_goes_with_none():
    assert tempo_goes_with([unknown, 0, -1, np.inf], 100).tolist() == [False] * 4


def test_a_key_goes_with_itself_and_three_neighbours_of_the_wheel():
    # C major, 8B: itself, 7B and 9B beside it, 8A inside of it.
    found = {
        code for mode, codes in ((1, MAJOR), (0, MINOR)) for key, code in enumerate(codes) if keys_go_together(0, 1, key, mode)
    }
    assert found == {"8B", "7B", "9B", "8A"}


def test_the_wheel_closes_between_12_and_1():
    twelve, one = MAJOR.index("12B"), MAJOR.index("1B")
    assert keys_go_together(twelve, 1, one, 1)
    assert not keys_go_together(twelve, 1, MINOR.index("1A"), 0)


def test_chance_lets_one_pair_of_keys_in_six_go_together():
    key, mode = np.repeat(np.arange(12), 2), np.tile([0, 1], 12)
    assert keys_go_together(key[:, None], mode[:, None], key, mode).mean() == pytest.approx(1 / 6)


def test_an_unknown_key_goes_with_none_not_even_with_another_unknown_one():
    assert keys_go_together([-1, 0, -1], [1, unknown, 1], [0, 0, -1], [1, 1, 1]).tolist() == [False] * 3


def test_a_transition_costs_the_mean_of_tempo_and_key():
    here = (100, 0, 1)  # 8B
    octave_and_4_percent = 200 * 1.08**0.5
    others = columns(
        [
            (100, 0, 1),  # the same
            (octave_and_4_percent, 0, 1),  # half of the 8 %
            (100, 7, 1),  # 9B
            (100, 2, 1),  # 10B, two steps
            (100 * 2**0.5, 6, 1),  # 2B and half an octave: as far as can be
            (unknown, -1, 1),
        ]
    )
    expected = [0, 0.125 / 2, 0.1 / 2, 0.6 / 2, 1, 0.5]
    assert transition_cost(here, others).tolist() == pytest.approx(expected)


@given(songs, songs)
def test_a_transition_costs_the_same_in_both_directions_and_at_most_1(one, other):
    cost = float(transition_cost(one, other))
    assert cost == float(transition_cost(other, one))
    assert 0 <= cost <= 1


@given(songs, songs)
def test_what_goes_together_costs_less_than_unknown_and_what_does_not_costs_more(one, other):
    same = (100.0, 0, 1)
    tempo = float(transition_cost((one[0], 0, 1), (other[0], 0, 1))) * 2
    key = float(transition_cost((100, one[1], one[2]), (100, other[1], other[2]))) * 2
    is_known = one[0] > 0 and other[0] > 0
    assert (tempo < 0.5) == bool(tempo_goes_with(one[0], other[0]))
    assert (tempo == 0.5) == (not is_known)
    assert (key < 0.5) == bool(keys_go_together(*one[1:], *other[1:]))
    assert float(transition_cost(same, same)) == 0


@given(st.permutations(range(12)))
def test_a_chain_of_small_steps_is_found_from_its_start(shuffled):
    # Every song is 2 % faster than the one before it, and one step further on the wheel: no other order is as cheap.
    chain = [(100 * 1.02**step, (7 * step) % 12, 1) for step in range(1, 13)]
    order = in_flow_order(*columns([chain[place] for place in shuffled]), start=(100, 0, 1))
    assert [shuffled[place] for place in order] == list(range(12))


@given(st.permutations(range(8)))
def test_a_chain_without_a_start_is_found_from_one_of_its_ends(shuffled):
    chain = [(100 * 1.02**step, (7 * step) % 12, 1) for step in range(8)]
    order = in_flow_order(*columns([chain[place] for place in shuffled]))
    found = [shuffled[place] for place in order]
    assert found in (list(range(8)), list(range(7, -1, -1)))


@given(st.lists(songs, min_size=1, max_size=6), st.none() | songs)
def test_an_order_costs_at_least_what_the_best_of_all_costs_and_at_most_what_the_given_one_does(rows, start):
    orders, costs = costs_of_all_orders(columns(rows), start)
    order = in_flow_order(*columns(rows), start=start)
    (cost,) = costs[(orders == order).all(axis=1)]
    assert costs.min() <= cost <= costs[0] + 1e-9


def test_an_order_of_seven_is_within_one_percent_of_the_best_on_average():
    rng, surplus = np.random.default_rng(0), []
    for _ in range(40):
        sounds = rng.uniform(70, 180, 7), rng.integers(0, 12, 7), rng.integers(0, 2, 7)
        orders, costs = costs_of_all_orders(sounds, start=(120, 3, 1))
        order = in_flow_order(*sounds, start=(120, 3, 1))
        surplus.append(costs[(orders == order).all(axis=1)].item() / costs.min() - 1)
    assert np.mean(surplus) < 0.01


def test_a_hundred_songs_go_together_far_more_often_than_before():
    rng = np.random.default_rng(0)
    sounds = rng.uniform(70, 180, 100), rng.integers(0, 12, 100), rng.integers(0, 2, 100)
    order = in_flow_order(*sounds)
    after = flow_figures(*(column[order] for column in sounds))
    assert sorted(order) == list(range(100))
    assert flow_figures(*sounds).key < 0.25
    assert after.tempo > 0.8
    assert after.key > 0.8


def test_songs_of_which_nothing_is_known_stay_in_their_order():
    nothing = np.full(10, unknown)
    assert in_flow_order(nothing, nothing, nothing, start=(120, 0, 1)).tolist() == list(range(10))


def test_no_song_and_one_song_have_an_order():
    assert in_flow_order([], [], []).tolist() == []
    assert in_flow_order([120], [0], [1], start=(90, 0, 1)).tolist() == [0]


def test_songs_of_one_artist_are_kept_apart_at_any_cost():
    # By tempo and key alone, 0 and 1 would be neighbours.
    tempo, key, mode = [100, 100, 140], [0, 0, 6], [1, 1, 1]
    assert in_flow_order(tempo, key, mode, start=(100, 0, 1), artists=[7, 7, 8], spacing=0).tolist() == [0, 1, 2]
    assert in_flow_order(tempo, key, mode, start=(100, 0, 1), artists=[7, 7, 8], spacing=1).tolist() == [0, 2, 1]


def test_the_artist_of_the_song_before_does_not_begin():
    tempo, key, mode = [100, 140], [0, 6], [1, 1]
    order = in_flow_order(tempo, key, mode, start=(100, 0, 1), artists=[7, 8], spacing=1, artists_before=[7])
    assert order.tolist() == [1, 0]


def test_unknown_artists_may_follow_each_other():
    order = in_flow_order([106, 102, 104, 100], [0] * 4, [1] * 4, start=(98, 0, 1), artists=[8, 2, 2, 8], spacing=1)
    assert order.tolist() == [3, 1, 2, 0]


@given(
    st.lists(st.tuples(songs, st.integers(2, 6)), min_size=1, max_size=25),
    st.integers(0, 3),
    st.lists(st.integers(2, 6), max_size=3),
)
def test_never_more_songs_are_too_close_than_in_the_given_order(rows, spacing, before):
    sounds, artists = columns([sound for sound, _ in rows]), [artist for _, artist in rows]
    order = in_flow_order(*sounds, start=(100, 0, 1), artists=artists, spacing=spacing, artists_before=before)
    assert sorted(order) == list(range(len(rows)))
    arranged = [artists[place] for place in order]
    assert too_close(arranged, spacing, before) <= too_close(artists, spacing, before)


def test_figures_count_the_pairs_of_which_both_songs_are_known():
    # 100-104 goes, 104-150 does not; C-G goes, G-C# does not, C#-(unknown) does not count.
    figures = flow_figures([100, 104, 150, unknown], [0, 7, 1, -1], [1, 1, 1, 1])
    assert (figures.tempo, figures.key) == (1 / 2, 1 / 2)


def test_figures_of_a_list_without_a_known_pair_are_none():
    figures = flow_figures([100, unknown, 100], [0, 0, 0], [unknown] * 3)
    assert (figures.tempo, figures.key) == (None, None)
    assert flow_figures([], [], []).tempo is None
