"""Exportify's files of several years, and those of our own exports."""

from datetime import UTC, date, datetime

import pytest

from errors import DataError
from importers.exportify import EXPORTIFY, first_artist
from importers.records import Features, Heard, Place
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read

ID = "5Q7vla0EpIHVcEL9SuE0Ka"


def table(**columns):
    """A file of one row with all cells in quotes, as watsonbox writes it."""
    return "\n".join(",".join(f'"{cell}"' for cell in cells) for cells in (columns, columns.values())) + "\n"


WATSONBOX = table(
    **{"Playlist Name": "Late. Evening", "Track URI": f"spotify:track:{ID}", "Track Name": 'Low ""Tide""'},
    **{"Artist URI(s)": "spotify:artist:1, spotify:artist:2", "Artist Name(s)": "The Piers, Nova", "Album Name": "Harbour"},
    **{"Album Release Date": "1999-05", "Disc Number": 1, "Track Number": 7, "Track Duration (ms)": 218_000},
    **{"Explicit": "true", "ISRC": "QZABC2000001", "Added By": "spotify:user:somebody", "Added At": "2020-01-31T20:15:00Z"},
    **{"Danceability": 0.5, "Energy": 0.25, "Key": -1, "Loudness": -7.5, "Mode": 1, "Speechiness": 0.03, "Acousticness": 0.1},
    **{"Instrumentalness": 0, "Liveness": 0.2, "Valence": 0.9, "Tempo": 120.5, "Time Signature": 4},
)
PAVELKOMAROV = (
    "\ufeffSpotify ID,Artist IDs,Track Name,Album Name,Artist Name(s),Release Date,Duration (ms),Popularity,Added By,Added At,"
    "Genres,Danceability,Energy,Key\n"
    f'{ID},"a,b","Low Tide","Harbour","The Piers,Nova",2001,218000,40,spotify:user:somebody,1970-01-01T00:00:00Z,"calm",,,\n'
)


def test_a_row_is_a_song_with_what_spotify_measured():
    [place], tally = read(EXPORTIFY, handed("late_evening.csv", WATSONBOX))
    assert place == Place(
        line=2,
        playlist="late_evening",
        name="Late. Evening",
        added_at=datetime(2020, 1, 31, 20, 15, tzinfo=UTC),
        heard=Heard(
            spotify_id=ID,
            title='Low "Tide"',
            artist="The Piers",
            album="Harbour",
            release_date=date(1999, 5, 1),
            disc_number=1,
            track_number=7,
            duration_ms=218_000,
            explicit=True,
            isrc="QZABC2000001",
            features=Features(
                danceability=0.5,
                energy=0.25,
                key=-1,
                loudness=-7.5,
                mode=1,
                speechiness=0.03,
                acousticness=0.1,
                instrumentalness=0.0,
                liveness=0.2,
                valence=0.9,
                tempo=120.5,
                time_signature=4,
                feature_source="spotify",
            ),
        ),
    )
    assert (left_out(tally), emptied(tally)) == ({}, {})


def test_the_columns_of_another_year_are_known_as_well():
    [place], tally = read(EXPORTIFY, handed("spotify_playlists/run.csv", PAVELKOMAROV))
    assert place == Place(
        line=2,
        playlist="run",
        name="run",
        heard=Heard(
            spotify_id=ID,
            title="Low Tide",
            artist="The Piers",
            album="Harbour",
            release_date=date(2001, 1, 1),
            duration_ms=218_000,
        ),
    )
    assert emptied(tally) == {"added at is before 1990, from a clock that was not set": 1}


def test_nobody_who_added_a_song_is_in_a_record():
    for content in (WATSONBOX, PAVELKOMAROV):
        assert "somebody" not in repr(read(EXPORTIFY, handed("a.csv", content)))


@pytest.mark.parametrize(
    ("names", "is_alone", "blank_after_comma", "first"),
    [
        ("The Piers", False, True, "The Piers"),
        ("The Piers, Nova", False, True, "The Piers"),
        ("Tyler, The Creator", True, True, "Tyler, The Creator"),
        (r"Tyler\, The Creator, Nova", False, True, "Tyler, The Creator"),
        ("Salt;Pepper, Nova", False, True, "Salt;Pepper"),
        ("The Piers;Nova", False, False, "The Piers"),
        ("Tyler, The Creator;Nova", False, False, "Tyler, The Creator"),
        ("Tyler, The Creator", False, False, "Tyler, The Creator"),
        ("The Piers,Nova", False, False, "The Piers"),
        ("10,000 Lakes,Nova", False, False, "10,000 Lakes"),
        (", Nova", False, True, ", Nova"),
    ],
)
def test_of_several_artists_the_first_is_taken(names, is_alone, blank_after_comma, first):
    assert first_artist(names, is_alone=is_alone, blank_after_comma=blank_after_comma) == first


