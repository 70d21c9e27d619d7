"""Made-up data folders in the layout of the real ones."""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.quality.splits import DataSet, build, read
from config import FIRST_NUMBER


def write_folder(
    folder: Path, sequences: Mapping[str, Sequence[str]], songs: Sequence[str], playlists: Sequence[str] = ()
) -> Path:
    """Write a data folder: sequences by id, and the lines of songs.csv and playlists.csv, headers first."""
    folder.mkdir(parents=True)
    lines = [f"{name},{place},{song}" for name, held in sequences.items() for place, song in enumerate(held)]
    _write(folder / "sequences.csv.gz", ["playlist_id,pos,song_id", *lines])
    _write(folder / "songs.csv.gz", songs)
    if playlists:
        _write(folder / "playlists.csv.gz", playlists)
    return folder


def plain_songs(names: str) -> list[str]:
    """Lines of songs.csv: every song with an artist and an album of its own."""
    header = "song_id,song_name,artist_id,artist_name,album_id,album_name"
    return [header, *(f"{name},,by-{name},,on-{name}," for name in names)]


def built(folder: Path) -> DataSet:
    """Read a folder and write its snapshot beside it."""
    return build(read(folder), folder.parent / f"{folder.name}-built")


def spelled(data: DataSet, numbers: Sequence[int]) -> str:
    """Song numbers as the one-letter ids of `plain_songs("abc...")`."""
    letters = {int(number): chr(ord("a") + row) for row, number in enumerate(data.number)}
    return "".join(letters[int(number)] for number in numbers if number >= FIRST_NUMBER)


def _write(path: Path, lines: Sequence[str]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
