"""From somebody's tables to recommended songs: mapped, set up, read, trained and served, all as the restricted role.

Each schema of tests/schemas has lists of eight songs that go round one of two circles of twelve, so the next song is known.
"""

import os
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

import doctor
import map_tables
from config import Config, DatabaseConfig, MemoryConfig, ModelConfig, PreprocessingConfig, ServiceConfig, TrainingConfig
from engine.processes import process_group
from preprocessing import is_stale, preprocess
from serving.recommender import Recommender
from storage.connections import connect
from storage.feedback import Event, Feedback, Taste, TasteWanted, add_feedback, tastes_of
from storage.migrate import pending
from storage.models import current_deployment, deploy
from storage.named import as_statement
from storage.playlists import find_playlists, name_of_playlist
from storage.requests import add_request, request_state
from storage.source import check_contract, sequence_by_id, songs_by_id
from tests.jobs.world import new_worker
from train import train

SCHEMAS = Path(__file__).parent / "schemas"


def song_number(list_number, place):
    return 12 * (list_number % 2) + (7 * list_number + place) % 12 + 1


def uuid_of(text):
    return UUID(md5(text.encode()).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Case:
    """A schema, the ids that it gives to song and list n, and the type of its songs' ids."""

    schema: str
    table: str
    """Where the rows of its sequences stand."""
    song: object
    playlist: object
    song_type: str
    rows: int = 480


CASES = [
    Case(schema="bigserial_position", table="playlist_tracks", song=int, playlist=int, song_type="int8"),
    Case(
        schema="uuid_row_security",
        table="playlist_songs",
        song=lambda n: uuid_of(f"song{n}"),
        playlist=lambda n: uuid_of(f"list{n}"),
        song_type="uuid",
    ),
    Case(
        schema="text_added_at",
        table="playlist_track",
        song=lambda n: f"t{n}".ljust(22, "x"),
        playlist=lambda n: f"p{n}".ljust(22, "y"),
        song_type="varchar",
    ),
    Case(schema="naive_play_log", table="listening_history", song=int, playlist=int, song_type="int4", rows=640),
    Case(schema="many_artists", table='"App"."PlaylistTrack"', song=int, playlist=int, song_type="int4"),
    Case(schema="features_as_text", table="mix_items", song=int, playlist=int, song_type="int8"),
    Case(
        schema="unix_scrobbles",
        table="scrobbles",
        song=lambda n: md5(f"file{n}".encode()).hexdigest(),
        playlist=lambda n: f"user {n}",
        song_type="text",
    ),
]


@dataclass(frozen=True, kw_only=True)
class World:
    """A mapped database and the restricted role's way to it."""

    case: Case
    owner_url: str
    service_url: str
    role: str
    folder: Path
    config: Config


@contextmanager
def mapped_world(case, new_database, folder):
    """A database with the schema, mapped and set up by its owner, for a role of this test's own."""
    role = f"service_{os.getpid()}_{secrets.token_hex(3)}"
    with new_database(None) as url:
        with connect(url) as owner:
            owner.execute(as_statement((SCHEMAS / f"{case.schema}.sql").read_text(encoding="utf-8")))
            owner.execute("CREATE TABLE payroll (amount integer)")
        assert map_tables.main(["--dsn", url, "--out", str(folder / "mapping"), "--role", role]) == 0
        run_as_owner(url, folder / "mapping" / "setup.sql")
        separator = "&" if "?" in url else "?"
        yield World(
            case=case,
            owner_url=url,
            service_url=f"{url}{separator}options=-c%20role%3D{role}",
            role=role,
            folder=folder,
            config=small_config(folder),
        )
        run_as_owner(url, folder / "mapping" / "uninstall.sql")


def run_as_owner(url, file):
    with connect(url) as owner:
        owner.execute(as_statement(file.read_text(encoding="utf-8")))


def small_config(folder):
    return Config(
        database=DatabaseConfig(queries_folder=folder / "mapping"),
        preprocessing=PreprocessingConfig(encoders_folder=folder / "encoders", snapshot=folder / "snapshot"),
        model=ModelConfig(seq_len=9, d_songs=16, d_albums=8, d_artists=8, d_ff=32, N=1, heads=2),
        memory=MemoryConfig(neighbours=4, near_reach=3, same_reach=7),
        training=TrainingConfig(
            num_epochs=12, batch_size=16, lr=0.003, warmup_steps=5, threads=1, device="cpu", model_folder=folder / "models"
        ),
    )


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.schema)
def world(request, new_database, tmp_path_factory):
    with mapped_world(request.param, new_database, tmp_path_factory.mktemp(request.param.schema)) as made:
        yield made


@pytest.fixture(scope="module")
def recommender(world):
    """What training on the mapped tables gives, all read as the restricted role."""
    snapshot = preprocess(world.config, world.service_url, progress=False)
    assert snapshot.manifest["counts"]["rows"] == world.case.rows
    with process_group(world.config.training) as process:
        run = train(world.config, snapshot, process, show_progress=False)
    # The last epoch: by three validation lists the first one is as good as any later one.
    return Recommender.load(max(run.glob("epoch-*")), ServiceConfig(count=3))


