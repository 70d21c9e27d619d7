import pytest

from storage.named import SQL_FOLDER, queries


def test_statements_come_by_name_without_their_semicolon(tmp_path):
    (tmp_path / "two.sql").write_text(
        "-- Heading.\n\n-- name: one\n-- Says one.\nSELECT 1;\n\n-- name: two\n-- Says two.\nSELECT 2;\n"
    )
    assert queries(tmp_path / "two.sql") == {"one": "-- Says one.\nSELECT 1", "two": "-- Says two.\nSELECT 2"}


def test_a_statement_without_a_sentence_is_refused(tmp_path):
    (tmp_path / "bare.sql").write_text("-- name: bare\nSELECT 1;\n")
    with pytest.raises(ValueError, match=r"'bare' in bare\.sql has no sentence"):
        queries(tmp_path / "bare.sql")


def test_a_name_that_comes_twice_is_refused(tmp_path):
    (tmp_path / "twice.sql").write_text("-- name: a\n-- A.\nSELECT 1;\n-- name: a\n-- A.\nSELECT 2;\n")
    with pytest.raises(ValueError, match=r"twice\.sql names 'a' twice"):
        queries(tmp_path / "twice.sql")


def test_every_file_of_the_project_can_be_read():
    assert all(queries(file) for file in SQL_FOLDER.glob("*.sql"))
