"""The processes of a measurement: the service, the handler beside it, the load client; and what the kernel says of them.

Everything listens on loopback and ends with the block that started it.  What is read from /proc makes this Linux only.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chain import WORK
from benchmarks.serve.client import LoadPlan
from benchmarks.serve.records import Records
from config import PROJECT_ROOT

FOLDER = WORK / "serve"
START_SECONDS = 180.0
STOP_SECONDS = 60.0
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
QUIET_SHARE, QUIET_SECONDS = 0.1, 60.0  # a process that takes less of a core has come to rest; how long to wait for that
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Server:
    """A process that answers HTTP on loopback."""

    name: str
    pid: int
    port: int
    started: float  # time.monotonic() just before its exec

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """The JSON at a path; raises urllib.error.URLError for everything but a success."""
        return self.send(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON that a POST is answered with; raises urllib.error.URLError for everything but a success."""
        content = json.dumps({} if body is None else body).encode()
        return self.send(urllib.request.Request(self.url + path, content, {"Content-Type": "application/json"}))

    def send(self, request: urllib.request.Request) -> Any:
        """The JSON of an answer, None for an empty one."""
        with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
            return json.loads(response.read() or b"null")


@contextmanager
def service(*options: str, database: str) -> Iterator[Server]:
    """`python flask_app.py` with these options on a database of its own; its log is kept in the folder of this benchmark."""
    with _server("service", ["flask_app.py", *options], {"DATABASE_URL": database}) as server:
        yield server


@contextmanager
def service_in_two(run: Path, *, database: str) -> Iterator[Server]:
    """The same service in two processes of gunicorn, each on a core of its own."""
    environ = {
        "DATABASE_URL": database,
        "BERT4MUSICREC_MODEL": str(run),
        "BERT4MUSICREC_PIN": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = ["-m", "gunicorn", "--workers", "2", "wsgi:application()"]
    with _server("service-2", command, environ, port_variable="BERT4MUSICREC_PORT") as server:
        yield server


@contextmanager
def naive(run: Path, *, torch_threads: int | None) -> Iterator[Server]:
    """The handler of `benchmarks.serve.naive`; `torch_threads` None leaves torch its own choice."""
    options = [] if torch_threads is None else ["--torch-threads", str(torch_threads)]
    name = f"naive-{torch_threads or 'default'}"
    with _server(name, ["-m", "benchmarks.serve.naive", str(run), *options], {}) as server:
        yield server


@contextmanager
def _server(
    name: str, arguments: Sequence[str], environ: Mapping[str, str], *, port_variable: str | None = None
) -> Iterator[Server]:
    """A server that is told its port by an option, or by a variable of the environment."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, *arguments]
    if port_variable is None:
        command += ["--port", str(port)]
    else:
        environ = {**environ, port_variable: str(port)}
    with (FOLDER / f"{name}.log").open("wb") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env={**os.environ, **environ}, stdout=log, stderr=log)
    try:
        yield Server(name=name, pid=process.pid, port=port, started=started)
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL for what does not heed it."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, through every block that ends what it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def free_port() -> int:
    """A TCP port that nothing listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def first_answer_seconds(server: Server, path: str, body: Any) -> float:
    """Seconds from a server's exec to its first 200, asked for over and over; raises TimeoutError, with the log's last lines."""
    while time.monotonic() < server.started + START_SECONDS:
        try:
            server.post(path, body)
            return time.monotonic() - server.started
        except urllib.error.HTTPError as exc:
            if exc.code != 503:
                raise TimeoutError(f"{server.name} refuses {path}: {exc.code} {exc.read()[:500]!r}") from exc
        except (urllib.error.URLError, ConnectionError):
            pass
        if not is_running(server.pid):
            break
        time.sleep(0.02)
    raise TimeoutError(f"{server.name} gave no answer: {(FOLDER / f'{server.name}.log').read_text()[-1000:]}")


# --- the load ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came of a load."""

    records: Records
    began: float  # on the monotonic clock
    cpu_share: float  # of one core, taken by the client itself
    samples: Sequence[str]  # some of the answers that were not right


@dataclass(frozen=True, kw_only=True)
class RunningLoad:
    """A load that goes on beside what the caller does."""

    process: subprocess.Popen[str]
    file: Path

    def so_far(self) -> Records:
        """What was answered up to about a second ago."""
        return Records.read(self.file) if self.file.exists() else Records.of(b"")

    def finish(self) -> Loaded:
        """Wait for its end."""
        told, _ = self.process.communicate()
        if self.process.returncode:
            raise subprocess.CalledProcessError(self.process.returncode, "benchmarks.serve.client")
        cost = json.loads(told)
        return Loaded(records=Records.read(self.file), began=cost["began"], cpu_share=cost["cpu_share"], samples=cost["samples"])


@contextmanager
def loading(plan: LoadPlan, name: str = "load") -> Iterator[RunningLoad]:
    """A client of its own at work on a plan; it is ended with the block unless it has finished."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    plan_file, file = FOLDER / f"{name}.json", FOLDER / f"{name}.bin"
    plan_file.write_text(plan.as_json(), encoding="utf-8")
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.serve.client", str(plan_file), str(file)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield RunningLoad(process=process, file=file)
    finally:
        if process.poll() is None:
            end(process)
        if process.stdout is not None:
            process.stdout.close()


def run_load(plan: LoadPlan) -> Loaded:
    """Carry out a plan to its end."""
    with loading(plan) as load:
        return load.finish()


# --- what the kernel says ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process holds at one moment."""

    resident_mb: float
    threads: int
    files: int


def usage(pid: int) -> Usage:
    """Resident memory (MB of 10**6 bytes, pages of mapped files included), threads and open file descriptors."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return Usage(
        resident_mb=int(fields["VmRSS"].split()[0]) * 1024 / MB,
        threads=int(fields["Threads"]),
        files=len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208  (a path per descriptor would be made for nothing)
    )


def cpu_seconds(pid: int) -> float:
    """Processor time that all threads of a process and of its children have taken, user and system; in steps of 10 ms."""
    family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    fields = [_stat_of(Path(f"/proc/{member}/stat")) for member in family]
    return sum(int(of_member[11]) + int(of_member[12]) for of_member in fields) * TICK_SECONDS


def is_running(pid: int) -> bool:
    """Whether a process lives, and is no zombie."""
    try:
        return _stat_of(Path(f"/proc/{pid}/stat"))[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int | None:
    """The parent of a process; None for one that has ended."""
    try:
        return int(_stat_of(Path(f"/proc/{pid}/stat"))[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _stat_of(path: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold spaces: state first."""
    return path.read_text(encoding="utf-8").rpartition(") ")[2].split()


def machine_busy_seconds() -> float:
    """Processor time that everything on the machine has taken since it was started, over all cores."""
    user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) * TICK_SECONDS


def rest(pid: int) -> None:
    """Wait until a process hardly takes processor time any more: it may go on loading after its first answer."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(1)
        if cpu_seconds(pid) - before < QUIET_SHARE:
            return
