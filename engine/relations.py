"""What plain counting knows of a training part, as tables for the model's memory.

Each table lists, for a song (or an artist, or an album), the songs that stand in one relation to it, strongest first, with the
number of training sequences that support the pair.  Sequences are counted, not occurrences, so that in training the support of
the sequence at hand can be taken out again by subtracting one.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse

from config import FIRST_NUMBER, MemoryConfig
from dataset import TRAIN, Snapshot
from model import Relation

# Sequences longer than this are counted in chunks: a pair further apart says little, and the table of a list of 10,000 songs
# would hold 10**8 pairs.
CHUNK_SONGS = 100


def build_relations(snapshot: Snapshot, config: MemoryConfig) -> list[Relation]:
    """The relations that the settings ask for, counted over the training part.  Memory: the pairs of one table."""
    songs, sequence = _training_songs(snapshot)
    n_songs = snapshot.n_songs
    incidence = _incidence(songs, sequence, n_songs)
    plays = np.asarray(incidence.sum(axis=0)).ravel()  # (V,) sequences that hold each song
    relations = []
    if config.next_reach:
        relations.append(
            _song_relation("next", _successions(songs, sequence, n_songs), plays, config.next_reach, config.neighbours)
        )
    if config.near_reach:
        together = (incidence.T @ incidence).tocsr()
        together.setdiag(0)
        relations.append(_song_relation("near", together, plays, config.near_reach, config.neighbours))
    if config.same_reach:
        relations.append(_identity(n_songs, config.same_reach))
    for name, reach, key in (
        ("artist", config.artist_reach, snapshot.song_artist),
        ("album", config.album_reach, snapshot.song_album),
    ):
        if reach:
            relations.append(_group_relation(name, np.asarray(key), plays, reach, config.neighbours))
    following = next_on_album(snapshot) if config.track_reach else None
    if following is not None:
        relations.append(_certain("track", following, config.track_reach))
    return relations


def song_plays(snapshot: Snapshot) -> torch.Tensor:
    """Training sequences that hold each song, (V,) float32."""
    songs, sequence = _training_songs(snapshot)
    return torch.from_numpy(np.asarray(_incidence(songs, sequence, snapshot.n_songs).sum(axis=0)).ravel().astype(np.float32))


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


def _training_songs(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """The known songs of the training part and the number of the chunk in which each stands, both (r,)."""
    songs, offsets = snapshot.part(TRAIN)
    place = np.arange(len(songs)) - np.repeat(offsets[:-1], np.diff(offsets))
    begins_chunk = place % CHUNK_SONGS == 0
    return songs, np.cumsum(begins_chunk) - 1


def _incidence(songs: np.ndarray, sequence: np.ndarray, n_songs: int) -> Any:
    """1 where a sequence holds a song, (sequences, V) CSR; the specials are held by none."""
    known = songs >= FIRST_NUMBER
    shape = (int(sequence[-1]) + 1 if len(sequence) else 0, n_songs)
    matrix = sparse.csr_matrix((np.ones(known.sum(), np.float32), (sequence[known], songs[known])), shape)
    matrix.data[:] = 1
    return matrix


def _successions(songs: np.ndarray, sequence: np.ndarray, n_songs: int) -> Any:
    """In how many sequences b directly follows a, (V, V) CSR."""
    follows = (sequence[1:] == sequence[:-1]) & (songs[1:] >= FIRST_NUMBER) & (songs[:-1] >= FIRST_NUMBER)
    a, b, where = songs[:-1][follows].astype(np.int64), songs[1:][follows].astype(np.int64), sequence[1:][follows]
    distinct = np.unique(np.stack([where, a * n_songs + b]), axis=1)[1]
    return sparse.csr_matrix((np.ones(len(distinct), np.float32), (distinct // n_songs, distinct % n_songs)), (n_songs, n_songs))


def _song_relation(name: str, counts: Any, plays: np.ndarray, reach: int, neighbours: int) -> Relation:
    """Keep the strongest neighbours of each song by count over the square root of the neighbour's plays (cosine)."""
    counts = counts.tocsr()
    counts.sum_duplicates()
    counts.eliminate_zeros()
    strength = counts.data / np.sqrt(plays[counts.indices])
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    order = np.lexsort((-strength, row))
    return _table(name, row[order], counts.indices[order], counts.data[order], plays, reach, neighbours)


def _group_relation(name: str, key: np.ndarray, plays: np.ndarray, reach: int, neighbours: int) -> Relation:
    """The songs of each artist (or album), most played first; each counts one play more, so that new songs count at all."""
    songs = np.flatnonzero(key >= FIRST_NUMBER)
    order = songs[np.lexsort((-plays[songs], key[songs]))]
    totals = np.bincount(key, weights=plays + 1, minlength=int(key.max()) + 1)
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
