"""What the readers of playlists share: ids for lists that have none, names for lists whose file has one, links to songs."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from uuid import UUID

from importers.files import TextFile

# Leaves room for a service's name before it within fields.MAX_ID_CHARACTERS.
MAX_LIST_ID_CHARACTERS = 300
UNNAMED = "unnamed list"

_SPOTIFY_TRACK = re.compile(
    r"(?:spotify:track:|https?://open\.spotify\.com/(?:intl-[a-z-]+/)?track/)([0-9A-Za-z]{22})(?:[?#].*)?"
)
_MUSICBRAINZ = re.compile(r"https?://(?:[a-z]+\.)?musicbrainz\.org/([a-z-]+)/([0-9A-Fa-f-]{36})/?(?:[?#].*)?")


class ListIds:
    """Makes an id of a list's name; lists of the same name are numbered in the order in which they come.

    The number tells them apart by nothing but that order: where one of them was deleted, the next import gives its id to the
    next one.  A list keeps its id while songs are added to it and taken out, which no digest of its songs would do.

    >>> ids = ListIds()
    >>> [ids.of(name) for name in ("Run", "Run", "Run (2)")]
    ['Run', 'Run (2)', 'Run (2) (2)']
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._times: dict[str, int] = {}

    def of(self, name: str | None) -> str:
        """The id of the next list of that name."""
        plain = shortened(name or UNNAMED)
        found = plain
        while found in self._taken:
            self._times[plain] = self._times.get(plain, 1) + 1
            found = f"{plain} ({self._times[plain]})"
        self._taken.add(found)
        return found


def shortened(name: str) -> str:
    """A name that can be an id; the end of one that is too long is replaced by a digest of the whole."""
    if len(name) <= MAX_LIST_ID_CHARACTERS:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{name[: MAX_LIST_ID_CHARACTERS - len(digest) - 1]}~{digest}"


def plain_name(file: TextFile) -> str:
    """The last part of a file's name without its endings.

    >>> import io
    >>> plain_name(TextFile(name="lists/Late. Evening.csv.gz", open=io.BytesIO))
    'Late. Evening'
    """
    return PurePosixPath(file.base_name.removesuffix(".gz")).stem


def suffix_of(file: TextFile) -> str:
    """The ending of a file's name in small letters, that of compression aside."""
    return PurePosixPath(file.base_name.removesuffix(".gz")).suffix.lower()


def is_hidden(file: TextFile) -> bool:
    """Whether a file's name begins with a dot, as do those that macOS puts beside each file of a zip or a foreign disk."""
    return file.base_name.startswith(".")


def in_order(files: Iterable[TextFile]) -> list[TextFile]:
    """Sorted by name, numbers in it by their size: Playlist2.json before Playlist10.json."""
    return sorted(files, key=lambda file: ([int(digits) for digits in re.findall(r"[0-9]{1,9}", file.base_name)], file.name))


def spotify_id(link: str) -> str | None:
    """The 22 letters and digits of spotify:track:... or of a link to a track; None for anything else.

    >>> spotify_id("https://open.spotify.com/track/5Q7vla0EpIHVcEL9SuE0Ka?si=1")
    '5Q7vla0EpIHVcEL9SuE0Ka'
    """
    found = _SPOTIFY_TRACK.fullmatch(link.strip())
    return found[1] if found else None


def musicbrainz_id(link: str, kind: str) -> str | None:
    """The UUID of an address at MusicBrainz of that kind ("recording", "artist", "release"); None for anything else."""
    found = _MUSICBRAINZ.fullmatch(link.strip())
    if found is None or found[1] != kind:
        return None
    try:
        return str(UUID(found[2]))
    except ValueError:
        return None
