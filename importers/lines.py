"""Lines of files that programs write a whole line at a time, so that one without an end tells where a file was cut off."""

from collections.abc import Iterator

from errors import DataError
from importers.files import TextFile


def whole_lines(file: TextFile) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank.  Raises DataError where the last one has no end."""
    for number, line in enumerate(file.lines(), start=1):
        if not line.endswith(("\n", "\r")):
            raise cut_off(file, number)
        if not line.isspace():
            yield number, line.rstrip("\r\n")


def cut_off(file: TextFile, number: int) -> DataError:
    """What to raise for a file that ends within that line."""
    return DataError(f"{file.name} ends in the middle of line {number} (cut off?): fetch it again")
