"""What a query needs from the database beside its songs: the listener's feedback, and the songs of a named filter.

Both are kept, so that a query is still answered while the database is away: feedback as it was last read, a filter's songs until
it can be asked again.  What could not be had at all is named in the answer.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from config import Config
from errors import DatabaseError, ServiceUnavailable
from serving.answers import NO_TASTE, Query, SongList
from serving.controls import Controls
from storage.connections import Connection
from storage.feedback import Taste, TasteWanted, tastes_of
from storage.filters import songs_of_filter

KEPT_LISTENERS = 10_000  # tastes, those last asked for


class Completer:
    """Completes queries out of the database; one for all threads of a process."""

    def __init__(self, config: Config) -> None:
        self._queries_folder = config.database.queries_folder
        self._service = config.service
        self._guard = threading.Lock()
        self._tastes: OrderedDict[TasteWanted, Taste] = OrderedDict()
        self._filters: dict[str, tuple[float, SongList]] = {}  # when they were read, and the songs

    def needs_database(self, query: Query) -> bool:
        """Whether completing the query asks the database anything."""
        controls = query.controls
        return controls.listener is not None or (controls.filter is not None and not self._is_fresh(controls.filter))

    def complete(self, connection: Connection, queries: Sequence[Query]) -> list[Query]:
        """Fill in tastes and the songs of filters.  Raises UnknownFilter, DatabaseError."""
        wanted = {query.controls.listener: self._wanted(query.controls) for query in queries}
        wanted.pop(None, None)
        tastes = dict(zip(wanted.values(), tastes_of(connection, self._queries_folder, list(wanted.values())), strict=True))
        self._keep(tastes)
        filters = {query.controls.filter for query in queries if query.controls.filter is not None}
        songs = {name: self._songs_of(connection, name) for name in filters}
        return [self._filled(query, tastes, songs) for query in queries]

    def complete_without(self, query: Query, cause: DatabaseError | None) -> Query:
        """Fill in what was read before; `cause` says why the database cannot be asked, None that it need not be.

        Raises ServiceUnavailable for a filter that was never read: its songs cannot be guessed.
        """
        controls = query.controls
        unavailable: tuple[str, ...] = ()
        taste, filtered = NO_TASTE, None
        if controls.listener is not None:
            with self._guard:
                kept = self._tastes.get(self._wanted(controls))
            taste, unavailable = (NO_TASTE, ("listener",)) if kept is None else (kept, ())
        if controls.filter is not None:
            if controls.filter not in self._filters:
                raise ServiceUnavailable(f"filter {controls.filter!r} cannot be read while the database is away: {cause}")
            filtered = self._filters[controls.filter][1]
        return replace(query, taste=taste, filtered=filtered, unavailable=unavailable)

    def _filled(self, query: Query, tastes: Mapping[TasteWanted, Taste], songs: Mapping[str, SongList]) -> Query:
        controls = query.controls
        taste = NO_TASTE if controls.listener is None else tastes[self._wanted(controls)]
        return replace(query, taste=taste, filtered=None if controls.filter is None else songs[controls.filter])

    def _wanted(self, controls: Controls) -> TasteWanted:
        played_days = controls.exclude_played_days
        return TasteWanted(
            listener=controls.listener or "",
            skipped_days=self._service.skipped_days,
            played_days=self._service.exclude_played_days if played_days is None else played_days,
        )

    def _keep(self, tastes: Mapping[TasteWanted, Taste]) -> None:
        with self._guard:
            for wanted, taste in tastes.items():
                self._tastes[wanted] = taste
                self._tastes.move_to_end(wanted)
            while len(self._tastes) > KEPT_LISTENERS:
                self._tastes.popitem(last=False)

    def _is_fresh(self, name: str) -> bool:
        kept = self._filters.get(name)
        return kept is not None and time.monotonic() < kept[0] + self._service.filter_refresh_seconds

    def _songs_of(self, connection: Connection, name: str) -> SongList:
        if not self._is_fresh(name):
            self._filters[name] = (time.monotonic(), SongList(songs_of_filter(connection, self._queries_folder, name)))
        return self._filters[name][1]
