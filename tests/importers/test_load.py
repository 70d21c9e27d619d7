"""The promises of every import: the caller owns the transaction, and one import at a time."""

import psycopg
import pytest

from errors import DataError
from importers import IMPORTERS
from tests.importers.small import NOTHING, SEQUENCES, sizes, write_csv


def test_nothing_is_committed_for_the_caller(connection, tmp_path):
    IMPORTERS["csv"](connection, write_csv(tmp_path))
    connection.rollback()
    assert sizes(connection) == NOTHING


def test_a_connection_can_import_again_after_a_refusal(connection, tmp_path):
    with pytest.raises(DataError, match="line 2 is longer"):
        IMPORTERS["csv"](connection, write_csv(tmp_path, sequences=SEQUENCES.splitlines()[0] + "\n" + "x" * 2_000_000))
    connection.rollback()
    IMPORTERS["csv"](connection, write_csv(tmp_path))
    assert sizes(connection) == {"song": 4, "artist": 2, "album": 1, "playlist": 2, "playlist_song": 5}


def test_two_imports_run_one_after_the_other(connection, another_connection, tmp_path):
    IMPORTERS["csv"](connection, write_csv(tmp_path / "tapes"))
    another_connection.execute("SET lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        IMPORTERS["csv"](another_connection, tmp_path / "tapes", prefix="other")
    another_connection.rollback()
    connection.commit()
    assert not IMPORTERS["csv"](another_connection, tmp_path / "tapes").changed


def test_importers_are_known_by_the_names_of_the_command():
    assert sorted(IMPORTERS) == ["csv", "movielens"]
