"""Controls of a request, from the query to the answer, on the small model."""

from dataclasses import replace

import numpy as np
import pytest

from config import ServiceConfig
from errors import CheckpointError, InvalidSequence
from serving import picking
from serving.answers import Query, SongList
from serving.controls import Controls
from serving.scoring import ModelScorer
from storage.feedback import Taste
from tests.serving.small import SONGS, small_recommender

WHOLE = 11  # songs of the catalogue beside one of the sequence


def ids_of(answer):
    return [song.song_id for song in answer.songs]


def answered(recommender=None, songs=("s00",), taste=None, filtered=None, **controls):
    recommender = recommender or small_recommender()
    query = Query(songs=songs, controls=Controls(**controls), taste=taste or Taste(), filtered=filtered and SongList(filtered))
    [answer] = recommender.recommend_many([query])
    return answer


def ranking(n=WHOLE):
    """The songs after s00 without any rule."""
    return ids_of(answered(count=n))


def test_what_the_listener_wants_never_again_stays_out_even_where_songs_are_missing():
    best = ranking()
    answer = answered(count=WHOLE, taste=Taste(never=frozenset({best[0], "no song"})))
    assert ids_of(answer) == best[1:]
    assert (answer.applied, answer.relaxed) == (("never_again",), ())


def test_a_blocked_artist_stays_out():
    answer = answered(count=WHOLE, taste=Taste(never_artists=frozenset({"artist 1", "nobody"})))
    assert sorted(ids_of(answer)) == [song for number, song in enumerate(SONGS) if number % 3 != 1 and number]


def test_a_skipped_song_comes_only_where_others_are_missing_and_then_last():
    best = ranking()
    taste = Taste(skipped=frozenset({best[0]}))
    few, all_songs = answered(count=5, taste=taste), answered(count=WHOLE, taste=taste)
    assert (ids_of(few), few.relaxed) == (best[1:6], ())
    assert (ids_of(all_songs), all_songs.relaxed) == ([*best[1:], best[0]], ("skipped",))


def test_played_songs_stay_out_where_that_is_asked_for():
    best = ranking()
    taste = Taste(played=frozenset(best[:2]))
    assert ids_of(answered(count=3, taste=taste)) == best[:3]
    answer = answered(count=3, taste=taste, exclude_played_days=7)
    assert (ids_of(answer), answer.applied, answer.relaxed) == (best[2:5], ("exclude_played_days",), ())


def test_rules_give_way_in_their_order_and_no_further_than_needed():
    best = ranking()
    taste = Taste(skipped=frozenset({best[0]}), played=frozenset({best[1]}))
    nine, ten, eleven = (answered(count=n, taste=taste, exclude_played_days=7) for n in (9, 10, 11))
    assert [answer.relaxed for answer in (nine, ten, eleven)] == [(), ("skipped",), ("skipped", "exclude_played_days")]
    assert ids_of(eleven) == [*best[2:], best[0], best[1]]


def test_a_range_keeps_out_what_lies_beyond_it_and_gives_way_to_unknown_values_only():
    recommender = small_recommender()
    tempo = recommender.catalogue.features["tempo"]  # from 80 to 160 over the songs
    assert tempo[3:].tolist() == pytest.approx(np.linspace(80, 160, 12).tolist(), rel=1e-4)
    inside = answered(recommender, count=WHOLE, ranges={"tempo": {"min": 100, "max": 125}})
    assert sorted(ids_of(inside)) == ["s03", "s04", "s05", "s06"]
    assert (inside.applied, inside.relaxed) == (("ranges",), ())
    unknown = np.where(np.arange(len(tempo)) == 3 + 11, np.nan, tempo)
    features = {**recommender.catalogue.features, "tempo": unknown}
    some_unknown = replace_catalogue(recommender, features=features)
    more = answered(some_unknown, count=WHOLE, ranges={"tempo": {"min": 100, "max": 125}})
    assert (sorted(ids_of(more)[:4]), ids_of(more)[4:], more.relaxed) == (["s03", "s04", "s05", "s06"], ["s11"], ("ranges",))


def replace_catalogue(recommender, **columns):
    catalogue = replace(recommender.catalogue, **columns)
    return type(recommender)(
        scores_by=recommender.model_scorer, catalogue=catalogue, info=recommender.info, config=recommender.config
    )


