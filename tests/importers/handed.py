"""Files as somebody hands them over, made of literals; and what becomes of one that is cut off."""

import io
import json

from errors import DataError
from importers.files import TextFile
from importers.policy import Policy
from importers.tally import Tally


def handed(name, content):
    """A file that lies nowhere; what is neither text nor bytes becomes JSON."""
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    return TextFile(name=name, open=lambda: io.BytesIO(data))


def read(reader, *files):
    """(records, tally)"""
    tally = Tally(source="t")
    return list(reader.read(files, Policy(), tally)), tally


def left_out(tally):
    """What was skipped, by kind and reason."""
    return {(kind, reason): noted.count for (kind, reason), noted in tally.skipped.items()}


def emptied(tally):
    return {reason: noted.count for reason, noted in tally.emptied.items()}


def outcomes_of_cutting(reader, name, content):
    """How many records a file gives that was cut at each of its bytes; None where it is a DataError."""
    data = content.encode() if isinstance(content, str) else content
    counts: list[int | None] = []
    for end in range(len(data)):
        try:
            counts.append(len(read(reader, handed(name, data[:end]))[0]))
        except DataError:
            counts.append(None)
    return counts
