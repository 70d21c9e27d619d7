import gc
import os
import weakref

import pytest

from config import Config, DatabaseConfig, PreprocessingConfig, ServiceConfig, TrainingConfig
from engine.checkpoint import load_checkpoint
from engine.runs import find_checkpoint, mark_finished
from errors import CheckpointError
from serving.answers import Query
from serving.controls import Controls
from serving.follower import Follower
from serving.live import LiveRecommender
from serving.recommender import Recommender
from storage.connections import connect
from storage.models import deploy, known_models, model_figures, register_model, roll_back
from tests.serving.small import SONGS, small_run

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1"
RULELESS = {"max_per_artist": 0, "artist_spacing": 0, "one_per_recording": False}


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def world(database_url):
    """A database with the songs of the small model."""
    with connect(database_url) as connection:
        add_songs(connection, SONGS)
    return database_url


def add_songs(connection, song_ids, first=0):
    for number, song_id in enumerate(song_ids, start=first):
        artist, album = f"artist {number % 3}", f"album {number % 6}"
        connection.execute("INSERT INTO music.artist (artist_id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING", [artist, artist])
        connection.execute("INSERT INTO music.album (album_id) VALUES (%s) ON CONFLICT DO NOTHING", [album])
        connection.execute(
            "INSERT INTO music.song (song_id, title, artist_id, album_id) VALUES (%s, %s, %s, %s)",
            [song_id, f"Title of {song_id}", artist, album],
        )


def followed(models, url=None, **service):
    config = Config(
        service=ServiceConfig(**RULELESS | service),
        training=TrainingConfig(model_folder=models),
        preprocessing=PreprocessingConfig(snapshot=models / "no snapshot", encoders_folder=models / "no encoders"),
        database=DatabaseConfig(connect_timeout_seconds=1),
    )
    live = LiveRecommender()
    followers.append(Follower(live, config, url))
    return live, followers[-1]


followers = []


@pytest.fixture(autouse=True)
def _close_followers():
    yield
    while followers:
        followers.pop().close()


def finished_run(models, name, ids=SONGS):
    run = small_run(models / name, ids)
    mark_finished(run, epochs=1, seconds=1, reason="epochs")
    return run


def id_of(run):
    return load_checkpoint(run).model_id


def published(url, *runs):
    with connect(url) as connection:
        for run in runs:
            register_model(connection, Recommender.load(run, ServiceConfig()).info.record())
    return [id_of(run) for run in runs]


def test_the_newest_run_is_in_service_and_a_newer_one_follows_once_it_is_finished(models):
    first = finished_run(models, "20260101-a")
    live, follower = followed(models)
    follower.start()
    assert live.name == id_of(first)
    second = small_run(models / "20260102-b")
    follower.look()
    assert live.name == id_of(first)
    mark_finished(second, epochs=1, seconds=1, reason="epochs")
    follower.look()
    assert live.name == id_of(second)


def test_what_was_activated_counts_before_what_is_newest_and_can_be_taken_back(models, world):
    old, new = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    live, follower = followed(models, world)
    follower.start()
    assert live.name == id_of(new)
    old_id, new_id = published(world, old, new)
    for model_id in (new_id, old_id):
        with connect(world) as connection:
            deploy(connection, model_id)
        follower.look()
        assert live.name == model_id
    with connect(world) as connection:
        roll_back(connection)
    follower.look()
    assert live.name == new_id


def test_a_challenger_is_loaded_beside_the_model(models, world):
    main, challenger = published(world, finished_run(models, "20260101-a"), finished_run(models, "20260102-b"))
    live, follower = followed(models, world)
    follower.start()
    with connect(world) as connection:
        deploy(connection, main, challenger_id=challenger, challenger_share=0.25)
    follower.look()
    other, share = live.challenger
    assert (live.name, other.info.model_id, share) == (main, challenger, 0.25)


