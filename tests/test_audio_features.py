import threading
from concurrent.futures import wait
from pathlib import Path

import pytest
from psycopg.pq import TransactionStatus

import audio_features
import cli
from audio_features import FOREIGN_PATH, compute_features
from errors import ConfigError, DataError, exit_code_of
from importers.records import Features
from importers.tally import Count
from storage.connections import connect
from tests.importers.small import noted, rows
from tests.importers.sounds import cadence, needs_librosa, write_wav

FOUND = Features(tempo=120.0, key=-1, mode=None, loudness=-9.5, energy=0.75, feature_source="librosa")


def add_songs(connection, **locations):
    for song_id, location in locations.items():
        connection.execute("INSERT INTO music.song (song_id, location) VALUES (%s, %s)", [song_id, location])
    connection.commit()


def features_of_songs(connection):
    return rows(connection, "song", "song_id", "tempo", "key", "mode", "loudness", "energy", "feature_source")


def compute(connection, analyse=lambda path: FOUND, n_at_once=1):
    return compute_features(connection, analyse, n_at_once=n_at_once, progress=False)


def test_features_are_stored_as_a_whole_with_who_measured_them(connection):
    add_songs(connection, a="/music/a.mp3")
    tally = compute(connection)
    assert features_of_songs(connection) == [("a", 120.0, -1, None, -9.5, 0.75, "librosa")]
    assert tally.counts == {"songs": Count(read=1, added=0, updated=1)}


def test_only_songs_that_lie_in_files_and_have_no_features_are_analysed(connection):
    add_songs(connection, a="/music/a.mp3", b=None, c="https://radio.example/c.mp3", d="/music/d.mp3", e="/music/e.mp3")
    connection.execute("UPDATE music.song SET danceability = 0.5 WHERE song_id = 'd'")
    connection.execute("UPDATE music.song SET feature_source = 'spotify' WHERE song_id = 'e'")
    asked = []
    compute(connection, lambda path: asked.append(path) or FOUND)
    assert asked == [Path("/music/a.mp3")]
    assert [row[0] for row in features_of_songs(connection) if row[-1] == "librosa"] == ["a"]


def test_files_of_no_use_are_tallied_by_reason_and_tried_again_next_time(connection):
    add_songs(connection, a="/a.mp3", b="/b.mp3", c="/c.mp3", d="lists/d.mp3", e="c:\\e.mp3")

    def analyse(path):
        if path.name != "a.mp3":
            raise DataError("its file is not there")
        return FOUND

    tally = compute(connection, analyse)
    assert tally.counts == {"songs": Count(read=5, added=0, updated=1)}
    assert tally.skipped == {
        ("songs", "its file is not there"): noted(2, "/b.mp3"),
        ("songs", FOREIGN_PATH): noted(2, "lists/d.mp3"),
    }
    assert compute(connection).counts == {"songs": Count(read=4, added=0, updated=2)}


def test_songs_are_asked_for_in_blocks_and_none_is_met_twice(connection, monkeypatch):
    monkeypatch.setattr(audio_features, "SONGS_AT_A_TIME", 2)
    add_songs(connection, **{f"s{n}": f"/{n}.mp3" for n in range(5)})
    asked = []
    compute(connection, lambda path: asked.append(path.name) or FOUND)
    assert sorted(asked) == ["0.mp3", "1.mp3", "2.mp3", "3.mp3", "4.mp3"]


def test_an_interrupted_run_keeps_what_it_had_and_the_next_one_goes_on(connection, another_connection):
    add_songs(connection, a="/a.mp3", b="/b.mp3", c="/c.mp3")
    asked = []

    def analyse(path):
        asked.append(path.name)
        if path.name == "b.mp3":
            raise KeyboardInterrupt
        return FOUND

    with pytest.raises(KeyboardInterrupt):
        compute(connection, analyse)
    connection.rollback()
    assert features_of_songs(another_connection)[0] == ("a", 120.0, -1, None, -9.5, 0.75, "librosa")
    another_connection.commit()
    compute(connection, lambda path: asked.append(f"again {path.name}") or FOUND)
    assert "again a.mp3" not in asked
    assert [row[-1] for row in features_of_songs(connection)] == ["librosa"] * 3