def test_a_range_of_an_unknown_feature_is_refused():
    with pytest.raises(InvalidSequence, match=r"^ranges.bpm: there is no such feature: known are energy, tempo$"):
        answered(ranges={"bpm": {"min": 1}})


def test_nothing_but_the_listed_songs_are_recommended_of_both_lists_where_there_are_two():
    best = ranking()
    assert ids_of(answered(count=5, only=[best[4], best[2], "no song"])) == [best[2], best[4]]
    both = answered(count=5, only=[best[4], best[2]], filter="calm", filtered=[best[4], best[0]])
    assert (ids_of(both), both.applied) == ([best[4]], ("only", "filter"))


def test_improbable_songs_are_left_out_rather_than_recommended():
    everything = answered(count=WHOLE, min_confidence=1e-9)
    confidences = [song.confidence for song in everything.songs]
    assert confidences == sorted(confidences, reverse=True)
    assert 0 < sum(confidences) < 1  # the song of the sequence has its share as well
    bound = (confidences[2] + confidences[3]) / 2
    assert ids_of(answered(count=WHOLE, min_confidence=bound)) == ids_of(everything)[:3]


def test_confidences_are_the_softmax_of_the_scores():
    answer = answered(count=WHOLE, min_confidence=1e-9)
    scores = np.array([song.score for song in answer.songs])
    confidences = np.array([song.confidence for song in answer.songs])
    np.testing.assert_allclose(np.diff(np.log(confidences)), np.diff(scores), atol=1e-4)


def test_the_seed_of_an_answer_draws_it_again():
    first = answered(count=5, temperature=2.0)
    again = answered(count=5, temperature=2.0, seed=first.seed)
    assert ids_of(again) == ids_of(first)
    others = {tuple(ids_of(answered(count=5, temperature=2.0, seed=seed))) for seed in range(20)}
    assert len(others) > 5


def test_without_chance_there_is_no_seed():
    assert answered(count=2).seed is None
    assert answered(count=2, seed=7).seed is None


def test_the_size_of_the_first_pool_changes_no_answer(monkeypatch):
    recommender = small_recommender(config=ServiceConfig(max_per_artist=1, artist_spacing=0))
    before = [ids_of(answered(recommender, songs=[song], count=3)) for song in SONGS]
    monkeypatch.setattr(picking, "pool_size", lambda rules: 1)
    assert [ids_of(answered(recommender, songs=[song], count=3)) for song in SONGS] == before


def test_the_bound_per_artist_holds_also_for_songs_for_which_rules_gave_way():
    recommender = small_recommender(config=ServiceConfig(max_per_artist=1, artist_spacing=0, one_per_recording=False))
    # Of the three artists, that of s00 has its one song in the sequence; s01 and s02 are the only ones not skipped.
    skipped = frozenset({*SONGS} - {"s00", "s01", "s02"})
    answer = answered(recommender, count=2, taste=Taste(skipped=skipped))
    assert (sorted(ids_of(answer)), answer.relaxed) == (["s01", "s02"], ())


def test_another_edition_of_what_is_excluded_blocked_or_skipped_stays_out_as_well():
    recommender = small_recommender(config=ServiceConfig(max_per_artist=0, artist_spacing=0))
    recordings = recommender.catalogue.recordings.copy()
    recordings[3 + 9] = recordings[3 + 4]  # s09 is the remaster of s04
    recommender = replace_catalogue(recommender, recordings=recordings)
    for answer in (
        answered(recommender, count=WHOLE, exclude=["s04"]),
        answered(recommender, count=WHOLE, taste=Taste(never=frozenset({"s09"}))),
        answered(recommender, count=WHOLE - 2, taste=Taste(skipped=frozenset({"s04"}))),
    ):
        assert sorted(ids_of(answer)) == sorted({*SONGS} - {"s00", "s04", "s09"})
    apart = answered(recommender, count=WHOLE, exclude=["s04"], one_per_recording=False)
    assert "s09" in ids_of(apart)


def test_a_bound_on_explicit_songs_that_nothing_tells_of_is_named_as_unavailable():
    answer = answered(allow_explicit=False)
    assert (answer.unavailable, "allow_explicit" in answer.applied) == (("allow_explicit",), False)


def test_a_model_that_has_diverged_is_refused():
    model = small_recommender().model_scorer.model
    model.encoder_weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="no finite scores, it has diverged in training: train again"):
        ModelScorer(model)
