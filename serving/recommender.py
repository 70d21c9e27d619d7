"""A checkpoint with its encoders and its catalogue, ready to answer: a sequence of song ids in, ranked songs with reasons out.

A `Recommender` never changes once it is made, so any number of threads may use it and a newer one replaces it by reference
(`serving.live`).  Answering has two steps: `prepare` checks one query and turns ids into numbers, and raises what the caller
did wrong; `answer` scores any number of prepared queries as one batch and does not fail because of one of them.

An answer takes the best songs of the catalogue among those that may be recommended at all (`serving.eligible`), as far as the
rules let them through (`serving.picking`).  PAD, MASK and UNKNOWN never appear, nor a song of the sequence, nor what the query
excludes.  Songs of which nothing is known are left out of the context and reported; the newest `row_len` - 1 other songs are the
context.
"""

import functools
import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import numpy as np

from config import FIRST_NUMBER, UNKNOWN, ServiceConfig
from encoder_files import Encoders, load_encoders
from engine.checkpoint import Checkpoint, load_checkpoint
from engine.runs import find_checkpoint
from errors import EncoderError, InvalidSequence, UnknownSong
from model import BERT4Rec
from preprocessing_utils import IdEncoder
from serving.answers import Answer, Fallback, ModelInfo, PreparedQuery, Query, RecommendedSong, SongList
from serving.catalogue import SongCatalogue, SongRows
from serving.controls import Controls, Rules
from serving.eligible import NO_SONGS, Editions, Eligible, allowed_songs, within
from serving.fallback import CountScorer, popular_scores
from serving.picking import Picked, Scored, pick, score
from serving.reasons import KnownSongs, Reason, ReasonKind, SongFacts, SongId, contributors, plain_id, shared_facts
from serving.scoring import DenseScorer, ModelScorer, Scorer
from snapshot import Snapshot
from storage.catalogue import SongCard

Stage = Callable[[str], AbstractContextManager[None]]

NOTHING_KNOWN: Mapping[str, Any] = {"title": None, "artist": None, "album": None, "features": {}}


def untimed(stage: str) -> AbstractContextManager[None]:
    """Stands in where nobody measures how long a stage takes."""
    return nullcontext()


