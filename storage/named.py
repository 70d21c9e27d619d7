"""Named statements out of .sql files, so that SQL is read and tested as SQL.

A file holds statements like

    -- name: claim
    -- Takes up to `limit` requests for one worker.
    SELECT ...

Each has a name of its own and at least one sentence that says what it is for.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import LiteralString

SQL_FOLDER = Path(__file__).resolve().parent / "sql"

_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@functools.cache
def queries(file: Path) -> Mapping[str, LiteralString]:
    """The statements of one file by name, their describing comments included.

    Raises ValueError when a statement has no sentence below its name, or a name comes twice: both are the author's slips.
    """
    _, *parts = _HEADING.split(file.read_text(encoding="utf-8"))
    statements: dict[str, LiteralString] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in statements:
            raise ValueError(f"{file.name} names {name!r} twice")
        if not body.startswith("-- "):
            raise ValueError(f"{name!r} in {file.name} has no sentence that says what it is for")
        statements[name] = as_statement(body)
    return MappingProxyType(statements)


def as_statement(text: str) -> LiteralString:
    """Mark the text of a file of ours, or of the user's own query file, as SQL.

    psycopg's types accept only literal strings, so that no value is ever pasted into SQL; a file read from disk is one in spirit.
    """
    return text.strip().removesuffix(";")
