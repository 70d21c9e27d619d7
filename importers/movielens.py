"""Imports MovieLens: movies as songs, every rating as one place in its user's list.

    100K            u.data (tab-separated), u.item (separated by |, latin-1)
    1M              ratings.dat, movies.dat (separated by ::, latin-1); 10M alike, but in UTF-8 and with a tags.dat
    CSV releases    ratings.csv, movies.csv (latest-small, 20M, 25M, 32M, ...)

A list is ordered by the time of rating; ratings of the same second stay in the order of the file.  All ratings count, low
ones too, as in the papers that compare sequential recommenders on these data (SASRec, BERT4Rec).  Movies have a title, and the
release date, or the first day of the release year, where it is given; they have no artist, album or features.  Lists have no
time of their own.

The data may be used for research and not be passed on: https://grouplens.org/datasets/movielens/
"""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from errors import DataError
from importers import fields
from importers.files import TextFile, files_in, split_rows
from importers.load import History, Playlist, PlaylistRow, Song, load
from importers.tables import Column, Table, open_csv
from importers.tally import Tally
from storage.connections import Connection

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
GENRES_OF_100K = 19
RATING_HEADER = ("userId", "movieId", "rating", "timestamp")


def day_of_100k(value: str) -> date:
    """A date as u.item writes it, in English whatever the locale.

    >>> day_of_100k("01-Jan-1995")
    datetime.date(1995, 1, 1)
    """
    try:
        day, month, year = value.split("-")
        return date(int(year), MONTHS.index(month) + 1, int(day))
    except ValueError:
        raise ValueError("is not a date like 01-Jan-1995") from None


RATING_COLUMNS: Mapping[str, Column] = {
    "userId": Column(fills="playlist_id", read=fields.playlist_id, required=True),
    "movieId": Column(fills="song_id", read=fields.an_id, required=True),
    "timestamp": Column(fills="added_at", read=fields.unix_time, required=True),
}
MOVIE_COLUMNS: Mapping[str, Column] = {
    "movieId": Column(fills="song_id", read=fields.an_id, required=True),
    "title": Column(fills="title", read=fields.text),
    "release_date": Column(fills="release_date", read=day_of_100k),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of one kind of release.  Separators None: CSV with the columns' names in its first line."""

    source: str
    """Name of the source where that of the folder or zip does not tell."""
    ratings: str
    movies: str
    marker: str = ""
    """A further file that tells this layout from the next."""
    rating_separator: str | None = None
    movie_separator: str | None = None
    encoding: str = "utf-8"
    movie_header: Sequence[str] = ("movieId", "title", "genres")


# In the order in which they are tried.
LAYOUTS = (
    Layout(
        source="movielens-100k",
        ratings="u.data",
        movies="u.item",
        rating_separator="\t",
        movie_separator="|",
        encoding="latin-1",
        movie_header=("movieId", "title", "release_date", "video_date", "url", *("genre",) * GENRES_OF_100K),
    ),
    Layout(
        source="movielens-10m",
        ratings="ratings.dat",
        movies="movies.dat",
        marker="tags.dat",
        rating_separator="::",
        movie_separator="::",
    ),
    Layout(
        source="movielens-1m",
        ratings="ratings.dat",
        movies="movies.dat",
        rating_separator="::",
        movie_separator="::",
        encoding="latin-1",
    ),
    Layout(source="movielens", ratings="ratings.csv", movies="movies.csv"),
)


def import_movielens(
    connection: Connection,
    path: Path,
    *,
    source: str | None = None,
    prefix: str | None = None,
    progress: bool = True,
) -> Tally:
    """Import the release in a folder, or in a zip that is read where it lies; the caller commits.

    `source` None makes movielens-100k of ml-100k, and so on.  Ids are those of the files, as text, so two releases share some:
    `prefix` keeps them apart.  Raises DataError, with nothing imported, when no known release is there, a file cannot be read,
    the zip is too large, or another source uses an id.
    """
    found = files_in(path)
    layout = _layout_of(found, path)
    tally = Tally(source=source or _source_of(path, layout))
    ratings = _ratings(found[layout.ratings], layout, tally)
    movies = _movies(found[layout.movies], layout, tally)
    users: dict[str, int] = {}
    history = History(
        songs=_with_release_year(movies.typed(Song, tally)),
        playlists=_playlists_of(users),
        rows=_noting_users(ratings.typed(PlaylistRow, tally), users),
        order="time",
        files={"songs": movies.name, "rows": ratings.name},
    )
    load(connection, history, tally, prefix=prefix, progress=progress)
    return tally


def is_movielens(path: Path) -> bool:
    """Whether there is a known release at `path`."""
    if not path.is_dir() and not zipfile.is_zipfile(path):
        return False
    found = files_in(path)
    return any({layout.ratings, layout.movies} <= found.keys() for layout in LAYOUTS)


def _layout_of(found: Mapping[str, TextFile], path: Path) -> Layout:
    for layout in LAYOUTS:
        if {layout.ratings, layout.movies, layout.marker or layout.ratings} <= found.keys():
            return layout
    pairs = ", ".join(sorted({f"{layout.ratings} and {layout.movies}" for layout in LAYOUTS}))
    raise DataError(f"{path} holds no MovieLens release: it needs one of these pairs of files: {pairs}")


def _source_of(path: Path, layout: Layout) -> str:
    match = re.fullmatch(r"ml-(.+)", path.resolve().name.removesuffix(".zip"))
    return f"movielens-{match[1].lower()}" if match else layout.source


def _ratings(file: TextFile, layout: Layout, tally: Tally) -> Table:
    if layout.rating_separator is None:
        return open_csv(file, "rows", RATING_COLUMNS, tally, ignored=RATING_HEADER)
    rows = split_rows(file, layout.rating_separator, encoding=layout.encoding)
    return Table(name=file.name, kind="rows", header=RATING_HEADER, columns=RATING_COLUMNS, rows=rows)


def _movies(file: TextFile, layout: Layout, tally: Tally) -> Table:
    if layout.movie_separator is None:
        return open_csv(file, "songs", MOVIE_COLUMNS, tally, ignored=layout.movie_header)
    rows = split_rows(file, layout.movie_separator, encoding=layout.encoding)
    return Table(name=file.name, kind="songs", header=layout.movie_header, columns=MOVIE_COLUMNS, rows=rows)


def _with_release_year(movies: Iterator[Song]) -> Iterator[Song]:
    """Take the year that ends a title, as in "Toy Story (1995)", where there is no date."""
    for movie in movies:
        year = re.search(r"\(([12]\d{3})\)\s*$", movie.title or "")
        if movie.release_date is None and year is not None:
            yield movie._replace(release_date=date(int(year[1]), 1, 1))
        else:
            yield movie


def _noting_users(rows: Iterator[PlaylistRow], users: dict[str, int]) -> Iterator[PlaylistRow]:
    """Pass rows on, and put each user with the line of their first rating into `users`."""
    for row in rows:
        users.setdefault(row.playlist_id, row.line)
        yield row


def _playlists_of(users: Mapping[str, int]) -> Iterator[Playlist]:
    """One list for each user; asked for after the rows, when all users are known."""
    for user, line in users.items():
        yield Playlist(line=line, playlist_id=user, user_id=user)
