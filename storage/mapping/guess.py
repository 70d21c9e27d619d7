"""Guesses which of somebody's tables are the songs, their artists and albums, and the sequences: playlists or a play log.

Nothing but the catalogue is looked at (`storage.tables`).  Candidates get points for names, references and columns; the reasons
are kept, and stand in the files that `storage.mapping.files` writes, because the owner is to read and correct them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from errors import SchemaError
from storage.mapping.columns import FEATURE_NAMES, TIME_KINDS, Place, Value, find, time_sql, truth_sql, words
from storage.mapping.names import (
    ADDED,
    ALBUM_IDS,
    ALBUM_TEXTS,
    ALBUM_WORDS,
    ARTIST_IDS,
    ARTIST_TEXTS,
    ARTIST_WORDS,
    FEATURE_TABLE_WORDS,
    MS_PLAYED,
    NO_PLAY_WORDS,
    PLAY_WORDS,
    PLAYED,
    PLAYLIST_NAMES,
    PLAYLIST_WORDS,
    POSITIONS,
    SONG_TABLES,
    TITLES,
    TRUTHS,
    find_song_column,
    key_of,
    playlist_column,
    refers,
    user_column,
)
from storage.mapping.songs import Join, Songs, describe_songs
from storage.tables import Column, Kind, Table, quoted

# Points below which a table is no candidate: a name alone, without a column or reference that fits, does not reach them.
ENOUGH_POINTS = 8


class Order(Enum):
    """What the place of a song in its sequence is known by."""

    POSITION = "by position"
    TIME = "by time"
    INSERTION = "by the number of the row, as the songs were inserted"
    UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Where the sequences come from."""

    owner: Place
    """The playlist's id; of a play log the user's."""
    song: Place
    order: Order
    sort: tuple[Place, ...]
    """By what the songs of one sequence are sorted, the tie-breaks included."""
    time: Value | None
    values: tuple[Value, ...] = ()
    join: Join | None = None
    is_play_log: bool
    because: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Where the names of playlists stand."""

    key: Place
    name: Place
    made: Place | None
    """By when they were made the newest ones come first; None: by the key."""


@dataclass(frozen=True, kw_only=True)
class TableMapping:
    """All that the query files need."""

    songs: Songs
    sequences: Sequences
    lists: Lists | None
    """None where playlists have no names that could be found."""
    notes: tuple[str, ...]
    """What the owner must know: zones that were assumed, orders that are not known, indexes that are missing."""

    def places(self) -> Iterator[Place]:
        """Every column that the queries read."""
        yield self.songs.key
        for value in (*self.songs.values, *self.sequences.values, *filter(None, [self.sequences.time])):
            yield from value.places
        for join in (*self.songs.joins, *filter(None, [self.sequences.join])):
            yield from join.places
        yield from (self.sequences.owner, self.sequences.song, *self.sequences.sort)
        if self.lists is not None:
            yield from filter(None, [self.lists.key, self.lists.name, self.lists.made])


def map_tables(tables: Sequence[Table], *, songs: str | None = None, sequences: str | None = None, zone: str) -> TableMapping:
    """Guess the mapping; `songs` and `sequences` name tables where the guess would be wrong, `zone` that of times without one.

    Raises SchemaError, with the way out, when there is no table of songs, or no table of playlists or plays that names them.
    """
    song_candidate = _song_table(tables, songs)
    key = key_of(song_candidate.table)
    if key is None:
        raise SchemaError(f"{song_candidate.table} has no key of one column that could be an id: write songs.sql yourself")
    found = _sequence_table(tables, sequences, song_candidate.table, key)
    reference = found.table.reference_of(_song_column(found.table, song_candidate.table, key).name)
    if reference is not None and reference.table == song_candidate.table.name:
        key = song_candidate.table.column(reference.referred)
    described = _sequences(tables, found, song_candidate.table, key, zone)
    return TableMapping(
        songs=describe_songs(tables, song_candidate.table, key, song_candidate.because),
        sequences=described,
        lists=None if described.is_play_log else _lists(tables, described.owner),
        notes=tuple(_notes(described, zone)),
    )


# --- which tables ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A table, its points and what they are for."""

    table: Table
    points: int
    because: tuple[str, ...]


