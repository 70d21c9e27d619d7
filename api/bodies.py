"""What comes in and goes out as JSON: checked by pydantic on the way in, described in OpenAPI both ways.

Request bodies are strict (a text is no number) and know their fields (a misspelt one is an error).  Answers may get new fields
within /v1; none is taken away or changes its meaning.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WrapValidator,
    model_validator,
)

from serving.controls import Controls, Id, Listener
from serving.exporting import SUGGESTIONS

MOST_EVENTS = 1_000
MOST_POSTGRES_INTEGER = 2**31 - 1
MOST_POSTGRES_BIGINT = 2**63 - 1
LONGEST_ID_BYTES = 1_000  # of a song or artist in feedback: longer ones fit into no index

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


# --- parts -------------------------------------------------------------------------------------------------------------------


def are_ids(values: Any) -> bool:
    """Whether a list holds nothing but ids: integers, and texts that PostgreSQL can hold.

    Looks at the whole list in a few calls: 2 us for 20 ids where one validator call an id takes 12.
    """
    if type(values) is not list or not set(map(type, values)) <= {int, str}:
        return False
    return _UNSTORABLE.search("".join([value for value in values if type(value) is str])) is None


def _quickly(values: Any, one_by_one: Callable[[Any], Any]) -> Any:
    """Only a list with something wrong in it is gone through one by one, up to the first that is, for the message."""
    if are_ids(values):
        return values
    if type(values) is list:
        wrong = next(place for place in range(len(values)) if not are_ids(values[place : place + 1]))
        return one_by_one(values[: wrong + 1])
    return one_by_one(values)


Ids = Annotated[list[Id], WrapValidator(_quickly)]
Text = Listener  # 1 to 255 signs that PostgreSQL can hold


def _a_time(value: Any) -> Any:
    if not isinstance(value, str) or not _TIME.match(value):
        raise ValueError('a time is a text with its zone, such as "2026-01-31T20:15:00+01:00"')
    return value


def _indexable(value: int | str) -> int | str:
    if len(str(value).encode()) > LONGEST_ID_BYTES:
        raise ValueError(f"an id has {LONGEST_ID_BYTES} bytes at most")
    return value


ShortId = Annotated[Id, AfterValidator(_indexable)]


def exactly_one(*names: str) -> dict[str, Any]:
    """The JSON schema of an object in which one of some fields is given, and the others are absent or null."""
    return {
        "oneOf": [
            {"required": [name], "properties": {other: {"type": "null"} if other != name else _GIVEN for other in names}}
            for name in names
        ]
    }


def all_or_none(*names: str) -> dict[str, Any]:
    """The JSON schema of an object in which some fields are given together, or are all absent or null."""
    return {
        "oneOf": [
            {"required": list(names), "properties": dict.fromkeys(names, _GIVEN)},
            {"properties": {name: {"type": "null"} for name in names}},
        ]
    }


_GIVEN = {"not": {"type": "null"}}


class Body(BaseModel):
    """Base of what comes in beside `Controls`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


# --- bodies of requests ------------------------------------------------------------------------------------------------------


class RecommendBody(Controls):
    """What to continue, a sequence of songs or a playlist of the database, and how."""

    model_config = ConfigDict(json_schema_extra=exactly_one("songs", "playlist_id"))

    songs: Ids | None = Field(None, description="song ids as the database has them, oldest first")
    playlist_id: Id | None = Field(None, description="a playlist of the database, instead of songs")
    wait: bool = Field(False, description="with playlist_id: stay until the songs are there")

    @model_validator(mode="after")
    def _one_thing_to_continue(self) -> Self:
        if (self.songs is None) == (self.playlist_id is None):
            raise ValueError('send either "songs" or "playlist_id"')
        return self

    def as_options(self) -> dict[str, Any]:
        """The controls alone."""
        return self.model_dump(exclude_defaults=True, mode="json", include=set(Controls.model_fields))


class WhyBody(Body):
    """A sequence and a song that is recommended for it."""

    songs: Ids = Field(description="song ids as the database has them, oldest first")
    song_id: Id = Field(description="the song to explain")
    listener: Text | None = Field(None, description="whom it was recommended to, where that was said")


class BatchBody(Controls):
    """Sequences to continue, all with the same controls."""

    sequences: list[Ids] = Field(min_length=1, description="sequences of song ids, oldest song first")


_ARTISTS_ARE_BLOCKED = {
    "if": {"required": ["artist_id"], "properties": {"artist_id": _GIVEN}},
    "then": {"properties": {"event": {"const": "never_again"}}},
}