def test_ids_keep_their_type(world):
    song = world.case.song(song_number(1, 0))
    with connect(world.service_url) as connection:
        columns = check_contract(connection, world.folder / "mapping")
        assert columns.songs["song_id"] == columns.sequences["song_id"] == world.case.song_type
        assert sequence_by_id(connection, world.folder / "mapping", world.case.playlist(1))[-8] == song
        assert [row["song_id"] for row in songs_by_id(connection, world.folder / "mapping", [song])] == [song]


def test_a_list_is_read_in_its_order(world):
    with connect(world.service_url) as connection:
        songs = sequence_by_id(connection, world.folder / "mapping", world.case.playlist(3))
    assert songs[-8:] == [world.case.song(song_number(3, place)) for place in range(8)]


def test_playlists_with_names_can_be_listed_and_read(world):
    queries = world.folder / "mapping"
    with connect(world.service_url) as connection:
        listed = find_playlists(connection, queries, "", 3)
        assert bool(listed) == (queries / "playlists.sql").exists()
        assert [len(sequence_by_id(connection, queries, one.playlist_id)) for one in listed] == [one.n_songs for one in listed]
        for one in listed:
            assert name_of_playlist(connection, queries, one.playlist_id) == one.name


def test_a_request_in_sql_is_answered_with_the_next_song(world, recommender):
    playlist = world.case.playlist(5)
    with connect(world.service_url) as connection:
        request_id = add_request(connection, playlist)
    with connect(world.service_url) as connection:
        worker = new_worker(world.service_url, recommender, world.folder / "mapping")
        assert worker.work(connection, threading.Event()) == 1
    with connect(world.owner_url) as connection:
        assert request_state(connection, request_id).error is None
        query = "SELECT song_id FROM recommender.latest WHERE playlist_id = %s ORDER BY rank LIMIT 1"
        assert connection.execute(query, [playlist]).fetchall() == [(world.case.song(song_number(5, 8)),)]


def test_the_snapshot_is_fresh_until_the_tables_change(world, recommender):
    assert is_stale(world.config, world.service_url) is None


def test_a_worker_of_the_service_makes_its_model_known(world, recommender):
    with connect(world.service_url) as connection:
        new_worker(world.service_url, recommender, world.folder / "mapping").work(connection, threading.Event())
        known = connection.execute("SELECT model_id FROM recommender.model").fetchall()
    assert known == [(recommender.info.model_id,)]


def test_the_service_takes_feedback_in_and_knows_tastes_and_deployments(world, recommender):
    queries, song, listener = world.folder / "mapping", world.case.song(1), str(world.case.playlist(1))
    wanted = [TasteWanted(listener=one, played_days=36_500) for one in (listener, "somebody else")]
    with connect(world.service_url) as connection:
        new_worker(world.service_url, recommender, queries).work(connection, threading.Event())  # makes the model known
        add_feedback(connection, [Feedback(listener=listener, event=Event.NEVER_AGAIN, song_id=str(song))])
        taste, nobodys = tastes_of(connection, queries, wanted)
        assert deploy(connection, recommender.info.model_id) == current_deployment(connection)
        connection.rollback()
    heard = {str(world.case.song(song_number(1, place))) for place in range(8)}
    has_log = (queries / "plays_by_listener.sql").exists()
    assert has_log == (world.case.schema in ("naive_play_log", "unix_scrobbles"))
    assert taste.never == {str(song)}
    assert taste.played >= (heard if has_log else set())
    assert nobodys == Taste()


def test_the_doctor_finds_enough_data(world, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", world.service_url)
    assert doctor.main(["--config", str(world.folder / "mapping" / "bert4musicrec.toml")]) == 0
    assert "PROBLEM" not in capsys.readouterr().out


def test_setup_can_be_run_again(world):
    run_as_owner(world.owner_url, world.folder / "mapping" / "setup.sql")


def test_migrations_are_remembered_as_the_migrator_remembers_them(world):
    with connect(world.owner_url) as connection:
        assert pending(connection) == [1, 5]  # the schema music, which nobody needs here


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE recommender.extra (id int)",
        "CREATE SCHEMA extra",
        "DROP TABLE recommender.request",
        "ALTER TABLE {table} ADD COLUMN extra int",
        "DELETE FROM {table}",
        "SELECT amount FROM payroll",
        "DELETE FROM recommender.schema_migration",
        "UPDATE recommender.setting SET max_queued = 1",
        "SELECT recommender.forget('l')",
        "DELETE FROM recommender.feedback",
        "UPDATE recommender.api_key SET may_manage = true",
    ],
)
def test_the_role_can_do_no_more(world, statement):
    with connect(world.service_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(as_statement(statement.format(table=world.case.table)))
