"""JSPF in the shape that ListenBrainz documents."""

import json
from uuid import UUID

from exporters.jspf import address, write_jspf
from exporters.playlist import ExportedSong
from tests.exporters.small import ANYWHERE, ARTIST, EVENING, LOW_TIDE, RECORDING, RELEASE, SPOTIFY_ID, of

PLAYLIST_EXTENSION = "https://musicbrainz.org/doc/jspf#playlist"
TRACK_EXTENSION = "https://musicbrainz.org/doc/jspf#track"


def fault_for_listenbrainz(jspf):
    """What ListenBrainz answers 400 for when a playlist is created, None where it takes the playlist.

    As its API documents it: a title, whether the list is public, and for every track the address of a recording.
    """
    playlist = jspf.get("playlist", {})
    if not playlist.get("title"):
        return "no title"
    if not isinstance(playlist.get("extension", {}).get(PLAYLIST_EXTENSION, {}).get("public"), bool):
        return "does not say whether it is public"
    for place, track in enumerate(playlist.get("track", []), start=1):
        addresses = track.get("identifier")
        addresses = [addresses] if isinstance(addresses, str) else addresses or []
        if not any(is_recording(each) for each in addresses):
            return f"no recording at {place}"
    return None


def is_recording(text):
    prefix = "https://musicbrainz.org/recording/"
    return text.startswith(prefix) and str(UUID(text.removeprefix(prefix))) == text.removeprefix(prefix)


def test_a_list_of_songs_with_recordings_is_what_listenbrainz_takes():
    written = write_jspf(of(LOW_TIDE, LOW_TIDE), ANYWHERE)
    assert fault_for_listenbrainz(json.loads(written.text)) is None
    assert written.notes == ()


def test_songs_without_a_recording_are_named():
    written = write_jspf(EVENING, ANYWHERE)
    jspf = json.loads(written.text)
    assert fault_for_listenbrainz(jspf) == "no recording at 2"
    note = "1 of 2 songs have no MusicBrainz recording, and ListenBrainz refuses a list with such songs: 2"
    assert (written.notes, jspf["playlist"]["annotation"]) == ((note,), note)
    assert jspf["playlist"]["extension"][PLAYLIST_EXTENSION]["additional_metadata"]["songs_without_recording"] == [2]


def test_everything_that_is_known_has_its_place():
    playlist = json.loads(write_jspf(EVENING, ANYWHERE).text)["playlist"]
    assert playlist["track"][0] == {
        "title": "Low Tide",
        "creator": "The Piers",
        "album": "Harbour",
        "duration": 218_400,
        "identifier": [f"https://musicbrainz.org/recording/{RECORDING}"],
        "location": ["file:///music/The%20Piers/Low%20Tide.flac", f"https://open.spotify.com/track/{SPOTIFY_ID}"],
        "extension": {
            TRACK_EXTENSION: {
                "added_at": "2026-01-02T03:04:05+00:00",
                "artist_identifiers": [f"https://musicbrainz.org/artist/{ARTIST}"],
                "release_identifier": f"https://musicbrainz.org/release/{RELEASE}",
                "additional_metadata": {
                    "song_id": f"spotify:track:{SPOTIFY_ID}",
                    "isrc": "QZABC2000001",
                    "rank": 1,
                    "score": 4.25,
                    "reasons": ['same artist as "Rain"', "tempo close to song s1"],
                    "model_id": "run/epoch-001/0123456789ab",
                    "model_version": "0123456789ab",
                },
            }
        },
    }
    assert {name: playlist[name] for name in ("title", "creator", "date")} == {
        "title": "Evening",
        "creator": "BERT4MusicRec",
        "date": "2026-01-02T03:04:05+00:00",
    }
    metadata = playlist["extension"][PLAYLIST_EXTENSION]["additional_metadata"]["algorithm_metadata"]
    assert metadata == {
        "source": "BERT4MusicRec",
        "model_id": "run/epoch-001/0123456789ab",
        "model_version": "0123456789ab",
    }


def test_the_extension_is_there_although_nothing_is_known():
    [track] = json.loads(write_jspf(of(ExportedSong(song_id=7)), ANYWHERE).text)["playlist"]["track"]
    assert track == {
        "identifier": [],
        "extension": {
            TRACK_EXTENSION: {
                "added_at": "2026-01-02T03:04:05+00:00",
                "artist_identifiers": [],
                "additional_metadata": {"song_id": 7, "reasons": []},
            }
        },
    }


def test_a_list_without_a_name_gets_one_and_line_ends_do_not_stand_in_it():
    titles = [json.loads(write_jspf(of(name=name), ANYWHERE).text)["playlist"]["title"] for name in ("", " \n", "a\r\nb")]
    assert titles == ["Playlist", "Playlist", "a b"]


def test_a_path_becomes_an_address():
    locations = ("/a b%.mp3", "//nas/a.mp3", "C:\\a b.mp3", "\\\\nas\\m\\a.mp3", "http://nas/a?b", "a/b c.mp3")
    assert [address(location) for location in locations] == [
        "file:///a%20b%25.mp3",
        "file://nas/a.mp3",
        "file:///C:/a%20b.mp3",
        "file://nas/m/a.mp3",
        "http://nas/a?b",
        "a/b c.mp3",
    ]
