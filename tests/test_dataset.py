import dataclasses

import numpy as np
import pytest
import torch

from config import MASK, PAD, TrainingConfig
from dataset import TrainingRows, ask, inference_batch, left_padded, mask, training_batch
from errors import DataError
from splits import fold_of_lists


def rows_of(*lists, seq_len=8):
    offsets = np.concatenate([[0], np.cumsum([len(songs) for songs in lists])])
    return TrainingRows(np.concatenate(lists).astype(np.int32), offsets[:-1], offsets[1:], seq_len)


def test_rows_are_cut_and_padded_on_the_left():
    flat = torch.tensor([3, 4, 5, 6, 7, 8], dtype=torch.int32)
    songs = left_padded(flat, torch.tensor([0, 4]), torch.tensor([4, 6]), width=3)
    assert songs.tolist() == [[4, 5, 6], [PAD, 7, 8]]


def test_windows_of_a_long_history_cover_every_song_once():
    rows = rows_of(np.arange(3, 40), np.arange(50, 54), seq_len=8)
    for seed in range(5):
        covered = []
        for firsts, ends, *_ in rows.epoch(4, torch.Generator().manual_seed(seed)):
            assert ((ends - firsts) >= 2).all()
            covered += [tuple(pair) for pair in torch.stack([firsts, ends], 1).tolist()]
        ends_of_first = sorted(end for first, end in covered if first == 0)
        assert ends_of_first[-1] == 37  # the newest song is always in
        assert (np.diff(ends_of_first) <= 8).all()  # no gap between windows of eight
        assert ends_of_first[0] <= 9  # a first window of one song has nothing to predict from
        assert [pair for pair in covered if pair[0] == 37] == [(37, 41)]


def test_an_epoch_can_begin_in_the_middle():
    rows = rows_of(*[np.arange(3, 3 + n) for n in range(2, 22)], seq_len=16)
    whole = list(rows.epoch(3, torch.Generator().manual_seed(7), last_item_probability=0.5))
    later = list(rows.epoch(3, torch.Generator().manual_seed(7), last_item_probability=0.5, first=5))
    assert len(whole) == 9
    assert [[column.tolist() for column in windows] for windows in later] == [
        [column.tolist() for column in windows] for windows in whole[5:]
    ]


def test_songs_stay_in_the_file_that_they_are_mapped_from(tmp_path):
    np.save(tmp_path / "songs.npy", np.arange(3, 13, dtype=np.int32))
    mapped = np.load(tmp_path / "songs.npy", mmap_mode="r")
    rows = TrainingRows(mapped, np.array([0]), np.array([10]), 8)
    assert rows.flat.data_ptr() == mapped.ctypes.data
    assert rows.flat.tolist() == list(range(3, 13))


def batches_of(rows, batch_size, config, generator):
    """The batches of an epoch as training makes them."""
    for windows in rows.epoch(batch_size, generator, last_item_probability=config.last_item_probability):
        yield training_batch(rows, mask(windows, rows.seq_len, config, generator))


def test_rows_of_one_batch_are_of_like_length_once_their_ends_have_moved():
    rows = rows_of(*[np.arange(3, 3 + 8)] * 640)
    batches = list(batches_of(rows, 16, TrainingConfig(last_item_probability=0.9), torch.Generator().manual_seed(0)))
    filled = sum(int((batch.songs != PAD).sum()) for batch in batches)
    assert filled / sum(batch.songs.numel() for batch in batches) > 0.95  # in random order it is 0.65
    widths = [batch.songs.shape[1] for batch in batches]
    assert set(widths) == set(range(2, 9))
    assert widths != sorted(widths)


@pytest.mark.parametrize(("last_item_probability", "cloze_probability"), [(0.0, 0.3), (1.0, 0.3), (0.5, 0.01)])
def test_hidden_songs_are_the_targets_and_nothing_else_changes(last_item_probability, cloze_probability):
    rows = rows_of(*[np.arange(10 * n, 10 * n + 9) for n in range(1, 40)])
    config = TrainingConfig(last_item_probability=last_item_probability, cloze_probability=cloze_probability)
    generator = torch.Generator().manual_seed(3)
    for batch in batches_of(rows, 16, config, generator):
        restored = batch.songs.flatten().index_copy(0, batch.places, batch.targets).view_as(batch.songs)
        assert (batch.songs.flatten()[batch.places] == MASK).all()
        assert not ((restored == MASK) | (batch.targets == PAD)[:, None].any()).any()
        assert (batch.songs == MASK).any(dim=1).all()  # every row has something to predict
        steps = restored[:, 1:] - restored[:, :-1]
        assert (steps[restored[:, :-1] != PAD] == 1).all()  # songs stand in their order, without a gap


