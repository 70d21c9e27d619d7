import dataclasses

import numpy as np
import pytest

from config import EvaluationConfig
from engine.comparison import baseline_scores, compare, held_out, repeats_allowed, validation_part
from errors import DataError
from snapshot import write_snapshot
from splits import TEST, TRAIN, VALIDATION

V = 10  # songs 3 to 9; 8 and 9 are not in the training part
TRAINING = [[3, 4, 5], [3, 4, 6]]
# Validation asks for 5 after (3, 4), which both kinds of count know; the test for 8 and 9, which none of them does.
HELD_OUT = [[3, 4, 5], [3, 8], [4, 9]]
SPLIT = [TRAIN, TRAIN, VALIDATION, TEST, TEST]
CONFIG = EvaluationConfig(last_share=0.2, allow_repeats="no")


def snapshot_of(folder, lists=(*TRAINING, *HELD_OUT), split=SPLIT, policy="sequence", history_starts=None):
    zeros = np.zeros(V, np.int32)
    return write_snapshot(
        folder,
        song_artist=zeros, song_album=zeros, song_features=np.zeros((V, 0), np.float32), feature_names=[],
        n_fitted_songs=8, n_fitted_albums=3, n_fitted_artists=3, n_albums=3, n_artists=3,
        sequences=np.concatenate(lists).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(songs) for songs in lists])]),
        split=np.array(split), encoders_digest="", source={}, policy=policy, history_starts=history_starts,
    )  # fmt: skip


def always(song):
    """A score function that puts one song first, whatever the prefix."""
    return lambda prefixes: np.tile((np.arange(V) == song).astype(np.float32), (len(prefixes), 1))


def test_baselines_are_fitted_on_the_training_part_alone(tmp_path):
    scores = baseline_scores(snapshot_of(tmp_path), CONFIG)
    (popularity,) = scores["popularity"]([np.array([3])])
    assert popularity[3:].tolist() == [2, 2, 1, 1, 0, 0, 0]
    (following,) = scores["Markov"]([np.array([4])])
    assert set(np.argsort(-following)[:2].tolist()) == {5, 6}  # 4, 9 stands in the test part


def test_with_leave_one_out_the_last_two_songs_are_not_counted(tmp_path):
    snapshot = snapshot_of(tmp_path, lists=[[3, 4, 5, 6], [3, 4, 7, 8]], split=[TRAIN, TRAIN], policy="leave_one_out")
    (popularity,) = baseline_scores(snapshot, CONFIG)["popularity"]([np.array([3])])
    assert popularity[3:].tolist() == [2, 2, 0, 0, 0, 0, 0]


