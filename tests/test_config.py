import dataclasses

import pytest

from config import FIELDS, SECTIONS
from errors import ConfigError
from settings import load_config


def test_names_are_unique_over_all_concerns():
    assert len(FIELDS) == sum(len(dataclasses.fields(section)) for section in SECTIONS.values())


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"BERT4MUSICREC_HEADS": "3"}, "d_model (128 = d_songs 64 + d_albums 32 + d_artists 32) must be divisible by heads (3)"),
        ({"BERT4MUSICREC_COUNT": "2000"}, "count (2000) must not exceed max_count (1000)"),
        ({"BERT4MUSICREC_WITHHELD": "0.26"}, "withheld must be between 0 (none) and 0.25, which is one over folds (got 0.26)"),
        (
            {"BERT4MUSICREC_WITHHELD": "0.25", "BERT4MUSICREC_FOLDS": "5"},
            "withheld must be between 0 (none) and 0.2, which is one over folds",
        ),
        ({"BERT4MUSICREC_WITHHELD": "-0.01"}, "withheld must be between 0 (none) and 0.25, which is one over folds (got -0.01)"),
        ({"BERT4MUSICREC_EMBEDDED_DATABASE": ""}, "embedded_database must be a name (got '')"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_the_way_out(environ, message):
    with pytest.raises(ConfigError) as caught:
        load_config(environ=environ)
    assert message in str(caught.value)


def test_only_the_cloze_objective_needs_something_to_hide():
    nothing = {"cloze_probability": 0.0, "last_item_probability": 0.0}
    with pytest.raises(ConfigError, match="leave nothing to predict"):
        load_config(environ={}, overrides=nothing)
    assert load_config(environ={}, overrides={**nothing, "objective": "causal"}).training.cloze_probability == 0
