"""JSON files that may be larger than the memory: the items of an array one by one, and files of one value a line.

The standard library's decoder reads one item at a time out of a few blocks of text, 200,000 records a second.  ijson is as fast,
and 100,000 opening brackets in a row took all of the memory with it; a number beyond 64 bits ended the file.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from errors import DataError
from importers.files import TextFile, reading

# One record; without a bound, a few compressed kilobytes of one text can ask for all of the memory.
MAX_RECORD_CHARACTERS = 16 * 1_048_576
BYTES_AT_A_TIME = 262_144
_SPACE = re.compile(r"[ \t\r\n]*")
_MAY_GO_ON = frozenset(["", *".eE+-0123456789"])  # what stands behind a number that is not at its end
_DECODER = json.JSONDecoder()


def array_items(file: TextFile, *, at: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the number, from 1, and the value of each item of the array that the file is, or that stands in it at `at`.

    `at` is the way from the outermost object, with dots: "playlist.track".  What is no array there has no items.  Raises
    DataError for what is no JSON, for a file that ends in the middle, and for one that cannot be read.
    """
    with reading(file) as stream:
        text = _Text(stream, file.name)
        for value in _items_at(text, at.split(".") if at else []):
            text.number += 1
            yield text.number, value
        text.end()


def whole(file: TextFile, *, max_bytes: int = MAX_RECORD_CHARACTERS) -> Any:
    """The value of a small file.  Raises DataError for what is no JSON, and for a file of more than `max_bytes`."""
    with reading(file) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"{file.name} is larger than {max_bytes:,} bytes: too large for a file of this kind")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise DataError(f"{file.name} is not UTF-8: save it as UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{file.name} is no JSON, or ends in the middle (cut off?): fetch it again ({exc})") from exc


def json_lines(file: TextFile, *, skip: Callable[[str, int], None]) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each line; empty lines are passed over, `skip` is told reason and number of a broken one.

    Raises DataError for a file that cannot be read, or whose last line is cut off.
    """
    for number, line in enumerate(file.lines(), start=1):
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            if not line.endswith("\n"):
                raise DataError(f"{file.name} ends in the middle of line {number} (cut off?): fetch it again") from exc
            skip("is no line of JSON", number)
        else:
            yield number, value


def _items_at(text: "_Text", way: Sequence[str]) -> Iterator[Any]:
    """The items of the array at the end of `way`; whatever else is there is read and dropped."""
    sign = text.peek()
    if way and sign == "{":
        for key in text.members():
            yield from _items_at(text, way[1:]) if key == way[0] else _nothing(text)
    elif not way and sign == "[":
        yield from text.elements()
    else:
        text.value()


def _nothing(text: "_Text") -> Iterator[Any]:
    text.value()
    return iter(())


class _Text:
    """The part of a JSON text that is at hand, and where it is read next."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._name = name
        self._text = ""
        self._at = 0
        self._is_whole = False
        self.number = 0
        """Of the record that was read last."""

    def peek(self) -> str:
        """The next sign that is no white space.  Raises DataError where there is none."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_whole:
                raise self._cut_off()
            self._more()

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError as exc:
                raise DataError(f"{self._name} is nested too deeply after record {self.number}: no file of this kind") from exc
            except ValueError as exc:
                if self._is_whole:
                    raise self._wrong() from exc
            else:
                if self._is_whole or self._text[end : end + 1] not in _MAY_GO_ON:
                    self._at = end
                    return found
            if len(self._text) - self._at > MAX_RECORD_CHARACTERS:
                raise DataError(
                    f"{self._name} has no JSON value within {MAX_RECORD_CHARACTERS:,} characters after record {self.number}: "
                    "no file of this kind"
                )
            self._more()

    def elements(self) -> Iterator[Any]:
        """The values of the array that begins here."""
        for _ in self._parts("[", "]"):
            yield self.value()

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; whoever asks for the next one has read the value of this one."""
        for _ in self._parts("{", "}"):
            if self.peek() != '"':
                raise self._wrong()
            key = self.value()
            self._take(":")
            yield key

    def end(self) -> None:
        """Make sure that nothing follows.  Raises DataError."""
        while not self._is_whole or self._at < len(self._text):
            if not self._text[self._at :].isspace() and self._at < len(self._text):
                raise self._wrong()
            self._at = len(self._text)
            self._more()

    def _parts(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self.peek() != closing:
            yield
            while self.peek() == ",":
                self._at += 1
                yield
        self._take(closing)

    def _take(self, sign: str) -> None:
        if self.peek() != sign:
            raise self._wrong()
        self._at += 1

    def _more(self) -> None:
        """Read on, twice as much where a value is not complete yet, so that a long one is not begun over and over."""
        kept = self._text[self._at :]
        block = self._stream.read(max(BYTES_AT_A_TIME, len(kept)))
        try:
            self._text = kept + self._decode(block, final=not block)
        except UnicodeDecodeError as exc:
            if not block:
                raise self._cut_off() from exc
            raise DataError(f"{self._name} is not UTF-8 after record {self.number}: save it as UTF-8") from exc
        self._at, self._is_whole = 0, not block

    def _cut_off(self) -> DataError:
        return DataError(f"{self._name} ends in the middle, after record {self.number} (cut off?): fetch it again")

    def _wrong(self) -> DataError:
        return DataError(f"{self._name} is no JSON after record {self.number}, or was cut off there: fetch it again")
