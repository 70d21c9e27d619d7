"""Single values: what is accepted, and what each refusal says."""

from datetime import UTC, date, datetime

import pytest

from importers import fields


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (fields.text, "   ", None),
        (fields.an_id, "7", "7"),
        (fields.id_list, " ; ", None),
        (fields.number, "-7.5e0", -7.5),
        (fields.whole_number(0, 9), "4.0", 4),
        (fields.truth, "True", True),
        (fields.truth, "0.0", False),
        (fields.aware_time, "2020-01-01T00:00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
        (fields.unix_time, "0", datetime(1970, 1, 1, tzinfo=UTC)),
        (fields.first_day, "1995-03-07", date(1995, 3, 7)),
        (fields.first_day, "1995-03", date(1995, 3, 1)),
        (fields.uuid, "8F3471B57E6A48DA86A9C1C07A0F47AE", "8f3471b5-7e6a-48da-86a9-c1c07a0f47ae"),
    ],
)
def test_a_good_value_is_read(read, value, expected):
    assert read(value) == expected


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (fields.text, "a\0", "holds a NUL character"),
        (fields.an_id, " ", "is blank"),
        (fields.an_id, "x" * 501, "is longer than 500 characters"),
        (fields.playlist_id, "listen:7", "begins with 'listen:', which is reserved"),
        (fields.number, "inf", "is not a finite number"),
        (fields.number, "1e39", "is beyond 3.4e+38"),
        (fields.whole_number(0, 9), "10", "is not between 0 and 9"),
        (fields.whole_number(0, 9), "0.5", "is not a whole number"),
        (fields.whole_number(0, 9), "9" * 5_000, "is not a finite number"),
        (fields.truth, "2", "is neither true nor false"),
        (fields.aware_time, "2020-01-01", "has no time zone"),
        (fields.unix_time, "1e9", "is not a time in seconds since 1970"),
        (fields.first_day, "0000", "is not a date in ISO 8601"),
        (fields.uuid, "x", "is not a UUID"),
    ],
)
def test_a_bad_value_is_refused_with_the_rest_of_a_sentence(read, value, message):
    with pytest.raises(ValueError) as caught:
        read(value)
    assert str(caught.value) == message
