"""The map as it is shown, and places for songs that are not on it."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest
import torch

from config import FIRST_NUMBER
from engine.checkpoint import MAP, load_checkpoint
from engine.runs import find_checkpoint
from engine.song_map import ensure_map
from errors import InvalidSequence
from serving.catalogue import SongRows
from serving.recommender import Recommender
from serving.song_map import NO_MAP, NO_MODEL, map_json, map_of, places_of
from tests.serving.small import NO_RULES, SONGS, small_run


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path / "run")


@pytest.fixture
def loaded(run):
    """A recommender whose model has a map of all its songs."""
    checkpoint = find_checkpoint(run)
    assert ensure_map(checkpoint, load_checkpoint(checkpoint).model, 2_000)
    return Recommender.load(run, NO_RULES)


def stored(recommender):
    return json.loads((recommender.info.path / MAP).read_text())


def rewritten(recommender, **changes):
    """Other contents for the file of the map, written at another time."""
    path = recommender.info.path / MAP
    path.write_text(json.dumps(stored(recommender) | changes))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + len(str(changes)) * 1_000_000))


def rows(ids, titles):
    texts = {"title": pa.array(titles), "artist_name": pa.array([f"artist of {id_}" for id_ in ids])}
    features = {"tempo": np.full(len(ids), 100.0, np.float32)}
    return SongRows(song_ids=pa.array(ids), artist_ids=None, album_ids=None, texts=texts, features=features, digest="d")


def test_the_map_has_titles_and_leaves_out_what_has_left_the_database(loaded):
    shown = map_json(loaded.with_songs(rows(["new", *SONGS[1:]], ["New", *map(str.upper, SONGS[1:])])))
    assert (shown["model_id"], shown["missing"], shown["n_songs"]) == (loaded.info.model_id, None, 12)  # the new one as well
    assert len(shown["songs"]) == 11
    x, y = stored(loaded)["x"], stored(loaded)["y"]
    assert shown["songs"][0] == {"song_id": "s01", "x": x[1], "y": y[1], "title": "S01", "artist": "artist of s01"}


def test_without_names_there_is_a_map_all_the_same(loaded):
    shown = map_json(loaded)
    assert [song["song_id"] for song in shown["songs"]] == SONGS
    assert {song["title"] for song in shown["songs"]} == {None}


def test_songs_of_the_map_lie_where_they_lie_and_unknown_ones_nowhere(loaded):
    x, y = stored(loaded)["x"], stored(loaded)["y"]
    assert places_of(loaded, ["s03", "never seen", "s00", "s03"]) == [
        {"song_id": f"s{n:02d}", "x": x[n], "y": y[n], "exact": True} for n in (3, 0, 3)
    ]


def test_other_songs_lie_in_the_middle_of_those_most_like_them(loaded):
    whole = stored(loaded)
    kept = [n for n in range(12) if n not in (4, 7)]
    columns = {name: [whole[name][n] for n in kept] for name in ("songs", "x", "y")}
    rewritten(loaded, **columns)
    with torch.inference_mode():
        vectors = loaded.model_scorer.model.embedding(torch.arange(FIRST_NUMBER, FIRST_NUMBER + 12)).numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = []
    for n in (7, 4):
        nearest = sorted(kept, key=lambda other: -float(vectors[n] @ vectors[other]))[:5]
        expected.append((float(np.mean([whole["x"][m] for m in nearest])), float(np.mean([whole["y"][m] for m in nearest]))))
    found = places_of(loaded, ["s07", "s04"])
    assert [(one["song_id"], one["exact"]) for one in found] == [("s07", False), ("s04", False)]
    assert [(one["x"], one["y"]) for one in found] == [pytest.approx(place, abs=1e-4) for place in expected]


def test_a_song_that_only_the_database_has_finds_its_place(loaded):
    grown = loaded.with_songs(rows([*SONGS, "new"], [None] * 13))
    [place] = places_of(grown, ["new"])
    assert (place["exact"], 0 <= place["x"] <= 1, 0 <= place["y"] <= 1) == (False, True, True)


def test_ids_of_another_type_are_refused(loaded):
    with pytest.raises(InvalidSequence, match="song ids are text here"):
        places_of(loaded, [7])


def test_a_map_that_comes_later_is_found(run):
    recommender = Recommender.load(run, NO_RULES)
    assert map_json(recommender) == {
        "model_id": recommender.info.model_id, "method": None, "n_songs": 0, "songs": [], "missing": NO_MAP,
    }  # fmt: skip
    assert places_of(recommender, SONGS) == []
    ensure_map(recommender.info.path, recommender.model_scorer.model, 2_000)
    assert map_json(recommender)["n_songs"] == 12


WRONG = [
    {"weights_digest": "0" * 64},
    {"weights_digest": None},
    {"songs": [0] * 12},
    {"songs": [99] * 12},
    {"songs": ["a"] * 12},
    {"songs": [10**30] * 12},
    {"songs": [3]},
    {"x": []},
    {"x": [2.0] * 12},
    {"x": [float("nan")] * 12},
    {"y": [[0.5]] * 12},
    {"songs": [], "x": [], "y": []},
]


@pytest.mark.parametrize("changes", WRONG, ids=range(len(WRONG)))
def test_a_damaged_map_or_one_of_other_weights_is_none(loaded, changes):
    rewritten(loaded, **changes)
    assert map_of(loaded) is None
    assert map_json(loaded)["missing"] == NO_MAP


def test_counts_have_no_map(tmp_path):
    class OfCounts:
        info = model_scorer = None

    assert map_json(OfCounts())["missing"] == NO_MODEL
