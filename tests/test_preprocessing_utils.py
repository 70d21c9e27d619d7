"""Encoders against numbers and features worked out by hand."""

import pickle
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone

from errors import EncoderError, InvalidSequence
from preprocessing_utils import FeatureEncoder, IdEncoder, count_repeats, cut_sessions, mark_starts

FIRST, SECOND, THIRD = (UUID(int=number) for number in (1, 2, 3))

# --- ids ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [["b", "a", "c"], [20, 10, 30], [SECOND, FIRST, THIRD]], ids=["text", "int", "uuid"])
def test_ids_are_numbered_by_falling_frequency_and_ties_by_id(ids):
    often, low, high = ids
    encoder = IdEncoder().fit([high, often, low, None, often])
    assert encoder.decode([3, 4, 5]) == [often, low, high]
    assert (len(encoder), encoder.n_fitted) == (6, 6)


def test_counts_stand_for_repetition_and_zero_is_not_learned():
    encoder = IdEncoder().fit(["a", "b", "c"], counts=np.array([1, 5, 0]))
    assert encoder.decode([3, 4]) == ["b", "a"]
    assert len(encoder) == 5


def test_extend_appends_in_order_of_appearance_and_leaves_n_fitted():
    encoder = IdEncoder().fit([7]).extend([9, 7, 8, None, 9])
    assert encoder.decode([3, 4, 5]) == [7, 9, 8]
    assert (len(encoder), encoder.n_fitted) == (6, 4)


def test_an_encoder_that_was_only_extended_has_fitted_nothing():
    encoder = IdEncoder().extend(["x"])
    assert (encoder.encode(["x"]).tolist(), encoder.n_fitted, len(encoder)) == ([3], 3, 4)


@pytest.mark.parametrize(
    "ids",
    [
        [20, None, 10, 99],
        (np.int64(20), None, np.int16(10), 99),
        pa.array([20, None, 10, 99], pa.int16()),
        pa.chunked_array([[20, None], [10, 99]]),
        pd.Series([20, None, 10, 99], dtype="Int64"),
        np.array([20, None, 10, 99], dtype=object),
    ],
    ids=["list", "numpy integers", "arrow", "chunks", "pandas", "objects"],
)
def test_every_container_of_ids_is_encoded_alike(ids):
    numbers = IdEncoder().fit([10, 10, 20]).encode(ids)
    assert numbers.dtype == np.int32
    assert numbers.tolist() == [4, 2, 3, 2]


def test_plain_numpy_arrays_of_integers_and_texts_are_encoded():
    assert IdEncoder().fit([10]).encode(np.array([10, 11])).tolist() == [3, 2]
    assert IdEncoder().fit(["x"]).encode(np.array(["x", "y"])).tolist() == [3, 2]


def test_uuids_are_sixteen_bytes_inside_and_uuids_outside():
    encoder = IdEncoder().fit(pa.array([FIRST.bytes, SECOND.bytes, SECOND.bytes], pa.uuid()))
    assert encoder.ids.type == pa.binary(16)
    assert encoder.decode([3, 4]) == [SECOND, FIRST]
    assert encoder.encode([FIRST, str(SECOND), THIRD]).tolist() == [4, 3, 2]
    assert encoder.encode(pa.array([FIRST.bytes, None], pa.uuid())).tolist() == [4, 2]


@pytest.mark.parametrize(("ids", "id_type"), [([1], "int"), (["1"], "text"), ([FIRST], "uuid"), ([], None), ([None], None)])
def test_the_type_of_the_ids_is_learned(ids, id_type):
    assert IdEncoder().fit(ids).id_type == id_type


def test_an_encoder_without_ids_knows_nothing_and_takes_anything():
    encoder = IdEncoder("artist").fit(pa.nulls(2)).extend(pa.nulls(1))
    assert encoder.encode(["a", 1, None]).tolist() == [2, 2, 2]
    assert encoder.encode(pa.nulls(2)).tolist() == [2, 2]
    assert encoder.encode(pa.array(["a"])).tolist() == [2]
    assert (len(encoder), encoder.decode([0, 2])) == (3, [None, None])


def test_a_text_that_looks_like_a_number_is_another_id_than_the_number():
    assert IdEncoder().fit(["007", "7"]).encode(["7", "007", "07"]).tolist() == [4, 3, 2]


