"""A recommender and tables that answer at once and always the same, so that tests see the HTTP side alone."""

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from config import Config, ServiceConfig
from errors import DatabaseError, InvalidSequence, RequestError
from flask_app import create_app, service_of

MODEL = {"model_id": "run/epoch-001/0123456789ab", "version": "0123456789ab", "trained_at": "2026-01-02T03:04:05+00:00"}
SONG = {"song_id": "s05", "rank": 1, "score": 1.5, "reasons": [{"kind": "same_artist", "text": "same artist as song s00"}]}
LAN = Config(service=ServiceConfig(host="0.0.0.0"))


class UnknownSong(RequestError):
    """As errors.py is to have it."""

    status = 404


@dataclass(frozen=True)
class FakeAnswer:
    songs: tuple[dict[str, Any], ...] = (SONG,)
    unknown: tuple[str, ...] = ()
    fallback: str | None = None

    def as_json(self):
        rules = {"applied": ["max_per_artist"], "relaxed": []}
        songs, unknown = list(self.songs), list(self.unknown)
        return {"songs": songs, "unknown": unknown, "fallback": self.fallback, "rules": rules, "seed": None, "model": MODEL}


class FakeInfo:
    model_id = MODEL["model_id"]
    trained_at = datetime.fromisoformat(MODEL["trained_at"])

    def as_json(self):
        return MODEL


class FakeRecommender:
    info = FakeInfo()

    def id_from(self, text):
        return text

    plain_id_from = id_from


class FakeLive:
    """Knows the songs s00 to s11; what it was asked is in `asked`."""

    def __init__(self, recommender=None):
        self.recommender = recommender or FakeRecommender()
        self.asked = []

    def recommend(self, query, key):
        self.asked.append((query, key))
        if not query.songs:
            raise InvalidSequence("the sequence is empty: send at least one song")
        unknown = tuple(song for song in query.songs if not is_known(song))
        return FakeAnswer(unknown=unknown, fallback="popular" if len(unknown) == len(query.songs) else None)

    def recommend_many(self, queries):
        return [self._or_error(query) for query in queries]

    def _or_error(self, query):
        try:
            return self.recommend(query, None)
        except RequestError as exc:
            return exc

    def similar(self, song_id, count):
        if not is_known(song_id):
            raise UnknownSong(f"no song {song_id!r} in the catalogue")
        return FakeAnswer()

    def search(self, text, count):
        return [{"song_id": "s05", "title": text, "artist_name": None, "album_title": None}][:count]

    def state(self):
        return {"new_songs": 3, "index": "int8", "catalogue_age_seconds": 12.5}


def is_known(song):
    return isinstance(song, str) and len(song) == 3 and song[0] == "s" and song[1:].isdigit() and int(song[1:]) < 12


@dataclass(frozen=True, kw_only=True)
class FakeKey:
    key_id: str
    secret_hash: bytes
    may_manage: bool = False
    requests_per_minute: int | None = None
    expires_at: datetime | None = None


def new_key(key_id="0123456789ab", secret="5ec7e7" * 8, **facts):
    """(the key, its text)"""
    key = FakeKey(key_id=key_id, secret_hash=hashlib.sha256(secret.encode()).digest(), **facts)
    return key, f"b4mr_{key_id}_{secret}"


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    model_id: str
    trained_at: datetime | None = None
    refused: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FakeFigures:
    model_id: str
    answers: int = 0
    songs: int = 0
    fallbacks: int = 0
    played: int = 0
    skipped: int = 0
    liked: int = 0
    never_again: int = 0


@dataclass(frozen=True, kw_only=True)
class FakeDeployment:
    deployment_id: int
    model_id: str
    challenger_id: str | None = None
    challenger_share: float = 0.0
    deployed_at: datetime = datetime(2026, 1, 3, tzinfo=UTC)


class FakeStorage:
    """The tables in memory."""

    def __init__(self):
        self.keys, self.events, self.deployments = [], [], []
        self.models = [FakeModel(model_id="new/1"), FakeModel(model_id="old/1"), FakeModel(model_id="bad/1", refused="broken")]

    def active_keys(self, connection):
        return list(self.keys)

    def add_feedback(self, connection, events):
        self.events += events
        return len(events)

    def known_models(self, connection):
        return self.models

    def model_figures(self, connection):
        return [FakeFigures(model_id="new/1", answers=4, songs=40, played=7)]

    def current_deployment(self, connection):
        return self.deployments[-1] if self.deployments else None

    def deploy(self, connection, model_id, *, challenger_id=None, challenger_share=0.0):
        if any(model.refused for model in self.models if model.model_id in (model_id, challenger_id)):
            raise DatabaseError("a model was refused: broken")
        deployment = FakeDeployment(
            deployment_id=len(self.deployments) + 1,
            model_id=model_id,
            challenger_id=challenger_id,
            challenger_share=challenger_share,
        )
        self.deployments.append(deployment)
        return deployment

    def roll_back(self, connection):
        if len(self.deployments) < 2:
            raise DatabaseError("nothing was deployed before")
        self.deployments.append(replace(self.deployments[-2], deployment_id=len(self.deployments) + 1))
        return self.deployments[-1]


def fake_app(config=None, *, keys=(), database_url=None, live=None):
    """An app over fakes; without `database_url` connections are fakes as well."""
    app = create_app(config or Config(), database_url=database_url)
    service = service_of(app)
    service.live, service.storage = live or FakeLive(), FakeStorage()
    service.storage.keys = list(keys)
    if database_url is None:
        service.connection = no_connection
    return app


@contextmanager
def no_connection():
    yield None
