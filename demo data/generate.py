"""The made-up music catalogue with playlists, and the law that its playlists are drawn from.

    python "demo data/generate.py"                 # rewrites the files in this folder
    python "demo data/generate.py" --folder /tmp/x # writes them elsewhere

Rests on numpy and on genres.toml beside it.  The file has five parts: genres, catalogue (numbers only), law, playlists, and the
names and files that people see.

The law is a conditional distribution over the next song, given nothing but the songs before it.  Every playlist is sampled from
it, so nothing can rank the next song better than the law itself does: it is the oracle that a model is measured against.

    law = load_law(folder)                         # rebuilt from the seed, checked against songs.csv.gz
    law.score([["s00017", "s04711"], ["s00023"]])  # (2, 11540) probabilities, columns in the order of law.song_ids
"""

import argparse
import csv
import gzip
import io
import logging
import random
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Row = Sequence[object]

HERE = Path(__file__).resolve().parent
SEED = 4517

N_PLAYLISTS = 3_000
N_SONGS = 11_540
N_ARTISTS = 2_343
N_ALBUMS = 3_916

# Compilations repeat recordings: an artist's best, or one sub-genre's best by various artists.
N_BEST_OF, SONGS_PER_BEST_OF = 80, 4
N_SAMPLERS, SONGS_PER_SAMPLER = 20, 5
N_DUPLICATES = N_BEST_OF * SONGS_PER_BEST_OF + N_SAMPLERS * SONGS_PER_SAMPLER
N_SEGUES = 200
TRACKS_PER_DISC = 14

MEDIAN_LENGTH, SHORTEST, LONGEST = 15, 5, 168
LENGTH_SPREAD = 0.71  # of the logarithm of a playlist's length
N_VERSIONS = N_PLAYLISTS // 20
FIRST_DAY = datetime(2022, 1, 1, tzinfo=UTC)
DAYS = 3 * 365

NO_SONG = -1

# The law's weights before those of empty parts (no next track, no successor, no unused song of the artist) are left out.
ALBUM_WEIGHT = 0.18  # the next track of the last song's album
ALBUM_RUN_WEIGHT = 1.10  # ... when the last two songs were already a run in track order
SEGUE_WEIGHT = 6.0  # the fixed successor of the last song
ARTIST_WEIGHT = 0.42
SUBGENRE_WEIGHT = 0.26
NEIGHBOUR_WEIGHT = 0.11
ANYWHERE_WEIGHT = 0.06
ONWARD_SHARE = 0.85  # of a drift that goes on in the direction of the last step; without a step both sides have half
KERNEL_WIDTHS = {"tempo": 16.0, "energy": 0.13, "valence": 0.15}  # how far a like-sounding song may be away

ARTIST_ZIPF = 0.55  # an artist's popularity falls with its rank to this power
SONG_ZIPF = 1.15  # a song's share in its artist's popularity
DUPLICATE_POPULARITY = 0.2  # of the first recording's

# ---------------------------------------------------------------------------------------------------------------- genres

UNIT_FEATURES = ("danceability", "energy", "valence", "acousticness", "instrumentalness", "speechiness", "liveness")


@dataclass(frozen=True, kw_only=True)
class Genres:
    """The ring of sub-genres and the tables of genres.toml.  S sub-genres, G genres."""

    subgenres: list[str]
    """Names in the order of the ring (S)."""
    genre: Ints
    """(S,) the number of each sub-genre's genre."""
    sound: dict[str, Floats]
    """Feature name -> (S,) its middle: bpm, dB, seconds, or 0 to 1."""
    tables: list[dict[str, Any]]
    """One table per genre as it stands in the file (G)."""
    shared: dict[str, list[str]]
    """Word lists of all genres."""
    playlists: dict[str, Any]
    """Patterns and words of playlist names."""
    refused: frozenset[str]
    """Well-known names that must not come out."""


def read_genres(path: Path = HERE / "genres.toml") -> Genres:
    """Read the genres' sound and words."""
    text = tomllib.loads(path.read_text(encoding="utf-8"))
    rows = [(number, row) for number, table in enumerate(text["genres"]) for row in table["subgenres"]]
    sound = {name: np.array([row[column] for _, row in rows], float) for column, name in enumerate(text["columns"]) if column > 0}
    return Genres(
        subgenres=[row[0] for _, row in rows],
        genre=np.array([number for number, _ in rows]),
        sound=sound,
        tables=text["genres"],
        shared=_word_lists(text["shared"]),
        playlists=text["playlists"],
        refused=frozenset(_words(text["refused"])),
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.replace("\n", " ").split(",") if word.strip()]


