import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

import sources
from config import FIRST_NUMBER, PAD, UNKNOWN, MemoryConfig
from dataset import TEST, TRAIN, TrainingRows, fold_of_lists, numbered_lists, write_snapshot
from engine import relations
from engine.relations import (
    TrainingSongs,
    _drawn,
    _Entries,
    build_memory,
    build_relations,
    index_lists,
    next_on_album,
    unheard_groups,
)
from newcomers import GroupTable
from sources import CountedRelations, NearestLists, Origin, Place

ROUNDING = 2**-11  # of the support by a fold


def snapshot_of(folder, sequences, split=None, **changes):
    flat = np.concatenate(sequences).astype(np.int32)
    columns = {
        "song_artist": np.array([0, 1, 2, 3, 3, 4, 2]),
        "song_album": np.array([0, 1, 2, 3, 3, 3, 4]),
        "song_features": np.array([[0, 0], [0, 0], [0, 1], [1, 0], [2, 0], [4, 0], [1, 0]], np.float32),
        "feature_names": ["track_number", "track_number_missing"],
        "n_fitted_songs": 7, "n_fitted_albums": 5, "n_fitted_artists": 5, "n_albums": 5, "n_artists": 5,
        "sequences": flat,
        "offsets": np.concatenate([[0], np.cumsum([len(songs) for songs in sequences])]),
        "split": np.full(len(sequences), TRAIN) if split is None else np.array(split),
        "encoders_digest": "", "source": {},
    }  # fmt: skip
    return write_snapshot(folder, **{**columns, **changes})


def memory_of(snapshot, **settings):
    return build_memory(snapshot, MemoryConfig(**{"near_reach": 3, "withheld": 0.0, **settings}), d_model=4)


class Table:
    """One relation of a source: neighbour -> support by row and edition, and totals (E, rows)."""

    def __init__(self, relations, number):
        self.relations, self.first = relations, sum(relations.rows[:number])
        self.row_of_song = [row and row - self.first for row in relations.row_of_song[number].tolist()]
        self.totals = relations.totals[:, self.first : self.first + relations.rows[number]]

    def __call__(self, row, edition=0):
        """In the order of the table."""
        begin, end = self.relations.starts[self.first + row : self.first + row + 2].tolist()
        end = end if edition else min(end, begin + self.relations.most)
        counts = self.relations.counts[begin:end]
        if edition:
            counts = counts - self.relations.fold_counts[edition - 1, begin:end]
        listed = zip(self.relations.songs[begin:end].tolist(), counts.tolist(), strict=True)
        return {song: count for song, count in listed if count > sources.NOTHING}


def relations_of(snapshot, **settings):
    """The counted relations of a memory by name; `song_plays` is under "plays"."""
    built = memory_of(snapshot, **settings)
    tables = [source.tables() for source in built.sources if isinstance(source, CountedRelations)]
    found = {name: Table(relations, number) for relations in tables for number, name in enumerate(relations.names)}
    return {**found, "plays": built.song_plays}


def neighbours_of(relation, row, edition=0):
    return relation(row, edition)


# --- counts


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


def test_weak_neighbours_are_cut_by_cosine_not_by_count(tmp_path):
    lists = [[3, 4], [3, 4], *[[4, 6]] * 8, [3, 5]]  # 4 stands beside 3 twice but is everywhere, 5 once and only there
    assert neighbours_of(relations_of(snapshot_of(tmp_path, lists), neighbours=1)["next"], 3) == {5: 1.0}


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


def test_neighbours_come_strongest_first(tmp_path):
    rng = np.random.default_rng(1)
    found = relations_of(snapshot_of(tmp_path, [rng.permutation(np.arange(3, 7))[:3] for _ in range(60)]), folds=2)
    for row in range(3, 7):
        listed = neighbours_of(found["after"], row)
        strength = [support / math.sqrt(found["plays"][0, song]) for song, support in listed.items()]
        assert strength == sorted(strength, reverse=True)
        assert len(listed) == 3