def _song_table(tables: Sequence[Table], named: str | None) -> Candidate:
    if named is not None:
        return Candidate(table=_named(tables, named, "songs"), points=0, because=("named by --songs",))
    return _best(
        [_as_songs(table, tables) for table in tables],
        "no table of songs found: name one with --songs SCHEMA.TABLE, or write the query files yourself (docs/database.md)",
    )


def _sequence_table(tables: Sequence[Table], named: str | None, songs: Table, key: Column) -> Candidate:
    """A table of playlist rows, or else a play log."""
    if named is not None:
        table = _named(tables, named, "sequences")
        if find_song_column(table, songs, key) is None or not (playlist_column(table, tables) or user_column(table)):
            raise SchemaError(
                f"{table} names no song of {songs}, or no playlist and no user: write the query files yourself (docs/database.md)"
            )
        return Candidate(table=table, points=0, because=("named by --sequences",))
    others = [table for table in tables if table is not songs and find_song_column(table, songs, key)]
    counted = [str(table) for table in others if find(table, ("play_count", "plays", "times_played"))]
    hint = f"; {counted[0]} only counts plays, from which no order can be learned" if counted else ""
    return _best(
        [_as_playlists(table, tables) for table in others] + [_as_plays(table) for table in others],
        f"no table of playlist songs or plays that names the songs of {songs} found{hint}: "
        "name one with --sequences SCHEMA.TABLE, or write the query files yourself (docs/database.md)",
    )


def _best(candidates: Sequence[Candidate], nothing: str) -> Candidate:
    """The candidate with most points, its runners-up named among its reasons.  Raises SchemaError(nothing)."""
    ranked = sorted(candidates, key=lambda candidate: -candidate.points)
    if not ranked or ranked[0].points < ENOUGH_POINTS:
        raise SchemaError(nothing)
    best, *others = ranked
    looked = [
        f"{other.table} ({other.points})" for other in others if other.points >= ENOUGH_POINTS and other.table != best.table
    ]
    also = (f"also looked at: {', '.join(looked[:3])}",) if looked else ()
    return replace(best, because=(f"{best.points} points: {', '.join(best.because)}", *also))


def _named(tables: Sequence[Table], name: str, option: str) -> Table:
    fitting = [table for table in tables if name in (str(table), table.name)]
    if len(fitting) != 1:
        said = "no table" if not fitting else f"{len(fitting)} tables"
        raise SchemaError(f"{said} {name!r} in the schemas looked at: give --{option} as SCHEMA.TABLE")
    return fitting[0]


def _candidate(table: Table, *points: tuple[bool, int, str]) -> Candidate:
    """Sum up the points whose condition holds."""
    counted = [(number, why) for holds, number, why in points if holds]
    return Candidate(
        table=table, points=sum(number for number, _ in counted), because=tuple(f"{why} {number:+d}" for number, why in counted)
    )


def _as_songs(table: Table, tables: Sequence[Table]) -> Candidate:
    name = words(table.name)
    others = (
        PLAYLIST_WORDS | PLAY_WORDS | NO_PLAY_WORDS | ALBUM_WORDS | ARTIST_WORDS | FEATURE_TABLE_WORDS | {"user", "tag", "genre"}
    )
    is_called = "_".join(name) in SONG_TABLES
    if key_of(table) is None or (playlist_column(table, tables) and not is_called):
        return Candidate(table=table, points=0, because=())
    n_referring = sum(any(refers(reference, table) for reference in other.references) for other in tables)
    facts = (*ARTIST_TEXTS, *ARTIST_IDS, *ALBUM_TEXTS, *ALBUM_IDS, "isrc", *FEATURE_NAMES["duration_ms"])
    return _candidate(
        table,
        (is_called, 10, "its name"),
        (not is_called and bool({"song", "track", "recording"} & set(name)) and not others & set(name), 6, "part of its name"),
        (name[-1] in ("item", "score"), 3, "its name"),
        (find(table, TITLES, {Kind.TEXT}) is not None, 3, "a title"),
        (find(table, facts) is not None, 2, "artist, album, length or ISRC"),
        (n_referring > 0, min(3, n_referring), "references to it"),
        (bool(table.n_rows), 1, "rows"),
    )


