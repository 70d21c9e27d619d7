"""What plain counting knows of a training part, as the tables and lists of the model's memory.

Each relation lists, for a song (or an artist, or an album), the songs that stand in it, strongest first, with their support among
the training lists.  The versions of a list share its vote; within a version, "after" and "before" count every time that two songs
stand near each other, the others count a list once.  Counts are kept by fold, so that every edition of a table (see `memory`) is
the whole minus one fold; which neighbours a row lists is decided by the whole.

Pairs of songs are counted for a few source songs at a time, from an index of the places where each song stands, and cut to the
strongest before the next ones: what is held at once does not grow with the number of pairs.

Shape letters: r songs of the training part, V songs of the catalogue, E editions, n entries of a table, P pairs at a time, g
distinct ones, Q pieces of lists.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from config import FIRST_NUMBER, PAD, MemoryConfig
from dataset import TRAIN, Snapshot, fold_of_lists, numbered_lists
from memory import Memory
from newcomers import Groups, Newcomers
from sources import NOTHING, CountedRelations, HeardBefore, ListIndex, NearestLists, Relations, Source

# Longer lists count as several for "near": a list of 10,000 songs alone would make 10**8 pairs.
CHUNK_SONGS = 2_000
PIECE_SONGS = 64  # of a training list that is compared as a whole; longer ones are cut into pieces that overlap by half
PIECES_OF_SONG = 64  # the newest ones, as in session-based neighbours (Jannach and Ludewig 2017, section 3.2)
PAIRS_AT_ONCE = 2**21  # 16 MB of keys and six times as much beside them
# Times as many neighbours as a row may have, the strongest of all lists, are looked at for the editions.
LOOKED_AT = 4
LARGEST_HALF = 60_000.0  # float16 ends at 65,504


@dataclass(frozen=True, kw_only=True)
class TrainingSongs:
    """The known songs of the training part, r in order, and where each stands."""

    songs: np.ndarray  # (r,) int32
    sequence: np.ndarray  # (r,) int32 in which sequence each stands
    list_of_sequence: np.ndarray  # (S,) int64 0..G-1
    fold_of_list: np.ndarray  # (G,) int64 0..folds-1
    n_songs: int  # V
    folds: int
    withheld: np.ndarray  # (folds, V) bool songs that the edition without a fold treats as if no list held them

    @classmethod
    def of(cls, snapshot: Snapshot, folds: int, withheld: float = 0.0) -> "TrainingSongs":
        """The training part of a snapshot; each fold withholds so large a share of the songs, each song at most once."""
        songs, offsets = snapshot.part(TRAIN)
        sequence = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
        known = songs >= FIRST_NUMBER
        list_of_sequence = numbered_lists(np.asarray(snapshot.lists)[snapshot.indices(TRAIN)])
        return cls(
            songs=songs[known].astype(np.int32, copy=False),
            sequence=sequence[known],
            list_of_sequence=list_of_sequence,
            fold_of_list=fold_of_lists(int(list_of_sequence.max()) + 1, folds),
            n_songs=snapshot.n_songs,
            folds=folds,
            withheld=_drawn(snapshot.n_songs, folds, withheld),
        )

    @cached_property
    def places(self) -> "Places":
        """Where each song stands."""
        return Places.of(self.songs, self.n_songs)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the known songs of each sequence begin, (S + 1,) int64."""
        return _starts_of(self.sequence, len(self.list_of_sequence))

    def lists_at(self, places: np.ndarray) -> np.ndarray:
        """The list that holds each of some places."""
        return self.list_of_sequence[self.sequence[places]]

    def folds_at(self, places: np.ndarray) -> np.ndarray:
        """The fold of each of some places."""
        return self.fold_of_list[self.lists_at(places)]

    @cached_property
    def lists_by_fold(self) -> np.ndarray:
        """How many lists of each fold hold each song, (folds, V)."""
        return self.lists_with(self.songs, self.n_songs)

    def plays(self) -> np.ndarray:
        """The lists that hold each song, in each edition: (E, V) float32."""
        plays = _editions(self.lists_by_fold)
        plays[_with_full(self.withheld)] = 0
        return plays

    def lists_of(self, key_of_song: np.ndarray) -> np.ndarray:
        """The lists that hold an artist (or album), in each edition, given that of each song (V,): (E, n_keys) float32."""
        keys, n_keys = key_of_song[self.songs], int(key_of_song.max()) + 1
        editions = _editions(self.lists_with(keys, n_keys))
        for fold in np.flatnonzero(self.withheld.any(axis=1)):
            by_fold = self.lists_with(keys, n_keys, ~self.withheld[fold, self.songs])
            editions[1 + fold] = by_fold.sum(axis=0) - by_fold[fold]
        return editions

    def mean_within(self, window: int) -> float:
        """How many songs follow one within `window` places, on average."""
        lengths = np.diff(self.starts)
        longest = np.minimum(lengths, window + 1)
        pairs = longest * (longest - 1) / 2 + np.maximum(0, lengths - window - 1) * float(window)
        return float(pairs.sum() / max(1, len(self.songs)))

    def lists_with(self, keys: np.ndarray, n_keys: int, kept: np.ndarray | None = None) -> np.ndarray:
        """How many lists of each fold hold a song with each key (r,): (folds, n_keys); of the `kept` songs (r,) bool alone."""
        G = len(self.fold_of_list)
        pairs = keys * np.int64(G)
        pairs += self.list_of_sequence[self.sequence]
        pairs = _distinct(pairs if kept is None else pairs[kept])
        return np.bincount(self.fold_of_list[pairs % G] * n_keys + pairs // G, minlength=self.folds * n_keys).reshape(
            self.folds, n_keys
        )


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where each song stands among the songs of a training part."""

    order: np.ndarray  # (r,) int32 places, song after song, rising within each
    starts: np.ndarray  # (V + 1,) int64 where those of each song begin

    @classmethod
    def of(cls, songs: np.ndarray, n_songs: int) -> "Places":
        """The index of songs (r,)."""
        pairs = songs.astype(np.int64) << 32
        pairs |= np.arange(len(songs))
        pairs.sort()  # twice as fast as a stable argsort
        return cls(order=(pairs & 0xFFFFFFFF).astype(np.int32), starts=_starts_of(songs, n_songs))

    def blocks(self, most_places: int, most_songs: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """The places of some songs at a time, and the first of the songs; one with more than `most_places` comes alone."""
        song, V = 0, len(self.starts) - 1
        while song < V:
            after = int(np.searchsorted(self.starts, self.starts[song] + most_places, side="right")) - 1
            after = min(max(song + 1, after), V if most_songs is None else song + most_songs)
            yield song, self.order[self.starts[song] : self.starts[after]]
            song = after


def build_memory(snapshot: Snapshot, config: MemoryConfig, d_model: int) -> Memory | None:
    """The memory that the settings ask for, counted over the training part; None when they ask for no source."""
    training = TrainingSongs.of(snapshot, config.folds, config.withheld)
    plays = training.plays()
    sources: list[Source] = [CountedRelations(relations) for relations in build_relations(snapshot, config, training, plays)]
    if config.lists:
        index = replace(index_lists(snapshot), unheard=torch.from_numpy(plays == 0))
        sources.append(NearestLists(index, config.lists, config.lists_reach))
    if config.again_reach:
        sources.append(HeardBefore(config.again_reach))
    if not sources:
        return None
    newcomers = None
    if config.unheard_reach:
        groups = (snapshot.song_artist, snapshot.song_album)
        tables = [unheard_groups(np.asarray(key), plays, config.neighbours) for key in groups]
        newcomers = Newcomers(tables, config.unheard_reach)
    return Memory(d_model, sources, torch.from_numpy(plays), config.judged, newcomers)


def build_relations(snapshot: Snapshot, config: MemoryConfig, training: TrainingSongs, plays: np.ndarray) -> Iterator[Relations]:
    """The counted relations that the settings ask for: of songs, of artists and albums, and those that rest on no count.

    `plays` (E, V) are the lists that hold each song.
    """
    wanted: tuple[tuple[str, int, Callable[[], Pairs]], ...] = (
        ("after", config.after_reach, lambda: _in_order(training, config.window, 1)),
        ("before", config.before_reach, lambda: _in_order(training, config.window, -1)),
        ("next", config.next_reach, lambda: _next(training)),
        ("near", config.near_reach, lambda: _together(training)),
    )
    by_song = [_song_relation(name, pairs(), training, plays, reach, config.neighbours) for name, reach, pairs in wanted if reach]
    if by_song:
        yield Relations.joined(by_song)
    by_group = [
        _group_relation(name, np.asarray(key), training, plays, reach, config.neighbours)
        for name, reach, key in (
            ("artist", config.artist_reach, snapshot.song_artist),
            ("album", config.album_reach, snapshot.song_album),
        )
        if reach
    ]
    if by_group:
        yield Relations.joined(by_group)
    following = next_on_album(snapshot) if config.track_reach else None
    certain = [
        _certain(name, target, reach)
        for name, reach, target in (
            ("same", config.same_reach, _itself(snapshot.n_songs)),
            ("track", config.track_reach, following),
        )
        if reach and target is not None
    ]
    if certain:
        yield Relations.joined(certain)


def index_lists(snapshot: Snapshot) -> ListIndex:
    """Cut the training sequences into pieces and note, for each song, the newest pieces that hold it."""
    songs, offsets = snapshot.part(TRAIN)
    lists = numbered_lists(np.asarray(snapshot.lists)[snapshot.indices(TRAIN)])
    songs = np.where(songs >= FIRST_NUMBER, songs, PAD).astype(np.int32, copy=False)
    starts, of_sequence = _piece_starts(offsets)
    lengths = np.minimum(offsets[of_sequence + 1] - starts, PIECE_SONGS)
    pieces, held = _newest_pieces(songs, offsets, of_sequence, snapshot.n_songs)
    Q = len(starts) + 1  # with piece 0
    rarity = np.where(held > 0, np.log(Q / np.maximum(held, 1)), 0)
    return ListIndex(
        songs=torch.from_numpy(songs),
        starts=torch.from_numpy(np.concatenate([[0], starts])),
        lengths=torch.from_numpy(np.concatenate([[0], lengths])),
        list_of_piece=torch.from_numpy(np.concatenate([[-1], lists[of_sequence]])),
        pieces=torch.from_numpy(pieces),
        pieces_of_song=torch.from_numpy(np.concatenate([[0], np.cumsum(np.minimum(held, PIECES_OF_SONG))])),
        rarity=torch.from_numpy(rarity.astype(np.float32)),
    )


def next_on_album(snapshot: Snapshot) -> np.ndarray | None:
    """The song that comes after each on its album, (V,) with 0 where none; None when track numbers are not known."""
    names = snapshot.manifest["feature_names"]
    if "track_number" not in names:
        return None
    track = np.asarray(snapshot.song_features[:, names.index("track_number")], np.float64)
    known = np.asarray(snapshot.song_album) >= FIRST_NUMBER
    if "track_number_missing" in names:
        known &= np.asarray(snapshot.song_features[:, names.index("track_number_missing")]) == 0
    disc = np.asarray(snapshot.song_features[:, names.index("disc_number")]) if "disc_number" in names else np.zeros_like(track)
    album = np.asarray(snapshot.song_album)
    order = np.lexsort((track, disc, album))
    order = order[known[order]]
    here, after = order[:-1], order[1:]
    adjoining = (album[here] == album[after]) & (
        ((disc[here] == disc[after]) & (track[after] == track[here] + 1))
        | ((disc[after] == disc[here] + 1) & (track[after] == 1))
    )
    following = np.zeros(snapshot.n_songs, np.int32)
    following[here[adjoining]] = after[adjoining]
    return following if adjoining.any() else None


def _piece_starts(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces begin in the flat songs, and the sequence of each, (Q,) both: one of a short sequence, else each half."""
    lengths = np.diff(offsets)
    step = PIECE_SONGS // 2
    counts = np.where(lengths <= PIECE_SONGS, 1, -(-(lengths - step) // step))
    of_sequence = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(of_sequence)) - np.repeat(np.cumsum(counts) - counts, counts)
    return offsets[of_sequence] + nth * step, of_sequence


def _newest_pieces(
    songs: np.ndarray, offsets: np.ndarray, of_sequence: np.ndarray, n_songs: int
) -> tuple[np.ndarray, np.ndarray]:
    """The last PIECES_OF_SONG pieces that hold each song, (n,) int32 song after song, and how many hold it, (V,).

    Pieces are numbered from 1, in the order of the sequences (Q,) that they are cut from.
    """
    Q = len(of_sequence) + 1
    first_piece = 1 + _starts_of(of_sequence, len(offsets) - 1)
    places = Places.of(songs, n_songs)
    held, newest = np.zeros(n_songs, np.int64), [np.zeros(0, np.int32)]
    for _, place in places.blocks(PAIRS_AT_ONCE // 2):
        place = place[songs[place] != PAD]
        sequence = np.searchsorted(offsets, place, side="right") - 1
        nth, end = (place - offsets[sequence]) // (PIECE_SONGS // 2), first_piece[sequence + 1]
        piece = np.concatenate([first_piece[sequence] + nth, first_piece[sequence] + nth - 1])
        inside = (piece < np.tile(end, 2)) & (piece >= np.tile(first_piece[sequence], 2))
        pairs = _distinct(np.tile(songs[place].astype(np.int64) * Q, 2)[inside] + (Q - 1 - piece[inside]))
        song = pairs // Q
        held += np.bincount(song, minlength=n_songs)
        kept = np.arange(len(song)) - np.searchsorted(song, song) < PIECES_OF_SONG
        newest.append((Q - 1 - pairs[kept] % Q).astype(np.int32))
    return np.concatenate(newest), held


# --- pairs of songs ----------------------------------------------------------------------------------------------------------


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


def _in_order(training: TrainingSongs, window: int, direction: int) -> Pairs:
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


def _next(training: TrainingSongs) -> Pairs:
    """The song at the next place; a list counts once."""
    return replace(
        _in_order(training, 1, 1),
        kinds=training.lists_at,
        n_kinds=len(training.fold_of_list),
        weights=None,
        is_by_distance=False,
        may_repeat=True,
    )


def _together(training: TrainingSongs) -> Pairs:
    """The songs of the same list, or part of a very long one, which counts once."""
    order = np.argsort(training.lists_at(np.arange(len(training.songs))), kind="stable")
    lists, songs = training.lists_at(order), training.songs[order]
    place = np.arange(len(lists)) - np.searchsorted(lists, lists)
    chunk = np.cumsum((place % CHUNK_SONGS == 0) | (np.diff(lists, prepend=-1) != 0)) - 1
    starts = _starts_of(chunk, int(chunk.max(initial=-1)) + 1)
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


def _supports(pairs: Pairs, V: int, folds: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Distinct pairs of songs, some source songs at a time: both songs (g,) in rising order and support (g, folds)."""
    kind_bits, fold_bits = _bits(pairs.n_kinds), _bits(folds)
    most_songs = 2 ** max(0, 62 - kind_bits - fold_bits) // V
    for first_song, places in pairs.places.blocks(int(PAIRS_AT_ONCE / max(1, pairs.mean_many)) + 1, max(1, most_songs)):
        keys = _pair_keys(pairs, places, first_song, V, kind_bits, fold_bits)
        if not len(keys):
            continue
        keys.sort()
        if pairs.weights is None:
            keys = keys[_begins(keys)]
        of_fold = keys >> kind_bits
        begins = np.flatnonzero(_begins(of_fold))
        if pairs.weights is None:
            support = np.diff(begins, append=len(keys)).astype(np.float32)
        else:
            support = np.add.reduceat(pairs.weights[keys & (2**kind_bits - 1)], begins)
        of_fold = of_fold[begins]
        both = of_fold >> fold_bits
        begins_pair = _begins(both)
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


# --- tables ------------------------------------------------------------------------------------------------------------------


def _song_relation(name: str, pairs: Pairs, training: TrainingSongs, plays: np.ndarray, reach: int, neighbours: int) -> Relations:
    """Keep the strongest neighbours of each song by support over the square root of the neighbour's lists (cosine)."""
    V, roots = training.n_songs, np.sqrt(np.maximum(plays, 1))  # (E, V)
    parts = [_Entries.nothing(training.folds)]
    for source, other, by_fold in _supports(pairs, V, training.folds):
        entries = _Entries.of(source, other, by_fold).without(training.withheld[:, source] | training.withheld[:, other])
        best = entries.strongest(by_fold.sum(axis=1) / roots[0, other], LOOKED_AT * neighbours)
        parts.append(best.with_editions_of(neighbours, roots))
    entries = _Entries.joined(parts)
    known = np.arange(V, dtype=np.int32)
    known[:FIRST_NUMBER] = PAD
    return entries.relation(name, reach, neighbours, known, plays)


def _group_relation(
    name: str, key: np.ndarray, training: TrainingSongs, plays: np.ndarray, reach: int, neighbours: int
) -> Relations:
    """The songs of each artist (or album) that stand in training lists, most played first, in every edition."""
    members = np.flatnonzero((key >= FIRST_NUMBER) & (plays[0] > 0))
    members = members[np.argsort(key[members], kind="stable")]
    entries = _Entries.of(key[members].astype(np.int64), members, training.lists_by_fold[:, members].T)
    entries = entries.without(training.withheld[:, members])
    known = np.where(key >= FIRST_NUMBER, key, PAD).astype(np.int32)
    best = entries.strongest(entries.counts, LOOKED_AT * neighbours).with_editions_of(neighbours, np.ones_like(plays))
    return best.relation(name, reach, neighbours, known, training.lists_of(key))


def unheard_groups(key: np.ndarray, plays: np.ndarray, most: int) -> Groups:
    """The songs of each artist (or album) that some edition lacks: of those that no list holds and of the others so many each.

    `plays` (E, V).  Were both counted together, an artist of many unheard songs would teach nothing.  Of the former the highest
    numbers are taken, which came last; of the others any, for theirs fall with their plays.
    """
    members, n_keys = np.flatnonzero((key >= FIRST_NUMBER) & (plays == 0).any(axis=0)), int(key.max()) + 1
    never = plays[0, members] == 0
    kinds = 2 * key[members].astype(np.int64) + ~never  # of each artist first those that no list holds
    order = np.lexsort((np.where(never, -members, np.random.default_rng(1).permutation(len(members))), kinds))
    place = np.arange(len(order)) - np.searchsorted(kinds[order], kinds[order])
    kept = order[place < most]
    kept = kept[np.lexsort((members[kept], kinds[kept]))]
    members, never = members[kept], never[kept]
    return Groups(
        row_of_song=torch.from_numpy(np.where(key >= FIRST_NUMBER, key, PAD).astype(np.int32)),
        starts=torch.from_numpy(_starts_of(key[members], n_keys)),
        songs=torch.from_numpy(members.astype(np.int32)),
        n_unheard=torch.from_numpy(np.bincount(key[members[never]], minlength=n_keys)),
        lacking=torch.from_numpy(plays[1:, members] == 0),
    )


def _certain(name: str, target: np.ndarray, reach: int) -> Relations:
    """A relation with one neighbour at most, which rests on no count."""
    return Relations(
        names=(name,),
        reaches=(reach,),
        rows=(len(target),),
        most=1,
        row_of_song=torch.arange(len(target), dtype=torch.int32)[None],
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(target != PAD)])),
        songs=torch.from_numpy(target[target != PAD].astype(np.int32)),
        counts=torch.ones(int((target != PAD).sum())),
        totals=torch.ones(1, len(target)),
    )


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """Entries of a table, row after row."""

    rows: np.ndarray  # (n,) int32
    songs: np.ndarray  # (n,) int32
    counts: np.ndarray  # (n,) float32
    fold_counts: np.ndarray  # (n, folds) float16, or float32 where one is too large

    @classmethod
    def of(cls, rows: np.ndarray, songs: np.ndarray, by_fold: np.ndarray) -> "_Entries":
        """From the support by each fold (n, folds).

        The whole is the sum of the rounded parts: without the only fold that supports a pair nothing is left.
        """
        half = by_fold.astype(np.float16 if by_fold.sum(axis=1).max(initial=0) < LARGEST_HALF else np.float32)
        counts = half.sum(axis=1, dtype=np.float32)
        return cls(rows=rows.astype(np.int32), songs=songs.astype(np.int32), counts=counts, fold_counts=half)

    @classmethod
    def nothing(cls, folds: int) -> "_Entries":
        """No entry."""
        return cls.of(np.zeros(0), np.zeros(0), np.zeros((0, folds), np.float16))

    @classmethod
    def joined(cls, parts: list["_Entries"]) -> "_Entries":
        """Entries of rising rows; the parts are used up, so that each column is held twice only one at a time."""
        columns: dict[str, np.ndarray] = {}
        for name in ("rows", "songs", "counts", "fold_counts"):
            columns[name] = np.concatenate([part.__dict__.pop(name) for part in parts])
        return cls(**columns)

    def without(self, withheld: np.ndarray) -> "_Entries":
        """The same without the entries that the edition without a fold withholds, (folds, n) bool."""
        if not withheld.any():
            return self
        everything = _at_least(self.counts, self.fold_counts.dtype)[:, None]
        return replace(self, fold_counts=np.where(withheld.T, everything, self.fold_counts))

    def strongest(self, strength: np.ndarray, most: int) -> "_Entries":
        """At most so many entries of each row, in the order of their strength (n,); equal ones stay in theirs."""
        order = np.argsort(self.rows.astype(np.int64) << 32 | _falling(strength), kind="stable")
        order = order[np.arange(len(order)) - np.searchsorted(self.rows, self.rows) < most]
        return _Entries(**{name: column[order] for name, column in vars(self).items()})

    def with_editions_of(self, most: int, roots: np.ndarray) -> "_Entries":
        """Let each edition have its own strongest entries of a row, so many at most, and drop those that no edition has.

        The roots (E, V) are those by which strength is measured.  Where an edition has no use for an entry, the entry counts as
        supported by the edition's fold alone.
        """
        begins = np.searchsorted(self.rows, self.rows)
        place = np.arange(len(self.rows)) - begins
        is_long = np.bincount(self.rows)[self.rows] > most if len(self.rows) else np.zeros(0, bool)
        long = np.flatnonzero(is_long)
        rows, place_of_long = self.rows[long].astype(np.int64) << 32, place[long]
        is_used, fold_counts = place < most, self.fold_counts.copy()
        for edition in range(1, len(roots)):
            left = self.counts[long] - fold_counts[long, edition - 1]
            order = np.argsort(rows | _falling(left / roots[edition, self.songs[long]]), kind="stable")
            is_strong = np.zeros(len(long), bool)
            is_strong[order] = place_of_long < most
            is_used[long] |= is_strong & (left > NOTHING)
            weak = long[~is_strong]
            fold_counts[weak, edition - 1] = _at_least(self.counts[weak], fold_counts.dtype)
        columns = {**vars(self), "fold_counts": fold_counts}
        return _Entries(**{name: column[is_used] for name, column in columns.items()})

    def relation(self, name: str, reach: int, most: int, row_of_song: np.ndarray, totals: np.ndarray) -> Relations:
        """The table with these entries, with a row for each of `totals` (E, rows)."""
        n_rows = totals.shape[1]
        return Relations(
            names=(name,),
            reaches=(reach,),
            rows=(n_rows,),
            most=most,
            row_of_song=torch.from_numpy(row_of_song)[None],
            starts=torch.from_numpy(_starts_of(self.rows, n_rows)),
            songs=torch.from_numpy(self.songs),
            counts=torch.from_numpy(self.counts),
            totals=torch.from_numpy(totals),
            fold_counts=torch.from_numpy(np.ascontiguousarray(self.fold_counts.T)),
        )


