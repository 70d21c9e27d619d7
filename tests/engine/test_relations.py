import itertools

import numpy as np
import pytest
import torch

from config import PAD, UNKNOWN, MemoryConfig
from dataset import TrainingRows
from engine.list_index import index_lists
from engine.relations import build_relations, next_on_album
from engine.training_songs import TrainingSongs
from sources import NearestLists, Origin, Place
from splits import TRAIN, fold_of_lists, numbered_lists
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

# --- what is asked for

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


def test_the_next_track_follows_number_and_album(tmp_path):
    snapshot = snapshot_of(tmp_path, [[3, 4]])
    assert next_on_album(snapshot).tolist() == [0, 0, 0, 4, 0, 0, 0]  # 5 is track four: two and four do not adjoin
    assert next_on_album(snapshot_of(tmp_path, [[3, 4]], feature_names=["tempo", "tempo_missing"])) is None


# --- editions


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
