"""The database's half of an import, beside the half that reads: plays are copied and brought while the next ones are read.

Reading is Python's work and bringing PostgreSQL's, about as much for one play, so on two cores both together take half the time.
"""

import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from config import ImportConfig
from importers.tally import Count, Kind, Tally
from storage import histories
from storage.connections import Connection
from storage.histories import Staged
from storage.imports import Brought
from system import take_short_turns

BLOCKS_AHEAD = 8  # about 10 MB of text that is read and not yet copied


class Workshop:
    """Does what it is given, in order, on a thread of its own; the connection is that thread's until the with statement ends.

    An error there is raised here by the next call, or at the end.  Leaving with an error leaves what is waiting undone.
    """

    def __init__(self, connection: Connection, tally: Tally, settings: ImportConfig, covered_by: str | None = None) -> None:
        self._connection = connection
        self._tally = tally
        self._same_play = timedelta(seconds=settings.same_play_seconds)
        self._before = histories.plays_before(connection, tally.source)
        self._covered_by = covered_by
        self._todo: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=BLOCKS_AHEAD)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="import", daemon=True)
        self.n_plays = 0
        """That were new."""

    def __enter__(self) -> "Workshop":
        # The thread waits for PostgreSQL most of the time, and is not to wait for the reader as well: 51,000 plays a second, not
        # 43,000.
        take_short_turns()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        if exc is not None:
            self._failed = self._failed or exc  # what is waiting is not done
        else:
            self._todo.put(self._settle)
        self._todo.put(None)
        self._thread.join()
        if exc is None and self._failed is not None:
            raise self._failed

    def copy(self, table: Staged, block: str) -> None:
        """Copy CSV lines into a staging table; plays are brought from there at once, with all songs that are staged."""
        if self._failed is not None:
            raise self._failed
        self._todo.put(lambda: self._copy(table, block))

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            if self._failed is None:
                try:
                    job()
                except BaseException as exc:  # whatever it is, it is raised where the work was ordered
                    self._failed = exc

    def _copy(self, table: Staged, block: str) -> None:
        histories.copy(self._connection, table, block)
        if table == "play":
            self._settle()

    def _settle(self) -> None:
        """Find the songs of all that is staged, and bring the plays."""
        histories.find_songs(self._connection, self._tally.source)
        self._count("artists", histories.bring_artists(self._connection))
        self._count("albums", histories.bring_albums(self._connection))
        histories.fill_songs(self._connection)
        self.n_plays += histories.bring_plays(
            self._connection, self._tally.source, self._before, self._same_play, self._covered_by
        )
        histories.clear(self._connection)

    def _count(self, kind: Kind, brought: Brought) -> None:
        before = self._tally.counts.get(kind, Count(read=0, added=0))
        self._tally.counts[kind] = Count(
            read=before.read + brought.staged,
            added=before.added + brought.added,
            already_there=before.already_there + brought.staged - brought.added,
        )
