import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from config import FIRST_NUMBER, PAD, UNKNOWN
from engine.tables import Entries, unheard_groups
from engine.training_songs import withheld_songs
from newcomers import GroupTable
from splits import TEST, TRAIN, fold_of_lists
from tests.engine.counting import (
    FOLDS,
    N_SONGS,
    SHARE,
    memory_of,
    neighbours_of,
    random_sequences,
    relations_of,
    said_by,
    snapshot_of,
    songs_world,
    unheard_of,
    withheld_by,
)

# --- entries


def entries_of_two_rows(by_fold):
    """Row 3 with song 7, row 4 with the songs 5 and 6, each supported by two folds; one neighbour a row is wanted."""
    entries = Entries.of(np.array([3, 4, 4]), np.array([7, 5, 6]), np.array(by_fold, np.float32))
    return entries.strongest(entries.counts, 4).with_editions_of(1, np.ones((3, 9)))


@pytest.mark.parametrize("rare", [10.37, 1025.0])
def test_nothing_is_left_of_an_entry_that_an_edition_has_no_use_for(rare):
    """Without fold 0 song 6 is the stronger one, without fold 1 song 5; the sum of two halves is no half."""
    entries = entries_of_two_rows([[1, 1], [3 * rare, rare], [rare, 2 * rare + 0.01]])
    left = entries.counts[:, None] - entries.fold_counts
    assert entries.songs.tolist() == [7, 5, 6]
    assert ((left > 0) == [[True, True], [False, True], [True, False]]).all()


def test_without_what_is_withheld_of_a_large_support_nothing_is_left():
    """Halves hold only even numbers from 2,048 on."""
    by_fold = np.array([[1000, 2001], [4095, 1], [10.37, 3]], np.float32)
    entries = Entries.of(np.array([3, 4, 4]), np.array([7, 5, 6]), by_fold)
    withheld = np.array([[True, False, False], [False, True, True]])
    remaining = entries.counts[:, None] - entries.without(withheld).fold_counts.astype(np.float32)
    plain = entries.counts[:, None] - entries.fold_counts.astype(np.float32)
    assert np.array_equal(remaining[~withheld.T], plain[~withheld.T])
    assert (remaining[withheld.T] <= 0).all()


def test_support_that_a_half_cannot_hold_leaves_nothing_infinite():
    entries = entries_of_two_rows([[5, 5], [59_000, 10_000], [20_000, 20_000]])
    assert np.isfinite(entries.fold_counts).all()
    assert (entries.counts[:, None] - entries.fold_counts).tolist() == [[5, 5], [0, 59_000], [20_000, 0]]


# --- neighbours of songs


def test_weak_neighbours_are_cut_by_cosine_not_by_count(tmp_path):
    lists = [[3, 4], [3, 4], *[[4, 6]] * 8, [3, 5]]  # 4 stands beside 3 twice but is everywhere, 5 once and only there
    assert neighbours_of(relations_of(snapshot_of(tmp_path, lists), neighbours=1)["next"], 3) == {5: 1.0}


def test_neighbours_come_strongest_first(tmp_path):
    rng = np.random.default_rng(1)
    found = relations_of(snapshot_of(tmp_path, [rng.permutation(np.arange(3, 7))[:3] for _ in range(60)]), folds=2)
    for row in range(3, 7):
        listed = neighbours_of(found["after"], row)
        strength = [support / math.sqrt(found["plays"][0, song]) for song, support in listed.items()]
        assert strength == sorted(strength, reverse=True)
        assert len(listed) == 3


def test_an_edition_has_neighbours_of_its_own_in_place_of_those_that_its_fold_alone_supports(tmp_path):
    """Three lists of one fold have 4 after 3; five has followed 3 in a list of each of the two other folds."""
    fold = fold_of_lists(9, 3)
    sequences = [
        [3, 4] if of_list == fold[0] else [3, 5] if at in (np.flatnonzero(fold == of_list)[0],) else [6]
        for at, of_list in enumerate(fold)
    ]
    found = relations_of(snapshot_of(tmp_path, sequences), folds=3, neighbours=1)
    expected = [{4: 3.0}, *({5: 2.0} if of_fold == fold[0] else {4: 3.0} for of_fold in range(3))]
    for name in ("after", "next"):
        assert [neighbours_of(found[name], 3, edition) for edition in range(4)] == expected


