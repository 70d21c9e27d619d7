"""What plain counting knows of a training part, as the tables and lists of the model's memory that the settings ask for.

Each relation lists, for a song (or an artist, or an album), the songs that stand in it, strongest first, with their support among
the training lists: `pairs` counts, `tables` keeps the strongest, `list_index` holds the lists themselves.

Shape letters: V songs of the catalogue, E editions.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from config import FIRST_NUMBER, MemoryConfig
from engine.list_index import index_lists
from engine.pairs import Pairs, in_order, next_in_order, together
from engine.tables import certain_relation, group_relation, known_numbers, song_relation, unheard_groups
from engine.training_songs import TrainingSongs
from memory import Memory
from newcomers import Newcomers
from snapshot import Snapshot
from sources import CountedRelations, HeardBefore, NearestLists, Relations, Source


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
        ("after", config.after_reach, lambda: in_order(training, config.window, 1)),
        ("before", config.before_reach, lambda: in_order(training, config.window, -1)),
        ("next", config.next_reach, lambda: next_in_order(training)),
        ("near", config.near_reach, lambda: together(training)),
    )
    by_song = [song_relation(name, pairs(), training, plays, reach, config.neighbours) for name, reach, pairs in wanted if reach]
    if by_song:
        yield Relations.joined(by_song)
    by_group = [
        group_relation(name, np.asarray(key), training, plays, reach, config.neighbours)
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
        certain_relation(name, target, reach)
        for name, reach, target in (
            ("same", config.same_reach, known_numbers(np.arange(snapshot.n_songs))),
            ("track", config.track_reach, following),
        )
        if reach and target is not None
    ]
    if certain:
        yield Relations.joined(certain)


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
