"""The songs of one answer: the best of the catalogue, as the rules let them through.

The scorer gives the best songs, as many as the rules are likely to need (a pool); where that turns out too few, more of them,
until the rules are content or there are none left.  So an answer does not depend on how large the first pool was.  What keeps
songs out of the pool altogether (skips, plays, bounds) gives way afterwards, and only for the places that are left over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serving.answers import PreparedQuery
from serving.eligible import NO_SONGS
from serving.index import Ranked
from serving.rules import Pool, SongTraits, choose, pool_size
from serving.scoring import Scorer

WIDER = 8  # times larger, when a pool has held too few songs that the rules let through
NO_SCORES = np.zeros(0, np.float32)


@dataclass(frozen=True, kw_only=True)
class Picked:
    """Songs of an answer in their order."""

    numbers: np.ndarray  # (k,) int64
    scores: np.ndarray  # (k,) float32
    confidences: np.ndarray | None = None  # (k,) where they were asked for
    applied: tuple[str, ...] = ()
    relaxed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def followed_by(self, more: "Picked", relaxed: Sequence[str]) -> "Picked":
        """These songs, then others for which some rules gave way."""
        confidences = [part.confidences for part in (self, more) if part.confidences is not None]
        return Picked(
            numbers=np.concatenate([self.numbers, more.numbers]),
            scores=np.concatenate([self.scores, more.scores]),
            confidences=np.concatenate(confidences) if confidences else None,
            applied=tuple(dict.fromkeys([*self.applied, *more.applied])),
            relaxed=tuple(dict.fromkeys([*self.relaxed, *more.relaxed, *relaxed])),
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """The best songs for one context under given masks."""

    scorer: Scorer
    context: Any
    allowed: np.ndarray | None
    excluded: np.ndarray
    min_confidence: float

    def best(self, count: int) -> tuple[Pool, np.ndarray | None]:
        """The `count` best songs, and how probable each is where that bounds them."""
        [ranked] = self.scorer.top(self.context, [count], [self.excluded], [self.allowed])
        return self.pool(ranked, count)

    def pool(self, ranked: Ranked, count: int) -> tuple[Pool, np.ndarray | None]:
        """The best songs that were found when `count` were asked for, cut where they become improbable."""
        is_whole = len(ranked.numbers) < count
        if not self.min_confidence:
            return Pool(numbers=ranked.numbers, scores=ranked.scores, is_whole=is_whole), None
        [confidences] = self.scorer.confidences(self.context, [ranked])
        n = int((confidences >= self.min_confidence).sum())
        pool = Pool(numbers=ranked.numbers[:n], scores=ranked.scores[:n], is_whole=is_whole or n < len(confidences))
        return pool, confidences[:n]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A query with the best songs for it, out of which `pick` makes an answer."""

    query: PreparedQuery
    scorer: Scorer
    context: Any  # what the scorer has read of this query alone
    first: Ranked  # the first pool


def score(queries: Sequence[PreparedQuery], scorer: Scorer) -> list[Scored]:
    """Read the sequences of queries and find the first pool of each, all of them in one pass."""
    contexts = scorer.read([query.sequence.numbers for query in queries])
    masks, excluded = zip(*(query.eligible.without(()) for query in queries), strict=True)
    pools = scorer.top(contexts, [pool_size(query.rules) for query in queries], excluded, masks)
    return [
        Scored(query=query, scorer=scorer, context=contexts.part(slice(b, b + 1)), first=pool)
        for b, (query, pool) in enumerate(zip(queries, pools, strict=True))
    ]


def pick(scored: Scored, traits: SongTraits) -> Picked:
    """The songs of one answer."""
    query = scored.query
    steps = query.eligible.softened()
    search = _search(scored, steps[0], NO_SONGS)
    picked = _pick_from(search, query, query.sequence.numbers, query.rules.count, traits, scored.first)
    for given_up in steps[1:]:
        missing = query.rules.count - len(picked)
        if missing <= 0:
            break
        search = _search(scored, given_up, picked.numbers)
        more = _pick_from(search, query, np.concatenate([query.sequence.numbers, picked.numbers]), missing, traits)
        picked = picked.followed_by(more, given_up[-1:] if len(more) else ())
    return picked


def _search(scored: Scored, given_up: Sequence[str], taken: np.ndarray) -> Search:
    allowed, excluded = scored.query.eligible.without(given_up)
    return Search(
        scorer=scored.scorer,
        context=scored.context,
        allowed=allowed,
        excluded=np.concatenate([excluded, taken]),
        min_confidence=scored.query.rules.min_confidence,
    )


def _pick_from(
    search: Search, query: PreparedQuery, before: np.ndarray, count: int, traits: SongTraits, first: Ranked | None = None
) -> Picked:
    """Up to `count` songs to follow those `before`, from pools that are widened until the rules are content."""
    rules = replace(query.rules, count=count)
    size = pool_size(query.rules)
    pool, confidences = search.best(size) if first is None else search.pool(first, size)
    while (choice := choose(pool, before, traits, rules, np.random.default_rng(query.seed), recent=query.rules.count)) is None:
        size *= WIDER
        pool, confidences = search.best(size)
    return Picked(
        numbers=pool.numbers[choice.places],
        scores=pool.scores[choice.places],
        confidences=None if confidences is None else confidences[choice.places],
        applied=choice.applied,
        relaxed=choice.relaxed,
    )
