import dataclasses
import json

import numpy as np
import pytest
import torch

import dataset
from config import MASK, PAD, TrainingConfig
from dataset import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VALIDATION,
    TrainingRows,
    ask,
    fold_of_lists,
    inference_batch,
    left_padded,
    mask,
    numbered_lists,
    open_snapshot,
    split_by_sequence,
    split_by_time,
    training_batch,
    write_snapshot,
)
from errors import DataError, SnapshotError


def small_snapshot(folder, **changes):
    columns = {
        "song_artist": np.array([0, 1, 2, 3, 3, 4]),
        "song_album": np.array([0, 1, 2, 3, 4, 2]),
        "song_features": np.arange(12.0).reshape(6, 2),
        "feature_names": ["tempo", "tempo_missing"],
        "n_fitted_songs": 5,
        "n_fitted_albums": 5,
        "n_fitted_artists": 4,
        "n_albums": 5,
        "n_artists": 5,
        "sequences": np.array([3, 4, 5, 4, 3, 3, 4], np.int32),
        "offsets": np.array([0, 3, 5, 7]),
        "split": np.array([TRAIN, VALIDATION, TEST]),
        "lists": np.array([0, 1, 0]),
        "encoders_digest": "e" * 64,
        "source": {"rows": 7},
    }
    return write_snapshot(folder, **{**columns, **changes})


def rows_of(*lists, seq_len=8):
    offsets = np.concatenate([[0], np.cumsum([len(songs) for songs in lists])])
    return TrainingRows(np.concatenate(lists).astype(np.int32), offsets[:-1], offsets[1:], seq_len)


# --- snapshot


def test_a_snapshot_reads_back_as_it_was_written(tmp_path):
    small_snapshot(tmp_path)
    snapshot = open_snapshot(tmp_path, verify=True)
    assert snapshot.n_songs == 6
    assert snapshot.sequences.tolist() == [3, 4, 5, 4, 3, 3, 4]
    assert snapshot.song_features[5].tolist() == [10.0, 11.0]
    assert snapshot.manifest["split"]["sequences"] == [1, 1, 1]
    assert [part.tolist() for part in snapshot.part(VALIDATION)] == [[4, 3], [0, 2]]


def test_a_sequence_has_a_history_where_one_is_given(tmp_path):
    small_snapshot(tmp_path)
    assert open_snapshot(tmp_path, verify=True).history_starts.tolist() == [0, 3, 5]  # its own first rows: none
    small_snapshot(tmp_path, history_starts=np.array([0, 3, 3], np.int32))
    assert open_snapshot(tmp_path, verify=True).history_starts.tolist() == [0, 3, 3]


def test_histories_of_other_sequences_are_refused(tmp_path):
    path = small_snapshot(tmp_path).path / "history_starts.npy"
    np.save(path, np.array([0, 3]))
    with pytest.raises(SnapshotError, match="run preprocessing"):
        open_snapshot(tmp_path)


def test_a_second_version_takes_the_place_of_the_first(tmp_path):
    first = small_snapshot(tmp_path)
    second = small_snapshot(tmp_path, source={"rows": 8})
    assert first.digest != second.digest
    assert open_snapshot(tmp_path).digest == second.digest
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [second.path.name]


def test_an_interrupted_write_leaves_the_old_version_in_use(tmp_path, monkeypatch):
    first = small_snapshot(tmp_path)
    calls = []

    write_column = dataset._write_column

    def full_disk(path, *column):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(path))
        return write_column(path, *column)

    monkeypatch.setattr(dataset, "_write_column", full_disk)
    with pytest.raises(SnapshotError, match="No space left on device"):
        small_snapshot(tmp_path, source={"rows": 9})
    assert open_snapshot(tmp_path, verify=True).digest == first.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.path.name, "current"])


def test_leave_one_out_hides_the_last_song_from_validation_and_the_last_two_from_training(tmp_path):
    sequences, offsets = np.array([3, 4, 5, 4, 3], np.int32), np.array([0, 4, 5])
    snapshot = small_snapshot(
        tmp_path, sequences=sequences, offsets=offsets, split=np.zeros(2), lists=None, policy="leave_one_out"
    )
    ends = {part: snapshot.ranges(part)[1].tolist() for part in (TRAIN, VALIDATION, TEST)}
    assert ends == {TRAIN: [2, 4], VALIDATION: [3, 4], TEST: [4, 5]}


@pytest.mark.parametrize("damage", ["truncate", "manifest", "format", "missing"])
def test_a_damaged_snapshot_is_refused(tmp_path, damage):
    path = small_snapshot(tmp_path).path
    manifest = path / "manifest.json"
    if damage == "truncate":
        (path / "sequences.npy").write_bytes((path / "sequences.npy").read_bytes()[:-8])
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "format":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 99}))
    else:
        (path / "split.npy").unlink()
    with pytest.raises(SnapshotError, match="run preprocessing"):
        open_snapshot(tmp_path)


