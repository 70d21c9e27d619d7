"""Encoders from the user's ids and raw columns to what the model reads, and back; sessions and filters of sequences.

Written like scikit-learn's encoders: `fit` learns, `encode` applies, `decode` inverts, and what happens to an unknown value is
an argument.  Rests on numpy, pandas, pyarrow and scikit-learn; knows neither SQL nor torch.

    IdEncoder        song, album or artist ids (integers, text or uuid) <-> int32 numbers from FIRST_NUMBER on
    FeatureEncoder   raw numeric columns of songs <-> a float32 matrix

Saved encoders name both classes by this module's path, so here they stay; the files are the business of `encoder_files.py`.
"""

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.base import BaseEstimator
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from config import FIRST_NUMBER, UNKNOWN
from errors import EncoderError, InvalidSequence
from id_table import EMPTY, IdTable

IdType = Literal["int", "text", "uuid"]
UnknownPolicy = Literal["number", "error"]
Ids = Collection[Any]  # a list, or an array of numpy, pandas or pyarrow

ARROW_TYPES: dict[IdType, pa.DataType] = {"int": pa.int64(), "text": pa.large_string(), "uuid": pa.binary(16)}

AS_GIVEN = ("explicit", "mode", "disc_number", "track_number")
LOGARITHMIC = ("duration_ms",)
CYCLIC = ("key",)
CATEGORICAL = ("time_signature",)
PITCH_CLASSES = 12
# A scaled value further out is a mistake in the data more often than a song; it must not drown all others.
MAX_DEVIATIONS = 10.0


# --- ids ---------------------------------------------------------------------------------------------------------------------


