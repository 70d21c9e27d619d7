"""One value of a JSON record to one value of ours, for the readers of histories.

As in `importers.fields`, a reader raises ValueError with the rest of a sentence that begins with the field's name, and returns
None for what means nothing.  It takes whatever JSON can hold: null, a list where a text belongs, a number of a thousand digits.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from importers import fields

Value = TypeVar("Value")

MAX_TEXT_CHARACTERS = 1_000  # the longest titles of classical music have some 400
# Players whose clock was never set write 1970, and Last.fm keeps such plays: their order and their day mean nothing.
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def record_of(value: Any) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise ValueError("is no object")  # noqa: TRY004, a reader's fault is a ValueError whatever is wrong
    return value


def text(value: Any) -> str | None:
    """A text as it stands, None when it is null or blank."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("is not a text")  # noqa: TRY004
    if len(value) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"is longer than {MAX_TEXT_CHARACTERS:,} characters")
    if not value.isascii() and not _is_unicode(value):
        raise ValueError("is not Unicode")
    return fields.text(value) if value else None


def _is_unicode(value: str) -> bool:
    """Whether there are no halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_number(value: Any) -> int | None:
    """A number from 0 to what PostgreSQL's type integer holds; decimals that are whole, and texts, are accepted."""
    if isinstance(value, str):
        stripped = value.strip()
        return fields.whole_number(0)(stripped) if stripped else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        return None
    if type(value) is not int:  # True is an instance of int
        raise ValueError("is not a whole number")
    if not 0 <= value <= fields.LARGEST_INTEGER:
        raise ValueError(f"is not between 0 and {fields.LARGEST_INTEGER}")
    return value


def seconds(value: Any) -> float | None:
    """A duration, as a number or its text."""
    found = _number(value)
    if found is not None and not 0 <= found <= fields.LARGEST_INTEGER / 1000:
        raise ValueError("is no duration in seconds")
    return found


def unix_time(value: Any) -> datetime | None:
    """A time in seconds since 1970, as a number or its text; decimals are kept.

    >>> unix_time("1443521965.5").isoformat()
    '2015-09-29T10:19:25.500000+00:00'
    """
    found = _number(value)
    if found is None:
        return None
    try:
        at = datetime.fromtimestamp(found, tz=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError("is not a time in seconds since 1970") from None
    return checked_time(at)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        return fields.number(value) if value.strip() else None
    if type(value) not in (int, float):
        raise ValueError("is not a number")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError("is not a finite number") from None
    if not math.isfinite(found):
        raise ValueError("is not a finite number")
    return found


def utc_time(value: Any) -> datetime | None:
    """A time in ISO 8601, which is UTC where no zone stands behind it.

    >>> utc_time("2011-04-22T22:55:30Z").isoformat()
    '2011-04-22T22:55:30+00:00'
    """
    if not value:
        return None
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("is not a time in ISO 8601") from None
    return checked_time(found)


def checked_time(found: datetime) -> datetime:
    """A time in UTC, which it is already where it has no zone, and not of a clock that was never set."""
    if found.tzinfo is not UTC:
        try:
            # PostgreSQL refuses some offsets that Python takes, such as +23:59.
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except OverflowError:
            raise ValueError("is not a time between the years 1 and 9999") from None
    if found < EARLIEST:
        raise ValueError(f"is before {EARLIEST.year}, from a clock that was not set")
    return found


def uuid(value: Any) -> str | None:
    """A UUID in its usual form."""
    if isinstance(value, str) and _UUID.fullmatch(value):
        return value  # nearly always, and in a fifth of the time
    found = text(value)
    return fields.uuid(found) if found else None


def required(record: Mapping[str, Any], key: str, read: Callable[[Any], Value | None]) -> Value:
    """The value of a field without which its record is nothing.  Raises ValueError with a whole sentence."""
    try:
        found = read(record.get(key))
    except ValueError as exc:
        raise ValueError(f"{key} {exc}") from None
    if found is None:
        raise ValueError(f"{key} is empty")
    return found


def optional(record: Mapping[str, Any], key: str, read: Callable[[Any], Value | None], faults: list[str]) -> Value | None:
    """The value of a field, None where it cannot be used; then `faults` is told why."""
    try:
        return read(record.get(key))
    except ValueError as exc:
        faults.append(f"{key} {exc}")
        return None
