import math

import numpy as np
import pytest

from config import PAD, UNKNOWN
from engine import list_index
from engine.list_index import index_lists
from splits import TEST, TRAIN
from tests.engine.counting import snapshot_of


@pytest.fixture
def pieces_of_four(monkeypatch):
    """Lists are cut into pieces of four songs, of which a song knows two."""
    monkeypatch.setattr(list_index, "PIECE_SONGS", 4)
    monkeypatch.setattr(list_index, "PIECES_OF_SONG", 2)


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


def test_the_index_is_the_same_however_few_pairs_are_made_at_a_time(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    snapshot = snapshot_of(tmp_path, [rng.integers(UNKNOWN, 7, rng.integers(1, 30)) for _ in range(20)])
    at_once = index_lists(snapshot)
    monkeypatch.setattr(list_index, "PAIRS_AT_ONCE", 1)
    for name, column in vars(index_lists(snapshot)).items():
        assert name == "unheard" or column.equal(getattr(at_once, name))
