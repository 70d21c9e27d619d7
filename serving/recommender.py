"""A checkpoint with its encoders, ready to answer: a sequence of song ids in, ranked songs with reasons out.

A `Recommender` never changes once it is made, so any number of threads may use it and a newer one replaces it by reference
(`serving.live`).  Answering has two steps: `prepare` checks one query and turns ids into numbers, and raises what the caller
did wrong; `answer` scores any number of prepared queries as one batch and does not fail because of one of them.

Rules of every answer: PAD, MASK and UNKNOWN never appear, nor a song of the sequence, nor what the query excludes.  Songs that
the model does not know are left out of the context and reported; the newest `row_len` - 1 known songs are the context.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import torch

from config import FIRST_NUMBER, UNKNOWN, ServiceConfig
from engine.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from errors import EncoderError, InvalidSequence
from model import BERT4Rec
from preprocessing_utils import Encoders, load_encoders
from serving.index import Ranked, ScoringIndex, read_contexts
from serving.reasons import KnownSongs, Reason, ReasonKind, SongFacts, SongId, contributors, leave_one_out, plain_id, shared_facts


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sequence to continue, oldest song first, in the caller's own ids."""

    songs: Sequence[SongId]
    count: int | None = None  # None: ServiceConfig.count
    exclude: Sequence[SongId] = ()
    explain: bool = False  # also find the songs that the recommendation is because of


