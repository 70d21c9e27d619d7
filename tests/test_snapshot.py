import json

import numpy as np
import pytest

from errors import SnapshotError
from snapshot import _write_column, open_snapshot, write_snapshot
from splits import TEST, TRAIN, VALIDATION


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

    def full_disk(path, *column):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(path))
        return _write_column(path, *column)

    monkeypatch.setattr("snapshot._write_column", full_disk)
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
