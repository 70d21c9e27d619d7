"""Our own model as a party: trained with the settings file of its data set, then asked like everybody else.

Beside `ml-1m.toml` may stand `ml-1m.cloze.toml`, settings of a further model on the same data, the party "..., cloze".
"""

import time
from pathlib import Path

from benchmarks.quality.questions import Answers, ask, choose_history
from benchmarks.quality.splits import DataSet
from benchmarks.quality.table import MODEL
from config import PROJECT_ROOT, Config
from engine.checkpoint import load_checkpoint
from engine.processes import process_group
from engine.runs import find_checkpoint
from engine.scoring import score_function
from evaluation.protocols import Score
from settings import as_plain, load_config
from splits import VALIDATION
from train import Trainer

SETTINGS = PROJECT_ROOT / "benchmarks" / "quality" / "settings"
SEARCH_TASKS = 2000  # validation questions that decide on the history


def variants_of(name: str) -> list[str]:
    """The further models of a data set, by what stands between its name and the end of their settings files."""
    return sorted(path.name.removeprefix(f"{name}.").removesuffix(".toml") for path in SETTINGS.glob(f"{name}.*.toml"))


def settings_of(name: str, folder: Path, *, variant: str | None = None, minutes: float | None = None, seed: int = 0) -> Config:
    """The settings of a data set, with its folders; `minutes` None takes those of the file."""
    return load_config(
        file=SETTINGS / (f"{name}.{variant}.toml" if variant else f"{name}.toml"),
        environ={},
        overrides={
            "minutes": minutes,
            "seed": seed,
            "snapshot": folder / "snapshot",
            "encoders_folder": folder / "encoders",
            "model_folder": folder / "models",
        },
    )


def trained_score(data: DataSet, config: Config) -> Score:
    """Train one model and return the score function of its best epoch."""
    with process_group(config.training) as process:
        run = Trainer(config, data.snapshot, process, show_progress=False).run()
    return score_function(load_checkpoint(find_checkpoint(run)).model)


def network_answers(data: DataSet, part: int, config: Config, variant: str | None = None) -> Answers:
    """Train with the seed of the settings, choose on validation whether histories help, and answer."""
    begin = time.perf_counter()
    score = trained_score(data, config)
    fit_seconds = time.perf_counter() - begin
    history, quality = choose_history(score, data.questions(VALIDATION, config.evaluation).thinned(SEARCH_TASKS))
    ranks, lists = ask(score, data.questions(part, config.evaluation), history=history)
    return Answers(
        party=f"{MODEL}, {variant}" if variant else MODEL,
        seed=config.training.seed,
        settings=_changed(config),
        history=history,
        validation_ndcg10=quality,
        search_seconds=0,
        fit_seconds=fit_seconds,
        ranks=ranks,
        lists=lists,
    )


def _changed(config: Config) -> dict[str, object]:
    """The settings of model, memory and training that differ from the defaults, folders and seed apart."""
    default = Config()
    return {
        name: value
        for section in ("model", "memory", "training")
        for name, value in as_plain(getattr(config, section)).items()
        if value != as_plain(getattr(default, section))[name] and name not in ("model_folder", "seed")
    }