def test_the_weights_of_the_blend_are_chosen_on_validation_tasks(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("engine.comparison.Blend.choose_weights", lambda self, tasks, **rules: asked.append((tasks, rules)))
    baseline_scores(snapshot_of(tmp_path), CONFIG)
    ((tasks, rules),) = asked
    assert (tasks.sequence.tolist(), tasks.targets.tolist()) == ([2], [5])
    assert rules == {"n_songs": V, "allow_repeats": False}


def test_a_gap_below_the_fitted_songs_counts_as_cold(tmp_path):
    held = held_out(snapshot_of(tmp_path), TEST, CONFIG)
    assert np.flatnonzero(held.trained).tolist() == [3, 4, 5, 6]  # 7 has a number below, and no play in training


def test_without_validation_tasks_there_is_no_blend(tmp_path):
    snapshot = snapshot_of(tmp_path, split=[TRAIN, TRAIN, TEST, TEST, TEST])
    assert "blend of the three" not in baseline_scores(snapshot, CONFIG)


def test_the_comparison_judges_the_test_part_and_names_each_before_it(tmp_path):
    names: list[str] = []
    results = compare({"knows 8": always(8), "knows 5": always(5)}, snapshot_of(tmp_path), CONFIG, report=names.append)
    assert names == ["knows 8", "knows 5"]
    assert [(name, result.n_tasks, result.metrics["hr1"]) for name, result in results.items()] == [
        ("knows 8", 2, 0.5),  # the test asks for 8 and for 9
        ("knows 5", 2, 0.0),
    ]
    validation = compare({"knows 5": always(5)}, snapshot_of(tmp_path), CONFIG, part=VALIDATION)
    assert validation["knows 5"].metrics["hr1"] == 1.0


def test_with_leave_one_out_validation_hides_the_song_before_the_one_of_the_test(tmp_path):
    snapshot = snapshot_of(tmp_path, lists=[[3, 4, 5, 6], [7, 8]], split=[TRAIN, TRAIN], policy="leave_one_out")
    validation, test = (held_out(snapshot, part, CONFIG).tasks for part in (VALIDATION, TEST))
    assert (validation.targets.tolist(), [list(songs) for songs in validation.prefixes()]) == ([5], [[3, 4]])
    assert (test.targets.tolist(), [list(songs) for songs in test.prefixes()]) == ([6, 8], [[3, 4, 5], [7]])


def test_songs_of_the_training_part_are_warm_and_unknown_ones_are_not(tmp_path):
    snapshot = snapshot_of(tmp_path, lists=[[3, 4, 5], [3, 4], [3, 4, 7], [3, 2], [3, 8]])
    held = held_out(snapshot, TEST, CONFIG)
    assert np.flatnonzero(held.trained).tolist() == [3, 4, 5]
    parts = held.judge(always(8)).parts
    assert {name: part.n_tasks for name, part in parts.items()} == {"cold": 2}  # UNKNOWN and 8


@pytest.mark.parametrize(("repeats", "prefixes"), [("yes", [[3, 4, 6, 3], [4]]), ("no", [[3], [4]])])
def test_a_history_is_read_where_songs_may_come_again(tmp_path, repeats, prefixes):
    """The list 3, 8 has the second one as its history: rows 3 to 5 of 3, 4, 5, 3, 4, 6, 3, 8, 4, 9."""
    lists, split = [[3, 4, 5], [3, 4, 6], [3, 8], [4, 9]], [TRAIN, TRAIN, TEST, TEST]
    snapshot = snapshot_of(tmp_path, lists=lists, split=split, history_starts=np.array([0, 3, 3, 8]))
    held = held_out(snapshot, TEST, dataclasses.replace(CONFIG, allow_repeats=repeats))
    assert [songs.tolist() for songs in held.tasks.prefixes()] == prefixes
    assert held.tasks.targets.tolist() == [8, 9]
    asked = []
    held.judge(lambda prefixes: asked.extend(songs.tolist() for songs in prefixes) or always(8)(prefixes))
    assert sorted(asked) == sorted(prefixes)


def test_with_leave_one_out_a_history_stands_before_the_song_that_is_hidden(tmp_path):
    snapshot = snapshot_of(
        tmp_path, lists=[[3, 4, 5], [3, 4, 6, 3]], split=[TRAIN, TRAIN], policy="leave_one_out", history_starts=np.array([0, 0])
    )
    tasks = held_out(snapshot, VALIDATION, dataclasses.replace(CONFIG, allow_repeats="yes")).tasks
    assert ([songs.tolist() for songs in tasks.prefixes()], tasks.targets.tolist()) == ([[3], [3, 4, 5, 3, 4]], [4, 6])


def test_many_tasks_are_thinned_evenly(tmp_path):
    snapshot = snapshot_of(
        tmp_path, lists=[[3, 4], [3, 4], *[[3, 4 + number] for number in range(5)]], split=[0, 0, 1, 1, 1, 1, 1]
    )
    assert held_out(snapshot, VALIDATION, CONFIG, max_tasks=3).tasks.targets.tolist() == [4, 6, 8]


@pytest.mark.parametrize(("lists", "expected"), [([[3, 4, 3], [3, 4]], True), ([[3, 4], [4, 3]], False)])
def test_repeats_are_allowed_where_training_sequences_have_them(tmp_path, lists, expected):
    snapshot = snapshot_of(tmp_path, lists=lists, split=[TRAIN, TRAIN])
    assert repeats_allowed(snapshot, EvaluationConfig(allow_repeats="auto")) is expected
    assert repeats_allowed(snapshot, EvaluationConfig(allow_repeats="yes")) is True


@pytest.mark.parametrize(
    ("lists", "split", "message"),
    [
        ([[3, 4], [4, 5]], [TRAIN, TEST], "1 training, 0 validation and 1 test sequences with 0 songs to predict"),
        ([[3, 4], [4, 4]], [TRAIN, VALIDATION], "1 training, 1 validation and 0 test sequences with 1 songs to predict"),
    ],
)
def test_a_snapshot_that_leaves_nothing_to_validate_with_is_refused(tmp_path, lists, split, message):
    snapshot = snapshot_of(tmp_path, lists=lists, split=split)
    with pytest.raises(DataError, match=message):
        validation_part(snapshot, CONFIG, max_tasks=10)


def test_where_songs_repeat_a_repeat_is_enough_to_validate_with(tmp_path):
    snapshot = snapshot_of(tmp_path, lists=[[3, 4], [4, 4]], split=[TRAIN, VALIDATION])
    assert len(validation_part(snapshot, dataclasses.replace(CONFIG, allow_repeats="yes"), max_tasks=10).tasks) == 1
