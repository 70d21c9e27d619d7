"""Lists to export."""

from datetime import UTC, datetime
from pathlib import Path

from exporters import ExportedList, ExportedSong, Target

RECORDING, ARTIST, RELEASE = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")
SPOTIFY_ID = "5Q7vla0EpIHVcEL9SuE0Ka"
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = {"model_id": "run/epoch-001/0123456789ab", "model_version": "0123456789ab"}
LOW_TIDE = ExportedSong(
    song_id=f"spotify:track:{SPOTIFY_ID}",
    title="Low Tide",
    artist="The Piers",
    album="Harbour",
    duration_ms=218_400,
    isrc="QZABC2000001",
    recording_mbid=RECORDING,
    artist_mbid=ARTIST,
    release_mbid=RELEASE,
    location="/music/The Piers/Low Tide.flac",
    rank=1,
    score=4.25,
    reasons=('same artist as "Rain"', "tempo close to song s1"),
)
BARE = ExportedSong(song_id="s2")
EVENING = ExportedList(name="Evening", songs=(LOW_TIDE, BARE), created_at=CREATED, **MODEL)
ANYWHERE = Target()
IN_MUSIC = Target(folder=Path("/music/lists"))


def of(*songs, name="Evening"):
    return ExportedList(name=name, songs=songs, created_at=CREATED)
