import threading

import pytest

from errors import SchemaError
from storage.connections import connect
from storage.migrate import MIGRATIONS_FOLDER, migrate, migrations_in, pending

# Everything that makes up a schema, as text.
CATALOGUE = """
SELECT format('%s.%s %s %s %s', table_schema, table_name, column_name, data_type, column_default || is_nullable)
FROM information_schema.columns WHERE table_schema IN ('music', 'recommender')
UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace IN ('music'::regnamespace, 'recommender'::regnamespace)
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname IN ('music', 'recommender')
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace IN ('music'::regnamespace, 'recommender'::regnamespace)
ORDER BY 1
"""


@pytest.fixture
def empty(empty_database_url):
    opened = connect(empty_database_url)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path):
    """Two small migrations of a test's own."""
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id int);\nCREATE TABLE first_too (id int);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (id int);")
    return tmp_path


def tables(connection) -> list[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname"
    return [name for (name,) in connection.execute(query).fetchall()]


def test_migrations_applied_twice_change_nothing_the_second_time(empty):
    everything = [migration.version for migration in migrations_in()]
    assert pending(empty) == everything
    assert migrate(empty) == everything
    before = empty.execute(CATALOGUE).fetchall()
    assert migrate(empty) == pending(empty) == []
    assert empty.execute(CATALOGUE).fetchall() == before


def test_migrations_one_by_one_make_the_same_schema_as_all_at_once(empty, connection, tmp_path):
    for file in sorted(MIGRATIONS_FOLDER.glob("*.sql")):
        (tmp_path / file.name).write_text(file.read_text())
        assert migrate(empty, tmp_path) == [int(file.name[:4])]
        empty.commit()
    assert empty.execute(CATALOGUE).fetchall() == connection.execute(CATALOGUE).fetchall()


def test_only_what_is_new_is_applied(empty, folder):
    assert migrate(empty, folder) == [1, 2]
    empty.commit()
    (folder / "0003_third.sql").write_text("CREATE TABLE third (id int)")
    assert pending(empty, folder) == [3]
    assert migrate(empty, folder) == [3]
    assert tables(empty) == ["first", "first_too", "second", "third"]


def test_a_failing_migration_leaves_nothing(empty, folder):
    (folder / "0002_second.sql").write_text("CREATE TABLE second (id int); CREATE TABLE second (id int);")
    with pytest.raises(SchemaError, match=r'0002_second\.sql cannot be applied: relation "second" already exists'):
        migrate(empty, folder)
    empty.rollback()
    assert tables(empty) == []
    assert empty.execute("SELECT to_regnamespace('recommender')").fetchone() == (None,)


def test_an_edited_migration_is_reported(empty, folder):
    migrate(empty, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (id bigint)")
    with pytest.raises(SchemaError, match=r"0001_first\.sql was edited after it had been applied"):
        pending(empty, folder)


def test_a_database_that_is_ahead_of_the_project_is_reported(empty, folder):
    migrate(empty, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(SchemaError, match="the database has migration 2, which this project does not know"):
        migrate(empty, folder)


def test_two_migrations_with_one_number_are_refused(folder):
    (folder / "0002_other.sql").write_text("SELECT 1")
    with pytest.raises(SchemaError, match=r"0002_other\.sql and 0002_second\.sql have the same number"):
        migrations_in(folder)


def test_a_second_migrator_waits_and_finds_nothing_to_do(empty, empty_database_url, folder):
    migrate(empty, folder)
    applied = []

    def migrate_as_well():
        with connect(empty_database_url) as connection:
            applied.append(migrate(connection, folder))

    second = threading.Thread(target=migrate_as_well)
    second.start()
    second.join(timeout=0.3)
    assert applied == []  # waits
    empty.commit()
    second.join()
    assert applied == [[]]


def test_a_role_without_rights_is_told_who_migrates(empty, folder):
    empty.execute("SET ROLE pg_monitor")
    with pytest.raises(SchemaError, match=r"permission denied for database .*as the database's owner"):
        migrate(empty, folder)
