import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest

from errors import DataError
from importers import audio_decoding
from importers.audio_decoding import AWAY, DAMAGED, UNDECODABLE, WITHOUT_FFMPEG, decoding
from tests.importers.sounds import RATE, needs_librosa, sine, write_wav

pytestmark = needs_librosa


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(audio_decoding.shutil, "which", lambda name: None)


def decoded(path):
    """(samples a second, length by the header, samples)"""
    with decoding(path) as sound:
        return sound.rate, sound.n_frames, np.concatenate(list(sound.blocks))


def refused(path):
    """Why a file cannot be decoded."""
    with pytest.raises(DataError) as caught:
        decoded(path)
    return str(caught.value)


def test_the_samples_are_those_of_the_file(tmp_path):
    samples = np.stack([sine(0.5, 10), sine(0.25, 10)], axis=1)
    write_wav(tmp_path / "a.wav", samples)
    with decoding(tmp_path / "a.wav") as sound:
        blocks = list(sound.blocks)
    assert (sound.rate, sound.n_frames, len(blocks)) == (RATE, 10 * RATE, 4)
    assert np.abs(np.concatenate(blocks) - samples).max() < 1e-4


def test_a_wav_that_was_cut_is_as_long_as_what_is_left_of_it(tmp_path):
    whole = write_wav(tmp_path / "a.wav", sine(0.5, 10)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    _, n_frames, samples = decoded(tmp_path / "cut.wav")
    assert n_frames == len(samples) == pytest.approx(5 * RATE, abs=50)


def test_a_flac_that_was_cut_is_damaged(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-1, 1, 10 * RATE), RATE)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    assert len(decoded(tmp_path / "a.flac")[2]) == 10 * RATE
    assert refused(tmp_path / "cut.flac") == DAMAGED


def test_an_mp3_that_was_cut_gives_no_more_than_what_is_left_of_it(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.mp3", np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE), RATE)
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    _, n_frames, samples = decoded(tmp_path / "cut.mp3")
    assert n_frames == 10 * RATE
    assert len(samples) == pytest.approx(5 * RATE, rel=0.05)


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is a text\n" * 100, bytes(2_000)], ids=["none", "cut", "text", "zeros"])
def test_what_is_no_audio_is_refused(tmp_path, content):
    (tmp_path / "a.mp3").write_bytes(content)
    assert refused(tmp_path / "a.mp3") == WITHOUT_FFMPEG


def test_a_file_that_is_away_and_a_folder_are_refused(tmp_path):
    assert refused(tmp_path / "a.mp3") == AWAY
    assert refused(tmp_path) == AWAY


def test_a_rate_that_no_music_has_is_damage(tmp_path):
    assert refused(write_wav(tmp_path / "a.wav", sine(0.5, 1), rate=100)) == DAMAGED


# --- ffmpeg ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def handed_by_ffmpeg(tmp_path, monkeypatch):
    """Makes a program in the place of ffmpeg hand out these bytes and end with this code; returns a file to ask it for."""

    def make(output, code):
        (tmp_path / "output").write_bytes(output)
        (tmp_path / "ffmpeg").write_text(
            f"#!{sys.executable}\nimport shutil, sys\n"
            f"shutil.copyfileobj(open({str(tmp_path / 'output')!r}, 'rb'), sys.stdout.buffer)\nsys.exit({code})\n"
        )
        (tmp_path / "ffmpeg").chmod(0o700)
        monkeypatch.setattr(audio_decoding.shutil, "which", lambda name: str(tmp_path / name))
        (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A ")
        return tmp_path / "a.m4a"

    return make


AU = struct.pack(">4s5I4s", b".snd", 28, 0xFFFFFFFF, 6, 44_100, 2, b"note")


def test_what_libsndfile_does_not_know_is_taken_from_ffmpeg(handed_by_ffmpeg):
    samples = np.arange(200_000, dtype=np.float32).reshape(-1, 2)
    rate, n_frames, found = decoded(handed_by_ffmpeg(AU + samples.astype(">f4").tobytes(), 0))
    assert (rate, n_frames, found.tolist()) == (44_100, 0, samples.tolist())


@pytest.mark.parametrize(
    ("output", "code", "reason"),
    [(b"", 1, UNDECODABLE), (AU[:10], 0, UNDECODABLE), (b"x" * 100, 0, UNDECODABLE), (AU + bytes(800), 1, DAMAGED)],
    ids=["nothing", "cut header", "another header", "failed later"],
)
def test_what_ffmpeg_cannot_decode_is_refused(handed_by_ffmpeg, output, code, reason):
    assert refused(handed_by_ffmpeg(output, code)) == reason


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt-get install ffmpeg, brew install ffmpeg")
def test_a_real_ffmpeg_decodes_what_it_encoded(tmp_path):
    write_wav(tmp_path / "a.wav", sine(0.5, 10))
    subprocess.run(["ffmpeg", "-v", "quiet", "-i", tmp_path / "a.wav", "-c:a", "alac", tmp_path / "a.m4a"], check=True)
    rate, n_frames, samples = decoded(tmp_path / "a.m4a")
    assert (rate, n_frames, samples.shape) == (RATE, 10 * RATE, (10 * RATE, 1))
    assert np.abs(samples[:, 0] - sine(0.5, 10)).max() < 1e-4
