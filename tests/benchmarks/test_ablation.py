import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.quality.ablation import NO_MEMORY, VARIANTS, best_of, changed
from benchmarks.quality.table import looks
from config import FIRST_NUMBER, MASK, Config
from docs import make_quality
from engine.description import WEIGHTS
from engine.optimizer import build_optimizer
from engine.processes import process_group
from engine.relations import build_memory
from engine.runs import find_checkpoint
from engine.scoring import score_function
from tests.engine.small import small_config, small_snapshot
from train import Trainer


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_setting_that_the_program_takes(name):
    default, variant = Config(), changed(Config(), VARIANTS[name].changes)
    assert (variant == default) == (name in ("the default", "scores of the memory alone", "no bonus for them"))
    assert variant.preprocessing == default.preprocessing
    assert variant.evaluation == default.evaluation


def test_all_variants_have_the_same_width():
    assert {changed(Config(), variant.changes).model.d_model for variant in VARIANTS.values()} == {Config().model.d_model}


def test_an_encoder_alone_has_no_memory(tmp_path):
    snapshot, _ = small_snapshot(tmp_path)
    assert build_memory(snapshot, changed(Config(), NO_MEMORY).memory, 16) is None
    assert build_memory(snapshot, Config().memory, 16) is not None


def test_an_output_that_is_not_tied_learns_apart_from_the_input(tmp_path):
    snapshot, _ = small_snapshot(tmp_path)
    variant = VARIANTS["encoder alone, output not tied to the input"]
    config = changed(small_config(tmp_path, num_epochs=4), variant.changes)
    with process_group(config.training) as process:
        trainer = Trainer(config, snapshot, process, show_progress=False)
        variant.before(trainer.model)
        trainer.optimizer = build_optimizer(trainer.model, config.training)
        run = trainer.run()
    model = best_of(trainer.model, run).eval()
    assert not torch.equal(model.outputs.song.weight, model.embedding.song.weight)
    best = load_file(find_checkpoint(run) / WEIGHTS)
    assert torch.equal(model.outputs.song.weight, best["outputs.song.weight"])
    songs = torch.tensor([[5, 6, 7, MASK]])
    scores = score_function(model)([np.array([5, 6, 7])])[0, FIRST_NUMBER:]
    np.testing.assert_allclose(model.score(songs)[0, FIRST_NUMBER:].detach(), scores, atol=1e-4)
    with torch.no_grad():
        model.outputs.song.weight[8] += 100 * model.encode_last(songs)[0, : model.outputs.song.embedding_dim]
    raised = score_function(model)([np.array([5, 6, 7])])[0, FIRST_NUMBER:]
    assert raised.argmax() == 8 - FIRST_NUMBER
    np.testing.assert_allclose(np.delete(raised, 8 - FIRST_NUMBER), np.delete(scores, 8 - FIRST_NUMBER), atol=1e-4)


def test_of_a_variant_that_was_run_twice_the_newest_line_counts():
    runs = [{"all": value, "warm": 0.5, "cold": 0.25, "seconds": 10.0} for value in (0.1, 0.2, 0.3)]
    lines = [
        {"data": "small", "variant": "the default", "runs": runs[:1]},
        {"data": "small", "variant": "song alone", "runs": runs[1:2]},
        {"data": "small", "variant": "the default", "runs": runs[1:]},
    ]
    assert make_quality.ablations(json.loads(json.dumps(lines)))[2:] == [
        "| the default | 0.2000, 0.3000 | 0.5000 | 0.2500 |",
        "| song alone | 0.2000 | 0.5000 | 0.2500 |",
    ]


def test_a_look_at_cold_songs_is_a_look_at_the_test_part_of_their_set():
    parts = [("playlists", "test"), ("playlists-cold", "test"), ("playlists", "validation"), ("playlists_large", "test")]
    lines = [{"data": data, "part": part} for data, part in parts]
    assert [looks(lines, name) for name in ("playlists", "playlists_large", "listening")] == [2, 1, 0]


def test_without_movielens_nothing_is_said_of_it():
    assert make_quality.movielens({}) == make_quality.beside_published([]) == []


def test_a_page_without_the_marks_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tests -->\nold\n")
    with pytest.raises(ValueError, match="substring not found"):
        make_quality.fill(page, "tests", ["new"])
    assert page.read_text() == "before\n<!-- tests -->\nold\n"


def test_what_stands_between_the_marks_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tests -->\nold\n<!-- /tests -->\nafter\n")
    make_quality.fill(page, "tests", ["new", "rows"])
    assert page.read_text() == "before\n<!-- tests -->\nnew\nrows\n<!-- /tests -->\nafter\n"


def test_the_tables_of_quality_are_those_of_the_stored_results(tmp_path, monkeypatch):
    pages = {name: tmp_path / name for name in ("README", "PAGE")}
    for name, copy in pages.items():
        copy.write_text(getattr(make_quality, name).read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(make_quality, name, copy)
    before = {name: page.read_text(encoding="utf-8") for name, page in pages.items()}
    make_quality.main()
    assert {name: page.read_text(encoding="utf-8") for name, page in pages.items()} == before, "run: python -m docs.make_quality"
