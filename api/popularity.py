"""How popular the songs are that this service recommends: its own answers, and the newest lists of the request table."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import psycopg

from api.noted import Looks
from api.overview import Shown
from errors import DatabaseError, RequestError
from serving.popularity import NO_COUNTS, popularity_json
from serving.recommender import Recommender
from storage.health import limit_statements
from storage.requests import latest_songs

KEEP_SECONDS = 5.0
PATIENCE_SECONDS = 1.2
STATEMENT_SECONDS = 1.0
MOST_ROWS = 10_000  # songs of the newest lists


@dataclass(kw_only=True)
class Lists:
    """The newest lists of the request table: the ids of their songs as texts, the best first; None could not be read."""

    lists: list[list[str]] | None = field(default_factory=list)


class PopularityFigures:
    """Asks the database beside the requests, so that one that has gone silent costs little more than a second."""

    def __init__(self, service: Shown) -> None:
        self._service = service
        self._looks = Looks(lambda: read_lists(service), keep_seconds=KEEP_SECONDS, patience_seconds=PATIENCE_SECONDS)

    def as_json(self, recommender: Recommender) -> dict[str, Any]:
        """Bins, shares, artists and measures, with a sentence that says what was counted."""
        found = Lists() if self._service.desk is None else self._looks.latest() or Lists(lists=None)
        catalogue, tally = recommender.catalogue, self._service.live.recommended
        lists = [recommender.songs_named(texts) for texts in found.lists or []]
        own = tally.recommended(catalogue)
        told = popularity_json(catalogue, own.and_lists(lists, catalogue.artists))
        n_own = int(own.counts.sum())
        notes = [
            f"{n_own:,} songs recommended over HTTP by this process since its start",
            "the request table could not be asked"
            if found.lists is None
            else f"{sum(map(len, lists)):,} of the newest lists of the request table",
        ]
        measured = "a song's popularity is the number of training lists that hold it" if told["bins"] else NO_COUNTS
        nothing = "" if told["n_recommended"] else "; nothing was recommended yet, ask for songs first"
        return told | {"since": tally.since.isoformat(timespec="seconds"), "note": f"{measured}; {', '.join(notes)}{nothing}"}

    def close(self) -> None:
        """Wait a moment for what is asked beside."""
        self._looks.close()


def read_lists(service: Shown) -> Lists:
    """The newest lists of the request table; `lists` None where they cannot be read."""
    try:
        with service.connection() as connection:
            limit_statements(connection, STATEMENT_SECONDS)
            rows = latest_songs(connection, MOST_ROWS)
    except (DatabaseError, RequestError, psycopg.Error):
        return Lists(lists=None)
    return Lists(lists=[[song_id for _, song_id in rows] for _, rows in groupby(rows, key=lambda row: row[0])])
