"""CSV folders: what stands in the tables afterwards, what a second import does, and what is refused."""

import csv
import gzip
import random
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

import pytest

from errors import DataError
from importers.csv_folder import ROW_COLUMNS, SONG_COLUMNS, import_csv
from importers.tally import Count
from tests.importers.small import NOTHING, PLAYLISTS, SEQUENCES, SONGS, noted, rows, sizes, write_csv

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = ROOT.parent / "shared" / "data"


def test_songs_carry_what_the_file_knows_and_null_where_it_does_not(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path / "tapes"))
    columns = ("song_id", "title", "artist_id", "artist_ids", "album_id", "duration_ms", "explicit", "tempo", "key", "source")
    assert rows(connection, "song", *columns) == [
        ("s1", "Low Tide", "a1", ["a1", "a2"], "b1", 218000, False, 120.5, None, "tapes"),
        ("s2", "Rain, Again", "a1", None, "b1", None, True, None, None, "tapes"),
        ("s3", None, "a2", None, None, None, None, None, None, "tapes"),
        ("s4", None, None, None, None, None, None, None, None, "tapes"),
    ]
    assert rows(connection, "artist", "artist_id", "name") == [("a1", "The Piers"), ("a2", None)]
    assert rows(connection, "album", "album_id", "title", "artist_id") == [("b1", "Harbour", "a1")]


def test_playlists_keep_their_order_group_and_time(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path / "tapes", playlists=PLAYLISTS))
    assert rows(connection, "playlist", "playlist_id", "name", "group_id", "user_id", "created_at", "source") == [
        ("p1", "Morning", "base", None, datetime.fromisoformat("2019-05-25T20:52:18Z"), "tapes"),
        ("p2", "Morning", "base", None, None, "tapes"),
    ]
    assert rows(connection, "playlist_song", "playlist_id", "position", "song_id", "added_at") == [
        ("p1", 0, "s1", None),
        ("p1", 1, "s2", None),
        ("p1", 2, "s1", None),
        ("p2", 0, "s3", None),
        ("p2", 1, "s4", None),
    ]


def test_playlists_without_a_file_of_their_own_are_known_by_their_songs(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path / "tapes"))
    assert rows(connection, "playlist", "playlist_id", "name", "group_id", "source") == [
        ("p1", None, None, "tapes"),
        ("p2", None, None, "tapes"),
    ]


def test_pieces_of_a_history_keep_user_and_chunk(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path, playlists="playlist_id,user_id,chunk\np1,u7,0\np2,u7,1\n"))
    assert rows(connection, "playlist", "playlist_id", "user_id", "chunk") == [("p1", "u7", 0), ("p2", "u7", 1)]


def test_every_known_column_reaches_its_own_field(connection, tmp_path):
    values = {
        "song_id": "s1", "song_name": "T", "artist_id": "a", "artist_name": "A", "album_id": "b", "album_name": "B",
        "all_artist_ids": "x;", "disc_number": "2", "track_number": "3", "duration_ms": "4", "explicit": "true",
        "danceability": "0.1", "energy": "0.2", "key": "-1", "loudness": "-7.5", "mode": "1",
        "speechiness": "0.3", "acousticness": "0.4",
        "instrumentalness": "0.5", "liveness": "0.6", "valence": "0.7", "tempo": "99", "time_signature": "5.0",
        "isrc": "GBAYE0601498",
        "recording_mbid": "8F3471B5-7E6A-48DA-86A9-C1C07A0F47AE", "release_date": "1995-03", "feature_source": "own",
    }  # fmt: skip
    import_csv(connection, write_csv(tmp_path, songs=f"{','.join(values)}\n{','.join(values.values())}\n"))
    columns = [
        column.fills for column in SONG_COLUMNS.values() if column.fills not in ("artist_name", "album_title", "all_artist_ids")
    ]
    assert rows(connection, "song", *columns)[0] == (
        "s1", "T", "a", "b", 2, 3, 4, True, 0.1, 0.2, -1, -7.5, 1, 0.3, 0.4, 0.5, 0.6, 0.7, 99.0, 5,
        "GBAYE0601498", UUID("8f3471b5-7e6a-48da-86a9-c1c07a0f47ae"), date(1995, 3, 1), "own",
    )  # fmt: skip
    assert rows(connection, "song", "song_id", "artist_ids")[0] == ("s1", ["a", "x"])
    assert set(values) == set(SONG_COLUMNS)


