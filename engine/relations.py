"""What plain counting knows of a training part, as the tables and lists of the model's memory.

Each relation lists, for a song (or an artist, or an album), the songs that stand in it, strongest first, with their support among
the training lists.  The versions of a list share its vote; within a version, "after" and "before" count every time that two songs
stand near each other, the others count a list once.  Counts are made fold by fold, so that every edition of a table (see
`memory`) is the whole minus one fold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from config import FIRST_NUMBER, PAD, MemoryConfig
from dataset import TRAIN, Snapshot, fold_of_lists, numbered_lists
from memory import CountedRelation, HeardBefore, ListIndex, Memory, NearestLists, Relation, Source

# Longer lists count as several for "near": a list of 10,000 songs alone would make 10**8 pairs.
CHUNK_SONGS = 2_000
PIECE_SONGS = 64  # of a training list that is compared as a whole; longer ones are cut into pieces that overlap by half
PIECES_OF_SONG = 64  # the newest ones, as in session-based neighbours (Jannach and Ludewig 2017, section 3.2)
NOTHING = 1e-6  # support below this is what floating point left over


@dataclass(frozen=True, kw_only=True)
class TrainingSongs:
    """The known songs of the training part, r rows in order."""

    songs: np.ndarray  # (r,) int64
    sequence: np.ndarray  # (r,) in which sequence each stands
    lists: np.ndarray  # (r,) in which list, 0..G-1
    fold: np.ndarray  # (r,) 0..folds-1
    votes: np.ndarray  # (r,) float32: one over the versions of its list
    n_songs: int  # V
    folds: int

    @classmethod
    def of(cls, snapshot: Snapshot, folds: int) -> "TrainingSongs":
        """The training part of a snapshot."""
        songs, offsets = snapshot.part(TRAIN)
        sequence = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        list_of_sequence = numbered_lists(np.asarray(snapshot.lists)[snapshot.indices(TRAIN)])
        fold = fold_of_lists(int(list_of_sequence.max()) + 1, folds)
        votes = 1 / np.bincount(list_of_sequence)
        known = songs >= FIRST_NUMBER
        lists = list_of_sequence[sequence[known]]
        return cls(
            songs=songs[known].astype(np.int64),
            sequence=sequence[known],
            lists=lists,
            fold=fold[lists],
            votes=votes[lists].astype(np.float32),
            n_songs=snapshot.n_songs,
            folds=folds,
        )

    def part(self, fold: int) -> "TrainingSongs":
        """Those of one fold."""
        chosen = self.fold == fold
        columns = {name: getattr(self, name)[chosen] for name in ("songs", "sequence", "lists", "fold", "votes")}
        return TrainingSongs(**columns, n_songs=self.n_songs, folds=self.folds)

    def editions(self, count: Callable[["TrainingSongs"], Any]) -> list[Any]:
        """Counts of everything, then of everything but each fold; what is counted must add up over lists."""
        parts = [count(self.part(fold)) for fold in range(self.folds)]
        whole = sum(parts[1:], start=parts[0])
        return [whole, *(whole - part for part in parts)]


def build_memory(snapshot: Snapshot, config: MemoryConfig, d_model: int) -> Memory | None:
    """The memory that the settings ask for, counted over the training part; None when they ask for no source."""
    training = TrainingSongs.of(snapshot, config.folds)
    plays = np.stack(training.editions(lambda part: _lists_with(part.songs, part.lists, part.n_songs)))  # (E, V)
    sources: list[Source] = [CountedRelation(relation) for relation in build_relations(snapshot, config, training, plays)]
    if config.lists:
        sources.append(NearestLists(index_lists(snapshot), config.lists, config.lists_reach))
    if config.again_reach:
        sources.append(HeardBefore(config.again_reach))
    return Memory(d_model, sources, torch.from_numpy(plays.astype(np.float32))) if sources else None


def build_relations(snapshot: Snapshot, config: MemoryConfig, training: TrainingSongs, plays: np.ndarray) -> list[Relation]:
    """The counted relations that the settings ask for; `plays` (E, V) lists that hold each song."""
    counts: tuple[tuple[str, int, Callable[[TrainingSongs], Any]], ...] = (
        ("after", config.after_reach, lambda part: _within(part, config.window)),
        ("before", config.before_reach, lambda part: _within(part, config.window).T.tocsr()),
        ("next", config.next_reach, _successions),
        ("near", config.near_reach, _together),
    )
    relations = [
        _song_relation(name, training.editions(count), plays, reach, config.neighbours) for name, reach, count in counts if reach
    ]
    for name, reach, key in (
        ("artist", config.artist_reach, snapshot.song_artist),
        ("album", config.album_reach, snapshot.song_album),
    ):
        if reach:
            relations.append(_group_relation(name, np.asarray(key), training, plays, reach, config.neighbours))
    if config.same_reach:
        relations.append(_certain("same", _itself(snapshot.n_songs), config.same_reach))
    following = next_on_album(snapshot) if config.track_reach else None
    if following is not None:
        relations.append(_certain("track", following, config.track_reach))
    return relations


def index_lists(snapshot: Snapshot) -> ListIndex:
    """Cut the training sequences into pieces and note, for each song, the newest pieces that hold it."""
    songs, offsets = snapshot.part(TRAIN)
    lists = numbered_lists(np.asarray(snapshot.lists)[snapshot.indices(TRAIN)])
    starts, of_sequence = _piece_starts(offsets)
    place = starts[:, None] + np.arange(PIECE_SONGS)
    inside = place < offsets[of_sequence + 1][:, None]
    pieces = np.where(inside, songs[np.minimum(place, max(0, len(songs) - 1))], PAD)
    pieces = np.concatenate([np.zeros((1, PIECE_SONGS)), np.where(pieces >= FIRST_NUMBER, pieces, PAD)]).astype(np.int32)
    pieces_of_song, held = _newest_pieces(pieces, snapshot.n_songs)
    rarity = np.where(held > 0, np.log(len(pieces) / np.maximum(held, 1)), 0)
    return ListIndex(
        pieces=torch.from_numpy(pieces),
        list_of_piece=torch.from_numpy(np.concatenate([[-1], lists[of_sequence]])),
        pieces_of_song=torch.from_numpy(pieces_of_song),
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


def _newest_pieces(pieces: np.ndarray, n_songs: int) -> tuple[np.ndarray, np.ndarray]:
    """The last PIECES_OF_SONG pieces that hold each song, (V, any) int32, and how many hold it, (V,)."""
    piece, place = np.nonzero(pieces)
    Q = len(pieces)
    pairs = np.unique(pieces[piece, place].astype(np.int64) * Q + (Q - 1 - piece))
    song, newest = pairs // Q, Q - 1 - pairs % Q
    rank = np.arange(len(pairs)) - np.searchsorted(song, song)
    kept = rank < PIECES_OF_SONG
    table = np.zeros((n_songs, min(PIECES_OF_SONG, int(rank.max(initial=0)) + 1)), np.int32)
    table[song[kept], rank[kept]] = newest[kept]
    return table, np.bincount(song, minlength=n_songs)


def _incidence(songs: np.ndarray, rows: np.ndarray, n_songs: int) -> Any:
    """1 where a row (a list, or a part of one) holds a song, (rows, V) CSR."""
    shape = (int(rows.max(initial=-1)) + 1, n_songs)
    matrix = sparse.csr_matrix((np.ones(len(songs), np.float32), (rows, songs)), shape)
    matrix.data[:] = 1
    return matrix


def _lists_with(songs: np.ndarray, lists: np.ndarray, n_songs: int) -> np.ndarray:
    """How many lists hold each song (artist, album), (V,)."""
    return np.asarray(_incidence(songs, lists, n_songs).sum(axis=0)).ravel()


def _within(training: TrainingSongs, window: int) -> Any:
    """The support for b standing up to `window` places after a, one over the root of the places each time: (V, V) CSR."""
    counts = sparse.csr_matrix((training.n_songs, training.n_songs), dtype=np.float32)
    for places in range(1, window + 1):
        follows = training.sequence[places:] == training.sequence[:-places]
        if not follows.any():
            break
        first, second = training.songs[:-places][follows], training.songs[places:][follows]
        support = training.votes[:-places][follows] / np.sqrt(places, dtype=np.float32)
        counts += sparse.csr_matrix((support, (first, second)), counts.shape)
    counts.setdiag(0)
    return counts


def _together(training: TrainingSongs) -> Any:
    """In how many lists two different songs stand, (V, V) CSR."""
    order = np.argsort(training.lists, kind="stable")
    lists = training.lists[order]
    place = np.arange(len(lists)) - np.searchsorted(lists, lists)
    starts_chunk = (place % CHUNK_SONGS == 0) | (np.diff(lists, prepend=-1) != 0)
    incidence = _incidence(training.songs[order], np.cumsum(starts_chunk) - 1, training.n_songs)
    together = (incidence.T @ incidence).tocsr()
    together.setdiag(0)
    return together


def _successions(training: TrainingSongs) -> Any:
    """In how many lists b directly follows a, (V, V) CSR."""
    V, songs = training.n_songs, training.songs
    follows = training.sequence[1:] == training.sequence[:-1]
    pair, where = songs[:-1][follows] * V + songs[1:][follows], training.lists[1:][follows]
    order = np.lexsort((where, pair))
    is_new = (np.diff(pair[order], prepend=-1) != 0) | (np.diff(where[order], prepend=-1) != 0)
    distinct = pair[order][is_new]
    return sparse.csr_matrix((np.ones(len(distinct), np.float32), (distinct // V, distinct % V)), (V, V))


def _song_relation(name: str, editions: list[Any], plays: np.ndarray, reach: int, neighbours: int) -> Relation:
    """Keep the strongest neighbours of each song by support over the square root of the neighbour's lists (cosine)."""
    tables = []
    for counts, of_song in zip(editions, plays, strict=True):
        entries = counts.tocoo()
        real = entries.data > NOTHING
        row, song, support = entries.row[real], entries.col[real], entries.data[real]
        order = np.lexsort((song, -support / np.sqrt(np.maximum(of_song[song], 1)), row))
        tables.append(_table(row[order], song[order], support[order], len(of_song), neighbours))
    return _stacked(name, tables, plays, reach)


