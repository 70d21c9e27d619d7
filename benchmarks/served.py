"""The service as it would be started from the same settings, for benchmarks that ask it: as an app, or listening on loopback."""

import argparse
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from flask_openapi3.openapi import OpenAPI

from flask_app import listening, running_app, service_of
from options import add_arguments
from serving.choice import serving_config


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings of the service and of its database."""
    add_arguments(parser, "service", "database")


@contextmanager
def app_of(arguments: argparse.Namespace) -> Iterator[OpenAPI]:
    """The app over the model and the database that the arguments name; the embedded database unless they name one."""
    with running_app(serving_config(arguments)) as app:
        yield app


@contextmanager
def address_of(app: OpenAPI) -> Iterator[str]:
    """http://host:port of a waitress in a thread of this process; the app is closed at the end of the with statement."""

    def run(server: Any) -> None:
        with suppress(OSError):  # its loop ends when the sockets under it are closed
            server.run()

    with closing(service_of(app)), listening(app) as server:
        thread = threading.Thread(target=run, args=[server], name="server", daemon=True)
        thread.start()
        try:
            yield f"http://{server.effective_host}:{server.effective_port}"
        finally:
            server.close()
            server.asyncore.close_all(server._map)
            thread.join(10)
