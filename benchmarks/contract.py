"""Whether every route keeps what the OpenAPI document promises: schemathesis makes up requests and checks the answers.

    python -m benchmarks.contract --demo                                          the demo's model, in this process
    python -m benchmarks.contract --address http://127.0.0.1:4517 --examples 1000     a service that runs; --key b4mr_...

The last line is one JSON object: {"operations", "requests", "failures", "answers_500", "seconds"}; the exit code is 1 when there
are failures.  `schemathesis run http://127.0.0.1:4517/openapi/openapi.json` in this folder does the same by hand.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from flask_openapi3.openapi import OpenAPI
from hypothesis.errors import HypothesisWarning
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from benchmarks.served import add_service_arguments, app_of
from config import PROJECT_ROOT
from errors import exit_code_of

DOCUMENT = "/openapi/openapi.json"
SETTINGS = PROJECT_ROOT / "schemathesis.toml"
EXAMPLES = 200


@dataclass
class Checked:
    """What became of all made-up requests."""

    operations: set[str] = field(default_factory=set)
    requests: int = 0
    answers_500: int = 0
    failures: set[str] = field(default_factory=set)
    """One line each: the operation, what is wrong, the request."""

    def note(self, event: events.ScenarioFinished) -> None:
        """Take in a scenario."""
        recorder = event.recorder
        self.requests += len(recorder.interactions)
        for interaction in recorder.interactions.values():
            if interaction.response is not None and interaction.response.status_code >= 500:
                self.answers_500 += 1
        self.operations.update(node.value.operation.label for node in recorder.cases.values())
        for case_id, checks in recorder.checks.items():
            case = recorder.cases[case_id].value
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    told = f"{case.operation.label}: {failure.title}: {failure.message}: {case.as_curl_command()}"
                    self.failures.add(" ".join(told.split())[:600])


def check(schema: Any, *, examples: int, is_repeatable: bool = False) -> Checked:
    """All phases of schemathesis (examples, coverage, fuzzing, sequences of requests) with all of its checks."""
    schema.config.generation.update(max_examples=examples, database="none", deterministic=is_repeatable)
    checked = Checked()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # a body over a limit is large
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                checked.note(event)
            elif isinstance(event, events.NonFatalError | events.FatalError):
                checked.failures.add(" ".join(f"{type(event).__name__}: {getattr(event, 'info', event)}".split())[:600])
    return checked


def main(argv: Sequence[str] | None = None) -> int:
    """Check and report."""
    parser = argparse.ArgumentParser(description="Check the service against its OpenAPI document.")
    add_service_arguments(parser)
    parser.add_argument("--address", help="http://host:port of a service that runs; default: one of this process")
    parser.add_argument("--key", help="an API key, where the service wants one")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="made-up requests for each operation and phase")
    arguments = parser.parse_args(argv)
    headers = {"Authorization": f"Bearer {arguments.key}"} if arguments.key else None
    began = time.perf_counter()
    with _schema_of(arguments, headers) as schema:
        checked = check(schema, examples=arguments.examples)
    for failure in sorted(checked.failures):
        print(failure)
    print(json.dumps(_figures(checked) | {"seconds": round(time.perf_counter() - began, 1)}))
    return 1 if checked.failures else 0


def schema_of_app(app: OpenAPI, headers: dict[str, str] | None = None) -> Any:
    """The document of an app, whose requests are made in this process, each with some headers."""
    return schemathesis.openapi.from_wsgi(DOCUMENT, app, config=_config(headers), headers=headers or {})


def schema_at(address: str, headers: dict[str, str] | None = None) -> Any:
    """The document of a service that listens at http://host:port."""
    return schemathesis.openapi.from_url(f"{address}{DOCUMENT}", config=_config(headers), headers=headers or {})


def _config(headers: dict[str, str] | None) -> SchemathesisConfig:
    config = SchemathesisConfig.from_path(SETTINGS)
    config.projects.default.update(headers=headers, continue_on_failure=True)
    return config


@contextmanager
def _schema_of(arguments: argparse.Namespace, headers: dict[str, str] | None) -> Iterator[Any]:
    if arguments.address:
        yield schema_at(arguments.address, headers)
        return
    with app_of(arguments) as app:
        yield schema_of_app(app, headers)


def _figures(checked: Checked) -> dict[str, int]:
    return {
        "operations": len(checked.operations),
        "requests": checked.requests,
        "failures": len(checked.failures),
        "answers_500": checked.answers_500,
    }


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