def test_a_broken_model_is_refused_with_the_reason_and_the_old_one_stays(models, world):
    good, broken = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    good_id, broken_id = published(world, good, broken)
    live, follower = followed(models, world, model_poll_seconds=1)
    with connect(world) as connection:
        deploy(connection, good_id)
    follower.start()
    weights = find_checkpoint(broken) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with connect(world) as connection:
        deploy(connection, broken_id)
    follower.look()
    assert live.name == good_id
    [reason] = follower.refusals
    assert "does not match its digest" in reason
    with connect(world) as connection:
        assert {model.model_id: model.refused for model in known_models(connection)} == {good_id: None, broken_id: reason}
    follower.look()
    assert len(follower.refusals) == 1  # the same files are not tried again


def test_a_refused_model_is_tried_again_when_its_files_have_changed(models):
    good, broken = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    folder = find_checkpoint(broken)
    whole = (folder / "weights.safetensors").read_bytes()
    live, follower = followed(models, model=None)
    (broken / "finished.json").rename(broken / "later.json")
    follower.start()
    (folder / "weights.safetensors").write_bytes(whole[:-1])
    (broken / "later.json").rename(broken / "finished.json")
    follower.look()
    assert live.name == id_of(good)
    (folder / "weights.safetensors").write_bytes(whole)
    os.utime(folder / "checkpoint.json", (1, 1))
    follower.look()
    assert live.name == id_of(broken)


def test_a_model_of_another_database_is_refused(models, world):
    ours = finished_run(models, "20260101-a")
    live, follower = followed(models, world)
    follower.start()
    finished_run(models, "20260102-b", ids=range(1000, 1012))
    follower.look()
    assert live.name == id_of(ours)
    assert len(follower.refusals) == 1


def test_what_is_in_service_stays_while_the_database_is_away(models, world):
    run = finished_run(models, "20260101-a")
    live, follower = followed(models, world)
    follower.start()
    away = Follower(live, follower._config, NOWHERE)
    followers.append(away)
    away.start()
    away.look()
    assert live.name == id_of(run)
    assert len(live.recommend(Query(songs=["s00"])).songs) == 10


def test_new_songs_of_the_database_are_recommended_without_training(models, world):
    finished_run(models, "20260101-a")
    live, follower = followed(models, world, catalogue_refresh_seconds=0.001, count=20)
    follower.start()
    query = Query(songs=["s00"])
    assert "new" not in [song.song_id for song in live.recommend(query).songs]
    with connect(world) as connection:
        add_songs(connection, ["new"])
    follower.look()
    answer = live.recommend(query)
    assert "new" in [song.song_id for song in answer.songs]
    assert live.recommend(Query(songs=["new"])).fallback == "content"
    assert live.state()["new_songs"] == 1


def test_a_song_that_left_the_database_is_not_recommended_any_more(models, world):
    finished_run(models, "20260101-a")
    live, follower = followed(models, world, catalogue_refresh_seconds=0.001, count=20)
    follower.start()
    with connect(world) as connection:
        connection.execute("DELETE FROM music.song WHERE song_id = 's05'")
    follower.look()
    assert sorted(song.song_id for song in live.recommend(Query(songs=["s00"])).songs) == sorted({*SONGS} - {"s00", "s05"})
    assert live.recommend(Query(songs=["s05"])).fallback is None


def test_songs_that_have_not_changed_leave_the_recommender_alone(models, world):
    finished_run(models, "20260101-a")
    live, follower = followed(models, world, catalogue_refresh_seconds=0.001)
    follower.start()
    before = live.recommender
    follower.look()
    assert live.recommender is before


def test_answers_are_added_to_the_figures_of_their_models(models, world):
    run = finished_run(models, "20260101-a")
    live, follower = followed(models, world)
    follower.start()
    for _ in range(3):
        live.recommend(Query(songs=["s00"], controls=Controls(count=2)))
    follower.look()
    follower.look()
    with connect(world) as connection:
        [figures] = model_figures(connection)
    assert (figures.model_id, figures.answers, figures.songs, figures.fallbacks) == (id_of(run), 3, 6, 0)


def test_without_a_model_and_without_a_snapshot_the_service_does_not_start(models):
    models.mkdir()
    _, follower = followed(models)
    with pytest.raises(CheckpointError, match=r"no trained model in .*, and no snapshot whose counts could stand in: run"):
        follower.start()


