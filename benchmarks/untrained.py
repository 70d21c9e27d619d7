"""A run without training, and the catalogue behind it in a database: as slow and as large as the real thing.

`untrained_run` writes a run whose model has the default shape, full tables and random weights; `copy_songs` puts the songs that
it is made of into the schema `music`, with titles, artists, albums and editions of one recording, none of which a model holds.
A million songs take half a minute, 5 GB of memory meanwhile and 2.2 GB of disk; a run is made once and kept.

Shape letters: n songs, V songs with the three specials, K neighbours of a song, Q pieces of lists.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from config import FIRST_NUMBER, PAD, PROJECT_ROOT, MemoryConfig, ModelConfig
from encoder_files import Encoders, save_encoders
from engine.checkpoint import save_catalogue, save_checkpoint
from engine.files import write_json
from engine.list_index import PIECE_SONGS
from engine.runs import mark_best, mark_finished
from engine.tables import unheard_groups
from memory import Memory
from model import BERT4Rec, Catalogue
from newcomers import Newcomers
from preprocessing_utils import FeatureEncoder, IdEncoder
from sources import CountedRelations, HeardBefore, ListIndex, NearestLists, Relations, Source
from storage.connections import Connection

Ids = Literal["text", "int"]

STAMP = "untrained.json"  # beside the run's files: what it was made of
SONGS_PER_ARTIST, SONGS_PER_ALBUM = 8, 8  # on average, and at most
MEAN_PLAYS = 20.0  # training lists that hold a song, on average
SHARE_UNHEARD = 0.1  # of the songs no list holds
SHARE_MISSING, SHARE_EXPLICIT, SHARE_EDITIONS = 0.03, 0.1, 0.05
ROWS_AT_ONCE = 50_000
# What decides on the bytes of a run: with any of it changed, a kept run is made again.
SOURCES = (
    *("model.py", "memory.py", "sources.py", "newcomers.py", "judgement.py", "sums.py", "preprocessing_utils.py"),
    *("encoder_files.py", "engine/checkpoint.py", "engine/description.py", "engine/files.py", "engine/runs.py"),
    *("engine/states.py", "benchmarks/untrained.py"),
)

COPY_ARTISTS = "COPY music.artist (artist_id, name) FROM STDIN"
COPY_ALBUMS = "COPY music.album (album_id, title, artist_id) FROM STDIN"
COPY_SONGS = """
COPY music.song (
    song_id, title, artist_id, artist_ids, album_id, isrc, tempo, energy, valence, danceability, loudness, key, mode, duration_ms,
    explicit
) FROM STDIN
"""


@dataclass(frozen=True, kw_only=True)
class Songs:
    """A made-up catalogue of n songs, the most played one first; song i has the id i + 1."""

    plays: np.ndarray  # (n,) float32 training lists that hold the song
    artists: np.ndarray  # (n,) int64 from 0
    albums: np.ndarray  # (n,) int64 from 0; an album is by one artist
    recordings: np.ndarray  # (n,) int64; one song in twenty is another edition of an earlier song of its artist
    features: pd.DataFrame  # n rows of raw features, some of them missing

    def __len__(self) -> int:
        return len(self.plays)


def random_songs(n_songs: int) -> Songs:
    """A catalogue of that size, the same for every call: few songs are played much, few artists have many songs."""
    rng = np.random.default_rng(n_songs)
    popularity = (10.0 + np.arange(n_songs)) ** -0.6
    n_artists = max(1, n_songs // SONGS_PER_ARTIST)
    artists = (n_artists * rng.random(n_songs) ** 2).astype(np.int64)
    plays = np.maximum(1, popularity * MEAN_PLAYS / popularity.mean()).round()
    plays[n_songs - int(SHARE_UNHEARD * n_songs) :] = 0
    return Songs(
        plays=plays.astype(np.float32),
        artists=artists,
        albums=_albums_of(artists),
        recordings=_recordings_of(artists, rng),
        features=random_features(n_songs, rng),
    )


def _albums_of(artists: np.ndarray) -> np.ndarray:
    """The songs of each artist, cut into albums of equal size."""
    order = np.argsort(artists, kind="stable")
    by_artist = artists[order]
    place = np.arange(len(artists)) - np.searchsorted(by_artist, by_artist)  # of a song among those of its artist
    albums = np.empty(len(artists), np.int64)
    albums[order] = np.cumsum(place % SONGS_PER_ALBUM == 0) - 1
    return albums


def _recordings_of(artists: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A number of its own for each song, but for those that are another edition of the one before by the same artist."""
    order = np.argsort(artists, kind="stable")
    recordings = np.arange(len(artists))
    is_edition = rng.random(len(artists)) < SHARE_EDITIONS
    is_edition[0] = False
    is_edition[1:] &= artists[order][1:] == artists[order][:-1]
    is_edition[1:] &= ~is_edition[:-1]
    places = np.flatnonzero(is_edition)
    recordings[order[places]] = order[places - 1]
    return recordings


