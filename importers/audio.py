"""How a song sounds, computed from its own audio file: tempo, key, mode, loudness and energy.

    loudness  of the whole file: 10 log10 of the mean square of all samples of all channels, in dB relative to full scale, so that
              a sine that touches full scale has -3.01.  Neither weighted for the ear nor gated, unlike LUFS.  From -60 up.
    tempo     beats a minute, by librosa's beat tracker (Ellis, "Beat Tracking by Dynamic Programming", 2007) over an excerpt.  It
              expects about 120, so that a slow song may come out at twice its tempo and a fast one at half of it; what compares
              tempos should take both for the same.  None where there is nothing to tap to.
    key, mode the pitch classes of the excerpt on the average (chroma) against the profiles of Krumhansl and Kessler; -1 and None
              where no key fits well, or another one fits about as well.
    energy    0 to 1: the mean of loudness, from -40 dB (0) to -5 dB (1), and of onsets a second, from none (0) to 8 (1), each
              held within its bounds.  Loud and busy music is heard as energetic: loudness and tempo are what felt arousal follows
              most (Schubert, "Modeling Perceived Emotion With Continuous Musical Features", Music Perception 21, 2004).  The
              halves weigh the same since there is nothing to fit weights to.  It is no copy of what a service calls energy.

All but loudness come from the middle of the file, because beginnings and ends are often unlike the rest.  Nothing here is
comparable with the numbers of another source; `feature_source` says whose they are.  librosa (McFee et al., 2015) comes with
requirements-audio.txt and is imported when the first file is analysed.
"""

import math
import warnings
from pathlib import Path

import numpy as np

from errors import DataError
from importers.audio_decoding import DAMAGED, Sound, decoding
from importers.records import Features

FEATURE_SOURCE = "librosa"
RATE = 22_050  # samples a second that are analysed: everything up to 11 kHz
HOP = 512  # samples from one frame to the next: 23 ms
LEAST_SECONDS = 3.0
TOO_SHORT = f"its file holds less than {LEAST_SECONDS:g} seconds of sound, or is cut off"

SILENCE_DB = -60.0  # silence itself would be minus infinity, which no scaler survives
ENERGY_DB = (-40.0, -5.0)  # a soft piano piece, and the loudest records
ENERGY_ONSETS = 8.0  # a second: sixteenths at 120 beats a minute
ONSET_DB = 1.0  # how far the spectrum rises within a frame, on the average over its bands, for a tone to begin
LEAST_BEATS = 8
NEAR_MEDIAN = 0.1  # a longer or shorter gap between two beats is a slip of the tracker

# How well each pitch class fits a key, the tonic first: Krumhansl & Kessler, "Tracing the Dynamic Changes in Perceived Tonal
# Organization in a Spatial Representation of Musical Keys", Psychological Review 89 (1982).  A key is found by correlating with
# them: Krumhansl, "Cognitive Foundations of Musical Pitch" (1990), chapter 4.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
PROFILES = ((1, MAJOR), (0, MINOR))  # by mode
LEAST_CORRELATION = 0.576  # of 12 pairs of numbers, not by chance at p < 0.05
LEAST_LEAD = 0.02  # over the second best key
LEAST_CONTRAST = 0.05  # deviation over mean: noise has 0.01, cadences 0.8
UNCLEAR = -1


def analyse(path: Path, seconds: float) -> Features:
    """What a file's sound is like; `seconds` from its middle are listened to for all but loudness.

    Raises DataError with the rest of a sentence about the song where the file is not there, or cannot be decoded.
    """
    with decoding(path) as sound:
        loudness, excerpt = _middle(sound, seconds)
        rate = sound.rate
    if len(excerpt) < LEAST_SECONDS * rate:
        raise DataError(TOO_SHORT)
    if not np.any(excerpt):
        return Features(key=UNCLEAR, loudness=loudness, energy=energy_of(loudness, 0.0), feature_source=FEATURE_SOURCE)
    return features_of(excerpt, rate, loudness)


def loudness_of(mean_square: float) -> float:
    """In dB relative to full scale.

    >>> round(loudness_of(0.5), 2)  # a sine that touches full scale
    -3.01
    """
    return max(SILENCE_DB, 10 * math.log10(mean_square)) if mean_square > 0 else SILENCE_DB