def _as_playlists(table: Table, tables: Sequence[Table]) -> Candidate:
    owner = playlist_column(table, tables)
    if owner is None or PLAY_WORDS & set(words(table.name)):
        return Candidate(table=table, points=0, because=())
    return _candidate(
        table,
        (True, 9, f"a song and a playlist ({owner.name}) in each row"),
        (table.reference_of(owner.name) is not None, 2, "its references"),
        (find(table, POSITIONS) is not None, 3, "a position"),
        (find(table, ADDED, TIME_KINDS) is not None, 1, "a time"),
        (bool(table.n_rows), 1, "rows"),
        (table.n_rows == 0, -6, "empty"),
    )


def _as_plays(table: Table) -> Candidate:
    name = set(words(table.name))
    if user_column(table) is None or find(table, PLAYED, TIME_KINDS) is None or NO_PLAY_WORDS & name:
        return Candidate(table=table, points=0, because=())
    return _candidate(
        table,
        (True, 5, "a song, a user and a time in each row"),
        (bool(PLAY_WORDS & name), 4, "its name"),
        (find(table, ("play_count", "times_played")) is not None, -9, "counts instead of plays"),
        (bool(table.n_rows), 1, "rows"),
        (table.n_rows == 0, -6, "empty"),
    )


# --- which columns -----------------------------------------------------------------------------------------------------------


def _song_column(table: Table, songs: Table, key: Column) -> Column:
    column = find_song_column(table, songs, key)
    assert column is not None, "candidates without one were left out"
    return column


# --- sequences ---------------------------------------------------------------------------------------------------------------


def _sequences(tables: Sequence[Table], found: Candidate, songs: Table, key: Column, zone: str) -> Sequences:
    table = found.table
    song = Place(alias="item", table=table, column=_song_column(table, songs, key))
    playlist = playlist_column(table, tables)
    if playlist is not None and not PLAY_WORDS & set(words(table.name)):
        return _playlists(tables, found, Place(alias="item", table=table, column=playlist), song, zone)
    user = user_column(table)
    assert user is not None, "candidates without one were left out"
    return _plays(found, Place(alias="item", table=table, column=user), song, zone)


def _playlists(tables: Sequence[Table], found: Candidate, owner: Place, song: Place, zone: str) -> Sequences:
    table, taken = found.table, {owner.column.name, song.column.name}
    position = _placed(table, find(table, POSITIONS, {Kind.WHOLE, Kind.REAL, Kind.TEXT}, but=taken))
    added = _placed(table, find(table, ADDED, TIME_KINDS, but=taken))
    number = _placed(table, _row_number(table))
    made = None if added else _made_at(tables, owner)
    order = Order.POSITION if position else Order.TIME if added else Order.INSERTION if number else Order.UNKNOWN
    time = added or (made[0] if made else None)
    return Sequences(
        owner=owner,
        song=song,
        order=order,
        sort=_distinct(filter(None, [position, added, number, song])),
        time=_time(time, zone) if time else None,
        values=(Value.of("position", position),) if position else (),
        join=made[1] if made else None,
        is_play_log=False,
        because=found.because,
    )


def _plays(found: Candidate, user: Place, song: Place, zone: str) -> Sequences:
    table, taken = found.table, {user.column.name, song.column.name}
    played = _placed(table, find(table, PLAYED, TIME_KINDS, but=taken))
    if played is None:
        raise SchemaError(f"{table} has no time of playing that could be read: write the query files yourself (docs/database.md)")
    return Sequences(
        owner=user,
        song=song,
        order=Order.TIME,
        sort=_distinct(filter(None, [played, _placed(table, _row_number(table)), song])),
        time=_time(played, zone),
        values=tuple(_completion(table)),
        is_play_log=True,
        because=found.because,
    )


