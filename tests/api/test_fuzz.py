"""What nobody would send on purpose, over real sockets."""

from benchmarks.fuzz import fuzz, is_alive
from benchmarks.served import address_of
from config import Config, ServiceConfig
from tests.api.fakes import fake_app, new_key


def test_nothing_malformed_is_answered_with_500_or_never(database_url):
    config = Config(service=ServiceConfig(port=0, wait_seconds=0.05))
    with address_of(fake_app(config, database_url=database_url)) as address:
        outcome = fuzz(address, requests=500, seed=3)
        assert is_alive(address, None)
    assert (outcome.answers_500, outcome.hangs) == (0, 0)
    assert {"200", "400", "404", "405", "415", "422"} <= set(outcome.statuses)


def test_nor_where_keys_are_needed():
    config = Config(service=ServiceConfig(port=0, require_key="always"))
    key, text = new_key(requests_per_minute=1_000_000)
    with address_of(fake_app(config, keys=[key])) as address:
        without, with_key = fuzz(address, requests=150, seed=4), fuzz(address, requests=150, seed=4, key=text)
    assert (without.answers_500, without.hangs, without.statuses["200"]) == (0, 0, 0)
    assert (with_key.answers_500, with_key.hangs) == (0, 0)
