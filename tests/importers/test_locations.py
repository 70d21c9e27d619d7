"""One file has one location, however a playlist writes it; what is private in an address is not kept."""

import pytest

from importers.locations import stored_location


@pytest.mark.parametrize(
    ("written", "folder", "stored"),
    [
        ("01.mp3", "/music/lists", "/music/lists/01.mp3"),
        ("../Nova/01.mp3", "/music/lists", "/music/Nova/01.mp3"),
        ("..\\Nova\\01.mp3", "/music/lists", "/music/Nova/01.mp3"),
        ("./AC\\DC.mp3", "/music", "/music/AC\\DC.mp3"),
        ("/music//b/../a.mp3", "/elsewhere", "/music/a.mp3"),
        ("../../../etc/passwd", "lists", "../../etc/passwd"),  # of a zip: a text that nothing is opened by
        ("file:///music/a%20b%23.mp3", "/x", "/music/a b#.mp3"),
        ("file:///music/a #1 100%.mp3", "/x", "/music/a #1 100%.mp3"),
        ("FILE://localhost/music/a.mp3", "/x", "/music/a.mp3"),
        ("file://nas/music/a.mp3", "/x", "//nas/music/a.mp3"),
        ("file:///C:/Music/a.mp3", "/x", "C:\\Music\\a.mp3"),
        ("C:/Music/../a.mp3", "/x", "C:\\a.mp3"),
        (r"\\nas\music\.\a.mp3", "/x", r"\\nas\music\a.mp3"),
        ("http://nas:4533/a.mp3", "/x", "http://nas:4533/a.mp3"),
        (
            "http://anna:secret@nas/rest/stream.view?id=7&u=anna&t=12ab&s=34&v=1.16",
            "/x",
            "http://nas/rest/stream.view?id=7",
        ),
        ("https://nas/a.mp3?X-Plex-Token=12ab", "/x", "https://nas/a.mp3"),
        ("https://anna@[nas/a.mp3?token=12ab", "/x", "https://[nas/a.mp3"),
        ("smb://anna:secret@nas/a.mp3", "/x", "smb://nas/a.mp3"),
        ("https://x/a?b&c=%20d;email=a@b;id=7", "/x", "https://x/a?id=7"),
    ],
)
def test_a_location_has_one_form(written, folder, stored):
    assert stored_location(written, folder) == stored
