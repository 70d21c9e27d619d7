"""What a column of somebody's tables says in the words of our contract: names recognised, values converted in SQL.

Names are compared without case, underscores and the table's own name: `track_title`, `trackTitle` and `title` are one in a table
`tracks`.  Conversions are written so that a value that does not fit becomes NULL rather than an error.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from storage.tables import Column, Kind, Table, quoted

TIME_KINDS = (Kind.ZONED_TIME, Kind.NAIVE_TIME, Kind.DATE, Kind.WHOLE, Kind.REAL)

# Numeric features in the order of the shipped songs.sql, with the names that other people give them.
FEATURE_NAMES: Mapping[str, Sequence[str]] = {
    "explicit": ("explicit", "is_explicit", "parental_advisory"),
    "mode": ("mode", "scale", "is_major", "modality", "key_mode"),
    "disc_number": ("disc_number", "disc_no", "disk_number", "disc"),
    "track_number": ("track_number", "track_no", "track_num", "number_on_album"),
    "danceability": ("danceability",),
    "energy": ("energy",),
    "loudness": ("loudness", "loudness_db"),
    "speechiness": ("speechiness",),
    "acousticness": ("acousticness",),
    "instrumentalness": ("instrumentalness",),
    "liveness": ("liveness",),
    "valence": ("valence",),
    "tempo": ("tempo", "bpm", "tempo_bpm", "beats_per_minute"),
    "duration_ms": (
        *("duration_ms", "length_ms", "milliseconds", "duration_millis", "duration_msec", "track_length_ms"),
        *("duration_s", "duration_sec", "duration_secs", "duration_seconds", "length_s", "length_sec", "length_seconds"),
        *("seconds", "duration_min", "duration_minutes", "length_min", "minutes", "duration", "length"),
    ),
    "time_signature": ("time_signature", "meter"),
    "key": ("key", "musical_key", "pitch_class", "key_name", "key_signature"),
    "release_year": ("release_year", "year", "released", "release_date", "date_released"),
}
_SEMITONES = ("c b#", "c# db", "d", "d# eb", "e fb", "f e#", "f# gb", "g", "g# ab", "a", "a# bb", "b cb")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A column of a table under the alias that a query gives it."""

    alias: str
    table: Table
    column: Column

    @property
    def sql(self) -> str:
        """The column as SQL."""
        return f"{self.alias}.{quoted(self.column.name)}"

    @property
    def text_sql(self) -> str:
        """The column as SQL of type text, which an enum is not by itself."""
        return self.sql if self.column.type_name in ("text", "bpchar") else f"{self.sql}::text"

    def __str__(self) -> str:
        return f"{self.table}.{self.column.name}"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A column that a query file yields."""

    name: str
    sql: str
    places: tuple[Place, ...]
    """What it reads."""
    why: str = ""
    """What a reader should know of it, as a clause."""

    @classmethod
    def of(cls, name: str, place: Place) -> "Value":
        """A column as it stands."""
        return cls(name=name, sql=place.sql, places=(place,))


def squash(name: str) -> str:
    """A name without case and signs.

    >>> squash("trackTitle") == squash("track_title") == squash("TrackTitle")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def words(name: str) -> tuple[str, ...]:
    """The words of a name, each in the singular.

    >>> words("playlistTracks"), words("listening_history"), words("media_files")
    (('playlist', 'track'), ('listening', 'history'), ('media', 'file'))
    """
    parts = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return tuple(_singular(part) for part in parts) or (name,)  # a name in other letters is one word


def find(
    table: Table, names: Sequence[str], kinds: Collection[Kind] | None = None, *, but: Collection[str] = ()
) -> Column | None:
    """The column with the first of `names` that a column of one of `kinds` (None: any) has; `but` names columns to pass over."""
    own = squash("".join(words(table.name)))
    columns = [column for column in table.columns if column.name not in but and (kinds is None or column.kind in kinds)]
    for name in map(squash, names):
        for column in columns:
            if squash(column.name) in (name, f"{own}{name}"):
                return column
    return None


def time_sql(place: Place, zone: str) -> str:
    """A time as timestamptz; one without a zone is read in `zone`, a number as seconds (or milli-, microseconds) since 1970."""
    kind = place.column.kind
    if kind is Kind.ZONED_TIME:
        return place.sql
    if kind in (Kind.NAIVE_TIME, Kind.DATE):
        cast = "::timestamp" if kind is Kind.DATE else ""
        return f"{place.sql}{cast} AT TIME ZONE {literal(zone)}"
    # Seconds reach 10^11 in the year 5138, milliseconds 10^14; so the size tells the unit.
    return f"to_timestamp({place.sql} / CASE WHEN {place.sql} > 1e14 THEN 1e6 WHEN {place.sql} > 1e11 THEN 1e3 ELSE 1 END)"


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def truth_sql(place: Place) -> str | None:
    """A column as true or false; None when its type says neither."""
    kind = place.column.kind
    if kind is Kind.TRUTH:
        return place.sql
    if kind.is_number:
        return f"{place.sql} <> 0"
    if kind is Kind.TEXT:
        yes = "'t', 'true', 'y', 'yes', '1', 'explicit'"
        no = "'f', 'false', 'n', 'no', '0', 'clean', 'cleaned', 'not explicit', 'notexplicit'"
        return f"CASE WHEN lower({place.text_sql}) IN ({yes}) THEN true WHEN lower({place.text_sql}) IN ({no}) THEN false END"
    return None


