"""The OpenAPI description, with the limits of this service's settings in it, and the page to try it, which needs no CDN."""

from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3_swagger.templates import swagger_html_string
from werkzeug.routing import PathConverter

from api.access import nonce
from api.bodies import ProblemBody
from api.catalogue_routes import catalogue
from api.figure_routes import figures
from api.manage_routes import manage
from api.problems import described, invalid_input
from api.routes import api
from config import ServiceConfig
from web import page_blueprint

DESCRIPTION = "Continues playlists that live in PostgreSQL."
KEY_SCHEME = "key"
_MANAGED_PATHS = ("/v1/models/{model_id}/activate", "/v1/models/rollback")


class TextConverter(PathConverter):
    """Any text, slashes at its ends and in a row included: ids are the user's own."""

    regex = "(?s:.+?)"
    part_isolating = False


def new_openapi(import_name: str) -> OpenAPI:
    """An app without routes, whose errors and addresses are ours."""
    app = OpenAPI(
        import_name,
        info=Info(title="BERT4MusicRec", version="1", description=DESCRIPTION),
        security_schemes={},
        validation_error_model=ProblemBody,
        validation_error_callback=invalid_input,
        static_folder=None,
    )
    app.url_map.merge_slashes = False
    app.url_map.converters["text"] = TextConverter
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # nobody is told what another site might do here
    # The validator of Swagger UI would ask a server on the internet.
    app.config["SWAGGER_CONFIG"] = {"validatorUrl": None}
    app.config["SWAGGER_HTML_STRING"] = swagger_html_string.replace("<script>", '<script nonce="{{ nonce() }}">')
    app.jinja_env.globals["nonce"] = nonce
    return app


def add_routes(app: OpenAPI, config: ServiceConfig, *, needs_key: bool) -> None:
    """All routes, and their description."""
    app.register_api(api)
    app.register_api(catalogue)
    app.register_api(figures)
    app.register_api(manage)
    app.register_blueprint(page_blueprint(config))  # no part of the description
    if needs_key:
        app.security_schemes = {KEY_SCHEME: {"type": "http", "scheme": "bearer", "bearerFormat": "b4mr_ID_SECRET"}}
        app.openapi_extensions = {"security": [{KEY_SCHEME: []}]}
    app.generate_spec_json()  # type: ignore[no-untyped-call]
    _describe_limits(app.spec_json, config)
    _drop_untrue(app.spec_json["paths"])
    _describe_access(app.spec_json["paths"], needs_key=needs_key)


def _describe_limits(description: dict[str, Any], config: ServiceConfig) -> None:
    """What the settings bound, so that whoever reads the description need not try."""
    schemas = description["components"]["schemas"]
    for name in ("RecommendBody", "BatchBody"):
        _bounded(schemas[name]["properties"]["count"], "integer", minimum=1, maximum=config.max_count)
    for path in ("/v1/songs", "/v1/songs/{song_id}/similar", "/v1/playlists"):
        for parameter in description["paths"][path]["get"]["parameters"]:
            if parameter["name"] == "count":
                _bounded(parameter["schema"], "integer", minimum=1, maximum=config.max_count)
    _bounded(schemas["RecommendBody"]["properties"]["songs"], "array", minItems=1, maxItems=config.max_songs)
    _bounded(schemas["WhyBody"]["properties"]["songs"], "array", minItems=1, maxItems=config.max_songs)
    _bounded(schemas["PlaylistBody"]["properties"]["songs"], "array", minItems=1, maxItems=config.max_songs)
    _bounded(schemas["BatchBody"]["properties"]["sequences"], "array", maxItems=config.max_batch)
    _bounded(schemas["LookupBody"]["properties"]["song_ids"], "array", maxItems=config.max_songs)


def _drop_untrue(paths: dict[str, Any]) -> None:
    """flask-openapi3 adds 422 to every route, also to those that nothing wrong can be sent to; ours are problems."""
    for item in paths.values():
        for operation in item.values():
            if "application/json" in operation["responses"]["422"]["content"]:
                del operation["responses"]["422"]


def _bounded(schema: dict[str, Any], kind: str, **bounds: int) -> None:
    """Add bounds to the part of a schema that is of one type."""
    for part in schema.get("anyOf", [schema]):
        if part.get("type") == kind:
            part.update(bounds)


def _describe_access(paths: dict[str, Any], *, needs_key: bool) -> None:
    """What refuses a request on any route: its key, or where none is needed its host."""
    for path, item in paths.items():
        of_keys = (401, 403, 429, 503) if path in _MANAGED_PATHS else (401, 429, 503)
        statuses = of_keys if needs_key else (421,)
        for operation in item.values():
            for status, answer in described(*statuses).items():
                operation["responses"].setdefault(str(status), answer)
