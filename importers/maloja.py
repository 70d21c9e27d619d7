"""Reads the export of Maloja, a server for one's own scrobbles.

    {"maloja": {...}, "scrobbles": [{"time", "duration", "track": {"artists": [], "title", "album": {"albumtitle"}, "length"}}]}

`time` is when a song began, in seconds since 1970; `length` is that of the song, `duration` how long it was played, in seconds,
and both may be null.  The first artist is the song's, the others are its guests.  Before version 3 there was no track around
artists, title and album.  Which client sent a scrobble is not looked at.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import array_items
from importers.lists import in_order, suffix_of
from importers.policy import Policy, Verdict
from importers.records import Heard, Play, Record
from importers.tally import Tally


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_export, files))


def _is_export(file: TextFile) -> bool:
    head = file.head().lstrip() if suffix_of(file) == ".json" else ""
    return head.startswith("{") and '"scrobbles"' in head and ('"maloja"' in head or '"artists"' in head)


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        for number, value in array_items(file, at="scrobbles"):
            where = f"{file.name} record {number}"
            faults: list[str] = []
            try:
                play = _play(number, values.record_of(value), policy, faults)
            except ValueError as exc:
                tally.skip("plays", str(exc), where)
                continue
            for fault in faults:
                tally.empty(fault, where)
            yield play


def _play(number: int, record: Mapping[str, Any], policy: Policy, faults: list[str]) -> Play:
    """The play that a scrobble is.  Raises ValueError for what is none, and for one that is left out."""
    track = values.required(record, "track", values.record_of) if "track" in record else record
    length = values.optional(track, "length", values.seconds, faults)
    duration = values.optional(record, "duration", values.seconds, faults)
    heard = Heard(
        artist=values.required(track, "artists", _first_text),
        title=values.required(track, "title", values.text),
        album=values.optional(track, "album", _album, faults),
        duration_ms=round(1000 * length) if length else None,
    )
    ms_played = None if duration is None else round(1000 * duration)
    listened_at = values.required(record, "time", values.unix_time)
    if ms_played is not None and policy.judge(ms_played, heard.duration_ms, by_listener=False) is not Verdict.HEARD:
        raise ValueError(policy.too_short)
    return Play(
        line=number,
        heard=heard,
        listened_at=listened_at,
        ms_played=ms_played,
        skipped=None if ms_played is None else False,
    )


def _first_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, list):
        raise ValueError("is no array")
    return values.text(value[0]) if value else None


def _album(value: Any) -> str | None:
    """The title of an album, which stands in an object, or by itself."""
    return values.text(value.get("albumtitle") or value.get("name") if isinstance(value, dict) else value)


MALOJA = Format(name="maloja", title="Maloja export", recognise=_recognise, read=_read)
FORMATS = (MALOJA,)
