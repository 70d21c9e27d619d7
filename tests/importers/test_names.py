"""What is one song under two spellings, and what stays two."""

import pytest

from importers.names import bounded, normal_artist, normal_title


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Low Tide", "LOW  TIDE"),
        ("Low Tide", "Low Tide (feat. Anna)"),
        ("Low Tide", "Low Tide ft. Anna & Bo"),
        ("Low Tide", "Low Tide - 2011 Remaster"),
        ("Low Tide", "Low Tide (Remastered 2009)"),
        ("Low Tide - Live", "Low Tide feat. Anna - Live"),
        ("Don't", "Don’t"),
        ("Café", "Cafe\u0301"),
    ],
)
def test_spellings_of_one_title(one, other):
    assert normal_title(one) == normal_title(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Low Tide", "Low Tide (Live)"),
        ("Low Tide", "Low Tide - Remix"),
        ("Part 1", "Part 2"),
        ("Low Tide feat. Anna (Remix)", "Low Tide feat. Anna"),
        ("Low Tide feat. Anna [Part 2]", "Low Tide"),
        ("Yesterday (With Strings)", "Yesterday"),
        ("Prelude in C#", "Prelude in C"),
        ("तेरा", "तेरी"),
        ("กี", "กิ"),
        ("!!!", "???"),
    ],
)
def test_titles_of_two_songs(one, other):
    assert normal_title(one) != normal_title(other)


def test_guests_of_an_artist_do_not_count():
    assert normal_artist("The Piers feat. Anna") == normal_artist("the piers")


def test_long_keys_fit_into_an_index_and_stay_apart():
    assert len(bounded("ß" * 5000).encode()) <= 1000
    assert bounded("ß" * 5000) != bounded("ß" * 5000 + "x")
