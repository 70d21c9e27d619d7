import itertools
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import FIRST_NUMBER
from errors import DataError
from serving.recordings import normal_text, normal_title, recording_numbers

ISRCS = ("GBAYE0601690", "GBAYE0601691", "USRC17607839")
MBIDS = ("b1a9c0e9-d987-4042-ae91-78d6a3267d69", "c9fdb94c-4975-4ed6-a96f-ef6d80bb7738")

# Songs as (ISRC, MBID, title, artist, duration); few values, so that much is equal.
catalogue_songs = st.tuples(
    st.sampled_from([None, *ISRCS[:2]]),
    st.sampled_from([None, *MBIDS]),
    st.sampled_from([None, "Help!", "Yesterday"]),
    st.sampled_from([None, "The Beatles"]),
    st.sampled_from([float("nan"), 100_000.0, 102_000.0, 104_000.0]),
)


def numbered(songs):
    """Recordings of songs counted from 0, each with its ISRC, MBID, title, artist and duration."""
    nothing = (None, None, None, None, float("nan"))
    isrc, mbid, title, artist, duration = zip(*[nothing] * FIRST_NUMBER, *songs, strict=True)
    numbers = recording_numbers(
        FIRST_NUMBER + len(songs),
        isrc=pa.array(isrc, pa.string()),
        mbid=pa.array(mbid, pa.string()),
        title=pa.array(title, pa.string()),
        artist_name=pa.array(artist, pa.string()),
        duration_ms=np.array(duration),
    )
    assert numbers.dtype == np.int32
    assert numbers[:FIRST_NUMBER].tolist() == list(range(FIRST_NUMBER))
    return (numbers[FIRST_NUMBER:] - FIRST_NUMBER).tolist()


def song(isrc=None, mbid=None, title=None, artist="The Beatles", ms=float("nan")):
    return isrc, mbid, title, artist, ms


def titled(*titles, artist="The Beatles"):
    return numbered([song(title=title, artist=artist, ms=140_000) for title in titles])


def is_same(one, other):
    """The relation between two songs, rule by rule."""
    if one[0] and other[0]:
        return one[0] == other[0]
    if one[1] and other[1]:
        return one[1] == other[1]
    texts = one[2] is not None and one[3] is not None and one[2:4] == other[2:4]
    durations = np.array([one[4], other[4]])
    return texts and bool(np.isnan(durations).all() or abs(durations[0] - durations[1]) <= 3000)


def test_songs_with_one_isrc_are_one_recording_whatever_else_they_say():
    songs = [
        song(ISRCS[0], MBIDS[0], "Help!", ms=140_000),
        song(ISRCS[0], MBIDS[1], "Au secours", "Les Scarabées", 90_000),
        song(ISRCS[1], MBIDS[0], "Help!", ms=140_000),
    ]
    assert numbered(songs) == [0, 0, 2]


def test_isrcs_are_read_with_and_without_dashes_in_large_and_small_letters():
    assert numbered([song("GBAYE0601690"), song("GB-AYE-06-01690"), song(" gbaye0601690 "), song("GBAYE0601691")]) == [0, 0, 0, 3]


@pytest.mark.parametrize("placeholder", ["", "0", "unknown", "000000000000", "GBAYE060169"])
def test_what_is_no_isrc_makes_nothing_the_same(placeholder):
    assert numbered([song(placeholder, title="Help!", ms=140_000), song(placeholder, title="Yesterday", ms=125_000)]) == [0, 1]


def test_songs_with_one_mbid_are_one_recording_where_isrcs_say_nothing():
    songs = [song(ISRCS[0], MBIDS[0]), song(None, MBIDS[0].upper()), song(None, MBIDS[1]), song(None, f" {MBIDS[1]}")]
    assert numbered(songs) == [0, 0, 2, 2]


@pytest.mark.parametrize("placeholder", ["", "-", "00000000-0000-0000-0000-000000000000"])
def test_what_is_no_mbid_makes_nothing_the_same(placeholder):
    assert numbered([song(mbid=placeholder), song(mbid=placeholder)]) == [0, 1]


def test_different_mbids_keep_equal_titles_apart():
    assert numbered([song(mbid=mbid, title="Help!", ms=140_000) for mbid in MBIDS]) == [0, 1]


def test_an_isrc_on_one_side_and_an_mbid_on_the_other_leave_it_to_title_artist_and_duration():
    songs = [
        song(ISRCS[0], title="Help!", ms=140_000),
        song(None, MBIDS[0], "Help!", ms=141_000),
        song(title="Help!", ms=139_000),
    ]
    assert numbered(songs) == [0, 0, 0]


