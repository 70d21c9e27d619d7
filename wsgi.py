"""The service for WSGI servers other than waitress: ``gunicorn 'wsgi:application()'``.

`application` makes everything that one process needs, from the environment and `bert4musicrec.toml` alone, and nothing happens at
import.  Its `extensions["bert4musicrec.process"]` is a `Process`: `begin_to_stop` when the process is told to stop, and `close`
before it ends, else the worker's thread keeps it alive.  `gunicorn.conf.py` does so; another server needs the same.
"""

import argparse
import sys
from contextlib import ExitStack

from flask import Flask

from config import Config
from errors import BERT4MusicRecError
from flask_app import log_as, running_app, service_of
from jobs.process import log_to_stderr
from serving.choice import serving_config

EXTENSION = "bert4musicrec.process"
# A worker of gunicorn that ends so has its master stop with one line instead of trying again and again.
CANNOT_START = 3


class Process:
    """What one process holds for its application."""

    def __init__(self, app: Flask, resources: ExitStack) -> None:
        self._app = app
        self._resources = resources

    def begin_to_stop(self) -> None:
        """Let requests that wait for their songs return without them, and the worker finish its batch; made for signals."""
        stopping = service_of(self._app).stopping
        if not stopping.is_set():  # a second signal must not wait for the lock that the first one holds
            stopping.set()

    def close(self) -> None:
        """Stop the worker and close the connections; returns when both are over.  Again, it does nothing."""
        self.begin_to_stop()
        self._resources.close()


def application() -> Flask:
    """The service with its model, database and, unless the setting `worker` says no, one thread on the request table.

    Ends the process, with one line on standard error, where settings or model keep it from starting.
    """
    log_to_stderr()
    try:
        config = serving_config(argparse.Namespace(config=None, demo=False))
        log_as(config.service.log_format)
        return opened(config)
    except BERT4MusicRecError as exc:
        print(f"error: {' '.join(str(exc).split())}", file=sys.stderr, flush=True)
        raise SystemExit(CANNOT_START) from exc


def opened(config: Config) -> Flask:
    """An application that holds its resources until its `Process` is closed.  Raises the family of errors.py."""
    with ExitStack() as resources:
        app = resources.enter_context(running_app(config))
        app.extensions[EXTENSION] = Process(app, resources.pop_all())
    return app
