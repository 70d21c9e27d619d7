"""What a run's folder tells of a model: how it was trained, on what, and how it compares, as plain values for JSON.

Nothing is loaded or unpickled: only JSON is read, and of each file no more than fits on a page.  A file that is missing or
damaged costs its part of the card, which is then None, and a note says so.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from engine.description import DESCRIPTION
from engine.runs import EVALUATION, FINISHED, HISTORY, ORIGIN, SETTINGS
from evaluation.protocols import METRICS

LARGEST_FILE_BYTES = 4_000_000
MOST_POINTS = 500  # of the training curve; longer ones are thinned evenly
MOST_ROWS = 50  # of the table
MOST_FEATURES = 100
MOST_COUNTS = 50  # of the data
MOST_SETTINGS = 200  # of a section
SHOWN_SETTINGS = ("model", "memory", "training", "evaluation", "preprocessing")
# Folders of whoever trained the model: nobody else's business.
HIDDEN_SETTINGS = ("model_folder", "writer_dict", "encoders_folder", "snapshot")
ENDINGS: Mapping[str, str] = {
    "epochs": "all of its epochs were done",
    "minutes": "its time was used up",
    "patience": "validation had not become better for as long as it was to wait",
}
NOT_HERE = "the model's folder is not on this machine, so only what the database knows of it is shown"
CURVE_NOTE = (
    "validation part: songs of held-out lists, at most 2,000 of them, asked for after each epoch; the test part is not looked at"
)
LOSS_NOTE = "train_loss is the mean cross-entropy per song asked for in nats, that of the encoder plus that of the memory"


@dataclass(kw_only=True)
class _Files:
    """The JSON files of a run and of one of its checkpoints, and what was wrong with them."""

    checkpoint: Path
    notes: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.checkpoint.parent

    def read(self, path: Path, otherwise: str | None) -> Mapping[str, Any]:
        """An object in a file; empty, with `otherwise` as a note, where there is none."""
        text = self._text(path, otherwise)
        try:
            content = {} if text is None else _parsed(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            self.notes.append(f"{path.name} is damaged")
            return {}
        return content

    def lines(self, path: Path, otherwise: str) -> list[Mapping[str, Any]]:
        """The objects in the lines of a file; lines that an interruption cut off are passed over."""
        read: list[Mapping[str, Any]] = []
        for line in (self._text(path, otherwise) or "").splitlines():
            try:
                content = _parsed(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                read.append(content)
        return read

    def _text(self, path: Path, otherwise: str | None) -> str | None:
        try:
            if not path.is_file():  # also what would be waited for, as a pipe is
                if otherwise is not None:
                    self.notes.append(otherwise)
                return None
            with path.open("rb") as file:
                text = file.read(LARGEST_FILE_BYTES + 1)
        except OSError as exc:
            self.notes.append(f"{path.name} cannot be read ({exc.strerror})")
            return None
        if len(text) > LARGEST_FILE_BYTES:
            self.notes.append(f"{path.name} is over {LARGEST_FILE_BYTES} bytes and was not read")
            return None
        return text.decode(errors="replace")


def model_card(model_id: str, checkpoint: Path, trained_at: datetime | None) -> dict[str, Any]:
    """The card of a model whose checkpoint should lie in a folder; `trained_at` as the database knows it, if it does."""
    files = _Files(checkpoint=checkpoint)
    described = files.read(checkpoint / DESCRIPTION, NOT_HERE)
    digest = str(described.get("weights_digest", ""))
    if described and f"{files.run.name}/{checkpoint.name}/{digest[:12]}" != model_id:
        files.notes.append("the model's folder holds another model by now, so only what the database knows of it is shown")
        described = {}
    found: Mapping[str, Any] = _of_run(files, described) if described else {}
    told_at = None if trained_at is None else trained_at.isoformat()
    return {
        "model_id": model_id,
        "trained_at": _text(described.get("trained_at")) or told_at,
        **dict.fromkeys(("seconds", "epochs", "device", "machine", "seed", "objective", "data", "settings", "curve", "table")),
        "features": None,
        **found,
        "notes": files.notes,
    }


def stored_counts(checkpoint: Path) -> dict[str, int]:
    """Counts of the data that a checkpoint's run was trained on; empty where they were not stored or are not here."""
    files = _Files(checkpoint=checkpoint)
    return _counts(files.read(files.run / ORIGIN, None))


def _of_run(files: _Files, described: Mapping[str, Any]) -> dict[str, Any]:
    settings = files.read(files.run / SETTINGS, "settings.json is missing: the settings of the run are not known")
    origin = files.read(
        files.run / ORIGIN, "the run did not store what it was trained on (origin.json): runs of earlier versions did not"
    )
    finished = files.read(files.run / FINISHED, "the run has no mark of its end: it was interrupted, or goes on")
    curve = _curve(files.lines(files.run / HISTORY, "history.jsonl is missing: there is no training curve"))
    evaluation = files.read(files.run / EVALUATION, "the run was not evaluated: python cli.py evaluate makes the table")
    training = _object(settings.get("training"))
    files.notes += _notes(described, finished, evaluation, has_curve=bool(curve))
    return {
        "seconds": _number(finished.get("seconds")) if finished else curve[-1]["seconds"] if curve else None,
        "epochs": _whole(finished.get("epochs")) if finished else curve[-1]["epoch"] if curve else _whole(described.get("epoch")),
        "device": _text(origin.get("device")) or (training["device"] if training.get("device") in ("cpu", "cuda") else None),
        "machine": _text(origin.get("machine")) or _machine(_object(settings.get("machine"))),
        "seed": _whole(training.get("seed")),
        "objective": _objective(_object(settings.get("model")), training),
        "data": _counts(origin) or None,
        "settings": _settings(settings) or None,
        "curve": curve,
        "table": _table(_object(evaluation.get("results"))),
        "features": _features(described, settings, origin),
    }


