"""Ids are found where a dict finds them, whatever their type, their number and the order in which they came."""

import random

import numpy as np
import pyarrow as pa
import pytest

import id_table
from id_table import EMPTY, IdTable

MAKERS = {
    "integers far apart": (pa.int64(), lambda rng: rng.choice([rng.randint(-(2**63), 2**63 - 1), rng.randint(0, 50)])),
    "integers close together": (pa.int64(), lambda rng: rng.randint(2**63 - 300, 2**63 - 1)),
    "negative integers": (pa.int64(), lambda rng: rng.randint(-(2**63), -(2**63) + 300)),
    "integers about zero": (pa.int64(), lambda rng: rng.randint(-40, 40)),
    "texts": (pa.large_string(), lambda rng: "".join(rng.choice("aé\0b") for _ in range(rng.choice([0, 1, 3, 7, 8, 9, 16, 30])))),
    "uuids": (pa.binary(16), lambda rng: bytes([rng.randint(0, 1)] * 8 + [rng.randint(0, 255)] * 8)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", range(20))
def test_places_are_those_of_a_dict(kind, seed):
    rng, (id_type, make) = random.Random(seed), MAKERS[kind]
    ids = list(dict.fromkeys(make(rng) for _ in range(rng.randint(0, 200))))
    whole = pa.array([None, None, None, *ids], id_type)[3:]  # a slice, as batches of the driver are
    table = IdTable(whole[: rng.randint(0, len(ids))])
    table.grow(whole)
    wanted = [make(rng) if rng.random() < 0.9 else None for _ in range(100)] + ids
    rng.shuffle(wanted)
    place_of = {id_: place for place, id_ in enumerate(ids)}
    assert table.places(pa.array([None, *wanted], id_type)[1:]).tolist() == [place_of.get(id_, EMPTY) for id_ in wanted]


@pytest.mark.parametrize("id_type", [pa.large_string(), pa.binary(16)], ids=str)
def test_ids_with_one_hash_are_told_apart(id_type, monkeypatch):
    monkeypatch.setattr(id_table, "_hashes", lambda words: np.zeros(len(words), np.uint64))
    ids = ["a" * 16, "b" * 16, "a" * 15 + "b"] + (["a", "aa"] if id_type == pa.large_string() else [])
    array = pa.array([id_.encode() for id_ in ids], pa.binary()).cast(id_type)
    table = IdTable(array)
    assert table.places(array).tolist() == list(range(len(ids)))
    assert table.places(pa.array([b"c" * 16], pa.binary()).cast(id_type)).tolist() == [EMPTY]