def test_last_item_rows_hide_the_last_place_only():
    rows = rows_of(*[np.arange(10 * n, 10 * n + 9) for n in range(1, 40)])
    generator = torch.Generator().manual_seed(0)
    ends_seen = set()
    for batch in batches_of(rows, 8, TrainingConfig(last_item_probability=1.0), generator):
        assert (batch.songs == MASK).nonzero()[:, 1].unique().tolist() == [batch.songs.shape[1] - 1]
        ends_seen |= set((batch.targets % 10).tolist())
    assert ends_seen == set(range(1, 9))  # every prefix length occurs, and none is empty


@pytest.mark.parametrize("row_len", [None, 12])
def test_rows_that_hide_nothing_are_asked_at_every_place_with_a_song_before_it(row_len):
    lists = [np.arange(20 * n, 20 * n + 3 + n) for n in range(1, 12)]  # of 4 to 14 songs, in windows of eight
    flat, offsets = np.concatenate(lists).astype(np.int32), np.cumsum([0, *map(len, lists)])
    rows = TrainingRows(flat, offsets[:-1], offsets[1:], 8, hides=False, row_len=row_len)
    config, generator = TrainingConfig(memory_places=3), torch.Generator().manual_seed(3)
    drawn = set()
    for batch in causal_batches_of(rows, 4, config, generator):
        width = batch.songs.shape[1]
        assert not (batch.songs == MASK).any()
        assert torch.equal(batch.songs.flatten()[batch.places], batch.targets)
        for row, songs in enumerate(batch.songs.tolist()):
            length = sum(song != PAD for song in songs)
            n_asked = min(8, length - 1 if row_len is None or length < 9 else 8)
            places = batch.places[batch.places // width == row] - row * width
            assert sorted(places.tolist()) == list(range(width - n_asked, width))
            of_memory = batch.places[batch.remembered] // width == row
            assert of_memory.sum() == min(3, n_asked)
            drawn |= set((width - 1 - (batch.places[batch.remembered][of_memory] - row * width)).tolist())
    assert drawn == set(range(7 + (row_len is not None)))


def test_the_memory_may_be_asked_at_some_of_the_hidden_places():
    rows = rows_of(*[np.arange(10 * n, 10 * n + 9) for n in range(1, 60)], seq_len=9)
    config = TrainingConfig(cloze_probability=0.6, memory_places=2)
    seen = set()
    for batch in batches_of(rows, 8, dataclasses.replace(config, last_item_probability=0.2), torch.Generator().manual_seed(1)):
        asked = batch.songs.flatten()[batch.places[batch.remembered]]
        assert (asked == MASK).all()
        width = batch.songs.shape[1]
        hidden, of_memory = (torch.bincount(places // width) for places in (batch.places, batch.places[batch.remembered]))
        assert torch.equal(of_memory, hidden.clamp(max=2))
        seen |= set((width - 1 - batch.places[batch.remembered] % width).tolist())
    assert seen == set(range(9))
    assert all(batch.remembered is None for batch in batches_of(rows, 8, TrainingConfig(), torch.Generator()))


def causal_batches_of(rows, batch_size, config, generator):
    """The batches of an epoch, all windows whole."""
    for windows in rows.epoch(batch_size, generator):
        yield training_batch(rows, ask(rows, windows, config, generator))


def test_a_row_comes_from_its_list_and_looks_up_the_edition_without_it():
    versions = [np.array([10, 11, 12]), np.array([20, 21]), np.array([30]), np.array([12, 13])]  # one song alone makes no row
    offsets = np.array([0, 3, 5, 6, 8])
    lists = np.array([7, 3, 5, 7])
    rows = TrainingRows(np.concatenate(versions).astype(np.int32), offsets[:-1], offsets[1:], 4, lists=lists, folds=3)
    generator, found = torch.Generator().manual_seed(0), {}
    for windows in rows.epoch(1, generator):
        origin = training_batch(rows, mask(windows, 4, TrainingConfig(), generator)).origin
        found[int(windows.firsts[0])] = (int(origin.lists[0]), int(origin.editions[0]))
    assert {first: number for first, (number, _) in found.items()} == {0: 2, 3: 0, 6: 2}  # 3, 5 and 7 are lists 0, 1 and 2
    assert dict(found.values()) == {at: 1 + fold_of_lists(3, 3)[at] for at in (0, 2)}


@pytest.mark.parametrize("last_item_probability", [0.0, 1.0])
def test_rows_may_reach_further_back_than_what_is_hidden(last_item_probability):
    """Rows of ten songs, the last four of which the encoder reads: the memory looks back from these."""
    flat = np.arange(3, 33, dtype=np.int32)
    rows = TrainingRows(flat, np.array([0]), np.array([30]), 4, row_len=10)
    config = TrainingConfig(last_item_probability=last_item_probability, cloze_probability=0.5)
    generator, hidden = torch.Generator().manual_seed(0), set()
    for _ in range(20):
        for batch in batches_of(rows, 8, config, generator):
            L = batch.songs.shape[1]
            assert L <= 10
            assert ((batch.places % L) >= L - 4).all()
            last = batch.songs.flatten().index_copy(0, batch.places, batch.targets).view_as(batch.songs)[:, -1]
            assert ((batch.songs != PAD).sum(1) == (last - 2).clamp(max=L)).all()  # all that came before, up to the tenth
            hidden |= set(batch.targets.tolist())
    assert hidden >= set(range(5, 33))


def rows_with_history(*, row_len):
    """Two histories: songs 3 to 22 in sequences of 12, 1 and 7 songs, songs 40 to 48 in one; the encoder reads ten of a row."""
    flat = np.concatenate([np.arange(3, 23), np.arange(40, 49)]).astype(np.int32)
    starts, ends = np.array([0, 12, 13, 20]), np.array([12, 13, 20, 29])
    return TrainingRows(flat, starts, ends, 10, history_starts=np.array([0, 0, 0, 20]), row_len=row_len)


OWN_SONGS = {0: range(3, 15), 2: range(16, 23), 3: range(40, 49)}  # by list; a single song makes no row


def rows_of_lists(rows, last_item_probability):
    """The list, the songs and the hidden songs of every row of some epochs."""
    config = TrainingConfig(last_item_probability=last_item_probability, cloze_probability=0.4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        for batch in batches_of(rows, 2, config, generator):
            whole = batch.songs.flatten().index_copy(0, batch.places, batch.targets).view_as(batch.songs)
            hidden = batch.songs == MASK
            for number, songs, is_hidden in zip(batch.origin.lists.tolist(), whole, hidden, strict=True):
                yield number, songs[songs != PAD].tolist(), songs[is_hidden].tolist()


@pytest.mark.parametrize("last_item_probability", [0.0, 1.0])
@pytest.mark.parametrize("row_len", [16, 10])
def test_a_row_reaches_back_into_the_history_before_its_sequence(last_item_probability, row_len):
    history = {0: 3, 2: 3, 3: 40}  # its first song
    for number, songs, _ in rows_of_lists(rows_with_history(row_len=row_len), last_item_probability):
        last = songs[-1]
        assert last in OWN_SONGS[number]
        expected = list(range(history[number], last + 1))[-row_len:]
        assert songs == expected[-len(songs) :]
        assert len(songs) == len(expected) or len(songs) >= 9  # the batch is as wide as its longest row needs


@pytest.mark.parametrize("last_item_probability", [0.0, 1.0, 0.5])
def test_songs_of_the_history_are_read_and_never_asked_for(last_item_probability):
    """They are another list's, which the edition of this one has counted, or are held out."""
    asked = {number: set() for number in OWN_SONGS}
    for number, _, hidden in rows_of_lists(rows_with_history(row_len=16), last_item_probability):
        assert hidden
        asked[number] |= set(hidden)
    assert [number for number, songs in asked.items() if not songs <= set(OWN_SONGS[number])] == []
    assert all(set(OWN_SONGS[number][1:]) <= songs for number, songs in asked.items())  # all that have something before them


def test_without_histories_rows_begin_with_their_sequence():
    flat = np.arange(3, 23, dtype=np.int32)
    plain = TrainingRows(flat, np.array([0, 12]), np.array([12, 20]), 10, row_len=16)
    for number, songs, _ in rows_of_lists(plain, 0.5):
        assert songs[0] == (3, 15)[number]


def test_the_share_of_hidden_songs_is_the_one_asked_for():
    rows = rows_of(*[np.arange(3, 43)] * 400, seq_len=40)
    generator = torch.Generator().manual_seed(0)
    (batch,) = batches_of(rows, 400, TrainingConfig(last_item_probability=0.0, cloze_probability=0.25), generator)
    assert abs(len(batch.places) / batch.songs.numel() - 0.25) < 0.01  # 16,000 places: one deviation is 0.0034


def test_nothing_to_learn_is_said():
    with pytest.raises(DataError, match="no training sequence has two songs"):
        rows_of(np.array([3]), np.array([4]))


def test_a_request_ends_in_the_place_to_predict():
    prefixes = [np.arange(3, 13), np.array([5]), np.array([], np.int64)]
    assert inference_batch(prefixes, seq_len=4).tolist() == [[10, 11, 12, MASK], [PAD, PAD, 5, MASK], [PAD, PAD, PAD, MASK]]
