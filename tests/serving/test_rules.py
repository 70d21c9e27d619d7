from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import FIRST_NUMBER, ServiceConfig
from serving.controls import Controls, Rules
from serving.rules import Pool, choose, pool_size

A, B, C, D, E = range(FIRST_NUMBER, FIRST_NUMBER + 5)  # artists
BY_LETTER = {"A": A, "B": B, "C": C, "D": D, "E": E}
NOBODY = FIRST_NUMBER - 1  # an unknown artist
NO_RULES = {"max_per_artist": 0, "artist_spacing": 0, "one_per_recording": False}


@dataclass(frozen=True, kw_only=True)
class Traits:
    artists: np.ndarray
    recordings: np.ndarray
    popularity: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


def rules(**controls):
    return Rules.of(Controls(**controls), ServiceConfig())


def catalogue(artists, recordings=None, popularity=None, **features):
    """Song FIRST_NUMBER + i is by artists[i]; recordings are the songs' own unless they are given."""

    def column(values, special, dtype):
        return np.array([*special, *values], dtype)

    n = len(artists)
    own = range(FIRST_NUMBER, FIRST_NUMBER + n)
    return Traits(
        artists=column(artists, [0, 1, 2], np.int64),
        recordings=column(own if recordings is None else recordings, [0, 1, 2], np.int32),
        popularity=column([1] * n if popularity is None else popularity, [0] * 3, np.float32),
        features={name: column(values, [np.nan] * 3, np.float32) for name, values in features.items()},
    )


def songs(*places):
    return np.array([FIRST_NUMBER + place for place in places], np.int64)


def pool_of(n, *, is_whole=True, scores=None):
    """The first n songs of a catalogue, in this order."""
    falling = -np.arange(n) if scores is None else scores
    return Pool(numbers=songs(*range(n)), scores=np.array(falling, np.float32), is_whole=is_whole)


def choice_of(pool, sequence, traits, asked, seed=0):
    return choose(pool, sequence, traits, asked, np.random.default_rng(seed))


def continued(artists, *, before="", recordings=None, is_whole=True, **controls):
    """What is chosen out of songs by `artists`, best first, behind other songs by `before`; a letter names an artist."""
    numbers = [BY_LETTER.get(letter, NOBODY) for letter in artists + before]
    sequence = songs(*range(len(artists), len(numbers)))
    return choice_of(pool_of(len(artists), is_whole=is_whole), sequence, catalogue(numbers, recordings), rules(**controls))


def answer(artists, choice):
    return "".join(artists[place] for place in choice.places)


# --- each rule by itself


def test_without_rules_the_best_songs_come_in_their_order():
    choice = continued("AAAABB", before="A", count=5, **NO_RULES)
    assert choice.places.tolist() == [0, 1, 2, 3, 4]
    assert (choice.applied, choice.relaxed) == ((), ())


def test_an_artist_has_at_most_two_songs():
    assert answer("AABACB", continued("AABACB", count=4, artist_spacing=0)) == "AABC"


def test_an_artist_of_the_sequence_counts_once():
    assert answer("AABAC", continued("AABAC", before="A", count=3, artist_spacing=0)) == "ABC"
    assert answer("AABBCD", continued("AABBCD", before="ABA", count=3, artist_spacing=0)) == "ABC"


def test_only_as_many_songs_of_the_sequence_count_as_are_asked_for():
    assert answer("AACC", continued("AACC", before="AABB", count=2, artist_spacing=0)) == "AA"
    assert answer("AACC", continued("AACC", before="AABBC", count=3, artist_spacing=0)) == "AAC"


def test_a_song_that_comes_too_soon_is_postponed_to_the_first_place_that_is_far_enough():
    assert answer("AABBC", continued("AABBC", count=5, artist_spacing=1)) == "ABABC"
    assert answer("AABCD", continued("AABCD", count=5, artist_spacing=2)) == "ABCAD"
    assert answer("AABCDE", continued("AABCDE", count=5, artist_spacing=3)) == "ABCDA"


def test_the_end_of_the_sequence_counts_for_spacing():
    assert answer("ABCD", continued("ABCD", before="A", count=4, artist_spacing=1)) == "BACD"
    assert answer("ABCD", continued("ABCD", before="BA", count=4, artist_spacing=2)) == "CBAD"


def test_of_two_postponed_songs_the_better_one_comes_first():
    assert continued("ABABCDE", before="AB", count=5, artist_spacing=2, max_per_artist=0).places.tolist() == [4, 0, 1, 5, 2]


