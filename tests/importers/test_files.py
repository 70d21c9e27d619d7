"""Rows out of CSV text: a quote that goes wrong costs one line, whatever stands behind it."""

import io
from pathlib import Path

import pytest

from errors import DataError
from importers.files import TextFile, csv_rows, file_at


def read(text: str) -> tuple[list[tuple[int, list[str]]], list[int]]:
    """The rows of a text, and the lines that were skipped."""
    skipped: list[int] = []
    file = TextFile(name="small.csv", open=lambda: io.BytesIO(text.encode()))
    return list(csv_rows(file, skip=lambda _, line: skipped.append(line))), skipped


def test_rows_carry_the_number_of_their_first_line():
    assert read('a,b\n"one\ntwo",c\n\nd,e') == ([(1, ["a", "b"]), (2, ["one\ntwo", "c"]), (5, ["d", "e"])], [])


@pytest.mark.parametrize("bad", ['x,"y', '"x"y,z', '"x', '"x" ,y'])
def test_a_bad_quote_costs_its_own_line_only(bad):
    many = [f"{i},song" for i in range(300)]
    rows, skipped = read("\n".join(["a,b", bad, *many]))
    assert rows == [(1, ["a", "b"]), *((i + 3, [str(i), "song"]) for i in range(300))]
    assert skipped == [2]


def test_a_bad_quote_before_a_good_one_costs_its_own_line_only():
    assert read('x,"y\n1,"Rain, Again"\n2,c\n') == ([(2, ["1", "Rain, Again"]), (3, ["2", "c"])], [1])


def test_a_bad_quote_in_the_last_line_costs_that_line_only():
    assert read('a,b\nc,"d') == ([(1, ["a", "b"])], [2])


def test_a_file_that_is_away_is_named():
    with pytest.raises(DataError, match=r"^songs\.csv cannot be read: No such file or directory$"):
        list(file_at(Path("nowhere/songs.csv")).lines())
