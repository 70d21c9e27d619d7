"""What plain counting knows of a training part, as tables for the model's memory.

Each table lists, for a song (or an artist, or an album), the songs that stand in one relation to it, strongest first, with the
number of training lists that support the pair.  Lists are counted, not occurrences nor versions of a list, so that in training
the support of the list at hand can be taken out again by subtracting one.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import sparse

from config import FIRST_NUMBER, MemoryConfig
from dataset import TRAIN, Snapshot
from model import Relation

# Longer lists count as several for "near": a list of 10,000 songs alone would make 10**8 pairs.
CHUNK_SONGS = 2_000


def build_relations(snapshot: Snapshot, config: MemoryConfig) -> list[Relation]:
    """The relations that the settings ask for, counted over the training part.  Memory: the pairs of one table."""
    songs, sequence, lists = _training_songs(snapshot)
    n_songs = snapshot.n_songs
    incidence = _incidence(songs, lists, n_songs)
    plays = np.asarray(incidence.sum(axis=0)).ravel()  # (V,) lists that hold each song
    relations = []
    if config.next_reach:
        following = _successions(songs, sequence, lists, n_songs)
        relations.append(_song_relation("next", following, plays, config.next_reach, config.neighbours, counts_pairs=True))
    if config.near_reach:
        together = _together(songs, lists, n_songs)
        relations.append(_song_relation("near", together, plays, config.near_reach, config.neighbours))
    if config.same_reach:
        relations.append(_identity(n_songs, config.same_reach))
    for name, reach, key in (
        ("artist", config.artist_reach, snapshot.song_artist),
        ("album", config.album_reach, snapshot.song_album),
    ):
        if reach:
            relations.append(_group_relation(name, np.asarray(key), songs, lists, plays, reach, config.neighbours))
    following = next_on_album(snapshot) if config.track_reach else None
    if following is not None:
        relations.append(_certain("track", following, config.track_reach))
    return relations


def song_plays(snapshot: Snapshot) -> torch.Tensor:
    """Training lists that hold each song, (V,) float32."""
    songs, _, lists = _training_songs(snapshot)
    return torch.from_numpy(np.asarray(_incidence(songs, lists, snapshot.n_songs).sum(axis=0)).ravel().astype(np.float32))


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


def _training_songs(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The known songs of the training part, and the sequence and the list in which each stands, (r,) each."""
    songs, offsets = snapshot.part(TRAIN)
    sequence = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    lists = np.unique(np.asarray(snapshot.lists)[snapshot.indices(TRAIN)], return_inverse=True)[1][sequence]
    known = songs >= FIRST_NUMBER
    return songs[known].astype(np.int64), sequence[known], lists[known]


def _incidence(songs: np.ndarray, rows: np.ndarray, n_songs: int) -> Any:
    """1 where a row (a list, or a part of one) holds a song, (rows, V) CSR."""
    shape = (int(rows.max(initial=-1)) + 1, n_songs)
    matrix = sparse.csr_matrix((np.ones(len(songs), np.float32), (rows, songs)), shape)
    matrix.data[:] = 1
    return matrix


def _together(songs: np.ndarray, lists: np.ndarray, n_songs: int) -> Any:
    """In how many lists two different songs stand, (V, V) CSR."""
    order = np.argsort(lists, kind="stable")
    place = np.arange(len(lists)) - np.searchsorted(lists[order], lists[order])
    starts_chunk = (place % CHUNK_SONGS == 0) | (np.diff(lists[order], prepend=-1) != 0)
    incidence = _incidence(songs[order], np.cumsum(starts_chunk) - 1, n_songs)
    together = (incidence.T @ incidence).tocsr()
    together.setdiag(0)
    return together


def _successions(songs: np.ndarray, sequence: np.ndarray, lists: np.ndarray, n_songs: int) -> Any:
    """In how many lists b directly follows a, (V, V) CSR."""
    follows = sequence[1:] == sequence[:-1]
    pair, where = songs[:-1][follows] * n_songs + songs[1:][follows], lists[1:][follows]
    order = np.lexsort((where, pair))
    is_new = (np.diff(pair[order], prepend=-1) != 0) | (np.diff(where[order], prepend=-1) != 0)
    distinct = pair[order][is_new]
    return sparse.csr_matrix((np.ones(len(distinct), np.float32), (distinct // n_songs, distinct % n_songs)), (n_songs, n_songs))


def _song_relation(
    name: str, counts: Any, plays: np.ndarray, reach: int, neighbours: int, *, counts_pairs: bool = False
) -> Relation:
    """Keep the strongest neighbours of each song by count over the square root of the neighbour's plays (cosine)."""
    counts = counts.tocsr()
    counts.sum_duplicates()
    counts.eliminate_zeros()
    strength = counts.data / np.sqrt(plays[counts.indices])
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    order = np.lexsort((-strength, row))
    table = _table(name, row[order], counts.indices[order], counts.data[order], plays, reach, neighbours)
    return replace(table, counts_pairs=counts_pairs)


def _group_relation(
    name: str, key: np.ndarray, songs: np.ndarray, lists: np.ndarray, plays: np.ndarray, reach: int, neighbours: int
) -> Relation:
    """The songs of each artist (or album), most played first; each counts one play more, so that new songs count at all."""
    members = np.flatnonzero(key >= FIRST_NUMBER)
    order = members[np.lexsort((-plays[members], key[members]))]
    totals = np.asarray(_incidence(key[songs], lists, int(key.max()) + 1).sum(axis=0)).ravel() + 1  # lists that hold the key
    return _table(name, key[order], order, plays[order] + 1, totals, reach, neighbours, torch.from_numpy(key.astype(np.int64)))


def _identity(n_songs: int, reach: int) -> Relation:
    itself = np.arange(n_songs, dtype=np.int32)
    itself[:FIRST_NUMBER] = 0
    return _certain("same", itself, reach)


def _certain(name: str, target: np.ndarray, reach: int) -> Relation:
    """A relation with one neighbour at most, which rests on no count."""
    songs = torch.from_numpy(target.astype(np.int32))[:, None]
    return Relation(
        name=name, songs=songs, counts=(songs > 0).float(), totals=torch.ones(len(target)), reach=reach, is_counted=False
    )


def _table(
    name: str,
    row: np.ndarray,
    song: np.ndarray,
    count: np.ndarray,
    totals: np.ndarray,
    reach: int,
    neighbours: int,
    key_of_song: torch.Tensor | None = None,
) -> Relation:
    """Lay sorted (row, song, count) triples out as (rows, K) tables, cutting each row at K."""
    n_rows = len(totals)
    first = np.searchsorted(row, np.arange(n_rows))
    place = np.arange(len(row)) - first[row]
    kept = place < neighbours
    K = max(1, int(place[kept].max()) + 1) if kept.any() else 1
    songs, counts = np.zeros((n_rows, K), np.int32), np.zeros((n_rows, K), np.float32)
    songs[row[kept], place[kept]] = song[kept]
    counts[row[kept], place[kept]] = count[kept]
    return Relation(
        name=name,
        songs=torch.from_numpy(songs),
        counts=torch.from_numpy(counts),
        totals=torch.from_numpy(np.asarray(totals, np.float32)),
        reach=reach,
        key_of_song=key_of_song,
    )
