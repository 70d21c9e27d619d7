"""The routes that show what there is: songs by their ids, playlists and their songs."""

import logging
from collections.abc import Sequence

from flask import Response, current_app, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.bodies import FoundBody
from api.figure_bodies import LookupBody, PlaylistPath, PlaylistsBody, PlaylistSongsBody, PlaylistsQuery
from api.problems import described
from api.service import service_of
from config import ServiceConfig
from errors import DatabaseError, DatabaseUnreachable, InvalidSequence
from serving.controls import checked_count
from serving.reasons import plain_id
from storage.playlists import PLAYLISTS_FILE, can_be_listed, find_playlists, name_of_playlist
from storage.source import sequence_by_id

log = logging.getLogger(__name__)

catalogue = APIBlueprint("catalogue", __name__, abp_tags=[Tag(name="catalogue")])

NO_PLAYLISTS = (
    f"the query files have no {PLAYLISTS_FILE}, so playlists cannot be listed: write one as docs/database.md says, "
    "or name a playlist by its id"
)


@catalogue.post(
    "/v1/songs/lookup",
    summary="What is known of songs, by their ids",
    responses={200: FoundBody, **described(400, 413, 415, 422, 503)},
)
def look_up(body: LookupBody) -> Response:
    """Take {"song_ids": [17, 4]} and answer like GET /v1/songs, in the order asked; songs that are not known are left out.

    Answered from memory, also while the database is away.  422 ids of another type than the catalogue's, or more than max_songs;
    503 no model.
    """
    service = service_of(current_app)
    checked_songs(body.song_ids, service.config.service)
    service.recommender()
    return jsonify(songs=service.live.look_up(body.song_ids))


def checked_songs(ids: Sequence[int | str], settings: ServiceConfig) -> None:
    """Raise InvalidSequence for more ids than one request may name."""
    if len(ids) > settings.max_songs:
        raise InvalidSequence(f"{len(ids)} songs are over max_songs ({settings.max_songs}): ask for them in several requests")


@catalogue.get("/v1/playlists", summary="The playlists to choose from", responses={200: PlaylistsBody, **described(422, 503)})
def playlists(query: PlaylistsQuery) -> Response:
    """Answer {"playlists": [{"playlist_id": "p7", "name": "Evening", "n_songs": 14}], "missing": null}.

    Where there is no query for playlists, `missing` says so and what to do.  422 a count out of bounds; 503 no database, or a
    query that fails.
    """
    service = service_of(current_app)
    count = checked_count(query.count, service.config.service)
    folder = service.config.database.queries_folder
    if not can_be_listed(folder):
        return jsonify(playlists=[], missing=NO_PLAYLISTS)
    with service.connection() as connection:
        found = find_playlists(connection, folder, query.q, count)
    listed = [{"playlist_id": plain_id(one.playlist_id), "name": one.name, "n_songs": one.n_songs} for one in found]
    return jsonify(playlists=listed, missing=None)


@catalogue.get(
    "/v1/playlists/<text:playlist_id>",
    summary="The songs of a playlist",
    responses={200: PlaylistSongsBody, **described(404, 422, 503)},
)
def playlist(path: PlaylistPath) -> Response:
    """Answer {"playlist_id": "p7", "name": "Evening", "songs": [{"song_id": 17, "title": "...", ...}]}, oldest song first.

    Of a longer list the newest max_songs songs; `name` is null where playlists.sql does not know it.  404 no such playlist;
    503 no database.
    """
    service = service_of(current_app)
    folder = service.config.database.queries_folder
    with service.connection() as connection:
        songs = sequence_by_id(connection, folder, path.playlist_id)
        try:
            name = name_of_playlist(connection, folder, path.playlist_id)
        except DatabaseUnreachable:
            raise
        except DatabaseError as exc:  # the songs are worth more than the name
            log.warning("a playlist is shown without its name: %s", exc)
            name = None
    newest = songs[-service.config.service.max_songs :]
    return jsonify(playlist_id=path.playlist_id, name=name, songs=service.live.describe(newest))
