"""The files that a mapping becomes: the queries, setup.sql, uninstall.sql and the settings file; written to be read.

The queries name each table with its schema, compare keys in their own type, sort, and need neither view nor right to create.
setup.sql brings the schema `recommender` out of the numbered migrations, and a role that may read exactly those columns.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from errors import ConfigError
from storage.mapping.columns import Place, Value, literal
from storage.mapping.guess import Lists, Sequences, TableMapping
from storage.mapping.songs import ONLY_ASKED, Songs
from storage.migrate import Migration, migrations_in
from storage.named import SQL_FOLDER, queries
from storage.tables import Table, quoted

DEFAULT_ROLE = "recommender_service"
QUERY_FILES = ("songs.sql", "songs_by_id.sql", "sequences.sql", "sequence_by_id.sql")
SESSION_GAP = "30 minutes"
# Of a play log the model's context needs the last plays only; so many are also kept from being recommended again.
LATEST_PLAYS = 200

_STORAGE = Path(__file__).resolve().parents[1]
_PARTS = queries(SQL_FOLDER / "mapped.sql")


def mapped_files(mapping: TableMapping, *, role: str = DEFAULT_ROLE, folder: Path) -> dict[str, str]:
    """The text of each file by its name; `folder` is where they will stand."""
    return {
        "songs.sql": songs_file(mapping.songs, by_id=False),
        "songs_by_id.sql": songs_file(mapping.songs, by_id=True),
        "sequences.sql": sequences_file(mapping.sequences, mapping.notes),
        "sequence_by_id.sql": sequence_by_id_file(mapping.sequences),
        **({"plays_by_listener.sql": plays_by_listener_file(mapping.sequences)} if mapping.sequences.is_play_log else {}),
        **({"playlists.sql": playlists_file(mapping.lists, mapping.sequences)} if mapping.lists else {}),
        "setup.sql": setup_file(mapping, role, folder),
        "uninstall.sql": uninstall_file(mapping, role, folder),
        "bert4musicrec.toml": settings_file(folder),
    }


def write_files(folder: Path, files: Mapping[str, str], *, force: bool = False) -> None:
    """Write all files or none; without `force` none that is there already is replaced.

    Raises ConfigError when one is there, or the folder cannot be written.
    """
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        raise ConfigError(f"{folder / there[0]} is there already: name another folder with --out, or replace it with --force")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = {name: folder / f".{name}.new" for name in files}
        for name, text in files.items():
            fresh[name].write_text(text, encoding="utf-8")
        for name, path in fresh.items():
            path.replace(folder / name)
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be written ({exc.strerror}): name another folder with --out") from exc


# --- songs -------------------------------------------------------------------------------------------------------------------


def songs_file(songs: Songs, *, by_id: bool) -> str:
    """songs.sql, or with `by_id` songs_by_id.sql."""
    asked = f"= ANY({{song_ids}}::{songs.key.column.type_name}[])"
    columns = _listed([Value.of("song_id", songs.key), *songs.values])
    lines = [f"SELECT\n{columns}", f"FROM {songs.key.table.sql} AS song"]
    for join in songs.joins:
        only = f"\n    WHERE {join.only_asked.sql} {asked}" if by_id and join.only_asked else ""
        lines.append(join.sql.replace(ONLY_ASKED, only))
    lines.append(f"WHERE {songs.key.sql} {asked};" if by_id else f"ORDER BY {songs.key.sql};")
    if by_id:
        return _commented("songs_by_id: the columns of songs.sql for the list of ids song_ids.") + _with_parameter(
            "\n".join(lines)
        )
    why = [f"{songs.key.table} was taken for the songs ({songs.because[0]})", *songs.because[1:]]
    return _commented("songs: one row per song.", *why, *_reasons(songs.values)) + "\n".join(lines) + "\n"


# --- sequences ---------------------------------------------------------------------------------------------------------------


def sequences_file(sequences: Sequences, notes: Sequence[str]) -> str:
    """sequences.sql: playlists row by row, or the sessions of a play log."""
    what = "a song of a listening session" if sequences.is_play_log else "a song of a playlist"
    why = [f"{sequences.owner.table} was taken for them ({sequences.because[0]})", *sequences.because[1:]]
    order = f"the order within a sequence is {sequences.order.value}"
    comment = _commented(f"sequences: one row is {what}.", *why, order, *(f"NOTE: {note}" for note in notes))
    return comment + (_sessions(sequences) if sequences.is_play_log else _playlists(sequences)) + "\n"


def sequence_by_id_file(sequences: Sequences) -> str:
    """sequence_by_id.sql: the songs of one playlist; of a play log those that a user played last."""
    if not sequences.is_play_log:
        comment = _commented("sequence_by_id: the songs of the playlist sequence_id, in their order.")
        text = f"SELECT {sequences.song.sql} AS song_id\nFROM {sequences.owner.table.sql} AS item\n{_of_asked(sequences)}"
        return comment + _with_parameter(f"{text}\nORDER BY {_sorted(sequences.sort)};")
    comment = _commented(
        f"sequence_by_id: what the user sequence_id played last, oldest first, at most {LATEST_PLAYS} songs.",
        "A model is trained on sessions, and asked about users.",
    )
    columns = ", ".join(
        [f"{sequences.song.sql} AS song_id", *(f"{place.sql} AS sort_{n}" for n, place in enumerate(sequences.sort))]
    )
    newest = ", ".join(f"{place.sql} DESC" for place in sequences.sort)
    oldest = ", ".join(f"sort_{n}" for n in range(len(sequences.sort)))
    text = (
        f"SELECT latest.song_id\nFROM (\n    SELECT {columns}\n    FROM {sequences.owner.table.sql} AS item\n"
        f"    {_of_asked(sequences)}\n    ORDER BY {newest}\n    LIMIT {LATEST_PLAYS}\n) AS latest\nORDER BY {oldest};"
    )
    return comment + _with_parameter(text)


def plays_by_listener_file(sequences: Sequences) -> str:
    """plays_by_listener.sql: what a user of the play log played since a time."""
    assert sequences.time is not None
    comment = _commented(
        "plays_by_listener: what the user listener played since a time, so that it can be kept from being recommended again.",
        "Optional: a listener of requests and feedback is looked for among the users of the play log.",
    )
    columns = _listed([Value.of("song_id", sequences.song), sequences.time])
    return comment + _with_parameter(
        f"SELECT\n{columns}\nFROM {sequences.owner.table.sql} AS item\n"
        f"WHERE {sequences.owner.sql} = {{listener}}::{sequences.owner.column.type_name}\n"
        f"    AND {sequences.time.sql} >= {{since}}::timestamptz;"
    )


def playlists_file(lists: Lists, sequences: Sequences) -> str:
    """playlists.sql: the playlists by name, the newest first."""
    comment = _commented(
        "playlists: the playlists whose name holds all words of q, or whose id q is; the newest first, at most count.",
        "Optional: without it a playlist can only be asked for by its id.",
    )
    key, name = lists.key.sql, lists.name.text_sql
    newest = [f"{lists.made.sql} DESC NULLS LAST"] if lists.made else []
    order = ", ".join([f"{key}::text = {{q}}::text DESC", *newest, f"{key} DESC"])
    return comment + _with_parameter(
        f"SELECT\n    {key} AS playlist_id,\n    {name} AS name,\n"
        f"    (SELECT count(*) FROM {sequences.owner.table.sql} AS item WHERE {sequences.owner.sql} = {key}) AS n_songs\n"
        f"FROM {lists.key.table.sql} AS playlist\n"
        f"WHERE {key}::text = {{q}}::text OR NOT EXISTS (\n"
        "    SELECT FROM regexp_split_to_table(btrim(lower({q}::text)), '\\s+') AS word\n"
        f"    WHERE strpos(lower(COALESCE({name}, '')), word) = 0\n)\n"
        f"ORDER BY {order}\nLIMIT {{count}}::integer;"
    )


def _of_asked(sequences: Sequences) -> str:
    return f"WHERE {sequences.owner.sql} = {{sequence_id}}::{sequences.owner.column.type_name}"


def _playlists(sequences: Sequences) -> str:
    columns = [
        Value.of("sequence_id", sequences.owner),
        Value.of("song_id", sequences.song),
        *sequences.values,
        *_times(sequences),
    ]
    lines = [f"SELECT\n{_listed(columns)}", f"FROM {sequences.owner.table.sql} AS item"]
    lines += [sequences.join.sql] if sequences.join else []
    return "\n".join([*lines, f"ORDER BY {sequences.owner.sql}, {_sorted(sequences.sort)};"])


def _sessions(sequences: Sequences) -> str:
    """A session ends where the user's next play begins more than SESSION_GAP later."""
    read = [Value.of("user_id", sequences.owner), Value.of("song_id", sequences.song), *_times(sequences), *sequences.values]
    ties = [place for place in sequences.sort[1:] if place != sequences.song]
    sorts = [f"tie_{number}" for number, _ in enumerate(ties)] + ["song_id"]
    read += [Value.of(name, place) for name, place in zip(sorts, ties, strict=False)]
    extra = "".join(f", {value.name}" for value in sequences.values)
    order = ", ".join(["listened_at", *sorts])
    return (
        f"WITH play AS (\n    SELECT\n{_indented(_listed(read))}\n    FROM {sequences.owner.table.sql} AS item\n), marked AS (\n"
        f"    SELECT\n        {', '.join(value.name for value in read)},\n"
        f"        listened_at - lag(listened_at) OVER in_time > INTERVAL '{SESSION_GAP}' AS begins_session\n"
        f"    FROM play\n    WINDOW in_time AS (PARTITION BY user_id ORDER BY {order})\n)\n"
        "SELECT\n"
        "    concat_ws('/', user_id, count(*) FILTER (WHERE begins_session) OVER in_time) AS sequence_id,\n"
        f"    song_id,\n    listened_at{extra}\n"
        f"FROM marked\nWINDOW in_time AS (PARTITION BY user_id ORDER BY {order})\nORDER BY user_id, {order};"
    )


