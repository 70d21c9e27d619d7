"""What listeners did with songs, and what follows from it for their next answers.  Works in the caller's transaction.

Reports come over HTTP and from SQL (`SELECT recommender.feedback('listener', song_id, 'played')`); both enter by that function.
Ids are text here, whatever type they have in the user's own tables.

Plays, and what of them was skipped, may also stand in the user's own tables: an optional query file, plays_by_listener.sql, finds
them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import kwargs_row

from errors import DatabaseError, DatabaseUnreachable, InvalidFeedback, SchemaError, UnknownModel
from storage.connections import Connection, expected_errors
from storage.named import SQL_FOLDER, as_statement, queries
from storage.source import NO_ID_OF_THAT_TYPE

_SQL = queries(SQL_FOLDER / "feedback.sql")

PLAYS_FILE = "plays_by_listener.sql"
# As in the constraint feedback_length_check: an index holds rows of about 2,700 bytes.
MAX_LISTENER_BYTES, MAX_ID_BYTES = 1020, 1000
_PARAMETER = re.compile(r"%\((listener|since)\)[sbt]")  # of the file, as psycopg writes them
_SKIPPED = re.compile(r"\bskipped\b", re.IGNORECASE)  # a file without the word cannot tell
_NO_QUERIES: Mapping[str, sql.Composable] = {"plays": sql.SQL(""), "skips": sql.SQL("")}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # in no text of PostgreSQL


class Event(StrEnum):
    """What a listener did."""

    PLAYED = "played"  # heard a song, whole or enough of it
    SKIPPED = "skipped"  # began a song and went on to the next one
    LIKED = "liked"
    NEVER_AGAIN = "never_again"  # wants to hear no more of a song, or of an artist


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One report.  Raises InvalidFeedback for one about nothing or about two things, and for ids that are too long."""

    listener: str
    event: Event
    song_id: str | None = None
    artist_id: str | None = None
    """Instead of a song, and only with NEVER_AGAIN: all songs of that artist."""
    happened_at: datetime | None = None
    """By the listener's clock, with its zone; None: now.  A time in the future is taken for now."""
    request_id: int | None = None
    """The number of the request whose answer held the song; tells the model as well."""
    model_id: str | None = None
    """The model whose answer held the song, where there is no request's number."""
    is_recommended: bool = False
    """Whether the song was there because it was recommended; a request or a model that recommended it says so, too."""
    ms_played: int | None = None

    def __post_init__(self) -> None:
        if (self.song_id is None) == (self.artist_id is None):
            raise InvalidFeedback("feedback is about a song_id or, with never_again, about an artist_id: send one of the two")
        if self.artist_id is not None and self.event is not Event.NEVER_AGAIN:
            raise InvalidFeedback(f"{self.event} is about a song: send a song_id (an artist_id goes with never_again only)")
        _require_storable("listener", self.listener, MAX_LISTENER_BYTES)
        if self.song_id is not None:
            _require_storable("song_id", self.song_id, MAX_ID_BYTES)
        if self.artist_id is not None:
            _require_storable("artist_id", self.artist_id, MAX_ID_BYTES)
        if self.happened_at is not None and self.happened_at.tzinfo is None:
            raise InvalidFeedback(f"happened_at needs its zone, as in 2026-01-02T03:04:05Z (got {self.happened_at.isoformat()})")
        if self.ms_played is not None and not 0 <= self.ms_played < 2**31:
            raise InvalidFeedback(f"ms_played must be between 0 and {2**31 - 1} milliseconds (got {self.ms_played})")
        if self.request_id is not None and not 0 < self.request_id < 2**63:
            raise InvalidFeedback(f"request_id must be the number of a request (got {self.request_id})")


@dataclass(frozen=True, kw_only=True)
class TasteWanted:
    """Whose taste, and how many days back skips and plays count; 0 days: not at all."""

    listener: str
    skipped_days: float = 0.0
    played_days: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Taste:
    """What one listener does not want to hear, as ids in text."""

    never: frozenset[str] = frozenset()
    """Songs, for ever."""
    never_artists: frozenset[str] = frozenset()
    """Artists, for ever."""
    skipped: frozenset[str] = frozenset()
    """Songs, within `skipped_days`; from feedback, and from plays_by_listener.sql where it has a column `skipped`."""
    played: frozenset[str] = frozenset()
    """Songs, within `played_days`; from feedback and from plays_by_listener.sql."""
    plays_error: str | None = None
    """Why plays_by_listener.sql could not be asked: `played` and `skipped` hold what feedback says alone."""


def add_feedback(connection: Connection, feedback: Sequence[Feedback]) -> int:
    """Take reports in, all or none, and return how many were new: what is sent again with its time counts once.

    Raises UnknownModel when one names a model that is not registered.
    """
    parameters = {
        "listeners": [one.listener for one in feedback],
        "song_ids": [one.song_id for one in feedback],
        "events": [str(one.event) for one in feedback],
        "happened_at": [one.happened_at for one in feedback],
        "ms_played": [one.ms_played for one in feedback],
        "request_ids": [one.request_id for one in feedback],
        "model_ids": [one.model_id for one in feedback],
        "is_recommended": [one.is_recommended for one in feedback],
        "artist_ids": [one.artist_id for one in feedback],
    }
    try:
        row = connection.execute(_SQL["add"], parameters).fetchone()
    except errors.ForeignKeyViolation as exc:
        if exc.diag.constraint_name != "feedback_model_id_fkey":
            raise
        named = ", ".join(sorted({repr(one.model_id) for one in feedback if one.model_id is not None}))
        raise UnknownModel(f"feedback names a model that is not known here ({named}): send the model_id of an answer") from exc
    assert row is not None
    new: int = row[0]
    return new


