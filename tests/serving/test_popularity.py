"""How popular the recommended songs are: shares and medians worked by hand, and counting across swaps."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from config import FIRST_NUMBER, UNKNOWN
from preprocessing_utils import IdEncoder
from serving.popularity import Recommended, RecommendedTally, popularity_json
from tests.serving.small import SONGS, small_recommender

ZEROS = {"n_answers": 0, "n_artists": 0}


def catalogue_of(popularity, artists=None, names=None, available=None):
    """A catalogue of songs s00, s01, ... with these popularities; artists by number from 0, None unknown."""
    n = len(popularity)
    base = small_recommender(ids=[f"s{number:02d}" for number in range(n)]).catalogue
    artists = [0] * n if artists is None else artists
    return replace(
        base,
        popularity=np.array([0.0] * FIRST_NUMBER + list(popularity), np.float32),
        artists=np.array([0, 1, 2, *(UNKNOWN if one is None else FIRST_NUMBER + one for one in artists)]),
        artist_names=pa.array([None] * FIRST_NUMBER + (names or [None] * n), pa.string()),
        is_available=np.array([False] * FIRST_NUMBER + [True] * n if available is None else [False] * FIRST_NUMBER + available),
    )


def counts_of(catalogue, *counts):
    return Recommended(
        counts=np.array([0] * FIRST_NUMBER + list(counts) + [0] * (len(catalogue) - FIRST_NUMBER - len(counts))), **ZEROS
    )


def answer_of(*songs):
    return SimpleNamespace(songs=[SimpleNamespace(song_id=song) for song in songs])


# --- figures -----------------------------------------------------------------------------------------------------------------


def test_shares_are_those_worked_by_hand():
    catalogue = catalogue_of([0, 2, 3, 5, 1_500, 0], available=[True, True, True, True, True, False])
    told = popularity_json(catalogue, counts_of(catalogue, 1, 0, 0, 3, 0))
    assert [(one["label"], one["low"], one["high"]) for one in told["bins"]] == [
        ("in no training list", 0, 0),
        ("in 1 to 3 lists", 1, 3),
        ("in 4 to 10 lists", 4, 10),
        ("in 11 to 30 lists", 11, 30),
        ("in 31 to 100 lists", 31, 100),
        ("in 101 to 300 lists", 101, 300),
        ("in 301 to 1,000 lists", 301, 1_000),
        ("in over 1,000 lists", 1_001, 1_500),
    ]
    assert told["catalogue"] == [0.2, 0.4, 0.2, 0, 0, 0, 0, 0.2]
    assert told["history"] == [0, round(5 / 1510, 6), round(5 / 1510, 6), 0, 0, 0, 0, round(1500 / 1510, 6)]
    assert told["recommended"] == [0.25, 0, 0.75, 0, 0, 0, 0, 0]
    assert told["n_recommended"] == 4
    # Half of the places of training are of the song with 1,500 lists; half of what was recommended is of the one with 5.
    assert told["measures"] == {"median_popularity_ratio": round(5 / 1500, 4), "artists_at_10": None, "coverage": 0.4}


def test_bins_end_with_the_most_popular_song():
    catalogue = catalogue_of([0, 2, 7])
    assert [one["high"] for one in popularity_json(catalogue, counts_of(catalogue))["bins"]] == [0, 3, 10]


def test_before_anything_was_recommended_that_part_is_none():
    catalogue = catalogue_of([0, 2, 7], names=["A", "A", "A"])
    told = popularity_json(catalogue, counts_of(catalogue))
    assert told["recommended"] is None
    assert told["artists"] == [{"artist": "A", "catalogue": 1.0, "history": 1.0, "recommended": None}]
    assert set(told["measures"].values()) == {None}


def test_without_counts_of_training_nothing_is_made_up():
    catalogue = catalogue_of([0, 0, 0])
    told = popularity_json(catalogue, counts_of(catalogue, 1))
    assert (told["bins"], told["history"], told["recommended"], told["n_recommended"]) == ([], [], None, 1)
    assert told["measures"]["coverage"] == pytest.approx(1 / 3, abs=1e-6)


def test_artists_are_those_at_the_top_of_history_and_of_what_was_recommended():
    catalogue = catalogue_of([6, 3, 1, 0, 5], artists=[0, 0, 1, 2, None], names=[None, "Nova", None, None, "nobody"])
    told = popularity_json(catalogue, counts_of(catalogue, 0, 0, 0, 4, 4))["artists"]
    assert [one["artist"] for one in told] == ["Nova", "artist 1", "artist 2"]
    assert told[0] == {"artist": "Nova", "catalogue": 0.4, "history": 0.6, "recommended": 0.0}
    assert told[2] == {"artist": "artist 2", "catalogue": 0.2, "history": 0.0, "recommended": 0.5}


def test_lists_of_the_table_are_added():
    catalogue = catalogue_of([1] * 12, artists=[0, 1, 2] * 4)
    lists = [np.arange(FIRST_NUMBER, FIRST_NUMBER + 12), np.array([FIRST_NUMBER, FIRST_NUMBER + 1])]
    both = Recommended(counts=np.zeros(len(catalogue), np.int64), n_answers=1, n_artists=7).and_lists(lists, catalogue.artists)
    assert both.counts.tolist() == [0] * 3 + [2, 2] + [1] * 10
    assert popularity_json(catalogue, both)["measures"]["artists_at_10"] == 5.0  # 7 and 3 in two answers


# --- counting ----------------------------------------------------------------------------------------------------------------


def test_songs_are_counted_by_number_and_unknown_ones_passed_over():
    catalogue, tally = small_recommender().catalogue, RecommendedTally()
    tally.add(catalogue, answer_of("s00", "s03", "never seen"))
    tally.add(catalogue, answer_of(*SONGS[:10]))
    tally.add(catalogue, answer_of(7))  # of a challenger of another id type
    found = tally.recommended(catalogue)
    assert found.counts.tolist() == [0, 0, 0, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 0, 0]
    assert (found.n_answers, found.n_artists) == (1, 3)


def test_counts_follow_their_songs_into_another_catalogue():
    first = small_recommender().catalogue
    songs = IdEncoder("song").fit(["new", *reversed(SONGS[1:])])
    second = replace(first, encoders=replace(first.encoders, songs=songs))
    tally = RecommendedTally()
    tally.add(first, answer_of("s00", "s01"))
    tally.add(second, answer_of("s01", "new"))
    counts = tally.recommended(second).counts
    counted = {song: int(counts[number]) for song, number in zip(["s01", "new"], songs.encode(["s01", "new"]), strict=True)}
    assert (counted, counts.sum()) == ({"s01": 2, "new": 1}, 3)  # s00 is not known any more
    assert tally.recommended(small_recommender(ids=list(range(12))).catalogue).counts.sum() == 0


def test_counts_of_many_threads_add_up():
    catalogue, tally = small_recommender().catalogue, RecommendedTally()
    threads = [threading.Thread(target=lambda: [tally.add(catalogue, answer_of("s00")) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.recommended(catalogue).counts.sum() == 4_000
