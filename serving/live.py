"""The recommenders in service: shared by all threads, replaced without dropping a request.

There may be two of them: a challenger answers for a share of the sequences, always the same ones.  A request that came in before
a swap is answered by the model that prepared it; the next one meets the new model.
"""

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from errors import RequestError, ServiceUnavailable
from serving.answers import Answer, Fallback, PreparedQuery, Query
from serving.batching import LARGEST_BATCH, MicroBatcher
from serving.controls import Controls
from serving.picking import Scored
from serving.popularity import RecommendedTally
from serving.reasons import SongId, plain_id
from serving.recommender import NOTHING_KNOWN, Recommender, Stage, untimed

log = logging.getLogger(__name__)

# What torch and numpy raise for a batch that they cannot compute.
SCORING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError)
NO_MODEL = "-"  # stands for the model in counts of answers that none had a part in


@dataclass(frozen=True, kw_only=True)
class _InService:
    """A recommender with the line of those who ask it."""

    recommender: Recommender
    batcher: MicroBatcher[PreparedQuery, Scored]


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Who answers: one reference, so that a reader never meets one model's batcher with another model's numbers."""

    main: _InService | None = None
    challenger: _InService | None = None
    share: float = 0.0

    def of(self, key: str) -> _InService | None:
        """The side that a sequence belongs to."""
        return self.challenger if self.challenger is not None and is_in_share(key, self.share) else self.main


class Tally:
    """Answers since the last look, by model and fallback."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._answers: Counter[tuple[str, str | None]] = Counter()
        self._songs: Counter[tuple[str, str | None]] = Counter()

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        kind = (answer.model.model_id if answer.model is not None else NO_MODEL, answer.fallback)
        with self._guard:
            self._answers[kind] += 1
            self._songs[kind] += len(answer.songs)

    def take(self) -> dict[tuple[str, str | None], tuple[int, int]]:
        """Answers and their songs by (model, fallback) since the last call."""
        with self._guard:
            answers, songs = self._answers, self._songs
            self._answers, self._songs = Counter(), Counter()
        return {kind: (n, songs[kind]) for kind, n in answers.items()}

    def put_back(self, taken: dict[tuple[str, str | None], tuple[int, int]]) -> None:
        """Count again what could not be stored."""
        with self._guard:
            for kind, (answers, songs) in taken.items():
                self._answers[kind] += answers
                self._songs[kind] += songs