def test_unknown_artists_are_neither_bounded_nor_spaced():
    assert answer("????A", continued("????A", before="??", count=4)) == "????"


def test_of_each_recording_only_the_best_ranked_song_comes():
    assert continued("ABCDE", recordings=[7, 8, 7, 7, 9], count=3).places.tolist() == [0, 1, 4]
    assert continued("ABCDE", recordings=[7, 8, 7, 7, 9], count=3, one_per_recording=False).places.tolist() == [0, 1, 2]


def test_no_recording_of_the_sequence_comes_again():
    assert continued("ABC", before="DE", recordings=[7, 8, 9, 7, 6], count=2).places.tolist() == [1, 2]


def test_special_songs_of_a_sequence_are_no_recordings_and_by_no_artist():
    traits = catalogue([A, A, B], recordings=[2, 4, 5])  # the first song's recording has the number of UNKNOWN
    choice = choice_of(pool_of(3), np.array([2, 2, 2]), traits, rules(count=3, artist_spacing=0))
    assert choice.places.tolist() == [0, 1, 2]


def test_an_empty_sequence_is_continued_with_the_rules_alone():
    assert answer("AABAC", continued("AABAC", count=4)) == "ABAC"


# --- a pool that is too small


def test_a_pool_that_is_not_whole_is_sent_back_rather_than_relaxed():
    assert continued("AAAB", is_whole=False, count=4) is None
    assert continued("AAB", is_whole=False, count=3, artist_spacing=3) is None
    assert continued("AB", is_whole=False, count=3) is None
    assert continued("AB", recordings=[7, 7], is_whole=False, count=2) is None


def test_a_pool_that_is_not_whole_will_do_when_it_has_enough_songs():
    assert answer("AABAC", continued("AABAC", is_whole=False, count=4)) == "ABAC"


def test_spacing_gives_way_first_and_only_behind_what_it_allowed():
    choice = continued("AABB", before="A", count=4, max_per_artist=0, artist_spacing=2)
    # Two songs between: only a B may follow A; then nothing fits, and it is always the other one's turn.
    assert (answer("AABB", choice), choice.relaxed) == ("BABA", ("artist_spacing",))


def test_where_no_song_is_far_enough_the_artist_comes_who_was_heard_the_longest_ago():
    choice = continued("CBABCA", before="ABC", count=3, artist_spacing=3, max_per_artist=0)
    assert (answer("CBABCA", choice), choice.relaxed) == ("ABC", ("artist_spacing",))


def test_the_bound_per_artist_gives_way_by_one_at_a_time():
    choice = continued("AAAAABBBB", count=8, artist_spacing=0)
    assert answer("AAAAABBBB", choice) == "AABB" + "AB" + "AB"
    assert choice.places.tolist() == [0, 1, 5, 6, 2, 7, 3, 8]
    assert choice.relaxed == ("max_per_artist",)


def test_songs_over_the_bound_come_as_far_apart_as_they_can():
    choice = continued("AAABBB", count=6, artist_spacing=1)
    assert (answer("AAABBB", choice), choice.relaxed) == ("ABABAB", ("max_per_artist",))


def test_both_rules_give_way_when_there_is_one_artist():
    choice = continued("AAAA", before="A", count=3)
    assert (choice.places.tolist(), choice.relaxed) == ([0, 1, 2], ("artist_spacing", "max_per_artist"))


def test_recordings_never_give_way_so_an_answer_may_be_short():
    choice = continued("ABCD", recordings=[7, 7, 8, 8], count=4)
    assert (choice.places.tolist(), choice.relaxed) == ([0, 2], ())


def test_an_empty_catalogue_has_an_empty_answer():
    choice = continued("", before="AB", count=3)
    assert (choice.places.tolist(), choice.relaxed) == ([], ())


def test_rules_in_force_are_named_whatever_they_had_to_do():
    assert continued("AB", count=1).applied == ("max_per_artist", "artist_spacing", "one_per_recording")
    everything = continued("AB", count=1, discovery=0.4, temperature=1.0, order="flow").applied
    assert everything == ("max_per_artist", "artist_spacing", "one_per_recording", "discovery", "temperature", "order")
    assert continued("AB", count=1, discovery=0.5, temperature=0.0, order="score", **NO_RULES).applied == ()


# --- the same, for whatever comes

