"""MovieLens: the three layouts, in a folder and in a zip, and what is refused."""

import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from errors import DataError
from importers import files
from importers.movielens import import_movielens
from importers.tally import Count
from tests.importers.small import NOTHING, noted, rows, sizes

GENRES = "|".join("0" * 19)
ML_100K = {
    # user 2 rates 10 and 30 in the same second: the file's order decides; user 1's line order is not the order of time
    "u.data": "1\t20\t5\t300\n2\t10\t3\t100\n1\t10\t1\t200\n2\t30\t4\t100\n2\t20\t4\t50\n",
    "u.item": f"10|Amélie|25-Apr-2001||http://x|{GENRES}\n20|Toy Story (1995)|01-Jan-1995||http://x|{GENRES}\n30|unknown||||{GENRES}\n",
    "README": "terms of use",
}
ML_1M = {
    "ratings.dat": "1::20::5::300\n2::10::3::100\n1::10::1::200\n2::30::4::100\n2::20::4::50\n",
    "movies.dat": "10::Amélie (2001)::Comedy\n20::Toy Story (1995)::Animation|Comedy\n30::unknown::Drama\n",
    "users.dat": "1::F::1::10::48067\n",
}
ML_CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,20,5.0,300\n2,10,3.0,100\n1,10,0.5,200\n2,30,4.0,100\n2,20,4.0,50\n",
    "movies.csv": 'movieId,title,genres\n10,"Amélie, or: Destiny (2001)",Comedy\n20,Toy Story (1995),\n30,unknown,Drama\n',
}
PLACES = [("1", 0, "10", 200), ("1", 1, "20", 300), ("2", 0, "20", 50), ("2", 1, "10", 100), ("2", 2, "30", 100)]


def write_folder(folder: Path, release: dict[str, str], encoding: str = "utf-8") -> Path:
    folder.mkdir()
    for name, text in release.items():
        (folder / name).write_bytes(text.encode(encoding))
    return folder


def write_zip(path: Path, release: dict[str, str], encoding: str = "utf-8") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}/", b"")
        for name, text in release.items():
            archive.writestr(f"{path.stem}/{name}", text.encode(encoding))
    return path


def places(connection) -> list[tuple[str, int, str, int]]:
    found = rows(connection, "playlist_song", "playlist_id", "position", "song_id", "added_at")
    return [(playlist, position, song, int(added_at.timestamp())) for playlist, position, song, added_at in found]


def test_the_100k_release_is_imported(connection, tmp_path):
    tally = import_movielens(connection, write_folder(tmp_path / "ml-100k", ML_100K, "latin-1"))
    assert places(connection) == PLACES
    assert rows(connection, "song", "song_id", "title", "release_date", "source") == [
        ("10", "Amélie", date(2001, 4, 25), "movielens-100k"),
        ("20", "Toy Story (1995)", date(1995, 1, 1), "movielens-100k"),
        ("30", "unknown", None, "movielens-100k"),
    ]
    assert tally.line() == "movielens-100k: added 3 songs, 2 playlists, 5 rows"


def test_the_1m_release_is_imported(connection, tmp_path):
    import_movielens(connection, write_folder(tmp_path / "ml-1m", ML_1M, "latin-1"))
    assert places(connection) == PLACES
    assert rows(connection, "song", "song_id", "title", "release_date", "artist_id", "tempo", "source") == [
        ("10", "Amélie (2001)", date(2001, 1, 1), None, None, "movielens-1m"),
        ("20", "Toy Story (1995)", date(1995, 1, 1), None, None, "movielens-1m"),
        ("30", "unknown", None, None, None, "movielens-1m"),
    ]


def test_the_10m_release_is_read_in_its_own_encoding(connection, tmp_path):
    import_movielens(connection, write_folder(tmp_path / "ml-10M100K", ML_1M | {"tags.dat": ""}))
    assert rows(connection, "song", "song_id", "title", "source")[0] == ("10", "Amélie (2001)", "movielens-10m100k")


def test_the_csv_releases_are_imported(connection, tmp_path, caplog):
    import_movielens(connection, write_folder(tmp_path / "ml-latest-small", ML_CSV))
    assert places(connection) == PLACES
    assert rows(connection, "song", "song_id", "title", "release_date", "source") == [
        ("10", "Amélie, or: Destiny (2001)", date(2001, 1, 1), "movielens-latest-small"),
        ("20", "Toy Story (1995)", date(1995, 1, 1), "movielens-latest-small"),
        ("30", "unknown", None, "movielens-latest-small"),
    ]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "release", "encoding"), [("ml-100k", ML_100K, "latin-1"), ("ml-1m", ML_1M, "latin-1"), ("ml-25m", ML_CSV, "utf-8")]
)
def test_a_zip_gives_the_same_rows_as_its_folder(connection, tmp_path, name, release, encoding):
    tally = import_movielens(connection, write_zip(tmp_path / f"{name}.zip", release, encoding))
    assert places(connection) == PLACES
    assert tally.source == f"movielens-{name.removeprefix('ml-')}"
    assert sizes(connection) == {"song": 3, "artist": 0, "album": 0, "playlist": 2, "playlist_song": 5}


def test_a_list_belongs_to_its_user_and_has_no_time_of_its_own(connection, tmp_path):
    import_movielens(connection, write_folder(tmp_path / "downloads", ML_1M, "latin-1"))
    columns = ("playlist_id", "user_id", "name", "group_id", "created_at", "source")
    assert rows(connection, "playlist", *columns) == [
        ("1", "1", None, None, None, "movielens-1m"),
        ("2", "2", None, None, None, "movielens-1m"),
    ]


