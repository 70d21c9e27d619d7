"""The one family of errors that this project raises on purpose.

Each message names the value that is wrong, the bound that it broke, and the way out.  Every command turns a member of the
family into one line on standard error and exit code 2 (`exit_code_of`); the service turns it into a JSON answer.

    BERT4MusicRecError
    ├── ConfigError           an unknown setting, or two settings that contradict each other   (also a ValueError)
    ├── DatabaseError
    │   ├── DatabaseUnreachable   no server, wrong password, unknown database
    │   └── SchemaError           a table, column or right is missing, or a query file does not keep its contract
    ├── DataError             what was read cannot be used: empty tables, too few sequences, a malformed file
    ├── SnapshotError         a snapshot is missing, truncated or of another format
    ├── EncoderError          encoders are missing, or do not belong to the checkpoint or snapshot
    ├── CheckpointError       a checkpoint is missing, truncated, foreign, or could not be written
    └── RequestError          a request that cannot be answered; `status` is its HTTP status
        ├── UnknownPlaylist       404
        ├── UnknownRequest        404
        ├── BodyTooLarge          413
        ├── InvalidSequence       422: empty, too long, of another id type, or of unknown songs only
        ├── KeyReused             422: the idempotency key stands for another request
        ├── QueueFull             429
        └── ServiceUnavailable    503: the database is away, or no model is loaded
"""

import logging
import sys
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)


class BERT4MusicRecError(Exception):
    """Base of every error that is expected and explained."""


class ConfigError(BERT4MusicRecError, ValueError):
    """A setting is unknown, out of bounds, or contradicts another one."""


class DatabaseError(BERT4MusicRecError):
    """PostgreSQL cannot serve what was asked."""


class DatabaseUnreachable(DatabaseError):
    """No connection: no server, wrong password, unknown database."""


class SchemaError(DatabaseError):
    """A table, column or right is missing, or a query file does not keep its contract."""


class DataError(BERT4MusicRecError):
    """What was read cannot be used."""


class SnapshotError(BERT4MusicRecError):
    """A snapshot is missing, truncated or of another format."""


class EncoderError(BERT4MusicRecError):
    """Encoders are missing or do not belong to the checkpoint or snapshot beside them."""


class CheckpointError(BERT4MusicRecError):
    """A checkpoint is missing, truncated, foreign, or could not be written."""


class RequestError(BERT4MusicRecError):
    """A request that cannot be answered; `status` is the HTTP status to send."""

    status = 400


class UnknownPlaylist(RequestError):
    """The database has no playlist with that id."""

    status = 404


class UnknownRequest(RequestError):
    """No request with that number was ever accepted, or it is past its retention."""

    status = 404


class BodyTooLarge(RequestError):
    """The body is over the limit."""

    status = 413


class InvalidSequence(RequestError):
    """The sequence is empty, too long, of another id type, or holds unknown songs only."""

    status = 422


class KeyReused(RequestError):
    """The idempotency key was sent with another request before."""

    status = 422


class QueueFull(RequestError):
    """As many requests wait as may; `retry_after_seconds` is about what a few workers need to make room."""

    status = 429
    retry_after_seconds = 10


class ServiceUnavailable(RequestError):
    """The database is away, or no model is loaded."""

    status = 503


def exit_code_of(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` and return its exit code: 2 and one line for an expected error, 130 for Ctrl-C."""
    try:
        return main(argv)
    except BERT4MusicRecError as exc:
        print(f"error: {' '.join(str(exc).split())}", file=sys.stderr)
        log.debug("the error in full", exc_info=exc)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
