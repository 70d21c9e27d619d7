"""From a reader's records to the schema `music`: copied, their songs found, plays that are there already left out, and counted.

Records are pulled while they are copied, and memory grows with neither plays nor songs: what is kept is the numbers of the songs
met last.  Whatever fails takes back what was brought before: a DataError leaves the database as it was, whatever the caller does
next.  The caller commits.
"""

import csv
import io
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tqdm import tqdm

from config import ImportConfig
from importers.load import check_sources
from importers.names import bounded, normal_artist, normal_title
from importers.records import Heard, Opinion, Place, Play, Record
from importers.tally import Count, Kind, Tally
from importers.workshop import Workshop
from storage import histories, imports
from storage.connections import Connection
from storage.histories import KeylessSong, Staged
from storage.imports import Brought

ROWS_PER_BLOCK = 20_000  # about 1 MB of text; with 40,000 a fourth to a third fewer plays come in a second
SONGS_IN_MIND = 100_000  # about 60 MB; a song that comes again later is numbered anew, and found to be the same in the database
MAX_TEXT_CHARACTERS = 1_000
MAX_LISTENER_BYTES = 1_020  # as feedback has it
FIRST_YEAR = 1971  # clocks that were never set begin in 1970
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NO_UUID = "00000000-0000-0000-0000-000000000000"
_SPOTIFY_ID = re.compile(r"[0-9A-Za-z]{22}")
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}")
_NO_FEATURES = (None,) * 13

Key = tuple[str, str]
"""Kind and key."""


def bring(
    connection: Connection,
    records: Iterable[Record],
    tally: Tally,
    settings: ImportConfig,
    *,
    covered_by: str | None = None,
    progress: bool = True,
) -> None:
    """Bring a reader's records into the schema `music` under the tally's source, and enter the counts.

    What is known of a song stays, and what is not known is filled in.  A play that another source has told already counts once; a
    playlist whose songs differ is replaced as a whole.  Between the first and the last play that `covered_by`, another source,
    has told of a listener, plays of this one are left out: it may have left them out for a reason.  Raises DataError when a file
    cannot be read, or a playlist's id belongs to another source.
    """
    imports.begin(connection)
    with connection.transaction():  # a savepoint: what is wrong in the last file takes back what came of the first
        histories.begin(connection)
        _enter_keyless(connection)
        with Workshop(connection, tally, settings, covered_by) as workshop:
            staging = _Staging(workshop, tally, settings.listener)
            for record in tqdm(records, desc=f"reading {tally.source}", unit=" records", disable=None if progress else True):
                staging.add(record)
            staging.flush()
        _finish(connection, tally, settings, staging)


def keys_of(heard: Heard) -> list[Key]:
    """The keys of a song, the one that says most first.

    >>> keys_of(Heard(artist="A", title="Song", isrc="QZ-AB1-23-00001"))
    [('isrc', 'isrc:QZAB12300001'), ('name', 'name:a/song')]
    """
    keys: list[Key] = []
    if heard.spotify_id and _SPOTIFY_ID.fullmatch(heard.spotify_id):
        keys.append(("spotify", f"spotify:track:{heard.spotify_id}"))
    if mbid := _uuid(heard.recording_mbid):
        keys.append(("mbid", f"mbid:{mbid}"))
    if heard.isrc and _ISRC.fullmatch(isrc := _plain_isrc(heard.isrc)):
        keys.append(("isrc", f"isrc:{isrc}"))
    if msid := _uuid(heard.recording_msid):
        keys.append(("msid", f"msid:{msid}"))
    if heard.item:
        keys.append(("item", heard.item))
    if heard.location:
        keys.append(("location", f"location:{heard.location}"))
    if heard.artist and heard.title:
        keys.append(("name", f"name:{normal_artist(heard.artist)}/{normal_title(heard.title)}"))
    return [(kind, bounded(key)) for kind, key in keys]


def _uuid(text: str | None) -> str | None:
    folded = (text or "").strip().lower()
    return folded if _UUID.fullmatch(folded) and folded != _NO_UUID else None