def test_a_second_import_adds_nothing(connection, tmp_path):
    folder = write_folder(tmp_path / "ml-1m", ML_1M, "latin-1")
    import_movielens(connection, folder)
    connection.commit()
    assert not import_movielens(connection, folder).changed
    assert places(connection) == PLACES


def test_two_releases_share_ids_and_need_a_prefix(connection, tmp_path):
    import_movielens(connection, write_folder(tmp_path / "ml-1m", ML_1M, "latin-1"))
    small = write_folder(tmp_path / "ml-latest-small", ML_CSV)
    with pytest.raises(DataError, match=r"^song id '10' of source 'movielens-latest-small' is in use by source 'movielens-1m'"):
        import_movielens(connection, small)
    import_movielens(connection, small, prefix="small")
    assert rows(connection, "playlist", "playlist_id", "user_id")[2:] == [("small:1", "small:1"), ("small:2", "small:2")]


def test_bad_ratings_and_movies_are_left_out_and_counted(connection, tmp_path):
    bad = {
        "ratings.dat": "1::20::5::300\n1::20::5\n1::::5::300\n1::40::5::300\n1::20::5::noon\n1::20::5::99999999999999\n",
        "movies.dat": "20::Toy Story (1995)::Animation\n\n30::A::B::C\n20::Again::Drama\n",
    }
    tally = import_movielens(connection, write_folder(tmp_path / "ml-1m", bad))
    assert places(connection) == [("1", 0, "20", 300), ("1", 1, "40", 300)]
    assert tally.skipped == {
        ("rows", "wrong number of fields"): noted(1, "ratings.dat line 2: 3 instead of 4"),
        ("rows", "movieId is empty"): noted(1, "ratings.dat line 3: ''"),
        ("rows", "timestamp is not a time in seconds since 1970"): noted(2, "ratings.dat line 5: 'noon'"),
        ("songs", "wrong number of fields"): noted(1, "movies.dat line 3: 4 instead of 3"),
        ("songs", "song_id was there before"): noted(1, "movies.dat line 4"),
    }
    assert (tally.counts["songs"], tally.bare_songs) == (Count(read=4, added=2), 1)


def test_a_path_without_a_release_is_refused(connection, tmp_path):
    with pytest.raises(DataError, match=r"holds no MovieLens release: .* ratings\.csv and movies\.csv, .* u\.data and u\.item$"):
        import_movielens(connection, write_folder(tmp_path / "other", {"ratings.csv": "userId,movieId,rating,timestamp\n"}))
    with pytest.raises(DataError, match=r"nowhere does not exist: name a folder or a zip file$"):
        import_movielens(connection, tmp_path / "nowhere")
    (tmp_path / "ml-1m.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"^ml-1m\.zip is neither a folder nor a readable zip file \(File is not a zip file\)$"):
        import_movielens(connection, tmp_path / "ml-1m.zip")


def test_a_zip_that_unpacks_to_too_much_is_refused_unread(connection, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ZIP_BYTES", 10_000_000)
    bomb = write_zip(tmp_path / "ml-25m.zip", ML_CSV | {"movies.csv": "0" * 10_000_000})
    with pytest.raises(DataError, match=r"^ml-25m\.zip unpacks to 10,000,\d{3} bytes, more than 10,000,000: unpack it"):
        import_movielens(connection, bomb)
    assert sizes(connection) == NOTHING


def test_a_zip_with_too_many_entries_is_refused(connection, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ZIP_ENTRIES", 3)
    with pytest.raises(DataError, match=r"^ml-1m\.zip has 4 entries, more than 3: unpack it and name the folder$"):
        import_movielens(connection, write_zip(tmp_path / "ml-1m.zip", ML_1M))


def test_a_zip_that_understates_its_size_gives_no_more_than_it_states(connection, tmp_path):
    path = write_zip(tmp_path / "ml-25m.zip", ML_CSV)
    true_size = len(ML_CSV["ratings.csv"]).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true_size, (40).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"^ml-25m/ratings\.csv is damaged after line \d \(Bad CRC-32 .*\): copy it again$"):
        import_movielens(connection, path)
    connection.commit()
    assert sizes(connection) == NOTHING


def test_a_zip_with_a_password_is_refused(connection, tmp_path):
    path = write_zip(tmp_path / "ml-25m.zip", ML_CSV)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # bit 0 of the flags says "encrypted", in both headers of a member
        place = content.find(signature, 0 if signature == b"PK\3\4" else start)
        while place != -1:
            content[place + flags] |= 1
            place = content.find(signature, place + 1)
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"ratings\.csv cannot be unpacked \(.*password required.*\): unpack it first and name the folder$"
    ):
        import_movielens(connection, path)


def test_a_file_inside_further_folders_gives_way_to_the_outermost(tmp_path):
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for name in ("ml-1m/old/ratings.dat", "ml-1m/ratings.dat", "__MACOSX/ml-1m/movies.dat"):
            archive.writestr(name, name)
    found = files.files_in(tmp_path / "ml-1m.zip")
    assert {name: list(file.lines()) for name, file in found.items()} == {"ratings.dat": ["ml-1m/ratings.dat"]}


def test_times_before_1970_are_times(connection, tmp_path):
    import_movielens(connection, write_folder(tmp_path / "ml-1m", ML_1M | {"ratings.dat": "1::10::5::-1\n"}, "latin-1"))
    assert rows(connection, "playlist_song", "added_at") == [(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),)]
