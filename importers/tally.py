"""What an import did: how much was read, added, changed and already there, and what was left out for which reason.

An importer notes bad rows and fields while it reads; `importers.load` enters the counts.  The command prints `line()` or
`table()`.  Rests on nothing.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

Kind = Literal["songs", "artists", "albums", "playlists", "rows", "plays", "feedback"]
"""What is counted; rows are the songs in playlists, one for each place; feedback is what a listener said of a song."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Count:
    """One kind's outcome.  `removed` is above 0 only for rows of playlists that were replaced."""

    read: int
    added: int
    updated: int = 0
    already_there: int = 0
    removed: int = 0

    @property
    def changed(self) -> bool:
        """Whether the import altered anything of this kind."""
        return bool(self.added or self.updated or self.removed)


@dataclass(frozen=True, kw_only=True)
class Noted:
    """How often something was left out, and where it was met first."""

    count: int
    first: str


@dataclass(kw_only=True)
class Tally:
    """The account of one import; filled while it runs.

    >>> tally = Tally(source="mixtapes")
    >>> tally.counts["songs"] = Count(read=3, added=2)
    >>> tally.skip("songs", "song_id is empty", "songs.csv line 4")
    >>> tally.line()
    'mixtapes: added 2 songs; left out 1 row (1 song_id is empty)'
    """

    source: str
    """Under this name the rows stand in the database."""
    counts: dict[Kind, Count] = field(default_factory=dict)
    skipped: dict[tuple[Kind, str], Noted] = field(default_factory=dict)
    """Rows that were left out, by kind and reason."""
    emptied: dict[str, Noted] = field(default_factory=dict)
    """Fields whose value could not be used, by reason; their rows were kept, the field is NULL."""
    bare_songs: int = 0
    """Songs that were added although nothing but their id is known."""

    def skip(self, kind: Kind, reason: str, where: str, *, count: int = 1) -> None:
        """Note `count` rows that are left out; `where` names the first, as in "songs.csv line 4"."""
        known = self.skipped.get((kind, reason), Noted(count=0, first=where))
        self.skipped[kind, reason] = Noted(count=known.count + count, first=known.first)

    def empty(self, reason: str, where: str) -> None:
        """Note a field that is left empty in a row that is kept."""
        known = self.emptied.get(reason, Noted(count=0, first=where))
        self.emptied[reason] = Noted(count=known.count + 1, first=known.first)

    def skipped_of(self, kind: Kind) -> int:
        """Rows of one kind that were left out, for any reason."""
        return sum(noted.count for (of, _), noted in self.skipped.items() if of == kind)

    @property
    def changed(self) -> bool:
        """Whether the import altered anything in the database."""
        return any(count.changed for count in self.counts.values())

    def line(self) -> str:
        """The account in one line."""
        done = [self._clause(verb) for verb in ("added", "updated", "removed")]
        parts = [clause for clause in done if clause] or [self._nothing_new()]
        if self.skipped:
            reasons = ", ".join(f"{noted.count:,} {reason}" for (_, reason), noted in self.skipped.items())
            parts.append(f"left out {_amount(sum(noted.count for noted in self.skipped.values()), 'rows')} ({reasons})")
        if self.emptied:
            parts.append(f"left {_amount(sum(noted.count for noted in self.emptied.values()), 'fields')} empty")
        return f"{self.source}: {'; '.join(parts)}"

    def table(self) -> str:
        """The account in several lines: a row for each kind, then each reason with its first example."""
        lines = [f"source {self.source}", _row("", "read", "added", "updated", "removed", "already there")]
        lines += [
            _row(kind, count.read, count.added, count.updated, count.removed, count.already_there)
            for kind, count in self._counted()
        ]
        if self.bare_songs:
            lines.append(f"of the songs, {self.bare_songs:,} are named only in playlists: nothing but their id is known")
        lines += [
            f"left out {noted.count:,} of the {kind}: {reason} (first: {noted.first})"
            for (kind, reason), noted in self.skipped.items()
        ]
        lines += [f"left {noted.count:,} empty: {reason} (first: {noted.first})" for reason, noted in self.emptied.items()]
        return "\n".join(lines)

    def _counted(self) -> list[tuple[Kind, Count]]:
        return [(kind, self.counts[kind]) for kind in KINDS if kind in self.counts]

    def _clause(self, verb: str) -> str:
        amounts = [_amount(getattr(count, verb), kind) for kind, count in self._counted() if getattr(count, verb)]
        return f"{verb} {', '.join(amounts)}" if amounts else ""

    def _nothing_new(self) -> str:
        there = [_amount(count.already_there, kind) for kind, count in self._counted() if count.already_there]
        return f"nothing new ({', '.join(there)} already there)" if there else "nothing to import"


def _amount(count: int, plural: str) -> str:
    return f"{count:,} {plural.removesuffix('s') if count == 1 else plural}"


def _row(kind: str, *cells: int | str) -> str:
    return f"{kind:<10}" + "".join(f"{cell:>15,}" if isinstance(cell, int) else f"{cell:>15}" for cell in cells)
