from pathlib import Path

import psycopg
import pytest

from config import PROJECT_ROOT, DatabaseConfig
from errors import SchemaError
from storage.feedback import Event, Feedback, Taste, TasteWanted, add_feedback, tastes_of
from storage.filters import songs_of_filter
from storage.health import read_queue
from storage.keys import active_keys, create_key, revoke_key
from storage.migrate import migrate
from storage.models import (
    Model,
    Served,
    add_served,
    current_deployment,
    deploy,
    model_figures,
    refuse_model,
    register_model,
    roll_back,
)
from storage.named import as_statement
from storage.playlists import find_playlists
from storage.requests import RankedSong, add_request, claim, finish, latest_songs
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
    deploy(service, "m")
    deploy(service, "m")
    assert roll_back(service) == current_deployment(service)
    add_request(service, "p")
    assert finish(service, claim(service, "w")[0], [RankedSong(song_id="s", score=1)], model_id="m")
    assert [song for _, song in latest_songs(service, 9)] == ["s"]
    assert find_playlists(service, DatabaseConfig().queries_folder, "", 9) == []
    assert read_queue(service).is_usable


def test_the_service_takes_feedback_in_counts_its_answers_and_reads_keys_and_tastes(service):
    register_model(service, Model(model_id="m", path="p", encoders_digest="e", snapshot_digest="s"))
    add_served(service, {"m": Served(answers=1, songs=2, fallbacks=0)})
    add_served(service, {"m": Served(answers=1, songs=2, fallbacks=0)})
    assert add_feedback(service, [Feedback(listener="l", event=Event.NEVER_AGAIN, song_id="s", model_id="m")]) == 1
    assert tastes_of(service, DatabaseConfig().queries_folder, [TasteWanted(listener="l")]) == [Taste(never=frozenset({"s"}))]
    assert [(one.answers, one.never_again) for one in model_figures(service)] == [(2, 1)]
    refuse_model(service, "m", "it is broken")
    assert active_keys(service) == []
    assert service.execute("SELECT count(*) FROM recommender.play").fetchone() == (0,)
    assert songs_of_filter(service, DatabaseConfig().queries_folder, "calm") == []


@pytest.mark.parametrize(
    "change", [lambda service: create_key(service, "mine"), lambda service: revoke_key(service, "x")], ids=["create", "revoke"]
)
def test_the_service_neither_makes_nor_revokes_keys(service, change):
    with pytest.raises(
        SchemaError, match="permission denied for table api_key: keys are made and revoked by the database's owner"
    ):
        change(service)


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
        "DELETE FROM recommender.feedback",
        "SELECT recommender.forget('l')",
        "INSERT INTO recommender.feedback (listener, event, song_id, happened_at) VALUES ('l', 'liked', 's', now())",
        "UPDATE recommender.deployment SET model_id = 'm'",
        "DELETE FROM recommender.served",
        "UPDATE recommender.api_key SET may_manage = true",
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
