"""Tables as the catalogue would describe them, in one line each."""

from storage.tables import Column, Kind, Reference, Table

_TYPES = {
    Kind.WHOLE: "bigint",
    Kind.TEXT: "text",
    Kind.UUID: "uuid",
    Kind.REAL: "real",
    Kind.TRUTH: "boolean",
}


def column(name, kind=Kind.TEXT):
    return Column(name=name, kind=kind, type_name=_TYPES.get(kind, "other"))


def table(name, *columns, key=("id",), schema="public", references=(), **facts):
    """A table; `references` are (column, table, its column if not id), and a key of one column makes it unique."""
    names = {one.name for one in columns}
    key = tuple(part for part in key if part in names)
    facts.setdefault("leads_index", frozenset(key[:1]))
    return Table(
        schema=schema,
        name=name,
        columns=columns,
        primary_key=key,
        unique=frozenset(key if len(key) == 1 else ()),
        references=tuple(
            Reference(column=one, schema=schema, table=other, referred=referred[0] if referred else "id")
            for one, other, *referred in references
        ),
        **facts,
    )


def songs(name="songs", *more, **facts):
    return table(name, column("id", Kind.WHOLE), column("title"), *more, **facts)


def playlists(name="playlists", *more):
    return table(name, column("id", Kind.WHOLE), column("name"), *more)


def junction(name="playlist_songs", *more, song="song_id", songs="songs", **facts):
    columns = (column("playlist_id", Kind.WHOLE), column(song, Kind.WHOLE), *more)
    facts.setdefault("key", ("playlist_id", song))
    return table(name, *columns, references=(("playlist_id", "playlists"), (song, songs)), **facts)


def plays(name="plays", *more, time=Kind.ZONED_TIME, **facts):
    columns = (column("user_id", Kind.WHOLE), column("song_id", Kind.WHOLE), column("played_at", time), *more)
    return table(name, *columns, references=(("song_id", "songs"),), **facts)
