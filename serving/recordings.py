"""Which songs of a catalogue are editions of one recording: the album, the single, the compilation, the remaster.

Two songs are one recording, decided by the first of these that both of them have:

1. an ISRC: when it is the same;
2. an MBID of a recording: when it is the same;
3. title, artist and duration: when both texts are equal after normalisation and the durations are within three seconds.  Where
   neither has a duration the texts decide; where one has, nothing says that the other lasts as long, so they stay apart.

A wrong merge takes a song out of every answer that holds the other one, a missed one shows a song twice: so what is not sure
stays apart.  A music library that merged by title lost a third of its classical part to "the same" movements.  Live, acoustic,
remix, mono, movement numbers and numerals therefore always tell songs apart; only what says "remastered" is dropped.

That relation is not transitive: a song without ISRC can be the same as two whose ISRCs differ.  Groups are built so that two
different ISRCs never meet in one.  Songs of one ISRC are a group.  Songs with an MBID but no ISRC are a group for each MBID, and
join the songs of an ISRC that have that MBID, too.  Groups then join by title, artist and duration, unless both of them have
ISRCs or both have MBIDs, for these were compared before.  What could join several groups joins the one with the smallest song
number, the most played one.  Durations are compared with the shortest of a window, so that a chain of small steps does not join
songs that are ten seconds apart.
"""

import unicodedata
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from config import FIRST_NUMBER
from errors import DataError

Texts: TypeAlias = pa.Array | pa.ChunkedArray
Codes = NDArray[np.int64]  # equal texts have equal codes, -1 where there is none

CLOSE_MS = 3000
# An ISRC that is none ("0", "unknown") would join everything that has it.
ISRC = "^[A-Z]{2}[A-Z0-9]{3}[0-9]{7}$"
MBID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
NO_MBID = "00000000-0000-0000-0000-000000000000"
_YEAR = "(19|20)[0-9]{2}"
_REMASTER = rf"({_YEAR} ?-? ?)?((16|24)[ -]?bit )?(digital(ly)? )?re-?master(ed)?( version| edition| in| {_YEAR})*"
# What may be dropped at the end of a title, in lower case: "(remastered 2011)", "[2015 remaster]", "- 2009 digital remaster".
REMASTERED = rf"( *\({_REMASTER}\)| *\[{_REMASTER}\]| +[-–—] +{_REMASTER})+ *$"
# Signs that tell songs apart stay: a prelude in C# is not the one in C, "100%" not "100".
BETWEEN_WORDS = r"[^\pL\pM\pN\pS#%&@]+"


def recording_numbers(
    n_songs: int,
    *,
    isrc: Texts | None = None,
    mbid: Texts | None = None,
    title: Texts | None = None,
    artist_name: Texts | None = None,
    duration_ms: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.int32]:
    """For each of V song numbers the smallest song number that is the same recording, (V,); often its own.

    Columns have V rows, null (NaN for durations) where unknown, or are None where the catalogue has no such column; rows of
    special numbers are not looked at.  What is no well-formed ISRC or MBID counts as unknown, as does a duration of 0 or less.
    Raises DataError for a column of another length.

    >>> same = {"title": pa.array([None] * 3 + ["Help!", "Help! (Remastered 2009)", "Help! (Live)"])}
    >>> recording_numbers(6, **same, artist_name=pa.array([""] * 3 + ["The Beatles"] * 3)).tolist()
    [0, 1, 2, 3, 3, 5]
    """
    columns = {"isrc": isrc, "mbid": mbid, "title": title, "artist_name": artist_name, "duration_ms": duration_ms}
    for name, column in columns.items():
        if column is not None and len(column) != n_songs:
            raise DataError(f"{name} has {len(column)} rows for {n_songs} songs: every column has a row for each song number")
    isrcs, mbids = (_without_specials(codes) for codes in (_isrc_codes(n_songs, isrc), _mbid_codes(n_songs, mbid)))
    groups = _grouped_by_ids(isrcs, mbids)
    if title is not None and artist_name is not None:
        texts = _without_specials(_text_codes(title, artist_name))
        groups = _joined_by_text(groups, _windows(texts, _durations(n_songs, duration_ms)), isrcs >= 0, mbids >= 0)
    return groups.astype(np.int32)


