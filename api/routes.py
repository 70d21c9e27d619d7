"""The routes that listeners' applications use: recommend, search, similar songs, feedback.

`POST /recommend` and `GET /requests/N` are also at the addresses that they had before there were versions.
"""

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from flask import Response, current_app, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.bodies import (
    AnswerBody,
    AnswersBody,
    BatchBody,
    EventBody,
    ExplanationBody,
    ExportPath,
    ExportQuery,
    FeedbackBody,
    FoundBody,
    PlaylistBody,
    RecommendBody,
    RecommendHeaders,
    RequestBody,
    RequestPath,
    SearchQuery,
    SimilarQuery,
    SongPath,
    StoredBody,
    WhyBody,
)
from api.exporting import FILE, JSON, SCHEMAS, accepted_exporter, as_file, cards_of
from api.problems import described, problem_json
from api.service import Service, service_of
from errors import InvalidSequence, RequestError
from exporters import EXPORTERS, ExportedList, Exporter, exported_song, listed
from jobs.desk import Handled
from serving.answers import Answer
from serving.controls import checked_count
from serving.exporting import SUGGESTIONS, as_exported
from storage.feedback import Event, Feedback, add_feedback
from storage.requests import State

api = APIBlueprint("api", __name__, abp_tags=[Tag(name="recommendations")])