def _word_lists(table: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: _words(text) for name, text in table.items() if isinstance(text, str)}


# ------------------------------------------------------------------------------------------------------------- catalogue


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Songs, albums and artists as numbers from 0: all that the law knows.  V songs, B albums, A artists."""

    artist: Ints
    """(V,)"""
    album: Ints
    """(V,)"""
    place: Ints
    """(V,) from 0 in the album's track order."""
    subgenre: Ints
    """(V,)"""
    popularity: Floats
    """(V,) sums to 1."""
    sound: dict[str, Floats]
    """Feature name -> (V,)."""
    original: Ints
    """(V,) the first recording of a duplicate, else NO_SONG."""
    successor: Ints
    """(V,) the song of a segue, else NO_SONG."""
    artist_subgenre: Ints
    """(A,)"""
    album_artist: Ints
    """(B,) -1 where an album is by various artists."""


@dataclass(frozen=True, kw_only=True)
class _Tracks:
    """Songs on their albums, before sound and popularity."""

    artist: Ints
    album: Ints
    place: Ints
    original: Ints
    album_artist: Ints


def make_catalogue(genres: Genres, seed: int = SEED) -> Catalogue:
    """Draw the catalogue: artists in sub-genres, their albums, popularity, compilations, sound and segues."""
    rng = np.random.default_rng([seed, 1])
    n_subgenres = len(genres.subgenres)
    artist_subgenre = _draw(rng, (4.0 + rng.permutation(n_subgenres)) ** -0.5, N_ARTISTS)  # some sub-genres are larger
    fame = (1.0 + rng.permutation(N_ARTISTS)) ** -ARTIST_ZIPF
    album_artist = np.concatenate([np.arange(N_ARTISTS), _draw(rng, fame, N_ALBUMS - N_BEST_OF - N_SAMPLERS - N_ARTISTS)])
    tracks = _album_tracks(rng, album_artist)
    popularity = _first_popularity(rng, tracks.artist, fame)
    tracks = _add_compilations(rng, tracks, popularity, artist_subgenre)
    first = np.where(tracks.original == NO_SONG, np.arange(N_SONGS), tracks.original)
    popularity = np.where(tracks.original == NO_SONG, 1.0, DUPLICATE_POPULARITY) * popularity[first]
    subgenre = artist_subgenre[tracks.artist]
    sound = _sound(rng, genres, tracks.artist, subgenre, first)
    order = rng.permutation(N_SONGS)  # so that a song's number tells nothing
    return Catalogue(
        artist=tracks.artist[order],
        album=tracks.album[order],
        place=tracks.place[order],
        subgenre=subgenre[order],
        popularity=popularity[order] / popularity.sum(),
        sound={name: values[order] for name, values in sound.items()},
        original=_renumber(tracks.original, order),
        successor=_segues(rng, popularity[order], subgenre[order], tracks.artist[order]),
        artist_subgenre=artist_subgenre,
        album_artist=tracks.album_artist,
    )


def _draw(rng: np.random.Generator, weights: Floats, count: int) -> Ints:
    """`count` numbers drawn with replacement, each with its share of `weights`."""
    edges = np.cumsum(weights)
    numbers: Ints = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
    return numbers


def _album_tracks(rng: np.random.Generator, album_artist: Ints) -> _Tracks:
    """Fill the albums so that N_SONGS - N_DUPLICATES first recordings come out: singles, short and long ones."""
    n_albums = len(album_artist)
    kind = np.array([0.02, 3.0, 9.0])[_draw(rng, np.array([0.60, 0.15, 0.25]), n_albums)]
    room = kind * np.exp(0.35 * rng.standard_normal(n_albums))
    # Handing out the songs beyond one per album by the remainders of running sums keeps the total exact.
    edges = np.cumsum(room) / room.sum() * (N_SONGS - N_DUPLICATES - n_albums)
    size = 1 + np.diff(np.floor(edges + 1e-6), prepend=0).astype(np.int64)
    album = np.repeat(np.arange(n_albums), size)
    place = np.concatenate([np.arange(n) for n in size])
    return _Tracks(
        artist=album_artist[album], album=album, place=place, original=np.full(len(album), NO_SONG), album_artist=album_artist
    )


def _first_popularity(rng: np.random.Generator, artist: Ints, fame: Floats) -> Floats:
    """An artist's fame, shared among the artist's songs by Zipf's law over a random order."""
    share = np.empty(len(artist))
    for songs in _groups(artist, N_ARTISTS):
        zipf = (1.0 + rng.permutation(len(songs))) ** -SONG_ZIPF
        share[songs] = zipf / zipf.sum()
    return fame[artist] * share


