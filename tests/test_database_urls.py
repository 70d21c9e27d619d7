import pytest

from database_urls import database_url_from
from errors import ConfigError
from settings import as_plain, load_config


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"DATABASE_URL": "postgresql://a/b", "POSTGRES_HOST": "c"}, "postgresql://a/b"),
        ({"POSTGRES_HOST": "db", "POSTGRES_PORT": "5433", "POSTGRES_DB": "music"}, "postgresql://db:5433/music"),
        ({"PGHOST": "db"}, "postgresql:///"),
        ({"PGHOSTADDR": "10.0.0.7"}, "postgresql:///"),
        ({"PGSERVICE": "music"}, "postgresql:///"),
        ({"PGPASSFILE": "/etc/pass", "PGSSLMODE": "require"}, None),
        ({"POSTGRES_HOST": "/run/pg", "POSTGRES_DB": "m", "POSTGRES_USER": "u"}, "postgresql://u@/m?host=%2Frun%2Fpg"),
    ],
)
def test_the_database_is_found_in_the_environment(environ, url):
    assert database_url_from(environ) == url


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("postgresql://me:s3cret@db/music", "postgresql://me@db/music"),
        ("postgresql://me:s3?cr=et@db:5433/music", "postgresql://me@db:5433/music"),
        ("postgresql://db/music?user=me&password=s3cret", "postgresql://db/music?user=me"),
        ("postgresql://db/?pass%77ord=s3cret", "postgresql://db/"),
        ("postgresql://a:1,[::1]:2/music?sslpassword=s3cret&sslmode=require", "postgresql://a:1,[::1]:2/music?sslmode=require"),
        ("postgresql://db/music?password=s3@cret", "postgresql://..."),
        ("postgresql://me:s3/cret@db/music", "postgresql://..."),
        ("postgresql://me:s3@cret@db/music", "postgresql://..."),
    ],
)
def test_passwords_are_not_stored_with_a_run(url, stored):
    config = load_config(environ={"DATABASE_URL": url})
    assert config.database.url == url
    assert as_plain(config)["database"]["url"] == stored


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DATABASE_URL": "mysql://u:secret@h/d?password=x"}, "must start with postgresql:// (got 'mysql://u@h/d')"),
        ({"DATABASE_URL": "host=h password=secret"}, "must start with postgresql:// (got '...')"),
    ],
)
def test_a_url_of_another_kind_is_refused_without_its_secrets(environ, message):
    with pytest.raises(ConfigError) as caught:
        load_config(environ=environ)
    assert message in str(caught.value)
