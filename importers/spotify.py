"""Reads Spotify's extended streaming history, the export that takes up to 30 days to arrive and goes back to the first day.

    Streaming_History_Audio_2019-2020_3.json   one array of plays, about 12 MB each; older exports: endsong_0.json
    Streaming_History_Video_2018-2024.json     left aside

`ts` is when a play ended, in UTC, so it began `ms_played` before.  What the listener left early is a skip and kept; what a
crash, a logout or Spotify itself ended early is left out.  `skipped` is null in some years, and `reason_end` is "none" throughout
another, so either of them is enough.  Podcasts and audiobooks are counted and left out.  Address, country, user name and
device stand in each record and are not looked at.

The fields: https://support.spotify.com/article/understanding-my-data
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from importers import values
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import array_items
from importers.policy import Policy, Verdict
from importers.records import Heard, Play, Record
from importers.tally import Tally

# A play that ends so was left by the listener for another song.  Not "backbtn": who goes back has not had enough of the song.
LEFT_FOR_ANOTHER = frozenset({"fwdbtn", "clickrow", "clickside", "playbtn", "remote", "endplay", "popup"})
TRACK_URI = re.compile(r"spotify:track:([0-9A-Za-z]{22})")
# A listener's songs come again and again: making each once doubles the speed.  An entry takes about a kilobyte.
SONGS_KEPT = 32_768


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return sorted(filter(_is_history, files), key=lambda file: number_in_name(file.base_name))


def _is_history(file: TextFile) -> bool:
    name = file.base_name.lower()
    if not name.endswith(".json") or name.startswith(".") or "streaming_history_video" in name:
        return False
    if "streaming_history_audio" in name or name.startswith("endsong"):
        return True  # even a damaged one, so that its reader can say what is wrong
    head = file.head()
    return head.lstrip().startswith("[") and all(f'"{key}"' in head for key in ("ts", "ms_played", "spotify_track_uri"))


def number_in_name(name: str) -> tuple[list[int], str]:
    """Sorts files of one export by the numbers in their names.

    >>> sorted(["endsong_10.json", "endsong_9.json"], key=number_in_name)
    ['endsong_9.json', 'endsong_10.json']
    """
    return [int(digits) for digits in re.findall(r"[0-9]{1,9}", name)], name


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    for file in files:
        for number, record in array_items(file):
            try:
                play, faults = _play(number, values.record_of(record), policy)
            except ValueError as exc:
                tally.skip("plays", str(exc), f"{file.name} record {number}")
                continue
            for fault in faults:
                tally.empty(fault, f"{file.name} record {number}")
            yield play


def _play(number: int, record: Mapping[str, Any], policy: Policy) -> tuple[Play, Sequence[str]]:
    """The play, and what is wrong with those of its fields that it can do without.  Raises ValueError for what is no play."""
    get = record.get
    if get("incognito_mode") is True and not policy.keep_incognito:
        raise ValueError("played in a private session")
    heard, faults = _song_of(record)
    ms_played = get("ms_played")
    if type(ms_played) is not int or ms_played < 0:
        ms_played = values.required(record, "ms_played", values.whole_number)
    verdict = policy.judge(ms_played, None, by_listener=get("skipped") is True or _is_left_for_another(get("reason_end")))
    if verdict is Verdict.TOO_SHORT:
        raise ValueError(policy.too_short)
    return Play(number, heard, _began_at(get("ts"), ms_played), ms_played, verdict is Verdict.SKIPPED), faults


def _is_left_for_another(reason_end: Any) -> bool:
    return isinstance(reason_end, str) and reason_end in LEFT_FOR_ANOTHER


def _began_at(ts: Any, ms_played: int) -> datetime:
    try:
        ended_at = values.utc_time(ts.removesuffix(" UTC") if isinstance(ts, str) else ts)
    except ValueError as exc:
        raise ValueError(f"ts {exc}") from None
    if ended_at is None:
        raise ValueError("ts is empty")
    try:
        return ended_at - timedelta(milliseconds=ms_played)
    except OverflowError:
        raise ValueError("ms_played is longer than there has been time") from None


def _song_of(record: Mapping[str, Any]) -> tuple[Heard, Sequence[str]]:
    get = record.get
    named = (
        get("spotify_track_uri"),
        get("master_metadata_track_name"),
        get("master_metadata_album_artist_name"),
        get("master_metadata_album_album_name"),
    )
    try:
        heard, faults = _song(*named)
    except TypeError:  # a list or an object, which cannot be a key of the cache
        heard, faults = _song.__wrapped__(*named)
    if heard is None:
        raise ValueError(_what_it_is(record))
    return heard, faults


@lru_cache(maxsize=SONGS_KEPT)
def _song(uri: Any, title: Any, artist: Any, album: Any) -> tuple[Heard | None, Sequence[str]]:
    """The song of these fields, None when they do not tell one, and what is wrong with them."""
    record = {
        "spotify_track_uri": uri,
        "master_metadata_track_name": title,
        "master_metadata_album_artist_name": artist,
        "master_metadata_album_album_name": album,
    }
    faults: list[str] = []
    heard = Heard(
        spotify_id=values.optional(record, "spotify_track_uri", _spotify_id, faults),
        title=values.optional(record, "master_metadata_track_name", values.text, faults),
        artist=values.optional(record, "master_metadata_album_artist_name", values.text, faults),
        album=values.optional(record, "master_metadata_album_album_name", values.text, faults),
    )
    if heard.spotify_id or (heard.artist and heard.title):
        return heard, faults
    return None, faults


def _spotify_id(value: Any) -> str | None:
    uri = values.text(value)
    if uri is None or uri.startswith("spotify:local:"):  # the listener's own file, which has no number
        return None
    found = TRACK_URI.fullmatch(uri)
    if found is None:
        raise ValueError("is no spotify:track:...")
    return found[1]


def _what_it_is(record: Mapping[str, Any]) -> str:
    if any(record.get(key) for key in ("spotify_episode_uri", "episode_name", "episode_show_name")):
        return "is an episode of a podcast"
    if any(record.get(key) for key in ("audiobook_uri", "audiobook_title", "audiobook_chapter_uri")):
        return "is a chapter of an audiobook"
    return "names neither a Spotify track nor artist and title"


SPOTIFY = Format(name="spotify", title="Spotify extended streaming history", recognise=_recognise, read=_read)
FORMATS = (SPOTIFY,)