def random_features(n_songs: int, rng: np.random.Generator) -> pd.DataFrame:
    """Raw features in their own units, NaN where a song has none: tempo in beats a minute, loudness in decibels."""
    frame = pd.DataFrame(
        {
            "tempo": rng.uniform(60, 200, n_songs).round(1),
            "energy": rng.random(n_songs).round(3),
            "valence": rng.random(n_songs).round(3),
            "danceability": rng.random(n_songs).round(3),
            "loudness": rng.uniform(-30, 0, n_songs).round(1),
            "key": rng.integers(0, 12, n_songs).astype(np.float64),
            "mode": rng.integers(0, 2, n_songs).astype(np.float64),
            "duration_ms": rng.integers(90_000, 480_000, n_songs).astype(np.float64),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < SHARE_MISSING)
    return frame.assign(explicit=(rng.random(n_songs) < SHARE_EXPLICIT).astype(np.float64))


# --- the run -----------------------------------------------------------------------------------------------------------------


def untrained_run(run: Path, n_songs: int, *, seed: int = 0, ids: Ids = "text") -> Path:
    """A run over `random_songs(n_songs)` with weights of that seed, made unless it stands there already.

    Songs are numbered as the playlists of the benchmarks name them: from 1, as text or as integers.
    """
    stamp = {"songs": n_songs, "seed": seed, "ids": ids, "sources": _digest_of_sources()}
    if _stamp_of(run) == stamp:
        return run
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    songs = random_songs(n_songs)
    encoders = fitted_encoders(songs, ids)
    write_json(run / "settings.json", {"seed": seed})
    made = untrained_model(encoders, songs, rng)
    save_catalogue(run, made)
    digest = save_encoders(encoders, run / "encoders")
    checkpoint = save_checkpoint(
        run, epoch=1, model=made, training_state={}, metrics={}, encoders_digest=digest, snapshot_digest="0" * 64
    )
    mark_best(run, checkpoint)
    mark_finished(run, epochs=1, seconds=0.0, reason="epochs")
    write_json(run / STAMP, stamp)
    return run


def _stamp_of(run: Path) -> dict[str, Any] | None:
    path = run / STAMP
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _digest_of_sources() -> str:
    contents = [hashlib.sha256((PROJECT_ROOT / name).read_bytes()).hexdigest() for name in SOURCES]
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()[:16]


def fitted_encoders(songs: Songs, ids: Ids = "text") -> Encoders:
    """Encoders that number songs, artists and albums in the order in which they stand in the catalogue.

    Those without a play are songs of the catalogue that no list holds.
    """
    numbers = np.arange(1, len(songs) + 1)
    song_ids = numbers if ids == "int" else numbers.astype(str).astype(object)
    return Encoders(
        songs=_in_order(IdEncoder(), song_ids[songs.plays > 0]).extend(song_ids),
        albums=_in_order(IdEncoder("album"), _names("album", songs.albums)),
        artists=_in_order(IdEncoder("artist"), _names("artist", songs.artists)),
        features=FeatureEncoder().fit(songs.features),
    )


def _names(kind: str, numbers: np.ndarray) -> np.ndarray:
    return np.array([f"{kind} {number}" for number in range(int(numbers.max()) + 1)], dtype=object)


def _in_order(encoder: IdEncoder, ids: np.ndarray) -> IdEncoder:
    """Fitted so that the first id gets the first number: ids are numbered by falling frequency."""
    return encoder.fit(ids, np.arange(len(ids), 0, -1))


def untrained_model(encoders: Encoders, songs: Songs, rng: np.random.Generator) -> BERT4Rec:
    """A network with random weights over a catalogue with random relations."""
    V, n_artists, n_albums = len(encoders.songs), len(encoders.artists), len(encoders.albums)
    features = np.zeros((V, len(encoders.features.feature_names)), np.float32)
    features[FIRST_NUMBER:] = encoders.features.encode(songs.features)
    artists, albums = _with_specials(songs.artists), _with_specials(songs.albums)
    catalogue = Catalogue(
        song_artist=torch.from_numpy(artists),
        song_album=torch.from_numpy(albums),
        song_features=torch.from_numpy(features),
        n_fitted_songs=encoders.songs.n_fitted,
        n_fitted_albums=n_albums,
        n_fitted_artists=n_artists,
    )
    plays = torch.from_numpy(np.concatenate([np.zeros(FIRST_NUMBER, np.float32), songs.plays]))  # (V,)
    config, memory = ModelConfig(), MemoryConfig()
    K = memory.neighbours
    numbers = np.arange(V)
    numbers[:FIRST_NUMBER] = PAD
    by_song = [
        random_relation(name, numbers, V, V, K, reach, rng)
        for name, reach in (("after", memory.after_reach), ("before", memory.before_reach), ("next", memory.next_reach))
    ]
    by_group = [
        random_relation("artist", artists, n_artists, V, K, memory.artist_reach, rng),
        random_relation("album", albums, n_albums, V, K, memory.album_reach, rng),
    ]
    same = [random_relation("same", numbers, V, V, 1, memory.same_reach, rng)]
    sources: list[Source] = [CountedRelations(Relations.joined(parts)) for parts in (by_song, by_group, same)]
    sources += [NearestLists(random_lists(V, rng), memory.lists, memory.lists_reach), HeardBefore(memory.again_reach)]
    of_groups = (catalogue.song_artist, catalogue.song_album)
    groups = [unheard_groups(of_song.numpy(), plays[None].numpy(), memory.neighbours) for of_song in of_groups]
    newcomers = Newcomers(groups, memory.unheard_reach)
    return BERT4Rec(config, catalogue, Memory(config.d_model, sources, plays[None], memory.judged, newcomers))


def _with_specials(numbers: np.ndarray) -> np.ndarray:
    """Numbers from 0 (n,) as the encoders give them, with the specials before them (V,)."""
    return np.concatenate([np.arange(FIRST_NUMBER), FIRST_NUMBER + numbers])


def random_relation(
    name: str, row_of_song: np.ndarray, rows: int, V: int, neighbours: int, reach: int, rng: np.random.Generator
) -> Relations:
    """Full rows, but for the specials', of random songs that are supported by a few lists each."""
    n = (rows - FIRST_NUMBER) * neighbours
    return Relations(
        names=(name,),
        reaches=(reach,),
        rows=(rows,),
        most=neighbours,
        row_of_song=torch.from_numpy(np.where(row_of_song >= FIRST_NUMBER, row_of_song, PAD).astype(np.int32))[None],
        starts=(torch.arange(rows + 1) - FIRST_NUMBER).clamp(min=0) * neighbours,
        songs=torch.from_numpy(rng.integers(FIRST_NUMBER, V, n, dtype=np.int32)),
        counts=torch.from_numpy(rng.integers(1, 9, n, dtype=np.uint8)).float(),
        totals=torch.full((1, rows), MEAN_PLAYS),
    )


def random_lists(V: int, rng: np.random.Generator) -> ListIndex:
    """As many full pieces as put each song into 20 of them, in which each song then stands."""
    Q = 1 + 20 * V // PIECE_SONGS
    lengths = torch.full((Q,), PIECE_SONGS)
    lengths[0] = 0
    return ListIndex(
        songs=torch.from_numpy(rng.integers(FIRST_NUMBER, V, (Q - 1) * PIECE_SONGS, dtype=np.int32)),
        starts=(torch.arange(Q) - 1).clamp(min=0) * PIECE_SONGS,
        lengths=lengths,
        list_of_piece=torch.arange(-1, Q - 1),
        pieces=torch.from_numpy(rng.integers(1, Q, V * 20, dtype=np.int32)),
        pieces_of_song=torch.arange(V + 1) * 20,
        rarity=torch.full((V,), float(np.log(Q / 20))),
    )


# --- the database ------------------------------------------------------------------------------------------------------------


def copy_songs(connection: Connection, songs: Songs) -> None:
    """Write a catalogue into the empty tables of the schema `music`, in the caller's transaction; a million songs take 30 s."""
    artists, albums = int(songs.artists.max()) + 1, int(songs.albums.max()) + 1
    artist_of_album = np.empty(albums, np.int64)
    artist_of_album[songs.albums] = songs.artists
    _copy(connection, COPY_ARTISTS, (f"artist {artist}\tThe Artist {artist}\n" for artist in range(artists)))
    album_rows = (f"album {album}\tAlbum {album}\tartist {artist}\n" for album, artist in enumerate(artist_of_album.tolist()))
    _copy(connection, COPY_ALBUMS, album_rows)
    for begin in range(0, len(songs), ROWS_AT_ONCE):
        _copy(connection, COPY_SONGS, song_rows(songs, begin, begin + ROWS_AT_ONCE))


def _copy(connection: Connection, statement: str, lines: Iterator[str]) -> None:
    with connection.cursor().copy(statement) as copy:
        copy.write("".join(lines))


def song_rows(songs: Songs, begin: int, end: int) -> Iterator[str]:
    """Lines for COPY_SONGS; two editions of a recording share their title and their ISRC."""
    whole = {"key", "mode", "duration_ms"}
    columns = [_as_texts(songs.features[name].iloc[begin:end], is_whole=name in whole) for name in songs.features]
    owners = zip(songs.artists[begin:end].tolist(), songs.albums[begin:end].tolist(), strict=True)
    recordings = songs.recordings[begin:end].tolist()
    numbers = range(begin + 1, begin + 1 + len(recordings))
    for number, (artist, album), recording, *features in zip(numbers, owners, recordings, *columns, strict=True):
        of_artist = f"artist {artist}\t{{artist {artist}}}\talbum {album}"
        yield "\t".join([str(number), f"Song {recording + 1}", of_artist, f"XXBEN{recording:07d}", *features]) + "\n"


def _as_texts(values: pd.Series, *, is_whole: bool) -> list[str]:
    return [r"\N" if value != value else f"{value:.0f}" if is_whole else f"{value:g}" for value in values.tolist()]
