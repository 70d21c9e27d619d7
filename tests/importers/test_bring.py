"""What becomes of records: which songs they are, which plays come in, what a second import and a second source add."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import DatabaseConfig, ImportConfig
from errors import DataError
from importers.bring import SONGS_IN_MIND, _Staging, bring, keys_of
from importers.records import Features, Heard, Opinion, Place, Play, Score
from importers.tally import Count, Tally
from tests.importers.small import rows

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
A, B = "1" * 22, "2" * 22
HELP = Heard(artist="The Piers", title="Low Tide", album="Harbour", spotify_id=A)


def brought(connection, *records, source="spotify", **settings):
    tally = Tally(source=source)
    bring(connection, iter(records), tally, ImportConfig(**settings), progress=False)
    return tally


def songs(connection):
    return rows(connection, "song", "song_id", "title")


def plays(connection):
    return rows(connection, "listen", "user_id", "song_id", "listened_at", "source")


def everything(connection):
    tables = ("song", "artist", "album", "listen", "playlist", "playlist_song", "song_key")
    return {table: rows(connection, table, "*") for table in tables}


def minutes(n):
    return NOON + timedelta(minutes=n)


def test_a_play_makes_its_song_artist_and_album(connection):
    tally = brought(connection, Play(1, HELP, NOON, ms_played=180_000, skipped=False))
    assert rows(connection, "song", "song_id", "title", "artist_id", "artist_ids", "album_id", "source") == [
        (f"spotify:track:{A}", "Low Tide", "artist:the piers", ["artist:the piers"], "album:the piers/harbour", "spotify")
    ]
    assert rows(connection, "artist", "artist_id", "name") == [("artist:the piers", "The Piers")]
    assert rows(connection, "album", "album_id", "title") == [("album:the piers/harbour", "Harbour")]
    assert rows(
        connection, "listen", "user_id", "song_id", "listened_at", "ms_played", "skipped", "is_recommended", "source"
    ) == [("me", f"spotify:track:{A}", NOON, 180_000, False, None, "spotify")]
    assert tally.line() == "spotify: added 1 song, 1 artist, 1 album, 1 play"


def test_the_same_import_again_adds_nothing(connection):
    records = [
        Play(1, HELP, NOON),
        Opinion(2, HELP, Score.LIKED, NOON),
        Place(3, "Evening", HELP, NOON, "Evening"),
    ]
    brought(connection, *records)
    before = everything(connection)
    tally = brought(connection, *records)
    assert not tally.changed
    assert tally.counts["plays"] == Count(read=1, added=0, already_there=1)
    assert everything(connection) == before


def test_two_spotify_ids_of_one_name_stay_two_songs(connection):
    brought(connection, Play(1, HELP, NOON), Play(2, HELP._replace(spotify_id=B), minutes(5)))
    assert songs(connection) == [(f"spotify:track:{A}", "Low Tide"), (f"spotify:track:{B}", "Low Tide")]


def test_a_name_finds_the_song_that_an_id_made_whichever_comes_first(connection):
    named = Heard(artist="THE PIERS", title="Low tide - 2011 Remaster")
    brought(connection, Play(1, named, NOON), Play(2, HELP, minutes(5)))
    assert songs(connection) == [(f"spotify:track:{A}", "Low Tide")]


def test_two_ids_of_one_name_stay_two_songs_when_the_name_was_there_first(connection):
    brought(connection, Play(1, Heard(artist="The Piers", title="Low Tide"), NOON), source="lastfm")
    brought(connection, Play(1, HELP, minutes(60)), Play(2, HELP._replace(spotify_id=B), minutes(70)))
    keys = rows(connection, "song_key", "key", "song_id")
    assert [song_id for _, song_id in songs_of(keys, "spotify:")] == ["name:the piers/low tide", f"spotify:track:{B}"]
    assert len(songs(connection)) == 2


def songs_of(keys, kind):
    return [(key, song_id) for key, song_id in keys if key.startswith(kind)]


def test_what_is_told_by_an_id_alone_goes_to_the_song_that_the_same_import_gave_it(connection):
    mbid = "9cea062d-0000-4000-8000-000000000001"
    brought(connection, Play(1, HELP, NOON))
    both = Heard(artist="The Piers", title="Low Tide", recording_mbid=mbid)
    brought(
        connection,
        Play(1, both, minutes(60)),
        Opinion(2, Heard(recording_mbid=mbid), Score.NEVER_AGAIN, NOON),
        source="listenbrainz",
    )
    assert songs(connection) == [(f"spotify:track:{A}", "Low Tide")]
    assert connection.execute("SELECT song_id FROM recommender.feedback").fetchall() == [(f"spotify:track:{A}",)]


def test_a_catalogue_of_spotify_uris_is_found_by_them(connection):
    connection.execute("INSERT INTO music.artist VALUES ('a1', 'The Piers')")
    connection.execute(
        "INSERT INTO music.song (song_id, title, artist_id) VALUES (%s, 'Low Tide', 'a1'), (%s, 'Low Tide', 'a1')",
        [f"spotify:track:{A}", f"spotify:track:{B}"],
    )
    brought(connection, Play(1, HELP._replace(spotify_id=B), NOON))
    assert [song_id for _, song_id, _, _ in plays(connection)] == [f"spotify:track:{B}"]


def test_a_musicbrainz_id_joins_the_song_of_that_name_and_finds_it_next_time_without(connection):
    mbid = "9cea062d-0000-4000-8000-000000000001"
    brought(connection, Play(1, HELP, NOON))
    brought(
        connection, Play(1, Heard(artist="The Piers", title="Low Tide", recording_mbid=mbid), minutes(60)), source="listenbrainz"
    )
    brought(connection, Play(1, Heard(recording_mbid=mbid.upper()), minutes(90)), source="listenbrainz")
    assert rows(connection, "song", "song_id", "recording_mbid::text") == [(f"spotify:track:{A}", mbid)]
    assert len(plays(connection)) == 3


def test_a_song_of_an_imported_catalogue_is_found_by_its_name_and_keeps_what_is_known(connection):
    connection.execute("INSERT INTO music.artist VALUES ('a1', 'The Piers')")
    connection.execute(
        "INSERT INTO music.song (song_id, title, artist_id, tempo, source) VALUES ('s1', 'Low Tide', 'a1', 90, 'tapes')"
    )
    features = Features(tempo=120.0, key=3, feature_source="spotify")
    tally = brought(connection, Play(1, HELP._replace(title="Low  TIDE", duration_ms=1000, features=features), NOON))
    assert rows(connection, "song", "song_id", "title", "artist_id", "duration_ms", "tempo", "key", "source") == [
        ("s1", "Low Tide", "a1", 1000, 90.0, None, "tapes")
    ]
    assert tally.counts["songs"] == Count(read=1, added=0, updated=1)


def test_features_come_with_whoever_measured_them(connection):
    brought(connection, Play(1, HELP, NOON))
    brought(
        connection,
        Place(1, "x", HELP._replace(features=Features(tempo=120.0, key=3, feature_source="spotify"))),
        source="exportify",
    )
    assert rows(connection, "song", "tempo", "key", "feature_source") == [(120.0, 3, "spotify")]


def test_an_artist_of_the_catalogue_gets_the_new_songs_of_that_name(connection):
    connection.execute("INSERT INTO music.artist VALUES ('a1', 'the piers')")
    brought(connection, Play(1, HELP, NOON))
    assert rows(connection, "song", "artist_id", "artist_ids") == [("a1", ["a1"])]
    assert rows(connection, "artist", "artist_id") == [("a1",)]


def test_a_play_that_another_source_tells_a_little_later_counts_once(connection):
    brought(connection, Play(1, HELP, NOON), Play(2, HELP, minutes(4)))
    named = Heard(artist="The Piers", title="Low Tide")
    tally = brought(
        connection,
        Play(1, named, NOON + timedelta(seconds=58)),
        Play(2, named, minutes(4) - timedelta(seconds=3)),
        Play(3, named, minutes(20)),
        source="lastfm",
    )
    assert [(at, source) for _, _, at, source in plays(connection)] == [
        (NOON, "spotify"),
        (minutes(4), "spotify"),
        (minutes(20), "lastfm"),
    ]
    assert tally.counts["plays"] == Count(read=3, added=1, already_there=2)


def test_what_was_heard_twice_within_the_span_stays_twice(connection):
    brought(connection, Play(1, HELP, NOON))
    brought(connection, Play(1, HELP, NOON), Play(2, HELP, NOON + timedelta(seconds=50)), source="lastfm")
    assert [at for _, _, at, _ in plays(connection)] == [NOON, NOON + timedelta(seconds=50)]


def test_a_known_play_is_matched_once_whereever_a_block_ends(connection, monkeypatch):
    brought(connection, Play(1, HELP, NOON + timedelta(seconds=40)))
    monkeypatch.setattr("importers.bring.ROWS_PER_BLOCK", 1)
    brought(connection, Play(1, HELP, NOON), Play(2, HELP, NOON + timedelta(seconds=80)), source="lastfm")
    assert len(plays(connection)) == 2


def test_two_plays_of_one_source_within_the_span_are_two(connection):
    brought(connection, Play(1, HELP, NOON))
    brought(connection, Play(1, HELP, NOON + timedelta(seconds=50)))
    assert len(plays(connection)) == 2


def test_the_span_is_a_setting(connection):
    brought(connection, Play(1, HELP, NOON))
    brought(connection, Play(1, HELP, NOON + timedelta(seconds=50)), source="lastfm", same_play_seconds=40)
    assert len(plays(connection)) == 2


HEARD = st.lists(st.tuples(st.sampled_from(["Low Tide", "High Tide"]), st.integers(0, 400)), max_size=12)


@given(first=HEARD, second=HEARD)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_two_sources_tell_comes_in_once_and_never_disappears(connection, first, second):
    connection.rollback()

    def told(by):
        return [Play(n, Heard(artist="A", title=title), NOON + timedelta(seconds=at)) for n, (title, at) in enumerate(by)]

    brought(connection, *told(first), source="spotify")
    brought(connection, *told(second), source="lastfm")
    found = plays(connection)
    assert max(len(set(first)), len(set(second))) <= len(found) <= len(set(first)) + len(set(second))
    brought(connection, *told(second), source="lastfm")
    brought(connection, *told(first), source="spotify")
    assert plays(connection) == found


def test_plays_of_another_listener_are_not_the_same(connection):
    brought(connection, Play(1, HELP, NOON))
    brought(connection, Play(1, HELP, NOON), source="lastfm", listener="anna")
    assert [user for user, _, _, _ in plays(connection)] == ["anna", "me"]


def test_a_file_that_tells_a_play_twice_counts_it_once(connection):
    tally = brought(connection, Play(1, HELP, NOON), Play(2, HELP, NOON))
    assert tally.counts["plays"] == Count(read=2, added=1, already_there=1)


def test_more_plays_than_one_block_and_more_songs_than_stay_in_mind(connection, monkeypatch):
    monkeypatch.setattr("importers.bring.SONGS_IN_MIND", 3)
    monkeypatch.setattr("importers.bring.ROWS_PER_BLOCK", 7)
    assert SONGS_IN_MIND > 3  # the constant of the module is the one that is read
    records = [Play(n, Heard(artist="A", title=f"Song {n % 10}"), minutes(n)) for n in range(100)]
    tally = brought(connection, *records)
    assert tally.counts["songs"] == Count(read=10, added=10)
    assert tally.counts["plays"] == Count(read=100, added=100)
    assert sorted((at, song_id) for _, song_id, at, _ in plays(connection)) == [
        (minutes(n), f"name:a/song {n % 10}") for n in range(100)
    ]


def test_a_reader_that_fails_late_takes_back_what_came_first(connection, monkeypatch):
    monkeypatch.setattr("importers.bring.ROWS_PER_BLOCK", 1)

    def records():
        yield from (Play(n, HELP, minutes(n)) for n in range(20))
        raise DataError("the second file ends in the middle")

    with pytest.raises(DataError, match="ends in the middle"):
        bring(connection, records(), Tally(source="spotify"), ImportConfig(), progress=False)
    connection.commit()  # whatever the caller does
    assert plays(connection) == []
    assert songs(connection) == []


def test_what_the_database_refuses_is_raised_where_the_import_was_called(connection, monkeypatch):
    def refuse(*arguments):
        raise DataError("no room")

    monkeypatch.setattr("storage.histories.bring_plays", refuse)
    monkeypatch.setattr("importers.bring.ROWS_PER_BLOCK", 1)
    with pytest.raises(DataError, match="no room"):
        brought(connection, *(Play(n, HELP, minutes(n)) for n in range(50)))


def test_playlists_keep_the_order_of_their_records_and_are_replaced_as_a_whole(connection):
    other = Heard(artist="The Piers", title="High Tide")
    brought(connection, Place(1, "k1", HELP, None, "Evening"), Place(2, "k1", other), Place(3, "k1", HELP))
    assert rows(connection, "playlist", "playlist_id", "name", "user_id", "source") == [
        ("spotify:k1", "Evening", "me", "spotify")
    ]
    tally = brought(connection, Place(1, "k1", other, None, "Evening"), Place(2, "k1", HELP))
    assert rows(connection, "playlist_song", "playlist_id", "position", "song_id") == [
        ("spotify:k1", 0, "name:the piers/high tide"),
        ("spotify:k1", 1, f"spotify:track:{A}"),
    ]
    assert tally.counts["rows"] == Count(read=2, added=0, updated=2, removed=1)


def test_the_last_word_on_a_song_becomes_feedback(connection):
    brought(
        connection,
        Opinion(1, HELP, Score.NEVER_AGAIN, NOON),
        Opinion(2, HELP, Score.LIKED, minutes(1)),
        Opinion(3, HELP._replace(spotify_id=B), Score.LIKED, NOON),
        Opinion(4, HELP._replace(spotify_id=B), Score.NONE, minutes(1)),
    )
    found = connection.execute("SELECT listener, song_id, event, happened_at FROM recommender.feedback").fetchall()
    assert found == [("me", f"spotify:track:{A}", "liked", minutes(1))]


def test_a_mind_that_was_changed_twice_is_told_twice(connection):
    for n, score in enumerate([Score.LIKED, Score.NEVER_AGAIN, Score.LIKED, Score.LIKED]):
        brought(connection, Opinion(1, HELP, score, minutes(min(n, 2))))
    found = connection.execute("SELECT event, happened_at FROM recommender.feedback ORDER BY happened_at").fetchall()
    assert found == [("liked", minutes(0)), ("never_again", minutes(1)), ("liked", minutes(2))]


def test_records_that_cannot_be_stored_are_tallied_and_cost_themselves(connection):
    tally = brought(
        connection,
        Play(1, Heard(), NOON),
        Play(2, Heard(artist="A\0", title="B"), NOON),
        Play(3, Heard(artist="A", title="\ud800"), NOON),
        Play(4, Heard(artist="A", title="B" * 2000), NOON),
        Play(5, HELP, NOON.replace(year=1970)),
        Play(5, HELP, NOON.replace(year=9999)),
        Place(6, "a\0b", HELP),
        Opinion(7, Heard(artist="nobody"), Score.LIKED),
        Play(8, HELP, NOON),
    )
    assert len(plays(connection)) == 1
    assert {(kind, reason): noted.count for (kind, reason), noted in tally.skipped.items()} == {
        ("plays", "its song has no name and no id that can be used"): 4,
        ("plays", "its time lies before 1971 or in the future"): 2,
        ("rows", "its song has no name and no id that can be used"): 1,
        ("feedback", "its song has no name and no id that can be used"): 1,
    }


def test_long_names_have_keys_that_fit_into_an_index(connection):
    long = Heard(artist="é" * 900, title="ß" * 900, album="ö" * 900)
    brought(connection, Play(1, long, NOON), Play(2, long, minutes(5)))
    brought(connection, Play(1, long, NOON), source="lastfm")
    assert len(plays(connection)) == 2
    assert len(songs(connection)) == 1


@pytest.mark.parametrize("text", ["a,b", 'a"b', "a\nb", "a\r\nb", "\\N", "", " ", "a;b", "=1+1", "\\."])
def test_texts_arrive_as_they_are(connection, text):
    heard = Heard(artist=f"x{text}", title=f"y{text}", spotify_id=A)
    brought(connection, Play(1, heard, NOON))
    assert rows(connection, "song", "title") == [(f"y{text}",)]
    assert rows(connection, "artist", "name") == [(f"x{text}",)]


def test_a_session_ends_after_the_pause_of_the_settings_and_holds_no_skips(connection):
    text = (DatabaseConfig().queries_folder / "sequences.sql").read_text().strip().removesuffix(";")
    sequences = f"SELECT sequence_id, song_id FROM ({text}) AS sequence"
    other = Heard(artist="The Piers", title="High Tide")
    played = [Play(1, HELP, NOON), Play(2, other, minutes(2), 3000, True), Play(3, HELP, minutes(20)), Play(4, HELP, minutes(60))]
    brought(connection, *played)
    assert connection.execute(sequences).fetchall() == [
        ("listen:me:0", f"spotify:track:{A}"),
        ("listen:me:0", f"spotify:track:{A}"),
        ("listen:me:1", f"spotify:track:{A}"),
    ]
    brought(connection, *played, session_gap_minutes=45)
    assert {sequence for sequence, _ in connection.execute(sequences)} == {"listen:me:0"}
    brought(connection, *played)  # without a word of it, the pause stays what it was
    assert {sequence for sequence, _ in connection.execute(sequences)} == {"listen:me:0"}


def test_keys_stand_in_the_order_of_what_they_say():
    heard = Heard(
        artist="The Piers feat. Anna",
        title="Low Tide (feat. Bo) [Live]",
        spotify_id=A,
        recording_mbid="9CEA062D-0000-4000-8000-000000000001",
        isrc="qz-ab1-23-00001",
        recording_msid="9cea062d-0000-4000-8000-000000000002",
        item="yambda:7",
        location="a/b.mp3",
    )
    assert keys_of(heard) == [
        ("spotify", f"spotify:track:{A}"),
        ("mbid", "mbid:9cea062d-0000-4000-8000-000000000001"),
        ("isrc", "isrc:QZAB12300001"),
        ("msid", "msid:9cea062d-0000-4000-8000-000000000002"),
        ("item", "yambda:7"),
        ("location", "location:a/b.mp3"),
        ("name", "name:the piers/low tide live"),
    ]


def test_ids_that_are_none_are_no_keys():
    assert (
        keys_of(Heard(spotify_id="short", recording_mbid="x", isrc="0", recording_msid="00000000-0000-0000-0000-000000000000"))
        == []
    )


def test_staging_is_not_asked_twice_for_one_song():
    blocks = []

    class Counting:
        def copy(self, table, block):
            blocks.append((table, block.count("\n")))

    staging = _Staging(Counting(), Tally(source="x"), "me")
    for n in range(5):
        staging.add(Play(n, HELP, minutes(n)))
    staging.flush()
    assert sorted(blocks) == [("heard", 1), ("key", 2), ("play", 5)]
