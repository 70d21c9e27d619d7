"""M3U as players write it: paths of every kind, encodings, what is told of a song, and the tags of its file."""

from contextlib import contextmanager

import pytest

from errors import DataError
from importers.files import TextFile
from importers.m3u import M3U, song_of_path
from importers.records import Heard, Place
from tests.importers.handed import emptied, handed, left_out, outcomes_of_cutting, read
from tests.importers.test_audio_tags import SONG, write_flac

EVENING = """#EXTM3U
#PLAYLIST:Evening

#EXTINF:218,The Piers - Low Tide
#EXTALB:Harbour
/music/The Piers/07.mp3
#EXTINF:-1 tvg-logo="a,b" x="y",Nova - Rise, Again - Live
#EXTVLCOPT:start-time=1
../Nova/Rise.flac
/music/The Piers/Harbour/08 - Rain.ogg
"""


def lying(path, *, named=None):
    """A playlist on disk; `named` is the folder that was named for import, else that of the playlist."""
    name = path.name if named is None else path.relative_to(named).as_posix()
    return TextFile(name=name, open=lambda: path.open("rb"), path=path)


def songs(*lines, name="a.m3u8", header="#EXTM3U"):
    places, tally = read(M3U, handed(name, "\n".join([header, *lines, ""])))
    assert emptied(tally) == {}
    return [place.heard for place in places]


def test_a_line_is_a_song_with_what_the_lines_before_it_say():
    places, tally = read(M3U, handed("lists/evening.m3u8", EVENING))
    assert places == [
        Place(
            line=6,
            playlist="lists/evening.m3u8",
            name="Evening",
            heard=Heard(
                artist="The Piers", title="Low Tide", album="Harbour", duration_ms=218_000, location="/music/The Piers/07.mp3"
            ),
        ),
        Place(
            line=9,
            playlist="lists/evening.m3u8",
            name="Evening",
            heard=Heard(artist="Nova", title="Rise, Again - Live", location="Nova/Rise.flac"),
        ),
        Place(
            line=10,
            playlist="lists/evening.m3u8",
            name="Evening",
            heard=Heard(artist="The Piers", title="Rain", album="Harbour", location="/music/The Piers/Harbour/08 - Rain.ogg"),
        ),
    ]
    assert left_out(tally) == {}


@pytest.mark.parametrize(
    ("line", "location"),
    [
        ("a/b.mp3", "a/b.mp3"),
        ("./a/../b.mp3", "b.mp3"),
        ("  b.mp3\t", "b.mp3"),
        ("a\\b.mp3", "a/b.mp3"),
        ("C:\\Music\\b.mp3", "C:\\Music\\b.mp3"),
        ("file:///music/b%20c.mp3", "/music/b c.mp3"),
        ("http://anna:secret@nas/b.mp3?token=1", "http://nas/b.mp3"),
        ("../../../etc/passwd", "../../../etc/passwd"),
    ],
)
def test_a_path_of_any_kind_becomes_a_location(line, location):
    assert [song.location for song in songs(line)] == [location]


def test_a_link_to_spotify_is_an_id():
    linked = Heard(spotify_id="5Q7vla0EpIHVcEL9SuE0Ka")
    assert songs("https://open.spotify.com/track/5Q7vla0EpIHVcEL9SuE0Ka", "spotify:track:5Q7vla0EpIHVcEL9SuE0Ka") == [linked] * 2


@pytest.mark.parametrize(
    ("told", "heard"),
    [
        (["#EXTINF:12.5,a - b"], Heard(artist="a", title="b", duration_ms=12_500)),
        (["#EXTINF:0,b"], Heard(title="b")),
        (["#EXTINF:,a - b"], Heard(artist="a", title="b")),
        (["#EXTINF:12"], Heard(title="x", duration_ms=12_000)),
        (["#EXTINF 12,a - b"], Heard(artist="a", title="b", duration_ms=12_000)),
        (["#extinf:12,a - b"], Heard(artist="a", title="b", duration_ms=12_000)),
        (['#EXTINF:12 x="open,a - b'], Heard(artist="a", title="b")),
        (["#EXTINF:soon,a - b"], Heard(artist="a", title="b")),
        (["#EXTINF:" + "9" * 400 + ",a - b"], Heard(artist="a", title="b")),
        (["#EXTINF:1,a - b - c", "#EXTART:a - b"], Heard(artist="a - b", title="c", duration_ms=1_000)),
        (["#EXTART:a", "#EXTALB:c"], Heard(artist="a", album="c")),
        (["#EXTINF:1,\0", "# just a word"], Heard(title="x", duration_ms=1_000)),
    ],
)
def test_what_is_told_of_a_song(told, heard):
    assert songs(*told, "x.mp3") == [heard._replace(location="x.mp3")]


