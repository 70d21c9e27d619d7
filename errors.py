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
        ├── Unauthorised          401: no key, or one that is unknown, revoked or past its end
        ├── Forbidden             403: the key does not allow it
        ├── UnknownPlaylist       404
        ├── UnknownRequest        404
        ├── UnknownSong           404
        ├── UnknownModel          404
        ├── BodyTooLarge          413
        ├── WrongHost             421: not sent to loopback, where no key is needed
        ├── InvalidSequence       422: empty, too long, of another id type, or controls that mean nothing
        ├── InvalidFeedback       422: about nothing or about two things, or with an id that is too long
        ├── UnknownFilter         422: no query file of that name
        ├── KeyReused             422: the idempotency key stands for another request
        ├── QueueFull             429
        ├── TooManyRequests       429
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


class Unauthorised(RequestError):
    """The request has no key, or one that is unknown, revoked or past its end."""

    status = 401


class Forbidden(RequestError):
    """The key is known, and does not allow this."""

    status = 403


class UnknownPlaylist(RequestError):
    """The database has no playlist with that id."""

    status = 404


class UnknownRequest(RequestError):
    """No request with that number was ever accepted, or it is past its retention."""

    status = 404


class UnknownSong(RequestError):
    """Neither the model nor the database knows a song with that id."""

    status = 404


class UnknownModel(RequestError):
    """No model with that id is registered."""

    status = 404


class BodyTooLarge(RequestError):
    """The body is over the limit."""

    status = 413


class WrongHost(RequestError):
    """The request names another host than loopback, and the service asks for no keys."""

    status = 421


class InvalidSequence(RequestError):
    """The sequence is empty, too long, of another id type, or holds unknown songs only."""

    status = 422


class InvalidFeedback(RequestError):
    """The feedback is about nothing or about two things, or an id in it is too long."""

    status = 422


class UnknownFilter(RequestError):
    """No query file defines a filter of that name."""

    status = 422


class KeyReused(RequestError):
    """The idempotency key was sent with another request before."""

    status = 422


class QueueFull(RequestError):
    """As many requests wait as may; `retry_after_seconds` is about what a few workers need to make room."""

    status = 429
    retry_after_seconds = 10


class TooManyRequests(RequestError):
    """The key was used more often than it may; `retry_after_seconds` is how long until the next request fits."""

    status = 429

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


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