def test_an_edition_has_neighbours_of_its_own_in_place_of_those_that_it_withholds(tmp_path):
    """Song 3 is withheld by the first of two folds; it follows 5 more often than 4 does, and nothing follows it more than 6."""
    assert withheld_songs(7, 2, 0.1).nonzero() == (0, 3)
    found = relations_of(snapshot_of(tmp_path, [[5, 3, 6], [5, 3], [5, 4]] * 4), folds=2, neighbours=1, withheld=0.1)
    assert [neighbours_of(found["next"], 5, edition) for edition in range(3)] == [{3: 8.0}, {4: 2.0}, {3: 4.0}]
    assert [neighbours_of(found["next"], 3, edition) for edition in range(3)] == [{6: 4.0}, {}, {6: 2.0}]


def test_a_pair_of_a_single_fold_leaves_exactly_nothing_without_it(tmp_path):
    """Supports like 1 / sqrt(3) have no exact float16."""
    found = relations_of(snapshot_of(tmp_path, [[3, 4, 5, 6, 3]] + [[3, 6]] * 9, lists=np.arange(10) * 3), window=4, folds=2)
    edition = 1 + int(fold_of_lists(10, 2)[0])
    table = found["after"].relations
    begin, end = table.starts[4:6].tolist()  # of song 4, which is in the first list alone
    assert set(table.songs[begin:end].tolist()) == {3, 5, 6}
    assert (table.counts[begin:end] - table.fold_counts[edition - 1, begin:end]).tolist() == [0, 0, 0]


def test_without_plays_a_song_stands_in_no_counted_relation_and_the_others_stand_as_before(tmp_path):
    """Against the tables of a memory that withholds nothing, from which the pairs with such a song are crossed out."""
    sequences = random_sequences(1)
    snapshot = songs_world(tmp_path, sequences)
    whole, found = relations_of(snapshot, folds=FOLDS), relations_of(snapshot, folds=FOLDS, withheld=SHARE)
    for edition in range(1, 1 + FOLDS):
        gone = withheld_by(edition - 1)
        assert gone & set(itertools.chain(*sequences))
        for name, row in itertools.product(("after", "before", "next", "near"), range(N_SONGS)):
            listed = neighbours_of(whole[name], row, edition)
            expected = {} if row in gone else {song: count for song, count in listed.items() if song not in gone}
            assert neighbours_of(found[name], row, edition) == expected
            assert found[name].totals[edition][row] == (0 if row in gone else whole[name].totals[edition][row])
        for name, row in itertools.product(("artist", "album"), range(7)):
            listed = neighbours_of(whole[name], row, edition)
            expected = {song: count for song, count in listed.items() if song not in gone}
            assert neighbours_of(found[name], row, edition) == expected


# --- artists and albums


def test_the_songs_of_an_artist_come_most_played_first_and_unknown_artists_have_none(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[4, 3], [4, 5], [6, 5]]))
    assert neighbours_of(found["artist"], 3) == {4: 2.0, 3: 1.0}
    assert list(neighbours_of(found["artist"], 3)) == [4, 3]
    assert neighbours_of(found["artist"], 2) == {}
    assert found["artist"].row_of_song == [0, 0, 0, 3, 3, 4, 0]
    assert found["album"].row_of_song == [0, 0, 0, 3, 3, 3, 4]


def test_the_plays_of_an_artists_songs_are_those_of_the_edition(tmp_path):
    sequences = [[4, 3], [4, 5], [6, 3]]
    found, fold = relations_of(snapshot_of(tmp_path, sequences), folds=3)["artist"], fold_of_lists(3, 3)
    for left_out, (of_three, of_four) in enumerate([(1, 1), (2, 1), (1, 2)]):
        edition = 1 + int(fold[left_out])
        listed = neighbours_of(found, 3, edition)
        assert listed == {3: of_three, 4: of_four}
        assert found.totals[edition][3] == 2  # every list holds a song of artist 3
    assert found.totals[0].tolist()[3:] == [3, 1]


def test_totals_are_lists_that_hold_the_artist(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4], [3, 4], [5]]))
    assert found["artist"].totals[0].tolist() == [0, 0, 0, 2, 1]  # artist 3 made songs 3 and 4, artist 4 song 5


