"""Where the file of a song lies, in the one form in which it is stored: a path, or an address without what is private in it.

A relative path of a playlist counts from the folder of the playlist.  Two playlists that name one file then name one song, and a
playlist that is exported finds it again.
"""

import posixpath
import re
from pathlib import PureWindowsPath
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
# The parameters of an address that are kept: media servers name the song by them.  Others tell who is listening (Subsonic: u, p,
# t, s; Jellyfin, Plex: api_key, X-Plex-Token), and nobody knows all of their names.
KEPT_PARAMETERS = frozenset({"id", "itemid", "songid", "trackid"})


def is_address(text: str) -> bool:
    """Whether it is a URL of any kind."""
    return _SCHEME.match(text) is not None


def is_windows_path(text: str) -> bool:
    r"""Whether it begins like C:\ or \\server."""
    return _DRIVE.match(text) is not None


def stored_location(text: str, folder: str) -> str:
    r"""The form in which it is stored; `folder` is that of the playlist, with slashes.

    >>> stored_location("../b/./01.mp3", "/music/lists")
    '/music/b/01.mp3'
    >>> stored_location("file:///music/a%20b.mp3", "")
    '/music/a b.mp3'
    >>> stored_location("http://anna:secret@nas/rest/stream?u=anna&t=12ab&id=7", "")
    'http://nas/rest/stream?id=7'
    >>> stored_location(r"c:\music\..\a.mp3", "")
    'c:\\a.mp3'
    """
    if text.lower().startswith("file://"):
        return _of_file_address(text)
    if is_address(text):
        return without_private(text)
    if is_windows_path(text):
        return _windows(text)
    return posixpath.normpath(posixpath.join(folder, with_slashes(text)))


def with_slashes(path: str) -> str:
    r"""A relative path as Windows writes it with slashes; any other path as it is.

    >>> with_slashes(r"Nova\Dawn\01 Rise.mp3")
    'Nova/Dawn/01 Rise.mp3'
    """
    return path if "/" in path or is_windows_path(path) else path.replace("\\", "/")


def without_private(address: str) -> str:
    """An address without user, password, and those parameters that tell who asks; as it is where it cannot be taken apart."""
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
        asked = parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True)
    except ValueError:
        return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]
    query = urlencode([(name, value) for name, value in asked if name.lower() in KEPT_PARAMETERS])
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


def _of_file_address(address: str) -> str:
    path = unquote(address[len("file://") :])  # a # that should have been %23 is part of a name
    host, slash, rest = path.partition("/")
    path = slash + rest if host in ("", "localhost") else f"//{path}"
    if is_windows_path(path.removeprefix("/")):
        return _windows(path.removeprefix("/"))
    return posixpath.normpath(path)


def _windows(path: str) -> str:
    pure = PureWindowsPath(path)
    kept: list[str] = []
    for part in pure.parts[1:]:
        if part == "..":
            del kept[-1:]
        else:
            kept.append(part)
    return str(PureWindowsPath(pure.anchor, *kept))