@dataclass(frozen=True, kw_only=True)
class PreparedQuery:
    """A query that was checked and can be scored by the recommender that prepared it."""

    sequence: KnownSongs  # all songs of the sequence that the model knows
    unknown: tuple[SongId, ...]
    excluded: np.ndarray  # song numbers, those of the sequence included
    count: int
    explain: bool


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Which model an answer comes from, and what it was made of."""

    model_id: str
    trained_at: datetime
    path: Path
    encoders_digest: str
    snapshot_digest: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """The part of it that an answer carries."""
        return {"model_id": self.model_id, "trained_at": self.trained_at.isoformat()}


@dataclass(frozen=True, kw_only=True)
class RecommendedSong:
    """One song of an answer; `score` is the model's logit, comparable within one answer only."""

    song_id: SongId
    rank: int
    score: float
    reasons: tuple[Reason, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for an answer."""
        reasons = [reason.as_json() for reason in self.reasons]
        return {"song_id": plain_id(self.song_id), "rank": self.rank, "score": self.score, "reasons": reasons}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Ranked songs, best first, and the ids of the query that the model does not know."""

    songs: tuple[RecommendedSong, ...]
    unknown: tuple[SongId, ...]
    model: ModelInfo

    def as_json(self) -> dict[str, Any]:
        """Plain values for an answer."""
        songs = [song.as_json() for song in self.songs]
        return {"songs": songs, "unknown": [plain_id(song_id) for song_id in self.unknown], "model": self.model.as_json()}


class Recommender:
    """A loaded model that answers queries.  Safe to share between threads: nothing in it changes."""

    def __init__(self, *, model: BERT4Rec, encoders: Encoders, info: ModelInfo, config: ServiceConfig) -> None:
        if model.n_songs != len(encoders.songs):
            raise EncoderError(
                f"the model knows {model.n_songs} song numbers and the encoders beside it {len(encoders.songs)}: "
                f"they do not belong together; train again or restore the run's encoders folder"
            )
        self.info = info
        self.config = config
        self._model = model.eval()
        self._encoders = encoders
        encoders.songs.encode(encoders.songs.decode([FIRST_NUMBER]))  # builds its look-up now rather than in the first request
        with torch.inference_mode():
            self._index = ScoringIndex(model.output_embeddings(), model.output_bias())
        catalogue = model.embedding
        self._facts = SongFacts.gather(
            catalogue.song_artist, catalogue.song_album, catalogue.song_features, encoders.features.feature_names
        )

    @classmethod
    def load(cls, path: Path, config: ServiceConfig) -> "Recommender":
        """Load a checkpoint, a run (its best checkpoint) or a folder of runs (the newest one).

        Raises CheckpointError or EncoderError, with nothing unpickled that does not match the checkpoint's digests.
        """
        checkpoint = load_checkpoint(find_checkpoint(path))
        encoders = load_encoders(checkpoint.encoders_folder, checkpoint.encoders_digest)
        return cls(model=checkpoint.model, encoders=encoders, info=_info_of(checkpoint), config=config)

    @property
    def n_songs(self) -> int:
        """Songs that can be recommended."""
        return len(self._index) - FIRST_NUMBER

    def example_songs(self, n: int) -> list[SongId]:
        """The ids of the n songs that occur most often in training, to show what a request looks like."""
        return self._encoders.songs.decode(range(FIRST_NUMBER, FIRST_NUMBER + min(n, self.n_songs)))

    def id_from(self, text: str) -> SongId:
        """The song id that a text of the command line or of a file means, in the type that the catalogue has.

        Raises InvalidSequence for a text that is no id of that type.
        """
        id_type = self._encoders.songs.id_type
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
            return int(text) if self._encoders.songs.id_type == "int" else text
        except ValueError:
            return text

    def recommend(self, ids: Sequence[SongId], count: int | None = None, exclude: Sequence[SongId] = ()) -> Answer:
        """Continue one sequence; see `recommend_many`."""
        return self.recommend_many([Query(songs=ids, count=count, exclude=exclude)])[0]

    def recommend_many(self, queries: Sequence[Query]) -> list[Answer]:
        """Continue several sequences, scored as one batch.  Raises InvalidSequence for the first one that cannot be."""
        return self.answer([self.prepare(query, max_songs=self.config.max_songs) for query in queries])

    def prepare(self, query: Query, *, max_songs: int | None = None) -> PreparedQuery:
        """Check a query and turn its ids into numbers.

        `max_songs` None takes a sequence of any length: only its newest songs cost anything.  Raises InvalidSequence for a
        sequence that is empty, too long, of unknown songs only, or of another id type than the model was trained on.
        """
        count = checked_count(query.count, self.config)
        if not query.songs:
            raise InvalidSequence("the sequence is empty: send at least one song")
        if max_songs is not None and len(query.songs) > max_songs:
            raise InvalidSequence(
                f"the sequence has {len(query.songs)} songs, over max_songs ({max_songs}): send its newest songs only"
            )
        encoder = self._encoders.songs
        numbers = encoder.encode(query.songs).astype(np.int64)
        known = numbers != UNKNOWN
        if not known.any():
            raise InvalidSequence(
                f"none of the {len(query.songs)} songs is known to the model, the first is {plain_id(query.songs[0])!r}: "
                f"send songs of the catalogue that it was trained on"
            )
        return PreparedQuery(
            sequence=KnownSongs(numbers=numbers[known], ids=tuple(itertools.compress(query.songs, known))),
            unknown=tuple(dict.fromkeys(itertools.compress(query.songs, ~known))),
            excluded=np.unique(np.concatenate([numbers, encoder.encode(query.exclude)])),
            count=count,
            explain=query.explain,
        )

    def answer(self, queries: Sequence[PreparedQuery]) -> list[Answer]:
        """Score prepared queries as one batch; the answers come in their order."""
        if not queries:
            return []
        contexts = read_contexts(self._model, [query.sequence.numbers for query in queries], self._model.row_len)
        with torch.inference_mode():
            ranked = self._index.top(contexts, [query.count for query in queries], [query.excluded for query in queries])
        return [self._answer(query, best) for query, best in zip(queries, ranked, strict=True)]

    def _answer(self, query: PreparedQuery, best: Ranked) -> Answer:
        ids = self._encoders.songs.decode(best.numbers)
        scores = best.scores.tolist()
        reasons = self._reasons(query, best.numbers)
        songs = tuple(
            RecommendedSong(song_id=song_id, rank=rank, score=score, reasons=why)
            for rank, (song_id, score, why) in enumerate(zip(ids, scores, reasons, strict=True), start=1)
        )
        return Answer(songs=songs, unknown=query.unknown, model=self.info)

    def _reasons(self, query: PreparedQuery, songs: np.ndarray) -> list[tuple[Reason, ...]]:
        found = [shared_facts(self._facts, query.sequence, int(song)) for song in songs]
        if query.explain and len(songs):
            context, newest = (query.sequence.last(n - 1) for n in (self._model.row_len, self._model.config.seq_len))
            weights = leave_one_out(self._model, self._index, context.numbers, songs, len(newest))  # (n, k)
            found = [contributors(newest, column) + shared for column, shared in zip(weights.T, found, strict=True)]
        return [tuple(reasons) or (Reason(kind=ReasonKind.WHOLE_SEQUENCE),) for reasons in found]


def checked_count(count: int | None, config: ServiceConfig) -> int:
    """How many songs to recommend: the setting's number when the query names none.  Raises InvalidSequence out of bounds."""
    count = config.count if count is None else count
    if not 1 <= count <= config.max_count:
        raise InvalidSequence(f"count must be between 1 and {config.max_count} (got {count})")
    return count


def _info_of(checkpoint: Checkpoint) -> ModelInfo:
    return ModelInfo(
        model_id=checkpoint.model_id,
        trained_at=checkpoint.trained_at,
        path=checkpoint.path,
        encoders_digest=checkpoint.encoders_digest,
        snapshot_digest=checkpoint.snapshot_digest,
        settings=checkpoint.settings,
        metrics=checkpoint.metrics,
    )
