import argparse
import dataclasses

import pytest

from config import (
    DEMO_FOLDER,
    FIELDS,
    SECTIONS,
    Config,
    ModelConfig,
    add_arguments,
    as_plain,
    build_section,
    config_from_arguments,
    database_url_from,
    describe,
    load_config,
)
from errors import ConfigError


def arguments_of(*argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser, *SECTIONS)
    return parser.parse_args(argv)


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[training]\nlr = 0.1\nbatch_size = 7\nnum_epochs = 3\n")
    environ = {"BERT4MUSICREC_LR": "0.2", "BERT4MUSICREC_BATCH_SIZE": "8"}
    training = load_config(file=file, environ=environ, overrides={"lr": "0.3", "seed": None}).training
    assert (training.lr, training.batch_size, training.num_epochs, training.seed) == (0.3, 8, 3, 0)


def test_settings_survive_the_way_through_json():
    config = ModelConfig(d_songs=32, d_albums=0, N=3)
    assert build_section(ModelConfig, as_plain(config)) == config


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


def test_names_are_unique_over_all_concerns():
    assert len(FIELDS) == sum(len(dataclasses.fields(section)) for section in SECTIONS.values())


def test_every_setting_is_explained_and_has_an_option():
    options = vars(arguments_of())
    for section in SECTIONS.values():
        assert set(describe(section)) == {field.name for field in dataclasses.fields(section)} <= set(options)


def test_the_original_names_work_as_they_stand():
    config = config_from_arguments(arguments_of("--seq_len", "16", "--N", "1", "--heads", "4", "--cloze_probability", "0.3"))
    assert (config.model.seq_len, config.model.N, config.model.heads, config.training.cloze_probability) == (16, 1, 4, 0.3)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"BERT4MUSICREC_LRR": "1"}, "did you mean 'lr'"),
        ({"BERT4MUSICREC_N": "two"}, "N must be a whole number (got 'two')"),
        ({"BERT4MUSICREC_HEADS": "3"}, "d_model (128 = d_songs 64 + d_albums 32 + d_artists 32) must be divisible by heads (3)"),
        ({"BERT4MUSICREC_SPLIT": "random"}, "split must be one of 'auto', 'time', 'sequence', 'leave_one_out' (got 'random')"),
        ({"BERT4MUSICREC_LR": "nan"}, "lr must be a finite number (got 'nan')"),
        ({"BERT4MUSICREC_USE_FEATURES": "maybe"}, "use_features must be true or false (got 'maybe')"),
        ({"BERT4MUSICREC_COUNT": "2000"}, "count (2000) must not exceed max_count (1000)"),
        ({"BERT4MUSICREC_LR": "inf"}, "lr must be a finite number (got 'inf')"),
        ({"BERT4MUSICREC_WITHHELD": "0.26"}, "withheld must be between 0 (none) and 0.25, which is one over folds (got 0.26)"),
        (
            {"BERT4MUSICREC_WITHHELD": "0.25", "BERT4MUSICREC_FOLDS": "5"},
            "withheld must be between 0 (none) and 0.2, which is one over folds",
        ),
        ({"BERT4MUSICREC_WITHHELD": "-0.01"}, "withheld must be between 0 (none) and 0.25, which is one over folds (got -0.01)"),
        ({"BERT4MUSICREC_BATCH_SIZE": "inf"}, "batch_size must be a whole number (got 'inf')"),
        ({"BERT4MUSICREC_EMBEDDED_DATABASE": ""}, "embedded_database must be a name (got '')"),
        ({"DATABASE_URL": "mysql://u:secret@h/d?password=x"}, "must start with postgresql:// (got 'mysql://u@h/d')"),
        ({"DATABASE_URL": "host=h password=secret"}, "must start with postgresql:// (got '...')"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(environ, message):
    with pytest.raises(ConfigError) as caught:
        load_config(environ=environ)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trainin]\nlr = 1", "unknown section [trainin]"),
        ("[training]\nlearning = 1", "unknown setting 'learning'"),
        ("[training\n", "not valid TOML"),
        ("[training]\nbatch_size = 2.5", "batch_size must be a whole number (got 2.5)"),
        ("[training]\nmap_songs = 20001", "map_songs must be at most 20000: the page draws no larger map (got 20001)"),
        ("[training]\nbatch_size = inf", "batch_size must be a whole number (got inf)"),
    ],
)
def test_a_wrong_file_is_named_with_the_way_out(tmp_path, text, message):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=file, environ={})
    assert message in str(caught.value)


def test_a_settings_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(file=tmp_path / "none.toml", environ={})


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


def test_the_defaults_hold_together():
    assert load_config(environ={}) == Config()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lrr", "0.1"], "unknown option --lrr: did you mean '--lr'?"),
        (["--lr"], "argument --lr: expected one argument; "),
    ],
)
def test_a_wrong_option_is_one_line_with_the_way_out(argv, message):
    with pytest.raises(ConfigError) as caught:
        arguments_of(*argv)
    assert str(caught.value).startswith(message)


def test_only_the_cloze_objective_needs_something_to_hide():
    nothing = {"cloze_probability": 0.0, "last_item_probability": 0.0}
    with pytest.raises(ConfigError, match="leave nothing to predict"):
        load_config(environ={}, overrides=nothing)
    assert load_config(environ={}, overrides={**nothing, "objective": "causal"}).training.cloze_probability == 0
