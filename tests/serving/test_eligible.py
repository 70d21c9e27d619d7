import numpy as np
import pytest

from config import ServiceConfig
from errors import InvalidSequence
from serving.controls import Controls, Range, Rules
from serving.eligible import Eligible, allowed_songs, within

NAN = float("nan")
# Three specials, then songs 3 to 7.
FEATURES = {
    "tempo": np.array([NAN, NAN, NAN, 90, 100, 120, NAN, 128]),
    "energy": np.array([NAN, NAN, NAN, 0.1, NAN, 0.9, 0.5, 0.5]),
}


def rules(**controls):
    return Rules.of(Controls(**controls), ServiceConfig())


def songs(mask):
    return np.flatnonzero(mask).tolist()


def allowed(given_rules=None, **given):
    defaults = {
        "available": np.array([False] * 3 + [True] * 5),
        "explicit": None,
        "artists": np.array([0, 1, 2, 3, 3, 4, 2, 5]),
        "only": [],
        "blocked_artists": np.array([], np.int64),
    }
    return allowed_songs(8, given_rules or rules(), **defaults | given)


def test_a_song_on_a_bound_is_within_it_and_one_without_the_value_may_be():
    known, maybe = within({"tempo": Range(min=100, max=120)}, FEATURES)
    assert (songs(known), songs(maybe[3:])) == ([4, 5], [1, 2, 3])


def test_several_bounds_must_all_hold():
    known, maybe = within({"tempo": Range(min=100), "energy": Range(max=0.5)}, FEATURES)
    assert (songs(known), songs(maybe[3:])) == ([7], [1, 3, 4])


def test_without_bounds_there_is_no_mask():
    assert within({}, FEATURES) == (None, None)


def test_a_bound_on_a_feature_that_is_not_there_is_refused():
    with pytest.raises(InvalidSequence, match=r"^ranges.bpm: there is no such feature: known are energy, tempo$"):
        within({"bpm": Range(min=1)}, FEATURES)


def test_where_nothing_is_forbidden_there_is_no_mask():
    assert allowed() is None


def test_each_list_and_each_mark_takes_songs_away():
    explicit = np.array([NAN, NAN, NAN, 1, 0, NAN, 1, 0])
    assert songs(allowed(rules(allow_explicit=False), explicit=explicit)[3:]) == [1, 2, 4]
    assert songs(allowed(blocked_artists=np.array([3, 5]))[3:]) == [2, 3]
    assert songs(allowed(only=[np.array([3, 5, 7]), np.array([5, 6, 7])])) == [5, 7]
    assert songs(allowed(available=np.array([False] * 3 + [True, False, True, True, True]))) == [3, 5, 6, 7]


def test_marked_songs_stay_out_only_where_that_was_asked_for():
    assert allowed(explicit=np.array([NAN, NAN, NAN, 1, 1, 1, 1, 1])) is None


def test_soft_rules_are_given_up_one_after_the_other_and_the_others_never():
    known, maybe = within({"tempo": Range(min=100)}, FEATURES)
    eligible = Eligible(
        hard=np.array([False] * 3 + [True, True, True, True, False]),
        excluded=np.array([3]),
        skipped=np.array([4]),
        played=np.array([5]),
        in_ranges=known,
        maybe_in_ranges=maybe,
    )
    steps = eligible.softened()
    assert steps == [
        (),
        ("skipped",),
        ("skipped", "exclude_played_days"),
        ("skipped", "exclude_played_days", "ranges"),
    ]
    left = [(songs(mask), sorted(excluded.tolist())) for mask, excluded in map(eligible.without, steps)]
    assert left == [([4, 5], [3, 4, 5]), ([4, 5], [3, 5]), ([4, 5], [3]), ([4, 5, 6], [3])]


def test_nothing_is_given_up_where_nothing_is_soft():
    eligible = Eligible(hard=None, excluded=np.array([3]))
    assert eligible.softened() == [()]
    assert (eligible.without(())[0], eligible.without(())[1].tolist()) == (None, [3])