def _add_compilations(rng: np.random.Generator, tracks: _Tracks, popularity: Floats, artist_subgenre: Ints) -> _Tracks:
    """Append best-of albums and samplers, whose songs are duplicates of first recordings."""
    songs_of = _groups(tracks.artist, N_ARTISTS)
    large = np.array([artist for artist, songs in enumerate(songs_of) if len(songs) > SONGS_PER_BEST_OF + 1])
    chosen = [
        (int(artist), _most_popular(songs_of[artist], popularity, SONGS_PER_BEST_OF)) for artist in _some(rng, large, N_BEST_OF)
    ]
    for subgenre in _some(rng, np.unique(artist_subgenre), N_SAMPLERS):
        hits = np.array(
            [_most_popular(songs_of[artist], popularity, 1)[0] for artist in np.flatnonzero(artist_subgenre == subgenre)]
        )
        chosen.append((-1, _most_popular(hits, popularity, SONGS_PER_SAMPLER)))
    original = np.concatenate([rng.permutation(songs) for _, songs in chosen])
    sizes = [len(songs) for _, songs in chosen]
    return _Tracks(
        artist=np.concatenate([tracks.artist, tracks.artist[original]]),
        album=np.concatenate([tracks.album, len(tracks.album_artist) + np.repeat(np.arange(len(sizes)), sizes)]),
        place=np.concatenate([tracks.place, *(np.arange(size) for size in sizes)]),
        original=np.concatenate([tracks.original, original]),
        album_artist=np.concatenate([tracks.album_artist, np.array([artist for artist, _ in chosen])]),
    )


def _groups(values: Ints, count: int) -> list[Ints]:
    """For each number below `count` the places at which it stands in `values`, rising."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, count)))


def _some(rng: np.random.Generator, values: Ints, count: int) -> Ints:
    return rng.permutation(values)[:count]


def _most_popular(songs: Ints, popularity: Floats, count: int) -> Ints:
    return songs[np.argsort(-popularity[songs], kind="stable")[:count]]


def _sound(rng: np.random.Generator, genres: Genres, artist: Ints, subgenre: Ints, first: Ints) -> dict[str, Floats]:
    """Features: the sub-genre's middle, an offset of the artist, noise of the song.  Duplicates sound nearly like the first."""
    middles = {**genres.sound, "liveness": np.full(len(genres.subgenres), 0.15)}
    sound = {}
    for name, middle in middles.items():
        scale = _logit(middle) if name in UNIT_FEATURES else np.log(-middle if name == "loudness" else middle)
        of_artist, of_song = (0.35, 0.45) if name in UNIT_FEATURES else (0.07, 0.10)
        z = scale[subgenre] + of_artist * rng.standard_normal(N_ARTISTS)[artist] + of_song * rng.standard_normal(len(artist))
        z = z[first] + np.where(first == np.arange(len(first)), 0.0, 0.02) * rng.standard_normal(len(first))
        sound[name] = 1 / (1 + np.exp(-z)) if name in UNIT_FEATURES else np.exp(z) * (-1 if name == "loudness" else 1)
    return sound


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, 0.004, 0.996)
    return np.log(inside / (1 - inside))


def _renumber(songs: Ints, order: Ints) -> Ints:
    """References to songs, NO_SONG included, after song order[i] has become song i."""
    new = np.append(np.argsort(order), NO_SONG)  # NO_SONG is -1: the last place
    return new[songs[order]]


def _segues(rng: np.random.Generator, popularity: Floats, subgenre: Ints, artist: Ints) -> Ints:
    """Give N_SEGUES songs, rather popular ones, a fixed successor: another artist's song of the same sub-genre."""
    successor = np.full(len(artist), NO_SONG)
    # Exponential keys over weights: a weighted draw without replacement.
    for song in np.argsort(-np.log(rng.random(len(artist))) / popularity**0.6, kind="stable")[:N_SEGUES]:
        others = np.flatnonzero((subgenre == subgenre[song]) & (artist != artist[song]))
        successor[song] = others[_draw(rng, popularity[others] ** 0.5, 1)[0]]
    return successor


# ------------------------------------------------------------------------------------------------------------------- law