class IdEncoder(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Ids of one kind to int32 numbers and back.

    Real ids get the numbers from FIRST_NUMBER on; below stand PAD, MASK and UNKNOWN.  `fit` numbers ids by falling frequency
    (ties by id), `extend` appends ids that came later, `grow` those that came with new training.  The type of the ids is learned
    from the first ones and kept: what `decode` returns is what the database holds, as int, str or uuid.UUID.

    Parameters: `kind` names the ids in messages ("song"); `unknown` says what an id that was never seen becomes: the number
    UNKNOWN ("number"), or an EncoderError that lists some of them ("error").

    >>> encoder = IdEncoder("song").fit(["b", "a", "b"]).extend(["a", "c"])
    >>> encoder.encode(["b", "a", "c", "never seen", None])
    array([3, 4, 5, 2, 2], dtype=int32)
    >>> encoder.decode([5, 3])
    ['c', 'b']
    >>> len(encoder), encoder.n_fitted, encoder.id_type
    (6, 5, 'text')
    """

    def __init__(self, kind: str = "song", unknown: UnknownPolicy = "number"):
        self.kind = kind
        self.unknown = unknown
        self._learn(None, n_fitted=FIRST_NUMBER)

    def fit(self, ids: Ids, counts: np.ndarray | None = None) -> Self:
        """Number the ids by falling frequency, ties by id; None is passed over.

        `counts` (n,) says how often each id occurs and defaults to once; ids that occur 0 times are not learned.
        Raises EncoderError when ids are of several types, or of none that an id can have.
        """
        array = as_arrow(ids, self.kind)
        if pa.types.is_null(array.type):
            self._learn(None, n_fitted=FIRST_NUMBER)
            return self
        frequency = pa.array(np.ones(len(array), np.int64) if counts is None else np.asarray(counts, np.int64))
        table = pa.table({"id": array, "frequency": frequency}).filter(pc.field("id").is_valid())
        totals = table.group_by("id").aggregate([("frequency", "sum")]).filter(pc.field("frequency_sum") > 0)
        ranked = totals.sort_by([("frequency_sum", "descending"), ("id", "ascending")])["id"].combine_chunks()
        self._learn(ranked, n_fitted=FIRST_NUMBER + len(ranked))
        return self

    def extend(self, ids: Ids) -> Self:
        """Append the ids that are not known yet, in the order of their first appearance; `n_fitted` stays.

        Raises EncoderError when their type differs from that of the ids already known.
        """
        array = as_arrow(ids, self.kind).drop_null().unique()
        if self._ids is None or not len(self._ids):
            self._learn(array, n_fitted=self.n_fitted)
        elif len(array):
            self._same_type(array)
            new = array.filter(pa.array(self._places.places(array) == EMPTY))
            if len(new):
                all_ids = pa.concat_arrays([self._ids, new])
                self._places.grow(all_ids)
                self._learn(all_ids, n_fitted=self.n_fitted, table=self._places)
        return self

    def grow(self, ids: Ids, counts: np.ndarray) -> Self:
        """Append the ids that are not known yet, and keep the number of every other one.

        `counts` (n,) says how often training holds each of the ids.  First come the new ones that it holds, by falling frequency
        (ties by id), then the others by id.  `n_fitted` becomes one more than the highest number that training holds; numbers
        below it that training does not hold are gaps: ids that were known without it before.

        >>> encoder = IdEncoder("song").fit(["a", "b"]).extend(["known", "too"])
        >>> encoder.grow(["a", "b", "known", "too", "new", "newer"], np.array([9, 0, 0, 1, 0, 2])).decode(range(3, 9))
        ['a', 'b', 'known', 'too', 'newer', 'new']
        >>> encoder.n_fitted  # the gaps are b and known
        8
        """
        array = as_arrow(ids, self.kind)
        in_training = IdEncoder(self.kind).fit(array, counts).ids
        for new in (in_training, array.drop_null().unique().sort() if not pa.types.is_null(array.type) else array):
            self.extend(new)
        self._n_fitted = 1 + int(self.encode(in_training).max(initial=FIRST_NUMBER - 1))
        return self

    def encode(self, ids: Ids) -> np.ndarray:
        """The number of each id, (n,) int32; None and ids never seen become UNKNOWN (or raise, see `unknown`).

        A list costs one dict look-up an id, after the first call has built the dict: the way of serving.  An array takes an
        `IdTable`, which makes no Python object per id and is built at the first call, too: the way of millions.
        Raises InvalidSequence for a value in a list, EncoderError for an array, that cannot be ids of this type.
        """
        if _is_array(ids):
            numbers = self._encode_many(as_arrow(ids, self.kind))
        else:
            keys = self._keys(ids)
            numbers = np.fromiter((self._number_of.get(key, UNKNOWN) for key in keys), np.int32, len(keys))
        if self.unknown == "error" and (numbers == UNKNOWN).any():
            raise EncoderError(self._describe_unknown(list(ids), numbers == UNKNOWN))
        return numbers

    def decode(self, numbers: Sequence[int] | np.ndarray) -> list[Any]:
        """The id of each number, in the type that the database holds; None for PAD, MASK and UNKNOWN.

        Raises EncoderError for a number that is not in use.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise EncoderError(f"{self.kind} number {outside[0]} is not in use: numbers end at {len(self) - 1}")
        places = pa.array(wanted - FIRST_NUMBER, mask=wanted < FIRST_NUMBER)
        ids: list[Any] = self.ids.take(places).to_pylist()
        return [None if id_ is None else uuid.UUID(bytes=id_) for id_ in ids] if self.id_type == "uuid" else ids

    def check_type(self, ids: Ids) -> None:
        """Raise InvalidSequence, in one line that says what to send instead, unless every value is None or of the ids' type."""
        self._keys(ids)

    def __len__(self) -> int:
        """Numbers in use, PAD, MASK and UNKNOWN included."""
        return FIRST_NUMBER + (0 if self._ids is None else len(self._ids))

    @property
    def ids(self) -> pa.Array:
        """The ids in the order of their numbers, without the specials: int64, large_string or 16 bytes each."""
        return pa.nulls(0) if self._ids is None else self._ids

    @property
    def n_fitted(self) -> int:
        """Training holds no number from this one on; all those below it (the specials included) unless `grow` left gaps."""
        return self._n_fitted

    @property
    def id_type(self) -> IdType | None:
        """The type of the ids; None as long as there are none."""
        return None if self._ids is None else id_type_of(self._ids.type, self.kind)

    def _learn(self, ids: pa.Array | None, *, n_fitted: int, table: IdTable | None = None) -> None:
        self._ids = ids if ids is None or not pa.types.is_null(ids.type) else None
        self._n_fitted = n_fitted
        self._number_by_key: dict[Any, int] | None = None
        self._id_table = table

    @property
    def _number_of(self) -> dict[Any, int]:
        """Number by id, built at the first use: a dict answers in a microsecond what a search over all ids takes 27 ms for."""
        if self._number_by_key is None:
            self._number_by_key = dict(zip(self.ids.to_pylist(), range(FIRST_NUMBER, len(self)), strict=True))
        return self._number_by_key

    @property
    def _places(self) -> IdTable:
        """The table of all ids, built at the first use."""
        if self._id_table is None:
            self._id_table = IdTable(self._ids)
        return self._id_table

    def _encode_many(self, array: pa.Array) -> np.ndarray:
        if self._ids is None or pa.types.is_null(array.type):
            return np.full(len(array), UNKNOWN, np.int32)
        self._same_type(array)
        places = self._places.places(array)
        return np.where(places == EMPTY, np.int32(UNKNOWN), places + np.int32(FIRST_NUMBER))

    def _keys(self, ids: Ids) -> list[Any]:
        """Each id as it stands in `_number_of`, None for None; InvalidSequence for one of another type."""
        return [None if id_ is None else self._key(id_) for id_ in ids]

    def _key(self, id_: Any) -> Any:
        wanted, found = self.id_type, _type_of_value(id_)
        if wanted == "uuid" and found == "text":  # JSON has no other way to send a uuid
            found, id_ = ("uuid", uuid.UUID(id_)) if _is_uuid_text(id_) else (found, id_)
        if found is None or (wanted is not None and found != wanted):
            raise InvalidSequence(self._describe_type(id_))
        return int(id_) if found == "int" else id_.bytes if found == "uuid" else id_

    def _same_type(self, array: pa.Array) -> None:
        found = id_type_of(array.type, self.kind)
        if found != self.id_type:
            raise EncoderError(
                f"{self.kind} ids are {_NAMES[self.id_type]} here (got ids of type {found}): cast one of them in its query"
            )

    def _describe_type(self, value: Any) -> str:
        shown = _as_json(value)
        instead = ""
        if self.id_type == "text" and isinstance(value, int | float) and not isinstance(value, bool):
            instead = f': send "{shown}"'
        elif self.id_type == "int" and isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            instead = f": send {int(value)}"
        return f"{self.kind} ids are {_NAMES[self.id_type]} here (got {shown}, {_name_of_value(value)}){instead}"

    def _describe_unknown(self, ids: Sequence[Any], is_unknown: np.ndarray) -> str:
        some = ", ".join(_as_json(ids[place]) for place in np.flatnonzero(is_unknown)[:3])
        return f"{is_unknown.sum()} of {len(ids)} {self.kind} ids are unknown to the encoder: {some}"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_number_by_key": None, "_id_table": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_id_table": None, **state})  # encoders saved by an earlier version have no table