def test_a_named_model_stays_whatever_is_activated(models, world):
    named, other = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    live, follower = followed(models, world, model=named)
    follower.start()
    with connect(world) as connection:
        register_model(connection, Recommender.load(other, ServiceConfig()).info.record())
        deploy(connection, id_of(other))
    follower.look()
    assert live.name == id_of(named)


def test_a_broken_challenger_leaves_the_model_without_it_and_only_it_is_refused(models, world):
    main, broken = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    main_id, broken_id = published(world, main, broken)
    weights = find_checkpoint(broken) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with connect(world) as connection:
        deploy(connection, main_id, challenger_id=broken_id, challenger_share=0.5)
    live, follower = followed(models, world)
    follower.start()
    assert (live.name, live.challenger) == (main_id, None)
    with connect(world) as connection:
        refused = {model.model_id: model.refused is not None for model in known_models(connection)}
    assert refused == {main_id: False, broken_id: True}


def test_a_repaired_model_is_taken_although_its_description_is_the_old_one(models):
    good, broken = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    weights = find_checkpoint(broken) / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    live, follower = followed(models)
    with pytest.raises(CheckpointError):
        follower.start()
    (broken / "finished.json").rename(broken / "later.json")
    follower.start()
    assert live.name == id_of(good)
    (broken / "later.json").rename(broken / "finished.json")
    follower.look()
    assert live.name == id_of(good)
    weights.write_bytes(whole)
    os.utime(weights, (2e9, 2e9))
    follower.look()
    assert live.name == id_of(broken)


def test_another_model_at_the_path_of_the_activated_one_is_refused(models, world):
    activated, other = finished_run(models, "20260101-a"), finished_run(models, "20260102-b")
    activated_id, other_id = published(world, activated, other)
    live, follower = followed(models, world)
    follower.start()
    assert live.name == other_id
    with connect(world) as connection:
        path = str(find_checkpoint(other))
        connection.execute("UPDATE recommender.model SET path = %s WHERE model_id = %s", [path, activated_id])
        deploy(connection, activated_id)
    follower.look()
    assert live.name == other_id
    assert f"holds the model '{other_id}' and not '{activated_id}', which was activated" in follower.refusals[0]


def test_a_model_that_was_published_from_another_place_is_found_there(models, world, tmp_path):
    run = finished_run(models, "20260101-a")
    [model_id] = published(world, run)
    with connect(world) as connection:
        deploy(connection, model_id)
    live, follower = followed(tmp_path / "empty", world)
    moved = tmp_path / "elsewhere" / run.name
    moved.parent.mkdir()
    run.rename(moved)
    with pytest.raises(CheckpointError):
        follower.start()
    with connect(world) as connection:
        assert {model.refused for model in known_models(connection)} == {None}  # the files may be missing on this machine alone
        register_model(connection, Recommender.load(moved, ServiceConfig()).info.record())
        deploy(connection, model_id)
    follower.start()
    assert live.name == model_id
    with connect(world) as connection:
        [known] = known_models(connection)
    assert known.path == str(find_checkpoint(moved))


def test_answers_of_a_model_that_was_replaced_while_the_database_was_away_are_counted_once_it_is_back(models, world):
    first = finished_run(models, "20260101-a")
    live, away = followed(models, NOWHERE)
    away.start()
    live.recommend(Query(songs=["s00"]))
    second = finished_run(models, "20260102-b")
    away.look()
    live.recommend(Query(songs=["s00"]))
    away._url = world
    away.look()
    with connect(world) as connection:
        figures = {one.model_id: one.answers for one in model_figures(connection)}
    assert figures == {id_of(first): 1, id_of(second): 1}


def test_a_look_survives_files_that_vanish(models, monkeypatch):
    run = finished_run(models, "20260101-a")
    live, follower = followed(models)
    follower.start()

    def vanish(folder):
        raise FileNotFoundError(folder)

    monkeypatch.setattr("serving.follower.runs_of", vanish)
    follower.look()
    assert live.name == id_of(run)


def test_a_replaced_model_leaves_memory_at_once(models):
    finished_run(models, "20260101-a")
    live, follower = followed(models)
    follower.start()
    first = weakref.ref(live.recommender)
    finished_run(models, "20260102-b")
    gc.disable()
    try:
        follower.look()
        assert first() is None
    finally:
        gc.enable()
