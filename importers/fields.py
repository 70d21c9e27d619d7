"""One field's text to one value, for all importers.

Each reader takes a text that is not empty.  It raises ValueError with the rest of a sentence that begins with the column's name
("is not a number"), and returns None for a text that means nothing, such as blanks.  Rests on nothing.
"""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import UUID

MAX_ID_CHARACTERS = 500  # an index entry of PostgreSQL holds 2,704 bytes, and a character takes up to four
LARGEST_NUMBER = 3.4e38  # features become 32-bit floats, whose infinity would spoil every scaler
LARGEST_INTEGER = 2**31 - 1  # of PostgreSQL's type integer
RESERVED_PREFIX = "listen:"  # sequences made of single plays have ids that begin like this
TRUE, FALSE = {"1", "1.0", "true", "t", "yes"}, {"0", "0.0", "false", "f", "no"}


def text(value: str) -> str | None:
    """The text as it stands, None when it is blank."""
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return None if value.isspace() else value


def an_id(value: str) -> str:
    """An id as it stands."""
    if text(value) is None:
        raise ValueError("is blank")
    if len(value) > MAX_ID_CHARACTERS:
        raise ValueError(f"is longer than {MAX_ID_CHARACTERS} characters")
    return value


def playlist_id(value: str) -> str:
    """An id that cannot be taken for a listening session's."""
    if value.startswith(RESERVED_PREFIX):
        raise ValueError(f"begins with {RESERVED_PREFIX!r}, which is reserved")
    return an_id(value)


def id_list(value: str) -> str | None:
    """Ids separated by semicolons, without blank ones.

    >>> id_list("a; ;b;")
    'a;b'
    """
    return ";".join(an_id(part.strip()) for part in value.split(";") if part.strip()) or None


def number(value: str) -> float:
    """A finite number that fits 32 bits of floating point.

    >>> number("0.699")
    0.699
    """
    try:
        found = float(value)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(found):
        raise ValueError("is not a finite number")
    if abs(found) > LARGEST_NUMBER:
        raise ValueError(f"is beyond {LARGEST_NUMBER:g}")
    return found


def whole_number(low: int, high: int = LARGEST_INTEGER) -> Callable[[str], int]:
    """Reader of whole numbers from `low` to `high`, both included; decimals that are whole are accepted.

    >>> whole_number(0)("218000.0")
    218000
    """

    def read(value: str) -> int:
        try:
            found = int(value)
        except ValueError:
            found = _whole(number(value))
        if not low <= found <= high:
            raise ValueError(f"is not between {low} and {high}")
        return found

    return read


def _whole(found: float) -> int:
    if not found.is_integer():
        raise ValueError("is not a whole number")
    return int(found)


def truth(value: str) -> bool:
    """True or false, as a word or as 1 and 0."""
    folded = value.strip().lower()
    if folded not in TRUE | FALSE:
        raise ValueError("is neither true nor false")
    return folded in TRUE


def aware_time(value: str) -> datetime:
    """A time in ISO 8601 with its zone.

    >>> aware_time("2019-05-25T16:52:18-04:00").isoformat()
    '2019-05-25T16:52:18-04:00'
    """
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError("is not a time in ISO 8601") from None
    if found.tzinfo is None:
        raise ValueError("has no time zone")
    return found


def unix_time(value: str) -> datetime:
    """A time in seconds since 1970, UTC.

    >>> unix_time("978300760").isoformat()
    '2000-12-31T22:12:40+00:00'
    """
    try:
        return datetime.fromtimestamp(int(value), tz=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError("is not a time in seconds since 1970") from None


def first_day(value: str) -> date:
    """A date in ISO 8601; of a month or a year alone, its first day.

    >>> first_day("1995")
    datetime.date(1995, 1, 1)
    """
    stripped = value.strip()
    try:
        return date.fromisoformat({4: f"{stripped}-01-01", 7: f"{stripped}-01"}.get(len(stripped), stripped))
    except ValueError:
        raise ValueError("is not a date in ISO 8601") from None


def uuid(value: str) -> str:
    """A UUID in its usual form."""
    try:
        return str(UUID(value.strip()))
    except ValueError:
        raise ValueError("is not a UUID") from None