def _times(sequences: Sequences) -> list[Value]:
    return [sequences.time] if sequences.time else []


def _sorted(places: Sequence[Place]) -> str:
    return ", ".join(place.sql for place in places)


# --- setup and uninstall -----------------------------------------------------------------------------------------------------


def setup_file(mapping: TableMapping, role: str, folder: Path) -> str:
    """setup.sql: schema, role, grants, functions; can be run again."""
    types = [mapping.songs.key.column.type_name, mapping.sequences.owner.column.type_name]
    parts = [
        _part("setup_head", file=folder / "setup.sql", role=quoted(role)),
        *(_applied_once(migration) for migration in recommender_migrations()),
        _typed_latest(types),
        rights_of(role),
        "\n".join(_grants(mapping, role)),
        _trigger(mapping.sequences),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def uninstall_file(mapping: TableMapping, role: str, folder: Path) -> str:
    """uninstall.sql: takes away what setup.sql brought, the rights on the owner's tables first."""
    taken = "\n".join(_revokes(mapping, role))
    return _part("uninstall", file=folder / "uninstall.sql", role=quoted(role), role_text=literal(role), taken=taken) + "\n"


def recommender_migrations() -> list[Migration]:
    """All migrations but those of the schema `music`, which whoever has tables of their own does without."""
    return [migration for migration in migrations_in() if not migration.name.endswith("_music.sql")]


def rights_of(role: str) -> str:
    """What storage/setup.sql grants, without the schema `music`."""
    text = (_STORAGE / "setup.sql").read_text(encoding="utf-8")
    body = text[text.index("DO $$") :]
    return _as_role("\n".join(line for line in body.splitlines() if "SCHEMA music" not in line).strip(), role)


def _as_role(text: str, role: str) -> str:
    """A text of ours with another role's name: as an identifier, and where it stands in quotes as a text."""
    text = text.replace(f"'{DEFAULT_ROLE}'", literal(role))
    return re.sub(rf"\b{DEFAULT_ROLE}\b", lambda _: quoted(role), text) if role != DEFAULT_ROLE else text


def _applied_once(migration: Migration) -> str:
    return _part(
        "apply_once",
        version=migration.version,
        file_name=literal(migration.name),
        checksum=literal(migration.checksum),
        tag=f"$migration_{migration.version:04d}$",
        text=migration.text.strip(),
    )


def _typed_latest(types: Sequence[str]) -> str:
    return _part("typed_latest", types=", ".join(literal(name) for name in types))


def _grants(mapping: TableMapping, role: str) -> Iterator[str]:
    yield "-- What the query files read, column by column."
    for schema in sorted({table.schema for table in _columns_read(mapping)}):
        yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)};"
    for table, columns in _columns_read(mapping).items():
        yield f"GRANT SELECT ({', '.join(map(quoted, columns))}) ON {table.sql} TO {quoted(role)};"
    for table in _secured(mapping):
        yield _part("policy", policy=quoted(f"{role}_reads"), table=table.sql, role=quoted(role))