def _plain_isrc(text: str) -> str:
    return text.replace("-", "").replace(" ", "").upper()


class _Staging:
    """Takes records in, numbers their songs, and copies them block by block."""

    def __init__(self, workshop: Workshop, tally: Tally, listener: str) -> None:
        self.workshop = workshop
        self._tally = tally
        self._listener = listener
        self._latest = datetime.now(UTC) + timedelta(days=1)  # clocks differ, and so do the zones of those who forgot theirs
        self._refs: OrderedDict[Heard, int] = OrderedDict()  # 0: cannot be used
        self._n_refs = 0
        self._n_records = 0
        self._plays: list[str] = []
        self._blocks: dict[Staged, list[Sequence[Any]]] = {"heard": [], "key": [], "opinion": [], "place": []}
        self.n_staged: dict[Kind, int] = {"plays": 0, "feedback": 0, "rows": 0}

    def add(self, record: Record) -> None:
        """Stage one record, or note why not."""
        self._n_records += 1
        ref = self._refs.get(record.heard)
        if ref is None:
            ref = self._number(record.heard)
        if isinstance(record, Play):
            self._add_play(record, ref)
        elif isinstance(record, Opinion):
            self._add_opinion(record, ref)
        else:
            self._add_place(record, ref)

    def flush(self) -> None:
        """Hand over what is left."""
        for table in self._blocks:
            self._copy(table)
        self._copy_plays()

    def _add_play(self, play: Play, ref: int) -> None:
        if not ref or play.listened_at.year < FIRST_YEAR or play.listened_at > self._latest:
            self._skip("plays", play.line, ref, f"its time lies before {FIRST_YEAR} or in the future")
            return
        listener = self._listener if play.listener is None else play.listener
        if '"' in listener or _UNSTORABLE.search(listener) or not 0 < len(listener.encode()) <= MAX_LISTENER_BYTES:
            reason = f"its listener has a quote in the name, or more than {MAX_LISTENER_BYTES:,} bytes"
            self._skip("plays", play.line, ref, reason)
            return
        self.n_staged["plays"] += 1
        # By hand: the csv module takes three times as long, and nothing here but the listener could need quotes.
        self._plays.append(
            f"{ref},{play.listened_at.isoformat()},{_text(play.ms_played)},{_text(play.skipped)},{_text(play.is_recommended)},"
            f'"{listener}"\n'
        )
        if len(self._plays) == ROWS_PER_BLOCK:
            self._copy_plays()

    def _add_opinion(self, opinion: Opinion, ref: int) -> None:
        if not ref:
            self._skip("feedback", opinion.line, ref)
            return
        self.n_staged["feedback"] += 1
        listener = self._listener if opinion.listener is None else opinion.listener
        self._put("opinion", (ref, opinion.score.value, opinion.happened_at, listener, self._n_records))

    def _add_place(self, place: Place, ref: int) -> None:
        playlist_id = bounded(f"{self._tally.source}:{place.playlist}")
        if not ref or _UNSTORABLE.search(playlist_id) or _UNSTORABLE.search(place.name or ""):
            self._skip("rows", place.line, 0)
            return
        self.n_staged["rows"] += 1
        name = None if place.name is None else place.name[:MAX_TEXT_CHARACTERS]
        self._put("place", (ref, playlist_id, place.added_at, name, place.created_at, self._n_records))

    def _skip(self, kind: Kind, line: int, ref: int, reason: str = "") -> None:
        why = reason if ref else "its song has no name and no id that can be used"
        self._tally.skip(kind, why, f"record {line}")

    def _number(self, heard: Heard) -> int:
        """A new number for a song, 0 for one that nothing could find again."""
        keys = keys_of(heard) if _is_storable(heard) else []
        ref = 0
        if keys:
            self._n_refs += 1
            ref = self._n_refs
            self._put("heard", _heard_row(ref, heard))
            for rank, (kind, key) in enumerate(keys):
                self._put("key", (ref, rank, kind, key))
        self._refs[heard] = ref
        if len(self._refs) > SONGS_IN_MIND:
            self._refs.popitem(last=False)
        return ref

    def _put(self, table: Staged, row: Sequence[Any]) -> None:
        block = self._blocks[table]
        block.append(row)
        if len(block) == ROWS_PER_BLOCK:
            self._copy(table)

    def _copy(self, table: Staged) -> None:
        if self._blocks[table]:
            self.workshop.copy(table, _csv(self._blocks[table]))
            self._blocks[table].clear()

    def _copy_plays(self) -> None:
        """Songs first: plays are brought by and by, and theirs must be there."""
        self._copy("heard")
        self._copy("key")
        if self._plays:
            self.workshop.copy("play", "".join(self._plays))
            self._plays.clear()


