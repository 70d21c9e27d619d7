"""The samples of an audio file, block by block, so that memory grows neither with its length nor with its channels.

libsndfile reads WAV, AIFF, FLAC, Ogg, Opus and MP3; for what it does not know (M4A, WMA, APE) ffmpeg is asked, where it is
installed.  soundfile comes with requirements-audio.txt and is imported when the first file is opened.
"""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from errors import DataError
from importers.audio_tags import tagged

SAMPLES_PER_BLOCK = 131_072  # of all channels: half a megabyte
MAX_CHANNELS = 1_024  # as many as libsndfile takes
RATES = (4_000, 768_000)  # samples a second; a header that says anything else is damaged

AWAY = "its file is not there"
UNREADABLE = "its file cannot be read"
UNDECODABLE = "its file cannot be decoded"
WITHOUT_FFMPEG = f"{UNDECODABLE} (M4A, WMA and APE need the program ffmpeg)"
DAMAGED = "its file is damaged or cut off"

# Of AU, which is read without seeking: magic, where the samples begin, size, encoding, rate, channels.
_AU_HEADER = struct.Struct(">4s5I")
_AU_BIG_ENDIAN_FLOAT = np.dtype(">f4")


class Sound(NamedTuple):
    """A file that is being decoded."""

    rate: int
    """Samples a second of each channel."""
    n_frames: int
    """How long it is as its header says, in samples of one channel; 0 where it does not."""
    blocks: Iterator[np.ndarray]
    """(samples, channels), full scale at 1."""


@contextmanager
def decoding(path: Path) -> Iterator[Sound]:
    """The samples of a file.  Raises DataError with the rest of a sentence about its song, be it in the midst of the blocks."""
    _check_readable(path)
    file = _opened(path)
    if file is None:
        with _ffmpeg(path) as sound:
            yield _checked(sound)
    else:
        with file:
            yield _checked(Sound(rate=file.samplerate, n_frames=max(0, file.frames), blocks=_blocks(file)))


def _check_readable(path: Path) -> None:
    try:
        if not path.is_file():
            raise DataError(AWAY)
        with path.open("rb"):
            return
    except (OSError, ValueError) as exc:  # no right to read it, a loop of links, a NUL
        raise DataError(UNREADABLE) from exc


def _opened(path: Path) -> Any:
    """A soundfile.SoundFile, None where libsndfile does not know what it is."""
    import soundfile

    try:
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError):
        return None


def _checked(sound: Sound) -> Sound:
    if not RATES[0] <= sound.rate <= RATES[1]:
        raise DataError(DAMAGED)
    return sound


def _blocks(file: Any) -> Iterator[np.ndarray]:
    import soundfile

    # not by file.blocks(): where an MP3 holds less than its header says, that hands on what was in its buffer before
    try:
        while len(block := file.read(_frames_per_block(file.channels), dtype="float32", always_2d=True)):
            yield block
    except soundfile.SoundFileError as exc:
        raise DataError(DAMAGED) from exc


def _frames_per_block(channels: int) -> int:
    return max(1, SAMPLES_PER_BLOCK // channels)


# --- what libsndfile does not know -------------------------------------------------------------------------------------------


@contextmanager
def _ffmpeg(path: Path) -> Iterator[Sound]:
    program = shutil.which("ffmpeg")
    if program is None:
        raise DataError(WITHOUT_FFMPEG)
    # A file may itself name addresses and other files, as a playlist does: no protocol but this one is let in.
    asked = ["-v", "quiet", "-nostdin", "-protocol_whitelist", "file", "-i", f"file:{path}"]
    wanted = ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-"]
    with subprocess.Popen([program, *asked, *wanted], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            rate, channels = _au_header(process.stdout)
            yield Sound(rate=rate, n_frames=_frames_by_tags(path, rate), blocks=_au_blocks(process, process.stdout, channels))
        finally:
            process.kill()  # where it was not read to its end


def _au_header(stream: IO[bytes]) -> tuple[int, int]:
    """(rate, channels)"""
    head = stream.read(_AU_HEADER.size)
    if len(head) < _AU_HEADER.size:
        raise DataError(UNDECODABLE)
    magic, offset, _, _, rate, channels = _AU_HEADER.unpack(head)
    if magic != b".snd" or not 0 < channels <= MAX_CHANNELS:
        raise DataError(UNDECODABLE)
    stream.read(offset - _AU_HEADER.size)
    return rate, channels


def _au_blocks(process: "subprocess.Popen[bytes]", stream: IO[bytes], channels: int) -> Iterator[np.ndarray]:
    size = _frames_per_block(channels) * channels * _AU_BIG_ENDIAN_FLOAT.itemsize
    while data := stream.read(size):
        whole = len(data) // (channels * _AU_BIG_ENDIAN_FLOAT.itemsize) * channels
        yield np.frombuffer(data, _AU_BIG_ENDIAN_FLOAT, count=whole).astype(np.float32).reshape(-1, channels)
    if process.wait() != 0:
        raise DataError(DAMAGED)


def _frames_by_tags(path: Path, rate: int) -> int:
    known = tagged(path)
    return 0 if known is None or known.duration_ms is None else known.duration_ms * rate // 1_000
