"""The recommender in service: shared by all threads, replaced without dropping a request.

A request that came in before a swap is answered by the model that prepared it; the next one meets the new model.
"""

import logging

from errors import ServiceUnavailable
from serving.batching import MicroBatcher
from serving.recommender import Answer, PreparedQuery, Query, Recommender

log = logging.getLogger(__name__)


class LiveRecommender:
    """Answers queries in micro-batches with whichever recommender is in service."""

    def __init__(self, recommender: Recommender | None = None) -> None:
        # One reference to a pair, so that a reader never meets one model's batcher with another model's numbers.
        self._in_service: tuple[Recommender, MicroBatcher[PreparedQuery, Answer]] | None = None
        if recommender is not None:
            self.swap(recommender)

    @property
    def recommender(self) -> Recommender | None:
        """The recommender in service, None while no model is loaded."""
        in_service = self._in_service
        return None if in_service is None else in_service[0]

    def swap(self, recommender: Recommender) -> None:
        """Put a recommender into service."""
        self._in_service = (recommender, MicroBatcher(recommender.answer))
        log.info("a model is in service", extra={"fields": {"model_id": recommender.info.model_id}})

    def recommend(self, query: Query) -> Answer:
        """Answer one query, scored together with what other threads ask at the moment.

        Raises InvalidSequence, or ServiceUnavailable while no model is loaded.
        """
        in_service = self._in_service
        if in_service is None:
            raise ServiceUnavailable("no model is loaded: train one and start the service with --model")
        recommender, batcher = in_service
        return batcher.submit(recommender.prepare(query, max_songs=recommender.config.max_songs))
