"""Reads M3U and M3U8: lists of files, one a line, with lines before them that tell what the next one is.

    #EXTM3U
    #PLAYLIST:Evening
    #EXTINF:218,The Piers - Low Tide        seconds, further attributes perhaps, artist and title
    #EXTALB:Harbour
    ../The Piers/Harbour/07 Low Tide.flac

There is no standard.  Paths may be absolute or relative, with slashes or as Windows writes them, or addresses.  A .m3u8 is
UTF-8, and so is a .m3u that can be read as that; any other is taken for Windows-1252, a superset of Latin-1, unless #EXTENC says
what it is.  A playlist of a video stream (HLS), which has the same ending, is none of ours.

Of a song these are asked, and the first that knows a field tells it: the tags of its file, where that lies in the folder that was
named for import, or below it; what #EXTINF, #EXTART and #EXTALB say; where none of them names the song, its path, as in
"The Piers - Low Tide.mp3" or "The Piers/Harbour/07 Low Tide.mp3".  From a zip nothing is unpacked, and no path in a playlist
leads to a file outside of the folder.  A list's id is the path of its file.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from errors import DataError
from importers import fields, values
from importers.audio_tags import tagged
from importers.files import TextFile, reading
from importers.formats import Format
from importers.lists import in_order, is_hidden, plain_name, shortened, spotify_id, suffix_of
from importers.locations import is_address, is_windows_path, stored_location
from importers.policy import Policy
from importers.records import Heard, Place, Record
from importers.tally import Tally

SUFFIXES = (".m3u", ".m3u8")
STREAM_MARKS = ("#EXT-X-TARGETDURATION", "#EXT-X-STREAM-INF", "#EXT-X-MEDIA-SEQUENCE")
FALLBACK_ENCODINGS = ("cp1252", "latin-1")  # five bytes mean nothing in the first; the other knows all
BETWEEN_ARTIST_AND_TITLE = " - "

_DIRECTIVE = re.compile(r"#([A-Za-z]+)[:\s](.*)")  # some programs forget the colon
# Seconds, further attributes whose values may hold a comma, artist and title.
_EXTINF = re.compile(r'\s*+(-?[0-9]++(?:\.[0-9]++)?+)?+(?:[^",]|"[^"]*")*+(?:,(.*))?')  # possessive: a long line takes no longer
_TRACK_NUMBER = re.compile(r"[0-9]{1,3}(?:-[0-9]{1,3})?(?:\s*[.)_-]\s*|\s+)(?=\S)")


class _Told(NamedTuple):
    """What the lines before a path say of it."""

    line: int = 0
    is_song: bool = False  # by #EXTINF
    text: str | None = None
    seconds: float | None = None
    artist: str | None = None
    """"": it is said that nobody is known."""
    album: str | None = None

    def with_directive(self, word: str, rest: str, line: int) -> "_Told":
        """The same with what one more line says."""
        match word:
            case "EXTINF":
                found = _EXTINF.fullmatch(rest)
                seconds, text = (found[1], found[2]) if found else (None, rest.partition(",")[2])
                known = float(seconds) if seconds else None
                return self._replace(line=line, is_song=True, text=_plain(text), seconds=known)
            case "EXTART":
                return self._replace(line=line, artist=_plain(rest) or "")
            case "EXTALB":
                return self._replace(line=line, album=_plain(rest))
        return self


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_playlist, files))


def _is_playlist(file: TextFile) -> bool:
    if suffix_of(file) not in SUFFIXES or is_hidden(file):
        return False
    head = file.head()
    return "\0" not in head and not any(mark in head for mark in STREAM_MARKS)


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        yield from _places(file, tally)


def _places(file: TextFile, tally: Tally) -> Iterator[Place]:
    folders = _Folders.of(file)
    name, told = plain_name(file), _Told()
    for line, text in enumerate(file.lines(_encoding(file)), start=1):
        stripped = text.strip()
        if stripped.startswith("#"):
            word, rest = _directive(stripped)
            if word == "EXTINF" and told.is_song:
                tally.skip("rows", "no file follows what is told of it", f"{file.name} line {told.line}")
                told = _Told()
            name = (_plain(rest) if word == "PLAYLIST" else None) or name
            told = told.with_directive(word, rest, line)
        elif stripped:
            heard = _song(stripped, told, folders, tally, f"{file.name} line {line}")
            told = _Told()
            if heard is not None:
                yield Place(line=line, playlist=shortened(file.name), heard=heard, name=name)
    if told.line:
        raise DataError(
            f"{file.name} ends after line {told.line}, which tells of a song that does not follow (cut off?): fetch it again"
        )


def _directive(text: str) -> tuple[str, str]:
    """The word behind # in capitals and what is said; ("", "") for a comment."""
    found = _DIRECTIVE.fullmatch(text)
    return (found[1].upper(), found[2]) if found else ("", "")


def _plain(text: str | None) -> str | None:
    """A text without blanks around it; None where there is none, or it cannot be stored."""
    try:
        return values.text((text or "").strip())
    except ValueError:
        return None


# --- where the files are -----------------------------------------------------------------------------------------------------


