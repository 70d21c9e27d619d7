"""Reads Spotify's extended streaming history, the export that takes up to 30 days to arrive and goes back to the first day.

    Streaming_History_Audio_2019-2020_3.json   one array of plays, about 12 MB each; older exports: endsong_0.json
    Streaming_History_Video_2018-2024.json     left aside

`ts` is when a play ended, in UTC, so it began `ms_played` before.  What the listener left early is a skip and kept; what a
crash, a logout or Spotify itself ended early is left out.  `skipped` is null in some years, and `reason_end` is "none" throughout
another, so either of them is enough.  Podcasts and audiobooks are counted and left out.  Address, country, user name and
device stand in each record and are not looked at.

The fields: https://support.spotify.com/article/understanding-my-data
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from importers import values
from importers.fields import LARGEST_INTEGER
from importers.files import TextFile
from importers.formats import Format
from importers.json_stream import array_items
from importers.lists import in_order, is_hidden, spotify_id, suffix_of
from importers.policy import Policy, Verdict
from importers.records import Heard, Play, Record
from importers.tally import Tally

# A play that ends so was left by the listener for another song.  Not "backbtn": who goes back has not had enough of the song.
LEFT_FOR_ANOTHER = frozenset({"fwdbtn", "clickrow", "clickside", "playbtn", "remote", "endplay", "popup"})
MILLISECOND = timedelta(milliseconds=1)  # a multiple of it is made in half the time of timedelta(milliseconds=...)
MAX_SONGS_KEPT = 50_000  # in memory, about a kilobyte each


def _recognise(files: Sequence[TextFile]) -> list[TextFile]:
    return in_order(filter(_is_history, files))


def _is_history(file: TextFile) -> bool:
    name = file.base_name.lower()
    if suffix_of(file) != ".json" or is_hidden(file) or "streaming_history_video" in name:
        return False
    if "streaming_history_audio" in name or name.startswith("endsong"):
        return True  # even a damaged one, so that its reader can say what is wrong
    head = file.head()
    return head.lstrip().startswith("[") and all(f'"{key}"' in head for key in ("ts", "ms_played", "spotify_track_uri"))


def _read(files: Sequence[TextFile], policy: Policy, tally: Tally) -> Iterator[Record]:
    plays = _Plays(policy, tally)
    for file in files:
        for number, record in array_items(file):
            try:
                yield plays.of(record, number, file)
            except ValueError as exc:
                tally.skip("plays", str(exc), f"{file.name} record {number}")


class _Plays:
    """Makes plays of records.

    A listener's songs come again and again, and each is made once, as its first record names it: that takes a third of the time.
    """

    def __init__(self, policy: Policy, tally: Tally) -> None:
        self._policy = policy
        self._tally = tally
        self._songs: dict[str, Heard] = {}
        """By their URI."""

    def of(self, record: Any, number: int, file: TextFile) -> Play:
        """The play that a record is.  Raises ValueError for what is none, and for one that is left out."""
        get = values.record_of(record).get
        if get("incognito_mode") is True and not self._policy.keep_incognito:
            raise ValueError("played in a private session")
        uri = get("spotify_track_uri")
        heard = self._songs.get(uri) if isinstance(uri, str) else None
        if heard is None:
            heard = self._new_song(record, number, file)
        ms_played = get("ms_played")
        if type(ms_played) is not int or not 0 <= ms_played <= LARGEST_INTEGER:  # type: True is an instance of int
            ms_played = values.required(record, "ms_played", values.whole_number)
        reason_end = get("reason_end")
        left = get("skipped") is True or (isinstance(reason_end, str) and reason_end in LEFT_FOR_ANOTHER)
        verdict = self._policy.judge(ms_played, None, by_listener=left)
        if verdict is Verdict.TOO_SHORT:
            raise ValueError(self._policy.too_short)
        return Play(number, heard, _began_at(get("ts"), ms_played), ms_played, verdict is Verdict.SKIPPED)

    def _new_song(self, record: Mapping[str, Any], number: int, file: TextFile) -> Heard:
        heard, faults = _song(record)
        for fault in faults:
            self._tally.empty(fault, f"{file.name} record {number}")
        if heard.spotify_id and heard.title and not faults:
            if len(self._songs) == MAX_SONGS_KEPT:
                self._songs.clear()
            self._songs[record["spotify_track_uri"]] = heard
        return heard


def _began_at(ts: Any, ms_played: int) -> datetime:
    try:
        began_at = datetime.fromisoformat(ts) - ms_played * MILLISECOND
    except (TypeError, ValueError, OverflowError):
        raise ValueError("ts is empty" if ts is None else "ts is not a time in ISO 8601") from None
    try:
        return values.checked_time(began_at)
    except ValueError as exc:
        raise ValueError(f"ts {exc}") from None


def _song(record: Mapping[str, Any]) -> tuple[Heard, Sequence[str]]:
    """The song that a record names, and what is wrong with its fields.  Raises ValueError where it names none."""
    faults: list[str] = []
    heard = Heard(
        spotify_id=values.optional(record, "spotify_track_uri", _track_id, faults),
        title=values.optional(record, "master_metadata_track_name", values.text, faults),
        artist=values.optional(record, "master_metadata_album_artist_name", values.text, faults),
        album=values.optional(record, "master_metadata_album_album_name", values.text, faults),
    )
    if not (heard.spotify_id or (heard.artist and heard.title)):
        raise ValueError(_what_it_is(record))
    return heard, faults


def _track_id(value: Any) -> str | None:
    uri = values.text(value)
    if uri is None or uri.startswith("spotify:local:"):  # the listener's own file, which has no id
        return None
    found = spotify_id(uri)
    if found is None:
        raise ValueError("is no spotify:track:...")
    return found


def _what_it_is(record: Mapping[str, Any]) -> str:
    if any(record.get(key) for key in ("spotify_episode_uri", "episode_name", "episode_show_name")):
        return "is an episode of a podcast"
    if any(record.get(key) for key in ("audiobook_uri", "audiobook_title", "audiobook_chapter_uri")):
        return "is a chapter of an audiobook"
    return "names neither a Spotify track nor artist and title"


SPOTIFY = Format(name="spotify", title="Spotify extended streaming history", recognise=_recognise, read=_read)
FORMATS = (SPOTIFY,)
