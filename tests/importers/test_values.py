"""Values of JSON: whatever stands where a text, a number or a time belongs is either read or told in a few words."""

import math
from datetime import UTC, datetime

import pytest

from importers import values

NOTHING = (None, "", " \t")


@pytest.mark.parametrize("read", [values.text, values.whole_number, values.seconds, values.unix_time, values.uuid])
@pytest.mark.parametrize("nothing", NOTHING)
def test_null_and_blanks_mean_nothing(read, nothing):
    assert read(nothing) is None


@pytest.mark.parametrize(
    "read", [values.text, values.whole_number, values.seconds, values.unix_time, values.utc_time, values.uuid, values.record_of]
)
@pytest.mark.parametrize("odd", [[1], True, float("nan"), float("inf"), -1e300, "\0", "\ud800", "1" * 5000])
def test_what_can_never_be_right_is_told(read, odd):
    with pytest.raises(ValueError, match=r"^(is|holds|has) "):
        read(odd)


@pytest.mark.parametrize(("value", "number"), [(0, 0), (218000, 218000), (218000.0, 218000), (" 218000 ", 218000), ("2.0", 2)])
def test_whole_numbers(value, number):
    found = values.whole_number(value)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize("value", [-1, 2**31, 10**400, "-1", 1.5, "x", {}])
def test_what_is_no_whole_number_of_ours(value):
    with pytest.raises(ValueError, match=r"^is not "):
        values.whole_number(value)


@pytest.mark.parametrize(("value", "found"), [(0, 0.0), (218.4, 218.4), ("218.4", 218.4)])
def test_seconds(value, found):
    read = values.seconds(value)
    assert read is not None
    assert math.isclose(read, found)


@pytest.mark.parametrize("value", [-0.1, 2_147_484, 10**400])
def test_what_is_no_duration(value):
    with pytest.raises(ValueError, match=r"^is "):
        values.seconds(value)


@pytest.mark.parametrize("value", [1443521965, 1443521965.0, "1443521965"])
def test_seconds_since_1970(value):
    assert values.unix_time(value) == datetime(2015, 9, 29, 10, 19, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0, "is before 1990, from a clock that was not set"),
        (-1, "is before 1990, from a clock that was not set"),
        (1443521965000, "is not a time in seconds since 1970"),
        (10**30, "is not a time in seconds since 1970"),
        (10**400, "is not a finite number"),
        ("29 Sep 2015", "is not a number"),
    ],
)
def test_what_is_no_time(value, fault):
    with pytest.raises(ValueError, match=f"^{fault}$"):
        values.unix_time(value)


@pytest.mark.parametrize("value", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_zone_can_put_a_time_beyond_what_there_is(value):
    with pytest.raises(ValueError, match=r"^is not a time between the years 1 and 9999$"):
        values.utc_time(value)


@pytest.mark.parametrize("written", ["64ff5f53-d187-4512-827e-7606c69e66ff", " 64FF5F53D1874512827E7606C69E66FF "])
def test_a_uuid_in_any_form(written):
    assert values.uuid(written) == "64ff5f53-d187-4512-827e-7606c69e66ff"


def test_the_fault_of_a_required_field_is_a_sentence_and_that_of_an_optional_one_is_noted():
    faults: list[str] = []
    record = {"artist": 7, "title": "Low Tide", "album": None}
    assert [values.optional(record, key, values.text, faults) for key in ("artist", "title", "album", "isrc")] == [
        None,
        "Low Tide",
        None,
        None,
    ]
    assert faults == ["artist is not a text"]
    assert values.required(record, "title", values.text) == "Low Tide"
    for key, fault in (("artist", "artist is not a text"), ("album", "album is empty")):
        with pytest.raises(ValueError, match=f"^{fault}$"):
            values.required(record, key, values.text)
