"""What a mapping says of the songs: their key, artist, album, title and features, and the tables that stand beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from storage.mapping.columns import FEATURE_NAMES, Place, Value, features_in, find, literal, squash, truth_sql, words
from storage.mapping.names import (
    ALBUM_IDS,
    ALBUM_TEXTS,
    ALBUM_WORDS,
    ARTIST_IDS,
    ARTIST_TEXTS,
    ARTIST_WORDS,
    FEATURE_TABLE_WORDS,
    IS_FIRST,
    POSITIONS,
    RECORDING_IDS,
    ROLES,
    SONG_IDS,
    TITLES,
    find_song_column,
    key_of,
    playlist_column,
    refers,
    user_column,
)
from storage.tables import Column, Kind, Table

CONTRACT_ORDER = ("artist_id", "album_id", "title", "artist_name", "album_title", "isrc", "recording_mbid")

ONLY_ASKED = "\0only asked\0"


@dataclass(frozen=True, kw_only=True)
class Join:
    """A table beside another one; `sql` may hold ONLY_ASKED, where a query for a few songs says which."""

    sql: str
    places: tuple[Place, ...]
    only_asked: Place | None = None
    """The column that is compared with the songs asked for."""


@dataclass(frozen=True, kw_only=True)
class Songs:
    """The table of songs and what stands around it."""

    key: Place
    values: tuple[Value, ...]
    joins: tuple[Join, ...]
    because: tuple[str, ...]


def describe_songs(tables: Sequence[Table], table: Table, key: Column, because: tuple[str, ...]) -> Songs:
    """What songs.sql is to yield out of `table`, whose rows `key` identifies, and of the tables beside it."""
    here = Place(alias="song", table=table, column=key)
    artist = _linked(tables, here, ARTIST_WORDS, ARTIST_IDS, ("artist_id", "artist_name"), ARTIST_TEXTS)
    album = _linked(tables, here, ALBUM_WORDS, ALBUM_IDS, ("album_id", "album_title"), ALBUM_TEXTS)
    album = _with_artist(album, artist, table)
    title = find(table, TITLES, {Kind.TEXT})
    isrc = find(table, ("isrc",), {Kind.TEXT})
    recording = find(table, RECORDING_IDS, {Kind.TEXT, Kind.UUID})
    values = [*artist.values, *album.values]
    values += [Value.of("title", Place(alias="song", table=table, column=title))] if title else []
    values += [Value.of("isrc", Place(alias="song", table=table, column=isrc))] if isrc else []
    values += [_as_text_of("recording_mbid", Place(alias="song", table=table, column=recording))] if recording else []
    ids = {place.column.name for value in values for place in value.places if place.table is table} | {key.name}
    features = list(features_in(table, "song", but=ids))
    joins = [*artist.joins, *album.joins]
    for number, side in enumerate(_side_tables(tables, here)):
        alias = "feature" if number == 0 else f"feature_{number + 1}"
        known = {feature.name for feature in features}
        more = [feature for feature in _side_features(side, alias) if feature.name not in known]
        if more:
            features += more
            joins.append(_side_join(side, alias, here))
    order = [*CONTRACT_ORDER, *FEATURE_NAMES]
    values.sort(key=lambda value: order.index(value.name))
    features.sort(key=lambda value: order.index(value.name) if value.name in order else len(order))
    return Songs(key=here, values=(*values, *features), joins=tuple(joins), because=because)


def _as_text_of(name: str, place: Place) -> Value:
    """A column cast to text, whatever it is."""
    return Value(name=name, sql=place.text_sql, places=(place,))


@dataclass(frozen=True, kw_only=True)
class Linked:
    """What a song says of its artist or album."""

    values: tuple[Value, ...] = ()
    joins: tuple[Join, ...] = ()


def _linked(
    tables: Sequence[Table],
    song: Place,
    their_words: set[str],
    id_names: Sequence[str],
    yields: tuple[str, str],
    texts: Sequence[str],
) -> Linked:
    """Artist or album of a song: by reference, through a table between them, or as a text of its own."""
    column = _column_towards(song.table, their_words, id_names)
    if column is not None:
        return _by_reference(tables, song.table, Place(alias="song", table=song.table, column=column), their_words, yields, texts)
    for between in sorted(tables, key=lambda table: len(table.columns)):
        theirs = _column_towards(between, their_words, id_names)
        ours = find_song_column(between, song.table, song.column)
        if theirs and ours and not playlist_column(between, tables) and not user_column(between) and between is not song.table:
            return _through(tables, between, song, ours, theirs, their_words, yields)
    return _as_text(song.table, yields, texts)


def _column_towards(table: Table, their_words: set[str], id_names: Sequence[str]) -> Column | None:
    """The column that refers to an artist (album): the plainest named first, then any reference to such a table."""
    referring = [
        reference.column
        for reference in table.references
        if words(reference.table)[-1] in their_words and table.column(reference.column).can_be_id
    ]
    named = find(table, id_names)
    if named is not None and named.can_be_id and named.name not in table.unique:
        return named
    return table.column(referring[0]) if referring else None


def _by_reference(
    tables: Sequence[Table],
    table: Table,
    place: Place,
    their_words: set[str],
    yields: tuple[str, str],
    texts: Sequence[str],
) -> Linked:
    there = _their_key(tables, place, their_words, alias=yields[0].removesuffix("_id"))
    if there is None:
        text = find(table, texts, {Kind.TEXT})
        names = (Value.of(yields[1], Place(alias="song", table=table, column=text)),) if text else ()
        return Linked(values=(Value.of(yields[0], place), *names))
    join = Join(sql=f"LEFT JOIN {there.table.sql} AS {there.alias} ON {there.sql} = {place.sql}", places=(there, place))
    return Linked(values=(Value.of(yields[0], place), *_name_of(there, yields[1])), joins=(join,))


def _their_key(tables: Sequence[Table], place: Place, their_words: set[str], alias: str) -> Place | None:
    """The column of the artists' (albums') table that a column points to, by reference or by name and type."""
    reference = place.table.reference_of(place.column.name)
    for table in tables:
        if reference is not None and refers(reference, table):
            return Place(alias=alias, table=table, column=table.column(reference.referred))
    for table in tables:
        key = key_of(table)
        if (
            reference is None
            and len(words(table.name)) == 1
            and words(table.name)[0] in their_words
            and key
            and key.kind is place.column.kind
        ):
            return Place(alias=alias, table=table, column=key)
    return None


def _name_of(there: Place, name: str) -> tuple[Value, ...]:
    column = find(there.table, ("name", "title", "display_name", "artist_name", "album_title", "album_name"), {Kind.TEXT})
    return (Value.of(name, Place(alias=there.alias, table=there.table, column=column)),) if column else ()


def _through(
    tables: Sequence[Table],
    between: Table,
    song: Place,
    ours: Column,
    theirs: Column,
    their_words: set[str],
    yields: tuple[str, str],
) -> Linked:
    """Many to many: of a song's artists (albums) the first, by whatever the table between them says."""
    name = yields[0].removesuffix("_id")
    alias = f"{name}_of_song"
    our_place, their_place = (Place(alias=alias, table=between, column=column) for column in (ours, theirs))
    reference = between.reference_of(ours.name)
    target = replace(song, column=song.table.column(reference.referred)) if reference else song
    ranks = list(_ranks(between, alias, {ours.name, theirs.name}))
    order = ", ".join([our_place.sql, *(sql for sql, _ in ranks), their_place.sql])
    chosen = f"{our_place.sql}, {their_place.sql}"
    first = Join(
        sql=(
            f"LEFT JOIN (\n    SELECT DISTINCT ON ({our_place.sql}) {chosen}\n    FROM {between.sql} AS {alias}"
            f"{ONLY_ASKED}\n    ORDER BY {order}\n) AS {alias} ON {our_place.sql} = {target.sql}"
        ),
        places=(our_place, their_place, target, *(place for _, place in ranks)),
        only_asked=our_place if target == song else None,
    )
    why = f"of several the first in {between}"
    identity = Value(name=yields[0], sql=their_place.sql, places=(their_place,), why=why)
    there = _their_key(tables, their_place, their_words, alias=name)
    if there is None:
        return Linked(values=(identity,), joins=(first,))
    second = Join(sql=f"LEFT JOIN {there.table.sql} AS {name} ON {there.sql} = {their_place.sql}", places=(there,))
    return Linked(values=(identity, *_name_of(there, yields[1])), joins=(first, second))


