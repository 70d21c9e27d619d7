import doctest

import numpy as np
import pytest

from benchmarks.quality import flow, questions, table
from benchmarks.quality.questions import Answers, Questions, best_songs, figures, lists_of, ranks_of
from evaluation.protocols import evaluate, next_song_tasks

SONGS = np.array([3, 4, 5, 6, 4, 7, 8, 3, 4, 5, 6, 7, 8, 9, 3, 6, 5, 5])
OFFSETS = np.array([0, 7, 14, 18])
TRAINED = np.arange(12) < 9
SCORES = np.array([0, 0, 0, 5, 1, 2, 2, 4, 2, 3, 3, 0], dtype=np.float32)


def fixed(prefixes):
    return np.tile(SCORES, (len(prefixes), 1))


@pytest.fixture(params=[False, True], ids=["new songs only", "repeats allowed"])
def asked(request):
    every = next_song_tasks(SONGS, OFFSETS, np.arange(3), last_share=0.5)
    starts = np.array([0, 7, 7])  # the third sequence has the second as its history
    groups = np.array([0, 1, 1])
    return Questions(every=every, history_starts=starts, groups=groups, trained=TRAINED, allow_repeats=request.param)


def test_figures_from_ranks_are_those_of_the_evaluation(asked):
    mine = figures(ranks_of(fixed, asked.asked, asked), asked)
    theirs = evaluate(fixed, asked.every, n_songs=12, allow_repeats=asked.allow_repeats, trained=TRAINED)
    assert mine["all"].metrics == theirs.metrics
    assert mine["cold"].metrics == theirs.parts["cold"].metrics
    assert mine["all"].n_tasks == theirs.n_tasks


def test_the_list_is_what_a_stable_sort_of_all_candidates_begins_with():
    rng = np.random.default_rng(1)
    scores, candidates = rng.integers(0, 6, 200).astype(np.float32), rng.random(200) < 0.7
    wanted = [song for song in np.argsort(-scores, kind="stable") if candidates[song]][:25]
    assert best_songs(scores, candidates, 25).tolist() == wanted


def test_the_place_in_the_list_is_the_rank(asked):
    tasks = asked.asked
    ranks, lists = ranks_of(fixed, tasks, asked), lists_of(fixed, tasks, asked, 2)
    for rank, found, target in zip(ranks, lists, tasks.targets, strict=True):
        assert (target in found) == (rank <= 2)
        assert rank > 2 or found[rank - 1] == target


def test_a_repeat_may_be_of_the_history_before_the_sequence():
    every = next_song_tasks(SONGS, OFFSETS, np.array([2]), last_share=0.5)
    asked = Questions(every=every, history_starts=np.array([0, 7, 7]), groups=np.arange(3), trained=TRAINED, allow_repeats=True)
    assert asked.kinds["repeat"].tolist() == [True, True]  # 5 stands in the second sequence, then in its own


def test_hidden_songs_are_those_after_the_continued_list():
    every = next_song_tasks(SONGS, OFFSETS, np.array([0, 1]), last_share=0.5)
    asked = Questions(every=every, history_starts=OFFSETS[:-1], groups=np.arange(3), trained=TRAINED, allow_repeats=False)
    assert [prefix.tolist() for prefix in asked.continued.prefixes()] == [[3, 4, 5, 6], [3, 4, 5, 6]]
    assert [songs.tolist() for songs in asked.hidden] == [[7, 8], [7, 8, 9]]  # the 4 comes a second time


def test_questions_come_back_from_their_file(asked, tmp_path):
    asked.save(tmp_path / "asked.npz")
    back = Questions.load(tmp_path / "asked.npz")
    assert back.allow_repeats == asked.allow_repeats
    assert [prefix.tolist() for prefix in back.tasks(history=True).prefixes()] == [
        prefix.tolist() for prefix in asked.tasks(history=True).prefixes()
    ]
    assert back.kinds["cold"].tolist() == asked.kinds["cold"].tolist()


def test_answers_to_other_questions_are_not_taken(tmp_path):
    answers = Answers(
        party="random", seed=0, settings={"last": 3}, history=True, validation_ndcg10=0.5, search_seconds=1, fit_seconds=2,
        ranks=np.array([1, 4]), lists=np.array([[3, 4]]),
    )  # fmt: skip
    answers.save(tmp_path / "answers.npz", questions="these")
    back = Answers.load(tmp_path / "answers.npz", questions="these")
    assert (back.party, back.settings, back.history, back.ranks.tolist()) == ("random", {"last": 3}, True, [1, 4])
    assert Answers.load(tmp_path / "answers.npz", questions="others") is None
    assert Answers.load(tmp_path / "none.npz", questions="these") is None


@pytest.mark.parametrize("module", [flow, questions, table])
def test_examples_in_the_docstrings_hold(module):
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0
