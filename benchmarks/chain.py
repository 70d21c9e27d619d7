"""The main job on one folder of data, as a user runs it: every step is one of the README's commands in a process of its own.

Each data set gets a database of its own on an embedded server, and its own snapshot, encoders and models, all of it below
`.local/benchmarks`.
"""

import csv
import gzip
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from config import PROJECT_ROOT
from storage.connections import create_database
from storage.embedded import EmbeddedServer

WORK = PROJECT_ROOT / ".local" / "benchmarks"
START_SECONDS = 120


@dataclass(kw_only=True)
class Step:
    """One command's cost."""

    command: str
    seconds: float
    peak_mb: float


@dataclass(kw_only=True)
class Chain:
    """What one data set's run left behind."""

    name: str
    steps: dict[str, Step] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    policy: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    first_answer_seconds: float = 0.0
    answer: Mapping[str, Any] = field(default_factory=dict)


def run_chain(data: Path, *, minutes: float, training: Sequence[str] = (), preprocessing: Sequence[str] = ()) -> Chain:
    """Import, preprocess, train, evaluate, serve and POST; raises CalledProcessError where a command fails."""
    chain, folder = Chain(name=data.name), WORK / data.name
    shutil.rmtree(folder, ignore_errors=True)
    paths = ["--snapshot", str(folder / "snapshot"), "--encoders-folder", str(folder / "encoders")]
    models = ["--model-folder", str(folder / "models")]
    with own_database(data.name) as environ:
        timed(chain, environ, "import", ["cli.py", "import", "csv", str(data)])
        timed(chain, environ, "preprocess", ["preprocessing.py", *paths, *preprocessing])
        limits = ["--minutes", str(minutes), "--no-evaluation"]
        timed(chain, environ, "train", ["train.py", *paths, *models, *limits, *training])
        timed(chain, environ, "evaluate", ["cli.py", "evaluate", *paths, *models])
        run = max((folder / "models").iterdir())
        evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        chain.results, chain.policy = evaluation["results"], evaluation["split"]
        chain.settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        chain.counts = json.loads(next((folder / "snapshot").glob("*/manifest.json")).read_text(encoding="utf-8"))["counts"]
        serve_and_ask(chain, environ, models, first_songs(data))
    return chain


@contextmanager
def own_database(name: str) -> Iterator[Mapping[str, str]]:
    """The environment of commands that work on an empty database of their own."""
    with EmbeddedServer(WORK / "postgres") as server:
        database = f"{name}_{os.getpid()}".replace("-", "_")
        create_database(server.maintenance_url, database)
        yield {**os.environ, "DATABASE_URL": server.database_url(database)}


def timed(chain: Chain, environ: Mapping[str, str], name: str, arguments: Sequence[str]) -> None:
    """Run one command and note its wall time and its largest resident size."""
    print(f"{chain.name}: {name} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], cwd=PROJECT_ROOT, env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    seconds = time.monotonic() - started
    shown = " ".join(["python", *arguments])
    chain.steps[name] = Step(command=shown, seconds=round(seconds, 2), peak_mb=round(peak_mb(usage)))


def peak_mb(usage: resource.struct_rusage) -> float:
    """Largest resident size in MB (10**6 bytes)."""
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss counts bytes on macOS, KiB on Linux
    return usage.ru_maxrss * unit / 1e6


def serve_and_ask(chain: Chain, environ: Mapping[str, str], models: Sequence[str], songs: Sequence[str]) -> None:
    """Start the service and measure the time from its start to its first answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.monotonic()
    command = [sys.executable, "flask_app.py", "--port", str(port), "--model", models[1]]
    service = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        chain.answer = first_answer(f"http://127.0.0.1:{port}/recommend", {"songs": list(songs)}, started + START_SECONDS)
        chain.first_answer_seconds = round(time.monotonic() - started, 2)
    finally:
        service.terminate()
        service.wait(30)


def first_answer(url: str, body: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
    """POST until the service answers; raises TimeoutError at the deadline (time.monotonic)."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer: Mapping[str, Any] = json.load(response)
                return answer
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)  # the service is still loading
    raise TimeoutError(f"{url} gave no answer within {START_SECONDS} s")


def first_songs(data: Path, count: int = 8) -> list[str]:
    """The first songs of the first sequence of a data folder."""

    with gzip.open(data / "sequences.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        first = next(rows)
        songs = [first["song_id"]]
        for row in rows:
            if row["playlist_id"] != first["playlist_id"] or len(songs) == count:
                break
            songs.append(row["song_id"])
    return songs


def machine() -> dict[str, Any]:
    """What figures are stored beside."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def store(name: str, content: Mapping[str, Any]) -> None:
    """Append one line with the machine beside it to benchmarks/results/<name>.jsonl."""
    folder = PROJECT_ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**content, "machine": machine()}) + "\n")
