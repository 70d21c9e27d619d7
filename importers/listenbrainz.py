"""Reads a ListenBrainz export, or lines of a ListenBrainz dump.

    listens/2026/2.jsonl      a listen in each line, a file for each month
    feedback.jsonl            loved, hated, or taken back
    listens/2026/2.listens    of a dump, which tells the numbers of its listeners: each becomes one of its own, "listenbrainz:17"

`listened_at` is when a listen began.  Which recording it was is told by the mapping, which ListenBrainz made from the names, else
by who sent the listen; `track_mbid` is left alone, for clients mean different things by it.  `user.json`, pinned recordings and
the names of users are not looked at.

The fields: https://listenbrainz.readthedocs.io/en/latest/users/json.html
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import json_lines
from importers.lists import is_hidden, spotify_id, suffix_of
from importers.policy import Policy, Verdict
from importers.records import Heard, Opinion, Play, Record, Score
from importers.tally import Kind, Tally

SCORES: Mapping[int, Score] = {1: Score.LIKED, 0: Score.NONE, -1: Score.NEVER_AGAIN}
_A_MONTH = re.compile(r"(?:.*/)?listens/[0-9]{4}/[0-9]{1,2}\.(?:jsonl|listens)(?:\.gz)?")
_PLAIN_SPOTIFY_ID = re.compile(r"[0-9A-Za-z]{22}")
_NOTHING: Mapping[str, Any] = {}


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    """Listens by month, then feedback, when its songs are known."""
    listens = [file for file in files if _holds_listens(file)]
    feedback = [file for file in files if file not in listens and _holds_feedback(file)]
    return sorted(listens, key=_month) + sorted(feedback, key=_month)


def _holds_listens(file: TextFile) -> bool:
    if suffix_of(file) not in (".jsonl", ".listens") or is_hidden(file):
        return False
    if _A_MONTH.fullmatch(file.name):
        return True  # even a damaged one, so that its reader can say what is wrong
    head = file.head()
    return '"track_metadata"' in head and ('"listened_at"' in head or '"timestamp"' in head)


def _holds_feedback(file: TextFile) -> bool:
    if suffix_of(file) != ".jsonl" or is_hidden(file):
        return False
    head = file.head()
    return '"score"' in head and ('"recording_msid"' in head or '"recording_mbid"' in head)


def _month(file: TextFile) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"[0-9]{1,9}", "/".join(PurePosixPath(file.name).parts[-2:]))], file.name


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        kind: Kind = "plays" if _holds_listens(file) else "feedback"
        yield from _records(file, kind, policy, tally)


def _records(file: TextFile, kind: Kind, policy: Policy, tally: Tally) -> Iterator[Record]:
    for number, value in json_lines(file, skip=lambda reason, line: tally.skip(kind, reason, f"{file.name} line {line}")):
        where = f"{file.name} line {number}"
        faults: list[str] = []
        try:
            record = values.record_of(value)
            found = _play(number, record, policy, faults) if kind == "plays" else _opinion(number, record, faults)
        except ValueError as exc:
            tally.skip(kind, str(exc), where)
            continue
        for fault in faults:
            tally.empty(fault, where)
        yield found


def _play(number: int, record: Mapping[str, Any], policy: Policy, faults: list[str]) -> Play:
    """The play that a line is.  Raises ValueError for what is none, and for one that is left out."""
    listened_at = values.required(record, "listened_at" if "listened_at" in record else "timestamp", values.unix_time)
    metadata = values.required(record, "track_metadata", _inner)
    info = values.optional(metadata, "additional_info", _inner, faults) or _NOTHING
    heard = _song(record, metadata, info, faults)
    user = values.optional(record, "user_id", values.whole_number, faults)
    ms_played = _milliseconds(values.optional(info, "duration_played", values.seconds, faults))
    if ms_played is not None and policy.judge(ms_played, heard.duration_ms, by_listener=False) is not Verdict.HEARD:
        raise ValueError(policy.too_short)
    return Play(
        line=number,
        heard=heard,
        listened_at=listened_at,
        ms_played=ms_played,
        skipped=None if ms_played is None else False,
        listener=None if user is None else f"listenbrainz:{user}",
    )


def _song(record: Mapping[str, Any], metadata: Mapping[str, Any], info: Mapping[str, Any], faults: list[str]) -> Heard:
    """The song of a listen.  Raises ValueError where none is named."""
    mapping = values.optional(metadata, "mbid_mapping", _inner, faults) or _NOTHING
    heard = Heard(
        artist=values.optional(metadata, "artist_name", values.text, faults),
        title=values.optional(metadata, "track_name", values.text, faults),
        album=values.optional(metadata, "release_name", values.text, faults),
        spotify_id=values.optional(info, "spotify_id", _spotify_id, faults),
        recording_mbid=_mapped("recording_mbid", mapping, info, faults),
        isrc=values.optional(info, "isrc", values.text, faults),
        recording_msid=_mapped("recording_msid", record, metadata, faults),
        duration_ms=values.optional(info, "duration_ms", values.whole_number, faults)
        or _milliseconds(values.optional(info, "duration", values.seconds, faults)),
        artist_mbid=values.optional(mapping, "artist_mbids", _first_uuid, faults)
        or values.optional(info, "artist_mbids", _first_uuid, faults),
        release_mbid=_mapped("release_mbid", mapping, info, faults),
    )
    if not (heard.spotify_id or heard.recording_mbid or heard.isrc or heard.recording_msid or (heard.artist and heard.title)):
        raise ValueError("names no song")
    return heard


def _mapped(key: str, first: Mapping[str, Any], second: Mapping[str, Any], faults: list[str]) -> str | None:
    """The UUID in the first record that has one."""
    return values.optional(first, key, values.uuid, faults) or values.optional(second, key, values.uuid, faults)


def _opinion(number: int, record: Mapping[str, Any], faults: list[str]) -> Opinion:
    heard = Heard(
        recording_mbid=values.optional(record, "recording_mbid", values.uuid, faults),
        recording_msid=values.optional(record, "recording_msid", values.uuid, faults),
    )
    if not (heard.recording_mbid or heard.recording_msid):
        raise ValueError("names no song")
    return Opinion(
        line=number,
        heard=heard,
        score=values.required(record, "score", _score),
        happened_at=values.optional(record, "created", values.unix_time, faults),
    )


def _score(value: Any) -> Score:
    if type(value) is not int or value not in SCORES:  # True is an instance of int
        raise ValueError("is not 1, 0 or -1")
    return SCORES[value]


def _inner(value: Any) -> Mapping[str, Any] | None:
    return None if value is None else values.record_of(value)


def _first_uuid(value: Any) -> str | None:
    if value is not None and not isinstance(value, list):
        raise ValueError("is no array")
    return values.uuid(value[0]) if value else None


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)


def _spotify_id(value: Any) -> str | None:
    """The id, alone or in an address."""
    told = values.text(value)
    if told is None or _PLAIN_SPOTIFY_ID.fullmatch(told):
        return told
    found = spotify_id(told)
    if found is None:
        raise ValueError("is no Spotify track")
    return found


LISTENBRAINZ = Format(name="listenbrainz", title="ListenBrainz export", recognise=_recognise, read=_read)
FORMATS = (LISTENBRAINZ,)
