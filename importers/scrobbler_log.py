"""Reads .scrobbler.log, which Rockbox and other players write where there is no network.

    #AUDIOSCROBBLER/1.1
    #TZ/UTC                  or UNKNOWN
    #CLIENT/Rockbox ...
    artist  album  title  track number  seconds  L or S  time  MBID       with tabs between them

L was listened to, S was skipped, by the player's own measure; the time is when the song began.  A player that does not know its
zone counts the seconds of its own clock, which is taken for UTC: its plays may be some hours off, in the right order.  The MBID
comes from the tags of the song's file, where it is the recording's.  Version 1.0 has none.

The format: https://web.archive.org/web/20170107015006/http://www.audioscrobbler.net/wiki/Portable_Player_Logging
"""

from collections.abc import Iterator, Sequence

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.lines import whole_lines
from importers.lists import in_order
from importers.policy import Policy
from importers.records import Heard, Play, Record
from importers.tally import Tally

COLUMNS = ("artist", "album", "title", "track_number", "seconds", "rating", "time", "recording_mbid")
IS_SKIP = {"L": False, "S": True}
_BEGINNING = "#AUDIOSCROBBLER/"


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(file for file in files if file.head().startswith(_BEGINNING))


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        for number, line in whole_lines(file):
            if line.startswith("#"):
                continue
            where = f"{file.name} line {number}"
            faults: list[str] = []
            try:
                play = _play(number, line.split("\t"), faults)
            except ValueError as exc:
                tally.skip("plays", str(exc), where)
                continue
            for fault in faults:
                tally.empty(fault, where)
            yield play


def _play(number: int, cells: Sequence[str], faults: list[str]) -> Play:
    if len(cells) not in (len(COLUMNS) - 1, len(COLUMNS)):
        raise ValueError("wrong number of fields")
    row = dict(zip(COLUMNS, cells, strict=False))
    if row["rating"] not in IS_SKIP:
        raise ValueError("rating is neither L nor S")
    seconds = values.optional(row, "seconds", values.seconds, faults)
    heard = Heard(
        artist=values.required(row, "artist", values.text),
        title=values.required(row, "title", values.text),
        album=values.optional(row, "album", values.text, faults),
        recording_mbid=values.optional(row, "recording_mbid", values.uuid, faults),
        duration_ms=round(1000 * seconds) if seconds else None,
        track_number=values.optional(row, "track_number", values.whole_number, faults),
    )
    listened_at = values.required(row, "time", values.unix_time)
    return Play(line=number, heard=heard, listened_at=listened_at, skipped=IS_SKIP[row["rating"]])


SCROBBLER_LOG = Format(
    name="scrobbler-log", title=".scrobbler.log of Rockbox and other players", recognise=_recognise, read=_read
)
FORMATS = (SCROBBLER_LOG,)