# Read by hand: flask-openapi3 would make the schema of the header anew with each request, which takes 250 us.
IDEMPOTENCY_KEY = "Idempotency-Key"
NOT_BY_A_MODEL = "No model speaks for this song: it is popular, or stands together in lists with songs of the sequence."
_HEADER = {
    "parameters": [
        {
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "required": False,
            "description": RecommendHeaders.model_fields["idempotency_key"].description,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
    ]
}
_ANSWER = {JSON: {"schema": {"$ref": f"#/components/schemas/{AnswerBody.__name__}"}}}
_RECOMMEND: dict[str, Any] = {
    "summary": "Continue a sequence of songs, or a playlist of the database",
    "responses": {
        200: {"description": "the songs; as a file where Accept asks for one", "content": SCHEMAS | _ANSWER},
        202: RequestBody,
        **described(400, 404, 413, 415, 422, 429, 503),
    },
    "openapi_extensions": _HEADER,
}
_REQUEST: dict[str, Any] = {
    "summary": "What became of an accepted request",
    "responses": {200: RequestBody, **described(404, 503)},
}


@api.post("/v1/recommend", **_RECOMMEND)
@api.post("/recommend", endpoint="recommend_unversioned", **_RECOMMEND)
def recommend(body: RecommendBody) -> tuple[Response, int]:
    """Answer a sequence at once, accept a playlist.

    200 {"songs": [{"song_id": 17, "rank": 1, "score": 4.2, "reasons": [...]}], "unknown": [], "fallback": null, "rules":
    {"applied": ["max_per_artist"], "relaxed": []}, "seed": null, "model": {...}} for songs.  Where Accept names the type of a
    file, such as application/jspf+json or text/csv, the songs come as in POST /v1/recommend.jspf.
    202 {"playlist_id": 7, "status": "accepted", "request_id": 12} for a playlist_id; with "wait": true 200 and its songs, or
    still 202 after wait_seconds.  With an Idempotency-Key the same body again gets the same request_id.  400 no JSON; 404 no
    such playlist; 413 and 415 body; 422 what cannot be continued, or a key that was sent with another body; 429 the queue is
    full, come back after Retry-After; 503 no model or no database.
    """
    service, key, exporter = service_of(current_app), _idempotency_key(), accepted_exporter()
    if exporter is not None:
        return _recommend_file(service, body, key, exporter, SUGGESTIONS)
    checked_count(body.count, service.config.service)
    if body.songs is not None:
        return jsonify(service.recommend(body.songs, body).as_json()), HTTPStatus.OK
    accepted, handled = _asked(service, body, key, wait=body.wait)
    if handled is None:
        return jsonify(accepted), HTTPStatus.ACCEPTED
    return jsonify(_request_json(service, handled) | {"playlist_id": body.playlist_id}), HTTPStatus.OK


@api.post(
    "/v1/recommend.<extension>",
    summary="Continue a sequence of songs, or a playlist of the database, as a file",
    responses={200: FILE, 202: RequestBody, **described(400, 404, 413, 415, 422, 429, 503)},
    openapi_extensions=_HEADER,
)
def recommend_file(path: ExportPath, query: ExportQuery, body: RecommendBody) -> tuple[Response, int]:
    """Answer POST /v1/recommend as a file: JSPF, M3U8, CSV, JSON or SQL.

    200 the file, with its name in Content-Disposition.  A playlist is waited for, wait_seconds at most; then 202 as in
    POST /v1/recommend, and its songs can be had as a file with POST /v1/playlist.  Songs are named, and their files found, by the
    database; while it is away by what is in memory, which knows no files and no recordings.
    """
    service, key = service_of(current_app), _idempotency_key()
    return _recommend_file(service, body, key, EXPORTERS[path.extension], query.name)


@api.post(
    "/v1/playlist.<extension>",
    summary="A list of songs as a file",
    responses={200: FILE, **described(400, 413, 415, 422, 503)},
)
def playlist_file(path: ExportPath, body: PlaylistBody) -> Response:
    """Take {"name": "Evening", "songs": [17, 4]} and answer that list as a file: JSPF, M3U8, CSV, JSON or SQL.

    With "model_id" and "suggested": [{"song_id": 17, "score": 4.2, "reasons": ["..."]}] the file says so of these songs.
    Of songs that nobody knows only the id stands there.  422 ids of another type than the catalogue's, or more than max_songs;
    503 no model.
    """
    service = service_of(current_app)
    most = service.config.service.max_songs
    if not body.songs:
        raise InvalidSequence("the list is empty: send at least one song")
    if len(body.songs) > most:
        raise InvalidSequence(f"the list has {len(body.songs)} songs, over max_songs ({most}): write it in several files")
    songs = service.recommender().typed(body.songs)
    plain = listed(body.name, songs, cards_of(service, songs))
    return as_file(EXPORTERS[path.extension], _suggested(plain, body) if body.suggested else plain)


def _suggested(plain: ExportedList, body: PlaylistBody) -> ExportedList:
    """A list with what an answer said of its songs."""
    told = {str(one.song_id): one for one in body.suggested}
    songs = [
        replace(song, rank=rank, score=told[str(song.song_id)].score, reasons=tuple(told[str(song.song_id)].reasons))
        if str(song.song_id) in told
        else song
        for rank, song in enumerate(plain.songs, start=1)
    ]
    version = None if body.model_id is None else body.model_id.rpartition("/")[2]
    return replace(plain, songs=songs, model_id=body.model_id, model_version=version)


def _recommend_file(
    service: Service, body: RecommendBody, key: str | None, exporter: Exporter, name: str
) -> tuple[Response, int]:
    """The answer of POST /v1/recommend as a file, or 202 for a playlist that takes longer."""
    checked_count(body.count, service.config.service)
    if body.songs is not None:
        answer = service.recommend(body.songs, body)
        cards = cards_of(service, [*service.recommender().typed(body.songs), *(song.song_id for song in answer.songs)])
        return as_file(exporter, as_exported(answer, cards, name=name)), HTTPStatus.OK
    accepted, handled = _asked(service, body, key, wait=True)
    if handled is None:
        return jsonify(accepted), HTTPStatus.ACCEPTED
    return as_file(exporter, _exported(service, handled, name)), HTTPStatus.OK


def _exported(service: Service, handled: Handled, name: str) -> ExportedList:
    """The songs of a request that is done, as they were written."""
    recommender = service.recommender()
    ids = [recommender.id_from(song.song_id) for song in handled.songs]
    cards = cards_of(service, ids)
    songs = [
        exported_song(
            song_id,
            cards.get(song_id),
            rank=song.rank,
            score=song.score,
            reasons=[reason["text"] for reason in song.reasons if "text" in reason],
        )
        for song_id, song in zip(ids, handled.songs, strict=True)
    ]
    model_id = handled.songs[0].model_id if handled.songs else None
    return ExportedList(
        name=name,
        songs=songs,
        created_at=handled.songs[0].created_at if handled.songs else handled.status.created_at,
        model_id=model_id,
        model_version=model_id.rpartition("/")[2] if model_id else None,
    )


def _asked(service: Service, body: RecommendBody, key: str | None, *, wait: bool) -> tuple[dict[str, Any], Handled | None]:
    """What is answered to an accepted playlist, and where `wait` is asked for what became of it; None: it takes longer.

    Raises InvalidSequence where it failed.
    """
    desk = service.open_desk()
    request_id = desk.accept(str(body.playlist_id), body.as_options(), idempotency_key=key)
    if service.worker is not None:
        service.worker.nudge()
    accepted = {"playlist_id": body.playlist_id, "status": "accepted", "request_id": request_id}
    handled = desk.wait(request_id, service.config.service.wait_seconds) if wait else None
    if handled is not None and handled.status.state is State.FAILED:
        raise InvalidSequence(f"request {request_id} failed: {handled.status.error}")
    return accepted, handled


def _idempotency_key() -> str | None:
    sent = request.headers.get(IDEMPOTENCY_KEY)
    return None if sent is None else RecommendHeaders.model_validate({IDEMPOTENCY_KEY: sent}).idempotency_key


@api.post(
    "/v1/recommend/batch",
    summary="Continue several sequences of songs",
    responses={200: AnswersBody, **described(400, 413, 415, 422, 503)},
)
def recommend_batch(body: BatchBody) -> Response:
    """Answer {"answers": [{"songs": [...], ...}, {"error": {"status": 422, "detail": "the sequence is empty: ...", ...}}]}.

    The controls are those of POST /v1/recommend and count for all.  A sequence that cannot be continued has its error in its
    place, and the rest is answered.  Each sequence counts towards the limit of the key.  422 for what is no list of lists of ids,
    and for more of them than max_batch or the key's limit; 429 they do not fit into this minute; 503 no model.
    """
    service = service_of(current_app)
    checked_count(body.count, service.config.service)
    most = service.config.service.max_batch
    if len(body.sequences) > most:
        raise InvalidSequence(
            f"the batch has {len(body.sequences)} sequences, over max_batch ({most}): send them in several requests"
        )
    service.recommender()
    service.access.count_batch(len(body.sequences))
    answers = service.recommend_many(body.sequences, body)
    return jsonify(answers=[_outcome_json(answer) for answer in answers])


def _outcome_json(outcome: Answer | RequestError) -> dict[str, Any]:
    if isinstance(outcome, RequestError):
        return {"error": problem_json(outcome.status, str(outcome))}
    return outcome.as_json()


@api.post(
    "/v1/why",
    summary="What each song of a sequence does for a recommended song",
    responses={200: ExplanationBody, **described(400, 404, 413, 415, 422, 503)},
)
def why(body: WhyBody) -> Response:
    """Answer {"song_id": 17, "model_id": ..., "weights": [{"song_id": 4, "weight": 1.2}, ...], "missing": null}.

    A weight says by how many score points the lead of the song over all others falls without that song of the sequence; below 0
    it speaks against it, null stands for a song that the model does not read.  `explain` of POST /v1/recommend names the three
    that count most.  404 no such song to explain; 422 a sequence that cannot be read; 503 no model.
    """
    service = service_of(current_app)
    service.recommender()
    model_id, weights = service.live.why(body.songs, body.song_id, body.listener)
    if weights is None:
        return jsonify(song_id=body.song_id, model_id=model_id, weights=[], missing=NOT_BY_A_MODEL)
    pairs = [{"song_id": song_id, "weight": weight} for song_id, weight in zip(body.songs, weights, strict=True)]
    return jsonify(song_id=body.song_id, model_id=model_id, weights=pairs, missing=None)


@api.get("/v1/songs", summary="Find songs by words", responses={200: FoundBody, **described(422, 503)})
def search(query: SearchQuery) -> Response:
    """Answer {"songs": [{"song_id": 17, "title": "...", "artist": "...", "album": "...", "features": {...}}]}, best match first.

    422 no words, or a count out of bounds; 503 no model.
    """
    service = service_of(current_app)
    count = checked_count(query.count, service.config.service)
    service.recommender()
    return jsonify(songs=service.live.search(query.q, count))


@api.get(
    "/v1/songs/<text:song_id>/similar",
    summary="The songs most like one",
    responses={200: AnswerBody, **described(404, 422, 503)},
)
def similar(path: SongPath, query: SimilarQuery) -> Response:
    """Answer like POST /v1/recommend, with the songs most like one, whoever made them: no rule is applied.

    404 no such song; 422 no id of this catalogue, or a count out of bounds; 503 no model.
    """
    service = service_of(current_app)
    count = checked_count(query.count, service.config.service)
    return jsonify(service.live.similar(service.recommender().id_from(path.song_id), count).as_json())


@api.post(
    "/v1/feedback",
    summary="What a listener did: played, skipped, liked, never again",
    responses={200: StoredBody, **described(400, 404, 413, 415, 422, 503)},
)
def feedback(body: FeedbackBody) -> Response:
    """Store {"listener": "u1", "events": [{"event": "skipped", "song_id": 17}]} and answer {"stored": 1}.

    Blocks and skips count from the listener's next request on.  An event that was sent before is not stored again.  422 what is
    no feedback; 404 a model that is not known; 503 no database.
    """
    service = service_of(current_app)
    with service.connection() as connection:
        return jsonify(stored=add_feedback(connection, [_feedback(body.listener, event) for event in body.events]))


def _feedback(listener: str, event: EventBody) -> Feedback:
    return Feedback(
        listener=listener,
        event=Event(event.event),
        song_id=None if event.song_id is None else str(event.song_id),
        artist_id=None if event.artist_id is None else str(event.artist_id),
        happened_at=event.happened_at,
        request_id=event.request_id,
        model_id=event.model_id,
        is_recommended=event.recommended,
        ms_played=event.ms_played,
    )


@api.get("/v1/requests/<int:request_id>", **_REQUEST)
@api.get("/requests/<int:request_id>", endpoint="get_request_unversioned", **_REQUEST)
def get_request(path: RequestPath) -> Response:
    """Answer {"request_id": 12, "playlist_id": "7", "status": "done", "songs": [...], "model_id": ...}.

    `status` is accepted, running, done or failed; a failed request has its `error`.  404 no such request; 503 no database.
    """
    service = service_of(current_app)
    return jsonify(_request_json(service, service.open_desk().look_up(path.request_id)))


def _request_json(service: Service, handled: Handled) -> dict[str, Any]:
    """A request as RequestBody describes it; song ids in the type that the model's catalogue has, where one is loaded."""
    status, recommender = handled.status, service.live.recommender
    plain: dict[str, Any] = {
        "request_id": status.request_id,
        "playlist_id": status.playlist_id,
        "status": "accepted" if status.state is State.QUEUED else status.state.value,
    }
    if status.state is State.FAILED:
        plain["error"] = status.error
    if status.state is State.DONE:
        plain["songs"] = [
            {
                "song_id": recommender.plain_id_from(song.song_id) if recommender else song.song_id,
                "rank": song.rank,
                "score": song.score,
                "reasons": song.reasons,
            }
            for song in handled.songs
        ]
        plain["model_id"] = handled.songs[0].model_id if handled.songs else None
        plain.update(status.facts or {})
    return plain
