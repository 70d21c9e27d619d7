"""A run that continues another one, on a snapshot that has grown and numbers everything anew."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import train
from config import FIRST_NUMBER, MASK, UNKNOWN, MemoryConfig
from encoder_files import Encoders, save_encoders
from engine.checkpoint import load_checkpoint
from engine.continuing import checkpoint_to_continue, rows_by_id
from engine.processes import process_group
from engine.runs import ORIGIN, find_checkpoint
from engine.scoring import score_function
from errors import CheckpointError, ConfigError
from preprocessing_utils import FeatureEncoder, IdEncoder
from snapshot import open_snapshot, write_snapshot
from splits import split_by_sequence
from tests.engine.small import N_SONGS, circle_lists, small_config, small_snapshot

NO_MEMORY = MemoryConfig(
    after_reach=0, before_reach=0, next_reach=0, near_reach=0, lists=0, same_reach=0, again_reach=0, artist_reach=0,
    album_reach=0, unheard_reach=0, track_reach=0,
)  # fmt: skip
NEW_SONGS = 5


def grown_snapshot(folder):
    """The lists of `small_snapshot`, and some with five new songs; rarer ids come first, tempo is scaled by more songs."""
    old, new = [f"song {n}" for n in range(3, 3 + N_SONGS)], [f"late {n}" for n in range(NEW_SONGS)]
    artists = [f"artist {n % 4}" for n in range(N_SONGS)] + ["newcomer"] * NEW_SONGS
    frame = pd.DataFrame(
        {"energy": np.linspace(0, 1, N_SONGS + NEW_SONGS), "tempo": [*np.linspace(80.0, 160.0, N_SONGS), *[300] * 5]}
    )
    encoders = Encoders(
        songs=IdEncoder("song").fit([*old, *new], counts=np.arange(1, 1 + N_SONGS + NEW_SONGS)),
        albums=IdEncoder("album").fit(artists),
        artists=IdEncoder("artist").fit(artists),
        features=FeatureEncoder().fit(frame),
    )
    digest = save_encoders(encoders, folder / "encoders")
    number = encoders.songs.encode([*old, *new])
    columns = encoders.features.encode(frame)
    features = np.zeros((FIRST_NUMBER + len(number), columns.shape[1]), np.float32)
    artist = np.zeros(len(features), np.int64)
    features[number], artist[number] = columns, encoders.artists.encode(artists)
    lists = [*number[circle_lists(120, 7) - 3], *[number[[*range(n, n + 5), N_SONGS + n % NEW_SONGS, n + 6]] for n in range(10)]]
    snapshot = write_snapshot(
        folder / "snapshot",
        song_artist=artist,
        song_album=artist,
        song_features=features,
        feature_names=encoders.features.feature_names,
        n_fitted_songs=FIRST_NUMBER + N_SONGS + NEW_SONGS,
        n_fitted_albums=8,
        n_fitted_artists=8,
        n_albums=8,
        n_artists=8,
        sequences=np.concatenate(lists).astype(np.int32),
        offsets=np.arange(len(lists) + 1) * 7,
        split=np.concatenate([split_by_sequence(np.arange(120), 0.8, np.random.default_rng(0)), np.zeros(10, np.uint8)]),
        encoders_digest=digest,
        source={},
    )
    return snapshot, encoders


def config_of(folder, memory=None, **training):
    config = small_config(folder, **training)
    return config if memory is None else dataclasses.replace(config, memory=memory)


def finished_run(folder, memory, **training):
    config = config_of(folder, memory, **training)
    with process_group(config.training) as process:
        return train.train(config, open_snapshot(folder / "snapshot"), process, show_progress=False)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folders with the small and the grown snapshot; the first one holds a trained run without a memory, and one with."""
    old, new = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("new")
    small_snapshot(old)
    _, encoders = grown_snapshot(new)
    runs = [
        finished_run(old, NO_MEMORY, num_epochs=20, model_folder=old / "plain"),
        finished_run(old, None, num_epochs=2, model_folder=old / "remembering"),
    ]
    return old, new, encoders, runs


def trainer_in(folder, tmp_path, memory=NO_MEMORY, **training):
    config = config_of(folder, memory, model_folder=tmp_path / "models", **training)
    with process_group(config.training) as process:
        return train.Trainer(config, open_snapshot(folder / "snapshot"), process, show_progress=False)


@pytest.fixture
def continued(worlds, tmp_path):
    return trainer_in(worlds[1], tmp_path, continue_from=worlds[3][0])


def quality(trainer):
    return trainer.validation.judge(score_function(trainer.model)).metrics["ndcg10"]


def test_a_continued_run_begins_where_the_old_model_ended(worlds, tmp_path, continued):
    _, new, _, (run, _) = worlds
    before = load_checkpoint(run).metrics["ndcg10"]
    assert quality(continued) == pytest.approx(before, abs=0.05)  # five more songs to choose from
    assert quality(trainer_in(new, tmp_path)) < before - 0.3