class Law:
    """The distribution that playlists are sampled from: next song given the songs before it, and nothing else.

    A mixture whose parts look at the last song, at the last two, and at what is used already: no song comes twice.

    1. the next track of the last song's album, far stronger when the last two songs were already a run in track order;
    2. the last song's fixed successor;
    3. another song of the same artist, by popularity;
    4. a song of the same sub-genre, by popularity times closeness (a Gaussian in tempo, energy and valence);
    5. the same in a neighbouring sub-genre; a step along the ring is followed by steps in the same direction;
    6. any song, by popularity.

    A part without an unused song drops out and the others share its weight.  The first song is drawn by popularity.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.song_ids = [song_id(number) for number in range(len(catalogue.artist))]
        """External ids in the order of the catalogue: column i of a score belongs to song_ids[i]."""
        self._number_of = {name: number for number, name in enumerate(self.song_ids)}
        self._artist = catalogue.artist
        self.subgenre = catalogue.subgenre
        """(V,) numbers along the ring."""
        self._popularity = catalogue.popularity
        self._songs_of_artist = _groups(catalogue.artist, int(catalogue.artist.max()) + 1)
        self._songs_of_subgenre = _groups(catalogue.subgenre, int(catalogue.subgenre.max()) + 1)
        self._successor = catalogue.successor
        self._next_track = _next_tracks(catalogue.album, catalogue.place)
        self._sound = np.stack([catalogue.sound[name] / width for name, width in KERNEL_WIDTHS.items()], axis=1)  # (V, 3)

    def next_song_probabilities(self, prefix: Ints) -> Floats:
        """The distribution of the next song, (V,), after a prefix of song numbers from 0, oldest first.

        The songs of the prefix have probability 0.  Raises ValueError when they are the whole catalogue.
        """
        unused = self._popularity.copy()
        unused[prefix] = 0.0
        total = unused.sum()
        if total == 0:
            raise ValueError(f"all {len(unused)} songs are used: nothing can follow")
        probabilities: Floats = unused / total
        if len(prefix) > 0:
            probabilities *= ANYWHERE_WEIGHT
            for weight, songs, masses in self._parts(prefix, unused):
                mass = masses.sum()
                if mass > 0:
                    probabilities[songs] += weight / mass * masses
        probabilities /= probabilities.sum()
        return probabilities

    def score(self, prefixes: Sequence[Sequence[str] | Ints]) -> Floats:
        """Probabilities of the next song, (B, V), after each of B prefixes of external ids or of numbers from 0.

        Raises ValueError with the id that the catalogue does not have.
        """
        scores = np.empty((len(prefixes), len(self.song_ids)))
        for row, prefix in enumerate(prefixes):
            scores[row] = self.next_song_probabilities(self.numbers(prefix))
        return scores

    def numbers(self, prefix: Sequence[str] | Ints) -> Ints:
        """Numbers from 0 of external ids; numbers are taken as they are."""
        try:
            return np.array([self._number_of[song] if isinstance(song, str) else song for song in prefix], np.int64)
        except KeyError as exc:
            raise ValueError(
                f"song {exc.args[0]!r} is not in the demo catalogue ({self.song_ids[0]} to {self.song_ids[-1]})"
            ) from exc

    def sample(self, rng: np.random.Generator, length: int, prefix: Sequence[int] = ()) -> Ints:
        """A playlist of `length` songs that begins with `prefix`, the rest drawn from the law."""
        songs = np.empty(length, np.int64)
        songs[: len(prefix)] = prefix
        for place in range(len(prefix), length):
            songs[place] = _draw(rng, self.next_song_probabilities(songs[:place]), 1)[0]
        return songs

    def _parts(self, prefix: Ints, unused: Floats) -> Iterable[tuple[float, Ints, Floats]]:
        """(weight, songs, unnormalised masses of these songs) of parts 1 to 5; `unused` is popularity without the prefix."""
        last = int(prefix[-1])
        before = int(prefix[-2]) if len(prefix) > 1 else NO_SONG
        in_run = before != NO_SONG and self._next_track[before] == last
        yield self._single(ALBUM_RUN_WEIGHT if in_run else ALBUM_WEIGHT, self._next_track[last], unused)
        yield self._single(SEGUE_WEIGHT, self._successor[last], unused)
        same_artist = self._songs_of_artist[self._artist[last]]
        yield ARTIST_WEIGHT, same_artist, unused[same_artist]
        yield self._alike(SUBGENRE_WEIGHT, int(self.subgenre[last]), last, unused)
        for step, share in self._drift(before, last):
            neighbour = (int(self.subgenre[last]) + step) % len(self._songs_of_subgenre)
            yield self._alike(NEIGHBOUR_WEIGHT * share, neighbour, last, unused)

    def _single(self, weight: float, song: int, unused: Floats) -> tuple[float, Ints, Floats]:
        songs = np.array([song] if song != NO_SONG else [], np.int64)
        return weight, songs, unused[songs]

    def _alike(self, weight: float, subgenre: int, last: int, unused: Floats) -> tuple[float, Ints, Floats]:
        songs = self._songs_of_subgenre[subgenre]
        squared_distance = ((self._sound[songs] - self._sound[last]) ** 2).sum(axis=1)
        return weight, songs, unused[songs] * np.exp(-squared_distance / 2)

    def _drift(self, before: int, last: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """The shares of the two neighbours, as (step along the ring, share)."""
        n = len(self._songs_of_subgenre)
        step = (self.subgenre[last] - self.subgenre[before]) % n if before != NO_SONG else 0
        onward = {1: ONWARD_SHARE, n - 1: 1 - ONWARD_SHARE}.get(int(step), 0.5)
        return (1, onward), (-1, 1 - onward)


def _next_tracks(album: Ints, place: Ints) -> Ints:
    """(V,) the following song on the same album, NO_SONG after the last."""
    order = np.lexsort((place, album))
    follows = album[order[1:]] == album[order[:-1]]
    following = np.full(len(album), NO_SONG)
    following[order[:-1][follows]] = order[1:][follows]
    return following


def load_law(folder: Path = HERE) -> Law:
    """Rebuild the law from the seed, and check that the catalogue in `folder` is the one that it speaks of.

    Raises ValueError when songs.csv.gz there has other songs, artists or albums.
    """
    catalogue = make_catalogue(read_genres())
    expected = [
        (song_id(song), artist_id(artist), album_id(album))
        for song, (artist, album) in enumerate(zip(catalogue.artist, catalogue.album, strict=True))
    ]
    path = Path(folder) / "songs.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        found = [(row["song_id"], row["artist_id"], row["album_id"]) for row in csv.DictReader(file)]
    if found != expected:
        raise ValueError(
            f"{path} is not the catalogue of this generator's law: write it anew with python {Path(__file__).name!r}"
        )
    return Law(catalogue)


# ------------------------------------------------------------------------------------------------------------- playlists


@dataclass(frozen=True, kw_only=True)
class Playlist:
    """One dated version of a list."""

    base: int
    """The list's number; its versions share it."""
    created_at: datetime
    songs: Ints


