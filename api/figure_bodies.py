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


KNOWN_FIGURE_BODIES: Sequence[type[BaseModel]] = (LookupBody, PlaylistPath, PlaylistsQuery)