class EventBody(Body):
    """What a listener did with a song, or never wants to hear again."""

    model_config = ConfigDict(json_schema_extra=exactly_one("song_id", "artist_id") | _ARTISTS_ARE_BLOCKED)

    event: Literal["played", "skipped", "liked", "never_again"]
    song_id: ShortId | None = None
    artist_id: ShortId | None = Field(None, description="with never_again, instead of song_id: all songs of an artist")
    happened_at: Annotated[AwareDatetime | None, Field(strict=False), BeforeValidator(_a_time)] = Field(
        None, description="when, 1970 or later; null: now, and so is what lies in the future"
    )
    request_id: int | None = Field(None, ge=1, le=MOST_POSTGRES_BIGINT, description="the accepted request that named the song")
    model_id: Text | None = Field(None, description="the model that recommended it")
    recommended: bool = Field(False, description="whether the song was recommended: training can leave such plays out")
    ms_played: int | None = Field(None, ge=0, le=MOST_POSTGRES_INTEGER, description="how long, in milliseconds")

    @model_validator(mode="after")
    def _of_one_song_or_artist(self) -> Self:
        if (self.song_id is None) == (self.artist_id is None):
            raise ValueError('send either "song_id" or "artist_id"')
        if self.artist_id is not None and self.event != "never_again":
            raise ValueError(f'"artist_id" goes with "never_again" only: "{self.event}" needs a song_id')
        return self

    @model_validator(mode="after")
    def _in_our_time(self) -> Self:
        if self.happened_at is not None and not 1970 <= self.happened_at.year <= 9_998:
            raise ValueError(f"happened_at lies between the years 1970 and 9998 (got {self.happened_at.isoformat()})")
        return self


class FeedbackBody(Body):
    """What one listener did; it counts from the next request with that listener on."""

    listener: Text = Field(description="who; any text that stays the same")
    events: list[EventBody] = Field(min_length=1, max_length=MOST_EVENTS)


class ActivateBody(Body):
    """With a challenger: the share of the sequences that it answers."""

    model_config = ConfigDict(json_schema_extra=all_or_none("challenger_id", "share"))

    challenger_id: Text | None = Field(None, description="another model, to compare")
    share: float | None = Field(
        None, gt=0, lt=1, allow_inf_nan=False, description="of the sequences that the challenger answers, between 0 and 1"
    )

    @model_validator(mode="after")
    def _a_share_has_a_challenger(self) -> Self:
        if (self.challenger_id is None) != (self.share is None):
            raise ValueError('"challenger_id" and "share" go together')
        return self


class SuggestedBody(Body):
    """What an answer said of a song, so that a file of it says the same."""

    song_id: Id
    score: float | None = Field(None, allow_inf_nan=False)
    reasons: list[Text] = Field([], description="in words")


class PlaylistBody(Body):
    """A list of songs to be written to a file."""

    name: Text = Field(description="what the list is called")
    songs: Ids = Field(description="song ids as the database has them, in their order")
    suggested: list[SuggestedBody] = Field([], description="of those that were recommended: score and reasons")
    model_id: Text | None = Field(None, description="the model that recommended them")


class NothingBody(Body):
    """An empty object: `{}`."""


# --- paths, queries, headers -------------------------------------------------------------------------------------------------


class Words(BaseModel):
    """Base of what stands in an address: all texts, so that numbers are read from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestPath(Words):
    """The number that POST /v1/recommend answered with."""

    request_id: int


class SongPath(Words):
    """A song."""

    song_id: Text = Field(description="the song's id as text; a slash in it may stand as it is")


class ModelPath(Words):
    """A model."""

    model_id: Text = Field(description="the model's id; the slashes in it may stand as they are")


class ExportPath(Words):
    """The form of a file."""

    extension: Literal["jspf", "m3u8", "csv", "json", "sql"] = Field(description="the ending of the file's name")


class ExportQuery(Words):
    """How a list of recommended songs is to be called."""

    name: Text = Field(SUGGESTIONS, description="name of the list, and of the file")


class SimilarQuery(Words):
    """How many."""

    count: int | None = Field(None, ge=1, description="how many songs")


class SearchQuery(SimilarQuery):
    """What to look for."""

    q: Text = Field(description="words of title or artist")


class RecommendHeaders(BaseModel):
    """What may be said of a request beside its body."""

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="with playlist_id: the same key and body again, after a broken connection, are not another request",
    )


# --- answers -----------------------------------------------------------------------------------------------------------------


class ReasonBody(BaseModel):
    """Why a song is recommended; `text` says it in words."""

    kind: str
    text: str
    song_id: int | str | None = None
    weight: float | None = None
    features: list[str] = []


class SongBody(BaseModel):
    """A recommended song; its score compares within one answer only."""

    song_id: int | str
    rank: int
    score: float
    confidence: float | None = Field(None, description="probability to come next, where min_confidence asks for it")
    reasons: list[ReasonBody]


class WeightBody(BaseModel):
    """A song of the sequence; by how many score points the explained song's lead falls without it, null where it is not read."""

    song_id: int | str
    weight: float | None


