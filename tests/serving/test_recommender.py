import dataclasses
from uuid import UUID

import numpy as np
import pytest
import torch

from config import MASK, PAD, ServiceConfig
from encoder_files import save_encoders
from errors import EncoderError, InvalidSequence, UnknownSong
from model import BERT4Rec, Catalogue
from serving.answers import Query
from serving.controls import Controls
from serving.reasons import ReasonKind
from serving.recommender import Recommender
from tests.serving.small import (
    NO_RULES,
    SEQ_LEN,
    SONGS,
    ranking_by_hand,
    small_encoders,
    small_info,
    small_model,
    small_recommender,
    small_run,
)


def ids_of(answer):
    return [song.song_id for song in answer.songs]


def test_the_answer_is_the_models_own_ranking_with_ids_decoded():
    recommender = small_recommender()
    expected = [song for song in ranking_by_hand(recommender, [5, 3, MASK]) if song not in ("s02", "s00")]
    answer = recommender.recommend(["s02", "s00"], Controls(count=10))
    assert ids_of(answer) == expected
    assert [song.rank for song in answer.songs] == list(range(1, 11))
    assert [song.score for song in answer.songs] == sorted((song.score for song in answer.songs), reverse=True)


def test_the_newest_known_songs_are_the_context():
    recommender = small_recommender()
    newest = [9, 8, 7, 6, 5]
    expected = ranking_by_hand(recommender, [*newest, MASK])
    answer = recommender.recommend(["s00", "never seen", "s06", "s05", "s04", "s03", "another", "s02"], Controls(count=12))
    assert len(newest) == SEQ_LEN - 1
    assert ids_of(answer) == [song for song in expected if song not in ("s00", "s06", "s05", "s04", "s03", "s02")]
    assert answer.unknown == ("never seen", "another")


def test_the_song_that_always_followed_comes_first_and_because_of_its_predecessor():
    [answer] = small_recommender().recommend_many([Query(songs=["s09", "s00", "s06"], controls=Controls(count=1, explain=True))])
    [song] = answer.songs
    assert song.song_id == "s07"
    assert (song.reasons[0].kind, song.reasons[0].song_id) == (ReasonKind.BECAUSE_OF, "s06")


def test_no_answer_holds_a_special_a_song_of_the_sequence_or_an_excluded_one():
    recommender = small_recommender()
    answer = recommender.recommend(SONGS[:4], Controls(count=100, exclude=["s07", "s08", "never seen"]))
    assert sorted(ids_of(answer)) == ["s04", "s05", "s06", "s09", "s10", "s11"]


def test_a_sequence_of_the_whole_catalogue_leaves_nothing_to_recommend():
    assert small_recommender().recommend(SONGS).songs == ()


def test_a_batch_answers_like_its_singles():
    recommender = small_recommender()
    queries = [
        Query(songs=["s00"]),
        Query(songs=SONGS[:9], controls=Controls(count=2)),
        Query(songs=["s05", "new", "s06"], controls=Controls(exclude=["s01"], explain=True)),
    ]
    singles = [recommender.recommend_many([query])[0] for query in queries]
    together = recommender.recommend_many(queries)
    assert [ids_of(answer) for answer in together] == [ids_of(answer) for answer in singles]
    assert [answer.unknown for answer in together] == [answer.unknown for answer in singles] == [(), (), ("new",)]
    for many, single in zip(together, singles, strict=True):
        np.testing.assert_allclose([song.score for song in many.songs], [song.score for song in single.songs], rtol=1e-5)


@pytest.mark.parametrize("ids", [[1000 + n for n in range(12)], [UUID(int=n) for n in range(12)]], ids=["int", "uuid"])
def test_ids_come_out_in_the_type_they_have_in_the_database(ids):
    recommender = small_recommender(ids=ids)
    assert set(ids_of(recommender.recommend(ids[:2], Controls(count=10)))) == set(ids[2:])


def test_a_uuid_may_be_sent_as_text():
    ids = [UUID(int=n) for n in range(12)]
    recommender = small_recommender(ids=ids)
    assert ids_of(recommender.recommend([str(ids[3])])) == ids_of(recommender.recommend([ids[3]]))


