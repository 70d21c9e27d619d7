from pathlib import Path

import psycopg
import pytest

from config import PROJECT_ROOT, DatabaseConfig
from storage.migrate import migrate
from storage.models import Model, latest_model, publish_model, register_model
from storage.named import as_statement
from storage.requests import RankedSong, add_request, claim, finish
from storage.source import check_contract

STORAGE = PROJECT_ROOT / "storage"


def run(connection, file: Path) -> None:
    connection.execute(as_statement(file.read_text(encoding="utf-8")))


def schemas(connection) -> set[str]:
    query = "SELECT nspname FROM pg_namespace WHERE nspname IN ('music', 'recommender')"
    return {name for (name,) in connection.execute(query).fetchall()}


@pytest.fixture
def service(connection):
    """A connection with the rights of the service, on a database that has a schema of somebody else as well."""
    connection.execute("CREATE SCHEMA payroll; CREATE TABLE payroll.salary (amount int)")
    run(connection, STORAGE / "setup.sql")
    connection.execute("SET ROLE recommender_service")
    return connection


def test_the_service_can_do_its_work(service):
    assert migrate(service) == []
    check_contract(service, DatabaseConfig().queries_folder)
    register_model(service, Model(model_id="m", path="p", encoders_digest="e", snapshot_digest="s"))
    publish_model(service, "m")
    assert latest_model(service) is not None
    add_request(service, "p")
    assert finish(service, claim(service, "w")[0], [RankedSong(song_id="s", score=1)], model_id="m")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE recommender.extra (id int)",
        "CREATE TABLE music.extra (id int)",
        "CREATE TABLE public.extra (id int)",
        "CREATE SCHEMA extra",
        "ALTER TABLE recommender.request ADD COLUMN extra int",
        "DROP TABLE recommender.request",
        "TRUNCATE recommender.request",
        "INSERT INTO music.artist VALUES ('a')",
        "DELETE FROM music.song",
        "DELETE FROM recommender.schema_migration",
        "SELECT amount FROM payroll.salary",
        "CREATE ROLE friend",
    ],
)
def test_the_service_cannot_do_more_than_its_work(service, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        service.execute(statement)


def test_setup_can_be_run_again(service):
    service.execute("RESET ROLE")
    run(service, STORAGE / "setup.sql")


def test_uninstall_takes_everything_but_the_music(service):
    service.execute("RESET ROLE")
    run(service, STORAGE / "uninstall.sql")
    assert schemas(service) == {"music"}
    granted = "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'recommender_service'"
    assert service.execute(granted).fetchone() == (0,)


def test_uninstall_takes_the_music_when_asked(service):
    service.execute("RESET ROLE")
    service.execute("SET LOCAL bert4musicrec.drop_music = 'yes'")
    run(service, STORAGE / "uninstall.sql")
    assert schemas(service) == set()


def test_uninstall_of_nothing_is_no_error(service):
    service.execute("RESET ROLE")
    run(service, STORAGE / "uninstall.sql")
    run(service, STORAGE / "uninstall.sql")
