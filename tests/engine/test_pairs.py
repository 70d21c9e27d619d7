import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from config import FIRST_NUMBER, UNKNOWN
from engine import pairs
from splits import TEST, TRAIN, fold_of_lists, numbered_lists
from tests.engine.counting import neighbours_of, relations_of, snapshot_of

ROUNDING = 2**-11  # of the support by a fold


def test_lists_are_counted_not_occurrences(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4, 3, 4, 5], [3, 4], [4, 5], [6, 5]], split=[TRAIN, TRAIN, TRAIN, TEST])
    found = relations_of(snapshot)
    assert neighbours_of(found["next"], 3) == {4: 2.0}  # 3 -> 4 twice in the first list counts once
    assert neighbours_of(found["next"], 4) == {3: 1.0, 5: 2.0}
    assert neighbours_of(found["near"], 5) == {3: 1.0, 4: 2.0}
    assert neighbours_of(found["near"], 6) == {}  # the test part is not counted
    assert found["plays"][0].tolist() == [0, 0, 0, 2, 3, 2, 0]
    for name in ("after", "before", "next", "near"):
        assert found[name].totals[0].tolist() == [0, 0, 0, 2, 3, 2, 0]


def test_versions_of_one_list_count_once(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4], [3, 4], [4, 3], [3, 4]], lists=np.array([8, 8, 8, 2])))
    assert neighbours_of(found["next"], 3) == {4: 2.0}
    assert neighbours_of(found["next"], 4) == {3: 1.0}
    assert neighbours_of(found["near"], 3) == {4: 2.0}
    assert neighbours_of(found["after"], 3) == {
        4: pytest.approx(2 / 3 + 1, rel=ROUNDING)
    }  # two of three versions of one list, and the other
    assert found["plays"][0].tolist() == [0, 0, 0, 2, 2, 0, 0]


def test_a_long_list_counts_a_pair_once(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4, 5, 6] * 300]))
    assert neighbours_of(found["next"], 3) == {4: 1.0}
    assert neighbours_of(found["near"], 3) == {4: 1.0, 5: 1.0, 6: 1.0}


def test_songs_further_apart_support_each_other_less_and_beyond_the_window_not_at_all(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4, 3, 6, 5]]), window=3)
    far, furthest = 1 / math.sqrt(2), 1 / math.sqrt(3)
    assert neighbours_of(found["after"], 3) == pytest.approx({4: 1, 6: 1 + furthest, 5: far}, rel=ROUNDING)
    assert neighbours_of(found["before"], 5) == pytest.approx({6: 1, 3: far, 4: furthest}, rel=ROUNDING)
    assert neighbours_of(found["before"], 3) == {4: 1.0}  # a song is no neighbour of itself


def test_counts_are_the_same_however_few_pairs_are_counted_at_a_time(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    snapshot = snapshot_of(tmp_path, [rng.integers(UNKNOWN, 7, rng.integers(1, 30)) for _ in range(20)])
    at_once = relations_of(snapshot, window=3)
    monkeypatch.setattr(pairs, "PAIRS_AT_ONCE", 1)
    one_by_one = relations_of(snapshot, window=3)
    for name in ("after", "before", "next", "near"):
        for row, edition in itertools.product(range(7), range(5)):
            assert at_once[name](row, edition) == one_by_one[name](row, edition)


def test_songs_of_a_very_long_list_are_near_those_of_their_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "CHUNK_SONGS", 2)
    near = relations_of(snapshot_of(tmp_path, [[3, 4, 5, 6], [3, 5]]))["near"]
    assert [near(row) for row in (3, 4, 5, 6)] == [{4: 1.0, 5: 1.0}, {3: 1.0}, {6: 1.0, 3: 1.0}, {5: 1.0}]


# --- editions, against loops over everything


def counted(sequences, list_of_sequence, window):
    """(relation, song) -> neighbour -> support, and the lists with each song, by plain loops."""
    found, versions = defaultdict(Counter), Counter(list_of_sequence)
    once = defaultdict(set)
    for songs, number in zip(sequences, list_of_sequence, strict=True):
        known = [song for song in songs if song >= FIRST_NUMBER]
        once["plays"] |= {(number, song) for song in known}
        for i, a in enumerate(known):
            for j, b in enumerate(known):
                if i < j <= i + window and a != b:
                    found["after", a][b] += 1 / math.sqrt(j - i) / versions[number]
                    found["before", b][a] += 1 / math.sqrt(j - i) / versions[number]
                if j == i + 1:
                    once["next"].add((number, a, b))
    for number, a in once["plays"]:
        once["near"] |= {(number, a, b) for other, b in once["plays"] if other == number and a != b}
    for name in ("next", "near"):
        for _, a, b in once[name]:
            found[name, a][b] += 1
    return found, Counter(song for _, song in once["plays"])


def test_an_edition_counts_all_lists_but_those_of_its_fold(tmp_path):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(UNKNOWN, 7, rng.integers(1, 7)).tolist() for _ in range(14)]
    lists = np.array([5, 5, 5, 1, 2, 2, 30, 31, 7, 7, 8, 9, 10, 11])
    snapshot = snapshot_of(tmp_path, sequences, lists=lists)
    found, number = relations_of(snapshot, window=3, folds=3), numbered_lists(lists)
    fold = fold_of_lists(len(set(lists)), 3)[number]
    assert len(found["plays"]) == len(found["after"].totals) == 4
    for edition in range(4):
        kept = np.flatnonzero(fold != edition - 1)
        supports, plays = counted([sequences[at] for at in kept], number[kept].tolist(), window=3)
        assert found["plays"][edition].tolist() == [plays[song] for song in range(7)]
        for name in ("after", "before", "next", "near"):
            assert found[name].totals[edition].tolist() == [plays[song] for song in range(7)]
            for song in range(7):
                assert neighbours_of(found[name], song, edition) == pytest.approx(dict(supports[name, song]), rel=6 * ROUNDING), (
                    name,
                    song,
                )
