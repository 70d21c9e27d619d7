"""M3U8: what stands in the file, and what the parser of another library makes of it."""

import re
from pathlib import Path

import ipytv.playlist
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.m3u8 import write_m3u8, written_path
from exporters.playlist import ExportedSong, Target
from tests.exporters.small import ANYWHERE, EVENING, IN_MUSIC, LOW_TIDE, of


def test_a_song_stands_with_length_artist_and_title_before_its_path():
    written = write_m3u8(EVENING, IN_MUSIC)
    assert written.text.splitlines() == [
        "#EXTM3U",
        "#EXTENC: UTF-8",
        "#PLAYLIST:Evening",
        "#EXTINF:218,The Piers - Low Tide",
        "#EXTART:The Piers",
        "#EXTALB:Harbour",
        "../The Piers/Low Tide.flac",
        "# 1 of 2 songs are left out, no file of theirs is known: 2",
        "# 2: s2",
    ]
    assert written.notes == ("1 of 2 songs are left out, no file of theirs is known: 2",)


@pytest.mark.parametrize(
    ("location", "folder", "path"),
    [
        ("/music/a/b.mp3", "/music/lists", "../a/b.mp3"),
        ("/music/lists/b.mp3", "/music/lists", "b.mp3"),
        ("/music/b.mp3", "/disk/lists", "/music/b.mp3"),
        ("/music/b.mp3", None, "/music/b.mp3"),
        ("/music/#b.mp3", "/music", "./#b.mp3"),
        ("/music/ b.mp3", "/music", "./ b.mp3"),
        ("/music/a: b.mp3", "/music", "./a: b.mp3"),
        ("/music/a\\b.mp3", "/music", "./a\\b.mp3"),
        ("/music/a/a\\b.mp3", "/music", "a/a\\b.mp3"),
        ("/music/b.mp3 ", "/music", "file:///music/b.mp3%20"),
        ("/music/a\nb.mp3", "/music", "file:///music/a%0Ab.mp3"),
        ("//nas/b.mp3", "/music", "//nas/b.mp3"),
        ("C:\\Music\\b.mp3", "/music", "C:\\Music\\b.mp3"),
        ("http://nas/b.mp3?id=%20", "/music", "http://nas/b.mp3?id=%20"),
        ("http://nas/b\n.mp3", "/music", "http://nas/b%0A.mp3"),
        ("#b.mp3", "/music", "./#b.mp3"),
        ("a\nb.mp3", "/music", None),
    ],
)
def test_a_location_becomes_a_line(location, folder, path):
    assert written_path(location, None if folder is None else Path(folder)) == path


def test_a_folder_behind_a_link_is_taken_for_what_it_is(tmp_path):
    (tmp_path / "disk" / "lists").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "lists").symlink_to(tmp_path / "disk" / "lists")
    path = written_path(f"{tmp_path}/own/a.mp3", tmp_path / "own" / "lists")
    assert path is not None
    assert (tmp_path / "disk" / "lists" / path).resolve() == tmp_path / "own" / "a.mp3"


@pytest.mark.parametrize(
    ("song", "line"),
    [
        (ExportedSong(song_id=1, location="/a", title="b"), "#EXTINF:-1,b"),
        (ExportedSong(song_id=1, location="/a", artist="c"), "#EXTINF:-1,"),
        (ExportedSong(song_id=1, location="/a", title="b\n#c", artist="d\r\ne", duration_ms=1_499), "#EXTINF:1,d e - b #c"),
        (ExportedSong(song_id=1, location="/a", title="b", duration_ms=499), "#EXTINF:-1,b"),
        (ExportedSong(song_id=1, location="/a", title="b, c", artist='"d"'), '#EXTINF:-1,"d" - b, c'),
    ],
)
def test_line_ends_and_commas_do_no_harm(song, line):
    assert write_m3u8(of(song), ANYWHERE).text.splitlines()[3] == line


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@given(st.lists(st.tuples(texts, texts, texts, st.integers(0, 10**7)), min_size=1, max_size=5), texts)
def test_the_parser_of_another_library_finds_every_song(songs, name):
    listed = [
        ExportedSong(song_id=place, title=title, artist=artist, location=f"/{file}/x", duration_ms=duration_ms)
        for place, (title, artist, file, duration_ms) in enumerate(songs)
    ]
    channels = ipytv.playlist.loads(write_m3u8(of(*listed, name=name), Target()).text).get_channels()
    assert len(channels) == len(songs)
    for channel, (title, artist, _, duration_ms) in zip(channels, songs, strict=True):
        artist, title = (" ".join(re.split("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", text)).strip() for text in (artist, title))
        assert channel.name.strip() == (f"{artist} - {title}" if artist and title else title)
        assert channel.duration == str((duration_ms + 500) // 1000 or -1)


def test_the_parser_of_another_library_finds_paths_as_they_are():
    [channel] = ipytv.playlist.loads(write_m3u8(of(LOW_TIDE), IN_MUSIC).text).get_channels()
    assert (channel.url, channel.name, channel.duration) == ("../The Piers/Low Tide.flac", "The Piers - Low Tide", "218")