def _ranks(between: Table, alias: str, taken: set[str]) -> Iterator[tuple[str, Place]]:
    """By what the first of several artists is told: marked as primary, in a leading role, at the first place."""
    is_first, role, position = (
        find(between, names, but=taken) for names in (IS_FIRST, ROLES, (*POSITIONS, "credit_order", "artist_order"))
    )
    if is_first is not None:
        place = Place(alias=alias, table=between, column=is_first)
        if truth := truth_sql(place):
            yield f"{truth} DESC NULLS LAST", place
    if role is not None:
        place = Place(alias=alias, table=between, column=role)
        yield f"lower({place.sql}::text) IN ('primary', 'main', 'artist', 'performer') DESC NULLS LAST", place
    if position is not None:
        place = Place(alias=alias, table=between, column=position)
        yield place.sql, place


def _as_text(table: Table, yields: tuple[str, str], texts: Sequence[str]) -> Linked:
    """A name in the song's own row is its own id; of a list of names the first counts."""
    column = find(table, texts, {Kind.TEXT, Kind.TEXTS})
    if column is None:
        return Linked()
    place = Place(alias="song", table=table, column=column)
    if column.kind is Kind.TEXTS:
        name, why = f"{place.sql}[1]", "of several the first"
    elif squash(column.name).endswith(("artists", "artistnames")):
        name, why = f"split_part({place.sql}, ';', 1)", "of several, separated by ; the first"
    else:
        name, why = place.sql, ""
    name = f"NULLIF(btrim({name}), {literal('')})"
    return Linked(values=tuple(Value(name=yielded, sql=name, places=(place,), why=why) for yielded in yields))


