import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

import memory
from config import FIRST_NUMBER, PAD, UNKNOWN, MemoryConfig
from dataset import TEST, TRAIN, TrainingRows, fold_of_lists, numbered_lists, write_snapshot
from engine import relations
from engine.relations import TrainingSongs, _Entries, build_memory, build_relations, index_lists, next_on_album
from memory import CountedRelations

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
    return build_memory(snapshot, MemoryConfig(**{"near_reach": 3, **settings}), d_model=4)


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
        return {song: count for song, count in listed if count > memory.NOTHING}


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
        assert column.equal(getattr(index, name))


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
    assert neighbours_of(found["artist"], 3) == {4: 3.0, 3: 2.0}  # plays in two lists and in one, and one each for all
    assert list(neighbours_of(found["artist"], 3)) == [4, 3]
    assert neighbours_of(found["artist"], 2) == {}
    assert found["artist"].row_of_song == [0, 0, 0, 3, 3, 4, 0]
    assert found["album"].row_of_song == [0, 0, 0, 3, 3, 3, 4]


def test_the_plays_of_an_artists_songs_are_those_of_the_edition(tmp_path):
    sequences = [[4, 3], [4, 5], [6, 3]]
    found, fold = relations_of(snapshot_of(tmp_path, sequences), folds=3)["artist"], fold_of_lists(3, 3)
    for left_out, (of_three, of_four, total) in enumerate([(2, 2, 3), (3, 2, 3), (2, 3, 3)]):
        edition = 1 + int(fold[left_out])
        listed = neighbours_of(found, 3, edition)
        assert listed == {3: of_three, 4: of_four}
        assert found.totals[edition][3] == total  # two lists with a song of artist 3, and one more
    assert found.totals[0].tolist()[3:] == [4, 2]


def test_totals_are_lists_that_hold_the_artist_and_one(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4], [3, 4], [5]]))
    assert found["artist"].totals[0].tolist() == [1, 1, 1, 3, 2]  # artist 3 made songs 3 and 4, artist 4 song 5


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
    found, fold = relations_of(snapshot, folds=3), fold_of_lists(9, 3)
    for name, key in (("artist", artist), ("album", album)):
        relation = found[f"unheard of {name}"]
        assert relation.row_of_song == [row if row >= FIRST_NUMBER else PAD for row in key]
        for edition in range(4):
            lists = [songs for songs, left_out in zip(sequences[:9], fold, strict=True) if left_out != edition - 1]
            heard = {song for songs in lists for song in songs}
            for row in range(5):
                unheard = [song for song in range(FIRST_NUMBER, 10) if key[song] == row >= FIRST_NUMBER and song not in heard]
                assert neighbours_of(relation, row, edition) == dict.fromkeys(unheard, 1.0), (name, row, edition)
                with_row = sum(any(key[song] == row for song in songs) for songs in lists)
                assert row < FIRST_NUMBER or relation.totals[edition][row] == with_row + 1
    unheard = [set(neighbours_of(found["unheard of artist"], 3, edition)) for edition in range(4)]
    assert unheard == [{6, 9}, {4, 6, 9}, {6, 9}, {6, 9}]


def test_unheard_songs_of_all_lists_and_of_an_edition_do_not_push_each_other_out(tmp_path):
    """Song 3 is in one list of the first fold, song 4 in none."""
    snapshot = snapshot_of(tmp_path, [[3, 5], [5], [5], [5]])
    all_of_them, first = (relations_of(snapshot, folds=2, neighbours=most)["unheard of artist"] for most in (2, 1))
    assert [neighbours_of(all_of_them, 3, edition) for edition in range(3)] == [{4: 1.0}, {4: 1.0, 3: 1.0}, {4: 1.0}]
    assert [neighbours_of(first, 3, edition) for edition in range(3)] == [{4: 1.0}, {4: 1.0, 3: 1.0}, {4: 1.0}]


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


REACHES = ("after", "before", "next", "near", "same", "again", "artist", "album", "unheard", "track")
NOTHING = {**{f"{name}_reach": 0 for name in REACHES}, "lists": 0}


@pytest.mark.parametrize("name", [*REACHES, "lists"])
def test_a_source_is_left_out_by_a_zero(tmp_path, name):
    wanted = {**NOTHING, **({"lists": 5} if name == "lists" else {f"{name}_reach": 2})}
    (source,) = memory_of(snapshot_of(tmp_path, [[3, 4]]), **wanted).sources
    assert source.names == (("unheard of artist", "unheard of album") if name == "unheard" else (name,))


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


def test_support_that_a_half_cannot_hold_leaves_nothing_infinite():
    entries = entries_of_two_rows([[5, 5], [59_000, 10_000], [20_000, 20_000]])
    assert np.isfinite(entries.fold_counts).all()
    assert (entries.counts[:, None] - entries.fold_counts).tolist() == [[5, 5], [0, 59_000], [20_000, 0]]