def _without_specials(codes: Codes) -> Codes:
    codes[:FIRST_NUMBER] = -1
    return codes


def _isrc_codes(n_songs: int, isrc: Texts | None) -> Codes:
    if isrc is None:
        return np.full(n_songs, -1)
    plain = pc.replace_substring_regex(pc.utf8_upper(_text(isrc)), pattern=r"[-\s]+", replacement="")
    return _codes(pc.if_else(pc.match_substring_regex(plain, pattern=ISRC), plain, None))


def _mbid_codes(n_songs: int, mbid: Texts | None) -> Codes:
    if mbid is None:
        return np.full(n_songs, -1)
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(_text(mbid)))
    is_one = pc.and_(pc.match_substring_regex(plain, pattern=MBID), pc.not_equal(plain, NO_MBID))
    return _codes(pc.if_else(is_one, plain, None))


def _text_codes(title: Texts, artist_name: Texts) -> Codes:
    """One code for equal title and artist, -1 where one of them is empty or unknown."""
    titles, artists = _codes_of_each(title, normal_title), _codes_of_each(artist_name, normal_text)
    both = titles * (artists.max(initial=0) + 1) + artists
    return np.where((titles >= 0) & (artists >= 0), both, -1)


def _codes_of_each(texts: Texts, normal: Callable[[pa.Array], pa.Array]) -> Codes:
    """Codes of normalised texts; every text is normalised once, however many songs have it."""
    different = _text(texts).dictionary_encode()
    plain = normal(different.dictionary)
    codes = np.append(_codes(pc.if_else(pc.not_equal(plain, ""), plain, None)), -1)
    return codes[different.indices.fill_null(len(plain)).to_numpy(zero_copy_only=False)]


def normal_text(texts: pa.Array) -> pa.Array:
    """Texts without what makes no difference: NFKC, case folded, white space and punctuation between words one blank.

    A text of nothing but punctuation is kept as it is.

    >>> normal_text(pa.array(["Simon &  Garfunkel", "AC/DC", "!!!", None])).to_pylist()
    ['simon & garfunkel', 'ac dc', '!!!', None]
    """
    return _words(_folded(texts))


def normal_title(titles: pa.Array) -> pa.Array:
    """Titles normalised as texts are, without a remaster's mark at the end.

    >>> normal_title(pa.array(["Help! - Remastered 2009", "Help! (Live) [2015 Remaster]", "Remastered"])).to_pylist()
    ['help', 'help live', 'remastered']
    """
    folded = _folded(titles)
    marked = pc.match_substring(folded, pattern="master")  # the expression costs ten times as much as this look
    shorter = pc.replace_substring_regex(folded.filter(marked), pattern=REMASTERED, replacement="")
    return _words(pc.replace_with_mask(folded, pc.fill_null(marked, False), shorter))


def _folded(texts: pa.Array) -> pa.Array:
    """NFKC and case folding, after Unicode's definition D146; what is ASCII only needs small letters."""
    is_ascii = pc.fill_null(pc.string_is_ascii(texts), True)
    other = [
        unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        for text in texts.filter(pc.invert(is_ascii)).to_pylist()
    ]
    return pc.replace_with_mask(pc.ascii_lower(texts), pc.invert(is_ascii), pa.array(other, texts.type))


def _words(texts: pa.Array) -> pa.Array:
    words = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, pattern=BETWEEN_WORDS, replacement=" "))
    return pc.if_else(pc.equal(words, ""), texts, words)


def _text(texts: Texts) -> pa.Array:
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    return whole.cast(pa.large_string())


def _codes(texts: pa.Array) -> Codes:
    return texts.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _durations(n_songs: int, duration_ms: NDArray[np.floating[Any]] | None) -> NDArray[np.float64]:
    if duration_ms is None:
        return np.full(n_songs, np.nan)
    durations = np.asarray(duration_ms, np.float64)
    return np.where((durations > 0) & np.isfinite(durations), durations, np.nan)