def test_the_tally_counts_what_was_added(connection, tmp_path):
    tally = import_csv(connection, write_csv(tmp_path / "tapes", playlists=PLAYLISTS))
    assert tally.counts == {
        "songs": Count(read=4, added=4),
        "artists": Count(read=2, added=2),
        "albums": Count(read=1, added=1),
        "playlists": Count(read=2, added=2),
        "rows": Count(read=5, added=5),
    }
    assert (tally.bare_songs, tally.skipped, tally.emptied) == (1, {}, {})


def test_a_second_import_adds_nothing_and_says_so(connection, tmp_path):
    folder = write_csv(tmp_path / "tapes", playlists=PLAYLISTS)
    import_csv(connection, folder)
    connection.commit()
    again = import_csv(connection, folder)
    assert again.line() == "tapes: nothing new (4 songs, 2 artists, 1 album, 2 playlists, 5 rows already there)"
    assert not again.changed
    assert sizes(connection) == {"song": 4, "artist": 2, "album": 1, "playlist": 2, "playlist_song": 5}


def test_a_changed_song_is_updated_and_an_empty_field_keeps_what_is_known(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path))
    changed = SONGS.replace("Low Tide", "High Tide").replace("120.5", "").replace("The Piers", "Piers")
    tally = import_csv(connection, write_csv(tmp_path, songs=changed))
    assert rows(connection, "song", "song_id", "title", "tempo")[0] == ("s1", "High Tide", 120.5)
    assert tally.counts["songs"] == Count(read=4, added=0, updated=1, already_there=3)
    assert tally.counts["artists"] == Count(read=2, added=0, updated=1, already_there=1)


def test_a_playlist_whose_rows_changed_is_replaced_as_a_whole(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path))
    changed = SEQUENCES.replace("p1,1,s2\np1,2,s1\n", "p1,1,s5\n").replace("p2,1,s4\n", "p2,1,s4\np3,0,s1\n")
    tally = import_csv(connection, write_csv(tmp_path, sequences=changed))
    assert rows(connection, "playlist_song", "playlist_id", "position", "song_id") == [
        ("p1", 0, "s1"),
        ("p1", 1, "s5"),
        ("p2", 0, "s3"),
        ("p2", 1, "s4"),
        ("p3", 0, "s1"),
    ]
    assert tally.counts["playlists"] == Count(read=3, added=1, updated=1, already_there=1)
    assert tally.counts["rows"] == Count(read=5, added=1, updated=1, removed=1, already_there=3)


def test_a_playlist_with_a_new_name_and_new_rows_counts_once(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path, playlists=PLAYLISTS))
    changed = {
        "sequences": SEQUENCES.replace("p1,0,s1", "p1,0,s3"),
        "playlists": PLAYLISTS.replace("base,Morning,2019", "base,Noon,2019"),
    }
    tally = import_csv(connection, write_csv(tmp_path, **changed))
    assert tally.counts["playlists"] == Count(read=2, added=0, updated=1, already_there=1)


