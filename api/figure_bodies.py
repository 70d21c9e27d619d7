"""Bodies of what is shown of catalogue, models and service: songs by id, playlists, cards, maps, figures."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from api.bodies import Body, FoundSongBody, Ids, Text, Words
from serving.controls import storable

# --- requests ----------------------------------------------------------------------------------------------------------------


class LookupBody(Body):
    """Songs to tell of."""

    song_ids: Ids = Field(description="song ids as the database has them")


class PlaylistPath(Words):
    """A playlist."""

    playlist_id: Text = Field(description="the playlist's id as text; a slash in it may stand as it is")


class PlaylistsQuery(Words):
    """Which playlists."""

    q: Annotated[str, BeforeValidator(storable), Field(max_length=255)] = Field(
        "", description="words of the name, or the id of one; empty: all, the newest first"
    )
    count: int | None = Field(None, ge=1, description="how many playlists")


# --- answers -----------------------------------------------------------------------------------------------------------------


class FoundPlaylistBody(BaseModel):
    """A playlist of the database."""

    playlist_id: int | str
    name: str | None
    n_songs: int


class PlaylistsBody(BaseModel):
    """Playlists to choose from; `missing` says why none can be listed."""

    playlists: list[FoundPlaylistBody]
    missing: str | None


class PlaylistSongsBody(BaseModel):
    """The songs of a playlist, oldest first; of those that nothing is known of, the id alone."""

    playlist_id: int | str
    name: str | None
    songs: list[FoundSongBody]


class PointBody(BaseModel):
    """An epoch of the training curve; seconds since training began."""

    epoch: int
    seconds: float | None
    train_loss: float | None
    ndcg10: float | None
    hr10: float | None


class TableRowBody(BaseModel):
    """A recommender and its metrics on the test part."""

    recommender: str
    metrics: dict[str, float | None]


class TableBody(BaseModel):
    """Recommenders side by side: `n` sequences, `targets` songs asked for."""

    n: int | None
    targets: int | None
    rows: list[TableRowBody]


class CardBody(BaseModel):
    """What is known of how a model was trained; null: the run did not store it, and `notes` say more."""

    model_id: str
    trained_at: str | None
    seconds: float | None
    epochs: int | None
    device: str | None
    machine: str | None
    seed: int | None
    objective: str | None
    data: dict[str, int] | None
    settings: dict[str, dict[str, str | float | bool | None]] | None
    curve: list[PointBody] | None
    table: TableBody | None
    features: str | None
    notes: list[str]


class MapSongBody(BaseModel):
    """A song of the map; x and y between 0 and 1."""

    song_id: int | str
    x: float
    y: float
    title: str | None
    artist: str | None


class MapBody(BaseModel):
    """A sample of the songs, those that are alike close together; `missing` says why there is none."""

    model_id: str | None
    method: str | None
    n_songs: int = Field(description="that there are, of which `songs` is a sample")
    songs: list[MapSongBody]
    missing: str | None


class PlaceBody(BaseModel):
    """Where a song lies; not exact: in the middle of the songs of the map that are most like it."""

    song_id: int | str
    x: float
    y: float
    exact: bool


class PlacesBody(BaseModel):
    """Where songs lie; none where there is no map."""

    model_id: str | None = Field(description="whose map it is: another model places all songs elsewhere")
    places: list[PlaceBody]


class BinBody(BaseModel):
    """Songs by how many training lists hold them, bounds included."""

    label: str
    low: int
    high: int


class ArtistSharesBody(BaseModel):
    """An artist's shares of the songs, of the places of training lists and of the recommended songs."""

    artist: str
    catalogue: float
    history: float
    recommended: float | None


class MeasuresBody(BaseModel):
    """What was recommended in three numbers; null while nothing was, or nothing can be told."""

    median_popularity_ratio: float | None = Field(
        description="median popularity of the recommended songs over that of the training lists; above 1 hits are preferred"
    )
    artists_at_10: float | None = Field(description="different artists among the first ten songs of an answer, on average")
    coverage: float | None = Field(description="share of the songs that were recommended at least once")


class PopularityBody(BaseModel):
    """Shares by popularity: of the songs, of the places of training lists, of what was recommended (null: nothing yet)."""

    bins: list[BinBody]
    catalogue: list[float]
    history: list[float]
    recommended: list[float] | None
    n_recommended: int
    since: str
    artists: list[ArtistSharesBody]
    measures: MeasuresBody
    note: str


class RightBody(BaseModel):
    """Something that the service's role may or should not do."""

    what: str
    ok: bool
    detail: str
    way_out: str | None


class DatabaseBody(BaseModel):
    """The database as this service sees it."""

    state: Literal["reachable", "unreachable", "not configured"]
    server: str | None
    role: str | None
    rights: list[RightBody]
    detail: str | None = Field(description="why it is unreachable")
    way_out: str | None


class RowsBody(BaseModel):
    """Songs of the catalogue, what the model in service was trained on, and what is in the service's own tables."""

    songs: int | None
    new_songs: int | None
    sequences: int | None = Field(description="lists that the model learned from; of runs of earlier versions all lists")
    sequence_rows: int | None = Field(description="places in them")
    requests_open: int | None
    models: int | None


class UnknownBody(BaseModel):
    """Songs of the answered sequences, and those of them that nothing is known of."""

    sent: int
    unknown: int
    share: float | None


class QueueBody(BaseModel):
    """Open requests for playlists."""

    queued: int | None
    running: int | None
    oldest_seconds: float | None


class LatencyBody(BaseModel):
    """How long the newest `n` answers to sequences took, and the last of them one by one, oldest first."""

    n: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    recent_ms: list[float]


class FallbacksBody(BaseModel):
    """Answers, and those that were not the model's usual ones."""

    answers: int
    fallbacks: int
    share: float | None
    by_kind: dict[str, int]


class ServedModelBody(BaseModel):
    """The model in service; `refused` says why another one was not taken."""

    model_id: str | None
    age_seconds: float | None
    refused: str | None


class NotedErrorBody(BaseModel):
    """A problem that was answered, `times` times, the last time `at`."""

    at: str
    status: int
    route: str
    detail: str
    way_out: str | None
    times: int


class OverviewBody(BaseModel):
    """The service at a glance; null: not known, or nothing yet."""

    database: DatabaseBody
    rows: RowsBody
    unknown: UnknownBody
    queue: QueueBody
    latency: LatencyBody
    fallback: FallbacksBody
    model: ServedModelBody
    errors: list[NotedErrorBody]
    worker: str
    follower: str


KNOWN_FIGURE_BODIES: Sequence[type[BaseModel]] = (LookupBody, PlaylistPath, PlaylistsQuery)