class _Folders(NamedTuple):
    """Where the paths of a playlist begin."""

    base: str
    """The folder of the playlist, which relative paths count from; within a zip that of the zip."""
    named: Path | None
    """The folder that was named for import: only there are files opened.  None: nowhere, the playlist is in a zip."""

    @classmethod
    def of(cls, file: TextFile) -> "_Folders":
        path = _own_path(file)
        if path is None:
            return cls(base=PurePosixPath(file.name).parent.as_posix(), named=None)
        path = path.parent.resolve() / path.name  # so that ".." leads where it leads players
        depth = len(PurePosixPath(file.name).parts)
        is_relative = path.parts[-depth:] == PurePosixPath(file.name).parts
        return cls(base=path.parent.as_posix(), named=path.parents[depth - 1] if is_relative else path.parent)

    def audio_file(self, location: str) -> Path | None:
        """The file at a location, where it may be opened."""
        if self.named is None or is_address(location) or not location.startswith("/"):
            return None
        try:
            path = Path(location).resolve()
            return path if path.is_relative_to(self.named.resolve()) and path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # a loop of links, a name that is too long, a NUL
            return None


def _own_path(file: TextFile) -> Path | None:
    """Where the playlist itself lies, None where that is within a zip."""
    if file.path is None:
        return None
    if file.path.is_dir():
        return file.path / file.name
    return file.path if file.path.name == file.base_name else None


# --- what is at a path -------------------------------------------------------------------------------------------------------


def _song(text: str, told: _Told, folders: _Folders, tally: Tally, where: str) -> Heard | None:
    linked = spotify_id(text)
    try:
        location = None if linked else fields.an_id(stored_location(text, folders.base))
    except ValueError as exc:
        tally.skip("rows", f"its path {exc}", where)
        return None
    path = folders.audio_file(location) if location else None
    tags = (tagged(path) if path else None) or Heard()
    named = _merged(tags, _told_song(told))
    if location and told.artist is None and not (named.artist or named.title):
        named = _merged(named, song_of_path(text if is_windows_path(text) or is_address(text) else location))
    return named._replace(location=location, spotify_id=linked)


def _merged(first: Heard, second: Heard) -> Heard:
    """The fields of the first, and of the second where the first has none."""
    return Heard._make(mine if mine is not None else other for mine, other in zip(first, second, strict=True))


def _told_song(told: _Told) -> Heard:
    artist, title = told.artist, told.text
    if artist is not None:
        title = title.removeprefix(artist + BETWEEN_ARTIST_AND_TITLE) if artist and title else title
    elif title and BETWEEN_ARTIST_AND_TITLE in title:
        artist, title = (_plain(part) for part in title.split(BETWEEN_ARTIST_AND_TITLE, 1))
    known = told.seconds is not None and 0 < told.seconds < fields.LARGEST_INTEGER / 1000  # -1: not known
    duration_ms = round(1000 * told.seconds) if known and told.seconds else None
    return Heard(artist=artist or None, title=title or None, album=told.album, duration_ms=duration_ms)


def song_of_path(path: str) -> Heard:
    """Artist, title and album as people name files and folders; what is not clear is left open.

    >>> song_of_path("/music/The Piers/Harbour/07 Low Tide.mp3")[:3]
    ('The Piers', 'Low Tide', 'Harbour')
    >>> song_of_path("07 - The Piers - Low Tide.mp3")[:3]
    ('The Piers', 'Low Tide', None)
    """
    if is_address(path):
        return Heard()
    pure = PureWindowsPath(path) if is_windows_path(path) else PurePosixPath(path)
    stem = _TRACK_NUMBER.sub("", pure.stem, count=1) if pure.suffix else _TRACK_NUMBER.sub("", pure.name, count=1)
    artist, dash, title = stem.partition(BETWEEN_ARTIST_AND_TITLE)
    if dash:
        return Heard(artist=_plain(artist), title=_plain(title)) if BETWEEN_ARTIST_AND_TITLE not in title else Heard()
    folders = [part for part in pure.parent.parts if part not in (pure.anchor, "..", ".")]
    if _TRACK_NUMBER.match(pure.stem) and len(folders) >= 2:  # only songs of an album are numbered
        return Heard(artist=_plain(folders[-2]), title=_plain(stem), album=_plain(folders[-1]))
    return Heard(title=_plain(stem))


# --- encodings ---------------------------------------------------------------------------------------------------------------


def _encoding(file: TextFile) -> str:
    """What the file is written in.  Raises DataError where it says something that nobody knows, or is cut within a letter."""
    said = re.search(r"^#EXTENC:\s*(\S+)", file.head(), re.MULTILINE | re.IGNORECASE)
    if said is not None and not said[1].lower().startswith("utf-8"):
        return _known_encoding(said[1], file)
    if suffix_of(file) == ".m3u8" or said is not None or _is_utf8(file):
        return "utf-8-sig"
    return next(encoding for encoding in FALLBACK_ENCODINGS if _is_readable(file, encoding))


def _known_encoding(name: str, file: TextFile) -> str:
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is None or not found._is_text_encoding:
        raise DataError(f"{file.name} says #EXTENC of an encoding that is not known: save it as UTF-8")
    return found.name


def _is_utf8(file: TextFile) -> bool:
    """Whether it can be read as UTF-8.  Raises DataError for one that is, up to a letter at its end that is cut."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    is_ascii = True
    with reading(file) as stream:
        try:
            while block := stream.read(65_536):
                is_ascii = decode(block).isascii() and is_ascii
        except UnicodeDecodeError:
            return False
    try:
        decode(b"", final=True)
    except UnicodeDecodeError:
        if is_ascii:
            return False
        raise DataError(f"{file.name} ends in the middle of a letter (cut off?): fetch it again") from None
    return True


def _is_readable(file: TextFile, encoding: str) -> bool:
    decode = codecs.getincrementaldecoder(encoding)().decode
    with reading(file) as stream:
        try:
            while block := stream.read(65_536):
                decode(block)
        except UnicodeDecodeError:
            return False
    return True


M3U = Format(name="m3u", title="M3U and M3U8 playlists", recognise=_recognise, read=_read)
FORMATS = (M3U,)