@pytest.mark.parametrize(
    ("path", "artist", "title", "album"),
    [
        ("/m/The Piers - Low Tide.mp3", "The Piers", "Low Tide", None),
        ("03 The Piers - Low Tide.mp3", "The Piers", "Low Tide", None),
        ("1-07. The Piers - Low Tide.mp3", "The Piers", "Low Tide", None),
        ("The Piers/Harbour/07 Low Tide.mp3", "The Piers", "Low Tide", "Harbour"),
        ("C:\\The Piers\\Harbour\\07_Low Tide.mp3", "The Piers", "Low Tide", "Harbour"),
        ("../Harbour/07 Low Tide.mp3", None, "Low Tide", None),
        ("/Harbour/07 Low Tide.mp3", None, "Low Tide", None),
        ("/music/various/Low Tide.mp3", None, "Low Tide", None),
        ("/a/b/The Piers - Harbour - 07 - Low Tide.mp3", None, None, None),
        ("/a/b/1999.mp3", None, "1999", None),
        ("/a/b/99 Boats.mp3", "a", "Boats", "b"),
        ("http://nas/The Piers - Low Tide.mp3", None, None, None),
        ("/", None, None, None),
    ],
)
def test_a_path_names_a_song_where_it_is_clear(path, artist, title, album):
    assert song_of_path(path) == Heard(artist=artist, title=title, album=album)


def test_the_tags_of_a_file_in_the_folder_come_first(tmp_path):
    (tmp_path / "lists").mkdir()
    song = write_flac(tmp_path / "song.flac")
    playlist = tmp_path / "lists" / "a.m3u"
    playlist.write_text("#EXTINF:7,Somebody - Something\n../song.flac\n")
    [place] = read(M3U, lying(playlist, named=tmp_path))[0]
    assert place.heard == SONG._replace(duration_ms=1_500, location=str(song))
    assert place.playlist == "lists/a.m3u"


@pytest.mark.parametrize("path", ["../song.flac", "link.flac", "{outside}/song.flac", "file://{outside}/song.flac"])
def test_no_file_outside_of_the_folder_is_opened(path, tmp_path):
    outside, named = tmp_path / "outside", tmp_path / "outside" / "named"
    named.mkdir(parents=True)
    write_flac(outside / "song.flac")
    (named / "link.flac").symlink_to(outside / "song.flac")
    playlist = named / "a.m3u"
    playlist.write_text(path.format(outside=outside))
    [place] = read(M3U, lying(playlist, named=named))[0]
    assert place.heard.recording_mbid is None


def test_no_file_is_opened_for_a_playlist_within_a_zip(tmp_path):
    song = write_flac(tmp_path / "song.flac")
    lines = f"song.flac\n{song}\n".encode()

    @contextmanager
    def unpacked():
        with (tmp_path / "member").open("w+b") as stream:
            stream.write(lines)
            stream.seek(0)
            yield stream

    (tmp_path / "lists.zip").touch()
    file = TextFile(name="a.m3u", open=unpacked, path=tmp_path / "lists.zip")
    assert [(place.heard.recording_mbid, place.heard.location) for place in read(M3U, file)[0]] == [
        (None, "song.flac"),
        (None, str(song)),
    ]


def test_a_loop_of_links_and_an_endless_name_are_no_files(tmp_path):
    (tmp_path / "loop.mp3").symlink_to(tmp_path / "loop.mp3")
    playlist = tmp_path / "a.m3u"
    playlist.write_text("loop.mp3\n" + "x" * 300 + ".mp3\n")
    assert len(read(M3U, lying(playlist))[0]) == 2


