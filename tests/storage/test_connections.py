import os
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from config import DatabaseConfig
from errors import DatabaseError, DatabaseUnreachable, SchemaError
from storage.connections import address_of, connect, create_database, database_url, expected_errors, open_pool, with_database

REFUSED = "postgresql://me:geheim@127.0.0.1:1/music"


def test_no_server_is_told_in_one_line_without_the_password():
    with pytest.raises(DatabaseUnreachable) as caught:
        connect(REFUSED)
    message = str(caught.value)
    assert message.startswith("no connection to me@127.0.0.1:1/music: ")
    assert "Connection refused" in message
    assert "DATABASE_URL" in message
    assert "geheim" not in message
    assert "\n" not in message


def test_a_wrong_password_is_told_without_it(server_url):
    parts = urlsplit(server_url)
    wrong = parts._replace(netloc=f"{parts.username}:a-guess@{parts.hostname}:{parts.port or 5432}").geturl()
    with pytest.raises(DatabaseUnreachable, match="password authentication failed") as caught:
        connect(wrong)
    assert "a-guess" not in str(caught.value)


def test_an_unknown_database_is_named(server_url):
    with pytest.raises(DatabaseUnreachable, match='database "nowhere" does not exist'):
        connect(with_database(server_url, "nowhere"))


@pytest.mark.parametrize(
    "url", ["postgresql://me:ge@heim@db:54x/music", "postgresql://me:geheim@[::1/music", "postgresql://?nix=1"]
)
def test_an_unreadable_url_is_not_repeated(url):
    with pytest.raises(DatabaseUnreachable) as caught:
        connect(url, connect_timeout_seconds=1)
    assert "heim" not in str(caught.value)


def test_an_address_is_shown_without_its_password():
    assert address_of("postgresql://me:geheim@db:5433/music") == "me@db:5433/music"
    assert address_of("postgresql://db/music?user=me&password=geheim&sslpassword=geheim") == "me@db/music"
    assert address_of("host=db dbname=music password=geheim") == "db/music"
    assert address_of("postgresql://db/music?passwort=geheim") == "an address that cannot be read"


def test_no_server_is_told_without_the_password_of_the_query():
    with pytest.raises(DatabaseUnreachable, match=r"no connection to 127\.0\.0\.1:1/music") as caught:
        connect("postgresql://127.0.0.1:1/music?password=geheim&sslpassword=geheim")
    assert "geheim" not in str(caught.value)


def test_a_missing_table_and_a_missing_column_are_schema_errors(connection):
    for query, said in (
        ("SELECT FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT nix FROM music.song", "column .*nix"),
    ):
        with pytest.raises(SchemaError, match=f"{said}.*run python cli.py migrate"), expected_errors():
            connection.execute(query)
        connection.rollback()


def test_sql_that_is_none_is_a_schema_error(connection):
    with pytest.raises(SchemaError, match='syntax error at or near "SELEC": correct the query files'), expected_errors():
        connection.execute("SELEC 1")


def test_a_missing_right_is_a_schema_error(connection):
    connection.execute("SET ROLE pg_monitor")
    with pytest.raises(SchemaError, match=r"permission denied for schema music: .*setup\.sql"), expected_errors():
        connection.execute("SELECT song_id FROM music.song")


def test_a_connection_that_the_server_ended_is_unreachable(connection, another_connection):
    another_connection.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(DatabaseUnreachable, match="the database went away"), expected_errors():
        connection.execute("SELECT 1")


def test_a_cancelled_statement_is_no_lost_connection(connection):
    connection.execute("SET statement_timeout = 1")
    with pytest.raises(DatabaseError, match="statement timeout") as caught, expected_errors():
        connection.execute("SELECT pg_sleep(5)")
    assert not isinstance(caught.value, DatabaseUnreachable)


def test_an_unexpected_error_passes_through(connection):
    with pytest.raises(psycopg.errors.DivisionByZero), expected_errors():
        connection.execute("SELECT 1 / 0")


def test_a_pool_replaces_a_connection_that_the_server_ended(database_url, connection):
    with open_pool(database_url, max_size=1) as pool:
        with pool.connection() as pooled:
            ended = pooled.info.backend_pid
        connection.execute("SELECT pg_terminate_backend(%s)", [ended])
        with pool.connection() as pooled:
            assert pooled.execute("SELECT 7").fetchone() == (7,)


def test_a_databases_own_isolation_level_is_not_taken_over(database_url, connection):
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(
            sql.Identifier(connection.info.dbname)
        )
    )
    connection.commit()
    with connect(database_url) as opened, open_pool(database_url) as pool, pool.connection() as pooled:
        for one in (opened, pooled):
            assert one.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_every_connection_gives_up_a_server_that_has_gone_silent(database_url):
    limits = {
        "keepalives": "1",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }
    with connect(database_url) as opened, open_pool(database_url) as pool, pool.connection() as pooled:
        for one in (opened, pooled):
            given = {option.keyword.decode(): option.val for option in one.pgconn.info}
            assert {name: (given[name] or b"").decode() for name in limits} == limits


def test_a_pool_without_a_server_fails_at_once():
    with pytest.raises(DatabaseUnreachable, match="Connection refused"):
        open_pool(REFUSED)


def test_a_configured_url_is_used_as_it_is():
    with database_url(DatabaseConfig(url="postgresql://db/mine")) as url:
        assert url == "postgresql://db/mine"


def test_creating_a_database_again_changes_nothing(database_url, connection):
    create_database(database_url, connection.info.dbname)
    assert connection.execute("SELECT count(*) FROM recommender.schema_migration").fetchone() != (0,)


def test_statements_are_not_prepared_behind_the_callers_back(connection):
    for _ in range(10):
        connection.execute("SELECT %s::int", [os.getpid()])
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