def test_bad_rows_of_sequences_are_left_out_and_counted_by_reason(connection, tmp_path):
    bad = [
        "p1,0,s1", "p1,1", "p1,1,s2,extra", "p1,1,", "p1,one,s2", "p1,1.5,s2", "p1,-1,s2", ",1,s2", "listen:7,0,s2", "p1,0,s2",
        "p1,1,s\0", 'p1,1,"s2', f"p1,1,{'x' * 501}", "", "p1,99999999999,s2", "p1,2.0,s2", "p1,1,  ",
    ]  # fmt: skip
    tally = import_csv(connection, write_csv(tmp_path, sequences="playlist_id,pos,song_id\n" + "\n".join(bad) + "\n"))
    assert rows(connection, "playlist_song", "playlist_id", "position", "song_id") == [("p1", 0, "s1"), ("p1", 2, "s2")]
    assert tally.skipped == {
        ("rows", "wrong number of fields"): noted(2, "sequences.csv line 3: 2 instead of 3"),
        ("rows", "song_id is empty"): noted(1, "sequences.csv line 5: ''"),
        ("rows", "pos is not a number"): noted(1, "sequences.csv line 6: 'one'"),
        ("rows", "pos is not a whole number"): noted(1, "sequences.csv line 7: '1.5'"),
        ("rows", "pos is not between 0 and 2147483647"): noted(2, "sequences.csv line 8: '-1'"),
        ("rows", "playlist_id is empty"): noted(1, "sequences.csv line 9: ''"),
        ("rows", "playlist_id begins with 'listen:', which is reserved"): noted(1, "sequences.csv line 10: 'listen:7'"),
        ("rows", "song_id holds a NUL character"): noted(1, "sequences.csv line 12: 's\\x00'"),
        ("rows", "quotes that do not match, or a field too long"): noted(1, "sequences.csv line 13"),
        ("rows", "song_id is longer than 500 characters"): noted(1, f"sequences.csv line 14: '{'x' * 40}'"),
        ("rows", "song_id is blank"): noted(1, "sequences.csv line 18: '  '"),
        ("rows", "its place in the playlist is taken"): noted(1, "sequences.csv line 11"),
    }
    assert tally.counts["rows"] == Count(read=16, added=2)


def test_bad_fields_of_songs_are_left_empty_and_counted_by_reason(connection, tmp_path):
    header = "song_id,song_name,duration_ms,explicit,key,tempo,recording_mbid,release_date"
    bad = ["s1,A,long,maybe,12,fast,x-1,May 1995", "s2,B,-1,2,-2,nan,,1995-13", "s3,C,3e9,yes,11.0,1e39,,1995-02-03"]
    tally = import_csv(connection, write_csv(tmp_path, songs="\n".join([header, *bad])))
    assert rows(connection, "song", *header.replace("song_name", "title").split(","))[:3] == [
        ("s1", "A", None, None, None, None, None, None),
        ("s2", "B", None, None, None, None, None, None),
        ("s3", "C", None, True, 11, None, None, date(1995, 2, 3)),
    ]
    assert tally.emptied == {
        "duration_ms is not a number": noted(1, "songs.csv line 2: 'long'"),
        "explicit is neither true nor false": noted(2, "songs.csv line 2: 'maybe'"),
        "key is not between -1 and 11": noted(2, "songs.csv line 2: '12'"),
        "tempo is not a number": noted(1, "songs.csv line 2: 'fast'"),
        "recording_mbid is not a UUID": noted(1, "songs.csv line 2: 'x-1'"),
        "release_date is not a date in ISO 8601": noted(2, "songs.csv line 2: 'May 1995'"),
        "duration_ms is not between 0 and 2147483647": noted(2, "songs.csv line 3: '-1'"),
        "tempo is not a finite number": noted(1, "songs.csv line 3: 'nan'"),
        "tempo is beyond 3.4e+38": noted(1, "songs.csv line 4: '1e39'"),
    }


def test_a_song_or_playlist_that_comes_twice_keeps_its_first_row(connection, tmp_path):
    twice = {"songs": SONGS + "s1,Other,,,,,,,,\ns1,Third,,,,,,,,\n", "playlists": PLAYLISTS + "p1,base,Evening,\n"}
    tally = import_csv(connection, write_csv(tmp_path, **twice))
    assert rows(connection, "song", "song_id", "title")[0] == ("s1", "Low Tide")
    assert rows(connection, "playlist", "playlist_id", "name")[0] == ("p1", "Morning")
    assert tally.skipped == {
        ("songs", "song_id was there before"): noted(2, "songs.csv line 5"),
        ("playlists", "playlist_id was there before"): noted(1, "playlists.csv.gz line 4"),
    }


@pytest.mark.parametrize(
    ("time", "reason"),
    [("2019-05-25T16:52:18", "snapshot_time has no time zone"), ("yesterday", "snapshot_time is not a time in ISO 8601")],
)
def test_a_time_that_cannot_be_placed_is_left_empty(connection, tmp_path, time, reason):
    tally = import_csv(connection, write_csv(tmp_path, playlists=f"playlist_id,snapshot_time\np1,{time}\n"))
    assert rows(connection, "playlist", "playlist_id", "created_at") == [("p1", None), ("p2", None)]
    assert tally.emptied == {reason: noted(1, f"playlists.csv.gz line 2: '{time}'")}