def energy_of(loudness: float, onsets_per_second: float) -> float:
    """Between 0 and 1.

    >>> energy_of(-22.5, 2.0)  # halfway from soft to loud, a quarter of the way from still to busy
    0.375
    """
    soft, loud = ENERGY_DB
    parts = (loudness - soft) / (loud - soft), onsets_per_second / ENERGY_ONSETS
    return sum(min(max(part, 0.0), 1.0) for part in parts) / len(parts)


def tempo_of(beats: np.ndarray, frames_per_second: float) -> float | None:
    """Beats a minute of beats at these frames, None for too few.

    The tracker's own tempo is that of a whole number of frames (99.4 or 103.4, never 100); the mean over many beats is finer.

    >>> tempo_of(np.array([0, 26, 52, 77, 103, 129, 155, 181, 258]), 43.0)  # the last but one was missed
    99.78
    """
    if len(beats) < LEAST_BEATS:
        return None
    gaps = np.diff(beats)
    typical = np.median(gaps)
    return round(60 * frames_per_second / float(gaps[np.abs(gaps - typical) <= NEAR_MEDIAN * typical].mean()), 2)


def key_of(chroma: np.ndarray) -> tuple[int, int | None]:
    """(key, mode) of how strong each pitch class is, C first; (-1, None) where that is not clear.

    >>> key_of(np.roll(MAJOR, 2)), key_of(np.array([1, 0, 0, 0] * 3))  # D major; a chord that belongs nowhere
    ((2, 1), (-1, None))
    """
    if chroma.std() <= LEAST_CONTRAST * chroma.mean():
        return UNCLEAR, None
    keys = [(key, mode) for mode, _ in PROFILES for key in range(12)]
    fits = [float(np.corrcoef(chroma, np.roll(profile, key))[0, 1]) for _, profile in PROFILES for key in range(12)]
    second, best = sorted(fits)[-2:]
    if best < LEAST_CORRELATION or best - second < LEAST_LEAD:
        return UNCLEAR, None
    return keys[fits.index(best)]


def _middle(sound: Sound, seconds: float) -> tuple[float, np.ndarray]:
    """Loudness of the whole, and so many seconds from the middle with all channels in one."""
    length = round(seconds * sound.rate)
    begin = max(0, (sound.n_frames - length) // 2)
    squares, n_samples, position = 0.0, 0, 0
    kept = [np.empty(0, np.float32)]
    for block in sound.blocks:
        squares += float(np.vdot(block, block))
        n_samples += block.size
        part = block[max(0, begin - position) : max(0, begin + length - position)]
        if len(part):
            kept.append(part.mean(axis=1))
        position += len(block)
    if not math.isfinite(squares):  # files of floating-point samples may hold what is no number
        raise DataError(DAMAGED)
    return round(loudness_of(squares / max(1, n_samples)), 2), np.concatenate(kept)


def features_of(excerpt: np.ndarray, rate: int, loudness: float) -> Features:
    """What an excerpt of one channel sounds like, and its file's loudness in it."""
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sound without pitch, to which `key_of` has an answer
        samples = librosa.resample(excerpt, orig_sr=rate, target_sr=RATE)
        chroma = librosa.feature.chroma_cqt(y=samples, sr=RATE, hop_length=HOP, norm=None)  # (12, frames)
        rises = librosa.onset.onset_strength(y=samples, sr=RATE, hop_length=HOP)  # (frames,) in dB
        onsets = librosa.onset.onset_detect(
            onset_envelope=rises, sr=RATE, hop_length=HOP, normalize=False, delta=ONSET_DB
        )  # not normalised: in a song without any, the largest ripple would count as one
        _, beats = librosa.beat.beat_track(onset_envelope=rises, sr=RATE, hop_length=HOP)
    key, mode = key_of(chroma.mean(axis=1))
    onsets_per_second = len(onsets) * RATE / len(samples)
    return Features(
        tempo=tempo_of(beats, RATE / HOP) if len(onsets) >= LEAST_BEATS else None,  # the tracker finds beats in noise, too
        key=key,
        mode=mode,
        loudness=loudness,
        energy=round(energy_of(loudness, onsets_per_second), 4),
        feature_source=FEATURE_SOURCE,
    )