ranked = st.lists(st.tuples(st.integers(NOBODY, C), st.integers(0, 14)), max_size=24)  # artist and recording of each song
some_rules = st.builds(
    rules,
    count=st.integers(1, 8),
    max_per_artist=st.integers(0, 3),
    artist_spacing=st.integers(0, 3),
    one_per_recording=st.booleans(),
)


def world(pool, sequence):
    """A catalogue whose first songs are the pool and whose last ones are the sequence."""
    both = [*pool, *sequence]
    traits = catalogue([artist for artist, _ in both], [recording for _, recording in both])
    return traits, songs(*range(len(pool), len(both)))


def strictly(pool, sequence, asked):
    """Places that the strict rules choose, found by looking at every song again for each place."""
    line, places = [artist for artist, _ in sequence], []
    heard = {recording for _, recording in sequence}
    for _ in range(asked.count):
        for place, (artist, recording) in enumerate(pool):
            counted = (artist in line[: len(sequence)][-asked.count :]) + line[len(sequence) :].count(artist)
            is_known = artist >= FIRST_NUMBER
            if not (
                place in places
                or (is_known and 0 < asked.max_per_artist <= counted)
                or (is_known and artist in line[max(0, len(line) - asked.artist_spacing) :])
                or (asked.one_per_recording and recording in heard | {one for _, one in pool[:place]})
            ):
                places.append(place)
                line.append(artist)
                break
    return places


def broken(pool, sequence, asked, places):
    """Names of the rules for artists that an answer does not keep."""
    before = [artist for artist, _ in sequence]
    line = before + [pool[place][0] for place in places]
    counted = Counter([*set(before[-asked.count :]), *line[len(before) :]])
    names = []
    for place in range(len(before), len(line)):
        if line[place] >= FIRST_NUMBER and line[place] in line[max(0, place - asked.artist_spacing) : place]:
            names.append("artist_spacing")
        if line[place] >= FIRST_NUMBER and 0 < asked.max_per_artist < counted[line[place]]:
            names.append("max_per_artist")
    return tuple(name for name in ("artist_spacing", "max_per_artist") if name in names)


@given(ranked, ranked, some_rules)
def test_the_strict_rules_choose_what_looking_at_every_song_for_every_place_chooses(pool, sequence, asked):
    traits, before = world(pool, sequence)
    expected = strictly(pool, sequence, asked)
    choice = choice_of(pool_of(len(pool), is_whole=False), before, traits, asked)
    assert (None if choice is None else choice.places.tolist()) == (expected if len(expected) == asked.count else None)


@given(ranked, ranked, some_rules)
def test_the_answer_is_the_same_out_of_every_pool_that_is_large_enough(pool, sequence, asked):
    traits, before = world(pool, sequence)
    whole = choice_of(pool_of(len(pool)), before, traits, asked).places.tolist()
    for n in range(len(pool)):
        choice = choice_of(pool_of(n, is_whole=False), before, traits, asked)
        assert choice is None or choice.places.tolist() == whole


@given(ranked, ranked, some_rules)
def test_exactly_those_rules_are_called_relaxed_that_the_answer_does_not_keep(pool, sequence, asked):
    traits, before = world(pool, sequence)
    choice = choice_of(pool_of(len(pool)), before, traits, asked)
    assert choice.relaxed == broken(pool, sequence, asked, choice.places.tolist())


@given(ranked, ranked, some_rules)
def test_relaxed_rules_only_add_to_what_the_strict_ones_chose(pool, sequence, asked):
    traits, before = world(pool, sequence)
    places = choice_of(pool_of(len(pool)), before, traits, asked).places.tolist()
    strict = strictly(pool, sequence, asked)
    assert places[: len(strict)] == strict


@given(ranked, ranked, some_rules)
def test_a_whole_pool_gives_all_songs_that_recordings_allow_and_none_twice(pool, sequence, asked):
    traits, before = world(pool, sequence)
    places = choice_of(pool_of(len(pool)), before, traits, asked).places.tolist()
    allowed = {recording for _, recording in pool} - {recording for _, recording in sequence}
    recordings = [pool[place][1] for place in places]
    assert len(places) == len(set(places))
    assert len(places) == min(asked.count, len(allowed) if asked.one_per_recording else len(pool))
    assert not asked.one_per_recording or (len(set(recordings)) == len(recordings) and set(recordings) <= allowed)


# --- discovery