def _completion(table: Table) -> Iterator[Value]:
    """How much of a song was played, whether it was skipped, and whether a recommender had proposed it."""
    for name, factor in MS_PLAYED.items():
        column = find(table, (name,), {Kind.WHOLE, Kind.REAL})
        if column is not None:
            place = Place(alias="item", table=table, column=column)
            yield Value(name="ms_played", sql=place.sql if factor == 1 else f"{factor} * {place.sql}", places=(place,))
            break
    truths = {name: _truth(table, names) for name, names in TRUTHS.items()}
    if truths["skipped"] is None and truths["completed"] is not None:
        truths["skipped"] = replace(truths["completed"], sql=f"NOT ({truths['completed'].sql})")
    yield from (replace(truth, name=name) for name in ("skipped", "is_recommended") if (truth := truths[name]) is not None)


def _truth(table: Table, names: Sequence[str]) -> Value | None:
    place = _placed(table, find(table, names))
    sql = truth_sql(place) if place else None
    return Value(name=names[0], sql=sql, places=(place,)) if place and sql else None


def _made_at(tables: Sequence[Table], owner: Place) -> tuple[Place, Join] | None:
    """When a playlist was made, where its songs have no time of their own."""
    there = _playlist_of(tables, owner)
    made = None if there is None else find(there.table, ADDED, TIME_KINDS)
    if there is None or made is None:
        return None
    join = Join(sql=f"JOIN {there.table.sql} AS playlist ON {there.sql} = {owner.sql}", places=(there,))
    return replace(there, column=made), join


def _lists(tables: Sequence[Table], owner: Place) -> Lists | None:
    """The table of playlists, where the rows refer to one that has names."""
    key = _playlist_of(tables, owner)
    name = None if key is None else find(key.table, PLAYLIST_NAMES, {Kind.TEXT})
    if key is None or name is None:
        return None
    made = find(key.table, ADDED, TIME_KINDS)
    return Lists(key=key, name=replace(key, column=name), made=None if made is None else replace(key, column=made))


def _playlist_of(tables: Sequence[Table], owner: Place) -> Place | None:
    """The column of a table of playlists that the rows of playlists refer to."""
    reference = owner.table.reference_of(owner.column.name)
    playlists = next((table for table in tables if reference and refers(reference, table)), None)
    if reference is None or playlists is None:
        return None
    return Place(alias="playlist", table=playlists, column=playlists.column(reference.referred))


def _time(place: Place, zone: str) -> Value:
    sql = time_sql(place, zone)
    why = f"{place} has no zone and is read as {zone}" if place.column.kind in (Kind.NAIVE_TIME, Kind.DATE) else ""
    return Value(name="listened_at", sql=sql, places=(place,), why=why)


def _row_number(table: Table) -> Column | None:
    """A key that grows with each row."""
    if len(table.primary_key) != 1:
        return None
    column = table.column(table.primary_key[0])
    return column if column.kind is Kind.WHOLE else None


def _placed(table: Table, column: Column | None) -> Place | None:
    return None if column is None else Place(alias="item", table=table, column=column)


def _distinct(places: Iterable[Place]) -> tuple[Place, ...]:
    return tuple({place.column.name: place for place in places}.values())


def _notes(sequences: Sequences, zone: str) -> Iterator[str]:
    table, owner = sequences.owner.table, sequences.owner.column.name
    if sequences.time is not None and sequences.time.why:
        yield f"{sequences.time.why}: --time-zone says otherwise"
    if sequences.order in (Order.INSERTION, Order.UNKNOWN):
        yield f"{table} has neither position nor time: the order within a sequence is {sequences.order.value}"
    if not table.is_view and owner not in table.leads_index:
        index = f"CREATE INDEX ON {table.sql} ({quoted(owner)})"
        yield f"no index of {table} begins with {owner}, so that reading one sequence reads all of them: {index}"