def test_songs_of_an_artist_that_no_training_list_holds_are_not_listed(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[4, 6], [3, 5]], split=[TRAIN, TEST]))
    assert [neighbours_of(found["artist"], row) for row in (3, 4)] == [{4: 1.0}, {}]
    assert [neighbours_of(found["album"], row) for row in (3, 4)] == [{4: 1.0}, {6: 1.0}]
    assert set(found["artist"].relations.songs.tolist()) == {4, 6}


def test_where_nobody_known_has_been_played_artists_list_nothing(tmp_path):
    nobody = np.array([PAD, 1, UNKNOWN, UNKNOWN, PAD, 4, UNKNOWN])
    memory = memory_of(snapshot_of(tmp_path, [[3, 4], [4, 6]], song_artist=nobody, song_album=nobody), folds=2)
    (source,) = (source for source in memory.sources if "artist" in source.names)
    for edition in range(3):
        assert said_by(source, [[3, 5]], edition, memory.song_plays) == {"artist": [{}], "album": [{}]}


def test_each_edition_lists_the_songs_of_an_artist_that_are_played_most_in_it(tmp_path):
    """Two at most; how often songs 3 to 7 are played in lists of each fold.  Songs 6 and 7 are of use to none."""
    plays = {3: (5, 0, 0), 4: (0, 4, 0), 5: (1, 1, 1), 6: (1, 0, 0), 7: (0, 1, 0)}
    fold, sequences = fold_of_lists(30, 3), [[8]] * 30
    for of_fold in range(3):
        songs = [song for song, by_fold in plays.items() for _ in range(by_fold[of_fold])]
        for at, song in zip(np.flatnonzero(fold == of_fold), songs, strict=False):
            sequences[at] = [song]
    artist = np.array([0, 1, 2, 3, 3, 3, 3, 3, 2])
    snapshot = snapshot_of(
        tmp_path, sequences, song_artist=artist, song_album=artist, song_features=np.zeros((9, 2), np.float32), n_fitted_songs=9
    )
    found = relations_of(snapshot, folds=3, neighbours=2)["artist"]
    assert [neighbours_of(found, 3, edition) for edition in range(4)] == [
        {3: 5.0, 4: 4.0},
        {4: 4.0, 5: 2.0},
        {3: 5.0, 5: 2.0},
        {3: 5.0, 4: 4.0},
    ]
    assert set(found.relations.songs.tolist()) == {3, 4, 5}


@pytest.mark.parametrize("share", [0.0, SHARE])
def test_artists_and_albums_are_counted_without_what_an_edition_withholds(tmp_path, share):
    """Two songs of each at most, against counting list by list; of songs that are played as much any may be listed."""
    sequences, songs = random_sequences(6), np.arange(N_SONGS)
    snapshot = songs_world(tmp_path, sequences)
    found, fold = relations_of(snapshot, folds=FOLDS, withheld=share, neighbours=2), fold_of_lists(30, FOLDS)
    for name, key in (("artist", snapshot.song_artist), ("album", snapshot.song_album)):
        for edition, row in itertools.product(range(1 + FOLDS), range(FIRST_NUMBER, int(np.max(key)) + 1)):
            gone = withheld_by(edition - 1, share) if edition else set()
            members = {song for song in songs[key == row].tolist() if song not in gone}
            lists = [members & set(listed) for listed, of_list in zip(sequences, fold, strict=True) if of_list != edition - 1]
            plays, listed = Counter(itertools.chain(*lists)), neighbours_of(found[name], row, edition)
            assert found[name].totals[edition][row] == sum(map(bool, lists))
            assert sorted(listed.values()) == sorted(plays.values())[-2:]
            assert listed.items() <= plays.items()


# --- songs that nobody has played


