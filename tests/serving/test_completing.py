import time
from dataclasses import replace

import pytest

from config import Config, DatabaseConfig, ServiceConfig
from errors import DatabaseUnreachable, ServiceUnavailable, UnknownFilter
from serving.answers import Query
from serving.completing import Completer, KeptTastes
from serving.controls import Controls
from storage.feedback import Event, Feedback, Taste, add_feedback

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


def never_again(listener, song_id):
    return Feedback(listener=listener, event=Event.NEVER_AGAIN, song_id=song_id)


def blocked(*songs):
    return Taste(never=frozenset(songs))


def add_songs(connection, *songs):
    for song_id, energy in songs:
        connection.execute("INSERT INTO music.song (song_id, energy) VALUES (%s, %s)", [song_id, energy])


def test_a_block_counts_from_the_next_query_on(connection, folder):
    completer = new_completer(folder)
    asked = query(listener="anna")
    before = completer.complete(connection, asked)
    add_feedback(connection, [never_again("anna", "s05")])
    after, other = (completer.complete(connection, one) for one in (asked, query(listener="ben")))
    assert before == replace(asked, taste=Taste())
    assert after == replace(asked, taste=blocked("s05"))
    assert other == query(listener="ben")


def test_a_query_without_listener_and_filter_needs_no_database(folder):
    completer = new_completer(folder)
    assert not completer.needs_database(query(count=3))
    assert completer.complete_without(query(count=3), None) == query(count=3)


def test_while_the_database_is_away_a_listener_is_told_missing_and_the_last_feedback_counts(connection, folder):
    completer = new_completer(folder)
    add_feedback(connection, [never_again("anna", "s05")])
    completer.complete(connection, query(listener="anna"))
    known, unknown = (completer.complete_without(query(listener=name), AWAY) for name in ("anna", "ben"))
    assert known == replace(query(listener="anna"), taste=blocked("s05"), unavailable=("listener",))
    assert unknown == replace(query(listener="ben"), unavailable=("listener",))


def test_blocks_are_kept_for_queries_with_other_days_and_plays_are_not_kept(connection, folder):
    completer = new_completer(folder)
    add_feedback(connection, [never_again("anna", "s05"), Feedback(listener="anna", event=Event.PLAYED, song_id="s06")])
    with_plays = completer.complete(connection, query(listener="anna", exclude_played_days=7))
    assert with_plays.taste == replace(blocked("s05"), played=frozenset({"s06"}))
    for days in (None, 7, 30):
        asked = query(listener="anna", exclude_played_days=days)
        assert completer.complete_without(asked, AWAY) == replace(asked, taste=blocked("s05"), unavailable=("listener",))


def test_kept_tastes_are_bounded_by_their_size():
    kept = KeptTastes(most_ids=6)
    kept.keep("anna", blocked("s1", "s2"))  # 3, with the name
    kept.keep("anna", blocked("s1", "s2", "s3"))  # 4 in its place
    kept.keep("ben", Taste(skipped=frozenset({"s4"}), played=frozenset({"s5", "s6", "s7"})))  # 2: plays are not kept
    assert [kept.of(name) for name in ("anna", "ben")] == [blocked("s1", "s2", "s3"), Taste(skipped=frozenset({"s4"}))]
    kept.keep("carl", Taste())
    assert [kept.of(name) for name in ("anna", "ben")] == [Taste(), Taste(skipped=frozenset({"s4"}))]


def test_a_broken_file_of_plays_is_told_once_and_loses_no_block(connection, folder, caplog):
    (folder / "plays_by_listener.sql").write_text("SELECT song_id, listened_at FROM nowhere")
    completer = new_completer(folder)
    add_feedback(connection, [never_again("anna", "s05")])
    asked = query(listener="anna", exclude_played_days=7)
    for _ in range(2):
        completed = completer.complete(connection, asked)
        assert replace(completed.taste, plays_error=None) == blocked("s05")
        assert completed.unavailable == ("exclude_played_days",)
    [told] = caplog.messages
    assert told.startswith("plays_by_listener.sql fails: ")
    assert told.endswith("; answers go without these plays and skips, and say so")
    assert completer.complete(connection, query(listener="anna")).unavailable == ()


def test_the_songs_of_a_filter_are_kept_for_a_while(connection, folder):
    completer = new_completer(folder, filter_refresh_seconds=1000)
    add_songs(connection, ("a", 0.1), ("b", 0.9))
    first = completer.complete(connection, query(filter="calm"))
    add_songs(connection, ("c", 0.2))
    assert not completer.needs_database(query(filter="calm"))
    kept = completer.complete_without(query(filter="calm"), None)
    assert (first.filtered.ids, kept.filtered.ids) == (["a"], ["a"])


def test_after_that_they_are_read_again_and_the_old_ones_serve_while_the_database_is_away(connection, folder):
    completer = new_completer(folder, filter_refresh_seconds=0.001)
    add_songs(connection, ("a", 0.1))
    completer.complete(connection, query(filter="calm"))
    add_songs(connection, ("c", 0.2))
    time.sleep(0.002)
    assert completer.needs_database(query(filter="calm"))
    assert completer.complete_without(query(filter="calm"), AWAY).filtered.ids == ["a"]
    read = completer.complete(connection, query(filter="calm"))
    assert sorted(read.filtered.ids) == ["a", "c"]


def test_a_filter_that_was_never_read_cannot_be_guessed(folder):
    with pytest.raises(ServiceUnavailable, match="filter 'calm' cannot be read while the database is away"):
        new_completer(folder).complete_without(query(filter="calm"), AWAY)


def test_a_filter_that_is_not_there_is_refused(connection, folder):
    with pytest.raises(UnknownFilter, match="calm"):
        new_completer(folder).complete(connection, query(filter="loud"))
