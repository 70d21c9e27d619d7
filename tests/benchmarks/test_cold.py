import numpy as np
import pandas as pd
import pytest

from benchmarks.quality.cold import Draw, Nearest, about, drawn_songs, songs_of_drawn_artists, together, without_new
from benchmarks.quality.splits import read
from config import EvaluationConfig
from splits import TEST
from tests.benchmarks.small import built, plain_songs, spelled, write_folder

SOUNDS = [
    "song_id,song_name,artist_id,artist_name,album_id,album_name,energy,valence",
    "a,,x,,,,0.9,0.1",
    "b,,x,,,,0.1,0.9",
    "c,,y,,,,0.88,0.12",
    "d,,z,,,,0.12,0.88",
    "e,,y,,,,0.5,0.5",
]


def test_a_share_of_the_training_songs_is_drawn(tmp_path):
    rows = read(write_folder(tmp_path / "ml", {"1": "abcdefghijklm", "2": "abcdefghijkno"}, plain_songs("abcdefghijklmnop")))
    drawn = drawn_songs(rows, 0.5)
    assert len(drawn) == 6  # half of eleven, rounded: a to k, since l, m, n and o are held out
    assert drawn.max() <= 10
    assert len({tuple(drawn_songs(rows, 0.5, draw)) for draw in range(3)}) == 3


def test_a_drawn_artist_takes_all_its_songs_along(tmp_path):
    rows = read(write_folder(tmp_path / "ml", {"1": "abcde", "2": "abcde"}, SOUNDS))
    removed = songs_of_drawn_artists(rows, 0.5)
    artists = rows.catalogue["artist_id"]
    assert len(removed) == artists.isin(artists.iloc[removed]).sum()


def test_questions_about_some_songs_and_about_the_others_share_none(tmp_path):
    data = built(write_folder(tmp_path / "ml", {"1": "abcd", "2": "abdc", "3": "cdab"}, plain_songs("abcd")))
    every, song_d = data.questions(TEST, EvaluationConfig()), data.number[[3]]
    assert spelled(data, about(every, song_d).asked.targets) == "d"
    assert spelled(data, about(every, song_d, others=True).asked.targets) == "cb"


def test_without_new_songs_only_what_training_holds_is_a_candidate(tmp_path):
    data = built(write_folder(tmp_path / "ml", {"1": "abcd", "2": "abdc", "3": "abce"}, plain_songs("abcdefg")))
    questions = data.questions(TEST, EvaluationConfig())
    scores = without_new(lambda prefixes: np.zeros((len(prefixes), questions.n_songs), np.float32), questions)([data.number[[0]]])
    assert spelled(data, np.flatnonzero(scores[0] == 0)) == "ab"


def test_every_question_of_all_draws_counts_once_and_every_draw_for_the_price():
    def draw(hits, ndcg10, without, with_all):
        answered = {name: np.array(row, dtype=bool) for name, row in hits.items()}
        return Draw(hits=answered, ndcg10=ndcg10, ndcg10_without_new=without, ndcg10_with_all=with_all)

    small = draw({"model": [1, 1], "nearest": [0, 1], "random": [0, 0]}, 0.19, 0.2, 0.19)
    large = draw({"model": [0, 0, 1, 0, 0, 0], "nearest": [0] * 6, "random": [0] * 6}, 0.3, 0.3, 0.25)
    figures = together([small, large], expected=0.01)
    assert (figures["recall10"], figures["nearest"], figures["n_tasks"]) == (3 / 8, 1 / 8, 8)
    assert figures["times_random"] == pytest.approx(37.5)
    assert figures["warm_price"] == pytest.approx(-0.025)
    assert figures["warm_change"] == pytest.approx(0.1)


@pytest.fixture
def nearest(tmp_path):
    data = built(write_folder(tmp_path / "ml", {"1": "abcde", "2": "badce"}, SOUNDS))
    return data, Nearest(data.snapshot)


def test_the_nearest_song_sounds_like_the_prefix(nearest):
    data, recommender = nearest
    scores = pd.Series(recommender.score([data.number[[3]]])[0][data.number], index=list("abcde"))
    assert scores.drop("d").idxmax() == "b"


def test_a_shared_artist_is_worth_half_a_cosine(nearest):
    data, recommender = nearest
    scores = recommender.score([data.number[[0]], data.number[[2]]])[:, data.number]
    features = np.asarray(data.snapshot.song_features)[data.number].astype(np.float64)
    cosine = features[0] @ features[1] / np.linalg.norm(features[0]) / np.linalg.norm(features[1])
    assert scores[0, 1] == pytest.approx(cosine + 0.5, abs=1e-5)
    assert scores[1, 1] < scores[1, 4]
