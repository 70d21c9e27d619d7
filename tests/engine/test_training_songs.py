import numpy as np
import pytest

from config import FIRST_NUMBER
from engine.training_songs import TrainingSongs, withheld_songs
from splits import fold_of_lists
from tests.engine.counting import FOLDS, N_SONGS, random_sequences, relations_of, snapshot_of, songs_world


def test_fewer_lists_than_folds_leave_folds_empty(tmp_path):
    found = relations_of(snapshot_of(tmp_path, [[3, 4, 5]]), folds=4)
    assert sorted(found["plays"].sum(1).tolist()) == [0, 3, 3, 3, 3]


# --- songs that an edition withholds


def test_each_song_is_withheld_by_one_fold_at_most_and_so_many_by_each():
    withheld = withheld_songs(100_003, 4, 0.05)
    assert withheld.shape == (4, 100_003)
    assert withheld.sum(0).max() == 1
    assert withheld.sum(1) == pytest.approx(5_000, rel=0.05)
    assert not withheld[:, :FIRST_NUMBER].any()
    assert withheld_songs(1_000, 4, 1 / 4)[:, FIRST_NUMBER:].sum(0).tolist() == [1] * 997
    assert not withheld_songs(1_000, 4, 0.0).any()


def test_what_is_withheld_of_the_first_songs_does_not_depend_on_those_that_come_later():
    assert np.array_equal(withheld_songs(50, 3, 0.2), withheld_songs(1_000, 3, 0.2)[:, :50])


def test_without_a_share_nothing_is_withheld(tmp_path):
    snapshot = songs_world(tmp_path, random_sequences(0))
    training = TrainingSongs.of(snapshot, FOLDS)
    assert not training.withheld.any()
    lists = [set(songs) for songs in random_sequences(0)]
    fold = fold_of_lists(30, FOLDS)
    for edition, plays in enumerate(training.plays()):
        kept = [songs for songs, of_list in zip(lists, fold, strict=True) if of_list != edition - 1]
        assert plays.tolist() == [sum(song in songs for songs in kept) for song in range(N_SONGS)]
