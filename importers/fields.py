"""One field's text to one value, for all importers.

Each function takes a text that is not empty and raises ValueError with the rest of a sentence that begins with the column's
name ("is not a number").  Rests on nothing.
"""

import math
from collections.abc import Callable
from datetime import date, datetime
from uuid import UUID

MAX_ID_CHARACTERS = 500  # an index entry of PostgreSQL holds 2,704 bytes; a character takes up to four
# Where the absolute value of a 32-bit float ends; PostgreSQL refuses to round what lies outside.
LARGEST_REAL = 3.4e38
SMALLEST_REAL = 1.2e-38
TRUE, FALSE = {"1", "1.0", "true", "t", "yes"}, {"0", "0.0", "false", "f", "no"}


def text(value: str) -> str:
    """The text as it stands."""
    return value


def number(value: str) -> float:
    """A finite number that fits 32 bits of floating point; smaller than these can hold becomes 0.

    >>> number("0.699")
    0.699
    """
    try:
        found = float(value)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(found):
        raise ValueError("is not a number")
    if abs(found) > LARGEST_REAL:
        raise ValueError(f"is beyond {LARGEST_REAL:g}")
    return found if abs(found) >= SMALLEST_REAL else 0.0


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Reader of whole numbers from `low` to `high`, both included; decimals that are whole ("4.0") are accepted.

    >>> whole_number(0, 300_000)("218000.0")
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
    """True or false, written as a word or as 1 and 0."""
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


def uuid(value: str) -> str:
    """A UUID in its usual form."""
    try:
        return str(UUID(value.strip()))
    except ValueError:
        raise ValueError("is not a UUID") from None


def is_id(value: str) -> bool:
    """Whether a text can be an id: something visible, and not too long for an index."""
    return 0 < len(value) <= MAX_ID_CHARACTERS and not value.isspace()
