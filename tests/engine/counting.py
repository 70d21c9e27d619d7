"""Small training parts, and what their memory says of them: tables and unheard songs as plain dictionaries and lists."""

import numpy as np
import torch

from config import FIRST_NUMBER, PAD, MemoryConfig
from engine.relations import build_memory
from engine.training_songs import withheld_songs
from snapshot import write_snapshot
from sources import NOTHING, CountedRelations, Origin, Place
from splits import TRAIN

N_SONGS, FOLDS, SHARE = 23, 3, 0.2  # of `songs_world`; each fold withholds that share of the songs, where it is asked to


def snapshot_of(folder, sequences, split=None, **changes):
    flat = np.concatenate(sequences).astype(np.int32)
    columns = {
        "song_artist": np.array([0, 1, 2, 3, 3, 4, 2]),
        "song_album": np.array([0, 1, 2, 3, 3, 3, 4]),
        "song_features": np.array([[0, 0], [0, 0], [0, 1], [1, 0], [2, 0], [4, 0], [1, 0]], np.float32),
        "feature_names": ["track_number", "track_number_missing"],
        "n_fitted_songs": 7, "n_fitted_albums": 5, "n_fitted_artists": 5, "n_albums": 5, "n_artists": 5,
        "sequences": flat,
        "offsets": np.concatenate([[0], np.cumsum([len(songs) for songs in sequences])]),
        "split": np.full(len(sequences), TRAIN) if split is None else np.array(split),
        "encoders_digest": "", "source": {},
    }  # fmt: skip
    return write_snapshot(folder, **{**columns, **changes})


def memory_of(snapshot, **settings):
    return build_memory(snapshot, MemoryConfig(**{"near_reach": 3, "withheld": 0.0, **settings}), d_model=4)


class Table:
    """One relation of a source: neighbour -> support by row and edition, and totals (E, rows)."""

    def __init__(self, relations, number):
        self.relations, self.first = relations, sum(relations.rows[:number])
        self.row_of_song = [row and row - self.first for row in relations.row_of_song[number].tolist()]
        self.totals = relations.totals[:, self.first : self.first + relations.rows[number]]

    def __call__(self, row, edition=0):
        """In the order of the table."""
        begin, end = self.relations.starts[self.first + row : self.first + row + 2].tolist()
        end = end if edition else min(end, begin + self.relations.most)
        counts = self.relations.counts[begin:end]
        if edition:
            counts = counts - self.relations.fold_counts[edition - 1, begin:end]
        listed = zip(self.relations.songs[begin:end].tolist(), counts.tolist(), strict=True)
        return {song: count for song, count in listed if count > NOTHING}


def relations_of(snapshot, **settings):
    """The counted relations of a memory by name; `song_plays` is under "plays"."""
    built = memory_of(snapshot, **settings)
    tables = [source.tables() for source in built.sources if isinstance(source, CountedRelations)]
    found = {name: Table(relations, number) for relations in tables for number, name in enumerate(relations.names)}
    return {**found, "plays": built.song_plays}


def neighbours_of(relation, row, edition=0):
    return relation(row, edition)


def unheard_of(table, row, edition=0):
    """The songs of a row that an edition lacks, in rising order; how many they are is known."""
    origin = Origin(torch.tensor([0]), torch.tensor([edition])) if edition else None
    songs, many = table.songs_of(torch.tensor([[row]]), origin)
    found = [song for song in songs.flatten().tolist() if song != PAD]
    assert many.tolist() == [[len(found)]]
    return sorted(found)


def songs_world(folder, sequences, **changes):
    """Twenty songs of four artists and seven albums, some of unknown ones; every sequence is a list."""
    songs = np.arange(N_SONGS)
    artist, album = np.where(songs < 5, songs % 3, 3 + songs % 4), np.where(songs < 4, songs % 3, 3 + songs % 7)
    columns = {"song_artist": artist, "song_album": album, "song_features": np.zeros((N_SONGS, 0)), "feature_names": []}
    counts = {"n_fitted_songs": N_SONGS, "n_fitted_albums": 10, "n_fitted_artists": 7, "n_albums": 10, "n_artists": 7}
    return snapshot_of(folder, sequences, **columns, **counts, **changes)


def random_sequences(seed):
    """Thirty of two to eight songs, of which two are in none."""
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_NUMBER, N_SONGS - 2, rng.integers(2, 9)).tolist() for _ in range(30)]


def withheld_by(fold, share=SHARE, folds=FOLDS):
    return set(np.flatnonzero(withheld_songs(N_SONGS, folds, share)[fold]).tolist())


def said_by(source, contexts, edition, song_plays):
    """What each relation of a source finds after each context in training from a list that is in no table: song -> amounts."""
    width = max(map(len, contexts)) + 1
    songs = torch.tensor([[PAD] * (width - len(context) - 1) + [*context, PAD] for context in contexts])
    M = len(contexts)
    origin = Origin(torch.full((M,), 999), torch.full((M,), edition)) if edition else None
    with torch.no_grad():
        evidence = source(Place(songs, torch.arange(M), torch.full((M,), width - 1)), origin, song_plays)
    of_relations = [
        [
            {song: amounts for song, *amounts in zip(*columns, strict=True) if song != PAD}
            for columns in zip(evidence.songs[:, part].tolist(), *(amount.tolist() for amount in of_part), strict=True)
        ]
        for part, of_part in evidence.relations()
    ]
    return dict(zip(source.names, of_relations, strict=True))
