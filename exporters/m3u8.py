"""Writes M3U8, which players open: the paths of the songs' own files, with artist, title and length before them.

Paths are relative to the folder of the playlist where both lie below one folder, so that both can be moved together; else they
are absolute.  What a line cannot hold (a line end in a path) is written as an address.  Songs whose file is not known are left
out, since a player would stop at them, and named in comments at the end.

#EXTART and #EXTALB are there for whoever reads the list back: " - " between artist and title may stand in either of them.
"""

import posixpath
import re
from pathlib import Path
from urllib.parse import quote

from exporters.playlist import ExportedList, ExportedSong, Exporter, Target, Written, numbered, one_line

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LETTER_AND_COLON = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # of a drive or an address
# Without blanks at its ends, which players take off.
_ONE_LINE = re.compile(r"\S(?:[^\r\n\v\f\x1c-\x1e\x85\u2028\u2029]*\S)?")
_PRINTABLE = "".join(map(chr, range(33, 127)))


def write_m3u8(exported: ExportedList, target: Target) -> Written:
    """The list as M3U8, in UTF-8 without a byte order mark."""
    lines = ["#EXTM3U", "#EXTENC: UTF-8", f"#PLAYLIST:{one_line(exported.name)}"]
    left_out = []
    for place, song in enumerate(exported.songs, start=1):
        path = written_path(song.location, target.folder) if song.location else None
        if path is None:
            left_out.append((place, song))
        else:
            lines += [*_told(song), path]
    notes: tuple[str, ...] = ()
    if left_out:
        notes = (
            f"{len(left_out)} of {len(exported.songs)} songs are left out, no file of theirs is known: {numbered(left_out)}",
        )
        lines += [f"# {notes[0]}", *(f"# {place}: {song.label}" for place, song in left_out)]
    return Written(text="\n".join(lines) + "\n", notes=notes)


def _told(song: ExportedSong) -> list[str]:
    artist, title, album = one_line(song.artist), one_line(song.title), one_line(song.album)
    seconds = -1 if song.duration_ms is None else (song.duration_ms + 500) // 1000 or -1
    name = f"{artist} - {title}" if artist and title else title
    return [f"#EXTINF:{seconds},{name}", f"#EXTART:{artist}", *([f"#EXTALB:{album}"] if album else [])]


def written_path(location: str, folder: Path | None) -> str | None:
    """A location as a line of a playlist that lies in `folder`; None for one that no line can hold."""
    is_one_line = _ONE_LINE.fullmatch(location) is not None
    if _ADDRESS.match(location):
        return location if is_one_line else quote(location, safe=_PRINTABLE)
    if location.startswith("/"):
        if not is_one_line:
            return f"file://{quote(location)}"
        return location if folder is None or location.startswith("//") else _relative(location, folder.resolve().as_posix())
    if location.startswith("#") or not is_one_line:
        location = f"./{location}"
    return location if _ONE_LINE.fullmatch(location) else None


def _relative(location: str, folder: str) -> str:
    """A path as seen from a folder, where both lie below another one than the root."""
    if posixpath.commonpath([location, folder]) == "/":
        return location
    path = posixpath.relpath(location, folder)
    # What would be taken for a comment, an address, a path as Windows writes it, or loses its first blank.
    is_odd = path.startswith("#") or path[:1].isspace() or _LETTER_AND_COLON.match(path) or ("\\" in path and "/" not in path)
    return f"./{path}" if is_odd else path


M3U8 = Exporter(
    extension="m3u8",
    media_type="audio/x-mpegurl",
    other_media_types=("audio/mpegurl", "application/x-mpegurl", "application/vnd.apple.mpegurl"),
    title="M3U8, which players open",
    write=write_m3u8,
)
