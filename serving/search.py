"""Songs by the words of their title and artist, in a few milliseconds among a hundred thousand.

Every distinct word points at its songs, so a search looks through the words (a few bytes each) and not through the songs: a word
of the text stands in a title exactly if it stands in one of the title's words.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from snapshot import take_ranges

# ASCII capitals become small, signs other than letters and digits a space; bytes of longer characters stay.
_FOLDED = np.array(
    [ord(chr(byte).lower() if chr(byte).isalnum() else " ") if byte < 128 else byte for byte in range(256)], np.uint8
)
# What Unicode does not take apart into a plain letter and an accent.
_PLAIN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "’": ""}
_SIGNS = r"[\p{P}\p{S}\p{Z}]+"
COMMON = 1000  # songs; more than that have words such as "the", which are looked up one by one
MOST_WORDS = 16  # of a text that are looked up; each costs up to 10 ms among a million songs


def folded(texts: pa.Array) -> pa.Array:
    """Texts without case, accents and signs, words one space apart; "" for null.

    Apostrophes go without leaving a space, so that "don't" and "dont" are one word.

    >>> folded(pa.array(["Élan -  Vital", "DON'T", None])).to_pylist()
    ['elan vital', 'dont', '']
    """
    texts = pc.fill_null(texts, "")
    is_plain = pc.string_is_ascii(texts)
    if not pc.all(is_plain, min_count=0).as_py():
        is_other = pc.invert(is_plain)
        texts = pc.replace_with_mask(texts, is_other, _without_accents(texts.filter(is_other)))
    texts = _by_byte(pc.replace_substring(texts, "'", ""))
    has_gaps = pc.match_substring(texts, "  ")
    if pc.any(has_gaps, min_count=0).as_py():
        texts = pc.replace_with_mask(texts, has_gaps, pc.replace_substring_regex(texts.filter(has_gaps), " +", " "))
    return pc.ascii_trim_whitespace(texts)


def _without_accents(texts: pa.Array) -> pa.Array:
    texts = pc.replace_substring_regex(pc.utf8_normalize(texts, "NFKD"), r"\p{M}+", "")
    texts = pc.utf8_lower(texts)
    for letter, plain in _PLAIN.items():
        texts = pc.replace_substring(texts, letter, plain)
    return pc.replace_substring_regex(texts, _SIGNS, " ")


def _by_byte(texts: pa.Array) -> pa.Array:
    """ASCII signs and capitals replaced, byte by byte, so that every text stays where it is."""
    validity, offsets, content = texts.buffers()
    replaced = pa.py_buffer(_FOLDED[np.frombuffer(content or b"", np.uint8)])
    return pa.Array.from_buffers(texts.type, len(texts), [validity, offsets, replaced], offset=texts.offset)


@dataclass(frozen=True, kw_only=True)
class TitleSearch:
    """All songs, ready to be searched."""

    titles: pa.Array  # (V,) folded, "" where unknown
    words: pa.Array  # distinct words of titles and artists
    songs: np.ndarray  # int32 song numbers, word by word
    offsets: np.ndarray  # (words + 1,) int64: where the songs of each word begin
    popularity: np.ndarray  # (V,) float32

    @classmethod
    def over(cls, titles: pa.Array, artist_names: pa.Array, popularity: np.ndarray) -> "TitleSearch":
        """Prepare V songs by number; null where a title or artist is not known."""
        titles, artists = folded(titles), artist_names.dictionary_encode()
        artists = pc.fill_null(folded(artists.dictionary).take(artists.indices), "")
        of_song = pc.ascii_split_whitespace(pc.binary_join_element_wise(titles, artists, " "))
        words = of_song.flatten().dictionary_encode()
        song, word = pc.list_parent_indices(of_song).to_numpy(), words.indices.to_numpy()
        shape = (len(titles), len(words.dictionary))
        by_word = sparse.csc_array((np.ones(len(word), np.bool_), (song, word)), shape=shape)
        return cls(
            titles=titles,
            words=words.dictionary,
            songs=by_word.indices.astype(np.int32),
            offsets=by_word.indptr.astype(np.int64),
            popularity=popularity,
        )

    def find(self, text: str, limit: int) -> np.ndarray:
        """The numbers of at most `limit` songs whose title or artist hold all words of a text, best first, (k,) int64.

        Titles that are the text come first, then those that begin with it, then songs in which every word of the text begins a
        word, then the rest; among equals the more popular ones.
        """
        words = folded(pa.array([text.encode(errors="replace").decode()]))[0].as_py().split()[:MOST_WORDS]
        found, is_found = np.empty(0, np.int64), np.zeros(len(self.titles), bool)
        for matches in self._from_best(words) if words and limit > 0 else ():
            songs = np.flatnonzero(matches & ~is_found)
            is_found[songs] = True
            found = np.concatenate([found, self._most_popular(songs, limit - len(found))])
            if len(found) >= limit:  # before the next kind of match is looked for
                break
        return found

    def _from_best(self, words: list[str]) -> Iterator[np.ndarray]:
        """Which songs match, (V,) bool each, from the best kind of match to the weakest; each is found when it is asked for."""
        whole = " ".join(words)
        yield np.asarray(pc.equal(self.titles, whole))
        yield np.asarray(pc.starts_with(self.titles, whole))
        yield self._holding(words, pc.starts_with)
        yield self._holding(words, pc.match_substring)

    def _holding(self, words: list[str], matches: Callable[[pa.Array, str], pa.Array]) -> np.ndarray:
        """Songs that have, for each of `words`, a word that matches it: (V,) bool."""
        holding = np.ones(len(self.titles), bool)
        for word in words:
            holding &= self._with_one_of(np.flatnonzero(np.asarray(matches(self.words, word))))
            if not holding.any():
                break
        return holding

    def _with_one_of(self, words: np.ndarray) -> np.ndarray:
        """Songs that have one of these words, by place in `words`: (V,) bool."""
        has_word = np.zeros(len(self.titles), bool)
        first, end = self.offsets[words], self.offsets[words + 1]
        is_common = end - first > COMMON
        for one, other in zip(first[is_common], end[is_common], strict=True):  # a slice is not copied
            has_word[self.songs[one:other]] = True
        has_word[take_ranges(self.songs, first[~is_common], end[~is_common])[0]] = True
        return has_word

    def _most_popular(self, songs: np.ndarray, count: int) -> np.ndarray:
        """The `count` most popular of some songs in order, equals by number."""
        popularity = self.popularity[songs]
        if count < len(songs):
            enough = popularity >= np.partition(popularity, -count)[-count]
            songs, popularity = songs[enough], popularity[enough]
        return songs[np.argsort(-popularity, kind="stable")[:count]]
