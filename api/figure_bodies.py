"""Bodies of what is shown of catalogue, models and service: songs by id, playlists, and later the figures."""

from collections.abc import Sequence
from typing import Annotated

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


class PlaylistBody(BaseModel):
    """A playlist of the database."""

    playlist_id: int | str
    name: str | None
    n_songs: int


class PlaylistsBody(BaseModel):
    """Playlists to choose from; `missing` says why none can be listed."""

    playlists: list[PlaylistBody]
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


KNOWN_FIGURE_BODIES: Sequence[type[BaseModel]] = (LookupBody, PlaylistPath, PlaylistsQuery)