def test_counts_are_the_same_however_few_pairs_are_counted_at_a_time(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    snapshot = snapshot_of(tmp_path, [rng.integers(UNKNOWN, 7, rng.integers(1, 30)) for _ in range(20)])
    at_once = relations_of(snapshot, window=3)
    monkeypatch.setattr(relations, "PAIRS_AT_ONCE", 1)
    one_by_one = relations_of(snapshot, window=3)
    for name in ("after", "before", "next", "near"):
        for row, edition in itertools.product(range(7), range(5)):
            assert at_once[name](row, edition) == one_by_one[name](row, edition)
    monkeypatch.undo()
    index = index_lists(snapshot)
    monkeypatch.setattr(relations, "PAIRS_AT_ONCE", 1)
    for name, column in vars(index_lists(snapshot)).items():
        assert name == "unheard" or column.equal(getattr(index, name))


def test_a_pair_of_a_single_fold_leaves_exactly_nothing_without_it(tmp_path):
    """Supports like 1 / sqrt(3) have no exact float16."""
    found = relations_of(snapshot_of(tmp_path, [[3, 4, 5, 6, 3]] + [[3, 6]] * 9, lists=np.arange(10) * 3), window=4, folds=2)
    edition = 1 + int(fold_of_lists(10, 2)[0])
    table = found["after"].relations
    begin, end = table.starts[4:6].tolist()  # of song 4, which is in the first list alone
    assert set(table.songs[begin:end].tolist()) == {3, 5, 6}
    assert (table.counts[begin:end] - table.fold_counts[edition - 1, begin:end]).tolist() == [0, 0, 0]


def test_what_a_training_row_looks_up_holds_nothing_of_its_own_list(tmp_path):
    """Every list has two songs that no other list has: in its edition they were never played, next or near."""
    artists = np.zeros(23, np.int64)
    features = np.zeros((23, 2), np.float32)
    lists = np.array([4, 4, 9, 1, 6, 7, 20, 21, 22, 23])
    sequences = [[3 + 2 * at, 4 + 2 * at][:: 1 if at % 2 else -1] for at in numbered_lists(lists).tolist()]
    snapshot = snapshot_of(
        tmp_path, sequences, lists=lists, song_artist=artists, song_album=artists, song_features=features, n_fitted_songs=23
    )
    rows = TrainingRows(snapshot.sequences, *snapshot.ranges(TRAIN), 8, lists=lists, folds=4)
    found = relations_of(snapshot, folds=4)
    for songs, number in zip(sequences, rows.lists.tolist(), strict=True):
        edition = int(rows.editions[number])
        assert edition >= 1
        for song in songs:
            assert (found["plays"][0, song], found["plays"][edition, song]) == (1, 0)
            assert neighbours_of(found["near"], song) != {} == neighbours_of(found["near"], song, edition)
    index = index_lists(snapshot)
    assert index.list_of_piece[1:].tolist() == rows.lists.tolist()


def test_fewer_lists_than_folds_leave_folds_empty(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4, 5]]), folds=4)
    assert sorted(found["plays"].sum(1).tolist()) == [0, 3, 3, 3, 3]


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


# --- songs that nobody has played


def unheard_of(table, row, edition=0):
    """The songs of a row that an edition lacks, in rising order; how many they are is known."""
    origin = Origin(torch.tensor([0]), torch.tensor([edition])) if edition else None
    songs, many = table.songs_of(torch.tensor([[row]]), origin)
    found = [song for song in songs.flatten().tolist() if song != PAD]
    assert many.tolist() == [[len(found)]]
    return sorted(found)


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


# --- songs that an edition withholds

N_SONGS, FOLDS, SHARE = 23, 3, 0.2


def songs_world(folder, sequences, **changes):
    """Twenty songs of four artists and seven albums, some of unknown ones; every sequence is a list."""
    songs = np.arange(N_SONGS)
    artist, album = np.where(songs < 5, songs % 3, 3 + songs % 4), np.where(songs < 4, songs % 3, 3 + songs % 7)
    columns = {"song_artist": artist, "song_album": album, "song_features": np.zeros((N_SONGS, 0)), "feature_names": []}
    counts = {"n_fitted_songs": N_SONGS, "n_fitted_albums": 10, "n_fitted_artists": 7, "n_albums": 10, "n_artists": 7}
    return snapshot_of(folder, sequences, **columns, **counts, **changes)


