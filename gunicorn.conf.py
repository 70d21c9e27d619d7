"""Settings of gunicorn, which reads this file by itself: ``gunicorn 'wsgi:application()'`` in the project's folder.

Address, threads and all else of the service come from the environment or bert4musicrec.toml, as everywhere (docs/settings.md).
"""

import signal
from pathlib import Path
from typing import Any

from errors import ConfigError
from settings import load_config
from system import cores, pin

try:
    _service = load_config().service
except ConfigError as exc:
    raise SystemExit(f"error: {exc}") from exc
_PROCESS = "bert4musicrec.process"  # wsgi.EXTENSION; the module itself would load torch before the fork

# --- processes and threads ---

# Each process holds a model of its own, counts the requests of a key for itself and has figures of its own at /metrics.  The
# model computes outside the interpreter's lock, so threads of one process answer side by side; a second process is for a machine
# whose cores one process leaves idle, and that has the memory.
workers = 1
worker_class = "gthread"
threads = _service.server_threads
# No fork of a loaded model: the threads of torch, of the database pool and of the service do not live on in a child.
preload_app = False
# Nothing here grows with the number of requests; a process that ends after so many would load its model in the midst of the day.
max_requests = 0

# --- addresses ---

_host = f"[{_service.host}]" if ":" in _service.host else _service.host
bind = [f"{_host}:{_service.port}"]
forwarded_allow_ips = ""  # no header of a client says where a request came from
backlog = 1024  # connections that wait for a thread, as with waitress

# --- times, in seconds ---

# With threads this is no limit of a request: it ends a process whose main loop stands still, and one that takes longer to load.
timeout = 120
# What is being answered at SIGTERM may take so long; requests that wait for their songs return at once.
graceful_timeout = 30
# Longer than proxies keep idle connections (nginx: 60): else one is closed while the proxy sends the next request on it.
keepalive = 75

# --- files and logs ---

worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a heartbeat on a slow disk looks like a process that hangs
control_socket_disable = True  # it would be a second way to steer the service, beside signals
accesslog = None  # the service logs one line a request itself
loglevel = "warning"


def on_starting(server: Any) -> None:
    """Refuse an address of gunicorn's own (--bind): whether keys are required follows the service's setting `host`."""
    if list(server.cfg.bind) != bind:
        raise SystemExit(
            f"error: gunicorn is to listen on {', '.join(server.cfg.bind)}, the settings say {bind[0]}: "
            "set BERT4MUSICREC_HOST and BERT4MUSICREC_PORT instead of --bind"
        )


def pre_fork(server: Any, worker: Any) -> None:
    """Give the process that is about to start the core that the fewest others have."""
    taken = [other.core for other in server.WORKERS.values()]
    worker.core = min(cores(), key=taken.count)


def post_fork(server: Any, worker: Any) -> None:
    """Stay on that core, where the settings say so."""
    if _service.pin:
        pin(worker.core)


def post_worker_init(worker: Any) -> None:
    """At SIGTERM first let go whatever waits, then do as gunicorn does."""
    leave = signal.getsignal(signal.SIGTERM)
    assert callable(leave)

    def stop(signal_number: int, frame: Any) -> None:
        worker.wsgi.extensions[_PROCESS].begin_to_stop()
        leave(signal_number, frame)

    signal.signal(signal.SIGTERM, stop)
    signal.siginterrupt(signal.SIGTERM, False)


def worker_exit(server: Any, worker: Any) -> None:
    """Give back what `application` opened; a process that did not get so far has nothing to give back."""
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions[_PROCESS].close()
