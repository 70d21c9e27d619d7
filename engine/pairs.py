"""Which songs stand in a relation to the one at each place, and how much the training lists support each pair of songs.

The versions of a list share its vote; within a version, "after" and "before" count every time that two songs stand near each
other, the others count a list once.

Pairs are counted for a few source songs at a time, from an index of the places where each song stands: what is held at once does
not grow with the number of pairs.

Shape letters: r songs of the training part, V songs of the catalogue, P pairs at a time, g distinct ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.sorted_arrays import is_new, rank_among_equals, starts_of
from engine.training_songs import PAIRS_AT_ONCE, Places, TrainingSongs

# Longer lists count as several for "near": a list of 10,000 songs alone would make 10**8 pairs.
CHUNK_SONGS = 2_000


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Which other songs stand in a relation to the one at each place, and what a pair adds to their support.

    Those of a place begin at `ranges(places)[0]`, there are `ranges(places)[1]` of them, and they go on in `direction`.
    """

    songs: np.ndarray  # (r,) int32
    places: Places
    ranges: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    direction: int  # 1 or -1
    mean_many: float  # how many a place has on average
    folds: Callable[[np.ndarray], np.ndarray]  # of places
    kinds: Callable[[np.ndarray], np.ndarray]  # of places, from 0: pairs of one kind add the same, or only once
    n_kinds: int
    weights: np.ndarray | None  # (n_kinds,) what each pair adds; None: all pairs of one kind add 1
    is_by_distance: bool = False  # then the kind rises by one with each place between the two
    may_repeat: bool = False  # whether a song may stand in the relation to itself


def in_order(training: TrainingSongs, window: int, direction: int) -> Pairs:
    """Songs up to `window` places after (1) or before (-1), one over the root of the places each time.

    The versions of a list, of which there are so many, share its vote.
    """
    versions, which = np.unique(np.bincount(training.list_of_sequence)[training.list_of_sequence], return_inverse=True)
    root = np.sqrt(np.arange(1, window + 1, dtype=np.float32))

    def ranges(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sequence = training.sequence[places]
        end = training.starts[sequence + 1] - places - 1 if direction > 0 else places - training.starts[sequence]
        return places + direction, np.minimum(end, window)

    return Pairs(
        songs=training.songs,
        places=training.places,
        ranges=ranges,
        direction=direction,
        mean_many=training.mean_within(window),
        folds=training.folds_at,
        kinds=lambda places: which[training.sequence[places]] * window,
        n_kinds=len(versions) * window,
        weights=((1 / versions.astype(np.float32))[:, None] / root).ravel(),
        is_by_distance=True,
    )


def next_in_order(training: TrainingSongs) -> Pairs:
    """The song at the next place; a list counts once."""
    return replace(
        in_order(training, 1, 1),
        kinds=training.lists_at,
        n_kinds=len(training.fold_of_list),
        weights=None,
        is_by_distance=False,
        may_repeat=True,
    )


def together(training: TrainingSongs) -> Pairs:
    """The songs of the same list, or part of a very long one, which counts once."""
    order = np.argsort(training.lists_at(np.arange(len(training.songs))), kind="stable")
    lists, songs = training.lists_at(order), training.songs[order]
    chunk = np.cumsum((rank_among_equals(lists) % CHUNK_SONGS == 0) | (np.diff(lists, prepend=-1) != 0)) - 1
    starts = starts_of(chunk, int(chunk.max(initial=-1)) + 1)
    sizes = np.diff(starts)
    return Pairs(
        songs=songs,
        places=Places.of(songs, training.n_songs),
        ranges=lambda places: (starts[chunk[places]], sizes[chunk[places]]),
        direction=1,
        mean_many=float((sizes.astype(np.float64) ** 2).sum() / max(1, len(songs))),
        folds=lambda places: training.fold_of_list[lists[places]],
        kinds=lambda places: chunk[places],
        n_kinds=len(sizes),
        weights=None,
    )


def supports(pairs: Pairs, V: int, folds: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Distinct pairs of songs, some source songs at a time: both songs (g,) in rising order and support (g, folds)."""
    kind_bits, fold_bits = _bits(pairs.n_kinds), _bits(folds)
    most_songs = 2 ** max(0, 62 - kind_bits - fold_bits) // V
    for first_song, places in pairs.places.blocks(int(PAIRS_AT_ONCE / max(1, pairs.mean_many)) + 1, max(1, most_songs)):
        keys = _pair_keys(pairs, places, first_song, V, kind_bits, fold_bits)
        if not len(keys):
            continue
        keys.sort()
        if pairs.weights is None:
            keys = keys[is_new(keys)]
        of_fold = keys >> kind_bits
        begins = np.flatnonzero(is_new(of_fold))
        if pairs.weights is None:
            support = np.diff(begins, append=len(keys)).astype(np.float32)
        else:
            support = np.add.reduceat(pairs.weights[keys & (2**kind_bits - 1)], begins)
        of_fold = of_fold[begins]
        both = of_fold >> fold_bits
        begins_pair = is_new(both)
        by_fold = np.zeros((int(begins_pair.sum()), folds), np.float32)
        by_fold[np.cumsum(begins_pair) - 1, of_fold & (2**fold_bits - 1)] = support
        source, other = np.divmod(both[begins_pair], V)
        source += first_song
        kept = slice(None) if pairs.may_repeat else source != other
        yield source[kept], other[kept], by_fold[kept]


def _pair_keys(pairs: Pairs, places: np.ndarray, first_song: int, V: int, kind_bits: int, fold_bits: int) -> np.ndarray:
    """Numbers (P,) that tell, from the highest bits down, the source song, the other song, the fold and the kind of each pair."""
    places = places.astype(np.int64)
    first, many = pairs.ranges(places)
    of_place = (pairs.songs[places] - np.int64(first_song)) * V << fold_bits
    of_place = ((of_place | pairs.folds(places)) << kind_bits) + pairs.kinds(places)
    before = np.cumsum(many) - many
    within = np.arange(int(many.sum())) - np.repeat(before, many)
    other = pairs.songs[np.repeat(first, many) + pairs.direction * within]
    keys = np.repeat(of_place, many)
    keys += other.astype(np.int64) << (fold_bits + kind_bits)
    if pairs.is_by_distance:
        keys += within
    return keys


def _bits(n: int) -> int:
    """Bits that hold the numbers 0..n-1."""
    return max(1, n - 1).bit_length()
