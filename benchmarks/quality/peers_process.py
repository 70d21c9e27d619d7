"""The peers that live in a virtual environment of their own: what they need goes to files, and so do their answers."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality.questions import Answers
from benchmarks.quality.splits import DataSet
from config import PROJECT_ROOT, Config
from errors import DataError
from splits import VALIDATION

PARTIES = ("implicit ALS", "RecTools BERT4Rec", "RecTools SASRec", "RecTools eSASRec")
SEARCH_TASKS = 1000  # validation questions after each epoch and for each setting
MINUTES = 30.0  # where the settings name none


def rectools_answers(data: DataSet, part: int, config: Config, seeds: Sequence[int], python: Path | None) -> Iterator[Answers]:
    """Let each of them search within the minutes that our model trains for, then train one model a seed for as long again.

    Raises DataError without a python that has them, CalledProcessError where one of them fails.
    """
    if python is None:
        raise DataError("the peers from RecTools need an environment of their own: make bench-quality, or name --peers-python")
    folder = data.encoders_folder.parent / "peers"
    write_questions(data, part, config, folder)
    minutes = config.training.minutes or MINUTES
    for party in PARTIES:
        shutil.rmtree(folder / "answers", ignore_errors=True)
        (folder / "answers").mkdir()
        arguments = [str(folder), "--party", party, "--minutes", str(minutes), "--seeds", *map(str, seeds)]
        subprocess.run([str(python), "-m", "benchmarks.quality.peers_rectools", *arguments], cwd=PROJECT_ROOT, check=True)
        for path in sorted((folder / "answers").glob("*.npz")):
            answers = Answers.load(path, questions=party)
            assert answers is not None
            yield answers


def write_questions(data: DataSet, part: int, config: Config, folder: Path) -> None:
    """Training sequences and questions, as the other process reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    songs, offsets = data.training()
    joined = data.training(joined=True)[1]
    np.savez(folder / "training.npz", songs=songs, offsets=offsets, joined=joined)
    data.questions(VALIDATION, config.evaluation).thinned(SEARCH_TASKS).save(folder / "validation.npz")
    data.questions(part, config.evaluation).save(folder / "asked.npz")
