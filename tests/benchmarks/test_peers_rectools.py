"""Ours against the peers' own answers: needs their environment, and is skipped without it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from config import PROJECT_ROOT

PYTHON = os.environ.get("PEERS_PYTHON", str(PROJECT_ROOT / ".venv-peers" / "bin" / "python"))


@pytest.fixture(scope="module")
def compared():
    if not Path(PYTHON).exists():
        pytest.skip("needs the peers' environment: make .venv-peers/.requirements, or set PEERS_PYTHON")
    command = [PYTHON, "-m", "benchmarks.quality.peers_check"]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.parametrize("party", ["RecTools BERT4Rec", "RecTools SASRec", "RecTools eSASRec", "implicit ALS"])
def test_our_lists_are_what_the_library_recommends(compared, party):
    assert compared[party]["our_lists"] == compared[party]["their_lists"]


@pytest.mark.parametrize("party", ["RecTools BERT4Rec", "RecTools SASRec", "RecTools eSASRec"])
def test_our_metrics_are_those_of_the_library(compared, party):
    assert compared[party]["our_metrics"] == pytest.approx(compared[party]["their_metrics"])
