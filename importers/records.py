"""What a history or a playlist file holds, whichever service wrote it: plays, opinions, and songs at places of playlists.

A reader of one format yields these records in the order of its files; `importers.bring` finds the song behind each of them
and enters them.  They are tuples: a frozen dataclass costs three times as much to make, and there are millions.
"""

from datetime import date, datetime
from enum import Enum
from typing import NamedTuple, TypeAlias


class Features(NamedTuple):
    """How a song sounds, in the units of the schema `music`; None where it is not known."""

    danceability: float | None = None
    energy: float | None = None
    key: int | None = None
    loudness: float | None = None
    mode: int | None = None
    speechiness: float | None = None
    acousticness: float | None = None
    instrumentalness: float | None = None
    liveness: float | None = None
    valence: float | None = None
    tempo: float | None = None
    time_signature: int | None = None
    feature_source: str | None = None
    """Who measured them: features of different sources are never mixed unscaled."""


class Heard(NamedTuple):
    """A song as a record names it: by ids of services, by artist and title, or by both.

    At least one of `spotify_id`, `recording_mbid`, `isrc`, `recording_msid`, `item`, `location`, or artist and title together.
    """

    artist: str | None = None
    title: str | None = None
    album: str | None = None
    spotify_id: str | None = None
    """The 22 letters and digits of spotify:track:..."""
    recording_mbid: str | None = None
    isrc: str | None = None
    recording_msid: str | None = None
    """ListenBrainz' number of a name that it has met, whatever it stands for."""
    item: str | None = None
    """An id that counts within its own service, with its name before it: "yambda:12345"."""
    location: str | None = None
    """Path or URL of the song's own file."""
    duration_ms: int | None = None
    artist_mbid: str | None = None
    """Of the first artist."""
    release_mbid: str | None = None
    disc_number: int | None = None
    track_number: int | None = None
    explicit: bool | None = None
    release_date: date | None = None
    features: Features | None = None


class Play(NamedTuple):
    """One song heard, or begun and left."""

    line: int
    """Line or number of the record in its file, from 1."""
    heard: Heard
    listened_at: datetime
    """When it began, with its zone."""
    ms_played: int | None = None
    skipped: bool | None = None
    """True: the listener went on to the next one before it counted as heard; None: not known."""
    is_recommended: bool | None = None
    """Whether a recommender had chosen it."""
    listener: str | None = None
    """Who, where the file holds plays of several people; None: the one whose file it is."""


class Score(Enum):
    """What a listener thinks of a song."""

    LIKED = "liked"
    NEVER_AGAIN = "never_again"
    NONE = "none"  # taken back


class Opinion(NamedTuple):
    """A listener's own word on a song."""

    line: int
    heard: Heard
    score: Score
    happened_at: datetime | None = None
    listener: str | None = None


class Place(NamedTuple):
    """A song at a place of a playlist.  Places of one playlist are numbered in the order of the records."""

    line: int
    playlist: str
    """An id that the same file gives again next time, without the service's name before it; the name where there is none."""
    heard: Heard
    added_at: datetime | None = None
    name: str | None = None
    """Of the playlist."""
    created_at: datetime | None = None
    """Of the playlist."""


Record: TypeAlias = Play | Opinion | Place