_NAMES: dict[IdType | None, str] = {"int": "integers", "text": "text", "uuid": "uuids", None: "integers, text or uuids"}
# JSON's words, in the order in which they are asked: a Python bool is also an int.
_NAMES_OF_VALUES: dict[type, str] = {
    bool: "boolean", np.bool_: "boolean", int: "integer", np.integer: "integer", float: "number", str: "text", list: "list",
    dict: "object",
}  # fmt: skip


def id_type_of(dtype: pa.DataType, kind: str = "song") -> IdType | None:
    """Which type of id an Arrow column holds; None for a column of nulls only.

    Raises EncoderError for a type that cannot be an id.

    >>> id_type_of(pa.int32()), id_type_of(pa.string()), id_type_of(pa.uuid())
    ('int', 'text', 'uuid')
    """
    storage = getattr(dtype, "storage_type", getattr(dtype, "value_type", dtype))  # of a uuid, of a dictionary
    if pa.types.is_null(storage):
        return None
    if pa.types.is_integer(storage):
        return "int"
    if storage == ARROW_TYPES["uuid"]:
        return "uuid"
    if pa.types.is_string(storage) or pa.types.is_large_string(storage) or pa.types.is_string_view(storage):
        return "text"
    raise EncoderError(f"{kind} ids are of type {dtype}: cast them to bigint, text or uuid in the query")