def test_old_songs_keep_their_rows_and_new_ones_begin_as_unknown(worlds, continued):
    old = load_checkpoint(worlds[3][0]).model
    numbers = worlds[2].songs.encode([f"song {n}" for n in range(3, 3 + N_SONGS)])  # numbered 3, 4, ... by the old encoder
    assert numbers.tolist() == list(range(FIRST_NUMBER + NEW_SONGS, FIRST_NUMBER + NEW_SONGS + N_SONGS))[::-1]
    late = worlds[2].songs.encode([f"late {n}" for n in range(NEW_SONGS)])
    for name in ("embedding.song.weight", "bias"):
        ours, theirs = continued.model.get_parameter(name), old.get_parameter(name)
        assert torch.equal(ours[numbers], theirs[FIRST_NUMBER:])
        assert torch.equal(ours[:FIRST_NUMBER], theirs[:FIRST_NUMBER])
        assert all(torch.equal(ours[number], theirs[UNKNOWN]) for number in late)
    artists = [f"artist {n}" for n in range(4)]
    for table in ("album", "artist"):
        ours, theirs = (model.get_parameter(f"embedding.{table}.weight") for model in (continued.model, old))
        assert torch.equal(ours[getattr(worlds[2], f"{table}s").encode(artists)], theirs[FIRST_NUMBER:])
        (newcomer,) = getattr(worlds[2], f"{table}s").encode(["newcomer"])
        assert torch.equal(ours[newcomer], theirs[UNKNOWN])


def test_a_sequence_of_old_songs_means_the_same_as_before(worlds, continued):
    old = load_checkpoint(worlds[3][0]).model
    numbers = torch.from_numpy(worlds[2].songs.encode([f"song {n}" for n in range(3, 3 + N_SONGS)])).long()
    rows = torch.tensor([[3, 4, 5, 6], [14, 15, 16, 17]])
    hide = torch.full((2, 1), MASK)
    ours = continued.model.eval().encode_last(torch.cat([numbers[rows - FIRST_NUMBER], hide], dim=1))
    theirs = old.encode_last(torch.cat([rows, hide], dim=1))
    assert torch.allclose(ours, theirs, atol=1e-4)  # though tempo is scaled otherwise, and energy is new


def test_what_the_memory_learned_is_carried_over_and_its_tables_are_counted_anew(worlds, tmp_path):
    _, new, _, (_, run) = worlds
    continued, old = trainer_in(new, tmp_path, memory=None, continue_from=run).model.memory, load_checkpoint(run).model.memory
    learned = dict(old.named_parameters())
    assert {name for name, _ in continued.named_parameters()} == set(learned)
    assert all(torch.equal(weight, learned[name]) for name, weight in continued.named_parameters())
    assert learned["judgement.out.weight"].any()
    fresh = trainer_in(new, tmp_path, memory=None).model.memory
    assert any(not torch.equal(weight, learned[name]) for name, weight in fresh.named_parameters())
    tables = dict(fresh.named_buffers())
    assert all(torch.equal(table, tables[name]) for name, table in continued.named_buffers())


def test_a_source_that_the_old_memory_had_not_begins_anew(worlds, tmp_path):
    _, new, _, (_, run) = worlds
    memory = dataclasses.replace(small_config(new).memory, near_reach=0, before_reach=0, next_reach=2)
    continued, old = trainer_in(new, tmp_path, memory=memory, continue_from=run).model.memory, load_checkpoint(run).model.memory
    fresh = trainer_in(new, tmp_path, memory=memory).model.memory
    now, before, new_ones = continued.learned(), old.learned(), fresh.learned()
    for name, origin in (("after", before), ("lists", before), ("next", new_ones)):  # a reach of 2 is another shape than one of 3
        assert all(torch.equal(part, other) for part, other in zip(now[name], origin[name], strict=True))
        assert not torch.equal(before[name][0], new_ones[name][0]) or name == "next"
    assert not continued.judgement.out.weight.any()  # it reads other signals, also where there are as many of them
    assert continued.judgement.signals.weight.shape != old.judgement.signals.weight.shape


def test_a_judgement_of_as_many_relations_with_other_names_begins_anew(worlds, tmp_path):
    new = worlds[1]
    memory = dataclasses.replace(small_config(new).memory, artist_reach=0, unheard_reach=0)
    renamed = dataclasses.replace(memory, album_reach=0, artist_reach=4)
    with_albums = finished_run(worlds[0], memory, num_epochs=1, model_folder=tmp_path / "albums")
    old = load_checkpoint(with_albums).model.memory
    continued = trainer_in(new, tmp_path, memory=renamed, continue_from=with_albums).model.memory
    assert continued.judgement.signals.weight.shape == old.judgement.signals.weight.shape
    assert old.judgement.out.weight.any()
    assert not continued.judgement.out.weight.any()