def _with_artist(album: Linked, artist: Linked, table: Table) -> Linked:
    """Albums without an id of their own: two artists may have albums of one name, so the artist is part of their id."""
    identity = next((value for value in album.values if value.name == "album_id"), None)
    title = next((value for value in album.values if value.name == "album_title"), None)
    if identity is None or title is None or identity.sql != title.sql:
        return album
    column = find(table, ("album_artist",), {Kind.TEXT})
    named = [Value.of("artist_id", Place(alias="song", table=table, column=column))] if column else []
    whose = next((value for value in (*named, *artist.values) if value.name == "artist_id"), None)
    if whose is None:
        return album
    sql = f"CASE WHEN {title.sql} IS NOT NULL THEN concat_ws(' / ', {whose.sql}, {title.sql}) END"
    why = "albums have no id here: artist and title stand for it"
    return replace(album, values=(Value(name="album_id", sql=sql, places=(*title.places, *whose.places), why=why), title))


def _side_tables(tables: Sequence[Table], song: Place) -> Iterator[Table]:
    """Tables with one row per song and features in it."""
    for table in tables:
        column = _side_column(table, song)
        if column is not None and column.name in table.unique and table is not song.table:
            yield table


def _side_column(table: Table, song: Place) -> Column | None:
    for reference in table.references:
        if refers(reference, song.table):
            return table.column(reference.column)
    singular = "_".join(words(song.table.name))
    return (
        find(table, (*SONG_IDS, f"{singular}_id", "id"), {song.column.kind})
        if FEATURE_TABLE_WORDS & set(words(table.name))
        else None
    )


def _side_join(side: Table, alias: str, song: Place) -> Join:
    column = _side_column(side, song)
    assert column is not None, "side tables have one"
    there = Place(alias=alias, table=side, column=column)
    reference = side.reference_of(column.name)
    target = replace(song, column=song.table.column(reference.referred)) if reference else song
    return Join(sql=f"LEFT JOIN {side.sql} AS {alias} ON {there.sql} = {target.sql}", places=(there, target))


def _side_features(side: Table, alias: str) -> Iterator[Value]:
    """Features of a side table: those with known names, and every other number that is no key."""
    keys = {*side.primary_key, *(reference.column for reference in side.references)}
    known = list(features_in(side, alias, but=keys))
    yield from known
    taken = keys | {place.column.name for value in known for place in value.places}
    for column in side.columns:
        if column.kind is Kind.REAL and column.name not in taken:
            yield Value.of(column.name, Place(alias=alias, table=side, column=column))
