"""The URL of a database: as the environment names it, and without its secrets.

A server is named by DATABASE_URL, by POSTGRES_* as images of PostgreSQL have them, or by what libpq itself reads.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlencode

# Names without our prefix that people already have in their environment; each of them names a server, or a database on one.
_FOREIGN_VARIABLES = (
    "DATABASE_URL", "POSTGRES_HOST", "POSTGRES_DB",
    "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE",
)  # fmt: skip
# Parameters of a libpq URL that are secrets themselves.
_SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_HOST = r"(\[[\w:.%]*\]|[^][:/?@,]*)(:\d*)?"  # a port that is no number is the rest of a password
_ADDRESS = re.compile(rf"{_HOST}(,{_HOST})*(/[^:/?@]*)?")
_PARAMETER = re.compile(r"[^=@]+=[^=@]*")


def database_url_from(environ: Mapping[str, str]) -> str | None:
    """The server that the environment names: DATABASE_URL, else POSTGRES_*, else libpq's own variables, else None.

    >>> database_url_from({"POSTGRES_HOST": "db", "POSTGRES_DB": "music", "POSTGRES_USER": "me", "POSTGRES_PASSWORD": "p@ss"})
    'postgresql://me:p%40ss@db/music'
    """
    if environ.get("DATABASE_URL"):
        return environ["DATABASE_URL"]
    if not any(environ.get(name) for name in _FOREIGN_VARIABLES):
        return None
    # libpq reads PG* itself where the URL is silent; POSTGRES_* are spelled out because libpq does not know them.
    user, password = environ.get("POSTGRES_USER", ""), environ.get("POSTGRES_PASSWORD", "")
    host, port, name = environ.get("POSTGRES_HOST", ""), environ.get("POSTGRES_PORT", ""), environ.get("POSTGRES_DB", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = {"host": host} if host.startswith("/") else {}
    address = ("" if host.startswith("/") else host) + (f":{port}" if port else "")
    return f"postgresql://{login}{'@' if login else ''}{address}/{quote(name, safe='')}{'?' + urlencode(query) if query else ''}"


def without_password(url: str) -> str:
    """The URL without its secrets, for files and messages; of one that cannot be taken apart only the scheme is left.

    >>> without_password("postgresql://me:secret@db/music?sslmode=require&password=secret")
    'postgresql://me@db/music?sslmode=require'
    """
    scheme, separator, rest = url.partition("://")
    login, at, address = rest.partition("@")
    if not at or "/" in login:  # as libpq reads it, a login ends before the first slash
        login, at, address = "", "", rest
    address, _, query = address.partition("?")
    parameters = query.split("&") if query else []
    if not separator or not _ADDRESS.fullmatch(address) or not all(map(_PARAMETER.fullmatch, parameters)):
        return f"{scheme}://..." if separator else "..."
    kept = [parameter for parameter in parameters if unquote(parameter.partition("=")[0]).lower() not in _SECRET_PARAMETERS]
    return f"{scheme}://{login.partition(':')[0]}{at}{address}{'?' if kept else ''}{'&'.join(kept)}"
