"""The map of a model's songs: which songs, where they lie, and that it belongs to the weights beside it."""

import json

import numpy as np
import pytest

from config import FIRST_NUMBER
from engine import song_map
from engine.checkpoint import MAP, load_checkpoint
from engine.description import read_description
from engine.files import write_json
from engine.runs import find_checkpoint
from engine.song_map import ensure_map, lay_out, sampled_songs
from tests.serving.small import small_run


@pytest.fixture
def checkpoint(tmp_path):
    return find_checkpoint(small_run(tmp_path / "run"))


def model_of(checkpoint):
    return load_checkpoint(checkpoint).model


def test_half_of_the_sample_are_the_songs_that_are_played_most_and_the_rest_is_drawn():
    songs = sampled_songs(1_003, 100)
    assert songs[:50].tolist() == list(range(FIRST_NUMBER, FIRST_NUMBER + 50))
    assert (len(np.unique(songs)), songs.min(), bool(songs.max() < 1_003)) == (100, FIRST_NUMBER, True)
    assert (np.diff(songs) > 0).all()
    assert np.array_equal(songs, sampled_songs(1_003, 100))


def test_few_songs_are_all_on_the_map():
    assert sampled_songs(6, 100).tolist() == [3, 4, 5]
    assert sampled_songs(FIRST_NUMBER, 100).tolist() == []


def test_what_is_alike_lies_together():
    rng = np.random.default_rng(0)
    centres, group = 5 * rng.normal(size=(4, 16)), np.arange(200) % 4
    places = lay_out(centres[group] + 0.1 * rng.normal(size=(200, 16)))
    assert (places.shape, places.min(), places.max()) == ((200, 2), 0.0, 1.0)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9.0 * np.eye(200)
    assert (group[apart.argmin(axis=1)] == group).all()


@pytest.mark.parametrize("vectors", [np.ones((20, 4)), np.full((20, 4), np.nan), np.zeros((20, 4))], ids=["same", "nan", "zero"])
def test_what_has_no_directions_cannot_be_laid_out(vectors):
    with pytest.raises(ValueError, match="embeddings are all the same, or no numbers"):
        lay_out(vectors)


def test_a_map_is_made_once_for_the_weights_beside_it(checkpoint, monkeypatch):
    model = model_of(checkpoint)
    assert ensure_map(checkpoint, model, 2_000)
    stored = json.loads((checkpoint / MAP).read_text())
    assert stored["weights_digest"] == read_description(checkpoint)["weights_digest"]
    assert stored["songs"] == list(range(FIRST_NUMBER, FIRST_NUMBER + 12))
    assert stored["method"] == "t-SNE of the song embeddings (perplexity 3.67)"
    assert (len(stored["x"]), min(*stored["x"], *stored["y"]), max(*stored["x"], *stored["y"])) == (12, 0.0, 1.0)
    monkeypatch.setattr(song_map, "lay_out", lambda vectors: 1 / 0)
    assert ensure_map(checkpoint, model, 2_000)


@pytest.mark.parametrize("text", ["{", "[]", '{"weights_digest": "0"}'])
def test_a_map_that_is_damaged_or_of_other_weights_is_made_again(checkpoint, text):
    (checkpoint / MAP).write_text(text)
    assert ensure_map(checkpoint, model_of(checkpoint), 2_000)
    assert len(json.loads((checkpoint / MAP).read_text())["songs"]) == 12


def test_no_map_is_made_where_none_is_wanted_or_there_are_too_few_songs(checkpoint):
    assert not ensure_map(checkpoint, model_of(checkpoint), 0)
    assert not ensure_map(checkpoint, model_of(checkpoint), 9)
    assert not (checkpoint / MAP).exists()


def test_what_goes_wrong_is_told_and_stops_nobody(checkpoint, monkeypatch, caplog):
    model = model_of(checkpoint)
    (checkpoint / MAP).mkdir()  # cannot be replaced by a file
    assert not ensure_map(checkpoint, model, 2_000)
    assert "the model has no map of its songs: " in caplog.text
    write_json(checkpoint / "checkpoint.json", {})
    assert not ensure_map(checkpoint, model, 2_000)
