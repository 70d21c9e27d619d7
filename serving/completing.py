"""What a query needs from the database beside its songs: the listener's feedback, and the songs of a named filter.

Both are kept, so that a query is still answered while the database is away: blocks and skips as they were last read, a filter's
songs until it can be asked again.  What could not be asked is named in the answer.
"""

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import replace

from config import Config
from errors import DatabaseError, ServiceUnavailable
from serving.answers import NO_TASTE, Query, SongList
from serving.controls import Controls
from storage.connections import Connection
from storage.feedback import Taste, TasteWanted, tastes_of
from storage.filters import songs_of_filter

log = logging.getLogger(__name__)

KEPT_IDS = 1_000_000  # of all listeners together, those last asked for; about 150 bytes each


class Completer:
    """Completes queries out of the database; one for all threads of a process."""

    def __init__(self, config: Config) -> None:
        self._queries_folder = config.database.queries_folder
        self._service = config.service
        self._tastes = KeptTastes(KEPT_IDS)
        self._filters: dict[str, tuple[float, SongList]] = {}  # when they were read, and the songs
        self._told: str | None = None  # what was last said of plays that could not be read

    def needs_database(self, query: Query) -> bool:
        """Whether completing the query asks the database anything."""
        controls = query.controls
        return controls.listener is not None or (controls.filter is not None and not self._is_fresh(controls.filter))

    def complete(self, connection: Connection, query: Query) -> Query:
        """Fill in the listener's taste and the songs of the filter.  Raises UnknownFilter, DatabaseError."""
        controls = query.controls
        taste, filtered = NO_TASTE, None
        unavailable: tuple[str, ...] = ()
        if controls.listener is not None:
            wanted = self._wanted(controls.listener, controls)
            [taste] = tastes_of(connection, self._queries_folder, [wanted])
            self._tastes.keep(controls.listener, taste)
            self._tell(taste.plays_error)
            if taste.plays_error is not None:
                unavailable = ("exclude_played_days",) if wanted.played_days else ("skipped",)
        if controls.filter is not None:
            filtered = self._songs_of(connection, controls.filter)
        return replace(query, taste=taste, filtered=filtered, unavailable=unavailable)

    def complete_without(self, query: Query, cause: DatabaseError | None) -> Query:
        """Fill in what was read before; `cause` says why the database cannot be asked, None that it need not be.

        A listener is named as unavailable in any case: feedback may have come in since.  Raises ServiceUnavailable for a filter
        that was never read: its songs cannot be guessed.
        """
        controls = query.controls
        taste = NO_TASTE if controls.listener is None else self._tastes.of(controls.listener)
        unavailable = () if controls.listener is None else ("listener",)
        filtered = None
        if controls.filter is not None:
            if controls.filter not in self._filters:
                raise ServiceUnavailable(f"filter {controls.filter!r} cannot be read while the database is away: {cause}")
            filtered = self._filters[controls.filter][1]
        return replace(query, taste=taste, filtered=filtered, unavailable=unavailable)

    def _wanted(self, listener: str, controls: Controls) -> TasteWanted:
        played_days = controls.exclude_played_days
        return TasteWanted(
            listener=listener,
            skipped_days=self._service.skipped_days,
            played_days=self._service.exclude_played_days if played_days is None else played_days,
        )

    def _tell(self, plays_error: str | None) -> None:
        """Log what is wrong with the plays once, not with each query."""
        if plays_error is not None and plays_error != self._told:
            log.warning("%s; answers go without these plays and skips, and say so", plays_error)
        self._told = plays_error or self._told

    def _is_fresh(self, name: str) -> bool:
        kept = self._filters.get(name)
        return kept is not None and time.monotonic() < kept[0] + self._service.filter_refresh_seconds

    def _songs_of(self, connection: Connection, name: str) -> SongList:
        if not self._is_fresh(name):
            self._filters[name] = (time.monotonic(), SongList(songs_of_filter(connection, self._queries_folder, name)))
        return self._filters[name][1]


class KeptTastes:
    """What listeners block and skip as it was last read, without their plays: those are many, and soon outdated."""

    def __init__(self, most_ids: int) -> None:
        """`most_ids` bounds all listeners together; the listener's own name counts as one."""
        self._most_ids = most_ids
        self._ids = 0
        self._tastes: OrderedDict[str, Taste] = OrderedDict()
        self._guard = threading.Lock()

    def of(self, listener: str) -> Taste:
        """The taste that was last kept, an empty one where there is none."""
        with self._guard:
            return self._tastes.get(listener, NO_TASTE)

    def keep(self, listener: str, taste: Taste) -> None:
        """Keep a taste in place of an earlier one; those who were not asked for the longest make room."""
        kept = Taste(never=taste.never, never_artists=taste.never_artists, skipped=taste.skipped)
        with self._guard:
            self._ids += _size(kept) - _size(self._tastes.pop(listener, None))
            self._tastes[listener] = kept
            while self._ids > self._most_ids:
                self._ids -= _size(self._tastes.popitem(last=False)[1])


def _size(taste: Taste | None) -> int:
    return 0 if taste is None else 1 + len(taste.never) + len(taste.never_artists) + len(taste.skipped)