def test_texts_with_every_awkward_character_arrive_as_they_are(connection, tmp_path):
    titles = ['say "when"', "a\tb", "back\\slash", "two\nlines", "carriage\rreturn", "\\N", "\\.", "ünï 鳥 🎵", "NULL", "{a,b}"]
    with (write_csv(tmp_path) / "songs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("song_id", "song_name"), *((f"s{i}", title) for i, title in enumerate(titles))])
    import_csv(connection, tmp_path)
    assert [title for _, title in rows(connection, "song", "song_id", "title")] == titles


def test_unknown_columns_are_named_in_the_log_and_left_out(connection, tmp_path, caplog):
    import_csv(connection, write_csv(tmp_path, sequences="mood,playlist_id,pos,song_id,weather\n:),p1,0,s1,rain\n"))
    assert caplog.messages == ["sequences.csv: left out the columns that nothing here knows: mood, weather"]
    assert rows(connection, "playlist_song", "playlist_id", "position", "song_id") == [("p1", 0, "s1")]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_names(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path, sequences="\ufeff" + SEQUENCES.replace("\n", "\r\n")))
    assert sizes(connection)["playlist_song"] == 5


def test_files_with_headers_only_import_nothing(connection, tmp_path):
    tally = import_csv(connection, write_csv(tmp_path / "tapes", songs="song_id\n", sequences="playlist_id,pos,song_id\n"))
    assert tally.line() == "tapes: nothing to import"
    assert sizes(connection) == NOTHING


@pytest.mark.parametrize("kept", [0, 1, 9, 15, 500, -9, -5, -1])
def test_a_truncated_gzip_file_leaves_nothing(connection, tmp_path, kept):
    dice = random.Random(0)
    text = "playlist_id,pos,song_id\n" + "".join(f"p1,{i},s{dice.random()}\n" for i in range(25_000))
    write_csv(tmp_path)
    (tmp_path / "sequences.csv").unlink()
    (tmp_path / "sequences.csv.gz").write_bytes(gzip.compress(text.encode())[:kept])
    with pytest.raises(DataError, match=r"^sequences\.csv\.gz is (truncated|damaged|empty)"):
        import_csv(connection, tmp_path)
    connection.commit()
    assert sizes(connection) == NOTHING


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SEQUENCES.encode() + "p3,0,é\n".encode("latin-1"), r"sequences\.csv is not UTF-8 after line 0: save it as UTF-8"),
        (b"", r"sequences\.csv is empty: its first line must name the columns, at least playlist_id, pos, song_id"),
        (b"playlist_id,song_id\np1,s1\n", r"sequences\.csv has no column 'pos': .* at least playlist_id, pos, song_id"),
        (b"playlist_id,pos,song_id,pos\np1,0,s1,0\n", r"sequences\.csv has two columns 'pos': rename or remove one of them"),
        (
            b"playlist_id,pos,song_id\n" + b"x" * 2_000_000,
            r"sequences\.csv line 2 is longer than 1,048,576 characters: not a table",
        ),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_leaves_nothing(connection, tmp_path, content, message):
    (write_csv(tmp_path) / "sequences.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"^{message}$"):
        import_csv(connection, tmp_path)
    connection.commit()
    assert sizes(connection) == NOTHING


def test_a_file_that_is_not_gzip_despite_its_name_is_damaged(connection, tmp_path):
    write_csv(tmp_path).joinpath("songs.csv").rename(tmp_path / "songs.csv.gz")
    with pytest.raises(
        DataError, match=r"^songs\.csv\.gz is damaged after line 0 \(Not a gzipped file \(b'so'\)\): copy it again$"
    ):
        import_csv(connection, tmp_path)


def test_what_is_not_a_folder_of_songs_is_refused(connection, tmp_path):
    folder = write_csv(tmp_path / "tapes")
    with pytest.raises(DataError, match=r"nowhere is not a folder: name the one that holds songs\.csv and sequences\.csv"):
        import_csv(connection, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no songs\.csv or songs\.csv\.gz"):
        import_csv(connection, tmp_path)
    (folder / "songs.csv.gz").touch()
    with pytest.raises(DataError, match=r"has both songs\.csv and songs\.csv\.gz: keep one of them"):
        import_csv(connection, folder)


def test_two_sources_with_the_same_song_id_are_refused(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path / "tapes"))
    connection.commit()
    other = write_csv(tmp_path / "radio", songs="song_id\nx1\n", sequences="playlist_id,pos,song_id\nq1,0,x1\nq1,1,s2\n")
    with pytest.raises(
        DataError, match=r"^song id 's2' of source 'radio' is in use by source 'tapes': import with --prefix NAME .*$"
    ):
        import_csv(connection, other)
    connection.commit()
    assert rows(connection, "playlist", "playlist_id") == [("p1",), ("p2",)]


def test_two_sources_with_the_same_playlist_id_are_refused(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path / "tapes"))
    other = write_csv(tmp_path / "radio", songs="song_id\nx1\n", sequences="playlist_id,pos,song_id\np2,0,x1\n")
    with pytest.raises(DataError, match=r"^playlist id 'p2' of source 'radio' is in use by source 'tapes'"):
        import_csv(connection, other)