@pytest.mark.parametrize(
    ("ids", "text", "song_id"),
    [(SONGS, "7", "7"), (range(12), "7", 7), ([UUID(int=n) for n in range(12)], str(UUID(int=7)), UUID(int=7))],
    ids=["text", "int", "uuid"],
)
def test_a_text_becomes_an_id_of_the_catalogues_type(ids, text, song_id):
    assert small_recommender(ids=ids).id_from(text) == song_id


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (range(12), "song ids are whole numbers here (got 'abc'): send ids of the catalogue"),
        ([UUID(int=n) for n in range(12)], "song ids are uuids here (got 'abc'): send ids of the catalogue"),
    ],
    ids=["int", "uuid"],
)
def test_a_text_that_is_no_id_of_the_catalogues_type_is_refused_in_one_line(ids, message):
    with pytest.raises(InvalidSequence) as caught:
        small_recommender(ids=ids).id_from("abc")
    assert str(caught.value) == message


def test_a_stored_id_of_an_earlier_catalogue_is_shown_as_it_is():
    recommender = small_recommender(ids=range(12))
    assert [recommender.plain_id_from(text) for text in ("7", "abc")] == [7, "abc"]


@pytest.mark.parametrize(
    ("songs", "message"),
    [
        ([], r"the sequence is empty: send at least one song"),
        (["s00", 7], r'song ids are text here \(got 7, an integer\): send "7"'),
        (["s00"] * 21, r"the sequence has 21 songs, over max_songs \(20\)"),
    ],
)
def test_a_sequence_that_cannot_be_continued_is_refused_in_one_line(songs, message):
    with pytest.raises(InvalidSequence, match=message):
        small_recommender(config=ServiceConfig(max_songs=20)).recommend(songs)


@pytest.mark.parametrize("count", [0, -1, 31])
def test_a_count_out_of_bounds_is_refused(count):
    with pytest.raises(InvalidSequence, match=rf"count must be between 1 and 30 \(got {count}\)"):
        small_recommender(config=ServiceConfig(max_count=30)).recommend(["s00"], Controls(count=count))


def test_a_prepared_query_may_be_longer_than_a_sent_sequence():
    recommender = small_recommender(config=ServiceConfig(max_songs=3))
    prepared = recommender.prepare(Query(songs=["s00"] * 5))
    assert len(recommender.answer([prepared])[0].songs) == 10


def test_each_song_has_a_reason_that_points_at_the_sequence():
    answer = small_recommender().recommend(["s00"], Controls(count=11))
    reasons = {song.song_id: song.reasons for song in answer.songs}
    assert [(reason.kind, reason.song_id) for reason in reasons["s06"]] == [(ReasonKind.SAME_ALBUM, "s00")]
    assert [(reason.kind, reason.song_id) for reason in reasons["s03"]] == [(ReasonKind.SAME_ARTIST, "s00")]
    assert [(reason.kind, reason.song_id) for reason in reasons["s11"]] == [(ReasonKind.WHOLE_SEQUENCE, None)]


def test_what_each_song_does_for_another_is_what_explained_answers_name_the_largest_parts_of():
    recommender = small_recommender()
    songs = ["s07", "s03", "never seen", "s01", "s08", "s02", "s05"]
    answer = recommender.recommend(songs, Controls(count=2, explain=True))
    for song in answer.songs:
        weights = recommender.why(songs, song.song_id)
        unread = [place for place, weight in enumerate(weights) if weight is None]
        assert unread == [0, 2]  # of the six songs that are known the newest five are read
        named = {reason.song_id: reason.weight for reason in song.reasons if reason.kind is ReasonKind.BECAUSE_OF}
        largest = sorted(zip(songs, weights, strict=True), key=lambda pair: -(pair[1] or 0))[: len(named)]
        assert named == {song_id: pytest.approx(weight, abs=1e-5) for song_id, weight in largest}