def _grouped_by_ids(isrcs: Codes, mbids: Codes) -> Codes:
    """The smallest song number of each song's group (V,), by ISRC and MBID alone."""
    numbers = np.arange(len(isrcs))
    has_isrc, has_mbid = isrcs >= 0, mbids >= 0
    groups = np.where(has_isrc, _first_with(isrcs, has_isrc)[isrcs], numbers)
    first_with_isrc = _first_with(mbids, has_mbid & has_isrc)[mbids]
    first_without = _first_with(mbids, has_mbid & ~has_isrc)[mbids]
    joins = has_mbid & ~has_isrc
    groups[joins] = np.where(first_with_isrc >= 0, groups[first_with_isrc], first_without)[joins]
    return _smallest_of(groups)


def _first_with(codes: Codes, is_meant: NDArray[np.bool_]) -> Codes:
    """For each code the smallest number among the songs that are meant, -1 for none; one more -1 at the end, for code -1."""
    songs = np.flatnonzero(is_meant)[::-1]
    first = np.full(codes.max(initial=-1) + 2, -1)
    first[codes[songs]] = songs  # of several values the last one stays
    return first


def _smallest_of(groups: Codes) -> Codes:
    return _first_with(groups, np.ones(len(groups), np.bool_))[groups]


def _joined_by_text(groups: Codes, windows: Codes, has_isrc: NDArray[np.bool_], has_mbid: NDArray[np.bool_]) -> Codes:
    """Groups (V,) after those have joined that have songs in one window of `_windows` and that ids do not tell apart."""
    ids = np.zeros(len(groups), np.int8)
    ids[groups[has_isrc]] |= 1
    ids[groups[has_mbid]] |= 2
    songs = np.flatnonzero(windows >= 0)
    songs = songs[np.argsort(windows[songs], kind="stable")]
    union = _Union(dict(zip(groups[songs].tolist(), ids[groups[songs]].tolist(), strict=True)))
    here, last_window = list[int](), -1
    for window, group in zip(windows[songs].tolist(), groups[songs].tolist(), strict=True):
        if window != last_window:
            here, last_window = [], window
        union.join_first(here, group)
    changed = np.arange(len(groups))
    changed[list(union.joined)] = [union.of(group) for group in union.joined]
    return _smallest_of(changed[groups])


class _Union:
    """Disjoint sets of groups, each with the kinds of id that it has: 1 ISRC, 2 MBID, 3 both."""

    def __init__(self, ids: dict[int, int]) -> None:
        self.joined: dict[int, int] = {}
        self._ids = ids

    def of(self, group: int) -> int:
        """The group that stands for its set."""
        while group in self.joined:
            group = self.joined[group]
        return group

    def join_first(self, here: list[int], group: int) -> None:
        """Join the first of the sets `here` that shares no kind of id with this one, else become one more of them."""
        group = self.of(group)
        for other in here:
            if other == group:
                return
            if not self._ids[other] & self._ids[group]:
                self._ids[other] |= self._ids[group]
                self.joined[group] = other
                return
        here.append(group)


def _windows(texts: Codes, durations: NDArray[np.float64]) -> Codes:
    """For each song (V,) the number of its window: songs of one text, the longest at most CLOSE_MS longer than the shortest.

    -1 for songs whose text is unknown or no other song's.  Songs without a duration have windows of their own.
    """
    codes = pd.factorize(texts)[0]
    songs = np.flatnonzero((texts >= 0) & (np.bincount(codes)[codes] > 1))
    lengths = np.where(np.isnan(durations[songs]), -np.finfo(np.float64).max, durations[songs])
    order = np.lexsort((lengths, codes[songs]))
    found, window, text, shortest = list[int](), -1, -1, 0.0
    for code, length in zip(codes[songs][order].tolist(), lengths[order].tolist(), strict=True):
        if code != text or length - shortest > CLOSE_MS:
            window, text, shortest = window + 1, code, length
        found.append(window)
    windows = np.full(len(texts), -1)
    windows[songs[order]] = found
    return windows