def as_arrow(ids: Ids, kind: str = "song") -> pa.Array:
    """Ids as one Arrow array of int64, large_string or 16 bytes each; nulls only become a null array.

    Raises EncoderError when they are of several types, or of a type that cannot be an id.
    """
    if isinstance(ids, pd.Series | pd.Index):
        ids = pa.Array.from_pandas(ids)
    if isinstance(ids, np.ndarray) and ids.dtype != object:
        ids = pa.array(ids)
    if isinstance(ids, pa.ChunkedArray):
        return pa.concat_arrays([as_arrow(chunk, kind) for chunk in (ids.chunks or [pa.array([], ids.type)])])
    if isinstance(ids, pa.Array):
        id_type = id_type_of(ids.type, kind)
        storage = ids.storage if isinstance(ids, pa.ExtensionArray) else ids
        return pa.nulls(len(ids)) if id_type is None else storage.cast(ARROW_TYPES[id_type])
    return _from_python(list(ids), kind)


def _from_python(ids: list[Any], kind: str) -> pa.Array:
    types = {id_type: id_ for id_ in ids if id_ is not None for id_type in [_type_of_value(id_)]}
    if None in types:
        raise EncoderError(f"{kind} ids are integers, text or uuids (got {_as_json(types[None])}, {_name_of_value(types[None])})")
    if len(types) > 1:
        some = " and ".join(_as_json(example) for example in types.values())
        raise EncoderError(f"{kind} ids are of several types (got {some}): use one type")
    for id_type in types:  # the only one
        plain = [id_ if id_ is None or id_type != "uuid" else id_.bytes for id_ in ids]
        return pa.array(plain, ARROW_TYPES[id_type]) if id_type is not None else pa.nulls(len(ids))
    return pa.nulls(len(ids))


def _is_array(ids: Ids) -> bool:
    """Whether ids stand in an array of one type; arrays of Python objects count as lists."""
    return isinstance(ids, pa.Array | pa.ChunkedArray | pd.Series | pd.Index) or (
        isinstance(ids, np.ndarray) and ids.dtype != object
    )


def _type_of_value(value: Any) -> IdType | None:
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return "int"
    if isinstance(value, str):
        return "text"
    return "uuid" if isinstance(value, uuid.UUID) else None


