"""Processes that analyse audio files, one after the other each: several cores, and a decoder that crashes costs one file only.

They are programs of their own, `python -m importers.audio_workers SECONDS`, which answer each line with one.  So they hold
librosa and none of the command's modules, about 400 MB each.  Their first line says that they are ready: everything was tried.
"""

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from config import PROJECT_ROOT
from errors import ConfigError, DataError
from importers.audio import LEAST_SECONDS, RATE, analyse, features_of
from importers.records import Features

PACKAGES = ("librosa", "soundfile")
INSTALL = "python -m pip install -r requirements-audio.txt"
LONGEST_MINUTES = 10.0  # a file that takes longer has the decoder go round in circles
BROKE_OFF = f"the analysis of its file crashed, or took more than {LONGEST_MINUTES:g} minutes"
# The processes share the cores among them; threads of theirs would be in each other's way.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
PROGRAM = ("-m", "importers.audio_workers")


def require_packages() -> None:
    """Raise ConfigError where the optional packages are not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"features of audio files need {' and '.join(missing)}, not installed here: {INSTALL}")


class Analysts:
    """So many processes; `analyse` may be called from as many threads.  `program` is what Python runs, before the seconds."""

    def __init__(self, n_processes: int, seconds: float, program: Sequence[str] = PROGRAM) -> None:
        self._n_processes = n_processes
        self._arguments = [*program, str(seconds)]
        self._idle: queue.SimpleQueue[_Analyst] = queue.SimpleQueue()
        self._all: list[_Analyst] = []

    def __enter__(self) -> "Analysts":
        try:
            self._all = [_Analyst(self._arguments) for _ in range(self._n_processes)]  # they start side by side
            for analyst in self._all:
                analyst.await_ready()
                self._idle.put(analyst)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def analyse(self, path: Path) -> Features:
        """What a file's sound is like; raises DataError with the rest of a sentence about the song where that cannot be told."""
        analyst = self._idle.get()
        try:
            return analyst.analyse(path)
        finally:
            self._idle.put(analyst)

    def close(self) -> None:
        """End the processes, at once."""
        for analyst in self._all:
            analyst.close()


class _Analyst:
    """One process, started anew when it dies."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._is_closed = False
        self._lock = threading.Lock()  # between closing and starting anew
        self._process = self._started()

    def await_ready(self) -> None:
        """Raise ConfigError where the process says that it cannot work."""
        answer = self._answer()
        if answer is None or "failed" in answer:
            why = "they broke off" if answer is None else answer["failed"]
            raise ConfigError(f"the packages for audio files do not work ({why}): {INSTALL}")

    def analyse(self, path: Path) -> Features:
        timer = threading.Timer(60 * LONGEST_MINUTES, self._process.kill)
        timer.start()
        try:
            answer = self._asked(str(path))
        finally:
            timer.cancel()
        if answer is None:
            self._start_anew()
            raise DataError(BROKE_OFF)
        if "reason" in answer:
            raise DataError(answer["reason"])
        return Features(**answer["features"])

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._end()

    def _started(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *self._arguments],
            cwd=PROJECT_ROOT,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders complain of what they get over
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the command's to hear
        )

    def _start_anew(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._end()
            self._process = self._started()
        self.await_ready()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:  # what was not flushed cannot be any more
                continue

    def _asked(self, path: str) -> Mapping[str, Any] | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(path) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it is gone, or was closed
            return None
        return self._answer()

    def _answer(self) -> Mapping[str, Any] | None:
        """The next line; None where the process has died."""
        assert self._process.stdout is not None
        try:
            answer: Mapping[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            return None
        return answer


# --- the process -------------------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Answer each path on standard input with a line on standard output."""
    seconds = float(argv[0])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no answer
    try:
        noise = np.random.default_rng(0).standard_normal(round(LEAST_SECONDS * RATE)).astype(np.float32)
        features_of(noise, RATE, 0.0)
    except Exception as exc:  # a package that is broken says so in its own way
        _say(answers, {"failed": f"{type(exc).__name__}: {exc}"})
        return 2
    _say(answers, {"ready": True})
    for line in sys.stdin:
        _say(answers, _answer_to(Path(json.loads(line)), seconds))
    return 0


def _answer_to(path: Path, seconds: float) -> dict[str, Any]:
    try:
        return {"features": analyse(path, seconds)._asdict()}
    except DataError as exc:
        return {"reason": str(exc)}


def _say(answers: IO[str], answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