def test_no_model_speaks_for_what_is_popular_and_an_unknown_song_is_refused():
    assert small_recommender().why(["never seen"], "s05") is None
    with pytest.raises(UnknownSong, match="no song 'other' in the catalogue"):
        small_recommender().why(["s05"], "other")


def test_an_explained_answer_names_the_songs_it_is_because_of():
    recommender = small_recommender()
    [answer] = recommender.recommend_many([Query(songs=["never seen", "s01", "s02", "s04"], controls=Controls(explain=True))])
    because = [reason for song in answer.songs for reason in song.reasons if reason.kind is ReasonKind.BECAUSE_OF]
    assert {reason.song_id for reason in because} <= {"s01", "s02", "s04"}
    assert all(reason.weight > 0 for reason in because)
    assert because != []


def test_an_answer_as_json_is_plain_and_names_its_model():
    answer = small_recommender(ids=[UUID(int=n) for n in range(12)]).recommend([UUID(int=0), UUID(int=99)], Controls(count=1))
    [song] = answer.songs
    assert answer.as_json() == {
        "songs": [
            {
                "song_id": str(song.song_id),
                "rank": 1,
                "score": song.score,
                "reasons": [reason.as_json() for reason in song.reasons],
            }
        ],
        "unknown": [str(UUID(int=99))],
        "fallback": None,
        "rules": {"applied": [], "relaxed": []},
        "seed": None,
        "model": {
            "model_id": "run/epoch-001/0123456789ab",
            "version": "0123456789ab",
            "trained_at": "2026-01-02T03:04:05+00:00",
        },
    }


def test_encoders_of_another_catalogue_are_refused():
    other, _ = small_encoders(ids=["a", "b"])
    with pytest.raises(EncoderError, match="the model knows 15 song numbers and the encoders beside it 5"):
        Recommender.of(small_recommender().model_scorer.model, other, small_info(), ServiceConfig())


def test_padding_changes_no_answer():
    recommender = small_recommender()
    short = recommender.prepare(Query(songs=["s03"]))
    long = dataclasses.replace(short, sequence=recommender.prepare(Query(songs=SONGS[:5])).sequence)
    assert ids_of(recommender.answer([long, short])[1]) == ids_of(recommender.answer([short])[0])
    assert PAD == 0


def test_a_loaded_run_answers_like_the_model_that_was_saved(tmp_path):
    loaded = Recommender.load(small_run(tmp_path / "run"), NO_RULES)
    assert ids_of(loaded.recommend(["s00", "s04"])) == ids_of(small_recommender().recommend(["s00", "s04"]))
    assert loaded.info.model_id.startswith("run/epoch-001/")
    assert (loaded.info.snapshot_digest, loaded.info.metrics) == ("f" * 64, {"ndcg@10": 0.5})


def test_encoders_that_do_not_belong_to_the_checkpoint_are_not_opened(tmp_path):
    run = small_run(tmp_path / "run")
    save_encoders(small_encoders(ids=["a", "b"])[0], run / "encoders")
    with pytest.raises(EncoderError, match="are not those that were asked for"):
        Recommender.load(run, ServiceConfig())


def test_example_songs_are_ids_of_the_catalogue():
    assert small_recommender().example_songs(2) == ["s00", "s01"]
    assert small_recommender().example_songs(100) == SONGS


def test_a_gap_in_the_numbers_of_training_is_read_by_its_parts():
    encoders, frame = small_encoders()
    gap = encoders.songs.encode(["s05"]).item()
    model = small_model(encoders, frame)
    known = model.embedding
    fitted = torch.arange(model.n_songs) != gap
    catalogue = Catalogue(
        song_artist=known.song_artist, song_album=known.song_album, song_features=known.song_features,
        n_fitted_songs=model.n_fitted_songs, n_fitted_albums=model.n_fitted_albums, n_fitted_artists=model.n_fitted_artists,
        fitted=fitted,
    )  # fmt: skip
    recommender = Recommender.of(BERT4Rec(model.config, catalogue), encoders, small_info("run/epoch-001/0"), NO_RULES)
    asked = [["s05"], ["s04"], ["s05", "s04"]]
    assert [recommender.recommend(songs).fallback for songs in asked] == ["content", None, None]