def _group_relation(
    name: str, key: np.ndarray, training: TrainingSongs, plays: np.ndarray, reach: int, neighbours: int
) -> Relation:
    """The songs of each artist (or album), most played first; each counts one list more, so that new songs count at all."""
    members, n_keys = np.flatnonzero(key >= FIRST_NUMBER), int(key.max()) + 1
    tables = []
    for of_song in plays:
        order = members[np.lexsort((-of_song[members], key[members]))]
        tables.append(_table(key[order], order, of_song[order] + 1, n_keys, neighbours))
    totals = np.stack(training.editions(lambda part: _lists_with(key[part.songs], part.lists, n_keys))) + 1
    return _stacked(name, tables, totals, reach, torch.from_numpy(key.astype(np.int64)))


def _itself(n_songs: int) -> np.ndarray:
    itself = np.arange(n_songs, dtype=np.int32)
    itself[:FIRST_NUMBER] = PAD
    return itself


def _certain(name: str, target: np.ndarray, reach: int) -> Relation:
    """A relation with one neighbour at most, which rests on no count: one edition."""
    songs = torch.from_numpy(target.astype(np.int32))[None, :, None]
    return Relation(name=name, songs=songs, counts=(songs > 0).float(), totals=torch.ones(1, len(target)), reach=reach)


