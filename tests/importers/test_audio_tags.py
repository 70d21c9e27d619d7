"""Tags of each kind of container, written by mutagen itself, and files that are damaged."""

import random
import struct
import wave
from datetime import date

import pytest
from mutagen.apev2 import APEv2
from mutagen.asf import ASFTags, ASFUnicodeAttribute
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TALB, TDRC, TIT2, TPE1, TPOS, TRCK, TSRC, TXXX, UFID
from mutagen.mp4 import MP4FreeForm, MP4Tags
from mutagen.wave import WAVE

from importers.audio_tags import song_of_tags, tagged
from importers.records import Heard

RECORDING, ARTIST, RELEASE = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")
SONG = Heard(
    artist="The Piers",
    title="Low Tide",
    album="Harbour",
    isrc="QZABC2000001",
    recording_mbid=RECORDING,
    artist_mbid=ARTIST,
    release_mbid=RELEASE,
    track_number=7,
    disc_number=2,
    release_date=date(1999, 5, 1),
)
VORBIS = {
    "artist": ["The Piers", "Nova"],
    "title": "Low Tide",
    "album": "Harbour",
    "isrc": "QZABC2000001",
    "musicbrainz_trackid": RECORDING,
    "musicbrainz_artistid": [ARTIST, RELEASE],
    "musicbrainz_albumid": RELEASE,
    "tracknumber": "7/12",
    "discnumber": "2",
    "date": "1999-05",
}


def fill_id3(tags):
    for frame in (
        TPE1(text=["The Piers", "Nova"]),
        TIT2(text="Low Tide"),
        TALB(text="Harbour"),
        TSRC(text="QZABC2000001"),
        UFID(owner="http://musicbrainz.org", data=RECORDING.encode()),
        TXXX(desc="MusicBrainz Artist Id", text=f"{ARTIST}/{RELEASE}"),
        TXXX(desc="MusicBrainz Album Id", text=RELEASE),
        TRCK(text="7/12"),
        TPOS(text="2/2"),
        TDRC(text="1999-05"),
    ):
        tags.add(frame)


def write_wav(path):
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(1)
        audio.setframerate(8_000)
        audio.writeframes(b"\x80" * 12_000)  # 1.5 s
    tagged_file = WAVE(path)
    tagged_file.add_tags()
    fill_id3(tagged_file.tags)
    tagged_file.save()
    return path


def write_flac(path):
    """A FLAC file of 1.5 s without a frame: its header and tags."""
    rate_channels_bits_samples = (8_000 << 44) | (0 << 41) | (15 << 36) | 12_000
    header = struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", rate_channels_bits_samples) + bytes(16)
    path.write_bytes(b"fLaC" + bytes([0x80]) + len(header).to_bytes(3, "big") + header)
    audio = FLAC(path)
    audio.update(VORBIS)
    audio.save()
    return path


def write_mp3(path):
    frame = b"\xff\xfb\x90\xc4" + bytes(413)  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz, mono: 1,152 samples
    path.write_bytes(frame * 50)
    tags = ID3()
    fill_id3(tags)
    tags.save(path)
    return path


@pytest.mark.parametrize("write", [write_wav, write_flac])
def test_the_tags_of_a_file_and_its_length_are_read(write, tmp_path):
    assert tagged(write(tmp_path / "song")) == SONG._replace(duration_ms=1_500)


def test_an_mp3_is_read_as_well(tmp_path):
    found = tagged(write_mp3(tmp_path / "song.mp3"))
    assert found is not None
    assert found._replace(duration_ms=None) == SONG
    assert found.duration_ms == pytest.approx(50 * 1152 / 44.1, rel=0.05)


def test_the_names_of_tags_in_mp4_asf_and_ape_mean_the_same():
    mp4, asf, ape = MP4Tags(), ASFTags(), APEv2()
    free = "----:com.apple.iTunes:"
    mp4.update({"\xa9ART": ["The Piers"], "\xa9nam": ["Low Tide"], "\xa9alb": ["Harbour"], "\xa9day": ["1999-05"]})
    mp4.update({"trkn": [(7, 12)], "disk": [(2, 2)], f"{free}ISRC": [MP4FreeForm(b"QZABC2000001")]})
    mp4[f"{free}MusicBrainz Track Id"] = [MP4FreeForm(RECORDING.encode())]
    mp4[f"{free}MusicBrainz Artist Id"] = [MP4FreeForm(ARTIST.encode())]
    mp4[f"{free}MusicBrainz Album Id"] = [MP4FreeForm(RELEASE.encode())]
    for name, text in {
        "Author": "The Piers",
        "Title": "Low Tide",
        "WM/AlbumTitle": "Harbour",
        "WM/Year": "1999-05",
        "WM/TrackNumber": "7",
        "WM/PartOfSet": "2/2",
        "WM/ISRC": "QZABC2000001",
        "MusicBrainz/Track Id": RECORDING,
        "MusicBrainz/Artist Id": ARTIST,
        "MusicBrainz/Album Id": RELEASE,
    }.items():
        asf[name] = [ASFUnicodeAttribute(text)]
    for name, text in {**VORBIS, "artist": "The Piers\0Nova", "track": "7", "disc": "2/2", "year": "1999-05"}.items():
        if name not in ("tracknumber", "discnumber", "date"):
            ape[name] = text
    assert [song_of_tags(tags) for tags in (mp4, asf, ape)] == [SONG, SONG, SONG]


def test_a_tag_that_cannot_be_used_is_none_and_so_is_a_file_without_tags():
    tags = ID3()
    for frame in (
        TPE1(text="\0"),
        TIT2(text=" "),
        TRCK(text="A7"),
        TDRC(text="soon"),
        TXXX(desc="MusicBrainz Album Id", text="x"),
    ):
        tags.add(frame)
    assert song_of_tags(tags) == song_of_tags(None) == Heard()


def test_what_is_no_audio_file_tells_nothing(tmp_path):
    (tmp_path / "text.mp3").write_text("no music")
    (tmp_path / "empty.flac").touch()
    assert [tagged(tmp_path / name) for name in ("text.mp3", "empty.flac", "away.mp3", ".")] == [None] * 4


@pytest.mark.parametrize("write", [write_wav, write_flac, write_mp3])
def test_a_damaged_file_raises_nothing(write, tmp_path):
    whole = write(tmp_path / "song").read_bytes()
    chance = random.Random(0)
    damaged = tmp_path / "damaged"
    for _ in range(300):
        content = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(20)):
            if content:
                content[chance.randrange(min(len(content), 600))] = chance.randrange(256)
        damaged.write_bytes(content)
        assert isinstance(tagged(damaged), Heard | None)