def test_durations_are_within_three_seconds_both_ends_included():
    assert numbered([song(title="Help!", ms=ms) for ms in (140_000, 143_000)]) == [0, 0]
    assert numbered([song(title="Help!", ms=ms) for ms in (140_000, 143_001)]) == [0, 1]


def test_small_steps_do_not_add_up_to_a_long_one():
    assert numbered([song(title="Help!", ms=ms) for ms in (146_000, 140_000, 143_000, 142_000, 148_000)]) == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("unknown", [float("nan"), 0.0, -1.0])
def test_unknown_durations_are_equal_to_each_other_and_to_nothing_else(unknown):
    durations = (140_000, unknown, float("nan"), 1000)
    assert numbered([song(title="Help!", ms=ms) for ms in durations]) == [0, 1, 1, 3]


def test_titles_alone_and_artists_alone_say_nothing():
    assert numbered([song(title="Help!", artist=None), song(title="Help!", artist=None)]) == [0, 1]
    assert numbered([song(title="Help!", artist=""), song(title="Help!", artist="")]) == [0, 1]
    assert numbered([song(title=None), song(title=None)]) == [0, 1]
    assert numbered([song(title="Help!", artist="The Beatles"), song(title="Help!", artist="Bananarama")]) == [0, 1]


@pytest.mark.parametrize(
    "title",
    [
        *(
            "HELP!",
            "Help",
            " help ! ",
            "Help…",
            "Ｈｅｌｐ",
            "Help! - Remastered",
            "Help! - Remastered 2009",
            "Help! - 2009 Remaster",
        ),
        *("Help! (Remaster)", "Help! [2015 Remaster]", "Help! (Remastered Version)", "Help! - 2009 Digital Remaster"),
        *("Help! (Digitally Re-Mastered 2009)", "Help! – 2009 - Remaster", "Help! (2009 Remastered Version)"),
        *("Help! (24-bit Remaster)", "Help! (Remastered in 2009)", "Help! (Remastered 2009) [2015 Remaster]"),
    ],
)
def test_spelling_and_remastering_make_no_other_recording(title):
    assert titled("Help!", title) == [0, 0]


@pytest.mark.parametrize(
    "title",
    [
        *("Help! (Live)", "Help! - Live", "Help! (Acoustic)", "Help! - Remix", "Help! (2009 Remix)", "Help! (Mono)", "Help! 2"),
        *("Help! Part 2", "Help! II", "Help! (Part 2)", "Help! (Demo)", "Help! (2009)", "Help! - Radio Edit", "Help Me"),
        *("Help! (Live) [Remastered]", "Help! - Live / Remastered", "Help! (Instrumental)", "Remaster Help!", "Help! Remaster"),
        *(
            "Hélp!",
            "Help! +",
            "Help! (Remastered Live)",
            "Help! (Remix) - 2009 Remaster",
            "Help! (Taylor's Version)",
            "Master Help!",
        ),
    ],
)
def test_another_version_part_or_word_is_another_recording(title):
    assert titled("Help!", title) == [0, 1]


def test_movements_opus_numbers_and_keys_stay_apart():
    movements = [
        *(
            "Symphony No. 5: I. Allegro",
            "Symphony No. 5: II. Allegro",
            "Symphony No. 6: I. Allegro",
            "Prelude in C",
            "Prelude in C#",
        ),
        *(
            "Prelude in C♯",
            "Prelude in c minor",
            "Nocturne, Op. 9 No. 1",
            "Nocturne, Op. 9 No. 2",
            "Gymnopédie 1",
            "Gymnopédie 2",
        ),
        *("Variation 1.2", "Variation 12", "100", "100%"),
    ]
    assert titled(*movements) == list(range(len(movements)))


def test_signs_that_are_the_whole_name_are_the_name():
    assert titled("Help!", "Help!", artist="!!!") == [0, 0]
    assert numbered([song(title="Help!", artist=artist) for artist in ("!!!", "???")]) == [0, 1]


def test_case_is_folded_as_unicode_does():
    assert titled("Straße", "STRASSE", "strasse") == [0, 0, 0]
    assert normal_text(pa.array(["ΣΊΣΥΦΟΣ", "σίσυφος", "ﬁne", "Ⅻ"])).to_pylist() == ["σίσυφοσ", "σίσυφοσ", "fine", "xii"]


def test_a_title_that_says_nothing_but_remastered_is_no_title():
    assert normal_title(pa.array(["(Remastered 2009)", "Remastered", None])).to_pylist() == ["", "remastered", None]
    assert titled("(Remastered 2009)", "(Remastered 2009)") == [0, 1]


