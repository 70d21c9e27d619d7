"""Keeps the recommenders in service what they should be, without a restart: a newly activated model, a newer run, new songs.

What should be in service is, in this order: the model that the settings name (`--model`); what was activated in the database,
with its challenger; the newest finished run.  Where there is no model at all, the counts of the snapshot answer, and say so.  A
model that cannot be loaded, or belongs to another database, is refused with the reason, and what was in service stays.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg

from config import Config
from dataset import open_snapshot
from engine.checkpoint import find_checkpoint, is_finished, newest_run, runs_of
from errors import BERT4MusicRecError, CheckpointError, DatabaseError, EncoderError, SnapshotError
from preprocessing_utils import load_encoders
from serving.catalogue import SongRows, read_songs
from serving.live import NO_MODEL, LiveRecommender
from serving.recommender import Recommender
from storage.connections import Connection, connect, expected_errors
from storage.models import Deployment, Served, add_served, current_deployment, known_models, refuse_model, register_model
from system import settle_memory

log = logging.getLogger(__name__)

UNREAD_SECONDS = 10.0  # until the songs are asked for again where they could not be read
REFUSALS = (CheckpointError, EncoderError)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What should be in service: checkpoints by path, and the challenger's share of the sequences."""

    main: Path
    challenger: Path | None = None
    share: float = 0.0

    @property
    def paths(self) -> tuple[Path, ...]:
        """One or two checkpoints."""
        return (self.main,) if self.challenger is None else (self.main, self.challenger)