def test_discovery_adds_novelty_in_standard_deviations_of_the_scores():
    # Scores deviate by 1, log1p(popularity) by log(10): novelty is 1 for the song without plays and -1 for the one with 99.
    traits, pool = catalogue([A, B], popularity=[99, 0]), pool_of(2, scores=[5.0, 3.0])
    none, half = songs(), {"count": 2, **NO_RULES}
    for discovery, first in [
        (0, 0),
        (0.5, 0),
        (0.74, 0),
        (0.76, 1),
        (1, 1),
    ]:  # 3 + 4 * (d - 0.5) passes 5 - 4 * (d - 0.5) at 0.75
        assert choice_of(pool, none, traits, rules(discovery=discovery, **half)).places[0] == first


def test_songs_of_artists_in_the_sequence_are_less_new():
    def order(**controls):
        return answer("ABC", continued("ABC", before="A", count=3, **NO_RULES, **controls))

    assert order(discovery=1.0) == "BAC"  # scores 0, -1, -2 deviate by 0.82, of which A loses twice
    assert order(discovery=0.0) == "ABC"
    assert answer("ABA", continued("ABA", before="A", count=3, **NO_RULES, discovery=0.0)) == "AAB"


def test_unknown_artists_are_not_heard_in_the_sequence():
    assert continued("?BC", before="?", count=3, **NO_RULES, discovery=1.0).places.tolist() == [0, 1, 2]


def thousand(seed=0):
    """A pool of 1,000 songs with scores and popularities as they are found in catalogues."""
    rng = np.random.default_rng(seed)
    traits = catalogue(rng.integers(A, A + 300, 1000), popularity=rng.zipf(1.6, 1000).clip(max=100_000))
    return traits, np.sort(rng.exponential(size=1000))[::-1]


