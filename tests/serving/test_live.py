import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from errors import ServiceUnavailable
from serving.live import LiveRecommender
from serving.recommender import Query
from tests.serving.small import SONGS, small_recommender


def test_without_a_model_a_query_is_told_so():
    with pytest.raises(ServiceUnavailable, match="no model is loaded"):
        LiveRecommender().recommend(Query(songs=["s00"]))


def test_concurrent_queries_are_answered_like_single_ones():
    recommender = small_recommender()
    live = LiveRecommender(recommender)
    queries = [Query(songs=[song], count=5) for song in SONGS] * 4
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(live.recommend, queries))
    expected = [recommender.recommend_many([query])[0] for query in queries]
    assert [[song.song_id for song in answer.songs] for answer in answers] == [
        [song.song_id for song in answer.songs] for answer in expected
    ]


def test_a_swap_under_load_drops_no_query_and_the_next_one_meets_the_new_model():
    live = LiveRecommender(small_recommender(model_id="old"))
    swapped = threading.Event()

    def ask(number):
        if number == 40:
            live.swap(small_recommender(seed=1, model_id="new"))
            swapped.set()
        return live.recommend(Query(songs=["s00"])).model.model_id

    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(ask, range(120)))
    assert swapped.is_set()
    assert set(models) == {"old", "new"}
    assert models[-1] == live.recommend(Query(songs=["s00"])).model.model_id == "new"