class LiveRecommender:
    """Answers queries in micro-batches with whichever recommenders are in service."""

    def __init__(
        self,
        recommender: Recommender | None = None,
        *,
        stage: Stage = untimed,
        on_batch: Callable[[int], None] = lambda size: None,
        on_answer: Callable[[Answer], None] = lambda answer: None,
    ) -> None:
        """What measures: `stage` is told which part of answering takes how long, `on_batch` how many queries were scored
        together, `on_answer` of each answer that counts.
        """
        self._stage, self._on_batch, self._on_answer = stage, on_batch, on_answer
        self._sides = _Sides()
        self.tally = Tally()
        self.recommended = RecommendedTally()
        if recommender is not None:
            self.swap(recommender)

    @property
    def recommender(self) -> Recommender | None:
        """The recommender that answers unless a challenger does; None while no model is loaded."""
        return None if self._sides.main is None else self._sides.main.recommender

    @property
    def recommenders(self) -> list[Recommender]:
        """Those that are in service, none to two."""
        sides = self._sides
        return [side.recommender for side in (sides.main, sides.challenger) if side is not None]

    @property
    def name(self) -> str:
        """The id of the model in service."""
        recommender = self.recommender
        return NO_MODEL if recommender is None else model_id_of(recommender) or "counts"

    @property
    def challenger(self) -> tuple[Recommender, float] | None:
        """The other one and its share of the sequences."""
        sides = self._sides
        return None if sides.challenger is None else (sides.challenger.recommender, sides.share)

    def swap(self, recommender: Recommender, challenger: Recommender | None = None, share: float = 0.0) -> None:
        """Put a recommender into service, and a challenger for a share of the sequences beside it."""
        other = None if challenger is None else self._serve(challenger)
        self._sides = _Sides(main=self._serve(recommender), challenger=other, share=share)

    def pick(self, key: str) -> Recommender | None:
        """The recommender that answers for a sequence, by the key of `key_of`."""
        side = self._sides.of(key)
        return None if side is None else side.recommender

    def recommend(self, query: Query, key: str | None = None) -> Answer:
        """Answer one query, scored together with what other threads ask at the moment.

        `key` decides the side (see `key_of`).  Raises InvalidSequence, or ServiceUnavailable while no model is loaded.
        """
        side = self._side(key_of(query) if key is None else key)
        with self._stage("prepare"):
            prepared = side.recommender.prepare(query, max_songs=side.recommender.config.max_songs)
        answer = side.recommender.finish(side.batcher.submit(prepared), self._stage)
        self._count_own(answer)
        return answer

    def recommend_many(self, queries: Sequence[Query]) -> list[Answer | RequestError]:
        """Answer several queries; one that cannot be answered has its error in its place.

        Raises ServiceUnavailable while no model is loaded.
        """
        sides = [self._side(key_of(query)) for query in queries]
        outcomes: list[Answer | RequestError | None] = [None] * len(queries)
        prepared: dict[int, PreparedQuery] = {}
        for place, (query, side) in enumerate(zip(queries, sides, strict=True)):
            try:
                prepared[place] = side.recommender.prepare(query, max_songs=side.recommender.config.max_songs)
            except RequestError as exc:
                outcomes[place] = exc
        for side in {id(side): side for side in sides}.values():
            for places in _chunks([place for place in prepared if sides[place] is side]):
                scored = self._score(side.recommender, [prepared[place] for place in places])
                for place, one in zip(places, scored, strict=True):
                    outcomes[place] = answer = side.recommender.finish(one, self._stage)
                    self._count_own(answer)
        return [outcome for outcome in outcomes if outcome is not None]

    def score_together(self, recommender: Recommender, queries: Sequence[PreparedQuery]) -> list[Answer]:
        """Answer what one of the recommenders has prepared as one batch; whoever gives the answers away counts them (`count`).

        Raises what SCORING_ERRORS names.
        """
        self._on_batch(len(queries))
        return recommender.answer(queries, self._stage)

    def count(self, answer: Answer) -> None:
        """Count an answer that was given, in the figures of its model and wherever else answers are counted."""
        self.tally.add(answer)
        self._on_answer(answer)

    def _count_own(self, answer: Answer) -> None:
        """Count an answer that is stored nowhere, its songs as well; those of playlists are in the request table."""
        self.count(answer)
        main = self.recommender
        if main is not None:
            self.recommended.add(main.catalogue, answer)

    def similar(self, song_id: SongId, count: int) -> Answer:
        """The songs most like one; see Recommender.similar.  Raises UnknownSong, ServiceUnavailable."""
        return self._side("").recommender.similar(song_id, count)

    def why(
        self, songs: Sequence[SongId], song_id: SongId, listener: str | None = None
    ) -> tuple[str | None, list[float | None] | None]:
        """What each song of a sequence does for another song, with the id of the model that says so; see Recommender.why.

        Raises InvalidSequence, UnknownSong, ServiceUnavailable.
        """
        key = key_of(Query(songs=songs, controls=Controls(listener=listener)))
        recommender = self._side(key).recommender
        return model_id_of(recommender), recommender.why(songs, song_id)

    def search(self, text: str, count: int) -> list[dict[str, Any]]:
        """Songs whose title or artist holds all words of a text; see Recommender.search.  Raises ServiceUnavailable."""
        return self._side("").recommender.search(text, count)

    def look_up(self, ids: Sequence[SongId]) -> list[dict[str, Any]]:
        """What is known of some songs; see Recommender.look_up.  Raises InvalidSequence, ServiceUnavailable."""
        return self._side("").recommender.look_up(ids)

    def describe(self, ids: Sequence[SongId]) -> list[dict[str, Any]]:
        """What is known of each song of the database, as Recommender.describe says; nothing while no model is loaded."""
        recommender = self.recommender
        if recommender is None:
            return [{"song_id": plain_id(song_id), **NOTHING_KNOWN} for song_id in ids]
        return recommender.describe(ids)

    def state(self) -> dict[str, Any]:
        """What is in service, as plain values; empty while nothing is."""
        sides = self._sides
        if sides.main is None:
            return {}
        challenger = {}
        if sides.challenger is not None:
            challenger = {"challenger_id": model_id_of(sides.challenger.recommender), "challenger_share": sides.share}
        return {"model_id": model_id_of(sides.main.recommender), **challenger, **sides.main.recommender.state()}

    def _side(self, key: str) -> _InService:
        side = self._sides.of(key)
        if side is None:
            raise ServiceUnavailable("no model is loaded: train one and start the service with --model")
        return side

    def _serve(self, recommender: Recommender) -> _InService:
        for side in (self._sides.main, self._sides.challenger):
            if side is not None and side.recommender is recommender:
                return side  # with the line of those who are waiting
        log.info("a model is in service", extra={"fields": {"model_id": model_id_of(recommender) or "counts"}})
        batcher: MicroBatcher[PreparedQuery, Scored] = MicroBatcher(lambda queries: self._score(recommender, queries))
        return _InService(recommender=recommender, batcher=batcher)

    def _score(self, recommender: Recommender, queries: Sequence[PreparedQuery]) -> list[Scored]:
        """Score a batch; where the model cannot, what is popular is better than nothing, and says so."""
        self._on_batch(len(queries))
        try:
            return recommender.score(queries, self._stage)
        except SCORING_ERRORS:
            log.exception("scoring failed: %d sequences are answered with what is popular", len(queries))
        return recommender.score([replace(query, fallback=Fallback.POPULAR) for query in queries], self._stage)


def model_id_of(recommender: Recommender) -> str | None:
    """The id of its model; None where counts answer in place of one."""
    return None if recommender.info is None else recommender.info.model_id


def key_of(query: Query) -> str:
    """What a sequence is told by when it is asked about again and again: its listener, else its first song."""
    if query.controls.listener is not None:
        return query.controls.listener
    return str(query.songs[0]) if query.songs else ""


def is_in_share(key: str, share: float) -> bool:
    """Whether a key belongs to a share (0 to 1) of all keys; a larger share holds the smaller ones."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < share


def _chunks(places: Sequence[int]) -> Iterator[Sequence[int]]:
    return (places[first : first + LARGEST_BATCH] for first in range(0, len(places), LARGEST_BATCH))
