"""A recommender and tables that answer at once and always the same, so that tests see the HTTP side alone."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.access import Access
from config import Config, ServiceConfig
from errors import InvalidSequence, RequestError, UnknownSong
from flask_app import create_app, service_of
from serving.answers import Query
from serving.controls import Controls
from serving.popularity import RecommendedTally
from serving.reasons import Reason, ReasonKind
from storage.catalogue import SongCard
from storage.keys import ApiKey, hash_of
from tests.serving.small import small_recommender

MODEL = {"model_id": "run/epoch-001/0123456789ab", "version": "0123456789ab", "trained_at": "2026-01-02T03:04:05+00:00"}
SONG = {"song_id": "s05", "rank": 1, "score": 1.5, "reasons": [{"kind": "same_artist", "text": "same artist as song s00"}]}
FOUND = {"title": None, "artist": None, "album": None, "features": {}}
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
LAN = Config(service=ServiceConfig(host="0.0.0.0"))


@dataclass(frozen=True)
class FakeSong:
    song_id: str = "s05"
    rank: int = 1
    score: float = 1.5
    reasons: tuple[Reason, ...] = (Reason(kind=ReasonKind.SAME_ARTIST, song_id="s00"),)

    def as_json(self):
        return SONG


@dataclass(frozen=True)
class FakeAnswer:
    songs: tuple[FakeSong, ...] = (FakeSong(),)
    unknown: tuple[str, ...] = ()
    fallback: str | None = None
    model: Any = None

    def as_json(self):
        rules = {"applied": ["max_per_artist"], "relaxed": []}
        songs, unknown = [song.as_json() for song in self.songs], list(self.unknown)
        return {"songs": songs, "unknown": unknown, "fallback": self.fallback, "rules": rules, "seed": None, "model": MODEL}


class FakeInfo:
    model_id = MODEL["model_id"]
    version = MODEL["version"]
    trained_at = datetime.fromisoformat(MODEL["trained_at"])
    path = Path("run") / "epoch-001"

    def as_json(self):
        return MODEL


class FakeRecommender:
    info = FakeInfo()
    catalogue = small_recommender().catalogue
    model_scorer = None  # nothing is scored

    def songs_named(self, texts):
        return self.catalogue.songs.encode(list(texts))

    def id_from(self, text):
        return text

    plain_id_from = id_from

    def typed(self, ids):
        if not all(isinstance(song_id, str) for song_id in ids):
            raise InvalidSequence("song ids are texts here")
        return ids

    def cards(self, ids):
        return {song_id: SongCard(song_id=song_id, title=f"Song {song_id}") for song_id in self.typed(ids) if is_known(song_id)}


class FakeLive:
    """Knows the songs s00 to s11; what it was asked is in `asked`."""

    def __init__(self, recommender=None):
        self.recommender = recommender or FakeRecommender()
        self.recommended = RecommendedTally()
        self.asked = []

    @property
    def recommenders(self):
        return [] if self.recommender is None else [self.recommender]

    def recommend(self, query):
        self.asked.append(query)
        if not query.songs:
            raise InvalidSequence("the sequence is empty: send at least one song")
        unknown = tuple(song for song in query.songs if not is_known(song))
        fallback = "popular" if len(unknown) == len(query.songs) else None
        return FakeAnswer(unknown=unknown, fallback=fallback, model=FakeInfo())

    def recommend_many(self, queries):
        return [self._or_error(query) for query in queries]

    def _or_error(self, query):
        try:
            return self.recommend(query)
        except RequestError as exc:
            return exc

    def similar(self, song_id, count):
        if not is_known(song_id):
            raise UnknownSong(f"no song {song_id!r} in the catalogue")
        return FakeAnswer()

    def why(self, songs, song_id, listener=None):
        self.recommend(Query(songs=songs, controls=Controls(listener=listener)))
        if not is_known(song_id):
            raise UnknownSong(f"no song {song_id!r} in the catalogue")
        return MODEL["model_id"], [0.5 if is_known(song) else None for song in songs]

    def search(self, text, count):
        return [{"song_id": "s05", "title": text, "artist": None, "album": None, "features": {}}][:count]

    def look_up(self, ids):
        return [FOUND | {"song_id": song_id} for song_id in ids if is_known(song_id)]

    def describe(self, ids):
        return [FOUND | {"song_id": str(song_id)} for song_id in ids]

    def state(self):
        return {"new_songs": 3, "index": "int8"}


def is_known(song):
    return isinstance(song, str) and len(song) == 3 and song[0] == "s" and song[1:].isdigit() and int(song[1:]) < 12


def new_key(key_id="0123456789ab", secret="5e" * 32, **facts):
    """(the key, its text)"""
    plain = {"name": "a test", "may_manage": False, "requests_per_minute": None, "expires_at": None, "created_at": CREATED}
    return ApiKey(key_id=key_id, secret_hash=hash_of(secret), **{**plain, **facts}), f"b4mr_{key_id}_{secret}"


def fake_app(config=None, *, keys=None, database_url=None, live=None):
    """An app over a fake recommender; `keys` stand in for those of the database."""
    app = create_app(config or Config(), database_url=database_url)
    service = service_of(app)
    service.live = live or FakeLive()
    service._completed = lambda query: query  # what the database knows of listeners is tested with the real one
    if keys is not None:
        service.access = Access(service.config.service, lambda: keys)
    return app