def test_integers_beyond_64_bits_are_unknown_rather_than_an_error():
    assert IdEncoder().fit([1]).encode([2**70, -(2**70), 1]).tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    ("known", "value", "message"),
    [
        ("a", 168, 'song ids are text here (got 168, an integer): send "168"'),
        ("a", 1.5, 'song ids are text here (got 1.5, a number): send "1.5"'),
        ("a", True, "song ids are text here (got true, a boolean)"),
        ("a", ["a"], 'song ids are text here (got ["a"], a list)'),
        (5, "168", 'song ids are integers here (got "168", a text): send 168'),
        (5, "abc", 'song ids are integers here (got "abc", a text)'),
        (5, True, "song ids are integers here (got true, a boolean)"),
        (5, np.True_, "song ids are integers here (got true, a boolean)"),
        (5, 5.0, "song ids are integers here (got 5.0, a number)"),
        (FIRST, "abc", 'song ids are uuids here (got "abc", a text)'),
        (FIRST, 1, "song ids are uuids here (got 1, an integer)"),
    ],
)
def test_an_id_of_another_type_is_refused_with_what_to_send(known, value, message):
    encoder = IdEncoder("song").fit([known])
    for refuse in (encoder.check_type, encoder.encode):
        with pytest.raises(InvalidSequence) as caught:
            refuse([known, None, value])
        assert str(caught.value) == message


def test_ids_of_the_right_type_pass_whether_known_or_not():
    IdEncoder().fit([1]).check_type([1, 2, None, np.int32(3)])
    IdEncoder().fit(["a"]).check_type(["a", "never seen"])
    IdEncoder().fit([FIRST]).check_type([SECOND, str(THIRD)])


def test_arrays_of_another_type_are_refused():
    with pytest.raises(EncoderError, match=r"song ids are text here \(got ids of type int\): cast one of them in its query"):
        IdEncoder("song").fit(["a"]).extend([1])
    with pytest.raises(EncoderError, match="song ids are integers here"):
        IdEncoder("song").fit([1]).encode(pa.array(["a"]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, "a"], r'album ids are of several types \(got 1 and "a"\)'),
        ([1.5], r"album ids are integers, text or uuids \(got 1.5, a number\)"),
        (pa.array([1.5]), "album ids are of type double: cast them to bigint, text or uuid"),
        (np.array([True]), "album ids are of type bool"),
    ],
)
def test_what_cannot_be_an_id_is_not_learned(ids, message):
    with pytest.raises(EncoderError, match=message):
        IdEncoder("album").fit(ids)


def test_unknown_ids_are_an_error_where_the_policy_says_so():
    encoder = IdEncoder("song", unknown="error").fit(["a"])
    assert encoder.encode(["a"]).tolist() == [3]
    with pytest.raises(EncoderError, match='2 of 3 song ids are unknown to the encoder: "x", "y"'):
        encoder.encode(["x", "a", "y"])


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_that_is_not_in_use_cannot_be_decoded(number):
    with pytest.raises(EncoderError, match=f"song number {number} is not in use: numbers end at 3"):
        IdEncoder("song").fit(["a"]).decode([3, number])


def test_the_lookup_is_built_by_the_first_list_and_not_pickled():
    encoder = IdEncoder().fit([f"song {number}" for number in range(1000)])
    fresh = len(pickle.dumps(encoder))
    encoder.encode(["song 1"])
    copy = pickle.loads(pickle.dumps(encoder))
    assert encoder._number_by_key is not None
    assert len(pickle.dumps(encoder)) == fresh
    assert copy.encode(["song 999", "song 1"]).tolist() == encoder.encode(["song 999", "song 1"]).tolist()


def test_new_ids_are_found_after_the_lookup_was_built():
    encoder = IdEncoder().fit(["a"])
    assert encoder.encode(["b"]).tolist() == [2]
    assert encoder.extend(["b"]).encode(["b"]).tolist() == [4]


def test_a_million_ids_go_there_and_back():
    ids = pa.array(np.arange(1_000_000)[::-1].copy())
    encoder = IdEncoder().extend(ids)
    numbers = encoder.encode(ids)
    assert numbers[[0, 1, -1]].tolist() == [3, 4, 1_000_002]
    assert encoder.decode(numbers[-2:]) == [1, 0]


# --- features ----------------------------------------------------------------------------------------------------------------


def test_every_treatment_gives_the_features_worked_out_by_hand():
    frame = pd.DataFrame(
        {
            "explicit": [1.0, np.nan],
            "tempo": [100.0, 140.0],  # mean 120, deviation 20
            "duration_ms": [np.expm1(10), np.expm1(12)],  # mean of the logarithms 11, deviation 1
            "key": [6, -1],
            "time_signature": [3, 4],
        }
    )
    encoder = FeatureEncoder().fit(frame)
    assert encoder.feature_names == [
        "explicit", "tempo", "duration_ms", "key_sine", "key_cosine", "time_signature_3", "time_signature_4",
        "explicit_missing", "tempo_missing", "duration_ms_missing", "key_missing", "time_signature_missing",
    ]  # fmt: skip
    features = encoder.encode(frame)
    assert features.dtype == np.float32
    np.testing.assert_allclose(
        features, [[1, -1, -1, 0, -1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0]], atol=1e-6
    )


def test_scales_come_from_the_fitted_rows_only():
    encoder = FeatureEncoder().fit(pd.DataFrame({"energy": [0.0, 1.0]}))
    assert encoder.encode(pd.DataFrame({"energy": [0.5, 2.0]})).tolist() == [[0, 0], [3, 0]]


