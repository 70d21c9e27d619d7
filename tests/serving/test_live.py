import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from errors import ServiceUnavailable
from serving.answers import Query
from serving.controls import Controls
from serving.live import NO_MODEL, LiveRecommender, is_in_share
from tests.serving.small import SONGS, small_recommender


def test_without_a_model_a_query_is_told_so():
    with pytest.raises(ServiceUnavailable, match="no model is loaded"):
        LiveRecommender().recommend(Query(songs=["s00"]))


def test_concurrent_queries_are_answered_like_single_ones():
    recommender = small_recommender()
    live = LiveRecommender(recommender)
    queries = [Query(songs=[song], controls=Controls(count=5)) for song in SONGS] * 4
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


def test_a_share_holds_its_part_of_the_keys_and_a_larger_one_holds_the_smaller():
    keys = [f"listener {number}" for number in range(20_000)]
    small, large = ({key for key in keys if is_in_share(key, share)} for share in (0.1, 0.3))
    assert small < large
    assert abs(len(small) / len(keys) - 0.1) < 0.01
    assert abs(len(large) / len(keys) - 0.3) < 0.01


def test_a_challenger_always_answers_the_same_sequences():
    live = LiveRecommender()
    live.swap(small_recommender(model_id="main"), small_recommender(model_id="challenger"), 0.5)
    queries = [Query(songs=["s00"], controls=Controls(listener=f"listener {number}")) for number in range(40)]
    first, again = ([live.recommend(query).model.model_id for query in queries] for _ in range(2))
    assert first == again == [answer.model.model_id for answer in live.recommend_many(queries)]
    assert first == ["challenger" if is_in_share(f"listener {number}", 0.5) else "main" for number in range(40)]
    assert {"main", "challenger"} == set(first)
    explained = [live.why(["s00"], "s05", listener=f"listener {number}")[0] for number in range(40)]
    assert explained == first


def test_a_growing_sequence_stays_on_its_side():
    live = LiveRecommender()
    live.swap(small_recommender(model_id="main"), small_recommender(model_id="challenger"), 0.5)
    for song in SONGS:
        sides = {live.recommend(Query(songs=[song, *SONGS[:n]])).model.model_id for n in range(5)}
        assert len(sides) == 1


def test_many_queries_at_once_answer_like_single_ones_and_a_bad_one_spoils_none():
    live = LiveRecommender(small_recommender())
    queries = [Query(songs=[song], controls=Controls(count=3)) for song in SONGS] * 5
    queries[7] = Query(songs=[])
    outcomes = live.recommend_many(queries)
    assert str(outcomes[7]) == "the sequence is empty: send at least one song"
    others = [place for place in range(60) if place != 7]
    assert [ids_of(outcomes[place]) for place in others] == [ids_of(live.recommend(queries[place])) for place in others]


def test_answers_are_counted_by_model_and_fallback_until_they_are_taken():
    live = LiveRecommender(small_recommender(model_id="m"))
    live.recommend(Query(songs=["s00"], controls=Controls(count=4)))
    live.recommend_many(
        [Query(songs=["s00"], controls=Controls(count=2)), Query(songs=["never seen"], controls=Controls(count=1))]
    )
    taken = live.tally.take()
    assert taken == {("m", None): (2, 6), (NO_MODEL, "popular"): (1, 1)}
    live.tally.put_back(taken)
    assert (live.tally.take(), live.tally.take()) == (taken, {})


def test_whoever_asks_is_told_of_each_answer_once_and_of_its_songs():
    counted = []
    live = LiveRecommender(small_recommender(), on_answer=lambda answer: counted.append((answer.n_sent, answer.unknown)))
    live.recommend(Query(songs=["s00", "x", "s00", "x"]))
    live.recommend_many([Query(songs=["s01"]), Query(songs=[])])
    recommender = live.recommender
    [answer] = live.score_together(recommender, [recommender.prepare(Query(songs=["y"]))])
    assert counted == [(3, ("x",)), (1, ())]
    live.count(answer)
    assert counted == [(3, ("x",)), (1, ()), (1, ("y",))]


def test_a_model_that_cannot_score_gives_way_to_what_is_popular(monkeypatch):
    recommender = small_recommender()

    def fail(prefixes):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(recommender._scorer, "read", fail)
    answer = LiveRecommender(recommender).recommend(Query(songs=["s00"], controls=Controls(count=2)))
    assert (answer.fallback, len(answer.songs), answer.model) == ("popular", 2, None)


def ids_of(answer):
    return [song.song_id for song in answer.songs]