class ExplanationBody(BaseModel):
    """A weight for each song of the sequence, in its order; `missing` says why there is none."""

    song_id: int | str
    model_id: str | None = Field(None, description="the model that was asked, which may be another one than a moment ago")
    weights: list[WeightBody]
    missing: str | None = None


class RulesBody(BaseModel):
    """Rules that were applied, and those that gave way so that there are enough songs, in that order."""

    applied: list[str]
    relaxed: list[str]
    unavailable: list[str] | None = Field(
        None,
        description="what the database could not be asked for: listener (feedback as last read), exclude_played_days, "
        "skipped (what plays_by_listener.sql says was skipped)",
    )


class ModelBody(BaseModel):
    """The model behind an answer."""

    model_id: str
    version: str
    trained_at: str


class AnswerBody(BaseModel):
    """Ranked songs; `unknown` are ids of the sequence of which nothing is known."""

    songs: list[SongBody]
    unknown: list[int | str]
    fallback: Literal["content", "cooccurrence", "popular"] | None = Field(
        description="why it is not the model's usual answer: no song of the sequence was in training (content), there is no "
        "model (cooccurrence), nothing is known of any song of the sequence (popular)"
    )
    rules: RulesBody
    seed: int | None = Field(description="with temperature: sent along, the same songs are drawn again")
    model: ModelBody | None = Field(description="null: no model had a part in it")


class ProblemBody(BaseModel):
    """An error (RFC 9457); `instance` is the X-Request-ID of the answer, under which the log has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class FailureBody(BaseModel):
    """A sequence of a batch that cannot be continued."""

    error: ProblemBody


class AnswersBody(BaseModel):
    """An answer or an error for each sequence, in their order."""

    answers: list[AnswerBody | FailureBody]


class RequestBody(BaseModel):
    """An accepted request: accepted, running, done or failed; songs once it is done, error once it failed."""

    request_id: int
    playlist_id: int | str
    status: str
    songs: list[SongBody] | None = None
    error: str | None = None
    model_id: str | None = None
    unknown: list[int | str] | None = None
    fallback: str | None = None
    rules: RulesBody | None = None
    seed: int | None = None


class FoundSongBody(BaseModel):
    """A song of the catalogue."""

    song_id: int | str
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    features: dict[str, float] = Field({}, description="what is known of it, in the units of the database")


class FoundBody(BaseModel):
    """Songs that a search found, the best match first."""

    songs: list[FoundSongBody]


class StoredBody(BaseModel):
    """How many events are stored."""

    stored: int


class DeploymentBody(BaseModel):
    """Which model answers, and which one a share of the sequences is answered by instead."""

    deployment_id: int
    model_id: str
    challenger_id: str | None
    challenger_share: float
    deployed_at: str


class FiguresBody(BaseModel):
    """What was answered with a model, and what listeners did with its songs."""

    answers: int
    songs: int
    fallbacks: int
    played: int
    skipped: int
    liked: int
    never_again: int


class KnownModelBody(BaseModel):
    """A model that the database knows; `refused` says why the service does not answer with it."""

    model_id: str
    trained_at: str | None
    refused: str | None
    metrics: dict[str, Any]
    figures: FiguresBody | None


class ModelsBody(BaseModel):
    """All known models, and which of them answer; deployment null: none was activated, the newest run answers."""

    models: list[KnownModelBody]
    deployment: DeploymentBody | None


class HealthBody(BaseModel):
    """The process answers."""

    status: str


class ReadinessBody(BaseModel):
    """What the service needs in order to answer, and what it answers with."""

    model: str
    model_id: str | None
    challenger_id: str | None = None
    challenger_share: float | None = None
    database: str
    worker: str
    follower: str
    songs: int | None = Field(None, description="that can be recommended")
    new_songs: int | None = Field(None, description="of them were in no training")
    index: str | None = Field(None, description="how the best songs are found")
    catalogue_read_at: float | None = Field(None, description="when the songs were read, in seconds since 1970")
    refused: str | None = Field(None, description="why a model was refused, the newest one")


KNOWN_BODIES: Sequence[type[BaseModel]] = (
    *(RecommendBody, BatchBody, WhyBody, FeedbackBody, EventBody, ActivateBody, PlaylistBody, SuggestedBody, NothingBody),
    *(RequestPath, SongPath, ModelPath, ExportPath, ExportQuery, SimilarQuery, SearchQuery),
)
