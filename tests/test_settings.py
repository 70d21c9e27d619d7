import pytest

from config import Config, ModelConfig
from errors import ConfigError
from settings import as_plain, build_section, load_config


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[training]\nlr = 0.1\nbatch_size = 7\nnum_epochs = 3\n")
    environ = {"BERT4MUSICREC_LR": "0.2", "BERT4MUSICREC_BATCH_SIZE": "8"}
    training = load_config(file=file, environ=environ, overrides={"lr": "0.3", "seed": None}).training
    assert (training.lr, training.batch_size, training.num_epochs, training.seed) == (0.3, 8, 3, 0)


def test_the_defaults_hold_together():
    assert load_config(environ={}) == Config()


def test_settings_survive_the_way_through_json():
    config = ModelConfig(d_songs=32, d_albums=0, N=3)
    assert build_section(ModelConfig, as_plain(config)) == config


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"BERT4MUSICREC_LRR": "1"}, "did you mean 'lr'"),
        ({"BERT4MUSICREC_N": "two"}, "N must be a whole number (got 'two')"),
        ({"BERT4MUSICREC_SPLIT": "random"}, "split must be one of 'auto', 'time', 'sequence', 'leave_one_out' (got 'random')"),
        ({"BERT4MUSICREC_LR": "nan"}, "lr must be a finite number (got 'nan')"),
        ({"BERT4MUSICREC_USE_FEATURES": "maybe"}, "use_features must be true or false (got 'maybe')"),
        ({"BERT4MUSICREC_LR": "inf"}, "lr must be a finite number (got 'inf')"),
        ({"BERT4MUSICREC_BATCH_SIZE": "inf"}, "batch_size must be a whole number (got 'inf')"),
    ],
)
def test_a_value_that_cannot_be_read_is_named_with_the_way_out(environ, message):
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