def features_in(table: Table, alias: str, but: Collection[str] = ()) -> Iterator[Value]:
    """The features that a table has under names we know; `but` names columns that are something else."""
    for name, names in FEATURE_NAMES.items():
        column = find(table, names, but=but)
        value = feature(name, Place(alias=alias, table=table, column=column)) if column else None
        if value is not None:
            yield value


def feature(name: str, place: Place) -> Value | None:
    """A column as the feature `name`; None when its type cannot be that."""
    converted = _CONVERSIONS.get(name, number_sql)(place)
    if converted is None:
        return None
    why = "" if converted == place.sql else f"from {place}"
    if name == "duration_ms" and squash(place.column.name) in ("duration", "length") and place.column.kind.is_number:
        why = f"{place} has no unit in its name: values over 20,000 are taken for milliseconds, others for seconds"
    return Value(name=name, sql=converted, places=(place,), why=why)


def number_sql(place: Place) -> str | None:
    """A column as a number: as it stands, or a text that reads as one."""
    kind = place.column.kind
    if kind.is_number or kind is Kind.TRUTH:
        return place.sql
    if kind is Kind.TEXT:
        pattern = r"'^\s*[-+]?[0-9]{1,15}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?\s*$'"  # within the range of the type
        return f"CASE WHEN {place.text_sql} ~ {pattern} THEN {place.text_sql}::double precision END"
    return None


def _key_sql(place: Place) -> str | None:
    """A pitch class from 0 (C) to 11 (B), out of a number or of a text such as C#, Bb minor, F♯m."""
    if place.column.kind is not Kind.TEXT:
        return place.sql if place.column.kind.is_number else None
    note = f"translate(lower(substring({place.text_sql} FROM '^\\s*([A-Ga-g][#♯b♭]?)')), '♯♭', '#b')"
    cases = " ".join(f"WHEN {literal(name)} THEN {number}" for number, names in enumerate(_SEMITONES) for name in names.split())
    digits = f"CASE WHEN {place.text_sql} ~ '^\\s*-?[0-9]{{1,2}}\\s*$' THEN {place.text_sql}::integer END"
    return f"COALESCE(CASE {note} {cases} END, {digits})"


def _mode_sql(place: Place) -> str | None:
    """1 for major, 0 for minor."""
    if place.column.kind is not Kind.TEXT:
        return f"{place.sql}::integer" if place.column.kind is Kind.TRUTH else number_sql(place)
    return f"CASE WHEN {place.text_sql} ~* '^\\s*(maj|1)' THEN 1 WHEN {place.text_sql} ~* '^\\s*(min|0)' THEN 0 END"


def _duration_sql(place: Place) -> str | None:
    """Milliseconds; where the name has no unit, what is over 20,000 is taken for them, and the rest for seconds."""
    if place.column.kind is Kind.LENGTH_OF_TIME:
        return f"1000 * EXTRACT(EPOCH FROM {place.sql})"
    number = number_sql(place)
    factor = _milliseconds_in_unit_of(place.column.name)
    if number is None or factor == 1:
        return number
    if place.column.kind is Kind.WHOLE:
        number = f"{number}::bigint"  # a thousand times an integer may be no integer
    return f"{factor} * {number}" if factor else f"CASE WHEN {number} > 20000 THEN {number} ELSE 1000 * {number} END"


def _milliseconds_in_unit_of(name: str) -> int:
    """What the unit in a column's name stands for; 0 without one."""
    name = squash(name)
    if "ms" in name or "milli" in name:
        return 1
    if "min" in name:
        return 60_000
    return 1000 if "sec" in name or name.endswith("s") else 0


def _meter_sql(place: Place) -> str | None:
    """Beats in a bar: 4 of 4, or of the text 4/4."""
    if place.column.kind is not Kind.TEXT:
        return number_sql(place)
    return f"substring({place.text_sql} FROM '^\\s*([0-9]{{1,2}})')::integer"


def _year_sql(place: Place) -> str | None:
    kind = place.column.kind
    if kind in (Kind.DATE, Kind.NAIVE_TIME, Kind.ZONED_TIME):
        return f"EXTRACT(YEAR FROM {place.sql})"
    if kind is Kind.TEXT:
        return f"substring({place.text_sql} FROM '^\\s*([0-9]{{4}})')::integer"
    return place.sql if kind.is_number else None


_CONVERSIONS = {
    "explicit": truth_sql,
    "key": _key_sql,
    "mode": _mode_sql,
    "duration_ms": _duration_sql,
    "time_signature": _meter_sql,
    "release_year": _year_sql,
}


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
