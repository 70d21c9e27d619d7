"""The page: one HTML file, a script in small modules, its styles, all served from here and nothing from elsewhere.

The files hold no data and no secret.  Whoever may reach the service may read them, also without an API key; what they show is
asked of /v1 by the browser, with the key of whoever looks.
"""

from pathlib import PurePosixPath

from flask import Blueprint, Response, abort, render_template, request, send_from_directory

from config import ServiceConfig

NAME = "page"
# What is answered without a key, to GET and HEAD alone.
OPEN_ENDPOINTS = frozenset({f"{NAME}.index", f"{NAME}.static"})

# Its own scripts and styles, nothing inline; only its own service is asked.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

# Named here, since some systems tell Python other types, and a browser that may not guess runs no script of another type.
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_blueprint(config: ServiceConfig) -> Blueprint:
    """The routes / and /static/...; `config` gives the fields of the page their defaults and bounds."""
    page = Blueprint(NAME, __name__, template_folder="templates")

    @page.get("/", endpoint="index")
    def index() -> Response:
        response = Response(render_template("page.html", settings=config), mimetype="text/html")
        response.add_etag()
        response.headers["Cache-Control"] = "no-cache"  # kept, and asked for again: an upgrade shows at once
        response.make_conditional(request)
        return response

    @page.get("/static/<path:filename>", endpoint="static")
    def static(filename: str) -> Response:
        mimetype = TYPES.get(PurePosixPath(filename).suffix)
        if mimetype is None:
            abort(404)
        return send_from_directory(f"{page.root_path}/static", filename, mimetype=mimetype)

    return page