class Recommender:
    """A loaded model, or counts in its place, that answers queries.  Safe to share between threads: nothing in it changes."""

    def __init__(
        self,
        *,
        scores_by: ModelScorer | CountScorer,
        catalogue: SongCatalogue,
        info: ModelInfo | None,
        config: ServiceConfig,
        origin: "Recommender | None" = None,
    ) -> None:
        """`info` None goes with counts.  `origin` is the recommender as it was loaded, of which this one knows more songs."""
        self.info = info
        self.config = config
        self.catalogue = catalogue
        self.model_scorer = scores_by if isinstance(scores_by, ModelScorer) else None
        self._scores_by = scores_by
        self._origin = origin
        self._songs = catalogue.songs
        self._songs.encode(self._songs.decode([FIRST_NUMBER]))  # builds its look-up now rather than in the first request
        self._scorer: Scorer = scores_by if isinstance(scores_by, ModelScorer) else DenseScorer(scores_by.score)
        self._popular = DenseScorer(functools.partial(_popular_scores, catalogue))
        self._in_training = scores_by.in_training()
        self._editions = Editions.of(catalogue.recordings)
        self._filters: WeakKeyDictionary[SongList, np.ndarray] = WeakKeyDictionary()
        self._facts = SongFacts.of(catalogue)

    @classmethod
    def of(cls, model: BERT4Rec, encoders: Encoders, info: ModelInfo, config: ServiceConfig) -> "Recommender":
        """A model with its encoders, without a database.  Raises EncoderError where they do not belong together."""
        if model.n_songs != len(encoders.songs):
            raise EncoderError(
                f"the model knows {model.n_songs} song numbers and the encoders beside it {len(encoders.songs)}: "
                f"they do not belong together; train again or restore the run's encoders folder"
            )
        scorer = ModelScorer(model, config.index)
        return cls(scores_by=scorer, catalogue=SongCatalogue.of_model(model, encoders), info=info, config=config)

    @classmethod
    def of_counts(cls, snapshot: Snapshot, encoders: Encoders, config: ServiceConfig) -> "Recommender":
        """What stands in for a model while there is none.  Raises EncoderError where the two do not belong together."""
        catalogue = SongCatalogue.of_snapshot(snapshot, encoders)
        return cls(scores_by=CountScorer.of(snapshot, encoders), catalogue=catalogue, info=None, config=config)

    @classmethod
    def load(cls, path: Path, config: ServiceConfig) -> "Recommender":
        """Load a checkpoint, a run (its best checkpoint) or a folder of runs (the newest one).

        Raises CheckpointError or EncoderError, with nothing unpickled that does not match the checkpoint's digests.
        """
        checkpoint = load_checkpoint(find_checkpoint(path))
        encoders = load_encoders(checkpoint.encoders_folder, checkpoint.encoders_digest)
        return cls.of(checkpoint.model, encoders, _info_of(checkpoint), config)

    @property
    def n_songs(self) -> int:
        """Songs that can be recommended."""
        return int(self.catalogue.is_available.sum())

    # --- ids -----------------------------------------------------------------------------------------------------------------

    def example_songs(self, n: int) -> list[SongId]:
        """The ids of the n songs that occur most often in training, to show what a request looks like."""
        return self._songs.decode(range(FIRST_NUMBER, min(FIRST_NUMBER + n, len(self._songs))))

    def id_from(self, text: str) -> SongId:
        """The song id that a text of the command line or of a file means, in the type that the catalogue has.

        Raises InvalidSequence for a text that is no id of that type.
        """
        id_type = self._songs.id_type
        try:
            return int(text) if id_type == "int" else UUID(text) if id_type == "uuid" else text
        except ValueError as exc:
            wanted = "whole numbers" if id_type == "int" else "uuids"
            raise InvalidSequence(f"song ids are {wanted} here (got {text!r}): send ids of the catalogue") from exc

    def plain_id_from(self, text: str) -> int | str:
        """A song id that went through a text column, as JSON shows it when it comes from the model itself.

        An id that is no number in a catalogue of numbers, as an earlier model may have left it behind, stays as it is.
        """
        try:
            return int(text) if self._songs.id_type == "int" else text
        except ValueError:
            return text

    def typed(self, ids: Sequence[SongId]) -> list[SongId]:
        """Ids as a body holds them, in the type that the catalogue has.  Raises InvalidSequence for those of another one."""
        self._songs.check_type(ids)
        return [UUID(id_) if self._songs.id_type == "uuid" and isinstance(id_, str) else id_ for id_ in ids]

    def cards(self, ids: Sequence[SongId]) -> dict[SongId, SongCard]:
        """What is known of those songs that are in the catalogue, without asking the database.

        Raises InvalidSequence for ids of another type than the catalogue's.
        """
        numbers = self._songs.encode(ids)
        return {id_: _card(id_, self.catalogue.describe(int(n))) for id_, n in zip(ids, numbers, strict=True) if n != UNKNOWN}

    def songs_named(self, texts: Iterable[str]) -> np.ndarray:
        """The numbers of song ids that went through a text column; what is no id of this catalogue is passed over."""
        return _known_numbers(self._songs, texts)

    # --- answering -----------------------------------------------------------------------------------------------------------

    def recommend(self, ids: Sequence[SongId], controls: Controls | None = None) -> Answer:
        """Continue one sequence; see `recommend_many`."""
        return self.recommend_many([Query(songs=ids, controls=controls or Controls())])[0]

    def recommend_many(self, queries: Sequence[Query]) -> list[Answer]:
        """Continue several sequences, scored as one batch.  Raises InvalidSequence for the first one that cannot be."""
        return self.answer([self.prepare(query, max_songs=self.config.max_songs) for query in queries])

    def prepare(self, query: Query, *, max_songs: int | None = None) -> PreparedQuery:
        """Check a query and turn its ids into numbers.

        `max_songs` None takes a sequence of any length: only its newest songs cost anything.  Raises InvalidSequence for a
        sequence that is empty, too long or of another id type than the model was trained on, and for controls out of bounds.
        """
        rules = Rules.of(query.controls, self.config)
        if not query.songs:
            raise InvalidSequence("the sequence is empty: send at least one song")
        if max_songs is not None and len(query.songs) > max_songs:
            raise InvalidSequence(
                f"the sequence has {len(query.songs)} songs, over max_songs ({max_songs}): send its newest songs only"
            )
        numbers = self._songs.encode(query.songs).astype(np.int64)
        known = numbers != UNKNOWN
        unavailable = () if rules.allow_explicit or "explicit" in self.catalogue.features else ("allow_explicit",)
        sequence = KnownSongs(numbers=numbers[known], ids=tuple(itertools.compress(query.songs, known)))
        return PreparedQuery(
            sequence=sequence,
            unknown=tuple(dict.fromkeys(itertools.compress(query.songs, ~known))),
            eligible=self._eligible(query, rules, sequence.numbers),
            applied=tuple(name for name in _applied(query, rules) if name not in unavailable),
            rules=rules,
            seed=secrets.randbelow(2**53) if rules.seed is None and rules.temperature else rules.seed or 0,
            fallback=self._fallback(sequence.numbers),
            unavailable=(*query.unavailable, *unavailable),
            explain=query.controls.explain,
        )

    def answer(self, queries: Sequence[PreparedQuery], stage: Stage = untimed) -> list[Answer]:
        """Answer prepared queries, scored as one batch; the answers come in their order.  `stage` is told of each part."""
        return [self.finish(scored, stage) for scored in self.score(queries, stage)]

    def score(self, queries: Sequence[PreparedQuery], stage: Stage = untimed) -> list[Scored]:
        """The first part of answering, for many queries at once; `finish` does the rest for each.  `stage` is told of it."""
        by_scorer: dict[bool, list[int]] = {False: [], True: []}
        for place, query in enumerate(queries):
            by_scorer[query.fallback is Fallback.POPULAR].append(place)
        scored: dict[int, Scored] = {}
        with stage("score"):
            for is_popular, places in by_scorer.items():
                if places:
                    scorer = self._popular if is_popular else self._scorer
                    scored.update(zip(places, score([queries[place] for place in places], scorer), strict=True))
        return [scored[place] for place in range(len(queries))]

    def finish(self, scored: Scored, stage: Stage = untimed) -> Answer:
        """The answer to a query that `score` has scored."""
        with stage("rules"):
            picked = pick(scored, self.catalogue)
        with stage("reasons"):
            query = scored.query
            return Answer(
                songs=self._worded(picked, self._reasons(query, picked.numbers)),
                unknown=query.unknown,
                model=None if query.fallback is Fallback.POPULAR else self.info,
                fallback=query.fallback,
                applied=(*query.applied, *picked.applied),
                relaxed=picked.relaxed,
                unavailable=query.unavailable,
                seed=query.seed if query.rules.temperature else None,
                n_sent=len(query.sequence.ids) + len(query.unknown),
            )

    def similar(self, song_id: SongId, count: int) -> Answer:
        """The songs most like one, by the cosine of their embeddings, without any rules.  Raises UnknownSong, InvalidSequence.

        Without a model: those that stand together with it most often.
        """
        rules = Rules.of(Controls(count=count), self.config)
        [number] = self._songs.encode([song_id]).tolist()
        if number == UNKNOWN:
            raise UnknownSong(f"no song {plain_id(song_id)!r} in the catalogue")
        if self.model_scorer is None:
            song = np.array([number])
            [ranked] = self._scorer.top(self._scorer.read([song]), [rules.count], [song], [self.catalogue.availability])
        else:
            ranked = self.model_scorer.similar(number, rules.count, self.catalogue.availability)
        sequence = KnownSongs(numbers=np.array([number]), ids=(song_id,))
        shared = shared_facts(self._facts, sequence, ranked.numbers)
        reasons = [tuple(facts) for facts in shared]
        songs = self._worded(Picked(numbers=ranked.numbers, scores=ranked.scores), reasons)
        return Answer(songs=songs, unknown=(), model=self.info, fallback=self._fallback(sequence.numbers))

    def why(self, ids: Sequence[SongId], song_id: SongId) -> list[float | None] | None:
        """By how many score points the lead of a song falls without each song of a sequence, in the order of the sequence.

        None within for songs that the model does not read: unknown ones, and all but the newest `explained_songs`.  None alone
        where no model speaks for the song: there is none, or it knows no song of the sequence.  Raises UnknownSong, and
        InvalidSequence as `prepare` does.
        """
        query = self.prepare(Query(songs=ids, controls=Controls()), max_songs=self.config.max_songs)
        [number] = self._songs.encode([song_id]).tolist()
        if number == UNKNOWN:
            raise UnknownSong(f"no song {plain_id(song_id)!r} in the catalogue")
        if self.model_scorer is None or query.fallback is Fallback.POPULAR:
            return None
        falls = self.model_scorer.leave_one_out(query.sequence.numbers, np.array([number]))[:, 0]
        places = np.flatnonzero(self._songs.encode(ids) != UNKNOWN)[-len(falls) :]
        read = dict(zip(places.tolist(), falls.tolist(), strict=True))
        return [read.get(place) for place in range(len(ids))]

    def search(self, text: str, count: int) -> list[dict[str, Any]]:
        """Songs whose title or artist holds all words of a text, the best matches first, as plain values.

        Raises InvalidSequence for a count out of bounds.
        """
        numbers = self.catalogue.search(text, Rules.of(Controls(count=count), self.config).count)
        ids = map(plain_id, self._songs.decode(numbers))
        return [{"song_id": song_id} | self.catalogue.describe(int(n)) for song_id, n in zip(ids, numbers, strict=True)]

    def look_up(self, ids: Sequence[SongId]) -> list[dict[str, Any]]:
        """What is known of some songs, as plain values in the order asked; unknown ones are left out.

        Raises InvalidSequence for ids of another type than the catalogue's.
        """
        numbers = self._songs.encode(ids)
        return [self._described(song_id, int(n)) for song_id, n in zip(ids, numbers, strict=True) if n != UNKNOWN]

    def describe(self, ids: Sequence[SongId]) -> list[dict[str, Any]]:
        """What is known of each of some songs of the database, as plain values; of one that is not known, its id alone."""
        try:
            numbers = self._songs.encode(ids)
        except InvalidSequence:  # the database has come to another type of ids than the model has
            numbers = np.full(len(ids), UNKNOWN)
        return [self._described(song_id, int(n)) for song_id, n in zip(ids, numbers, strict=True)]

    def _described(self, song_id: SongId, number: int) -> dict[str, Any]:
        return {"song_id": plain_id(song_id), **(NOTHING_KNOWN if number == UNKNOWN else self.catalogue.describe(number))}

    def state(self) -> dict[str, Any]:
        """How many songs it knows and how it finds them, as plain values."""
        return {
            "songs": self.n_songs,
            "new_songs": len(self._songs) - len((self._origin or self).catalogue),
            "index": None if self.model_scorer is None else self.model_scorer.index.name,
        }

    def with_songs(self, rows: SongRows) -> "Recommender":
        """The same with names, features and new songs as the database has them; new songs can be recommended by their parts.

        Raises EncoderError where the songs are not those of the model.
        """
        origin = self._origin or self
        catalogue = SongCatalogue.of(origin.catalogue, rows)
        return Recommender(
            scores_by=_grown(origin._scores_by, catalogue), catalogue=catalogue, info=self.info, config=self.config, origin=origin
        )

    # --- one query -----------------------------------------------------------------------------------------------------------

    def _fallback(self, numbers: np.ndarray) -> Fallback | None:
        """What can be said of a sequence of these known songs."""
        in_training = bool(self._in_training[numbers].any())
        if self.model_scorer is not None and numbers.size:
            return None if in_training else Fallback.CONTENT
        return Fallback.COOCCURRENCE if in_training else Fallback.POPULAR

    def _eligible(self, query: Query, rules: Rules, sequence: np.ndarray) -> Eligible:
        in_ranges, maybe_in_ranges = within(rules.ranges, self.catalogue.features)
        only = [] if query.controls.only is None else [self._songs.encode(query.controls.only)]
        if query.filtered is not None:
            only.append(self._numbers_of(query.filtered))
        hard = allowed_songs(
            len(self._songs),
            rules,
            available=self.catalogue.is_available,
            explicit=self.catalogue.features.get("explicit"),
            artists=self.catalogue.artists,
            only=only,
            blocked_artists=self._artists_named(query.taste.never_artists),
        )
        excluded = [sequence, self._songs.encode(query.controls.exclude), self.songs_named(query.taste.never)]
        # Whoever never wants to hear a song again does not want its remaster either.
        and_editions = self._editions.of_songs if rules.one_per_recording else np.unique
        return Eligible(
            hard=hard,
            excluded=and_editions(np.concatenate(excluded).astype(np.int64)),
            skipped=and_editions(self.songs_named(query.taste.skipped)),
            played=and_editions(self.songs_named(query.taste.played)) if rules.exclude_played_days else NO_SONGS,
            in_ranges=in_ranges,
            maybe_in_ranges=maybe_in_ranges,
        )

    def _numbers_of(self, listed: SongList) -> np.ndarray:
        """The numbers of a filter's songs, looked up once for as long as the list is kept."""
        numbers = self._filters.get(listed)
        if numbers is None:
            numbers = self._filters[listed] = self._songs.encode(listed.ids)
        return numbers

    def _artists_named(self, texts: Iterable[str]) -> np.ndarray:
        return _known_numbers(self.catalogue.encoders.artists, texts)

    # --- one answer -----------------------------------------------------------------------------------------------------------

    def _worded(self, picked: Picked, reasons: Sequence[tuple[Reason, ...]]) -> tuple[RecommendedSong, ...]:
        ids = self._songs.decode(picked.numbers)
        confidences = [None] * len(ids) if picked.confidences is None else picked.confidences.tolist()
        return tuple(
            RecommendedSong(song_id=song_id, rank=rank, score=score, reasons=why, confidence=confidence)
            for rank, (song_id, score, why, confidence) in enumerate(
                zip(ids, picked.scores.tolist(), reasons, confidences, strict=True), start=1
            )
        )

    def _reasons(self, query: PreparedQuery, songs: np.ndarray) -> list[tuple[Reason, ...]]:
        if query.fallback is Fallback.POPULAR:
            return [(Reason(kind=ReasonKind.POPULAR),)] * len(songs)
        found = shared_facts(self._facts, query.sequence, songs)
        if query.explain and len(songs) and self.model_scorer is not None:
            newest = query.sequence.last(self.model_scorer.explained_songs)
            weights = self.model_scorer.leave_one_out(query.sequence.numbers, songs)  # (n, k)
            found = [contributors(newest, column) + shared for column, shared in zip(weights.T, found, strict=True)]
        return [tuple(reasons) or (Reason(kind=ReasonKind.WHOLE_SEQUENCE),) for reasons in found]