def _revokes(mapping: TableMapping, role: str) -> Iterator[str]:
    for table in _secured(mapping):
        yield f"    DROP POLICY IF EXISTS {quoted(f'{role}_reads')} ON {table.sql};"
    for table, columns in _columns_read(mapping).items():
        yield f"    REVOKE SELECT ({', '.join(map(quoted, columns))}) ON {table.sql} FROM {quoted(role)};"
    for schema in sorted({table.schema for table in _columns_read(mapping)}):
        yield f"    REVOKE USAGE ON SCHEMA {quoted(schema)} FROM {quoted(role)};"


def _trigger(sequences: Sequences) -> str:
    if sequences.owner.table.is_view:
        return ""
    return _part("trigger", table=sequences.owner.table.sql, column=literal(sequences.owner.column.name))


def _columns_read(mapping: TableMapping) -> dict[Table, list[str]]:
    """The columns that the queries read, by table, in the order of the tables' own columns."""
    read = {(place.table, place.column.name) for place in mapping.places()}
    tables = sorted({table for table, _ in read}, key=str)
    return {table: [column.name for column in table.columns if (table, column.name) in read] for table in tables}


def _secured(mapping: TableMapping) -> list[Table]:
    return [table for table in _columns_read(mapping) if table.has_row_security]


def settings_file(folder: Path) -> str:
    """The settings that lead every command to the queries."""
    where = str(folder.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return _PARTS["settings"].partition("\n")[2].format(where=where)


# --- text --------------------------------------------------------------------------------------------------------------------


def _part(name: str, **values: object) -> str:
    """A part of a file, with the semicolon that named statements lose."""
    return f"{_PARTS[name].format(**values)};"


def _listed(values: Sequence[Value]) -> str:
    """The list of a SELECT, one value a line."""
    return ",\n".join(
        f"    {value.sql}" if value.sql.endswith(f".{quoted(value.name)}") else f"    {value.sql} AS {quoted(value.name)}"
        for value in values
    )


def _reasons(values: Sequence[Value]) -> list[str]:
    return [f"{value.name}: {value.why}" for value in values if value.why]


def _commented(*lines: str) -> str:
    """Comment lines; a name with a line break in it does not end its comment."""
    return "".join(f"-- {' '.join(line.split())}\n" for line in lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _with_parameter(text: str) -> str:
    """The text of a query with a parameter, in which a percent sign stands twice."""
    doubled = text.replace("%", "%%")
    return re.sub(r"\{(song_ids|sequence_id|listener|since|q|count)\}", r"%(\1)s", doubled) + "\n"
