import math

import numpy as np
import pytest

from errors import DataError
from importers.audio import MAJOR, MINOR, SILENCE_DB, analyse, energy_of, key_of, loudness_of, tempo_of
from importers.records import Features
from tests.importers.sounds import RATE, cadence, clicks, needs_librosa, sine, write_wav

FULL_SINE_DB = 10 * math.log10(1 / 2)


# --- the arithmetic, without librosa -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize(("profile", "mode"), [(MAJOR, 1), (MINOR, 0)], ids=["major", "minor"])
def test_each_key_is_found_in_its_own_profile(tonic, profile, mode):
    assert key_of(np.roll(profile, tonic)) == (tonic, mode)


@pytest.mark.parametrize(
    "chroma",
    [
        np.ones(12),
        np.zeros(12),
        100 + np.array(MAJOR),  # nearly flat, as noise is
        np.add(MAJOR, np.roll(MAJOR, 7)),  # C and G major alike
        np.tile([1.0, 0.0, 0.0], 4),  # an augmented chord
        np.tile([1.0, 0.0], 6),  # the whole tones
    ],
    ids=["flat", "silent", "noise", "two keys", "augmented", "whole tones"],
)
def test_a_key_that_is_not_clear_is_none(chroma):
    assert key_of(chroma) == (-1, None)


def test_loudness_is_that_of_the_mean_square_and_ends_at_the_silence_of_scales():
    assert loudness_of(1.0) == 0.0  # a square wave of full scale
    assert loudness_of(0.01) == -20.0
    assert loudness_of(1e-9) == loudness_of(0.0) == SILENCE_DB == -60.0


def test_energy_is_half_loudness_and_half_onsets():
    assert energy_of(-40.0, 0.0) == energy_of(-60.0, 0.0) == 0.0
    assert energy_of(-5.0, 8.0) == energy_of(0.0, 20.0) == 1.0
    assert energy_of(-5.0, 0.0) == energy_of(-40.0, 8.0) == 0.5


def test_the_tempo_is_the_mean_over_beats_without_those_that_were_missed():
    beats = np.array([0, 10, 20, 30, 40, 50, 60, 80, 90])  # one in ten frames; the eighth was missed
    assert tempo_of(beats, 20.0) == 120.0
    assert tempo_of(beats[:7], 20.0) is None


# --- whole files -------------------------------------------------------------------------------------------------------------


@needs_librosa
def test_the_tempo_of_a_click_track_is_found(tmp_path):
    found = analyse(write_wav(tmp_path / "clicks.wav", clicks(100, 40)), 30.0)
    assert found.tempo == pytest.approx(100, abs=0.3)
    assert (found.key, found.mode) == (-1, None)
    assert found.energy == pytest.approx(energy_of(found.loudness, 100 / 60), abs=0.01)


@needs_librosa
@pytest.mark.parametrize(("name", "key", "mode"), [("C major", 0, 1), ("A minor", 9, 0)])
def test_the_key_of_a_cadence_is_found(tmp_path, name, key, mode):
    found = analyse(write_wav(tmp_path / "cadence.wav", cadence(name, 6)), 90.0)
    assert (found.key, found.mode) == (key, mode)
    assert found.tempo == pytest.approx(100, abs=0.5)  # a chord each 0.6 seconds
    assert found.feature_source == "librosa"


@needs_librosa
@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.1])
def test_the_loudness_of_a_sine_is_known_and_nothing_in_it_is_a_beat(tmp_path, amplitude):
    found = analyse(write_wav(tmp_path / "sine.wav", sine(amplitude, 10)), 90.0)
    assert found.loudness == pytest.approx(FULL_SINE_DB + 20 * math.log10(amplitude), abs=0.01)
    assert (found.tempo, found.key, found.mode) == (None, -1, None)  # A, be it major or minor


@needs_librosa
def test_loudness_is_that_of_the_whole_file_and_the_rest_of_its_middle(tmp_path):
    loud, soft = sine(1.0, 20), np.zeros(20 * RATE)
    found = analyse(write_wav(tmp_path / "ends.wav", np.concatenate([loud, soft, loud])), 10.0)
    assert found.loudness == pytest.approx(FULL_SINE_DB + 10 * math.log10(2 / 3), abs=0.01)
    found = analyse(write_wav(tmp_path / "middle.wav", np.concatenate([soft, cadence("A minor", 8), soft])), 15.0)
    assert (found.key, found.mode) == (9, 0)


@needs_librosa
def test_two_channels_are_as_loud_as_the_mean_of_both(tmp_path):
    both = np.stack([sine(1.0, 5), np.zeros(5 * RATE)], axis=1)
    assert analyse(write_wav(tmp_path / "left.wav", both), 90.0).loudness == pytest.approx(2 * FULL_SINE_DB, abs=0.01)


@needs_librosa
def test_silence_has_no_tempo_and_no_key(tmp_path):
    found = analyse(write_wav(tmp_path / "silence.wav", np.zeros(10 * RATE)), 90.0)
    assert found == Features(key=-1, loudness=SILENCE_DB, energy=0.0, feature_source="librosa")


@needs_librosa
def test_noise_has_no_tempo_and_no_key(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE)
    found = analyse(write_wav(tmp_path / "noise.wav", noise), 90.0)
    assert (found.tempo, found.key, found.mode, found.loudness) == (None, -1, None, pytest.approx(-20, abs=0.1))


@needs_librosa
def test_a_file_that_is_too_short_is_refused(tmp_path):
    with pytest.raises(DataError, match="less than 3 seconds of sound, or is cut off"):
        analyse(write_wav(tmp_path / "short.wav", sine(0.5, 2.9)), 90.0)
