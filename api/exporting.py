"""Lists as files: which form somebody asks for, what is known of the songs, and the answer that a browser saves."""

import unicodedata
from typing import Any
from urllib.parse import quote

from flask import Response, current_app, request
from werkzeug.http import dump_options_header

from api.service import Service
from errors import DatabaseError, ServiceUnavailable
from exporters import EXPORTERS, ExportedList, Exporter, Target, file_name
from serving.reasons import SongId
from storage.catalogue import SongCard, song_cards

JSON = "application/json"
# By what an Accept header may name.  application/json is the usual answer, not the form of that name.
ACCEPTED = {
    media_type: exporter
    for exporter in EXPORTERS.values()
    for media_type in (exporter.media_type, *exporter.other_media_types)
    if media_type != JSON
}
SCHEMAS: dict[str, Any] = {
    exporter.media_type: {"schema": {"type": "object" if exporter.media_type.endswith("json") else "string"}}
    for exporter in EXPORTERS.values()
}
"""What a file looks like, by media type, for the OpenAPI description."""
FILE: dict[str, Any] = {"description": "the list as a file", "content": SCHEMAS}


def accepted_exporter() -> Exporter | None:
    """The form that the request's Accept header prefers to the usual answer; None for that one."""
    best = request.accept_mimetypes.best_match([JSON, *ACCEPTED], default=JSON)
    return ACCEPTED.get(best)


def cards_of(service: Service, song_ids: list[SongId]) -> dict[SongId, SongCard]:
    """What is known of songs: by the database where it answers, else what is in memory.

    Raises ServiceUnavailable while no model is loaded, InvalidSequence for ids of another type than the catalogue's.
    """
    known = service.recommender().cards(song_ids)
    try:
        with service.connection() as connection:
            return known | song_cards(connection, service.config.database.queries_folder, list(known))
    except (DatabaseError, ServiceUnavailable):  # names are known without it; files and recordings are not
        return known


def as_file(exporter: Exporter, exported: ExportedList) -> Response:
    """The answer with the file, and the name under which a browser saves it."""
    written = exporter.write(exported, Target())
    response = current_app.response_class(written.text, content_type=f"{exporter.media_type}; charset=utf-8")
    response.headers["Content-Disposition"] = saved_as(file_name(exported.name, exporter.extension))
    return response


def saved_as(name: str) -> str:
    """The header that names a file (RFC 6266): in ASCII for old browsers, as it is for all others.

    >>> saved_as("läut.csv")
    "attachment; filename=laut.csv; filename*=UTF-8''l%C3%A4ut.csv"
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lstrip(". ")
    named = plain if "." in plain else f"playlist.{plain}"
    header = dump_options_header("attachment", {"filename": named})
    return header if named == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"
