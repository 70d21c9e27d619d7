"""Every route keeps what the OpenAPI document promises, for input that somebody else makes up."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case

from config import Config, ServiceConfig
from flask_app import create_app, service_of
from tests.api.fakes import LAN, fake_app

CONFIG = Config(service=ServiceConfig(max_body_bytes=100_000, wait_seconds=0.05))


@pytest.fixture
def document(database_url):
    app = fake_app(CONFIG, database_url=database_url)
    yield schemathesis.openapi.from_wsgi("/openapi/openapi.json", app)
    service_of(app).close()


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_made_up_request_gets_what_the_document_does_not_say(case: Case):
    case.call_and_validate()
