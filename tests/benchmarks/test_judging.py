import numpy as np
import pytest

from benchmarks.quality.flow import camelot_share, mean_step
from benchmarks.quality.judging import Beyond, compared, continuation, over_seeds
from benchmarks.quality.questions import Answers
from benchmarks.quality.table import MODEL, judge, last_line, tables
from config import EvaluationConfig
from splits import TEST
from tests.benchmarks.small import built, write_folder

SONGS = [
    "song_id,song_name,artist_id,artist_name,album_id,album_name,tempo,energy,key,mode",
    "a,,x,,,,100,0.1,0,1",
    "b,,x,,,,110,0.3,9,0",
    "c,,y,,,,130,0.2,7,1",
    "d,,z,,,,120,,,",
    *(f"{name},,z,,,,120,0.5,1,1" for name in "efghijklmnop"),
]
TIMES = ["playlist_id,base_id,name,snapshot_time", "1,p,,2019-01-01T00:00Z", "2,p,,2021-02-01T00:00Z", "3,q,,2021-02-01T00:00Z"]
LISTS = {"1": "abcdefghijklmnop", "2": "abcdefghij", "3": "badcfehgij"}


@pytest.fixture
def data(tmp_path):
    return built(write_folder(tmp_path / "lists", LISTS, SONGS, TIMES))


def answers(data, party, ranks, seed=0, lists="abcdefghij"):
    rows = data.number[[ord(letter) - ord("a") for letter in lists]]
    return Answers(
        party=party, seed=seed, settings={}, history=False, validation_ndcg10=0.1, search_seconds=0, fit_seconds=0,
        ranks=np.array(ranks), lists=np.tile(rows, (2, 1)),
    )  # fmt: skip


def test_seeds_are_averaged_question_by_question(data):
    asked = data.questions(TEST, EvaluationConfig())
    runs = [answers(data, MODEL, [1, 1, 11, 11]), answers(data, MODEL, [1, 11, 11, 3], seed=1)]
    mean = over_seeds(runs, asked)["all"]
    np.testing.assert_allclose(mean.per_sequence["hr10"], [(1 + 1 / 2) / 2, (0 + 1 / 2) / 2])
    np.testing.assert_allclose(mean.per_sequence["ndcg10"], [(1 + 1 / 2) / 2, (0 + 1 / 4) / 2])


def test_versions_of_one_list_are_one_group_of_the_bootstrap(data):
    asked = data.questions(TEST, EvaluationConfig())
    better, worse = (over_seeds([answers(data, "x", ranks)], asked)["all"] for ranks in ([1, 1, 1, 1], [3, 3, 3, 3]))
    assert compared(better, worse, asked).n_groups == 2
    assert compared(better, worse, asked).ratio_low == pytest.approx(2)


def test_a_continuation_that_begins_with_the_hidden_songs_is_perfect(data):
    asked = data.questions(TEST, EvaluationConfig())
    perfect = continuation([answers(data, "x", [1, 1, 1, 1], lists="ijklmnopab")], asked)
    assert perfect == {"recall10": 1.0, "r_precision": 1.0, "ndcg10": 1.0}
    half = continuation([answers(data, "x", [1, 1, 1, 1], lists="kimnopjabc")], asked)
    assert half["r_precision"] == 0.5
    assert half["recall10"] == 1.0


def test_a_list_is_judged_beside_the_history_that_it_continues(data):
    beyond = Beyond(data, data.questions(TEST, EvaluationConfig()))
    figures = beyond.of([answers(data, "x", [1, 1, 1, 1], lists="efghijklmn")])
    assert figures["coverage"] == 10 / 16
    assert figures["distinct_artists"] == 1 / 10
    assert figures["popularity_ratio"] == 1.0
    assert figures["novelty"] == 0.0
    assert figures["tempo_step"] == 0.0  # both prefixes end at 120
    assert figures["camelot_share"] == 1.0
    assert beyond.of_history()["coverage"] == 8 / 16


def test_steps_and_keys_that_are_unknown_are_left_out():
    assert mean_step(np.array([100.0, np.nan, 90.0, 95.0])) == 5.0
    assert np.isnan(mean_step(np.array([100.0, np.nan])))
    assert np.isnan(camelot_share(np.array([np.nan, 3.0]), np.array([1.0, 1.0])))


@pytest.mark.parametrize(
    ("first", "second", "mixes"),
    [
        ((0, 1), (7, 1), True),  # C major 8B, G major 9B
        ((0, 1), (5, 1), True),  # C major 8B, F major 7B
        ((0, 1), (9, 0), True),  # C major 8B, A minor 8A
        ((4, 1), (11, 1), True),  # E major 12B, B major 1B
        ((0, 1), (4, 0), False),  # C major 8B, E minor 9A
        ((0, 1), (2, 1), False),  # C major 8B, D major 10B
    ],
)
def test_keys_mix_as_on_the_printed_camelot_wheel(first, second, mixes):
    keys, modes = np.array([[first[0], second[0]], [first[1], second[1]]], dtype=float)
    assert camelot_share(keys, modes) == float(mixes)


def test_the_last_line_sets_the_model_beside_the_best_peer(data):
    asked = data.questions(TEST, EvaluationConfig())
    given = {
        MODEL: [answers(data, MODEL, [1, 1, 1, 1])],
        "weak": [answers(data, "weak", [11, 11, 11, 11])],
        "strong": [answers(data, "strong", [3, 3, 3, 3])],
        f"{MODEL}, cloze": [answers(data, f"{MODEL}, cloze", [1, 1, 1, 3])],
    }
    judged = judge(data, asked, given)
    line = {"ndcg10": 1.0, "hr10": 1.0, "best_peer": "strong", "best_peer_ndcg10": 0.5, "ratio": 2.0, "ratio_low": 2.0}
    assert last_line(judged) == pytest.approx(line)
    assert "2.00 [2.00, 2.00]" in tables(judged)


def test_without_a_model_there_is_no_ratio(data):
    judged = judge(data, data.questions(TEST, EvaluationConfig()), {"random": [answers(data, "random", [3, 3, 3, 3])]})
    assert (last_line(judged)["ndcg10"], last_line(judged)["ratio"]) == (None, None)
    assert last_line(judged)["best_peer"] == "random"