def tastes_of(connection: Connection, queries_folder: Path, wanted: Sequence[TasteWanted]) -> list[Taste]:
    """The tastes of several listeners in their order, read in one statement; who is not known has an empty one.

    A plays_by_listener.sql that fails costs its plays and skips and nothing else: `plays_error` of those who want any says why.
    """
    if not wanted:
        return []
    try:
        own = _own_queries(queries_folder, wanted)
        if own == _NO_QUERIES:
            return _read(connection, own, wanted)
        # A savepoint: a listener that is no number is an error to a numeric key, and the caller's transaction is to survive it.
        with _plays_errors(), connection.transaction():
            return _read(connection, own, wanted)
    except psycopg.DataError as exc:
        if exc.sqlstate not in NO_ID_OF_THAT_TYPE:
            return _read_without_plays(connection, wanted, f"{PLAYS_FILE} fails: {exc.diag.message_primary or exc}")
        if len(wanted) == 1:  # who is no id of the key's type has no plays there
            return _read(connection, _NO_QUERIES, wanted)
        return [taste for one in wanted for taste in tastes_of(connection, queries_folder, [one])]
    except DatabaseUnreachable:
        raise
    except DatabaseError as exc:
        return _read_without_plays(connection, wanted, str(exc))


def _read_without_plays(connection: Connection, wanted: Sequence[TasteWanted], why: str) -> list[Taste]:
    tastes = _read(connection, _NO_QUERIES, wanted)
    return [
        replace(taste, plays_error=why) if one.played_days or one.skipped_days else taste
        for one, taste in zip(wanted, tastes, strict=True)
    ]


def _read(connection: Connection, own: Mapping[str, sql.Composable], wanted: Sequence[TasteWanted]) -> list[Taste]:
    parameters = {
        "listeners": [one.listener for one in wanted],
        "skipped_days": [float(one.skipped_days) for one in wanted],
        "played_days": [float(one.played_days) for one in wanted],
    }
    statement = sql.SQL(_SQL["tastes"]).format(**own)
    with connection.cursor(row_factory=kwargs_row(_taste)) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def _taste(**ids: Any) -> Taste:
    sets: dict[str, Any] = {name: frozenset(listed) for name, listed in ids.items()}
    return Taste(**sets)


def _own_queries(queries_folder: Path, wanted: Sequence[TasteWanted]) -> Mapping[str, sql.Composable]:
    """The user's query for plays and for skips, as far as anybody wants them and it can tell.

    Raises SchemaError for a file that cannot be read.
    """
    wants_plays, wants_skips = any(one.played_days for one in wanted), any(one.skipped_days for one in wanted)
    if not wants_plays and not wants_skips:
        return _NO_QUERIES
    try:
        text = (queries_folder / PLAYS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return _NO_QUERIES
    except (OSError, UnicodeDecodeError) as exc:
        raise SchemaError(f"{PLAYS_FILE} cannot be read: {exc}") from exc
    own = dict(_NO_QUERIES)
    if wants_plays:
        own["plays"] = _within(text, "plays", "wanted.played_since")
    if wants_skips and _SKIPPED.search(text):
        own["skips"] = _within(text, "skips", "wanted.skipped_since")
    return own


def _within(text: str, name: str, since: str) -> sql.Composed:
    """The user's query within the statement for many, its parameters replaced by columns of it."""
    # Twice the percent sign stays as it is: the statement around it has parameters as well.
    inner = _PARAMETER.sub(lambda found: "wanted.listener" if found[1] == "listener" else since, text)
    return sql.SQL(_SQL[name]).format(query=sql.SQL(as_statement(inner)))


@contextmanager
def _plays_errors() -> Iterator[None]:
    """Name the file in what is wrong with it."""
    try:
        with expected_errors():
            yield
    except SchemaError as exc:
        raise SchemaError(
            f"{PLAYS_FILE} fails: it has columns song_id and listened_at, and compares %(listener)s in the key's own type "
            f"(%(listener)s::bigint), but {exc}"
        ) from exc
    except TypeError as exc:  # psycopg's word for a parameter without a name
        raise SchemaError(f"{PLAYS_FILE} has the parameter %s: write %(listener)s and %(since)s") from exc
    except psycopg.DataError:  # may be about the listener alone: the caller knows
        raise
    except psycopg.DatabaseError as exc:  # a function of the user's raises it, say
        raise DatabaseError(f"{PLAYS_FILE} fails: {exc.diag.message_primary or exc}") from exc


def _require_storable(name: str, text: str, most_bytes: int) -> None:
    if _UNSTORABLE.search(text):
        raise InvalidFeedback(f"{name} must be a text that PostgreSQL can hold, without NUL and surrogates")
    if not 1 <= len(text.encode()) <= most_bytes:
        raise InvalidFeedback(f"{name} must have between 1 and {most_bytes} bytes (got {len(text.encode())})")
