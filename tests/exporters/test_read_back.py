"""What is exported and read back by our importers is the same playlist, whatever signs are in it."""

import io
import re
from datetime import timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from exporters import EXPORTERS, ExportedList, ExportedSong, Target
from importers.exportify import EXPORTIFY
from importers.files import TextFile
from importers.jspf import JSPF
from importers.m3u import M3U
from importers.own_json import OWN_JSON
from importers.records import Heard
from tests.exporters.small import CREATED
from tests.importers.handed import left_out, read

SIGNS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ODD = st.sampled_from(
    ["=1+1", "'=x", "''", "a - b", "#c", "a, b; c", '"', "\\,", "\n", "\r\n", "’", "二", "\u2028", "  x ", "\ufeff", "%41"]
)
TEXT = st.one_of(ODD, st.text(SIGNS, min_size=1, max_size=20), st.lists(ODD, min_size=1, max_size=4).map("".join))
MBID = st.uuids().map(str)
PART = st.text(SIGNS.filter(lambda sign: sign != "/"), min_size=1, max_size=12).filter(lambda part: part not in (".", ".."))
LOCATION = st.lists(PART, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
SPOTIFY_ID = st.text("0123456789abcdefghijABCDEFGHIJ", min_size=22, max_size=22)


def maybe(strategy):
    return st.none() | strategy


SONGS = st.builds(
    ExportedSong,
    song_id=st.integers() | st.uuids() | TEXT | SPOTIFY_ID.map("spotify:track:{}".format),
    title=maybe(TEXT),
    artist=maybe(TEXT),
    album=maybe(TEXT),
    duration_ms=maybe(st.integers(1, 2**31 - 1)),
    isrc=maybe(st.just("QZABC2000001")),
    recording_mbid=maybe(MBID),
    artist_mbid=maybe(MBID),
    release_mbid=maybe(MBID),
    location=maybe(LOCATION),
    rank=maybe(st.integers(1, 100)),
    score=maybe(st.floats(allow_nan=False, allow_infinity=False)),
    reasons=st.lists(TEXT, max_size=2).map(tuple),
)
LISTS = st.builds(ExportedList, name=TEXT, songs=st.lists(SONGS, max_size=6), created_at=st.just(CREATED), model_id=maybe(TEXT))


def handed(written, extension):
    data = written.text.encode()
    return TextFile(name=f"lists/a.{extension}", open=lambda: io.BytesIO(data))


def known(text):
    """A text, None where there are only blanks in it."""
    return text if text and not text.isspace() else None


def heard(song):
    """What a song is known by, as an importer tells it."""
    return Heard(
        title=known(song.title),
        artist=known(song.artist),
        album=known(song.album),
        duration_ms=song.duration_ms,
        spotify_id=song.spotify_id,
        recording_mbid=song.recording_mbid,
        isrc=song.isrc,
        location=song.location,
        artist_mbid=song.artist_mbid,
        release_mbid=song.release_mbid,
    )


def can_be_found_again(song):
    by_name = song.artist and song.title
    return bool(song.spotify_id or song.recording_mbid or song.isrc or song.location or by_name)


def one_line(text):
    plain = " ".join(re.split("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", text or "")).strip()
    return plain or None


@given(LISTS)
def test_csv(exported):
    places, tally = read(EXPORTIFY, handed(EXPORTERS["csv"].write(exported, Target()), "csv"))
    expected = [song for song in map(heard, exported.songs) if can_be_found_again(song)]
    assert [place.heard for place in places] == expected
    assert all(place.name == known(exported.name) or place.name == "a" for place in places)
    assert sum(left_out(tally).values()) == len(exported.songs) - len(expected)


@given(LISTS)
def test_json(exported):
    places, tally = read(OWN_JSON, handed(EXPORTERS["json"].write(exported, Target()), "json"))
    expected = [song for song in map(heard, exported.songs) if can_be_found_again(song)]
    assert [place.heard for place in places] == expected
    assert all(place.name == (known(exported.name) or "a") for place in places)
    assert sum(left_out(tally).values()) == len(exported.songs) - len(expected)


@given(LISTS)
def test_jspf(exported):
    places, tally = read(JSPF, handed(EXPORTERS["jspf"].write(exported, Target()), "jspf"))
    expected = [song for song in map(heard, exported.songs) if can_be_found_again(song)]
    assert [place.heard for place in places] == expected
    assert all(place.name == (one_line(exported.name) or "Playlist") for place in places)
    assert sum(left_out(tally).values()) == len(exported.songs) - len(expected)


@given(LISTS)
def test_m3u8(exported):
    written = EXPORTERS["m3u8"].write(exported, Target())
    places, tally = read(M3U, handed(written, "m3u8"))
    expected = [
        Heard(
            title=one_line(song.title),
            artist=one_line(song.artist),
            album=one_line(song.album),
            duration_ms=rounded(song.duration_ms),
            location=song.location,
        )
        for song in exported.songs
        if song.location
    ]
    assert [place.heard for place in places] == expected
    assert all(place.name == (one_line(exported.name) or "a") for place in places)
    assert left_out(tally) == {}
    assert bool(written.notes) == (len(expected) < len(exported.songs))


def rounded(duration_ms):
    """To whole seconds, a half upwards; None where nothing is left."""
    if duration_ms is None or duration_ms < 500:
        return None
    seconds = (timedelta(milliseconds=duration_ms) + timedelta(milliseconds=500)) // timedelta(seconds=1)
    return seconds * 1000 if seconds < (2**31 - 1) / 1000 else None


def test_m3u8_with_paths_relative_to_its_folder(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    locations = [
        f"{tmp_path}/{name}" for name in ("a.mp3", "#b.mp3", " c.mp3", "d\\e.mp3", "f: g.mp3", "lists/h.mp3", "i\nj", "k ")
    ]
    exported = ExportedList(name="a", songs=[ExportedSong(song_id=path, location=path) for path in locations], created_at=CREATED)
    (lists / "a.m3u8").write_text(EXPORTERS["m3u8"].write(exported, Target(folder=lists)).text, newline="")
    file = TextFile(name="a.m3u8", path=lists / "a.m3u8", open=lambda: (lists / "a.m3u8").open("rb"))
    assert [place.heard.location for place in read(M3U, file)[0]] == locations


def test_a_uuid_as_song_id_does_no_harm():
    exported = ExportedList(name="a", songs=[ExportedSong(song_id=UUID(int=1), title="x", artist="y")], created_at=CREATED)
    for extension, reader in (("csv", EXPORTIFY), ("jspf", JSPF)):
        [place] = read(reader, handed(EXPORTERS[extension].write(exported, Target()), extension))[0]
        assert place.heard == Heard(title="x", artist="y")