def random_sequences(seed):
    """Thirty of two to eight songs, of which two are in none."""
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_NUMBER, N_SONGS - 2, rng.integers(2, 9)).tolist() for _ in range(30)]


def withheld_by(fold, share=SHARE, folds=FOLDS):
    return set(np.flatnonzero(_drawn(N_SONGS, folds, share)[fold]).tolist())


def said_by(source, contexts, edition, song_plays):
    """What each relation of a source finds after each context in training from a list that is in no table: song -> amounts."""
    width = max(map(len, contexts)) + 1
    songs = torch.tensor([[PAD] * (width - len(context) - 1) + [*context, PAD] for context in contexts])
    M = len(contexts)
    origin = Origin(torch.full((M,), 999), torch.full((M,), edition)) if edition else None
    with torch.no_grad():
        evidence = source(Place(songs, torch.arange(M), torch.full((M,), width - 1)), origin, song_plays)
    of_relations = [
        [
            {song: amounts for song, *amounts in zip(*columns, strict=True) if song != PAD}
            for columns in zip(evidence.songs[:, part].tolist(), *(amount.tolist() for amount in of_part), strict=True)
        ]
        for part, of_part in evidence.relations()
    ]
    return dict(zip(source.names, of_relations, strict=True))


def test_each_song_is_withheld_by_one_fold_at_most_and_so_many_by_each():
    withheld = _drawn(100_003, 4, 0.05)
    assert withheld.shape == (4, 100_003)
    assert withheld.sum(0).max() == 1
    assert withheld.sum(1) == pytest.approx(5_000, rel=0.05)
    assert not withheld[:, :FIRST_NUMBER].any()
    assert _drawn(1_000, 4, 1 / 4)[:, FIRST_NUMBER:].sum(0).tolist() == [1] * 997
    assert not _drawn(1_000, 4, 0.0).any()


def test_what_is_withheld_of_the_first_songs_does_not_depend_on_those_that_come_later():
    assert np.array_equal(_drawn(50, 3, 0.2), _drawn(1_000, 3, 0.2)[:, :50])


def test_without_a_share_nothing_is_withheld(tmp_path):
    snapshot = songs_world(tmp_path, random_sequences(0))
    training = TrainingSongs.of(snapshot, FOLDS)
    assert not training.withheld.any()
    lists = [set(songs) for songs in random_sequences(0)]
    fold = fold_of_lists(30, FOLDS)
    for edition, plays in enumerate(training.plays()):
        kept = [songs for songs, of_list in zip(lists, fold, strict=True) if of_list != edition - 1]
        assert plays.tolist() == [sum(song in songs for songs in kept) for song in range(N_SONGS)]


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


def test_an_edition_has_neighbours_of_its_own_in_place_of_those_that_it_withholds(tmp_path):
    """Song 3 is withheld by the first of two folds; it follows 5 more often than 4 does, and nothing follows it more than 6."""
    assert _drawn(7, 2, 0.1).nonzero() == (0, 3)
    found = relations_of(snapshot_of(tmp_path, [[5, 3, 6], [5, 3], [5, 4]] * 4), folds=2, neighbours=1, withheld=0.1)
    assert [neighbours_of(found["next"], 5, edition) for edition in range(3)] == [{3: 8.0}, {4: 2.0}, {3: 4.0}]
    assert [neighbours_of(found["next"], 3, edition) for edition in range(3)] == [{6: 4.0}, {}, {6: 2.0}]


def test_an_edition_is_as_if_its_withheld_songs_had_been_in_no_list(tmp_path):
    """Beside memories of lists in which those songs are unknown, as far as that does not move other songs nearer together."""
    sequences = random_sequences(2)
    found = memory_of(songs_world(tmp_path / "all", sequences), folds=FOLDS, withheld=SHARE)
    tables = relations_of(songs_world(tmp_path / "again", sequences), folds=FOLDS, withheld=SHARE)
    for edition in range(1, 1 + FOLDS):
        gone = withheld_by(edition - 1)
        removed = [[UNKNOWN if song in gone else song for song in songs] for songs in sequences]
        snapshot = songs_world(tmp_path / f"without {edition}", removed)
        other, others_tables = memory_of(snapshot, folds=FOLDS), relations_of(snapshot, folds=FOLDS)
        assert found.song_plays[edition].equal(other.song_plays[edition])
        for name in ("near", "artist", "album"):
            for row in range(N_SONGS if name == "near" else 7):
                assert neighbours_of(tables[name], row, edition) == neighbours_of(others_tables[name], row, edition)
            assert tables[name].totals[edition].equal(others_tables[name].totals[edition])
        for table, without in zip(found.newcomers.tables, other.newcomers.tables, strict=True):
            of_rows = [unheard_of(table, row, edition) for row in range(len(table))]
            assert of_rows == [unheard_of(without, row, edition) for row in range(len(without))]
            assert gone & {song for songs in of_rows for song in songs}