def test_a_changed_file_fails_verification(tmp_path):
    path = small_snapshot(tmp_path).path / "sequences.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match="does not match its digest"):
        open_snapshot(tmp_path, verify=True)


def test_no_snapshot_says_what_to_run(tmp_path):
    with pytest.raises(SnapshotError, match=r"run preprocessing\.py"):
        open_snapshot(tmp_path / "nothing")


# --- splits


def rng_of(seed=0):
    return np.random.default_rng(seed)


def test_the_newest_lists_are_held_out_and_no_later_version_of_a_training_list_is_seen():
    times = np.arange(10)
    lists = np.array([0, 1, 2, 3, 4, 5, 0, 6, 7, 7])  # list 0 has a second version, before the moment
    assert split_by_time(times, lists, 0.7, rng_of()).tolist() == [TRAIN] * 7 + [TEST, VALIDATION, VALIDATION]
    # Now its second version comes after the moment (7), which moves back to 4 to hold enough out; the list itself trains.
    lists = np.array([0, 1, 2, 3, 4, 5, 8, 6, 0, 7])
    expected = [TRAIN] * 4 + [TEST, VALIDATION, TEST, VALIDATION, LEFT_OUT, TEST]
    assert split_by_time(times, lists, 0.7, rng_of()).tolist() == expected


def test_of_lists_on_both_sides_a_share_is_held_out_whole():
    times, lists = np.tile([0, 100], 20), np.repeat(np.arange(20), 2)  # twenty lists, each with an early and a late version
    early, late = split_by_time(times, lists, 0.9, rng_of()).reshape(20, 2).T
    held_out = (late == TEST) | (late == VALIDATION)
    assert held_out.sum() == 6  # three in ten
    assert (early[held_out] == LEFT_OUT).all()
    assert (early[~held_out] == TRAIN).all()
    assert (late[~held_out] == LEFT_OUT).all()
    assert (late == TEST).sum() == (late == VALIDATION).sum() == 3


def test_a_held_out_list_that_was_saved_every_day_does_not_outweigh_the_others():
    times = np.concatenate([np.arange(90), np.full(3, 95), np.arange(95, 125)])
    lists = np.concatenate([np.arange(90), np.arange(100, 103), np.full(30, 200)])
    split = split_by_time(times, lists, 90 / 123, rng_of())
    kept = np.flatnonzero((split != LEFT_OUT) & (lists == 200))
    assert times[kept].tolist() == [95, 101, 107, 113, 119]


def test_validation_and_test_come_from_the_same_time_and_are_of_like_size():
    times = np.arange(100)
    split = split_by_time(times, times, 0.8, rng_of())
    assert [(split == part).sum() for part in (TRAIN, VALIDATION, TEST)] == [80, 10, 10]
    assert abs(times[split == VALIDATION].mean() - times[split == TEST].mean()) == 1


def test_a_list_never_stands_on_both_sides():
    rng = np.random.default_rng(0)
    lists, times = rng.integers(0, 40, 300), rng.integers(0, 10_000, 300)
    for split in (split_by_time(times, lists, 0.8, rng), split_by_sequence(lists, 0.8, rng)):
        kept = split != LEFT_OUT
        sides = [set(split[kept & (lists == one)]) for one in range(40)]
        assert all(len(side) <= 1 for side in sides)
        assert {TRAIN, VALIDATION, TEST} <= set(split)


def test_training_never_sees_the_time_of_the_held_out():
    rng = np.random.default_rng(1)
    lists, times = rng.integers(0, 40, 300), rng.integers(0, 10_000, 300)
    split = split_by_time(times, lists, 0.8, rng)
    assert times[split == TRAIN].max() < times[(split == VALIDATION) | (split == TEST)].min()


def test_a_seed_fixes_which_lists_are_held_out():
    times, lists = np.tile([0, 100], 20), np.repeat(np.arange(20), 2)
    splits = [split_by_time(times, lists, 0.9, rng_of(seed)).tolist() for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_lists_that_all_begin_at_once_cannot_be_split_by_time():
    for lists in (np.zeros(5, np.int64), np.arange(5)):
        with pytest.raises(DataError, match="set split to sequence"):
            split_by_time(np.zeros(5), lists, 0.9, rng_of())


def test_two_lists_are_the_fewest_that_split():
    assert sorted(split_by_sequence(np.array([4, 9]), 0.9, np.random.default_rng(0)).tolist()) == [TRAIN, TEST]
    with pytest.raises(DataError, match="1 list cannot be split"):
        split_by_sequence(np.array([4, 4]), 0.9, np.random.default_rng(0))


# --- batches


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


def test_lists_are_numbered_by_their_order_and_dealt_into_folds_of_one_size():
    assert numbered_lists(np.array([8, 8, 2, 30, 2])).tolist() == [1, 1, 0, 2, 0]
    assert fold_of_lists(10, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]  # neighbours, which are close in time, go together
    assert set(np.bincount(fold_of_lists(1003, 8)).tolist()) == {125, 126}
    assert fold_of_lists(2, 4).tolist() == [0, 2]
    assert fold_of_lists(0, 4).tolist() == []


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
