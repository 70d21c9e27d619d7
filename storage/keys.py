"""API keys: a text that its owner keeps, b4mr_<key_id>_<secret>, and the SHA-256 of its secret in recommender.api_key.

Works in the caller's transaction.  Services read the keys and hold them in memory; whoever compares a secret does it with
`ApiKey.opens`, in constant time.  Keys are made and revoked by the owner of the database, never by the service's role.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from psycopg import errors
from psycopg.rows import class_row

from errors import ConfigError, DatabaseError, SchemaError
from storage.connections import Connection
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "keys.sql")

PREFIX = "b4mr"  # lets scanners for leaked secrets, and people, tell what a text is
ID_BYTES, SECRET_BYTES = 6, 32
MAX_NAME_CHARACTERS = 100

_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{8,32}})_([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII)
_NAME = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{1,{MAX_NAME_CHARACTERS}}}")


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was just made; its text is nowhere else and cannot be shown again."""

    key_id: str
    text: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key."""

    key_id: str
    """The part that may be shown."""
    name: str
    """Whose it is."""
    secret_hash: bytes = field(repr=False)
    """SHA-256 of the secret's text, 32 bytes."""
    may_manage: bool
    """Whether it may activate models."""
    requests_per_minute: int | None
    """None: as many as the settings allow."""
    created_at: datetime
    expires_at: datetime | None
    """None: never."""
    revoked_at: datetime | None = None

    def opens(self, secret: str) -> bool:
        """Whether this is the key's secret, compared in constant time."""
        return hmac.compare_digest(self.secret_hash, hash_of(secret))


def create_key(
    connection: Connection,
    name: str,
    *,
    may_manage: bool = False,
    requests_per_minute: int | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key, to be given to its owner at once: only a hash of it is kept.

    Raises ConfigError for a name, a rate or an end that cannot be, SchemaError where the role may not make keys.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the name of a key has 1 to {MAX_NAME_CHARACTERS} characters in one line (got {name[:120]!r})")
    if requests_per_minute is not None and not 1 <= requests_per_minute < 2**31:
        raise ConfigError(f"requests per minute must be between 1 and {2**31 - 1} (got {requests_per_minute})")
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
    parameters = {"key_id": key_id, "name": name, "secret_hash": hash_of(secret), "may_manage": may_manage}
    with _owners_errors():
        connection.execute(_SQL["create"], {**parameters, "requests_per_minute": requests_per_minute, "expires_at": expires_at})
    return NewKey(key_id=key_id, text=f"{PREFIX}_{key_id}_{secret}")


def active_keys(connection: Connection) -> list[ApiKey]:
    """The keys that are neither revoked nor past their end, the oldest first."""
    with connection.cursor(row_factory=class_row(ApiKey)) as cursor:
        return cursor.execute(_SQL["active"]).fetchall()


def all_keys(connection: Connection) -> list[ApiKey]:
    """Every key there ever was, the oldest first."""
    with connection.cursor(row_factory=class_row(ApiKey)) as cursor:
        return cursor.execute(_SQL["all"]).fetchall()


def revoke_key(connection: Connection, key_id: str) -> None:
    """Let a key open nothing from the commit on; again, it changes nothing.

    Raises DatabaseError for an unknown one, SchemaError where the role may not revoke keys.
    """
    with _owners_errors():
        if connection.execute(_SQL["revoke"], {"key_id": key_id}).fetchone() is None:
            raise DatabaseError(f"no key {key_id[:40]!r}: python cli.py keys list shows them")


def parts_of(text: str) -> tuple[str, str] | None:
    """The id and the secret in the text of a key; None for any other text.

    >>> parts_of("b4mr_0123456789ab_" + 64 * "f") == ("0123456789ab", 64 * "f")
    True
    >>> parts_of("Bearer of other things") is None
    True
    """
    found = _KEY.fullmatch(text)
    return None if found is None else (found[1], found[2])


def hash_of(secret: str) -> bytes:
    """What is kept of a secret.  It has 256 random bits, so one round is enough: nobody can try them all.

    >>> hash_of("").hex()[:8]
    'e3b0c442'
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


@contextmanager
def _owners_errors() -> Iterator[None]:
    try:
        yield
    except errors.InsufficientPrivilege as exc:
        raise SchemaError(f"{exc.diag.message_primary}: keys are made and revoked by the database's owner") from exc