def _falling(strength: np.ndarray) -> np.ndarray:
    """Numbers below 2 ** 31 that fall as strengths of 0 and above rise: the bits of a float rise with it."""
    return np.int64(0x7FFFFFFF) - strength.astype(np.float32).view(np.int32)


def _at_least(counts: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The least numbers of a floating-point type that are not below the counts, so that nothing is left without them."""
    rounded = counts.astype(dtype)
    return np.where(rounded < counts, np.nextafter(rounded, dtype.type(np.inf)), rounded)


def _drawn(n_songs: int, folds: int, share: float) -> np.ndarray:
    """Which songs each fold withholds, (folds, n_songs) bool; a song's draw does not depend on how many songs there are."""
    draws = np.random.default_rng(0).random(n_songs)
    draws[:FIRST_NUMBER] = 1
    edges = share * np.arange(folds + 1)
    return (draws >= edges[:-1, None]) & (draws < edges[1:, None])


def _with_full(withheld: np.ndarray) -> np.ndarray:
    """What each edition withholds, the full one nothing: (folds, V) to (E, V)."""
    return np.concatenate([np.zeros_like(withheld[:1]), withheld])


def _itself(n_songs: int) -> np.ndarray:
    itself = np.arange(n_songs, dtype=np.int32)
    itself[:FIRST_NUMBER] = PAD
    return itself


def _editions(by_fold: np.ndarray) -> np.ndarray:
    """The whole, then the whole without each fold: (folds, n) to (E, n) float32."""
    whole = by_fold.sum(axis=0)
    return np.concatenate([whole[None], whole - by_fold]).astype(np.float32)


def _starts_of(rising: np.ndarray, n: int) -> np.ndarray:
    """Where each of the numbers 0..n-1 begins in an array of rising ones, or would: (n + 1,) int64."""
    return np.concatenate([[0], np.cumsum(np.bincount(rising, minlength=n))])


def _begins(sorted_keys: np.ndarray) -> np.ndarray:
    """True where a key differs from the one before it."""
    return np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]) if len(sorted_keys) else np.zeros(0, bool)


def _distinct(keys: np.ndarray) -> np.ndarray:
    """The distinct keys in rising order; sorts `keys` in place."""
    keys.sort()
    return keys[_begins(keys)]


def _bits(n: int) -> int:
    """Bits that hold the numbers 0..n-1."""
    return max(1, n - 1).bit_length()
