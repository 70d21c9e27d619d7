"""Keeps the recommenders in service what they should be, without a restart: a newly activated model, a newer run, new songs.

What should be in service is, in this order: the model that the settings name (`--model`); what was activated in the database,
with its challenger; the newest finished run.  Where there is no model at all, the counts of the snapshot answer, and say so.  A
model that cannot be loaded, is not the one that was activated, or belongs to another database is refused with the reason, and
what was in service stays.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg

from config import Config
from encoder_files import load_encoders
from engine.checkpoint import model_id_of
from engine.runs import find_checkpoint, is_finished, newest_run, runs_of
from errors import BERT4MusicRecError, CheckpointError, DatabaseError, EncoderError, SnapshotError
from serving.answers import ModelInfo
from serving.catalogue import SongRows, read_songs
from serving.live import NO_MODEL, LiveRecommender
from serving.recommender import Recommender
from snapshot import open_snapshot
from storage.connections import Connection, connect, expected_errors
from storage.models import Deployment, Served, add_served, current_deployment, introduce_model, known_models, refuse_model
from system import settle_memory

log = logging.getLogger(__name__)

UNREAD_SECONDS = 10.0  # until the songs are asked for again where they could not be read
REFUSALS = (CheckpointError, EncoderError)
# What may go wrong in one look without ending the thread: files that vanish, a model that does not fit into memory, what torch,
# numpy and Arrow raise for data that nobody has foreseen.
LOOK_ERRORS = (BERT4MusicRecError, psycopg.Error, OSError, MemoryError, RuntimeError, ValueError, TypeError, LookupError)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model by its id, and where it lies."""

    model_id: str
    path: Path

    @classmethod
    def at(cls, path: Path) -> "Target":
        """The checkpoint at a path, in a run or below a folder of runs.  Raises CheckpointError."""
        checkpoint = find_checkpoint(path).resolve()
        return cls(model_id=model_id_of(checkpoint), path=checkpoint)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What should be in service."""

    main: Target
    challenger: Target | None = None
    share: float = 0.0  # of the sequences, for the challenger

    @property
    def targets(self) -> tuple[Target, ...]:
        """One or two."""
        return (self.main,) if self.challenger is None else (self.main, self.challenger)


class Follower:
    """Looks, loads and swaps; `start` before the first request, then `run` in a thread of its own."""

    def __init__(self, live: LiveRecommender, config: Config, url: str | None) -> None:
        """`url` None: there is no database, so that only the settings and the runs on disk are followed."""
        self._live, self._config, self._url = live, config, url
        self._connection: Connection | None = None
        self._in_service: Wanted | None = None
        self._loaded: dict[Target, Recommender] = {}  # as trained
        self._refused: dict[Target, float] = {}  # when the newest of the refused files was written
        self._deployment: Deployment | None = None
        self._paths: Mapping[str, Path] = {}  # of the models that the database knew at that deployment
        self._infos: dict[str, ModelInfo] = {}  # of all models that were in service
        self._introduced: set[str] = set()  # those that the database is known to know
        self._refresh_at = 0.0  # time.monotonic()
        self._is_unread = True  # whether what is in service lacks the songs of the database
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

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        while not stop.is_set():
            self._nudged.wait(self._config.service.model_poll_seconds)
            self._nudged.clear()
            self.look()  # once more at the end: what was answered meanwhile is to be counted
        self.close()

    def nudge(self) -> None:
        """Look now: somebody has activated a model, or wants to end."""
        self._nudged.set()

    def look(self) -> None:
        """One look at everything; whatever is wrong is logged and leaves what is in service."""
        for step in (self._store_tally, self._follow, self._refresh):
            try:
                step()
            except BERT4MusicRecError as exc:
                log.warning("%s; what is in service stays", exc)
            except LOOK_ERRORS:
                log.exception("a look at models and songs failed; what is in service stays")

    # --- models --------------------------------------------------------------------------------------------------------------

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

    def _follow(self) -> None:
        wanted = self._wanted()
        wanted = None if wanted is None else self._without_refused(wanted)
        if wanted is not None and wanted != self._in_service:
            with suppress(*REFUSALS):  # told and remembered already
                self._put_into_service(wanted)

    def _wanted(self) -> Wanted | None:
        if self._config.service.model is not None:
            return Wanted(main=Target.at(self._config.service.model))
        try:
            self._read_deployment()
        except DatabaseError as exc:  # while it is away, what was activated before still holds
            log.debug("the database was not asked for the model in service: %s", exc)
        if self._deployment is not None:
            return self._deployed(self._deployment)
        run = self._newest_run()
        return None if run is None else Wanted(main=Target.at(run))

    def _read_deployment(self) -> None:
        """What was activated last and, where that is new, where its models lie; both or neither."""

        def read(connection: Connection) -> tuple[Deployment | None, Mapping[str, Path]]:
            deployment = current_deployment(connection)
            if deployment == self._deployment:
                return deployment, self._paths
            return deployment, {model.model_id: Path(model.path) for model in known_models(connection)}

        found = self._ask(read)
        if found is not None:
            self._deployment, self._paths = found

    def _deployed(self, deployment: Deployment) -> Wanted:
        main, challenger = (
            None if model_id is None else Target(model_id=model_id, path=self._paths[model_id])
            for model_id in (deployment.model_id, deployment.challenger_id)
        )
        assert main is not None
        return Wanted(main=main, challenger=challenger, share=deployment.challenger_share)

    def _newest_run(self) -> Path | None:
        """The newest finished run; the newest one where none is finished."""
        folder = self._config.training.model_folder
        finished = [run for run in runs_of(folder) if is_finished(run)]
        return max(finished, default=newest_run(folder))

    def _without_refused(self, wanted: Wanted) -> Wanted | None:
        """What is left of it: a model goes on without its refused challenger, a challenger does not without its model."""
        if self._is_refused(wanted.main):
            return None
        is_alone = wanted.challenger is None or self._is_refused(wanted.challenger)
        return Wanted(main=wanted.main) if is_alone else wanted

    def _second_to(self, wanted: Wanted) -> Wanted | None:
        """What to begin with when what is wanted cannot be loaded: the model without its challenger, else the newest run."""
        left, run = self._without_refused(wanted), self._newest_run()
        if self._config.service.model is not None or left is not None or run is None:
            return None if self._config.service.model is not None else left
        newest = Target.at(run)
        return None if self._is_refused(newest) else Wanted(main=newest)

    def _put_into_service(self, wanted: Wanted) -> None:
        """Load what is not loaded yet, then swap; nothing changes before all of it is there.  Raises what REFUSALS names."""
        loaded: dict[Target, Recommender] = {}
        full: dict[Target, Recommender] = {}
        for target in wanted.targets:
            try:
                loaded[target] = self._loaded.get(target) or self._load(target)
                full[target] = self._with_songs(loaded[target])
            except REFUSALS as exc:
                self._refuse(target, exc)
                raise
        challenger = None if wanted.challenger is None else full[wanted.challenger]
        self._live.swap(full[wanted.main], challenger, wanted.share)
        self._loaded, self._in_service = loaded, wanted
        self._infos |= {one.info.model_id: one.info for one in loaded.values() if one.info is not None}
        self._introduce()

    def _load(self, target: Target) -> Recommender:
        recommender = Recommender.load(target.path, self._config.service)
        assert recommender.info is not None
        if recommender.info.model_id != target.model_id:
            raise CheckpointError(
                f"{target.path} holds the model {recommender.info.model_id!r} and not {target.model_id!r}, which was activated: "
                "publish the one that is there, or bring the other back"
            )
        return recommender

    def _refuse(self, target: Target, exc: BERT4MusicRecError) -> None:
        """Tell what is wrong with a model, and remember it: the same files are not tried again.

        Everybody is told through the database, unless the files are just not there: that may be so on this machine alone.
        """
        log.error("a model was refused, what was in service stays: %s", exc)
        self.refusals.append(str(exc))
        self._refused[target] = _written_at(target.path)
        if target.model_id not in self._paths or not target.path.is_dir():
            return
        try:
            self._ask(functools.partial(refuse_model, model_id=target.model_id, reason=str(exc)))
        except DatabaseError as away:
            log.debug("the refusal could not be stored: %s", away)

    def _is_refused(self, target: Target) -> bool:
        return target in self._refused and self._refused[target] == _written_at(target.path)

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
        is_over = not self._is_unread and not self._config.service.catalogue_refresh_seconds
        if self._url is None or is_over or time.monotonic() < self._refresh_at:
            return
        main, challenger = self._live.recommender, self._live.challenger
        if main is None:
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
            self._is_unread, self._refresh_at = True, time.monotonic() + UNREAD_SECONDS
            return None
        self.catalogue_read_at = time.time()
        self._is_unread, self._refresh_at = False, time.monotonic() + self._config.service.catalogue_refresh_seconds
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
            self._introduce()
            self._ask(lambda connection: add_served(connection, served))
        except DatabaseError:
            self._live.tally.put_back(taken)
            self._introduced.clear()  # somebody may have removed them
            raise

    def _introduce(self) -> None:
        """Make all models that were in service known, so that feedback and answers can be traced to them."""
        strangers = [info.record() for model_id, info in self._infos.items() if model_id not in self._introduced]

        def introduce(connection: Connection) -> None:
            for model in strangers:
                introduce_model(connection, model)

        try:
            if strangers:
                self._ask(introduce)
                self._introduced |= {model.model_id for model in strangers}
        except DatabaseError as exc:
            log.warning("%s; models are made known when the database is back", exc)

    # --- the database --------------------------------------------------------------------------------------------------------

    def _ask(self, question: Callable[[Connection], Result]) -> Result | None:
        """One transaction; None where no database is configured.  Raises DatabaseError."""
        if self._url is None:
            return None
        try:
            with expected_errors():
                if self._connection is None:
                    timeout = self._config.database.connect_timeout_seconds
                    self._connection = connect(self._url, connect_timeout_seconds=timeout)
                    self._introduced.clear()  # it may be another database than before
                with self._connection.transaction():
                    return question(self._connection)
        except DatabaseError:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _written_at(checkpoint: Path) -> float:
    """When the newest of its files was written, those of its run included; 0 where there are none."""
    written = [0.0]
    for folder in (checkpoint, checkpoint.parent):
        try:
            written += [file.stat().st_mtime for file in folder.iterdir() if file.is_file()]
        except OSError:
            continue
    return max(written)
