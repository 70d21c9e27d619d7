import time

import pytest

from config import Config, DatabaseConfig, ServiceConfig
from errors import DatabaseUnreachable, ServiceUnavailable, UnknownFilter
from serving.answers import Query
from serving.completing import Completer
from serving.controls import Controls
from storage.feedback import Event, Feedback, add_feedback

AWAY = DatabaseUnreachable("the database went away")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "calm.sql").write_text("SELECT song_id FROM music.song WHERE energy < 0.5")
    return tmp_path


def new_completer(folder, **service):
    return Completer(Config(service=ServiceConfig(**service), database=DatabaseConfig(queries_folder=folder)))


def query(**controls):
    return Query(songs=["s00"], controls=Controls(**controls))


def add_songs(connection, *songs):
    for song_id, energy in songs:
        connection.execute("INSERT INTO music.song (song_id, energy) VALUES (%s, %s)", [song_id, energy])


def test_a_block_counts_from_the_next_query_on(connection, folder):
    completer = new_completer(folder)
    asked = query(listener="anna")
    [before] = completer.complete(connection, [asked])
    add_feedback(connection, [Feedback(listener="anna", event=Event.NEVER_AGAIN, song_id="s05")])
    [after, other] = completer.complete(connection, [asked, query(listener="ben")])
    assert (before.taste.never, after.taste.never, other.taste.never) == (frozenset(), frozenset({"s05"}), frozenset())


def test_a_query_without_listener_and_filter_needs_no_database(folder):
    completer = new_completer(folder)
    assert not completer.needs_database(query(count=3))
    assert completer.complete_without(query(count=3), None) == query(count=3)


def test_while_the_database_is_away_a_listeners_last_feedback_counts_and_an_unknown_ones_is_told_missing(connection, folder):
    completer = new_completer(folder)
    add_feedback(connection, [Feedback(listener="anna", event=Event.NEVER_AGAIN, song_id="s05")])
    completer.complete(connection, [query(listener="anna")])
    known, unknown = (completer.complete_without(query(listener=name), AWAY) for name in ("anna", "ben"))
    assert (known.taste.never, known.unavailable) == (frozenset({"s05"}), ())
    assert (unknown.taste.never, unknown.unavailable) == (frozenset(), ("listener",))


def test_the_songs_of_a_filter_are_kept_for_a_while(connection, folder):
    completer = new_completer(folder, filter_refresh_seconds=1000)
    add_songs(connection, ("a", 0.1), ("b", 0.9))
    [first] = completer.complete(connection, [query(filter="calm")])
    add_songs(connection, ("c", 0.2))
    assert not completer.needs_database(query(filter="calm"))
    kept = completer.complete_without(query(filter="calm"), None)
    assert (first.filtered.ids, kept.filtered.ids) == (["a"], ["a"])


def test_after_that_they_are_read_again_and_the_old_ones_serve_while_the_database_is_away(connection, folder):
    completer = new_completer(folder, filter_refresh_seconds=0.001)
    add_songs(connection, ("a", 0.1))
    completer.complete(connection, [query(filter="calm")])
    add_songs(connection, ("c", 0.2))
    time.sleep(0.002)
    assert completer.needs_database(query(filter="calm"))
    assert completer.complete_without(query(filter="calm"), AWAY).filtered.ids == ["a"]
    [read] = completer.complete(connection, [query(filter="calm")])
    assert sorted(read.filtered.ids) == ["a", "c"]


def test_a_filter_that_was_never_read_cannot_be_guessed(folder):
    with pytest.raises(ServiceUnavailable, match="filter 'calm' cannot be read while the database is away"):
        new_completer(folder).complete_without(query(filter="calm"), AWAY)


def test_a_filter_that_is_not_there_is_refused(connection, folder):
    with pytest.raises(UnknownFilter, match="calm"):
        new_completer(folder).complete(connection, [query(filter="loud")])