def _card(song_id: SongId, known: Mapping[str, Any]) -> SongCard:
    duration_ms = known["features"].get("duration_ms")
    return SongCard(
        song_id=song_id,
        title=known["title"],
        artist=known["artist"],
        album=known["album"],
        duration_ms=None if duration_ms is None else round(duration_ms),
    )


def _popular_scores(catalogue: SongCatalogue, prefixes: Sequence[np.ndarray]) -> np.ndarray:
    return np.repeat(popular_scores(catalogue)[None], len(prefixes), axis=0)


def _applied(query: Query, rules: Rules) -> tuple[str, ...]:
    """The names of what keeps single songs out of an answer; rules about songs together are named by `serving.rules`."""
    controls, taste = query.controls, query.taste
    in_force = {
        "exclude": bool(controls.exclude),
        "never_again": bool(taste.never or taste.never_artists),
        "skipped": bool(taste.skipped),
        "exclude_played_days": rules.exclude_played_days > 0,
        "ranges": bool(rules.ranges),
        "allow_explicit": not rules.allow_explicit,
        "only": controls.only is not None,
        "filter": controls.filter is not None,
        "min_confidence": rules.min_confidence > 0,
    }
    return tuple(name for name, is_so in in_force.items() if is_so)


def _grown(scores_by: ModelScorer | CountScorer, catalogue: SongCatalogue) -> ModelScorer | CountScorer:
    """What scores all songs of a catalogue: the same where there are no new ones."""
    if isinstance(scores_by, CountScorer):
        return scores_by.grown(len(catalogue))
    model = catalogue.grown(scores_by.model)
    return scores_by if model is scores_by.model else ModelScorer(model, scores_by.index.name)


def _known_numbers(encoder: IdEncoder, texts: Iterable[str]) -> np.ndarray:
    """The numbers of ids that went through a text column, without those that the encoder does not know."""
    ids = [id_ for text in texts if (id_ := _id_of(encoder, text)) is not None]
    numbers = encoder.encode(ids).astype(np.int64)
    return numbers[numbers >= FIRST_NUMBER]


def _id_of(encoder: IdEncoder, text: str) -> SongId | None:
    try:
        return int(text) if encoder.id_type == "int" else UUID(text) if encoder.id_type == "uuid" else text
    except ValueError:
        return None


def _info_of(checkpoint: Checkpoint) -> ModelInfo:
    return ModelInfo(
        model_id=checkpoint.model_id,
        trained_at=checkpoint.trained_at,
        path=checkpoint.path.resolve(),
        encoders_digest=checkpoint.encoders_digest,
        snapshot_digest=checkpoint.snapshot_digest,
        settings=checkpoint.settings,
        metrics=checkpoint.metrics,
    )
