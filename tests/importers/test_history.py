"""`import auto`: which files are found, what each of them is taken for, and what is refused."""

import json
import zipfile

import pytest

from config import ImportConfig
from errors import ConfigError, DataError
from importers import FORMATS, NAMES, import_path
from importers.files import MAX_ZIP_ENTRIES, all_files
from importers.history import recognised
from tests.importers.small import rows, write_csv

PLAY = {
    "ts": "2026-01-31T12:03:00Z",
    "ms_played": 180_000,
    "ip_addr": "203.0.113.7",
    "username": "somebody",
    "master_metadata_track_name": "Low Tide",
    "master_metadata_album_artist_name": "The Piers",
    "master_metadata_album_album_name": "Harbour",
    "spotify_track_uri": "spotify:track:" + "1" * 22,
    "reason_end": "trackdone",
    "skipped": False,
    "incognito_mode": False,
}
ACCOUNT_PLAY = {"endTime": "2026-01-31 12:03", "artistName": "The Piers", "trackName": "Low Tide", "msPlayed": 180_000}
LIST = {"playlist": {"title": "Evening", "track": [{"title": "Low Tide", "creator": "The Piers"}]}}


def imported(connection, path, name="auto", **options):
    return import_path(connection, name, path, ImportConfig(), progress=False, **options)


def write_export(folder):
    """An extended history, account data that tell the same play, a playlist, and files that are none."""
    (folder / "MyData").mkdir(parents=True)
    (folder / "MyData" / "Streaming_History_Audio_2026_0.json").write_text(json.dumps([PLAY]))
    (folder / "MyData" / "StreamingHistory_music_0.json").write_text(json.dumps([ACCOUNT_PLAY]))
    (folder / "MyData" / "evening.jspf").write_text(json.dumps(LIST))
    (folder / "MyData" / "ReadMeFirst.pdf").write_bytes(b"%PDF")
    (folder / ".hidden.json").write_text("[")
    return folder


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("as_zip", [False, True])
def test_auto_reads_what_each_format_knows_and_leaves_the_rest_alone(connection, tmp_path, caplog, as_zip):
    path = write_export(tmp_path / "export")
    with caplog.at_level("INFO"):
        tallies = imported(connection, zipped(path, tmp_path / "my_data.zip") if as_zip else path)
    assert [tally.line() for tally in tallies] == [
        "spotify: added 1 song, 1 artist, 1 album, 1 play",
        "spotify-account: nothing new (1 song, 1 play already there)",
        "jspf: added 1 playlist, 1 row",
    ]
    assert "left alone (MyData/ReadMeFirst.pdf)" in caplog.text
    assert rows(connection, "listen", "song_id", "source") == [("spotify:track:" + "1" * 22, "spotify")]


def test_nothing_of_the_listener_is_stored(connection, tmp_path):
    imported(connection, write_export(tmp_path))
    stored = connection.execute(
        "SELECT to_jsonb(listen)::text FROM music.listen UNION ALL SELECT to_jsonb(song)::text FROM music.song"
    ).fetchall()
    assert stored
    assert not any(word in text for (text,) in stored for word in ("203.0.113.7", "somebody"))


def test_account_data_add_nothing_to_the_time_that_an_extended_history_covers(connection, tmp_path):
    later = PLAY | {"ts": "2026-01-31T14:03:00Z", "incognito_mode": True}
    last = PLAY | {"ts": "2026-01-31T16:03:00Z"}
    (tmp_path / "Streaming_History_Audio_2026_0.json").write_text(json.dumps([PLAY, later, last]))
    ends = ("2026-01-31 12:03", "2026-01-31 14:03", "2026-01-31 16:03", "2026-01-31 18:03")
    (tmp_path / "StreamingHistory_music_0.json").write_text(json.dumps([ACCOUNT_PLAY | {"endTime": end} for end in ends]))
    imported(connection, tmp_path)
    assert [(at.hour, source) for at, source in rows(connection, "listen", "listened_at", "source")] == [
        (12, "spotify"),
        (16, "spotify"),
        (18, "spotify-account"),
    ]


def test_a_single_file_is_recognised_by_its_content(connection, tmp_path):
    (tmp_path / "renamed.json").write_text(json.dumps([PLAY]))
    assert [tally.source for tally in imported(connection, tmp_path / "renamed.json")] == ["spotify"]