# --- parts -------------------------------------------------------------------------------------------------------------------


def _counts(origin: Mapping[str, Any]) -> dict[str, int]:
    counts = ((str(name)[:100], n) for name, n in _object(origin.get("data")).items() if _whole(n) is not None)
    return dict(islice(counts, MOST_COUNTS))


def _curve(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    epochs = [line for line in lines if _whole(line.get("epoch")) is not None]
    if len(epochs) > MOST_POINTS:
        last = len(epochs) - 1
        epochs = [epochs[place * last // (MOST_POINTS - 1)] for place in range(MOST_POINTS)]
    return [_point(line) for line in epochs]


def _point(line: Mapping[str, Any]) -> dict[str, Any]:
    validation = _object(line.get("validation"))
    return {
        "epoch": line["epoch"],
        "seconds": _number(line.get("seconds")),
        "train_loss": _number(line.get("loss")),
        "ndcg10": _number(validation.get("ndcg10")),
        "hr10": _number(validation.get("hr10")),
    }


def _table(results: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = [(str(name)[:200], row) for name, row in results.items() if isinstance(row, dict)][:MOST_ROWS]
    if not rows:
        return None
    first = rows[0][1]
    return {
        "n": _whole(first.get("n_sequences")),
        "targets": _whole(first.get("n_tasks")),
        "rows": [
            {"recommender": name, "metrics": {metric: _number(row.get(metric)) for metric in METRICS if metric in row}}
            for name, row in rows
        ],
    }


def _features(described: Mapping[str, Any], settings: Mapping[str, Any], origin: Mapping[str, Any]) -> str | None:
    """Which features the model reads, or why it reads none."""
    n_columns = _whole(_object(described.get("counts")).get("features"))
    named = origin.get("features")
    names = [str(name)[:100] for name in named[:MOST_FEATURES]] if isinstance(named, list) else []
    if _object(settings.get("model")).get("use_features") is False:
        return "used no features because the setting use_features is off"
    if n_columns == 0 or named == []:
        return "used no features because the songs of the database have none"
    if names:
        return f"used {len(names)} {'feature' if len(names) == 1 else 'features'}: {', '.join(names)}"
    return None if n_columns is None else f"used the features of the songs, in {n_columns} columns"


def _objective(model: Mapping[str, Any], training: Mapping[str, Any]) -> str | None:
    masked, last = _number(training.get("cloze_probability")), _number(training.get("last_item_probability"))
    if masked is None or last is None:
        return None
    sampled = _whole(training.get("negatives")) or 0
    against = f"{sampled} songs drawn at each step" if sampled else "the whole catalogue"
    if model.get("objective") == "causal":
        return f"causal: each song of a row is predicted from those before it; cross-entropy against {against}"
    return (
        f"cloze: {100 * masked:g} % of the songs of a row are masked and predicted, in {100 * last:g} % of the rows the last "
        f"song alone; cross-entropy against {against}"
    )


def _settings(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        section: {
            str(name)[:100]: _plain(value)
            for name, value in islice(_object(settings.get(section)).items(), MOST_SETTINGS)
            if name not in HIDDEN_SETTINGS and (value is None or isinstance(value, str | int | float))
        }
        for section in SHOWN_SETTINGS
        if isinstance(settings.get(section), dict)
    }


def _machine(machine: Mapping[str, Any]) -> str | None:
    """The machine as runs of earlier versions stored it."""
    processor, torch = _text(machine.get("processor")), _text(machine.get("torch"))
    parts = [processor, f"torch {torch}" if torch else None]
    return ", ".join(part for part in parts if part) or None


def _notes(
    described: Mapping[str, Any], finished: Mapping[str, Any], evaluation: Mapping[str, Any], *, has_curve: bool
) -> Iterator[str]:
    epoch, epochs = _whole(described.get("epoch")), _whole(finished.get("epochs"))
    if epoch is not None and epochs is not None:
        ending = ENDINGS.get(str(finished.get("reason")))
        yield f"epoch {epoch} of {epochs} is the one that answers{f'; training ended because {ending}' if ending else ''}"
    if has_curve:
        yield CURVE_NOTE
        yield LOSS_NOTE
    if _object(evaluation.get("results")):
        rule = _text(evaluation.get("split")) or "a rule that is not known"
        yield f"table: the test part, held out by {rule}; every song is ranked"


# --- values ------------------------------------------------------------------------------------------------------------------


def _parsed(text: str) -> Any:
    """JSON; NaN and infinities, which Python writes and JSON does not have, become None."""
    return json.loads(text, parse_constant=lambda name: None)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number and math.isfinite(value) else None
    except OverflowError:
        return None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None


def _text(value: Any) -> str | None:
    return " ".join(value.split())[:500] if isinstance(value, str) else None


def _plain(value: str | float | bool | None) -> str | float | bool | None:
    if isinstance(value, str):
        return value[:500]
    return value if value is None or isinstance(value, bool) else _whole(value) if isinstance(value, int) else _number(value)
