import argparse

import pytest

from config import TrainingConfig
from database_urls import _FOREIGN_VARIABLES
from options import DEMO_FOLDER, add_arguments
from serving.choice import serving_config

OWN, DEMO = TrainingConfig.model_folder, DEMO_FOLDER / "models"


@pytest.fixture
def trained(monkeypatch):
    """The model folders that hold a run; tests add to it."""
    for variable in ("DATABASE_URL", *_FOREIGN_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    folders = set()
    monkeypatch.setattr("serving.choice.newest_run", lambda folder: folder if folder in folders else None)
    return folders


def chosen(*argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser, "service", "training", "database")
    return serving_config(parser.parse_args(argv)).training.model_folder


def test_the_demo_answers_until_there_is_a_model_of_ones_own(trained):
    assert chosen() == OWN
    trained.add(DEMO)
    assert chosen() == DEMO
    trained.add(OWN)
    assert chosen() == OWN
    assert chosen("--demo") == DEMO


def test_whoever_names_a_database_a_folder_or_a_model_is_taken_at_his_word(trained, tmp_path):
    trained.add(DEMO)
    assert chosen("--url", "postgresql://db/music") == OWN
    assert chosen("--model", str(tmp_path)) == OWN
    assert chosen("--model-folder", str(tmp_path)) == tmp_path
