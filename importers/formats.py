"""What a reader of one format looks like to the rest: which files are its own, and the records in them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from importers.files import TextFile
from importers.policy import Policy
from importers.records import Record
from importers.tally import Tally


@dataclass(frozen=True, kw_only=True)
class Format:
    """One layout of one service's export."""

    name: str
    """The command's word for it, and the source of its rows in the database."""
    title: str
    """What people call it."""
    recognise: Callable[[Sequence[TextFile]], list[TextFile]]
    """Those of the files that are of this format, by their names and first bytes, in the order in which they are read."""
    read: Callable[[Sequence[TextFile], Policy, Tally], Iterator[Record]]
    """The records of these files; what cannot be used is noted in the tally.  Raises DataError for a file that is no such one."""
    precision_seconds: float = 0.0
    """How far its times may be off: 60 where they are whole minutes."""
    covered_by: str | None = None
    """A source that tells more of the same plays: within the time that it covers, nothing is taken from this one."""
