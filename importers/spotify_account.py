"""Reads the history in Spotify's account data, which comes within days of asking for it and tells the last year.

    StreamingHistory_music_0.json       one array of plays; older exports: StreamingHistory0.json
    StreamingHistory_podcast_0.json     left aside, as are audiobooks

`endTime` is the minute in which a play ended, in UTC, so it began about `msPlayed` before.  A song has no id here, only artist
and title, and nothing says why a play ended: a short one is left out, for it may be anything.  In older exports the episodes of
podcasts stand among the songs, and nothing tells them apart.

The fields: https://support.spotify.com/article/understanding-my-data
"""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import array_items
from importers.lists import in_order, suffix_of
from importers.policy import Policy, Verdict
from importers.records import Heard, Play, Record
from importers.tally import Tally

SECONDS_PER_MINUTE = 60.0
UNKNOWN = ("Unknown Artist", "Unknown Track")  # what Spotify writes where it has no name any more
_NAME = re.compile(r"streaminghistory(?:_music)?_?[0-9]*\.json(?:\.gz)?", re.IGNORECASE)


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_history, files))


def _is_history(file: TextFile) -> bool:
    if suffix_of(file) != ".json":
        return False
    if _NAME.fullmatch(file.base_name):
        return True  # even a damaged one, so that its reader can say what is wrong
    head = file.head()
    return head.lstrip().startswith("[") and all(f'"{key}"' in head for key in ("endTime", "artistName", "trackName", "msPlayed"))


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        for number, record in array_items(file):
            try:
                play = _play(number, record, policy)
            except ValueError as exc:
                tally.skip("plays", str(exc), f"{file.name} record {number}")
            else:
                yield play


def _play(number: int, value: Any, policy: Policy) -> Play:
    """The play that a record is.  Raises ValueError for what is none, and for one that is left out."""
    record = values.record_of(value)
    artist = values.required(record, "artistName", values.text)
    title = values.required(record, "trackName", values.text)
    if (artist, title) == UNKNOWN:
        raise ValueError("is of an unknown track")
    ms_played = values.required(record, "msPlayed", values.whole_number)
    ended_at = values.required(record, "endTime", values.utc_time)
    if policy.judge(ms_played, None, by_listener=False) is not Verdict.HEARD:
        raise ValueError(policy.too_short)
    return Play(
        line=number,
        heard=Heard(artist=artist, title=title),
        listened_at=ended_at - timedelta(milliseconds=ms_played),
        ms_played=ms_played,
        skipped=False,
    )


SPOTIFY_ACCOUNT = Format(
    name="spotify-account",
    title="Spotify account data: listening history",
    recognise=_recognise,
    read=_read,
    precision_seconds=SECONDS_PER_MINUTE,
    covered_by="spotify",  # whose private sessions were left out there and cannot be told from others here
)
FORMATS = (SPOTIFY_ACCOUNT,)
