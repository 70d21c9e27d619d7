"""API keys: made once, kept as hashes, closed by a revoke or by their end."""

import hashlib
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from errors import ConfigError, DatabaseError
from storage.connections import connect
from storage.keys import active_keys, all_keys, create_key, parts_of, revoke_key


def test_a_key_opens_with_its_secret_and_with_no_other(connection):
    new = create_key(connection, "shop")
    key_id, secret = parts_of(new.text)
    [key] = active_keys(connection)
    assert (key.key_id, key.name, key.may_manage, key.requests_per_minute, key.expires_at) == (key_id, "shop", False, None, None)
    assert key_id == new.key_id
    assert (key.opens(secret), key.opens(secret[:-1]), key.opens(""), key.opens("é\ud800")) == (True, False, False, False)


def test_only_a_hash_of_the_secret_is_stored(connection):
    _, secret = parts_of(create_key(connection, "shop").text)
    stored = connection.execute("SELECT api_key::text, secret_hash FROM recommender.api_key").fetchone()
    assert secret not in stored[0]
    assert stored[1] == hashlib.sha256(secret.encode()).digest()


def test_neither_the_text_nor_the_hash_is_shown_by_accident(connection):
    new = create_key(connection, "shop")
    assert parts_of(new.text)[1] not in repr(new)
    assert "secret" not in repr(active_keys(connection))


def test_no_two_keys_are_alike(connection):
    assert len({create_key(connection, "shop").text for _ in range(50)}) == 50


def test_a_key_may_manage_have_its_own_rate_and_an_end(connection):
    end = datetime.now(UTC) + timedelta(days=30)
    create_key(connection, "ops", may_manage=True, requests_per_minute=60, expires_at=end)
    [key] = active_keys(connection)
    assert (key.may_manage, key.requests_per_minute, key.expires_at) == (True, 60, end)


def test_a_key_past_its_end_or_revoked_is_listed_and_not_active(connection):
    create_key(connection, "over", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoke_key(connection, create_key(connection, "gone").key_id)
    stays = create_key(connection, "stays", expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert [key.key_id for key in active_keys(connection)] == [stays.key_id]
    assert {key.name: key.revoked_at is not None for key in all_keys(connection)} == {"over": False, "gone": True, "stays": False}


def test_revoking_again_keeps_the_time_of_the_first(connection):
    key_id = create_key(connection, "gone").key_id
    revoke_key(connection, key_id)
    connection.commit()
    [before] = all_keys(connection)
    connection.commit()
    revoke_key(connection, key_id)
    assert all_keys(connection) == [before]


def test_an_unknown_key_cannot_be_revoked(connection):
    with pytest.raises(DatabaseError, match=r"no key 'x': python cli.py keys list shows them"):
        revoke_key(connection, "x")


def test_who_reads_while_a_key_is_revoked_sees_it_until_the_commit_and_not_after(connection, another_connection):
    key_id = create_key(connection, "shop").key_id
    connection.commit()
    revoke_key(connection, key_id)
    assert [key.key_id for key in active_keys(another_connection)] == [key_id]  # does not wait
    connection.commit()
    assert active_keys(another_connection) == []


def test_two_who_revoke_a_key_at_once_both_succeed(connection, database_url):
    key_id = create_key(connection, "shop").key_id
    connection.commit()
    revoke_key(connection, key_id)

    def revoke_as_well():
        with connect(database_url) as another:
            revoke_key(another, key_id)

    thread = threading.Thread(target=revoke_as_well)
    thread.start()
    thread.join(timeout=0.2)
    connection.commit()
    thread.join()
    assert active_keys(connection) == []


@pytest.mark.parametrize("name", ["", "two\nlines", "a\tb", "x" * 101, "bell\x07", "c1\x85"])
def test_a_name_that_breaks_the_list_is_refused(connection, name):
    with pytest.raises(ConfigError, match="the name of a key has 1 to 100 characters in one line"):
        create_key(connection, name)


def test_a_key_that_may_never_ask_is_refused(connection):
    with pytest.raises(ConfigError, match=r"requests per minute must be between 1 and 2147483647 \(got 0\)"):
        create_key(connection, "shop", requests_per_minute=0)


def test_a_secret_that_is_not_hashed_does_not_fit_into_the_table(connection):
    with pytest.raises(psycopg.errors.CheckViolation, match="api_key_secret_hash_check"):
        connection.execute("INSERT INTO recommender.api_key (key_id, name, secret_hash) VALUES ('0123456789ab', 'x', 'secret')")


@pytest.mark.parametrize(
    "text",
    ["", "b4mr", "b4mr_0123456789ab_", f"b4mr_0123456789ab_{'f' * 63}", f"b4mr_0123456789ab_{'f' * 64}\n", f"x_1_{'f' * 64}"],
)
def test_what_is_no_key_has_no_parts(text):
    assert parts_of(text) is None