def test_the_songs_of_an_artist_that_no_list_of_an_edition_holds_speak_for_themselves(tmp_path):
    """Against counting list by list; song 6 is in the test part alone, and no list has song 9."""
    rng = np.random.default_rng(3)
    artist, album = np.array([0, 1, 2, 3, 3, 4, 3, 2, 4, 3]), np.array([0, 1, 2, 3, 4, 3, 4, 3, 2, 3])
    of_fold = [[3, 4, 5], [5, 7, 8], [3, 5, 8]]  # songs 4 and 7 are in lists of one fold each
    sequences = [*(rng.permutation(of_fold[number // 3])[: 3 - number % 2].tolist() for number in range(9)), [6, 3]]
    snapshot = snapshot_of(
        tmp_path, sequences, [TRAIN] * 9 + [TEST],
        song_artist=artist, song_album=album, song_features=np.zeros((10, 2), np.float32), n_fitted_songs=9,
    )  # fmt: skip
    by_artist, by_album = memory_of(snapshot, folds=3).newcomers.tables
    fold = fold_of_lists(9, 3)
    for table, key in ((by_artist, artist), (by_album, album)):
        assert table.row_of_song.tolist() == [row if row >= FIRST_NUMBER else PAD for row in key]
        for edition in range(4):
            lists = [songs for songs, left_out in zip(sequences[:9], fold, strict=True) if left_out != edition - 1]
            heard = {song for songs in lists for song in songs}
            for row in range(5):
                unheard = [song for song in range(FIRST_NUMBER, 10) if key[song] == row >= FIRST_NUMBER and song not in heard]
                assert unheard_of(table, row, edition) == unheard, (row, edition)
    assert [unheard_of(by_artist, 3, edition) for edition in range(4)] == [[6, 9], [4, 6, 9], [6, 9], [6, 9]]


def test_unheard_songs_of_all_lists_and_of_an_edition_do_not_push_each_other_out():
    """No list holds the songs 4, 5 and 8, of which the last ones stay; the first edition lacks 3 and 6 too, the second 7."""
    key, plays = np.array([0, 1, 2, *[3] * 6]), np.ones((3, 9), np.float32)
    plays[:, [4, 5, 8]] = plays[1, [3, 6]] = plays[2, 7] = 0
    for most, never in {9: {4, 5, 8}, 3: {4, 5, 8}, 2: {5, 8}, 1: {8}}.items():
        groups = unheard_groups(key, plays, most)
        others = {3, 6, 7} & set(groups.songs.tolist())
        assert len(others) == min(3, most)
        assert groups.songs.tolist() == [*sorted(never), *sorted(others)]
        of_editions = [unheard_of(GroupTable(groups), 3, edition) for edition in range(3)]
        assert of_editions == [sorted(never), sorted(never | others & {3, 6}), sorted(never | others & {7})]


def test_the_newest_unheard_songs_of_an_artist_with_too_many_stay():
    """Songs are by artists 3 and 4 in turn, and nobody has played every other song of each."""
    songs = np.arange(43)
    key = np.where(songs < FIRST_NUMBER, songs, 3 + songs % 2)
    plays = np.where(songs % 4 < 2, 5.0, 0.0).astype(np.float32)[None]
    table = GroupTable(unheard_groups(key, plays, 3))
    assert [unheard_of(table, row) for row in (3, 4)] == [[34, 38, 42], [31, 35, 39]]


def test_of_the_songs_that_some_edition_lacks_any_are_taken_however_much_they_are_played():
    """Of ten songs each of a hundred artists, numbered by their plays, three: the same three whenever they are asked for."""
    songs = np.arange(3, 1003)
    key, plays = np.array([0, 1, 2, *(3 + (songs - 3) % 100)]), np.ones((2, 1003), np.float32)
    plays[1, 3:] = 0
    taken = unheard_groups(key, plays, 3).songs.view(100, 3)
    rank = (taken - 3) // 100
    assert taken.diff(dim=1).min() > 0
    assert all(set(key[row].tolist()) == {3 + number} for number, row in enumerate(taken.numpy()))
    assert torch.bincount(rank.flatten(), minlength=10).tolist() == pytest.approx([30] * 10, abs=15)
    assert unheard_groups(key, plays, 3).songs.equal(taken.flatten())


# --- what holds by itself


def test_a_song_itself_and_the_next_track_rest_on_no_count(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4]]))
    assert [found["same"](row) for row in range(7)] == [{}, {}, {}, {3: 1.0}, {4: 1.0}, {5: 1.0}, {6: 1.0}]
    assert [found["track"](row) for row in range(7)] == [{}, {}, {}, {4: 1.0}, {}, {}, {}]
    assert found["same"].relations.fold_counts is None