CONTEXTS = [[5, 9, 14, 7], [20, 6], [11, 3, 3, 18, 12, 8], [21, 22, 10], [17, 4, 13], [16, 15, 19, 9, 5]]


def test_only_sources_that_ask_no_other_list_find_a_withheld_song(tmp_path):
    memory = memory_of(songs_world(tmp_path, random_sequences(3)), folds=FOLDS, withheld=1 / FOLDS)
    for edition in range(1, 1 + FOLDS):
        gone = withheld_by(edition - 1, 1 / FOLDS)
        for source in memory.sources:
            for name, places in said_by(source, CONTEXTS, edition, memory.song_plays).items():
                assert not any(found.keys() & gone for found in places) or name in ("same", "again")
                assert any(places)
        assert not memory.song_plays[edition, sorted(gone)].any()
        songs = torch.tensor([[PAD] * (6 - len(context)) + [*context, PAD] for context in CONTEXTS])
        origin = Origin(torch.full((len(songs),), 999), torch.full((len(songs),), edition))
        looked_up = memory(songs, torch.arange(1, 1 + len(songs)) * 7 - 1, torch.zeros(len(songs), 4), origin)
        assert set(looked_up.songs.flatten().tolist()) & gone  # newcomers of a likely artist or album


def test_a_withheld_song_of_the_context_says_no_more_than_an_unknown_one(tmp_path):
    memory = memory_of(songs_world(tmp_path, random_sequences(4)), folds=FOLDS, withheld=1 / FOLDS)
    by_lists = [source for source in memory.sources if isinstance(source, NearestLists) or "after" in source.names]
    assert len(by_lists) == 2
    for edition, source in itertools.product(range(1, 1 + FOLDS), by_lists):
        gone = withheld_by(edition - 1, 1 / FOLDS)
        unknown = [[UNKNOWN if song in gone else song for song in context] for context in CONTEXTS]
        expected = said_by(source, unknown, edition, memory.song_plays)
        assert said_by(source, CONTEXTS, edition, memory.song_plays) == expected
        assert unknown != CONTEXTS


def test_where_a_withheld_song_stands_in_other_lists_is_not_known(tmp_path):
    """Lists that hold the last song may count by where their songs stand from it."""
    memory = memory_of(songs_world(tmp_path, random_sequences(4)), folds=FOLDS, withheld=1 / FOLDS)
    (source,) = (source for source in memory.sources if isinstance(source, NearestLists))
    torch.nn.init.normal_(source.offset)
    for edition in range(1, 1 + FOLDS):
        gone = withheld_by(edition - 1, 1 / FOLDS)
        unknown = [[UNKNOWN if song in gone else song for song in context] for context in CONTEXTS]
        assert any(context[-1] == UNKNOWN for context in unknown)
        expected = said_by(source, unknown, edition, memory.song_plays)
        assert said_by(source, CONTEXTS, edition, memory.song_plays) == expected


