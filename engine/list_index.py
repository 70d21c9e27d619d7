"""The training lists as wholes to compare with: cut into pieces, and the newest pieces that hold each song.

Pairs of a song and a piece are made for a few songs at a time.

Shape letters: V songs of the catalogue, Q pieces of lists, n entries of the index.
"""

import numpy as np
import torch

from config import FIRST_NUMBER, PAD
from engine.sorted_arrays import distinct_keys, rank_among_equals, starts_of
from engine.training_songs import PAIRS_AT_ONCE, Places
from snapshot import Snapshot
from sources import ListIndex
from splits import TRAIN, numbered_lists

PIECE_SONGS = 64  # of a training list that is compared as a whole; longer ones are cut into pieces that overlap by half
PIECES_OF_SONG = 64  # the newest ones, as in session-based neighbours (Jannach and Ludewig 2017, section 3.2)


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
    first_piece = 1 + starts_of(of_sequence, len(offsets) - 1)
    places = Places.of(songs, n_songs)
    held, newest = np.zeros(n_songs, np.int64), [np.zeros(0, np.int32)]
    for _, place in places.blocks(PAIRS_AT_ONCE // 2):
        place = place[songs[place] != PAD]
        sequence = np.searchsorted(offsets, place, side="right") - 1
        nth, end = (place - offsets[sequence]) // (PIECE_SONGS // 2), first_piece[sequence + 1]
        piece = np.concatenate([first_piece[sequence] + nth, first_piece[sequence] + nth - 1])
        inside = (piece < np.tile(end, 2)) & (piece >= np.tile(first_piece[sequence], 2))
        pairs = distinct_keys(np.tile(songs[place].astype(np.int64) * Q, 2)[inside] + (Q - 1 - piece[inside]))
        song = pairs // Q
        held += np.bincount(song, minlength=n_songs)
        kept = rank_among_equals(song) < PIECES_OF_SONG
        newest.append((Q - 1 - pairs[kept] % Q).astype(np.int32))
    return np.concatenate(newest), held
