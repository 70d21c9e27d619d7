"""pgbouncer in transaction mode: each transaction may meet another server process, and nothing lives in a session."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from storage.places import UNPRIVILEGED_USERS

START_SECONDS = 20.0
SETTINGS = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 10
max_client_conn = 200
server_idle_timeout = 5
logfile = {folder}/pgbouncer.log
"""


def find_pgbouncer() -> str | None:
    """The program, also where Debian puts it without adding it to a user's path."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextmanager
def running_pgbouncer(program: str, server_url: str) -> Iterator[str]:
    """Yield the address (host:port) of a pgbouncer in front of a server; its logins are those of `server_url`."""
    parts = conninfo_to_dict(server_url)
    with tempfile.TemporaryDirectory(prefix="bert4musicrec-pgbouncer-") as name:
        folder, listen_port = Path(name), free_port()
        settings = SETTINGS.format(host=parts["host"], port=parts["port"], listen_port=listen_port, folder=folder)
        (folder / "pgbouncer.ini").write_text(settings, encoding="utf-8")
        (folder / "users.txt").write_text(f'"{parts["user"]}" "{parts.get("password", "")}"\n', encoding="utf-8")
        own = {} if os.geteuid() else hand_over(folder)
        process = subprocess.Popen([program, "--quiet", str(folder / "pgbouncer.ini")], stdin=subprocess.DEVNULL, **own)
        try:
            wait_until_it_answers(through(f"127.0.0.1:{listen_port}", server_url), process, folder / "pgbouncer.log")
            yield f"127.0.0.1:{listen_port}"
        finally:
            process.terminate()
            process.wait()


def through(address: str, url: str) -> str:
    """The same login and database by way of another host and port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{address}").geturl()


def hand_over(folder: Path) -> dict[str, str]:
    """Give its folder to a user who may do less: as root pgbouncer does not run."""
    for user in UNPRIVILEGED_USERS:
        try:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user)
        except LookupError:
            continue
        return {"user": user}
    raise LookupError(f"none of the users {', '.join(UNPRIVILEGED_USERS)} exists")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"pgbouncer did not start: {log.read_text() if log.exists() else 'it wrote no log'}")