@pytest.mark.parametrize("neighbours", [64, 2])
def test_the_full_edition_is_the_same_whatever_is_withheld(tmp_path, neighbours):
    snapshot = songs_world(tmp_path, random_sequences(5))
    none, some, most = (memory_of(snapshot, folds=FOLDS, neighbours=neighbours, withheld=of) for of in (0.0, SHARE, 1 / FOLDS))
    songs = torch.tensor([[PAD] * (6 - len(context)) + [*context, PAD] for context in CONTEXTS])
    found = []
    for memory in (none, some, most):
        looked_up = memory(songs, torch.arange(1, 1 + len(songs)) * 7 - 1, torch.zeros(len(songs), 4))
        found.append(torch.zeros(len(songs), N_SONGS).scatter_add(1, looked_up.songs, looked_up.bonus).detach())
        assert memory.song_plays[0].equal(none.song_plays[0])
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    plain, withholding = (relations_of(snapshot, folds=FOLDS, neighbours=neighbours, withheld=of) for of in (0.0, SHARE))
    for name in ("after", "before", "next", "near", "artist", "album"):
        rows = range(plain[name].totals.shape[1])
        assert [list(withholding[name](row).items()) for row in rows] == [list(plain[name](row).items()) for row in rows]
        assert withholding[name].totals[0].equal(plain[name].totals[0])


def test_a_song_that_only_the_rows_own_fold_holds_gets_no_vote_though_another_list_of_it_is_near(tmp_path):
    """The row's fold holds 3, 4, 5, which is the row's own, 3, 8, 4, 5, 6 and several times 4, 7; all other lists are 3, 8."""
    fold = fold_of_lists(9, 3)
    own, near = np.flatnonzero(fold == fold[0])[:2].tolist()
    sequences = [[4, 7] if of_list == fold[0] else [3, 8] for of_list in fold]
    sequences[own], sequences[near] = [3, 4, 5], [3, 8, 4, 5, 6]
    snapshot = songs_world(tmp_path, sequences)
    memory = memory_of(snapshot, folds=3)
    (source,) = (source for source in memory.sources if isinstance(source, NearestLists))
    songs = torch.tensor([[3, 4, 5, PAD]])
    found = []
    for edition in (1 + int(fold[own]), 1 + (int(fold[own]) + 1) % 3, 0):
        origin = Origin(torch.tensor([own]), torch.tensor([edition])) if edition else None
        evidence = source(Place(songs, torch.tensor([0]), torch.tensor([3])), origin, memory.song_plays)
        found.append(
            {song for song, vote in zip(evidence.songs[0].tolist(), evidence.amounts[0, 0].tolist(), strict=True) if vote}
        )
    assert found == [{3, 8}, {3, 4, 5, 6, 7, 8}, {3, 4, 5, 6, 7, 8}]


# --- pieces of lists


@pytest.fixture
def pieces_of_four(monkeypatch):
    """Lists are cut into pieces of four songs, of which a song knows two."""
    monkeypatch.setattr(relations, "PIECE_SONGS", 4)
    monkeypatch.setattr(relations, "PIECES_OF_SONG", 2)


def test_long_lists_are_cut_into_pieces_that_overlap_by_half(tmp_path, pieces_of_four):
    sequences = [[3, 4, 5, 6], [3, 4, 5, 6, 3, 4, 5], [6], [3, UNKNOWN, 5, 4, 6], [6, 5, 4, 3, 6, 5]]
    index = index_lists(snapshot_of(tmp_path, sequences, lists=np.array([7, 7, 3, 9, 9])))
    assert [index.songs[start : start + length].tolist() for start, length in zip(index.starts, index.lengths, strict=True)] == [
        [],
        [3, 4, 5, 6],
        *[[3, 4, 5, 6], [5, 6, 3, 4], [3, 4, 5]],
        [6],
        *[[3, PAD, 5, 4], [5, 4, 6]],
        *[[6, 5, 4, 3], [4, 3, 6, 5]],
    ]
    assert index.list_of_piece.tolist() == [-1, 1, 1, 1, 1, 0, 2, 2, 2, 2]


def test_a_song_knows_its_newest_pieces_first_and_is_rare_by_all(tmp_path, pieces_of_four):
    index = index_lists(snapshot_of(tmp_path, [[3, 4], [3, 3, 5], [4, 3], [6, 3]], split=[TRAIN, TRAIN, TRAIN, TEST]))
    assert [part.tolist() for part in index.pieces.tensor_split(index.pieces_of_song[1:-1])] == [[]] * 3 + [
        [3, 2],
        [3, 1],
        [2],
        [],
    ]
    rarity = [math.log(4 / 3), math.log(4 / 2), math.log(4 / 1)]  # of four pieces, with the empty one
    assert index.rarity.tolist() == pytest.approx([0, 0, 0, *rarity, 0])


