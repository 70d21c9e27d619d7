import argparse
import dataclasses

import pytest

from config import SECTIONS, Config
from errors import ConfigError
from options import DEMO_FOLDER, add_arguments, config_from_arguments, describe


def arguments_of(*argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser, *SECTIONS)
    return parser.parse_args(argv)


def test_every_setting_is_explained_and_has_an_option():
    options = vars(arguments_of())
    for section in SECTIONS.values():
        assert set(describe(section)) == {field.name for field in dataclasses.fields(section)} <= set(options)


def test_the_original_names_work_as_they_stand():
    config = config_from_arguments(arguments_of("--seq_len", "16", "--N", "1", "--heads", "4", "--cloze_probability", "0.3"))
    assert (config.model.seq_len, config.model.N, config.model.heads, config.training.cloze_probability) == (16, 1, 4, 0.3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num-epoch", "2"], "unknown option --num-epoch: did you mean '--num-epochs'?"),
        (["--objectiv=causal"], "unknown option --objectiv=causal: did you mean '--objective'?"),
        (["--lrr", "0.1"], "unknown option --lrr: did you mean '--lr'?"),
        (["--lr"], "argument --lr: expected one argument; "),
    ],
)
def test_a_wrong_option_is_one_line_with_the_way_out(argv, message):
    with pytest.raises(ConfigError) as caught:
        arguments_of(*argv)
    assert str(caught.value).startswith(message)


def test_the_demo_has_a_database_and_folders_of_its_own_unless_they_are_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no settings file
    monkeypatch.setenv("BERT4MUSICREC_MODEL_FOLDER", "/models")
    monkeypatch.setenv("BERT4MUSICREC_QUERIES_FOLDER", "/mine")
    config = config_from_arguments(arguments_of("--demo", "--snapshot", "/snapshot"))
    assert (config.database.embedded_database, config.database.queries_folder) == ("demo", Config().database.queries_folder)
    assert config.preprocessing.encoders_folder == DEMO_FOLDER / "encoders"
    assert (str(config.preprocessing.snapshot), str(config.training.model_folder)) == ("/snapshot", "/models")


def test_without_the_flag_nothing_is_the_demos(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own, demo = config_from_arguments(arguments_of()), config_from_arguments(arguments_of("--demo"))
    for section, name in (
        ("database", "embedded_database"),
        ("preprocessing", "snapshot"),
        ("preprocessing", "encoders_folder"),
        ("training", "model_folder"),
    ):
        assert getattr(getattr(own, section), name) == getattr(getattr(Config(), section), name)
        assert getattr(getattr(own, section), name) != getattr(getattr(demo, section), name)