def test_a_memory_that_judges_continues_one_that_does_not(worlds, tmp_path):
    _, new, _, (_, run) = worlds
    without = dataclasses.replace(small_config(new).memory, judged=0)
    plain = finished_run(worlds[0], without, num_epochs=1, model_folder=tmp_path / "unjudged")
    assert not trainer_in(new, tmp_path, memory=None, continue_from=plain).model.memory.judgement.out.weight.any()
    assert trainer_in(new, tmp_path, memory=without, continue_from=run).model.memory.judgement is None


def test_a_run_without_a_memory_that_continues_one_with_has_its_encoder_alone(worlds, tmp_path):
    old = load_checkpoint(worlds[3][1]).model
    continued = trainer_in(worlds[1], tmp_path, continue_from=worlds[3][1], num_epochs=1)
    assert continued.model.encoder_weight.equal(old.encoder_weight)
    continued.model.encoder_weight.data.fill_(0.03)
    continued.model.newcomer_bonus.data.fill_(2.0)
    model = load_checkpoint(continued.run()).model
    assert (model.memory, float(model.encoder_weight), float(model.newcomer_bonus)) == (None, 1.0, 0.0)


def test_a_continued_run_trains_on_and_says_what_it_continues(worlds, tmp_path, continued):
    run = continued.run()
    origin = json.loads((run / ORIGIN).read_text())["continued_from"]
    old = load_checkpoint(worlds[3][0])
    assert (origin["run"], origin["epoch"], origin["model_id"]) == (old.path.parent.name, old.epoch, old.model_id)
    assert load_checkpoint(run).metrics["ndcg10"] > 0.8
    again = trainer_in(worlds[1], tmp_path, epoch_to_preload=-1)
    assert torch.equal(again.model.embedding.features.mean, continued.model.embedding.features.mean)
    scores = [score_function(model)([np.array([10, 9, 8])]) for model in (again.model, load_checkpoint(run / "epoch-002").model)]
    assert np.array_equal(*scores)


@pytest.mark.parametrize(("number", "n_warnings"), [(0, 0), (1, 1)])
def test_whoever_continues_on_lists_held_out_anew_is_warned(worlds, tmp_path, caplog, number, n_warnings):
    trainer_in(worlds[number], tmp_path, continue_from=worlds[3][0])
    assert sum("may have learned those that judge the new model" in message for message in caplog.messages) == n_warnings


def test_another_shape_is_refused_in_one_line(worlds, tmp_path):
    config = config_of(worlds[1], NO_MEMORY, model_folder=tmp_path / "models", continue_from=worlds[3][0])
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, d_ff=64, dropout_prob=0.3))
    with process_group(config.training) as process, pytest.raises(ConfigError, match=r"^d_ff is 64, but \S+, which is to be"):
        train.Trainer(wider, open_snapshot(worlds[1] / "snapshot"), process)
    assert not (tmp_path / "models").exists()


def test_continuing_takes_the_best_of_the_newest_finished_run(worlds):
    run = worlds[3][0]
    assert checkpoint_to_continue(run.parent) == checkpoint_to_continue(run) == find_checkpoint(run)
    (run.parent / "99999999-000000-seed0" / "epoch-001").mkdir(parents=True)
    (run.parent / "99999999-000000-seed0" / "epoch-001" / "checkpoint.json").write_text("{}")  # begun, and not finished
    assert checkpoint_to_continue(run.parent) == find_checkpoint(run)
    assert checkpoint_to_continue(run / "epoch-020") == run / "epoch-020"


def test_nothing_to_continue_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"no finished run in .*: train one first, or name a run with --continue-from RUN"):
        checkpoint_to_continue(tmp_path)


def test_continue_and_resume_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match=r"epoch_to_preload \(-1\) goes on with a run, continue_from .* begins a new one"):
        small_config(tmp_path, epoch_to_preload=-1, continue_from=tmp_path)


def test_rows_are_found_by_id_and_only_fitted_ones_count():
    old = IdEncoder("song").fit([7, 5, 7]).extend([9])  # 7, 5, and 9 that no training list held
    new = IdEncoder("song").fit([9, 8, 5, 7], counts=np.array([4, 3, 2, 1])).extend([1])
    assert rows_by_id(old, new, old.n_fitted, new.n_fitted).tolist() == [0, 1, 2, UNKNOWN, UNKNOWN, 4, 3]


def test_the_command_continues_the_newest_finished_run(worlds, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "train", lambda config, snapshot, process: asked.append(config.training.continue_from))
    monkeypatch.setattr(train, "find_checkpoint", lambda run: tmp_path)
    given = ["--snapshot", str(worlds[1] / "snapshot"), "--device", "cpu", "--model-folder", str(tmp_path), "--no-evaluation"]
    assert train.main([*given, "--continue"]) == 0
    assert asked == [tmp_path]
