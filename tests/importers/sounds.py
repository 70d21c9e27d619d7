"""Sounds whose tempo, key and loudness are known, as WAV files."""

import importlib.util
import wave

import numpy as np
import pytest

RATE = 22_050
CHORDS = {  # tonic, subdominant, dominant as notes of MIDI
    "C major": ([48, 60, 64, 67], [53, 60, 65, 69], [55, 59, 62, 67]),
    "A minor": ([45, 57, 60, 64], [50, 57, 62, 65], [52, 56, 59, 64]),
}

needs_librosa = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("librosa", "soundfile")),
    reason="needs librosa: python -m pip install -r requirements-audio.txt",
)


def write_wav(path, samples, rate=RATE):
    """Samples between -1 and 1, (n,) or (n, channels), as 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(32_767 * samples).astype("<i2").tobytes())
    return path


def sine(amplitude, seconds, hertz=441.0):
    """Whole periods in whole seconds."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def clicks(beats_per_minute, seconds):
    samples = np.zeros(round(seconds * RATE))
    click = sine(0.8, 0.03, 1_000.0) * np.exp(-np.arange(round(0.03 * RATE)) / 150)
    for beat in np.arange(0.5 * RATE, len(samples) - len(click), 60 / beats_per_minute * RATE):
        samples[round(beat) : round(beat) + len(click)] += click
    return samples


def cadence(key, n_times):
    """Tonic, subdominant, dominant, tonic, 0.6 seconds each, on an instrument of strings that are plucked."""
    tonic, subdominant, dominant = CHORDS[key]
    return np.tile(np.concatenate([_chord(notes) for notes in (tonic, subdominant, dominant, tonic)]), n_times)


def _chord(notes):
    hertz = [440.0 * 2 ** ((note - 69) / 12) for note in notes]
    strings = sum(sine(0.1 / partial**1.5, 0.6, partial * each) for each in hertz for partial in range(1, 7))
    return strings * np.exp(-2 * np.arange(len(strings)) / RATE)
