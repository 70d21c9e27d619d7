import pytest

from errors import SchemaError
from storage.mapping.guess import Order, map_tables
from storage.tables import Kind
from tests.storage.mapping.tables import column, junction, playlists, plays, songs, table


def mapped(*tables, **options):
    return map_tables(tables, **{"zone": "UTC", **options})


def names_of(mapping):
    sequences = mapping.sequences
    return str(mapping.songs.key), str(sequences.owner), str(sequences.song)


@pytest.mark.parametrize("name", ["songs", "Song", "tracks", "recordings", "media_file", "MusicTrack"])
def test_tables_of_songs_are_known_by_their_names(name):
    mapping = mapped(songs(name), playlists(), junction(songs=name))
    assert names_of(mapping) == (f"public.{name}.id", "public.playlist_songs.playlist_id", "public.playlist_songs.song_id")


@pytest.mark.parametrize("name", ["playlist_tracks", "PlaylistItem", "mix_songs", "entries"])
def test_playlists_are_known_by_what_their_rows_name(name):
    assert mapped(songs(), playlists(), junction(name)).sequences.owner.table.name == name


@pytest.mark.parametrize("name", ["listening_history", "play_history", "song_plays", "playback_events", "listens", "scrobbles"])
def test_play_logs_are_known_by_their_names(name):
    sequences = mapped(songs(), plays(name)).sequences
    assert (sequences.owner.table.name, sequences.is_play_log, sequences.order) == (name, True, Order.TIME)


@pytest.mark.parametrize("name", ["likes", "user_favorites", "song_ratings", "downloads"])
def test_likes_and_ratings_are_no_plays(name):
    with pytest.raises(SchemaError, match=r"no table of playlist songs or plays that names the songs of public.songs found"):
        mapped(songs(), plays(name))


def test_a_table_that_only_counts_plays_is_named_in_the_error():
    counts = plays("user_songs", column("play_count", Kind.WHOLE))
    with pytest.raises(SchemaError, match=r"public.user_songs only counts plays, from which no order can be learned"):
        mapped(songs(), counts)


def test_no_songs_is_an_error_with_the_way_out():
    with pytest.raises(SchemaError, match=r"no table of songs found: name one with --songs SCHEMA.TABLE"):
        mapped(table("invoices", column("id", Kind.WHOLE), column("total", Kind.REAL)))


def test_songs_and_sequences_can_be_named():
    items = songs("items")
    mapping = mapped(items, plays("feedback"), plays(), songs=str(items), sequences="plays")
    assert names_of(mapping) == ("public.items.id", "public.plays.user_id", "public.plays.song_id")


@pytest.mark.parametrize(("options", "said"), [({"songs": "tunes"}, "no table 'tunes'"), ({"sequences": "x"}, "no table 'x'")])
def test_a_table_that_is_not_there_cannot_be_named(options, said):
    with pytest.raises(SchemaError, match=said):
        mapped(songs(), playlists(), junction(), **options)


def test_a_named_table_without_songs_is_refused():
    with pytest.raises(SchemaError, match=r"public.playlists names no song of public.songs"):
        mapped(songs(), playlists(), junction(), sequences="playlists")


def test_an_empty_junction_gives_way_to_a_full_play_log():
    sequences = mapped(songs(), playlists(), junction(n_rows=0), plays(n_rows=5000)).sequences
    assert sequences.owner.table.name == "plays"


@pytest.mark.parametrize(
    ("more", "order", "sort"),
    [
        ([column("rank", Kind.WHOLE), column("added_at", Kind.ZONED_TIME)], Order.POSITION, ["rank", "added_at", "song_id"]),
        ([column("sortOrder", Kind.REAL)], Order.POSITION, ["sortOrder", "song_id"]),
        ([column("order", Kind.WHOLE)], Order.POSITION, ["order", "song_id"]),
        ([column("created_at", Kind.NAIVE_TIME)], Order.TIME, ["created_at", "song_id"]),
        ([column("note")], Order.UNKNOWN, ["song_id"]),
    ],
)
def test_the_order_is_by_position_else_by_time_else_not_known(more, order, sort):
    sequences = mapped(songs(), playlists(), junction("playlist_songs", *more)).sequences
    assert (sequences.order, [place.column.name for place in sequences.sort]) == (order, sort)


def test_without_position_and_time_the_number_of_the_row_is_the_order_and_that_is_said():
    rows = junction("playlist_songs", column("id", Kind.WHOLE), key=("id",), leads_index=frozenset({"playlist_id"}))
    mapping = mapped(songs(), playlists(), rows)
    assert mapping.sequences.order is Order.INSERTION
    assert mapping.notes == (
        "public.playlist_songs has neither position nor time: "
        "the order within a sequence is by the number of the row, as the songs were inserted",
    )


def test_a_missing_index_is_said_with_the_way_out():
    rows = junction("playlist_songs", column("position", Kind.WHOLE), leads_index=frozenset({"song_id"}))
    assert mapped(songs(), playlists(), rows).notes == (
        "no index of public.playlist_songs begins with playlist_id, so that reading one sequence reads all of them: "
        "CREATE INDEX ON public.playlist_songs (playlist_id)",
    )


def test_the_assumed_zone_is_said():
    log = plays(time=Kind.NAIVE_TIME, leads_index=frozenset({"user_id"}))
    assert mapped(songs(), log, zone="Europe/Vienna").notes == (
        "public.plays.played_at has no zone and is read as Europe/Vienna: --time-zone says otherwise",
    )


def test_without_foreign_keys_names_and_types_tell():
    columns = (column("playlist_id", Kind.UUID), column("track_id", Kind.WHOLE))
    rows = table("playlist_tracks", *columns, key=("playlist_id", "track_id"))
    mapping = mapped(songs("tracks"), rows)
    assert names_of(mapping) == ("public.tracks.id", "public.playlist_tracks.playlist_id", "public.playlist_tracks.track_id")


def test_completion_is_kept_in_milliseconds_and_as_skipped():
    log = plays("plays", column("duration_listened", Kind.WHOLE), column("completed", Kind.TRUTH))
    values = {value.name: value.sql for value in mapped(songs(), log).sequences.values}
    assert values == {"ms_played": "1000 * item.duration_listened", "skipped": "NOT (item.completed)"}


def test_tables_in_other_letters_are_passed_over_but_can_be_named():
    russian = songs("песни")
    assert mapped(russian, songs(), plays()).songs.key.table.name == "songs"
    assert mapped(russian, playlists(), junction(songs="песни"), songs="песни").songs.key.table is russian


def test_the_key_of_the_songs_is_what_the_sequences_refer_to():
    by_code = songs("songs", column("code"))
    rows = table(
        "playlist_songs",
        column("playlist_id", Kind.WHOLE),
        column("song_code"),
        key=("playlist_id", "song_code"),
        references=(("playlist_id", "playlists"), ("song_code", "songs", "code")),
    )
    assert names_of(mapped(by_code, playlists(), rows))[0] == "public.songs.code"