def _is_uuid_text(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _name_of_value(value: Any) -> str:
    named = next((name for cls, name in _NAMES_OF_VALUES.items() if isinstance(value, cls)), type(value).__name__)
    return f"{'an' if named[0] in 'aeio' else 'a'} {named}"


def _as_json(value: Any) -> str:
    """The value as a request would spell it, shortened."""
    text = json.dumps(value.item() if isinstance(value, np.generic) else value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- features ----------------------------------------------------------------------------------------------------------------


class FeatureEncoder(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Raw numeric columns of songs to a float32 matrix, and back.

    Each column is treated by its name: `as_given` stay as they are; `categorical` become one column per value seen in `fit`
    (an unseen value: all zero); `cyclic` (a pitch class, 0 to 11) become sine and cosine of the angle on the circle; every
    other column is scaled to mean 0 and deviation 1, after log(1 + x) for `logarithmic`.

    A missing value is 0 in every column made from it, and 1 in the column `<name>_missing`.  Missing are: null, NaN, what
    float32 cannot hold, a key outside 0..11 (-1 is "unknown" in many catalogues), a negative duration, and a column that
    `fit` saw no value of, since nothing says how to scale it.

    >>> frame = pd.DataFrame({"explicit": [1.0, 0.0], "key": [3.0, None], "energy": [0.2, 0.8]})
    >>> encoder = FeatureEncoder().fit(frame)
    >>> encoder.feature_names
    ['explicit', 'energy', 'key_sine', 'key_cosine', 'explicit_missing', 'key_missing', 'energy_missing']
    >>> encoder.encode(frame).round(2).tolist()
    [[1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        as_given: Sequence[str] = AS_GIVEN,
        logarithmic: Sequence[str] = LOGARITHMIC,
        cyclic: Sequence[str] = CYCLIC,
        categorical: Sequence[str] = CATEGORICAL,
    ):
        self.as_given = as_given
        self.logarithmic = logarithmic
        self.cyclic = cyclic
        self.categorical = categorical
        self.raw_columns: list[str] = []
        self._known: list[str] = []  # those that `fit` saw a value of
        self._scaler: StandardScaler | None = None
        self._one_hot: OneHotEncoder | None = None

    def fit(self, frame: pd.DataFrame) -> Self:
        """Learn the columns, the scales and the categories from a frame of raw numeric columns, one row a song.

        Raises EncoderError for a column that holds something else than numbers.
        """
        self.raw_columns = [str(name) for name in frame.columns]
        values = self._raw_values(frame, known=None)
        self._known = [name for name in self.raw_columns if not np.isnan(values[name]).all()]
        scaled = self._columns("scaled")
        self._scaler = StandardScaler().fit(_beside(values, scaled)) if scaled else None
        categories = [np.unique(values[name][~np.isnan(values[name])]) for name in self._columns("categorical")]
        self._one_hot = self._fit_one_hot(categories) if categories else None
        return self

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """The features of each row, (n, F) float32 in the order of `feature_names`; an absent column counts as missing."""
        values = self._raw_values(frame, known=self._known)
        blocks = [np.empty((len(frame), 0)), *(values[name][:, None] for name in self._columns("given"))]
        if self._scaler is not None:
            deviations = self._scaler.transform(_beside(values, self._columns("scaled")))
            blocks.append(deviations.clip(-MAX_DEVIATIONS, MAX_DEVIATIONS))
        for name in self._columns("cyclic"):
            angle = 2 * np.pi * values[name] / PITCH_CLASSES
            blocks.append(np.column_stack([np.sin(angle), np.cos(angle)]))
        if self._one_hot is not None:
            blocks.append(self._one_hot.transform(_beside(values, self._columns("categorical"))))
        blocks += [np.isnan(values[name])[:, None] for name in self.raw_columns]
        features = np.hstack(blocks).astype(np.float32)
        return np.nan_to_num(features, copy=False)

    def decode(self, features: np.ndarray) -> pd.DataFrame:
        """The raw columns behind features (n, F), in float32's precision; NaN where the value was missing or not learned."""
        by_name = dict(zip(self.feature_names, np.asarray(features, np.float64).T, strict=True))
        raw = {name: by_name[name] for name in self._columns("given")}
        if self._scaler is not None:
            scaled = self._columns("scaled")
            raw |= dict(zip(scaled, self._scaler.inverse_transform(_beside(by_name, scaled)).T, strict=True))
        for name in set(self.logarithmic) & set(raw):
            raw[name] = np.expm1(raw[name])
        for name in self._columns("cyclic"):
            angle = np.arctan2(by_name[f"{name}_sine"], by_name[f"{name}_cosine"])
            raw[name] = np.round(angle * PITCH_CLASSES / (2 * np.pi)) % PITCH_CLASSES
        for name, categories in self._categories().items():
            one_hot = _beside(by_name, [f"{name}_{category:g}" for category in categories])
            raw[name] = np.where(one_hot.any(axis=1), categories[one_hot.argmax(axis=1)], np.nan)
        nothing = np.full(len(features), np.nan)
        columns = {name: np.where(by_name[f"{name}_missing"] > 0, np.nan, raw.get(name, nothing)) for name in self.raw_columns}
        return pd.DataFrame(columns)

    @property
    def feature_names(self) -> list[str]:
        """The F columns of the matrix, by name."""
        return [
            *self._columns("given"),
            *self._columns("scaled"),
            *(f"{name}_{part}" for name in self._columns("cyclic") for part in ("sine", "cosine")),
            *(f"{name}_{category:g}" for name, categories in self._categories().items() for category in categories),
            *(f"{name}_missing" for name in self.raw_columns),
        ]

    def _columns(self, treatment: Literal["given", "scaled", "cyclic", "categorical"]) -> list[str]:
        """The raw columns under one treatment; scales and categories exist only where `fit` saw a value."""
        named = {"given": self.as_given, "cyclic": self.cyclic, "categorical": self.categorical}
        if treatment in ("given", "cyclic"):
            return [name for name in self.raw_columns if name in named[treatment]]
        if treatment == "categorical":
            return [name for name in self.raw_columns if name in self.categorical and name in self._known]
        others = {name for names in named.values() for name in names}
        return [name for name in self.raw_columns if name not in others and name in self._known]

    def _fit_one_hot(self, categories: list[np.ndarray]) -> OneHotEncoder:
        encoder = OneHotEncoder(categories=categories, handle_unknown="ignore", sparse_output=False)
        return encoder.fit(np.array([[column[0] for column in categories]]))

    def _categories(self) -> dict[str, np.ndarray]:
        if self._one_hot is None:
            return {}
        return dict(zip(self._columns("categorical"), self._one_hot.categories_, strict=True))

    def _raw_values(self, frame: pd.DataFrame, known: Sequence[str] | None) -> dict[str, np.ndarray]:
        """Each raw column as (n,) float64, NaN where missing; columns outside `known` are missing throughout."""
        absent = np.full(len(frame), np.nan)
        usable = [name for name in self.raw_columns if name in frame.columns and (known is None or name in known)]
        return {name: self._usable(name, frame[name]) if name in usable else absent for name in self.raw_columns}

    def usable(self, name: str, column: pd.Series) -> np.ndarray:
        """One raw column as (n,) float64 in its own unit, NaN for what counts as missing.

        Raises EncoderError for a column that holds something else than numbers.
        """
        try:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        except (TypeError, ValueError) as exc:
            raise EncoderError(f"feature column {name} is not numeric ({exc}): leave it out of the query or cast it") from exc
        if name in self.cyclic:
            values[(values < 0) | (values >= PITCH_CLASSES)] = np.nan
        if name in self.logarithmic:
            values[values < 0] = np.nan
        values[~(np.abs(values) < np.finfo(np.float32).max)] = np.nan
        return values

    def _usable(self, name: str, column: pd.Series) -> np.ndarray:
        """A raw column as it is scaled, its logarithm where that is asked for."""
        values = self.usable(name, column)
        return np.log1p(values) if name in self.logarithmic else values


def _beside(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The named columns (n,) side by side, (n, len(names)); at least one."""
    return np.column_stack([columns[name] for name in names])


# --- sequences ---------------------------------------------------------------------------------------------------------------


def cut_sessions(times: np.ndarray, gap_minutes: float) -> np.ndarray:
    """Number the sessions of one history: a pause of more than `gap_minutes` begins a new one; (n,) int64 from 0.

    `times` (n,) are datetime64 or seconds, in order.  Raises ValueError when they are not in order.

    >>> cut_sessions(np.array([0, 200, 1900, 3800]), gap_minutes=30)
    array([0, 0, 0, 1])
    """
    pauses = np.diff(times)
    gap: Any = gap_minutes * 60
    if np.issubdtype(pauses.dtype, np.timedelta64):
        pauses = pauses / np.timedelta64(1, "s")
    if (pauses < 0).any():
        raise ValueError(
            f"times must be in order (entry {int(np.argmax(pauses < 0)) + 1} lies before its predecessor): sort them first"
        )
    return np.concatenate([np.zeros(min(1, len(times)), np.int64), np.cumsum(pauses > gap)])


def mark_starts(keys: pa.Array) -> np.ndarray:
    """True where a value differs from the one before it; the first is always a start, (n,) bool.

    >>> mark_starts(pa.array(["a", "a", "b", "a"])).tolist()
    [True, False, True, True]
    """
    starts = np.ones(len(keys), bool)
    if len(keys) > 1:
        starts[1:] = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)
    return starts


def count_repeats(songs: np.ndarray, offsets: np.ndarray) -> int:
    """How many rows hold a song that already occurred earlier in the same sequence.

    >>> count_repeats(np.array([5, 6, 5, 5, 6]), np.array([0, 3, 5]))
    1
    """
    lengths, n_repeats = np.diff(offsets), 0
    # Sorting sequences of one length side by side takes 2 ms for a million rows, sorting all rows as pairs 49.
    for length in np.unique(lengths[lengths > 1]):
        starts = offsets[:-1][lengths == length]
        ordered = np.sort(songs[starts[:, None] + np.arange(length)], axis=1)
        n_repeats += int(np.count_nonzero(ordered[:, 1:] == ordered[:, :-1]))
    return n_repeats