def test_a_path_that_cannot_be_kept_costs_its_line():
    places, tally = read(M3U, handed("a.m3u8", "x" * 501 + "\na\0b.mp3\nc.mp3\n"))
    assert [place.heard.location for place in places] == ["c.mp3"]
    assert left_out(tally) == {
        ("rows", "its path is longer than 500 characters"): 1,
        ("rows", "its path holds a NUL character"): 1,
    }


def test_what_is_told_of_a_song_that_does_not_follow_goes_to_no_other():
    places, tally = read(M3U, handed("a.m3u8", "#EXTINF:1,a - b\n#EXTALB:c\n#EXTINF:2,d - e\nx.mp3\n"))
    assert [place.heard for place in places] == [Heard(artist="d", title="e", duration_ms=2_000, location="x.mp3")]
    assert left_out(tally) == {("rows", "no file follows what is told of it"): 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "Café.mp3\n".encode("utf-8-sig")),
        ("a.m3u", "Café.mp3\n".encode()),
        ("a.m3u", "Café.mp3\n".encode("latin-1")),
        ("a.m3u", "Café.mp3".encode("latin-1")),
        ("a.m3u", "#EXTENC: UTF-8\nCafé.mp3\n".encode()),
        ("a.m3u8", "#EXTM3U\n#EXTENC:ISO-8859-1\nCafé.mp3\n".encode("latin-1")),
        ("a.m3u", "Café.mp3\r\n".encode("cp1252")),
    ],
)
def test_a_list_may_be_written_in_several_encodings(name, content):
    assert [place.heard.location for place in read(M3U, handed(name, content))[0]] == ["Café.mp3"]


def test_a_last_letter_of_windows_is_no_cut_one_of_utf8():
    assert [place.heard.location for place in read(M3U, handed("a.m3u", "a.mp3\nCafé".encode("cp1252")))[0]] == ["a.mp3", "Café"]


def test_bytes_that_windows_has_no_letters_for_are_read_as_well():
    assert [place.heard.location for place in read(M3U, handed("a.m3u", b"\x81\xe9.mp3"))[0]] == ["\x81é.mp3"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.m3u8", b"Th\xe9.mp3\n", "a.m3u8 is not UTF-8 after line 0: save it as UTF-8"),
        ("a.m3u", "#EXTENC:klingon\na.mp3", "a.m3u says #EXTENC of an encoding that is not known: save it as UTF-8"),
        ("a.m3u", "#EXTENC:base64\na.mp3", "a.m3u says #EXTENC of an encoding that is not known: save it as UTF-8"),
        ("a.m3u", "Café é".encode()[:-1], "a.m3u ends in the middle of a letter (cut off?): fetch it again"),
        (
            "a.m3u",
            "#EXTINF:1,a - b\n",
            "a.m3u ends after line 1, which tells of a song that does not follow (cut off?): fetch it again",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_way_out(name, content, told):
    with pytest.raises(DataError) as raised:
        read(M3U, handed(name, content))
    assert str(raised.value) == told


@pytest.mark.parametrize("name", ["a.m3u", "a.m3u8"])
def test_a_file_that_was_cut_anywhere_is_an_error_or_a_shorter_list(name):
    data = EVENING.replace("Low", "Löw").encode()
    outcomes = outcomes_of_cutting(M3U, name, data)
    within_what_is_told = range(data.index(b"#EXTINF:218,") + 8, data.index(b"/music/The Piers/07"))
    assert {outcomes[end] for end in within_what_is_told} == {None}
    assert set(outcomes) == {None, 0, 1, 2, 3}


def test_its_files_are_known_by_their_endings_and_video_streams_are_not_among_them():
    ours = [handed("b/2.M3U8", EVENING), handed("a/10.m3u", b"\xe9")]
    foreign = [
        handed("c.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n1.ts\n"),
        handed("d.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8\n"),
        handed("._e.m3u", EVENING),
        handed("f.pls", EVENING),
        handed("g.m3u", b"\0\1\2"),
    ]
    assert [file.name for file in M3U.recognise([*ours, *foreign])] == ["b/2.M3U8", "a/10.m3u"]
