"""The names that people give to tables and columns of music, and how a row is told to name a song, a playlist or a user.

Gathered from public schemas.  Names stand in order of preference and are compared as `storage.mapping.columns` says.
"""

from collections.abc import Mapping, Sequence

from storage.mapping.columns import find, words
from storage.tables import Column, Reference, Table

SONG_TABLES = ("song", "track", "recording", "music_track", "audio_track", "music", "media_file", "tune")
SONG_IDS = ("song_id", "track_id", "recording_id", "music_id", "item_id", "media_file_id", "song", "track")
# Ids of a recording at MusicBrainz, which all its editions share; beets calls it mb_trackid.
RECORDING_IDS = (
    *("recording_mbid", "musicbrainz_recording_id", "mb_recording_id", "mb_trackid", "musicbrainz_track_id", "musicbrainz_id"),
    *("mbid", "track_mbid"),
)
TITLES = ("title", "name", "song_title", "song_name", "track_title", "track_name")

PLAYLIST_WORDS = {"playlist", "mix", "mixtape", "setlist", "set", "crate", "session", "list", "queue", "station", "show"}
PLAYLIST_IDS = ("playlist_id", "mix_id", "mixtape_id", "setlist_id", "set_id", "crate_id", "session_id", "list_id", "playlist")
PLAYLIST_NAMES = ("name", "title", "playlist_name", "label")
POSITIONS = (
    *("position", "pos", "rank", "sort_order", "sort_index", "sort", "order_index", "order_number", "order_no", "order"),
    *("ordering", "ordinal", "idx", "index", "seq", "sequence", "place", "item_order", "track_order", "song_order"),
    *("track_position", "song_position", "track_number", "sequence_number"),
)
ADDED = ("added_at", "date_added", "added_on", "added", "inserted_at", "created_at", "created_on", "created", "timestamp")

PLAY_WORDS = {"listen", "listening", "play", "playback", "scrobble", "history", "stream", "spin"}
# Tables of a user's relation to a song that are no sequence: the order of likes or downloads is not one of listening.
NO_PLAY_WORDS = {
    "like",
    "favorite",
    "favourite",
    "rating",
    "review",
    "comment",
    "download",
    "purchase",
    "share",
    "report",
    "count",
}
USER_IDS = (
    *("user_id", "listener_id", "account_id", "profile_id", "member_id", "customer_id", "person_id", "owner_id", "uid"),
    *("user_name", "username", "user", "listener", "device_id"),
)
PLAYED = (
    *("played_at", "listened_at", "scrobbled_at", "listen_date", "listen_time", "play_dt", "play_date", "played_on", "played"),
    *("started_at", "start_time", "submission_time", "timestamp", "time_stamp", "ts", "event_time", "occurred_at", "utc_time"),
    *("created_at", "inserted_at", "date", "time"),
)
MS_PLAYED: Mapping[str, int] = {
    **dict.fromkeys(("ms_played", "played_ms", "duration_ms", "listened_ms", "play_duration_ms", "duration_played_ms"), 1),
    **dict.fromkeys(("duration_played", "duration_listened", "seconds_played", "seconds_listened", "played_seconds"), 1000),
    **dict.fromkeys(("listen_duration", "play_duration", "listened_seconds", "playback_duration", "duration"), 1000),
}
TRUTHS: Mapping[str, Sequence[str]] = {
    "skipped": ("skipped", "was_skipped", "is_skipped"),
    "completed": ("completed", "is_completed", "finished"),
    "is_recommended": ("is_recommended", "from_recommendation", "recommended"),
}

ARTIST_WORDS = {"artist", "performer", "band", "musician", "singer", "author", "creator"}
ARTIST_IDS = ("artist_id", "primary_artist_id", "main_artist_id", "performer_id", "band_id", "author_id")
ARTIST_TEXTS = ("artist", "artist_name", "performer", "band", "singer", "author", "artists", "artist_names", "album_artist")
ALBUM_WORDS = {"album", "release", "record"}
ALBUM_IDS = ("album_id", "release_id", "record_id")
ALBUM_TEXTS = ("album", "album_title", "album_name", "release", "release_name")
IS_FIRST = ("is_primary", "primary", "is_main", "main")
ROLES = ("role", "credit", "artist_role", "type")

FEATURE_TABLE_WORDS = {"feature", "analysis", "audio", "acoustic"}


def key_of(table: Table) -> Column | None:
    """The one column that identifies a row: the primary key, another unique one, or in a view one with the name of a key."""
    if len(table.primary_key) == 1 and table.column(table.primary_key[0]).can_be_id:
        return table.column(table.primary_key[0])
    named = find(table, ("id", *SONG_IDS, *ARTIST_IDS, *ALBUM_IDS))
    if named is not None and named.can_be_id and (named.name in table.unique or table.is_view):
        return named
    return next((table.column(name) for name in sorted(table.unique) if table.column(name).can_be_id), None)


def refers(reference: Reference, table: Table) -> bool:
    """Whether a reference leads to a table."""
    return (reference.schema, reference.table) == (table.schema, table.name)


def find_song_column(table: Table, songs: Table, key: Column) -> Column | None:
    """The column by which a row names a song: a foreign key, or a column with such a name and the type of the songs' key."""
    for reference in table.references:
        if refers(reference, songs) and songs.column(reference.referred).can_be_id:
            return table.column(reference.column)
    singular = "_".join(words(songs.name))
    column = find(table, (f"{singular}_id", *SONG_IDS, key.name if key.name != "id" else f"{singular}_id"), {key.kind})
    return column if column is not None and column.name not in table.unique else None


def playlist_column(table: Table, tables: Sequence[Table]) -> Column | None:
    """The column by which a row names a playlist: a foreign key to such a table, or a column with such a name."""
    for reference in table.references:
        if PLAYLIST_WORDS & set(words(reference.table)) and table.column(reference.column).can_be_id:
            return table.column(reference.column)
    column = find(table, PLAYLIST_IDS)
    return column if column is not None and column.can_be_id and column.name not in table.unique else None


def user_column(table: Table) -> Column | None:
    """The column by which a row names a user."""
    column = find(table, USER_IDS)
    return column if column is not None and column.can_be_id and column.name not in table.unique else None