class Follower:
    """Looks, loads and swaps; `start` before the first request, then `run` in a thread of its own."""

    def __init__(self, live: LiveRecommender, config: Config, url: str | None) -> None:
        """`url` None: there is no database, so that only the settings and the runs on disk are followed."""
        self._live, self._config, self._url = live, config, url
        self._in_service: Wanted | None = None
        self._loaded: dict[Path, Recommender] = {}  # as trained, by checkpoint
        self._refused: dict[Path, float] = {}  # when the refused checkpoint was written
        self._deployment: Deployment | None = None
        self._paths: dict[str, Path] = {}  # of deployed models, by id
        self._refresh_at = 0.0  # time.monotonic()
        self._rows_digest = ""
        self._nudged = threading.Event()
        self.refusals: list[str] = []
        """Why models were refused, the newest last."""
        self.catalogue_read_at: float | None = None
        """time.time() of the last reading of the songs; None while the database has not been reached."""

    def start(self) -> None:
        """Put the first model into service, or counts where there is none.

        Raises the family of errors.py when neither can be loaded: then there is nothing to serve.
        """
        self._begin()
        settle_memory()

    def _begin(self) -> None:
        wanted = self._wanted()
        if wanted is None:
            self._live.swap(self._counting())
            return
        try:
            self._put_into_service(wanted)
        except REFUSALS:
            second = self._second_to(wanted)
            if second is None:
                raise
            self._put_into_service(second)

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        while not stop.is_set():
            self._nudged.wait(self._config.service.model_poll_seconds)
            self._nudged.clear()
            self.look()  # once more at the end: what was answered meanwhile is to be counted

    def nudge(self) -> None:
        """Look now: somebody has activated a model, or wants to end."""
        self._nudged.set()

    def look(self) -> None:
        """One look at everything; whatever is wrong is logged and leaves what is in service."""
        for step in (self._store_tally, self._follow, self._refresh):
            try:
                step()
            except (BERT4MusicRecError, psycopg.Error) as exc:
                log.warning("%s; what is in service stays", exc)

    # --- models --------------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        wanted = self._wanted()
        wanted = None if wanted is None else self._without_refused(wanted)
        if wanted is not None and wanted != self._in_service:
            with suppress(*REFUSALS):  # told and remembered already
                self._put_into_service(wanted)

    def _without_refused(self, wanted: Wanted) -> Wanted | None:
        """What is left of it: a model goes on without its refused challenger, a challenger does not without its model."""
        if self._is_refused(wanted.main):
            return None
        is_alone = wanted.challenger is None or self._is_refused(wanted.challenger)
        return Wanted(main=wanted.main) if is_alone else wanted

    def _second_to(self, wanted: Wanted) -> Wanted | None:
        """What to begin with when what is wanted cannot be loaded: the model without its challenger, else the newest run."""
        if self._config.service.model is not None:
            return None
        left, newest = self._without_refused(wanted), self._newest()
        if left is not None or newest is None or self._is_refused(newest):
            return left
        return Wanted(main=newest)

    def _wanted(self) -> Wanted | None:
        if self._config.service.model is not None:
            return Wanted(main=find_checkpoint(self._config.service.model).resolve())
        try:
            self._deployment = self._ask(current_deployment)
            self._learn_paths()
        except DatabaseError as exc:  # while it is away, what was activated before still holds
            log.debug("the database was not asked for the model in service: %s", exc)
        if self._deployment is not None:
            return self._deployed(self._deployment)
        newest = self._newest()
        return None if newest is None else Wanted(main=newest)

    def _deployed(self, deployment: Deployment) -> Wanted:
        challenger = None if deployment.challenger_id is None else self._paths[deployment.challenger_id]
        return Wanted(main=self._paths[deployment.model_id], challenger=challenger, share=deployment.challenger_share)

    def _learn_paths(self) -> None:
        deployment = self._deployment
        if deployment is None or {deployment.model_id, deployment.challenger_id} - {None} <= self._paths.keys():
            return
        self._paths = {model.model_id: Path(model.path) for model in self._ask(known_models) or ()}

    def _newest(self) -> Path | None:
        """The best checkpoint of the newest finished run; of the newest one where none is finished."""
        folder = self._config.training.model_folder
        finished = [run for run in runs_of(folder) if is_finished(run)]
        run = max(finished, default=newest_run(folder))
        return None if run is None else find_checkpoint(run).resolve()

    def _put_into_service(self, wanted: Wanted) -> None:
        """Load what is not loaded yet, then swap; nothing changes before all of it is there.  Raises what REFUSALS names."""
        loaded: dict[Path, Recommender] = {}
        full: dict[Path, Recommender] = {}
        for path in wanted.paths:
            try:
                loaded[path] = self._loaded.get(path) or Recommender.load(path, self._config.service)
                full[path] = self._with_songs(loaded[path])
            except REFUSALS as exc:
                self._refuse(path, exc)
                raise
        challenger = None if wanted.challenger is None else full[wanted.challenger]
        self._live.swap(full[wanted.main], challenger, wanted.share)
        self._loaded, self._in_service = loaded, wanted
        self._register(loaded)

    def _refuse(self, path: Path, exc: BERT4MusicRecError) -> None:
        """Tell what is wrong with a checkpoint, and remember it: the same files are not tried again."""
        log.error("a model was refused, what was in service stays: %s", exc)
        self.refusals.append(str(exc))
        self._refused[path] = _written_at(path)
        for model_id in [model_id for model_id, known in self._paths.items() if known == path]:
            try:
                self._ask(functools.partial(refuse_model, model_id=model_id, reason=str(exc)))
            except DatabaseError as away:
                log.debug("the refusal could not be stored: %s", away)

    def _is_refused(self, path: Path) -> bool:
        return path in self._refused and self._refused[path] == _written_at(path)

    def _register(self, loaded: dict[Path, Recommender]) -> None:
        """Make the models known, so that feedback and answers can be traced to them."""
        models = [recommender.info.record() for recommender in loaded.values() if recommender.info is not None]

        def register(connection: Connection) -> None:
            for model in models:
                register_model(connection, model)

        try:
            self._ask(register)
        except DatabaseError as exc:
            log.warning("%s; the model is registered when the database is back", exc)

    def _counting(self) -> Recommender:
        """Counts of the snapshot, in place of a model.  Raises CheckpointError when there is no snapshot either."""
        settings = self._config.preprocessing
        try:
            snapshot = open_snapshot(settings.snapshot)
            encoders = load_encoders(settings.encoders_folder, snapshot.manifest["encoders_digest"])
        except (SnapshotError, EncoderError) as exc:
            raise CheckpointError(
                f"no trained model in {self._config.training.model_folder}, and no snapshot whose counts could stand in: "
                "run preprocessing.py and train.py first, or name a run with --model PATH"
            ) from exc
        log.warning("there is no model yet: answering with counts of the snapshot until train.py has made one")
        return self._with_songs(Recommender.of_counts(snapshot, encoders, self._config.service))

    # --- songs ---------------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Read the songs again when it is time, and let the recommenders know of them."""
        is_read_once = self.catalogue_read_at is not None and not self._config.service.catalogue_refresh_seconds
        if is_read_once or time.monotonic() < self._refresh_at:
            return
        main, challenger = self._live.recommender, self._live.challenger
        if main is None or self._url is None:
            return
        rows = self._rows(main)
        if rows is None or rows.digest == main.catalogue.digest:
            return
        log.info("the songs of the database have changed: %d of them", len(rows))
        other = None if challenger is None else challenger[0].with_songs(rows)
        self._live.swap(main.with_songs(rows), other, 0.0 if challenger is None else challenger[1])

    def _with_songs(self, recommender: Recommender) -> Recommender:
        """With the songs of the database, where it can be reached."""
        rows = self._rows(recommender)
        return recommender if rows is None else recommender.with_songs(rows)

    def _rows(self, recommender: Recommender) -> SongRows | None:
        """The songs of the database; None while it cannot be reached.  Raises EncoderError for songs of another kind."""
        if self._url is None:
            return None
        try:
            rows = read_songs(self._url, self._config.database.queries_folder, recommender.catalogue.encoders)
        except DatabaseError as exc:
            log.warning("the songs were not read, so names and new songs are missing: %s", exc)
            self._refresh_at = time.monotonic() + UNREAD_SECONDS
            return None
        self.catalogue_read_at = time.time()
        self._refresh_at = time.monotonic() + self._config.service.catalogue_refresh_seconds
        return rows

    # --- figures -------------------------------------------------------------------------------------------------------------

    def _store_tally(self) -> None:
        """Add what was answered since the last look to the figures of the models."""
        if self._url is None:
            return
        taken = self._live.tally.take()
        if not taken:
            return
        served: dict[str, Served] = {}
        for (model_id, fallback), (answers, songs) in taken.items():
            if model_id == NO_MODEL:
                continue
            before = served.get(model_id, Served(answers=0, songs=0, fallbacks=0))
            served[model_id] = Served(
                answers=before.answers + answers,
                songs=before.songs + songs,
                fallbacks=before.fallbacks + (answers if fallback is not None else 0),
            )
        try:
            self._register(self._loaded)  # somebody may have removed them
            self._ask(lambda connection: add_served(connection, served))
        except DatabaseError:
            self._live.tally.put_back(taken)
            raise

    def _ask(self, question: Callable[[Connection], Result]) -> Result | None:
        """One transaction; None where no database is configured.  Raises DatabaseError."""
        if self._url is None:
            return None
        timeout = self._config.database.connect_timeout_seconds
        with expected_errors(), connect(self._url, connect_timeout_seconds=timeout) as connection:
            return question(connection)


def _written_at(checkpoint: Path) -> float:
    """When the newest of its files was written, those of its run included; 0 where there are none."""
    written = [0.0]
    for folder in (checkpoint, checkpoint.parent):
        try:
            written += [file.stat().st_mtime for file in folder.iterdir() if file.is_file()]
        except OSError:
            continue
    return max(written)
