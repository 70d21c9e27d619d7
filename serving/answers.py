"""What goes into a recommender and what comes out: queries, answers, and how an answer looks as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from serving.controls import Controls, Rules
from serving.eligible import Eligible
from serving.reasons import KnownSongs, Reason, SongId, plain_id
from storage.feedback import Taste
from storage.models import Model

NO_TASTE = Taste()


class Fallback(StrEnum):
    """Why an answer is not the model's usual one."""

    CONTENT = "content"  # no song of the sequence was in training: the model reads them by artist, album and features
    COOCCURRENCE = "cooccurrence"  # there is no model: songs that stand together with those of the sequence
    POPULAR = "popular"  # nothing is known of any song of the sequence: what is popular


@dataclass(frozen=True, eq=False)
class SongList:
    """The songs of a filter.  One list is told from another by its identity, so that what is made of it can be kept beside it."""

    ids: Sequence[SongId]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sequence to continue, oldest song first, in the caller's own ids."""

    songs: Sequence[SongId]
    controls: Controls = field(default_factory=Controls)
    taste: Taste = NO_TASTE  # of controls.listener
    filtered: SongList | None = None  # the songs of controls.filter
    unavailable: tuple[str, ...] = ()  # rules for which the database could not be asked

    def of(self, songs: Sequence[SongId]) -> "Query":
        """The same for another sequence."""
        return replace(self, songs=songs)


@dataclass(frozen=True, kw_only=True)
class PreparedQuery:
    """A query that was checked and can be scored by the recommender that prepared it."""

    sequence: KnownSongs  # all songs of the sequence of which something is known
    unknown: tuple[SongId, ...]
    eligible: Eligible
    applied: tuple[str, ...]  # controls in force that keep single songs out
    rules: Rules
    seed: int
    fallback: Fallback | None
    unavailable: tuple[str, ...]
    explain: bool


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Which model an answer comes from, and what it was made of."""

    model_id: str
    trained_at: datetime
    path: Path
    encoders_digest: str
    snapshot_digest: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def version(self) -> str:
        """The first digits of the digest of its weights."""
        return self.model_id.rpartition("/")[2]

    def record(self) -> Model:
        """As it stands in the database."""
        return Model(
            model_id=self.model_id,
            path=str(self.path),
            encoders_digest=self.encoders_digest,
            snapshot_digest=self.snapshot_digest,
            settings=self.settings,
            metrics=self.metrics,
            trained_at=self.trained_at,
        )

    def as_json(self) -> dict[str, Any]:
        """The part of it that an answer carries."""
        return {"model_id": self.model_id, "version": self.version, "trained_at": self.trained_at.isoformat()}


@dataclass(frozen=True, kw_only=True)
class RecommendedSong:
    """One song of an answer; `score` is the model's logit, comparable within one answer only."""

    song_id: SongId
    rank: int
    score: float
    reasons: tuple[Reason, ...]
    confidence: float | None = None  # probability to come next, where min_confidence asks for it

    def as_json(self) -> dict[str, Any]:
        """Plain values for an answer."""
        reasons = [reason.as_json() for reason in self.reasons]
        confidence = {} if self.confidence is None else {"confidence": self.confidence}
        song = {"song_id": plain_id(self.song_id), "rank": self.rank, "score": self.score}
        return song | confidence | {"reasons": reasons}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Ranked songs, and what is to be said of them."""

    songs: tuple[RecommendedSong, ...]
    unknown: tuple[SongId, ...]  # ids of the sequence of which nothing is known
    model: ModelInfo | None  # None: no model had a part in it
    fallback: Fallback | None = None
    applied: tuple[str, ...] = ()
    relaxed: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()
    seed: int | None = None  # with which the same songs are drawn again
    n_sent: int = 0  # songs of the sequence; an unknown one counts once, however often it was sent

    def facts(self) -> dict[str, Any]:
        """What is to be said of the answer as a whole, as plain values."""
        rules: dict[str, Any] = {"applied": list(self.applied), "relaxed": list(self.relaxed)}
        if self.unavailable:
            rules["unavailable"] = list(self.unavailable)
        return {
            "unknown": [plain_id(song_id) for song_id in self.unknown],
            "fallback": self.fallback,
            "rules": rules,
            "seed": self.seed,
        }

    def as_json(self) -> dict[str, Any]:
        """Plain values for an answer."""
        model = None if self.model is None else self.model.as_json()
        return {"songs": [song.as_json() for song in self.songs], **self.facts(), "model": model}