def test_what_was_done_before_an_interruption_is_kept_also_when_it_is_noticed_late(connection, another_connection, monkeypatch):
    names = [f"song {number:02}" for number in range(40)]
    add_songs(connection, **{name: f"/{name}.mp3" for name in names})

    def analyse(path):
        if path.stem == names[-1]:
            raise KeyboardInterrupt
        return FOUND

    def all_done_first(tasks, **options):
        return wait(tasks)

    monkeypatch.setattr(audio_features, "wait", all_done_first)
    with pytest.raises(KeyboardInterrupt):
        compute(connection, analyse)
    connection.rollback()
    assert [row[-1] for row in features_of_songs(another_connection)] == ["librosa"] * 39 + [None]


def test_features_that_came_in_meanwhile_stay(connection, another_connection):
    add_songs(connection, a="/a.mp3")

    def analyse(path):
        another_connection.execute("UPDATE music.song SET tempo = 99, feature_source = 'spotify'")
        another_connection.commit()
        return FOUND

    assert compute(connection, analyse).counts == {"songs": Count(read=1, added=0, updated=0, already_there=1)}
    assert features_of_songs(connection) == [("a", 99.0, None, None, None, None, "spotify")]


def test_files_are_analysed_side_by_side_without_a_transaction(connection):
    add_songs(connection, a="/a.mp3", b="/b.mp3")
    both_at_work = threading.Barrier(2, timeout=10)
    statuses = []

    def analyse(path):
        both_at_work.wait()
        statuses.append(connection.info.transaction_status)
        both_at_work.wait()
        return FOUND

    compute(connection, analyse, n_at_once=2)
    assert statuses == [TransactionStatus.IDLE] * 2


# --- the command -------------------------------------------------------------------------------------------------------------


def test_without_the_packages_the_command_says_how_to_install_them(monkeypatch, capsys):
    def missing():
        raise ConfigError("features of audio files need librosa")

    monkeypatch.setattr(audio_features, "require_packages", missing)
    assert exit_code_of(cli.main, ["features"]) == 2
    assert capsys.readouterr().err == "error: features of audio files need librosa\n"


def test_where_nothing_is_missing_no_process_is_started(database_url, monkeypatch, capsys):
    monkeypatch.setattr(audio_features, "require_packages", lambda: None)
    monkeypatch.setattr(audio_features, "Analysts", None)
    assert exit_code_of(cli.main, ["features", "--url", database_url]) == 0
    assert capsys.readouterr().out == "nothing to do: every song whose file is known has features\n"


@needs_librosa
@pytest.mark.slow
def test_the_command_goes_from_files_to_features(database_url, tmp_path, capsys):
    write_wav(tmp_path / "minor.wav", cadence("A minor", 6))
    write_wav(tmp_path / "major.wav", cadence("C major", 6))
    (tmp_path / "text.mp3").write_text("no music")
    with connect(database_url) as connection:
        add_songs(connection, **{name: str(tmp_path / name) for name in ("minor.wav", "major.wav", "text.mp3", "away.mp3")})
    assert exit_code_of(cli.main, ["features", "--url", database_url, "--audio-processes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["songs", "4", "0", "2", "0", "0"]
    assert lines[3] == f"left out 1 of the songs: its file is not there (first: {tmp_path / 'away.mp3'})"
    assert lines[4].startswith("left out 1 of the songs: its file cannot be decoded")
    with connect(database_url) as connection:
        found = rows(connection, "song", "song_id", "key", "mode", "feature_source")
    assert found == [
        ("away.mp3", None, None, None),
        ("major.wav", 0, 1, "librosa"),
        ("minor.wav", 9, 0, "librosa"),
        ("text.mp3", None, None, None),
    ]