def test_somebodys_own_rows_are_not_taken_over(connection, tmp_path):
    connection.execute("INSERT INTO music.song (song_id) VALUES ('s2')")
    with pytest.raises(DataError, match=r"^song id 's2' of source 'tapes' is in use by rows without a source"):
        import_csv(connection, write_csv(tmp_path / "tapes"))


def test_a_prefix_keeps_two_sources_apart(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path / "tapes", playlists=PLAYLISTS))
    import_csv(connection, write_csv(tmp_path / "radio", playlists="playlist_id,base_id,user_id\np1,base,u\n"), prefix="radio")
    assert sizes(connection) == {"song": 8, "artist": 4, "album": 2, "playlist": 4, "playlist_song": 10}
    assert rows(connection, "song", "song_id", "artist_id", "artist_ids", "album_id")[:2] == [
        ("radio:s1", "radio:a1", ["radio:a1", "radio:a2"], "radio:b1"),
        ("radio:s2", "radio:a1", None, "radio:b1"),
    ]
    assert rows(connection, "playlist", "group_id", "playlist_id", "user_id")[2] == ("radio:base", "radio:p1", "radio:u")
    assert rows(connection, "playlist_song", "playlist_id", "position", "song_id")[5] == ("radio:p1", 0, "radio:s1")


@pytest.mark.parametrize("prefix", ["", "listen", "a:b", "x" * 51])
def test_a_prefix_that_would_make_bad_ids_is_refused(connection, tmp_path, prefix):
    with pytest.raises(DataError, match=f"^prefix '{prefix}' cannot be used: give 1 to 50 letters"):
        import_csv(connection, write_csv(tmp_path), prefix=prefix)


def test_a_compilation_has_no_artist_of_its_own(connection, tmp_path):
    songs = "song_id,artist_id,album_id,album_name\ns1,a1,b1,\ns2,a2,b1,Hits\ns3,a2,b2,Solo\n"
    import_csv(connection, write_csv(tmp_path, songs=songs))
    assert rows(connection, "album", "album_id", "title", "artist_id") == [("b1", "Hits", None), ("b2", "Solo", "a2")]


def test_rows_may_tell_when_they_were_added(connection, tmp_path):
    import_csv(connection, write_csv(tmp_path, sequences="playlist_id,pos,song_id,added_at\np1,0,s1,2020-01-01T00:00:00Z\n"))
    assert rows(connection, "playlist_song", "added_at") == [(datetime.fromisoformat("2020-01-01T00:00:00Z"),)]
    assert set(ROW_COLUMNS) == {"playlist_id", "pos", "song_id", "added_at"}


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real playlists are not beside the project (../shared/data)")
def test_the_real_playlists_have_the_sizes_that_their_description_gives(connection):
    tally = import_csv(connection, REAL_DATA / "playlists")
    assert sizes(connection) == {"playlist": 2_578, "playlist_song": 97_070, "song": 10_824, "artist": 4_031, "album": 9_080}
    assert (tally.skipped, tally.emptied, tally.bare_songs) == ({}, {}, 0)
