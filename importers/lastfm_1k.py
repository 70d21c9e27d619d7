"""Reads Lastfm-1K, the listening habits of about a thousand people until 2009, a set for research.

    userid-timestamp-artid-artname-traid-traname.tsv    user_000001, 2009-05-04T23:08:57Z, MBID, artist, MBID, title; with tabs

Each pseudonym becomes a listener of its own, "lastfm-1k:user_000001".  The MBIDs are left alone, for they are Last.fm's, see
`importers.lastfm`.  The file with age, sex and country of each is not looked at.

http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html
"""

import re
from collections.abc import Iterator, Sequence

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.lines import whole_lines
from importers.lists import in_order
from importers.policy import Policy
from importers.records import Heard, Play, Record
from importers.tally import Tally

COLUMNS = ("user", "time", "artist_mbid", "artist", "track_mbid", "title")
_BEGINNING = re.compile(r"[^\t\n]+\t[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z\t[0-9a-f-]*\t[^\t\n]*\t[0-9a-f-]*\t[^\t\n]*")


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(file for file in files if _BEGINNING.match(file.head()))


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        for number, line in whole_lines(file):
            try:
                play = _play(number, line.split("\t"))
            except ValueError as exc:
                tally.skip("plays", str(exc), f"{file.name} line {number}")
            else:
                yield play


def _play(number: int, cells: Sequence[str]) -> Play:
    if len(cells) != len(COLUMNS):
        raise ValueError("wrong number of fields")
    row = dict(zip(COLUMNS, cells, strict=True))
    user = values.required(row, "user", values.text)
    listened_at = values.required(row, "time", values.utc_time)
    heard = Heard(artist=values.required(row, "artist", values.text), title=values.required(row, "title", values.text))
    return Play(line=number, heard=heard, listened_at=listened_at, listener=f"lastfm-1k:{user}")


LASTFM_1K = Format(name="lastfm-1k", title="Lastfm-1K, a set for research", recognise=_recognise, read=_read)
FORMATS = (LASTFM_1K,)
