"""What each part of the model is worth: one left out or changed at a time, on validation.

    python -m benchmarks.quality.ablation PATH/TO/DATA --set playlists --seeds 0 1      (or: make bench-ablation SET=playlists)

Every variant is trained with the settings file of the data set and what the variant changes, and judged on the validation
questions; the test part is never asked.  Lines go to benchmarks/results/ablation.jsonl, the table to the output.
"""

import argparse
import copy
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.chain import WORK, store
from benchmarks.quality.network import SEARCH_TASKS, settings_of
from benchmarks.quality.questions import choose_history, figures, ranks_of
from benchmarks.quality.splits import DataSet, build, read
from config import PROJECT_ROOT, Config, ModelConfig
from engine.checkpoint import load_checkpoint
from engine.description import WEIGHTS
from engine.optimizer import build_optimizer
from engine.processes import process_group
from engine.runs import find_checkpoint
from engine.scoring import score_function
from errors import exit_code_of
from model import BERT4Rec
from splits import VALIDATION
from train import Trainer

Changes = Mapping[str, Mapping[str, Any]]

WIDTH = ModelConfig().d_model  # however it is divided among the parts of a song
NO_MEMORY: Changes = {
    "memory": {
        "lists": 0,
        **{
            f"{name}_reach": 0
            for name in ("after", "before", "next", "near", "same", "again", "artist", "album", "unheard", "track")
        },
    }
}
SONG_ONLY: Changes = {
    "model": {"d_songs": WIDTH, "d_albums": 0, "d_artists": 0, "use_features": False},
    "memory": {"artist_reach": 0, "album_reach": 0, "unheard_reach": 0, "track_reach": 0},
}
WITH_ARTIST: Changes = {
    "model": {"d_songs": WIDTH - 32, "d_albums": 0, "d_artists": 32, "use_features": False},
    "memory": {"album_reach": 0, "track_reach": 0},
}
WITH_ALBUM: Changes = {"model": {"use_features": False}, "memory": {"track_reach": 0}}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model that differs from the default in one respect."""

    changes: Changes = field(default_factory=dict)
    before: Callable[[BERT4Rec], None] | None = None
    """What is done to the model before it is trained."""
    after: Callable[[BERT4Rec], None] | None = None
    """What is done to the trained model before it is judged."""


def _untie(model: BERT4Rec) -> None:
    """Let songs leave through parts of their own, which begin as those that they enter by and learn apart from them."""
    model.outputs = outputs = copy.deepcopy(model.embedding)
    encode = model.encode
    model.embedding.candidates = outputs.candidates  # type: ignore[method-assign]
    model.embedding_table = lambda: outputs(torch.arange(model.n_songs, device=model.bias.device))  # type: ignore[method-assign]
    # Songs enter by their own parts also where a caller has the table of the output side at hand.
    model.encode = lambda songs, hidden_ids=None, n_last=None, table=None: encode(songs, hidden_ids, n_last)  # type: ignore[method-assign]


def _silence_encoder(model: BERT4Rec) -> None:
    model.encoder_weight.data.zero_()


def _no_bonus(model: BERT4Rec) -> None:
    model.newcomer_bonus.data.zero_()


def _alone(changes: Changes) -> Variant:
    """Changes to an encoder without a memory."""
    sections = {"model": dict(changes.get("model", {})), "training": dict(changes.get("training", {})), **NO_MEMORY}
    return Variant(changes=sections)


VARIANTS: Mapping[str, Variant] = {
    "the default": Variant(),
    "song alone": Variant(changes=SONG_ONLY),
    "song and artist": Variant(changes=WITH_ARTIST),
    "song, artist and album": Variant(changes=WITH_ALBUM),
    "scores of the memory alone": Variant(after=_silence_encoder),
    "no judgement": Variant(changes={"memory": {"judged": 0}}),
    "no nearest lists": Variant(changes={"memory": {"lists": 0}}),
    "no songs after and before": Variant(changes={"memory": {"after_reach": 0, "before_reach": 0}}),
    "no direct successors": Variant(changes={"memory": {"next_reach": 0}}),
    "no copying from the same sequence": Variant(changes={"memory": {"again_reach": 0}}),
    "no songs that nobody has played": Variant(changes={"memory": {"unheard_reach": 0}}, after=_no_bonus),
    "no bonus for them": Variant(after=_no_bonus),
    "none of them withheld in training": Variant(changes={"memory": {"withheld": 0.0}}),
    "only the last song hidden": Variant(changes={"training": {"last_item_probability": 1.0}}),
    "cloze alone": Variant(changes={"training": {"last_item_probability": 0.0}}),
    "left to right": Variant(changes={"model": {"objective": "causal"}}),
    "left to right, rows to the end": Variant(
        changes={"model": {"objective": "causal"}, "training": {"last_item_probability": 0.0}}
    ),
    "ids never hidden": Variant(changes={"training": {"unknown_song_probability": 0.0}}),
    "encoder alone": _alone({}),
    "encoder alone, song alone": _alone(SONG_ONLY),
    "encoder alone, song and artist": _alone(WITH_ARTIST),
    "encoder alone, song, artist and album": _alone(WITH_ALBUM),
    "encoder alone, output not tied to the input": replace(_alone({"training": {"map_songs": 0}}), before=_untie),
    "encoder alone, cloze alone": _alone({"training": {"last_item_probability": 0.0}}),
    "encoder alone, left to right": _alone({"model": {"objective": "causal"}}),
    "encoder alone, ids never hidden": _alone({"training": {"unknown_song_probability": 0.0}}),
    "encoder alone, 1,024 negatives with logQ correction": _alone({"training": {"negatives": 1024}}),
    "encoder alone, label smoothing 0.1": _alone({"training": {"label_smoothing": 0.1}}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train and judge what was asked for, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.ablation", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=PROJECT_ROOT.parent / "shared" / "data")
    parser.add_argument("--set", default="playlists", help="the data set")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="a model for each of them")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help="only these")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    data = build(read(arguments.data / arguments.set), WORK / "ablation" / arguments.set)
    print("| | NDCG@10 by seed | mean | known targets | new targets | seconds |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for name in arguments.variants:
        runs = [judged(data, VARIANTS[name], seed) for seed in arguments.seeds]
        store("ablation", {"data": arguments.set, "part": "validation", "variant": name, "seeds": arguments.seeds, "runs": runs})
        print(_row(name, runs), flush=True)
    return 0


def judged(data: DataSet, variant: Variant, seed: int) -> dict[str, float]:
    """NDCG@10 of one model by kind of target, and the seconds that it took to train."""
    config = changed(settings_of(data.name, data.encoders_folder.parent, seed=seed), variant.changes)
    begin = time.perf_counter()
    with process_group(config.training) as process:
        trainer = Trainer(config, data.snapshot, process, show_progress=False)
        if variant.before is not None:
            variant.before(trainer.model)
            trainer.optimizer = build_optimizer(trainer.model, config.training)
        run = trainer.run()
    seconds = time.perf_counter() - begin
    model = load_checkpoint(find_checkpoint(run)).model if variant.before is None else best_of(trainer.model, run)
    if variant.after is not None:
        variant.after(model)
    questions = data.questions(VALIDATION, config.evaluation).thinned(SEARCH_TASKS)
    score = score_function(model)
    history, _ = choose_history(score, questions)
    by_kind = figures(ranks_of(score, questions.tasks(history=history), questions), questions)
    return {**{kind: of_kind.metrics["ndcg10"] for kind, of_kind in by_kind.items()}, "seconds": seconds}


def best_of(model: BERT4Rec, run: Path) -> BERT4Rec:
    """A model with the weights of its best epoch, also where it has parts that a checkpoint does not know."""
    model.load_state_dict(load_file(find_checkpoint(run) / WEIGHTS), strict=False)
    return model.cpu()


def changed(config: Config, changes: Changes) -> Config:
    """The settings with some fields of some sections replaced, checked as always.  Raises ConfigError for a bad value."""
    sections = {name: replace(getattr(config, name), **fields) for name, fields in changes.items() if fields}
    return replace(config, **sections)


def _row(name: str, runs: Sequence[Mapping[str, float]]) -> str:
    def mean(kind: str) -> str:
        return f"{np.mean([run[kind] for run in runs]):.4f}" if kind in runs[0] else ""

    each = ", ".join(f"{run['all']:.4f}" for run in runs)
    return (
        f"| {name} | {each} | {mean('all')} | {mean('warm')} | {mean('cold')} | {np.mean([run['seconds'] for run in runs]):.0f} |"
    )


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