@pytest.mark.parametrize("seed", range(5))
def test_the_more_discovery_the_less_popular_the_songs(seed):
    traits, scores = thousand(seed)

    def popularity(discovery):
        choice = choice_of(pool_of(1000, scores=scores), songs(), traits, rules(count=20, discovery=discovery))
        return np.log1p(traits.popularity[songs(*choice.places)]).mean()

    means = [popularity(discovery) for discovery in (0, 0.25, 0.5, 0.75, 1)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 2 * means[-1]


def test_discovery_means_the_same_on_every_scale_of_scores():
    traits, scores = thousand()
    asked = rules(count=20, discovery=0.8)
    places = [choice_of(pool_of(1000, scores=factor * scores), songs(), traits, asked).places.tolist() for factor in (1, 16)]
    assert places[0] == places[1] != list(range(20))


def test_neutral_discovery_and_none_leave_the_order():
    traits, scores = thousand()
    for discovery in (None, 0.5):
        choice = choice_of(
            pool_of(30, is_whole=False, scores=scores[:30]), songs(), traits, rules(discovery=discovery, **NO_RULES)
        )
        assert choice.places.tolist() == list(range(10))


def test_only_the_best_songs_are_ranked_again():
    traits = catalogue([A] * 1000, popularity=[50] * 150 + [40] * 50 + [0] * 800)
    choice = choice_of(pool_of(1000), songs(), traits, rules(count=10, discovery=1.0, **NO_RULES))
    assert choice.places.tolist() == list(range(150, 160))
    choice = choice_of(pool_of(1000, scores=[0.0] * 1000), songs(), traits, rules(count=50, discovery=1.0, **NO_RULES))
    assert choice.places.tolist() == list(range(200, 250))


def test_songs_behind_the_best_ones_follow_where_those_break_rules():
    traits = catalogue([A] * 200 + [B, C, D])
    choice = choice_of(pool_of(203), songs(), traits, rules(count=5, temperature=1.0))
    assert [place for place in choice.places.tolist() if place >= 200] == [200, 201, 202]


@pytest.mark.parametrize("controls", [{"discovery": 0.8}, {"temperature": 1.0}, {"discovery": 0.2, "temperature": 0.5}])
def test_re_ranked_answers_do_not_depend_on_the_size_of_the_pool(controls):
    traits, scores = thousand()
    asked = rules(count=10, **controls)
    assert pool_size(asked) == 200

    def places(n):
        choice = choice_of(pool_of(n, is_whole=n == 1000, scores=scores[:n]), songs(900, 901), traits, asked)
        return None if choice is None else choice.places.tolist()

    assert places(199) is None
    assert places(200) == places(400) == places(1000)


def test_without_re_ranking_a_smaller_pool_is_asked_for():
    assert pool_size(rules(count=10)) == 40
    assert pool_size(rules(count=100, temperature=0.1)) == 1000


# --- temperature


def test_the_same_seed_draws_the_same_songs_and_another_one_others():
    traits, scores = thousand()
    drawn = [choice_of(pool_of(1000, scores=scores), songs(), traits, rules(temperature=1.0), seed).places for seed in (1, 1, 2)]
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()


def test_without_temperature_nothing_is_drawn():
    rng = np.random.default_rng(0)
    choose(pool_of(3), songs(), catalogue([A, B, C]), rules(count=2, discovery=0.9), rng)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_songs_are_drawn_as_softmax_says_without_replacement(temperature):
    scores, n_draws = np.array([1.0, 0.5, 0.0, -1.0]), 5000
    traits, asked, rng = catalogue([A, B, C, D]), rules(count=2, temperature=temperature), np.random.default_rng(0)
    share = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    drawn = Counter(tuple(choose(pool_of(4, scores=scores), songs(), traits, asked, rng).places.tolist()) for _ in range(n_draws))
    for first in range(4):
        found = sum(times for (song, _), times in drawn.items() if song == first)
        assert found == within_chance(n_draws, share[first])
        for second in {0, 1, 2, 3} - {first}:
            assert drawn[first, second] == within_chance(n_draws, share[first] * share[second] / (1 - share[first]))


def within_chance(n, share):
    """Four standard deviations of a binomial: one of 16,000 fair counts lies outside."""
    return pytest.approx(n * share, abs=4 * np.sqrt(n * share * (1 - share)))


def test_a_very_low_temperature_leaves_the_order_and_the_highest_one_still_answers():
    traits = catalogue([A] * 20)
    assert choice_of(pool_of(20), songs(), traits, rules(temperature=1e-300, **NO_RULES)).places.tolist() == list(range(10))
    assert len(choice_of(pool_of(20), songs(), traits, rules(temperature=10.0, **NO_RULES)).places) == 10


# --- flow


def test_chosen_songs_are_arranged_from_the_last_one_of_the_sequence_on():
    # The worst of the four songs is not chosen, although it would fit best.
    traits = catalogue([A, B, C, D, E], tempo=[110, 104, 107, 101, 100], key=[0] * 5, mode=[1] * 5)
    choice = choice_of(pool_of(4), songs(4), traits, rules(count=3, order="flow"))
    assert (choice.places.tolist(), choice.relaxed) == ([1, 2, 0], ())


def test_without_tempo_and_key_flow_is_the_order_by_score():
    choice = choice_of(pool_of(4), songs(4), catalogue([A, B, C, D, E]), rules(count=4, order="flow"))
    assert choice.places.tolist() == [0, 1, 2, 3]


def test_a_special_song_at_the_end_of_the_sequence_has_no_tempo():
    traits = catalogue([A, B, C, D], tempo=[100, 110, 104, 110])
    traits.features["tempo"][2] = 110  # of UNKNOWN
    asked = rules(count=3, order="flow")
    assert choice_of(pool_of(3), songs(3), traits, asked).places.tolist() == [1, 2, 0]
    assert choice_of(pool_of(3), np.array([FIRST_NUMBER + 3, 2]), traits, asked).places.tolist() == [0, 2, 1]


def test_flow_keeps_artists_apart():
    traits = catalogue([A, B, A, C, C], tempo=[100, 150, 100, 151, 100], key=[0] * 5, mode=[1] * 5)
    arranged = choice_of(pool_of(4), songs(4), traits, rules(count=4, order="flow")).places.tolist()
    assert arranged[0] != 3  # the sequence ends with C
    assert abs(arranged.index(0) - arranged.index(2)) > 1


@given(ranked, ranked, some_rules, st.integers(0, 2**32 - 1))
def test_flow_neither_takes_other_songs_nor_breaks_more_rules(pool, sequence, asked, seed):
    traits, before = world(pool, sequence)
    rng = np.random.default_rng(seed)
    for name, values in (("tempo", [np.nan, 90, 95, 130]), ("key", [-1, 0, 3, 7]), ("mode", [0, 1])):
        traits.features[name] = rng.choice(values, len(traits.artists))
    by_score = choice_of(pool_of(len(pool)), before, traits, asked)
    flowing = choice_of(pool_of(len(pool)), before, traits, replace(asked, order="flow"))
    assert sorted(flowing.places.tolist()) == sorted(by_score.places.tolist())
    assert set(flowing.relaxed) <= set(by_score.relaxed)
    assert flowing.relaxed == broken(pool, sequence, asked, flowing.places.tolist())
