import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from errors import ConfigError, DataError
from importers import audio_workers
from importers.audio_workers import BROKE_OFF, Analysts, require_packages
from importers.records import Features
from tests.importers.sounds import cadence, needs_librosa, write_wav

PROGRAM = """
import json, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    name = json.loads(line)
    if "crash" in name:
        sys.exit(1)
    while "endless" in name:
        time.sleep(1)
    print(json.dumps({"reason": "it is no music"} if "text" in name else {"features": {"tempo": float(sys.argv[1])}}), flush=True)
"""


@pytest.fixture
def program(tmp_path):
    """In the place of the one that needs librosa: every song has the seconds as its tempo."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return [str(tmp_path / "program.py")]


def test_an_answer_is_features_or_a_reason(program):
    with Analysts(1, 90.0, program) as analysts:
        assert analysts.analyse(Path("/ä \n.mp3")) == Features(tempo=90.0)
        with pytest.raises(DataError, match="it is no music"):
            analysts.analyse(Path("/text.mp3"))


def test_a_crash_costs_one_file(program):
    with Analysts(2, 90.0, program) as analysts, ThreadPoolExecutor(2) as threads:
        paths = [Path(f"/{name}.mp3") for name in ("a", "crash", "b", "crash", "c", "d")]
        tasks = [threads.submit(analysts.analyse, path) for path in paths]
        assert [str(task.exception()) if task.exception() else task.result().tempo for task in tasks] == [
            *(90.0, BROKE_OFF),
            *(90.0, BROKE_OFF),
            *(90.0, 90.0),
        ]


def test_a_file_that_takes_forever_is_given_up(program, monkeypatch):
    monkeypatch.setattr(audio_workers, "LONGEST_MINUTES", 0.002)
    with Analysts(1, 90.0, program) as analysts:
        with pytest.raises(DataError, match="the analysis of its file crashed, or took more than 10 minutes"):
            analysts.analyse(Path("/endless.mp3"))
        monkeypatch.setattr(audio_workers, "LONGEST_MINUTES", 1.0)
        assert analysts.analyse(Path("/a.mp3")).tempo == 90.0


def test_leaving_ends_what_is_still_at_work(program):
    with ThreadPoolExecutor(1) as threads:
        with Analysts(1, 90.0, program) as analysts:
            task = threads.submit(analysts.analyse, Path("/endless.mp3"))
            while not task.running():
                time.sleep(0.01)
        assert str(task.exception()) == BROKE_OFF


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('print(\'{"failed": "OSError: no numba"}\')', "OSError: no numba"),
        ("", "they broke off"),
        ("print('{')", "they broke off"),
    ],
    ids=["failed", "nothing", "no answer"],
)
def test_packages_that_do_not_work_are_told_at_once(tmp_path, said, why):
    (tmp_path / "program.py").write_text(said)
    with pytest.raises(ConfigError) as caught, Analysts(2, 90.0, [str(tmp_path / "program.py")]):
        pass
    assert str(caught.value) == (
        f"the packages for audio files do not work ({why}): python -m pip install -r requirements-audio.txt"
    )


def test_packages_that_are_missing_are_told_in_one_line(monkeypatch):
    monkeypatch.setattr(audio_workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        require_packages()
    assert str(caught.value) == (
        "features of audio files need librosa and soundfile, not installed here: python -m pip install -r requirements-audio.txt"
    )


@needs_librosa
@pytest.mark.slow
def test_the_real_program_tells_the_key_of_a_cadence(tmp_path):
    with Analysts(1, 10.0) as analysts:
        found = analysts.analyse(write_wav(tmp_path / "a b.wav", cadence("A minor", 6)))
        (tmp_path / "a.mp3").write_text("a text")
        with pytest.raises(DataError, match="its file cannot be decoded"):
            analysts.analyse(tmp_path / "a.mp3")
    assert (found.key, found.mode, found.feature_source) == (9, 0, "librosa")
