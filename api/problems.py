"""The one way out for errors: application/problem+json (RFC 9457), one line that names the value, the bound and the way out."""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, g, request
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import HTTPException

from api.bodies import KNOWN_BODIES, ProblemBody
from api.figure_bodies import KNOWN_FIGURE_BODIES
from errors import DatabaseError, QueueFull, RequestError, TooManyRequests, Unauthorised
from serving.controls import LONGEST_ECHO

RETRY_AFTER_SECONDS = 5  # sent with 503: about as long as a database takes to come back
LONGEST_DETAIL = 2_000  # signs; a message that repeats what was sent stays readable
EXAMPLE_BODY = '{"songs": ["id of a song", "id of the next"]}'

_KEY = re.compile(r"b4mr_[\w-]+")
_BODIES = {body.__name__: body for body in (*KNOWN_BODIES, *KNOWN_FIGURE_BODIES)}


def problem(status: int, detail: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """An error as an answer; 503 also says when to come back."""
    body = problem_json(status, detail)
    response = current_app.response_class(current_app.json.dumps(body), status, mimetype="application/problem+json")
    response.headers.extend(headers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    g.detail = body["detail"]
    return response


def problem_json(status: int, detail: str) -> dict[str, Any]:
    """{"type", "title", "status", "detail", "instance"}; the detail in one line, without anything that looks like a key."""
    plain = without_keys(" ".join(detail.split()))[:LONGEST_DETAIL]
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": plain, "instance": g.request_id}


def without_keys(text: str) -> str:
    """A text that may be logged even if somebody put an API key where none belongs."""
    return _KEY.sub("b4mr_...", text) if "b4mr_" in text else text


def described(*statuses: int) -> dict[str | int, Any]:
    """The OpenAPI description of error answers."""
    schema = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": {"schema": schema}}}
        for status in statuses
    }


def handle_errors(app: Flask) -> None:
    """Turn what is raised while a request is handled into problems."""
    app.register_error_handler(RequestError, request_problem)
    app.register_error_handler(DatabaseError, _database_problem)
    app.register_error_handler(ValidationError, invalid_input)
    app.register_error_handler(HTTPException, _http_problem)


def request_problem(exc: RequestError) -> Response:
    """A request that cannot be answered; some say when it may be sent again, or how to show a key."""
    headers = []
    if isinstance(exc, QueueFull | TooManyRequests):
        headers.append(("Retry-After", str(exc.retry_after_seconds)))
    if isinstance(exc, Unauthorised):
        headers.append(("WWW-Authenticate", "Bearer"))
    g.limited = isinstance(exc, TooManyRequests)
    return problem(exc.status, str(exc), headers)


def _database_problem(exc: DatabaseError) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(exc))


def _http_problem(exc: HTTPException) -> Response:
    """Whatever Flask itself refuses: unknown address, wrong method, too large, no JSON, and our own mistakes (500)."""
    detail = _explanation(exc)
    headers = [(name, value) for name, value in exc.get_headers() if name not in ("Content-Type", "Content-Length")]
    return problem(exc.code or HTTPStatus.INTERNAL_SERVER_ERROR, detail, headers)


def _explanation(exc: HTTPException) -> str:
    """What was wrong and the way out, in one line."""
    match exc.code:
        case HTTPStatus.BAD_REQUEST:
            return f"the body is not JSON ({_json_fault()}): send one object, as in {EXAMPLE_BODY}"
        case HTTPStatus.NOT_FOUND:
            return f"there is nothing at {_shortened(request.path)}: try POST /v1/recommend, or /openapi for all paths"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(sorted(getattr(exc, "valid_methods", None) or ["another method"]))
            return f"{_shortened(request.path)} does not take {_shortened(request.method)}: use {methods}"
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            sent = _shortened(request.content_type or "not set")
            return f"the Content-Type is {sent}: send application/json (curl: -H 'Content-Type: application/json')"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return f"the body is over max_body_bytes ({current_app.config['MAX_CONTENT_LENGTH']}): send the newest songs only"
        case _:
            return exc.description or ""


def _json_fault() -> str:
    """Where the body stops being JSON, in a few words."""
    try:
        json.loads(request.get_data(cache=True))
    except (ValueError, RecursionError) as exc:
        return str(exc)
    except HTTPException:  # the body could not be read to its end
        return "it ends too early"
    return "it cannot be read"


def invalid_input(exc: ValidationError) -> Response:
    """The first thing that is wrong with a body, path or query; the whole list would repeat it for every song."""
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, _told(exc.errors(include_url=False, include_context=False)[0], exc.title))


def _told(first: ErrorDetails, title: str) -> str:
    place = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return f"unknown field {place!r}: known are {', '.join(_BODIES[title].model_fields)}"
    if first["type"] == "extra_forbidden":
        return f"unknown field {place!r}"
    if first["type"] == "missing":
        return f"{place}: it is required"
    return f"{place}: {said} (got {_echo(first['input'])})" if place and _is_short(first["input"]) else _located(place, said)


def _is_short(value: Any) -> bool:
    """Whether a value says something by itself: an object that some rule was broken by does not."""
    return not isinstance(value, Mapping)


def _located(place: str, said: str) -> str:
    return f"{place}: {said}" if place else said


def _echo(value: Any) -> str:
    return _shortened(current_app.json.dumps(value))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_ECHO else f"{text[: LONGEST_ECHO - 3]}..."