def test_a_song_between_two_isrcs_joins_the_more_played_one_and_does_not_join_them():
    between = song(title="Help!", ms=141_000)
    assert numbered([song(ISRCS[0], None, "Help!", ms=140_000), song(ISRCS[1], None, "Help!", ms=142_000), between]) == [0, 1, 0]
    assert numbered([song(ISRCS[0], MBIDS[0]), song(ISRCS[1], MBIDS[0]), song(None, MBIDS[0])]) == [0, 1, 0]
    assert numbered([between, song(ISRCS[0], None, "Help!", ms=140_000), song(ISRCS[1], None, "Help!", ms=142_000)]) == [0, 0, 2]
    assert numbered([song(None, MBIDS[0]), song(ISRCS[0], MBIDS[0]), song(ISRCS[1], MBIDS[0])]) == [0, 0, 2]


def test_two_isrcs_do_not_meet_through_a_song_that_has_two_ways_to_join():
    # By MBID the last song is the first one's recording, by its title it could be the second one's.
    songs = [song(ISRCS[0], MBIDS[0], "Aide"), song(ISRCS[1], None, "Help!"), song(None, MBIDS[0], "Help!")]
    assert numbered(songs) == [0, 1, 0]


def test_a_recording_has_the_smallest_number_of_its_songs_whichever_way_they_joined():
    by_title = [
        song(ISRCS[0], title="Aide", ms=140_000),
        song(title="Help!", ms=140_000),
        song(ISRCS[0], title="Help!", ms=140_000),
    ]
    assert numbered(by_title) == [0, 0, 0]
    isrc, mbid = pa.array([None] * 4 + [ISRCS[0]]), pa.array([None] * 3 + [MBIDS[0]] * 2)
    assert recording_numbers(5, isrc=isrc, mbid=mbid).tolist() == [0, 1, 2, 3, 3]


def test_what_joined_under_one_title_keeps_its_ids_under_the_next():
    # The first three are one recording with an ISRC and an MBID; the last one has another MBID.
    first, second = "Help!", "Yesterday"
    songs = [song(None, MBIDS[0], first), song(ISRCS[0], None, first), song(ISRCS[0], None, second), song(None, MBIDS[1], second)]
    assert numbered(songs) == [0, 0, 0, 3]


def test_special_numbers_are_recordings_of_their_own_whatever_their_rows_say():
    columns = {"isrc": pa.array([ISRCS[0]] * 5), "title": pa.array(["Help!"] * 5), "artist_name": pa.array(["The Beatles"] * 5)}
    assert recording_numbers(5, **columns, mbid=pa.array([MBIDS[0]] * 5)).tolist() == [0, 1, 2, 3, 3]


def test_without_columns_every_song_is_a_recording_of_its_own():
    assert recording_numbers(6).tolist() == [0, 1, 2, 3, 4, 5]
    assert recording_numbers(6, title=pa.array(["Help!"] * 6)).tolist() == [0, 1, 2, 3, 4, 5]


def test_columns_may_be_chunked_or_large():
    title = pa.chunked_array([["x", "x", "x", "Help!"], ["Help!"]])
    assert recording_numbers(5, title=title, artist_name=pa.array(["x"] * 5, pa.large_string())).tolist() == [0, 1, 2, 3, 3]


def test_a_column_of_another_length_is_refused_by_name():
    with pytest.raises(DataError, match="title has 2 rows for 6 songs"):
        recording_numbers(6, title=pa.array(["Help!", "Help!"]))


@given(catalogue_songs, catalogue_songs)
def test_of_two_songs_the_relation_itself_decides(one, other):
    assert numbered([one, other]) == [0, 0 if is_same(one, other) else 1]


@given(st.lists(catalogue_songs, max_size=12))
def test_groups_are_joined_by_the_relation_and_hold_one_isrc_or_else_one_mbid(songs):
    numbers = numbered(songs)
    groups = defaultdict(set)
    for place, number in enumerate(numbers):
        groups[number].add(place)
    for number, members in groups.items():
        assert number == min(members)
        isrcs, mbids = ({songs[place][kind] for place in members} - {None} for kind in (0, 1))
        assert len(isrcs) <= 1
        assert len(mbids) <= 1 or isrcs
        reached = {number}
        while more := {b for a, b in itertools.product(reached, members - reached) if is_same(songs[a], songs[b])}:
            reached |= more
        assert reached == members


@given(st.lists(catalogue_songs, max_size=12))
def test_every_song_that_is_certain_is_found(songs):
    numbers = numbered(songs)
    for (place, one), (other_place, other) in itertools.combinations(enumerate(songs), 2):
        if one[0] and other[0]:
            assert (numbers[place] == numbers[other_place]) == (one[0] == other[0])
        elif one[1] and one[1] == other[1] and not one[0] and not other[0]:
            assert numbers[place] == numbers[other_place]