def _text(value: int | bool | None) -> str:
    return "" if value is None else str(value)


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    # with \r\n as the end of a line, the writer quotes a field that holds either of the two, as COPY demands
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _is_storable(heard: Heard) -> bool:
    texts = [value for value in heard if isinstance(value, str)]
    return not any(_UNSTORABLE.search(text) or len(text) > MAX_TEXT_CHARACTERS for text in texts)


def _heard_row(ref: int, heard: Heard) -> Sequence[Any]:
    artist_key = bounded(normal_artist(heard.artist)) if heard.artist else None
    album_key = bounded(f"{artist_key or ''}/{normal_title(heard.album)}") if heard.album else None
    isrc = _plain_isrc(heard.isrc) if heard.isrc else None
    return (
        *(ref, heard.artist, artist_key, heard.title, heard.album, album_key, isrc, _uuid(heard.recording_mbid), heard.location),
        *(heard.duration_ms, _uuid(heard.artist_mbid), _uuid(heard.release_mbid), heard.disc_number, heard.track_number),
        *(heard.explicit, heard.release_date, *(heard.features or _NO_FEATURES)),
    )


def _enter_keyless(connection: Connection) -> None:
    """Give songs that came in by other ways their keys, so that an export finds them."""
    for block in histories.keyless_songs(connection, ROWS_PER_BLOCK):
        histories.copy(connection, "keyless", _csv([(song.song_id, *key) for song in block for key in _keys_of_known(song)]))
    histories.enter_keyless(connection)


def _keys_of_known(song: KeylessSong) -> list[Key]:
    spotify_id = song.song_id.removeprefix("spotify:track:")  # keys_of passes over what is none
    return keys_of(
        Heard(artist=song.artist, title=song.title, spotify_id=spotify_id, isrc=song.isrc, recording_mbid=song.recording_mbid)
    )


def _finish(connection: Connection, tally: Tally, settings: ImportConfig, staging: _Staging) -> None:
    """What comes after the last record: playlists, opinions, counts."""
    tally.counts["songs"] = _added(histories.count_songs(connection))
    if staging.n_staged["plays"]:
        staged, added = staging.n_staged["plays"], staging.workshop.n_plays
        tally.counts["plays"] = Count(read=staged + tally.skipped_of("plays"), added=added, already_there=staged - added)
    if staging.n_staged["rows"]:
        _bring_playlists(connection, tally, settings.listener)
    if staging.n_staged["feedback"]:
        tally.counts["feedback"] = _added(histories.bring_opinions(connection))
    if settings.session_gap_minutes is not None:
        histories.set_session_gap(connection, settings.session_gap_minutes)


def _bring_playlists(connection: Connection, tally: Tally, listener: str) -> None:
    histories.stage_playlists(connection, listener)
    check_sources(connection, tally.source)
    playlists, rows = imports.bring_playlists(connection, tally.source)
    tally.counts["playlists"] = _added(playlists)
    tally.counts["rows"] = Count(
        read=rows.staged + tally.skipped_of("rows"),
        added=rows.added,
        updated=rows.updated,
        removed=rows.removed,
        already_there=rows.staged - rows.added - rows.updated,
    )


def _added(brought: Brought) -> Count:
    return Count(
        read=brought.staged,
        added=brought.added,
        updated=brought.updated,
        already_there=brought.staged - brought.added - brought.updated,
    )
