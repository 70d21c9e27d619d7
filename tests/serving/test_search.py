import numpy as np
import pyarrow as pa
import pytest

from serving.search import MOST_WORDS, TitleSearch, folded

SONGS = [
    ("Love", "Ana"),  # 0
    ("Love Me Do", "The Beatles"),  # 1
    ("All My Love", "Led Zeppelin"),  # 2
    ("Glove", None),  # 3
    ("Don't Stop", "Björk Guðmundsdóttir"),  # 4
    (None, "Ana"),  # 5
    ("Élan -  Vital!", "Mø"),  # 6
    ("Lovely", "The Beatles"),  # 7
    (None, None),  # 8
    ("夜に駆ける", "YOASOBI"),  # 9
]
POPULARITY = [1, 5, 7, 9, 4, 2, 3, 8, 0, 1]


def found(text, limit=20, songs=SONGS, popularity=POPULARITY):
    titles, artists = zip(*songs, strict=True)
    search = TitleSearch.over(pa.array(titles, pa.string()), pa.array(artists, pa.string()), np.array(popularity, np.float32))
    return search.find(text, limit).tolist()


def test_a_title_that_is_the_text_comes_first_then_those_that_begin_with_it_then_words_then_the_rest():
    assert found("love") == [0, 7, 1, 2, 3]


def test_all_words_must_be_there_in_title_or_artist_in_any_order():
    assert found("beatles love") == [7, 1]
    assert found("me beatles") == [1]
    assert found("do love me") == [1]
    assert found("love nobody") == []


def test_a_word_counts_where_it_stands_within_another_one():
    assert found("eppeli") == [2]
    assert found("駆け") == [9]


@pytest.mark.parametrize(
    ("text", "songs"),
    [
        ("LOVE ME DO", [1]), ("elan vital", [6]), ("ÉLAN", [6]), ("dont stop", [4]), ("don’t  stop", [4]), ("mo", [6]),
        ("bjork gudmundsdottir", [4]), ("Led-Zeppelin", [2]), ("e\u0301lan", [6]),
    ],
)  # fmt: skip
def test_case_accents_and_signs_make_no_difference(text, songs):
    assert found(text) == songs


@pytest.mark.parametrize("text", ["", "   ", "?!", "'", "xyz", "\ud800"])
def test_a_text_without_a_word_or_with_an_unknown_one_finds_nothing(text):
    assert found(text) == []


def test_among_equals_the_more_popular_come_first_and_then_the_lower_number():
    songs = [(f"Song {number}", "Ana") for number in range(6)]
    assert found("song", 4, songs, [1, 3, 3, 0, 5, 1]) == [4, 1, 2, 0]
    assert found("ana", 6, songs, [0] * 6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("limit", "songs"), [(0, []), (-1, []), (1, [0]), (3, [0, 7, 1])])
def test_no_more_than_the_limit(limit, songs):
    assert found("love", limit) == songs


def test_of_a_very_long_text_the_first_words_are_looked_up():
    assert found(" ".join(["love"] * MOST_WORDS + ["nobody"])) == [7, 2, 1, 0, 3]


@pytest.mark.parametrize("common", [0, 50, 1000])
def test_it_finds_what_looking_at_every_song_finds(monkeypatch, common):
    """However many songs a word has, up to the bound from which it is looked up by itself and beyond."""
    monkeypatch.setattr("serving.search.COMMON", common)
    rng = np.random.default_rng(0)
    words = ["ana", "banana", "an", "bandana", "na", "x"]
    songs = [tuple(" ".join(rng.choice(words, rng.integers(1, 4))) for _ in range(2)) for _ in range(300)]
    for text in ("an", "na an", "banana x", "dana", "x x"):
        expected = {n for n, song in enumerate(songs) if all(word in " ".join(song) for word in text.split())}
        assert set(found(text, 300, songs, [0] * 300)) == expected


def test_slices_of_larger_arrays_are_folded_as_their_own():
    texts = pa.array(["Ä", "B-c", None, "D'e", "F"]).slice(1, 3)
    assert folded(texts).to_pylist() == ["b c", "", "de"]
    assert folded(pa.array([], pa.string())).to_pylist() == []