def make_playlists(law: Law, seed: int = SEED) -> list[Playlist]:
    """Sample N_PLAYLISTS playlists in the order of their time.

    N_VERSIONS of them are later versions: they keep the first songs of an earlier playlist and draw the rest anew, so that each
    of them obeys the law at every place as well.
    """
    rng = np.random.default_rng([seed, 2])
    lengths = rng.permutation(_lengths(N_PLAYLISTS))
    n_bases = N_PLAYLISTS - N_VERSIONS
    days = np.sort(rng.random(n_bases)) * DAYS
    bases = [
        Playlist(base=number, created_at=_moment(days[number]), songs=law.sample(rng, int(lengths[number])))
        for number in range(n_bases)
    ]
    # Only lists of the first three fifths of the time have a second version, which follows within five months: a split by time
    # holds out the latest lists, and finds none of them begun in its training part.
    early = np.flatnonzero((days < 0.6 * DAYS) & (lengths[:n_bases] >= 2 * SHORTEST))
    versions = [
        _version(law, rng, bases[base], int(length))
        for base, length in zip(_some(rng, early, N_VERSIONS), lengths[n_bases:], strict=True)
    ]
    return sorted(bases + versions, key=lambda playlist: (playlist.created_at, playlist.base))


def _version(law: Law, rng: np.random.Generator, base: Playlist, length: int) -> Playlist:
    kept = base.songs[: min(len(base.songs), length) // 2]
    later = base.created_at + timedelta(minutes=int((20 + 130 * rng.random()) * 24 * 60))
    return Playlist(base=base.base, created_at=later, songs=law.sample(rng, length, kept.tolist()))


def _lengths(count: int) -> Ints:
    """The middles of `count` equal shares of a log-normal distribution, cut at the shortest and the longest."""
    normal = NormalDist()
    z = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    lengths: Ints = np.clip(np.rint(MEDIAN_LENGTH * np.exp(LENGTH_SPREAD * z)), SHORTEST, LONGEST).astype(np.int64)
    return lengths


def _moment(day: float) -> datetime:
    return FIRST_DAY + timedelta(minutes=int(day * 24 * 60))


# ----------------------------------------------------------------------------------------------------------------- names


class Namer:
    """Names out of patterns such as "{adjective} {noun}", each given out once within what it must differ from."""

    def __init__(self, rng: random.Random, refused: frozenset[str]) -> None:
        self._rng = rng
        self._refused = refused

    def new(self, patterns: Sequence[str], words: Mapping[str, list[str]], taken: set[str]) -> str:
        """A name that is not in `taken`, which it joins."""
        while True:
            name = self.fill(self._rng.choice(patterns), words)
            if name not in taken and name not in self._refused:
                taken.add(name)
                return name

    def fill(self, pattern: str, words: Mapping[str, list[str]]) -> str:
        """A pattern with words in its slots, no word twice."""
        used: set[str] = set()

        def word(match: re.Match[str]) -> str:
            choice = self._rng.choice([candidate for candidate in words[match[1]] if candidate not in used])
            used.add(choice)
            return choice

        name = re.sub(r"\b([Aa]) (?=[AEIOUaeiou])", r"\1n ", re.sub(r"\{(\w+)\}", word, pattern))
        return name[0].upper() + name[1:]


@dataclass(frozen=True, kw_only=True)
class Names:
    """What people read: names of artists (A), albums (B) and songs (V), and the artists of each song, the main one first."""

    artists: list[str]
    albums: list[str]
    songs: list[str]
    credits: list[list[int]]


BEST_OF = ("The Best of {}", "{}: Anthology", "The Essential {}", "{}: Collected Recordings", "{}: The Singles")
SAMPLERS = ("{} Nights", "This Is {}", "{} Classics, Vol. 2", "The {} Sampler", "{} for Beginners")
FEATURED_SHARE = 0.06
SHARED_TITLES = 0.15  # of the titles are drawn without a look at other artists'


def make_names(catalogue: Catalogue, genres: Genres, seed: int = SEED) -> Names:
    """Name every artist, song and album in the words of its genre."""
    rng = random.Random(seed)
    namer = Namer(rng, genres.refused)
    words = [{**genres.shared, **_word_lists(table["words"])} for table in genres.tables]
    genre_of_artist = genres.genre[catalogue.artist_subgenre]
    taken: set[str] = set()
    artists = [namer.new(genres.tables[genre]["artists"], words[genre], taken) for genre in genre_of_artist]
    songs = _name_songs(catalogue, genres, namer, words, rng)
    albums = _name_albums(catalogue, genres, namer, words, artists, songs)
    credits = [_credits(rng, artist, genre_of_artist) for artist in catalogue.artist.tolist()]
    songs = [
        f"{title} (feat. {artists[credit[1]]})" if len(credit) > 1 and rng.random() < 0.6 else title
        for title, credit in zip(songs, credits, strict=True)
    ]
    for song in np.flatnonzero(catalogue.original != NO_SONG):
        songs[song], credits[song] = songs[catalogue.original[song]], credits[catalogue.original[song]]
    return Names(artists=artists, albums=albums, songs=songs, credits=credits)


def _name_songs(
    catalogue: Catalogue, genres: Genres, namer: Namer, words: list[dict[str, list[str]]], rng: random.Random
) -> list[str]:
    """An artist has each title once; most titles are the only ones of their kind, some are shared between artists."""
    of_artist: list[set[str]] = [set() for _ in catalogue.artist_subgenre]
    of_all: set[str] = set()
    names = []
    for artist, genre in zip(catalogue.artist.tolist(), genres.genre[catalogue.subgenre].tolist(), strict=True):
        taken = of_artist[artist] if rng.random() < SHARED_TITLES else of_all
        names.append(namer.new(genres.tables[genre]["titles"], words[genre], taken))
        of_artist[artist].add(names[-1])
        of_all.add(names[-1])
    return names


def _name_albums(
    catalogue: Catalogue, genres: Genres, namer: Namer, words: list[dict[str, list[str]]], artists: list[str], songs: list[str]
) -> list[str]:
    """A single is called after its song, as is one album in four, a compilation after its artist or sub-genre."""
    taken: list[set[str]] = [set() for _ in artists]
    names = []
    for album, tracks in enumerate(_groups(catalogue.album, N_ALBUMS)):
        artist = int(catalogue.album_artist[album])
        subgenre = int(catalogue.subgenre[tracks[0]])
        genre = int(genres.genre[subgenre])
        if artist < 0:
            names.append(SAMPLERS[album % len(SAMPLERS)].format(genres.subgenres[subgenre].title()))
        elif album >= N_ALBUMS - N_BEST_OF - N_SAMPLERS:
            names.append(BEST_OF[album % len(BEST_OF)].format(artists[artist]))
        elif len(tracks) == 1 or album % 4 == 0:
            names.append(songs[tracks[0]])
        else:
            names.append(namer.new(genres.tables[genre]["albums"], words[genre], taken[artist]))
    return names


def _credits(rng: random.Random, artist: int, genre_of_artist: Ints) -> list[int]:
    """The song's artist, and now and then one or two guests of the same genre."""
    if rng.random() >= FEATURED_SHARE:
        return [artist]
    colleagues = np.flatnonzero(genre_of_artist == genre_of_artist[artist])
    guests = rng.sample(colleagues[colleagues != artist].tolist(), 1 if rng.random() < 0.8 else 2)
    return [artist, *guests]


def name_playlists(playlists: Sequence[Playlist], law: Law, genres: Genres, seed: int = SEED) -> list[str]:
    """Names of the lists; the versions of a list share it."""
    rng = random.Random(seed + 1)
    namer = Namer(rng, genres.refused)
    words = {**genres.shared, **_word_lists(genres.playlists)}
    names: dict[int, str] = {}
    for playlist in playlists:
        genre = genres.tables[genres.genre[law.subgenre[playlist.songs[0]]]]["name"]
        if playlist.base not in names:
            names[playlist.base] = namer.fill(rng.choice(genres.playlists["names"]), {**words, "genre": [genre]})
    return [names[playlist.base] for playlist in playlists]


# ----------------------------------------------------------------------------------------------------------------- files

SOUND_COLUMNS = (
    "danceability",
    "energy",
    "key",
    "loudness",
    "mode",
    "speechiness",
    "acousticness",
    "instrumentalness",
    "liveness",
    "valence",
    "tempo",
    "time_signature",
)
SONG_COLUMNS = (
    "song_id",
    "song_name",
    "artist_id",
    "artist_name",
    "album_id",
    "album_name",
    "all_artist_ids",
    "duration_ms",
    "explicit",
    "disc_number",
    "track_number",
    "isrc",
    *SOUND_COLUMNS,
    "release_date",
)
DECIMALS = {"tempo": 1, "loudness": 2}  # all other features: 3

# Shares of missing values.  Some songs have no sound at all, as when a source of features does not know a recording.
WITHOUT_SOUND = 0.05
MISSING = {
    "explicit": 0.08,
    "isrc": 0.06,
    "release_date": 0.05,
    "time_signature": 0.10,
    "duration_ms": 0.01,
    "track_number": 0.02,
}
MISSING_FEATURE = 0.02  # each other feature
UNKNOWN_KEY = 0.03  # key is -1


def song_id(number: int) -> str:
    """The external id of a song number from 0."""
    return f"s{number + 1:05d}"


def artist_id(number: int) -> str:
    """The external id of an artist number from 0."""
    return f"a{number + 1:04d}"


def album_id(number: int) -> str:
    """The external id of an album number from 0."""
    return f"b{number + 1:04d}"


def song_columns(catalogue: Catalogue, names: Names, genres: Genres, seed: int = SEED) -> dict[str, list[str]]:
    """The columns of songs.csv.gz as texts, an empty text for what is not known."""
    rng = np.random.default_rng([seed, 3])
    columns = {
        "song_id": [song_id(song) for song in range(N_SONGS)],
        "song_name": names.songs,
        "artist_id": [artist_id(artist) for artist in catalogue.artist],
        "artist_name": [names.artists[artist] for artist in catalogue.artist],
        "album_id": [album_id(album) for album in catalogue.album],
        "album_name": [names.albums[album] for album in catalogue.album],
        "all_artist_ids": [";".join(artist_id(artist) for artist in credit) for credit in names.credits],
        "duration_ms": _texts(np.rint(catalogue.sound["length"] * 1000).astype(int)),
        "disc_number": _texts(catalogue.place // TRACKS_PER_DISC + 1),
        "track_number": _texts(catalogue.place % TRACKS_PER_DISC + 1),
        **_drawn_columns(rng, catalogue, genres),
    }
    for name in (*UNIT_FEATURES, *DECIMALS):
        columns[name] = [f"{value:.{DECIMALS.get(name, 3)}f}" for value in catalogue.sound[name]]
    return _with_gaps(rng, columns)


def _texts(numbers: Ints) -> list[str]:
    return [str(number) for number in numbers.tolist()]


def _drawn_columns(rng: np.random.Generator, catalogue: Catalogue, genres: Genres) -> dict[str, list[str]]:
    """What only the files know: explicit, key, mode, meter, dates and ISRC.  A duplicate has those of its first recording."""
    first = np.where(catalogue.original == NO_SONG, np.arange(N_SONGS), catalogue.original)
    share = {
        name: np.array([table[name] for table in genres.tables])[genres.genre[catalogue.subgenre]]
        for name in ("explicit", "minor", "other_meter")
    }
    chance = {name: (rng.random(N_SONGS) < values)[first] for name, values in share.items()}
    other_meter = np.array([3, 3, 3, 5, 1])[rng.integers(0, 5, N_SONGS)][first]
    days, years = _release_days(rng, catalogue)
    key = rng.integers(0, 12, N_SONGS)[first]
    own_code = (catalogue.original == NO_SONG) | (rng.random(N_SONGS) < 0.5)
    code = np.where(own_code, np.arange(N_SONGS), first)
    return {
        "explicit": ["true" if explicit else "false" for explicit in chance["explicit"]],
        "key": _texts(np.where(rng.random(N_SONGS) < UNKNOWN_KEY, -1, key)),
        "mode": _texts(np.where(chance["minor"], 0, 1)),
        "time_signature": _texts(np.where(chance["other_meter"], other_meter, 4)),
        "release_date": days,
        # ZZ is no country, so that no code is a real recording's.
        "isrc": [f"ZZDEM{years[song] % 100:02d}{song + 1:05d}" for song in code],
    }


def _release_days(rng: np.random.Generator, catalogue: Catalogue) -> tuple[list[str], Ints]:
    """Each song's release date, and its year: an artist's albums come out within 25 years of the first, compilations later."""
    start = 1962 + np.floor(58 * rng.random(N_ARTISTS) ** 0.6).astype(np.int64)
    n_first = N_ALBUMS - N_BEST_OF - N_SAMPLERS
    year = np.minimum(2023, start[catalogue.album_artist] + np.floor(25 * rng.random(N_ALBUMS) ** 1.5).astype(np.int64))
    year[n_first:] = 2005 + rng.integers(0, 19, N_ALBUMS - n_first)
    day = rng.integers(0, 365, N_ALBUMS)
    dates = [(date(int(y), 1, 1) + timedelta(days=int(d))).isoformat() for y, d in zip(year, day, strict=True)]
    return [dates[album] for album in catalogue.album], year[catalogue.album]


def _with_gaps(rng: np.random.Generator, columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The columns with values taken out."""
    without_sound = rng.random(N_SONGS) < WITHOUT_SOUND
    gaps = {name: rng.random(N_SONGS) < MISSING.get(name, MISSING_FEATURE) for name in sorted({*SOUND_COLUMNS, *MISSING})}
    gaps |= {name: gaps[name] | without_sound for name in SOUND_COLUMNS}
    gaps["disc_number"] = gaps["track_number"]
    return {
        name: ["" if gone else text for text, gone in zip(texts, gaps[name], strict=True)] if name in gaps else list(texts)
        for name, texts in columns.items()
    }


def write_files(folder: Path) -> None:
    """Write the whole demo data into `folder`, each file beside its place first and then renamed."""
    genres = read_genres()
    catalogue = make_catalogue(genres)
    names = make_names(catalogue, genres)
    columns = song_columns(catalogue, names, genres)
    _write_csv(folder / "songs.csv.gz", SONG_COLUMNS, zip(*(columns[name] for name in SONG_COLUMNS), strict=True))
    law = Law(catalogue)
    playlists = make_playlists(law)
    titles = name_playlists(playlists, law, genres)
    ids = [f"p{number + 1:04d}" for number in range(len(playlists))]
    _write_csv(
        folder / "playlists.csv.gz",
        ("playlist_id", "base_id", "name", "snapshot_time"),
        (
            (name, f"l{playlist.base + 1:04d}", title, playlist.created_at.isoformat())
            for name, title, playlist in zip(ids, titles, playlists, strict=True)
        ),
    )
    _write_csv(
        folder / "sequences.csv.gz",
        ("playlist_id", "pos", "song_id"),
        (
            (name, place, law.song_ids[song])
            for name, playlist in zip(ids, playlists, strict=True)
            for place, song in enumerate(playlist.songs)
        ),
    )
    to_continue = law.sample(np.random.default_rng([SEED, 4]), 8)
    _write_csv(
        folder / "sequence.csv",
        ("song_id", "song_name", "artist_name"),
        ((law.song_ids[song], names.songs[song], names.artists[catalogue.artist[song]]) for song in to_continue),
    )


def _write_csv(path: Path, header: Row, rows: Iterable[Row]) -> None:
    """One CSV file; compressed, without the time of day in it, when its name ends in .gz."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    content = text.getvalue().encode()
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    beside.replace(path)
    log.info("wrote %s: %d lines, %d bytes", path.name, text.getvalue().count("\n"), path.stat().st_size)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the demo data; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write the made-up music catalogue with playlists.")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to write (default: beside this file)")
    folder = parser.parse_args(argv).folder
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
