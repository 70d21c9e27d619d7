"""JSON read one record at a time: what comes out, where it ends, and what no file may cost."""

import io
import json
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError
from importers import json_stream
from importers.files import TextFile
from importers.json_stream import array_items, json_lines, whole


def file_of(content):
    content = content if isinstance(content, bytes) else content.encode()
    return TextFile(name="plays.json", open=lambda: closing(io.BytesIO(content)))


CUT_OFF = r"^plays\.json (ends in the middle,|is no JSON) after record [012].*cut off.*: fetch it again$"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 2]), block=st.integers(1, 40))
def test_items_are_those_of_the_whole_file_however_it_comes_in(values, indent, block):
    text = json.dumps(values, indent=indent, ensure_ascii=block % 2 == 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_stream, "BYTES_AT_A_TIME", block)
        try:
            content = text.encode()
        except UnicodeEncodeError:
            return
        assert list(array_items(file_of(content))) == list(enumerate(values, start=1))


def test_a_file_cut_at_any_byte_is_one_clear_error():
    content = '[{"a": "ä\\u00e9", "b": [1, 2.5, null]},\n {"c": true}]'.encode()
    for length in range(len(content)):
        with pytest.raises(
            DataError, match=r"^plays\.json (ends in the middle,|is no JSON) after record [012].*cut off.*: fetch it again$"
        ):
            list(array_items(file_of(content[:length])))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1] x", "is no JSON after record 1"),
        (b"[1,,2]", "is no JSON after record 1"),
        (b"[1 2, 3, 4, 5, 6]", "is no JSON after record 1"),
        (b"plays", "is no JSON after record 0"),
        (b"{'a': 1, 'b': 2}", "is no JSON after record 0"),
        (b'["\xff"]', "is not UTF-8 after record 0"),
        ('["ä"]'.encode("utf-16"), "is not UTF-8 after record 0"),
        (b"[" * 100_000, "is nested too deeply after record 0"),
    ],
)
def test_what_is_no_json_says_where(content, said):
    with pytest.raises(DataError, match=said):
        list(array_items(file_of(content)))


def test_one_endless_value_ends_before_the_memory_does(monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_RECORD_CHARACTERS", 1_000_000)
    with pytest.raises(DataError, match="has no JSON value within 1,000,000 characters after record 1"):
        list(array_items(file_of('[1, "' + "x" * 3_000_000 + '"]')))


def test_an_array_deep_in_an_object_is_found_and_the_rest_is_read():
    content = {"a": [1], "playlist": {"title": "x", "track": [{"n": 1}, {"n": 2}], "date": None}, "z": {"track": [3]}}
    assert list(array_items(file_of(json.dumps(content)), at="playlist.track")) == [(1, {"n": 1}), (2, {"n": 2})]
    assert list(array_items(file_of(json.dumps(content)), at="playlist.title")) == []
    assert list(array_items(file_of("[1, 2]"), at="playlist.track")) == []


def test_the_mark_of_utf_8_is_passed_over():
    assert list(array_items(file_of(b"\xef\xbb\xbf[1]"))) == [(1, 1)]
    assert whole(file_of(b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}


def test_lines_cost_themselves_and_a_cut_one_the_file():
    skipped = []
    found = list(json_lines(file_of('{"a": 1}\n\n{"a"\n[]\n'), skip=lambda *what: skipped.append(what)))
    assert found == [(1, {"a": 1}), (4, [])]
    assert skipped == [("is no line of JSON", 3)]
    with pytest.raises(DataError, match=r"plays\.json ends in the middle of line 2"):
        list(json_lines(file_of('{"a": 1}\n{"a"'), skip=lambda *what: None))


def test_whole_files_have_a_bound():
    with pytest.raises(DataError, match="is larger than 10 bytes"):
        whole(file_of("[" + "1," * 20 + "1]"), max_bytes=10)
    with pytest.raises(DataError, match="is no JSON, or ends in the middle"):
        whole(file_of("[1, 2"))
