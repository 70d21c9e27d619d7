"""The account of an import, as it is printed."""

from importers.tally import Count, Tally


def full() -> Tally:
    tally = Tally(source="tapes", bare_songs=1_200)
    tally.counts = {
        "songs": Count(read=3_001, added=1_500, updated=1, already_there=1_499),
        "rows": Count(read=20, added=1, updated=2, removed=3, already_there=16),
    }
    tally.skip("songs", "song_id is empty", "songs.csv line 4: ''")
    tally.skip("rows", "wrong number of fields", "sequences.csv line 9: 2 instead of 3")
    tally.skip("rows", "wrong number of fields", "sequences.csv line 12: 4 instead of 3")
    tally.empty("tempo is not a number", "songs.csv line 7: 'fast'")
    return tally


def test_one_line_says_what_was_done_and_what_was_left_out():
    assert full().line() == (
        "tapes: added 1,500 songs, 1 row; updated 1 song, 2 rows; removed 3 rows; "
        "left out 3 rows (1 song_id is empty, 2 wrong number of fields); left 1 field empty"
    )


def test_the_table_shows_each_reason_with_its_first_example():
    assert full().table().splitlines() == [
        "source tapes",
        "                     read          added        updated        removed  already there",
        "songs               3,001          1,500              1              0          1,499",
        "rows                   20              1              2              3             16",
        "of the songs, 1,200 are named only in playlists: nothing but their id is known",
        "left out 1 of the songs: song_id is empty (first: songs.csv line 4: '')",
        "left out 2 of the rows: wrong number of fields (first: sequences.csv line 9: 2 instead of 3)",
        "left 1 empty: tempo is not a number (first: songs.csv line 7: 'fast')",
    ]


def test_a_tally_without_counts_has_nothing_to_import():
    tally = Tally(source="tapes")
    assert (tally.line(), tally.changed) == ("tapes: nothing to import", False)


def test_rows_left_out_are_counted_for_each_kind():
    assert {kind: full().skipped_of(kind) for kind in ("songs", "rows", "playlists")} == {"songs": 1, "rows": 2, "playlists": 0}
