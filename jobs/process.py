"""The worker as a process of its own: ``python cli.py worker``, any number of them beside or instead of the service's thread.

SIGTERM and Ctrl-C let it finish the batch in hand and give back what it has not begun.
"""

import argparse
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from jobs.worker import Worker
from options import add_arguments
from serving.choice import serving_config
from serving.follower import Follower
from serving.live import LiveRecommender
from storage.connections import connect, database_url
from storage.migrate import migrate


def main(argv: Sequence[str] | None = None) -> int:
    """Work on the request table until a signal comes; raises the family of errors.py for what keeps it from starting."""
    parser = argparse.ArgumentParser(prog="cli.py worker", description="Answer the request table.")
    add_arguments(parser, "service", "training", "preprocessing", "database")
    log_to_stderr()
    config = serving_config(parser.parse_args(argv))
    torch.set_num_threads(config.service.torch_threads)
    with stopped_by_signals() as stop, database_url(config.database) as url:
        if config.database.is_embedded:
            with connect(url) as connection:  # our own server, so nobody else would bring its schema up to date
                migrate(connection)
        live = LiveRecommender()
        follower = Follower(live, config, url)
        follower.start()
        worker = Worker(url, live=live, config=config)
        with following(follower, stop):
            print(f"worker {worker.name} answers with {live.name}", flush=True)
            worker.run(stop)
    return 0


@contextmanager
def following(follower: Follower, stop: threading.Event) -> Iterator[threading.Thread]:
    """A thread that keeps the models in service what they should be; it ends when `stop` is set, at the end at the latest."""
    thread = threading.Thread(target=follower.run, args=[stop], name="follower")
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        follower.nudge()
        thread.join()


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; nothing is interrupted."""
    stop = threading.Event()

    def set_it(signal_number: int, frame: object) -> None:
        stop.set()

    before = {number: signal.signal(number, set_it) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_stderr() -> None:
    """Lines for people that machines can read as well."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FieldsFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _FieldsFormatter(logging.Formatter):
    """A sentence, then name=value pairs."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields: dict[str, Any] = getattr(record, "fields", {})
        return " ".join([line, *(f"{name}={value}" for name, value in fields.items())])