def test_a_category_that_was_not_fitted_is_all_zero_and_not_missing():
    encoder = FeatureEncoder().fit(pd.DataFrame({"time_signature": [4.0, 3.0, np.nan]}))
    encoded = encoder.encode(pd.DataFrame({"time_signature": [5.0, np.nan, 4.0]}))
    assert encoded.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_features_that_are_missing_altogether_are_zero_and_marked():
    frame = pd.DataFrame(
        {name: [None, None] for name in ("explicit", "energy", "duration_ms", "key", "time_signature")}, dtype=object
    )
    encoder = FeatureEncoder().fit(frame)
    marks = {name: float(name.endswith("_missing")) for name in encoder.feature_names}
    assert sum(marks.values()) == 5
    assert encoder.encode(frame).tolist() == [list(marks.values())] * 2
    assert encoder.decode(encoder.encode(frame)).isna().all(axis=None)


def test_an_absent_column_counts_as_missing_and_a_new_one_is_passed_over():
    encoder = FeatureEncoder().fit(pd.DataFrame({"energy": [0.0, 1.0], "mode": [0, 1]}))
    assert encoder.feature_names == ["mode", "energy", "energy_missing", "mode_missing"]
    assert encoder.encode(pd.DataFrame({"mode": [1], "danceability": [0.9]})).tolist() == [[1, 0, 1, 0]]


def test_a_value_in_a_column_without_a_scale_is_missing():
    encoder = FeatureEncoder().fit(pd.DataFrame({"tempo": [np.nan, np.nan]}))
    assert encoder.encode(pd.DataFrame({"tempo": [120.0]})).tolist() == [[1]]


@pytest.mark.parametrize(
    ("column", "value"), [("tempo", np.inf), ("tempo", 1e300), ("key", -1), ("key", 12), ("duration_ms", -5)]
)
def test_impossible_values_are_missing(column, value):
    encoder = FeatureEncoder().fit(pd.DataFrame({column: [1.0, 2.0]}))
    *features, missing = encoder.encode(pd.DataFrame({column: [value]}))[0]
    assert (set(features), missing) == ({0.0}, 1.0)


def test_a_wild_value_is_cut_to_ten_deviations():
    encoder = FeatureEncoder().fit(pd.DataFrame({"loudness": [-1.0, 1.0]}))
    assert encoder.encode(pd.DataFrame({"loudness": [-500.0, 500.0]})).tolist() == [[-10, 0], [10, 0]]


def test_without_any_column_there_are_no_features():
    encoder = FeatureEncoder().fit(pd.DataFrame(index=range(3)))
    assert encoder.feature_names == []
    assert encoder.encode(pd.DataFrame(index=range(2))).shape == (2, 0)


def test_decode_gives_the_raw_columns_back():
    frame = pd.DataFrame(
        {
            "tempo": [90.0, 120.0, np.nan],
            "key": [0.0, 11.0, np.nan],
            "duration_ms": [1000.0, 250000.0, 7.0],
            "time_signature": [3.0, 4.0, np.nan],
            "explicit": [0.0, 1.0, np.nan],
        }
    )
    encoder = FeatureEncoder().fit(frame)
    pd.testing.assert_frame_equal(encoder.decode(encoder.encode(frame)), frame, rtol=1e-5)


def test_a_column_of_words_is_refused_by_name():
    with pytest.raises(EncoderError, match=r"feature column key is not numeric .*C#"):
        FeatureEncoder().fit(pd.DataFrame({"key": ["C#", "D"]}))


@pytest.mark.parametrize("encoder", [IdEncoder("album", unknown="error"), FeatureEncoder(cyclic=("key", "hour"))])
def test_the_encoders_are_estimators_that_scikit_learn_can_clone(encoder):
    assert clone(encoder).get_params() == encoder.get_params()


# --- sequences ---------------------------------------------------------------------------------------------------------------


def test_a_pause_as_long_as_the_gap_does_not_yet_cut_a_session():
    times = np.array([0, 1800, 3601, 3602])
    assert cut_sessions(times, gap_minutes=30).tolist() == [0, 0, 1, 1]
    assert cut_sessions(times.astype("datetime64[s]"), gap_minutes=30).tolist() == [0, 0, 1, 1]
    assert cut_sessions(times[:0], gap_minutes=30).tolist() == []


def test_times_out_of_order_cannot_be_cut():
    with pytest.raises(ValueError, match=r"times must be in order \(entry 2 lies before its predecessor\)"):
        cut_sessions(np.array([0, 50, 40]), gap_minutes=30)


@pytest.mark.parametrize(("keys", "starts"), [([], []), ([5], [True]), ([5, 5, 6, 5], [True, False, True, True])])
def test_a_start_is_where_the_key_changes(keys, starts):
    assert mark_starts(pa.array(keys, pa.int64())).tolist() == starts


def test_repeats_are_counted_within_a_sequence_only():
    assert count_repeats(np.array([3, 3, 4, 3, 4, 4, 4]), np.array([0, 3, 3, 7])) == 1 + 2