def rows(*lines, header="Track URI,Track Name,Artist Name(s),Duration (ms),Added At,Tempo"):
    return handed("a.csv", "\n".join([header, *lines, ""]))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",,,1,,", "names neither a Spotify track nor artist and title"),
        (",Low Tide,,1,,", "names neither a Spotify track nor artist and title"),
        (f"spotify:episode:{ID},Talk,Somebody,1,,", "is an episode of a podcast"),
        ("a,b", "wrong number of fields"),
        ('"a"b,c,d,e,f,g', "quotes that do not match, or a field too long"),
        (",\0,a,1,,", "names neither a Spotify track nor artist and title"),
    ],
)
def test_a_row_that_names_no_song_costs_itself(line, reason):
    places, tally = read(EXPORTIFY, rows(line, f"spotify:track:{ID},x,y,1,,"))
    assert (len(places), left_out(tally)) == (1, {("rows", reason): 1})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("spotify:track:1,x,y,1,,", "track uri is no id of a Spotify track"),
        (",x,y,-1,,", "duration (ms) is not between 0 and 2147483647"),
        (",x,y,3:20,,", "duration (ms) is not a number"),
        (",x,y,,yesterday,", "added at is not a time in ISO 8601"),
        (",x,y,,,nan", "tempo is not a finite number"),
        (",x,y,,,undefined", "tempo is not a number"),
    ],
)
def test_a_field_that_cannot_be_used_stays_empty(line, fault):
    places, tally = read(EXPORTIFY, rows(line))
    assert (len(places), left_out(tally), emptied(tally)) == (1, {}, {fault: 1})


def test_a_listeners_own_file_is_kept_by_its_names():
    [place], tally = read(EXPORTIFY, rows("spotify:local:The+Piers:Harbour:Low+Tide:218,Low Tide,The Piers,218000,,"))
    assert place.heard == Heard(title="Low Tide", artist="The Piers", duration_ms=218_000)
    assert emptied(tally) == {}


def test_lists_of_the_same_name_in_two_folders_stay_two():
    files = [handed(f"{folder}/run.csv", PAVELKOMAROV) for folder in ("a", "b")]
    assert [place.playlist for place in read(EXPORTIFY, *files)[0]] == ["run", "run (2)"]


def test_in_our_own_files_the_artist_is_one_text_and_formulas_lose_their_guard():
    content = "song_id,Track Name,Artist Name(s),Location\n7,'=1+1,\"'-; a, b\",'''=x\n8,'tis,''quoted'',\n"
    places, _ = read(EXPORTIFY, handed("a.csv", content))
    assert [place.heard for place in places] == [
        Heard(title="=1+1", artist="-; a, b", location="''=x"),
        Heard(title="'tis", artist="''quoted''"),
    ]


def test_a_file_without_the_columns_is_an_error_that_names_them():
    with pytest.raises(
        DataError, match=r"a\.csv has no column 'artist name\(s\)': it is no playlist of Exportify, or was cut off"
    ):
        read(EXPORTIFY, handed("a.csv", "Track Name,Popularity\nx,1\n"))


def test_another_encoding_is_an_error():
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8 after line 0: save it as UTF-8"):
        read(EXPORTIFY, handed("a.csv", "Track Name,Artist Name(s)\nCafé,x\n".encode("latin-1")))


def test_a_file_that_was_cut_within_a_row_is_an_error():
    header, first, second = "Track Name,Artist Name(s),Tempo", 'Low Tide,"The Piers",120', "Rise,Nova,1"
    outcomes = outcomes_of_cutting(EXPORTIFY, "a.csv", f"{header}\n{first}\n{second}\n")
    # From the last comma of a row on nothing tells that there was more.
    of_header = [None] * header.index(",Tempo") + [0] * len(",Tempo\n")
    of_first = [0, *[None] * first.index(",120"), *[1] * len(",120")]
    of_second = [1, *[None] * second.index(",1"), *[2] * len(",1")]
    assert outcomes == [*of_header, *of_first, *of_second]


def test_its_files_are_known_by_their_columns():
    ours = [handed("b.csv", PAVELKOMAROV), handed("a/a.csv", WATSONBOX)]
    foreign = [
        handed("songs.csv", "song_id,song_name\n1,x\n"),
        handed("c.csv", '"Track Name","Artist'),
        handed("d.txt", WATSONBOX),
        handed("._e.csv", WATSONBOX),
        handed("f.csv", b"\xff\x00"),
        handed("g.csv", ""),
    ]
    assert [file.name for file in EXPORTIFY.recognise([*ours, *foreign])] == ["a/a.csv", "b.csv"]