# --- what holds by itself, and what is asked for


def test_the_next_track_follows_number_and_album(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4]])
    assert next_on_album(snapshot).tolist() == [0, 0, 0, 4, 0, 0, 0]  # 5 is track four: two and four do not adjoin
    assert next_on_album(snapshot_of(tmp_path, [[3, 4]], feature_names=["tempo", "tempo_missing"])) is None


def test_a_song_itself_and_the_next_track_rest_on_no_count(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4]]))
    assert [found["same"](row) for row in range(7)] == [{}, {}, {}, {3: 1.0}, {4: 1.0}, {5: 1.0}, {6: 1.0}]
    assert [found["track"](row) for row in range(7)] == [{}, {}, {}, {4: 1.0}, {}, {}, {}]
    assert found["same"].relations.fold_counts is None


REACHES = ("after", "before", "next", "near", "same", "again", "artist", "album", "track")
NOTHING = {**{f"{name}_reach": 0 for name in (*REACHES, "unheard")}, "lists": 0}


@pytest.mark.parametrize("name", [*REACHES, "lists"])
def test_a_source_is_left_out_by_a_zero(tmp_path, name):
    wanted = {**NOTHING, **({"lists": 5} if name == "lists" else {f"{name}_reach": 2})}
    (source,) = memory_of(snapshot_of(tmp_path, [[3, 4]]), **wanted).sources
    assert source.names == (name,)


def test_newcomers_are_looked_for_where_they_are_asked_for_and_others_find_something(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4]])
    assert memory_of(snapshot, unheard_reach=7).newcomers.reach == 7
    assert memory_of(snapshot, unheard_reach=0).newcomers is None
    assert memory_of(snapshot, **{**NOTHING, "unheard_reach": 7}) is None


def test_as_many_songs_are_judged_as_are_asked_for(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4]])
    assert memory_of(snapshot, judged=7).judgement.most == 7
    assert memory_of(snapshot, judged=0).judgement is None


def test_without_sources_there_is_no_memory(tmp_path):
    assert memory_of(snapshot_of(tmp_path, [[3, 4]]), **NOTHING) is None


def test_tables_are_what_torch_looks_up(tmp_path):
    snapshot, config = snapshot_of(tmp_path, [[3, 4, 5], [5, 6]]), MemoryConfig(near_reach=2)
    plays = np.zeros((1 + config.folds, 7), np.float32)
    for tables in build_relations(snapshot, config, TrainingSongs.of(snapshot, config.folds), plays):
        assert (tables.songs.dtype, tables.counts.dtype, tables.totals.dtype) == (torch.int32, torch.float32, torch.float32)
        assert tables.songs.shape == tables.counts.shape
        assert tables.starts.shape == (tables.totals.shape[1] + 1,) == (sum(tables.rows) + 1,)
        if tables.fold_counts is not None:
            assert tables.fold_counts.dtype == torch.float16
            assert tables.fold_counts.shape == (config.folds, len(tables.songs))


def entries_of_two_rows(by_fold):
    """Row 3 with song 7, row 4 with the songs 5 and 6, each supported by two folds; one neighbour a row is wanted."""
    entries = _Entries.of(np.array([3, 4, 4]), np.array([7, 5, 6]), np.array(by_fold, np.float32))
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
    entries = _Entries.of(np.array([3, 4, 4]), np.array([7, 5, 6]), by_fold)
    withheld = np.array([[True, False, False], [False, True, True]])
    remaining = entries.counts[:, None] - entries.without(withheld).fold_counts.astype(np.float32)
    plain = entries.counts[:, None] - entries.fold_counts.astype(np.float32)
    assert np.array_equal(remaining[~withheld.T], plain[~withheld.T])
    assert (remaining[withheld.T] <= 0).all()


def test_support_that_a_half_cannot_hold_leaves_nothing_infinite():
    entries = entries_of_two_rows([[5, 5], [59_000, 10_000], [20_000, 20_000]])
    assert np.isfinite(entries.fold_counts).all()
    assert (entries.counts[:, None] - entries.fold_counts).tolist() == [[5, 5], [0, 59_000], [20_000, 0]]