def test_auto_knows_catalogues_too(connection, tmp_path):
    assert imported(connection, write_csv(tmp_path / "tapes"))[0].source == "tapes"
    movies = tmp_path / "ml-x"
    movies.mkdir()
    (movies / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")
    (movies / "movies.csv").write_text("movieId,title,genres\n2,M,x\n")
    assert imported(connection, movies)[0].source == "movielens-x"


def test_a_name_reads_its_own_format_only(connection, tmp_path):
    assert [tally.source for tally in imported(connection, write_export(tmp_path), "jspf")] == ["jspf"]


def test_what_nobody_knows_names_what_is_known(connection, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds nothing that is known here \(notes\.txt\): known are .*Spotify extended"):
        imported(connection, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        imported(connection, tmp_path / "away")


def test_a_prefix_goes_with_catalogues_only(connection, tmp_path):
    with pytest.raises(ConfigError, match="--prefix mine goes with csv and movielens only"):
        imported(connection, write_export(tmp_path), prefix="mine")


def test_a_source_of_ones_own_is_for_one_format(connection, tmp_path):
    with pytest.raises(ConfigError, match=r"--source mine is for one format, and .* holds several"):
        imported(connection, write_export(tmp_path), source="mine")


def test_a_source_cannot_be_taken_for_sessions(connection, tmp_path):
    with pytest.raises(ConfigError, match="--source listen is what ids of listening sessions begin with"):
        imported(connection, write_export(tmp_path), "jspf", source="listen")


def test_names_of_files_cannot_command_a_terminal(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("\x1b[2Jendsong_0.json", "[]")
    assert [file.name for file in all_files(tmp_path / "a.zip")] == ["?[2Jendsong_0.json"]


def test_a_table_with_the_line_ends_of_old_macs_stops_nothing(connection, tmp_path):
    folder = write_export(tmp_path)
    (folder / "old.csv").write_bytes(b"a,b\rc,d\r")
    assert [tally.source for tally in imported(connection, folder)] == ["spotify", "spotify-account", "jspf"]


def test_one_broken_file_of_many_takes_everything_back(connection, tmp_path):
    folder = write_export(tmp_path)
    (folder / "MyData" / "Streaming_History_Audio_2026_1.json").write_text(json.dumps([PLAY])[:-30])
    with pytest.raises(DataError, match=r"Streaming_History_Audio_2026_1\.json"):
        imported(connection, folder)
    connection.commit()
    assert rows(connection, "listen", "song_id") == []


def test_a_broken_file_of_the_second_format_takes_the_first_back(connection, tmp_path):
    folder = write_export(tmp_path)
    (folder / "MyData" / "StreamingHistory_music_1.json").write_text('[{"endTime":')
    with pytest.raises(DataError, match=r"StreamingHistory_music_1\.json"):
        imported(connection, folder)
    connection.commit()
    assert rows(connection, "listen", "song_id") == []


def test_a_zip_with_ways_out_of_it_is_read_and_nothing_is_written(connection, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "evil.zip", "w") as archive:
        archive.writestr("../../Streaming_History_Audio_2026_0.json", json.dumps([PLAY]))
        archive.writestr("/etc/evening.jspf", json.dumps(LIST))
    before = sorted(path for path in tmp_path.rglob("*"))
    assert [tally.source for tally in imported(connection, inside / "evil.zip")] == ["spotify", "jspf"]
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_zips_have_limits(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for n in range(MAX_ZIP_ENTRIES + 1):
            archive.writestr(f"{n}.json", "[]")
    with pytest.raises(DataError, match=r"many\.zip has 2,001 entries"):
        all_files(tmp_path / "many.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("endsong_0.json", b" " * 5_000_000)
    monkeypatch.setattr("importers.files.MAX_ZIP_BYTES", 4_000_000)
    with pytest.raises(DataError, match=r"bomb\.zip unpacks to 5,000,000 bytes"):
        all_files(tmp_path / "bomb.zip")


def test_a_zip_in_a_folder_is_looked_into_and_a_broken_one_left_alone(connection, tmp_path, caplog):
    folder = tmp_path / "exports"
    folder.mkdir()
    whole = zipped(write_export(tmp_path / "export"), folder / "my_data.zip").read_bytes()
    (folder / "photos.zip").write_bytes(whole[:100])
    assert [tally.source for tally in imported(connection, folder)] == ["spotify", "spotify-account", "jspf"]
    assert "left alone: photos.zip is no whole zip (cut off?): fetch it again" in caplog.text


def test_what_is_half_a_zip_or_nothing_says_so(connection, tmp_path):
    whole = zipped(write_export(tmp_path / "export"), tmp_path / "whole.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"half\.zip is no whole zip \(cut off\?\): fetch it again"):
        imported(connection, tmp_path / "half.zip")
    with pytest.raises(DataError, match=r"empty\.zip is empty: fetch it again"):
        imported(connection, tmp_path / "empty.zip")


def test_a_zip_cut_anywhere_is_one_clear_error(connection, tmp_path):
    whole = zipped(write_export(tmp_path / "export"), tmp_path / "whole.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    for length in range(0, len(whole), 97):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError):
            imported(connection, cut)
    assert rows(connection, "song", "song_id") == []


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "endsong_0.json").write_text("[]")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "endsong_1.json").symlink_to(outside / "endsong_0.json")
    (folder / "endsong_2.json").write_text("[]")
    assert [file.name for file in all_files(folder)] == ["endsong_2.json"]


def test_a_file_belongs_to_one_format(tmp_path):
    found, rest = recognised(all_files(write_export(tmp_path)), FORMATS)
    assert {each.title: [file.base_name for file in files] for each, files in found.items()} == {
        "Spotify extended streaming history": ["Streaming_History_Audio_2026_0.json"],
        "Spotify account data: listening history": ["StreamingHistory_music_0.json"],
        "JSPF playlists": ["evening.jspf"],
    }
    assert [file.base_name for file in rest] == ["ReadMeFirst.pdf"]


def test_names_are_those_of_the_formats():
    assert NAMES[0] == "auto"
    assert set(NAMES) >= {"csv", "movielens", "spotify", "spotify-account", "exportify", "jspf", "m3u"}