def _table(row: np.ndarray, song: np.ndarray, support: np.ndarray, n_rows: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay sorted (row, song, support) triples out as two (rows, K) tables, cutting each row at K."""
    first = np.searchsorted(row, np.arange(n_rows))
    place = np.arange(len(row)) - first[row]
    kept = place < neighbours
    K = max(1, int(place[kept].max(initial=0)) + 1)
    songs, counts = np.zeros((n_rows, K), np.int32), np.zeros((n_rows, K), np.float32)
    songs[row[kept], place[kept]] = song[kept]
    counts[row[kept], place[kept]] = support[kept]
    return songs, counts


def _stacked(
    name: str,
    tables: list[tuple[np.ndarray, np.ndarray]],
    totals: np.ndarray,
    reach: int,
    key_of_song: torch.Tensor | None = None,
) -> Relation:
    """The editions of a table side by side, as wide as the widest."""
    K = max(songs.shape[1] for songs, _ in tables)
    songs, counts = (np.stack([np.pad(pair[part], ((0, 0), (0, K - pair[part].shape[1]))) for pair in tables]) for part in (0, 1))
    return Relation(
        name=name,
        songs=torch.from_numpy(songs),
        counts=torch.from_numpy(counts),
        totals=torch.from_numpy(totals.astype(np.float32)),
        reach=reach,
        key_of_song=key_of_song,
    )
