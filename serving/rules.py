"""Which of the best songs an answer holds, and in which order: bounds per artist, one edition per recording, taste for discovery.

The index hands over a pool, the best songs under all bounds that a single song keeps or breaks (excluded, explicit, ranges).
What is judged here depends on the other songs of the answer.  Songs are taken greedily, best first; nothing is found by looking
further down than needed, so the answer does not depend on how large the pool is: a pool that ends too early is asked to be
widened, and only when the whole catalogue has been looked at, rules give way.

Steps of `choose`: re-rank the best songs (discovery, temperature), take them one by one (recordings, bound per artist, spacing),
arrange them (flow).

Letters: V songs of the catalogue, n songs of the pool, s songs of the sequence, k songs of the answer.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from config import FIRST_NUMBER
from serving.controls import Rules
from serving.flow import Sound, in_flow_order

FLOW_FEATURES = ("tempo", "key", "mode")
# How many of the best songs discovery and temperature re-rank: the songs behind them are hardly meant.
SMALLEST_REORDERED_POOL, REORDERED_PER_SONG = 200, 10
# At discovery 0 or 1, a standard deviation of popularity weighs as much as two of the score; at 0.25 and 0.75 as much as one.
DISCOVERY_STRENGTH = 2.0
# What an artist who stands in the sequence takes from a song's novelty, in standard deviations of popularity.
HEARD_ARTIST = 1.0


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The best songs under all other bounds, none twice, by falling score; `is_whole` when the catalogue has no further ones."""

    numbers: np.ndarray  # (n,) int64
    scores: np.ndarray  # (n,) float32, finite
    is_whole: bool


class SongTraits(Protocol):
    """What rules look at, by song number."""

    @property
    def artists(self) -> np.ndarray:
        """Artist numbers (V,); below FIRST_NUMBER where unknown."""
        ...

    @property
    def recordings(self) -> np.ndarray:
        """(V,) integers, the same for all editions of a recording."""
        ...

    @property
    def popularity(self) -> np.ndarray:
        """(V,) counts, 0 or more; 0 for new songs."""
        ...

    @property
    def features(self) -> Mapping[str, np.ndarray]:
        """Columns (V,) in raw units, NaN where unknown; used are tempo, key and mode, where there are such."""
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The songs of an answer, and the rules behind them under the names of their controls."""

    places: np.ndarray  # (k,) int64 indices into the pool, in final order
    applied: tuple[str, ...]  # rules in force, whether or not this pool gave them anything to do
    relaxed: tuple[str, ...]  # those of them that the answer does not keep, in the order in which they gave way


def pool_size(rules: Rules) -> int:
    """How many songs a pool should hold at least; a smaller one that is not whole is sent back when songs are re-ranked.

    Without re-ranking that is a guess: half the songs may break a rule before the pool has to be widened.
    """
    return _n_reordered(rules) if _reorders(rules) else 2 * rules.count + 20


def choose(
    pool: Pool, sequence: np.ndarray, traits: SongTraits, rules: Rules, rng: np.random.Generator, *, recent: int | None = None
) -> Choice | None:
    """Pick `rules.count` songs out of a pool to follow a sequence (s,) of song numbers, oldest first, specials allowed.

    None asks for a wider pool: fewer than `count` songs keep the rules, or there are too few to re-rank.  Out of a whole pool the
    answer is as long as it can be.  Songs of one artist are bounded by `max_per_artist`; an artist who stands among the newest
    `recent` songs of the sequence (None: `count`) counts as one song more.  Between two of them stand `artist_spacing` songs by
    others, the end of the sequence counted, and a song that would come too soon is postponed to the first place that is far
    enough.  Of each recording only the best-ranked song may come, and none that stands in the sequence.  Songs of unknown artists
    are bound by none of the rules for artists.

    Rules give way only in a whole pool that has too few songs, and only behind what the strict rules found.  First spacing: where
    no song is far enough, the one comes whose artist was heard the longest ago.  Then the bound per artist, raised by one at a
    time until the songs suffice.  Recordings never come twice.

    `rng` is drawn from only with a temperature, once for each re-ranked song, whatever the pool's size.
    """
    if _reorders(rules) and not pool.is_whole and len(pool.numbers) < _n_reordered(rules):
        return None
    ranking = _reordered(pool, sequence, traits, rules, rng) if _reorders(rules) else None
    numbers = pool.numbers if ranking is None else pool.numbers[ranking]
    line = _Line.after(sequence, traits.artists[numbers].tolist(), traits, rules)
    newest = sequence[max(0, len(sequence) - (rules.count if recent is None else recent)) :]
    _fill(line, numbers, sequence, newest, traits, rules, may_relax=pool.is_whole)
    if len(line.ranks) < rules.count and not pool.is_whole:
        return None
    ranks = np.array(line.ranks, np.int64)
    if rules.order == "flow" and len(ranks) > 1:
        ranks = ranks[_flow(numbers[ranks], sequence, traits, line)]
    gave_way = {"artist_spacing": line.is_stretched and not line.keeps_spacing(ranks), "max_per_artist": line.is_over_bound}
    return Choice(
        places=ranks if ranking is None else ranking[ranks],
        applied=_in_force(rules),
        relaxed=tuple(name for name, is_so in gave_way.items() if is_so),
    )


def _in_force(rules: Rules) -> tuple[str, ...]:
    """Names of the controls that can change an answer; a neutral discovery and the order by score do not."""
    in_force = {
        "max_per_artist": rules.max_per_artist > 0,
        "artist_spacing": rules.artist_spacing > 0,
        "one_per_recording": rules.one_per_recording,
        "discovery": rules.discovery not in (None, 0.5),
        "temperature": rules.temperature > 0,
        "order": rules.order == "flow",
    }
    return tuple(name for name, is_so in in_force.items() if is_so)


def _reorders(rules: Rules) -> bool:
    return rules.temperature > 0 or rules.discovery not in (None, 0.5)


def _n_reordered(rules: Rules) -> int:
    return max(SMALLEST_REORDERED_POOL, REORDERED_PER_SONG * rules.count)


def _reordered(pool: Pool, sequence: np.ndarray, traits: SongTraits, rules: Rules, rng: np.random.Generator) -> np.ndarray:
    """Places of the pool (n,) by falling re-ranked score; behind the best `_n_reordered` songs they stay as they are.

    With a temperature T, the songs come as if drawn one after the other from softmax(score / T), without replacement: by falling
    score / T plus Gumbel noise (Kool, van Hoof and Welling, "Stochastic Beams and Where to Find Them", ICML 2019, section 2.3).
    """
    n = _n_reordered(rules)
    numbers, scores = pool.numbers[:n], pool.scores[:n].astype(np.float64)
    if rules.discovery is not None:
        scores += _discovery_bonus(numbers, scores, sequence, traits, rules.discovery)
    if rules.temperature > 0:
        scores += rules.temperature * rng.gumbel(size=len(scores))
    return np.concatenate([np.argsort(-scores, kind="stable"), np.arange(len(scores), len(pool.numbers))])


def _discovery_bonus(
    numbers: np.ndarray, scores: np.ndarray, sequence: np.ndarray, traits: SongTraits, discovery: float
) -> np.ndarray:
    """DISCOVERY_STRENGTH * std(scores) * 2 * (discovery - 0.5) * novelty, for each of the re-ranked songs.

    novelty = -(log1p(popularity) - mean) / std, over these songs, less HEARD_ARTIST where the artist stands in the sequence.

    The strength is measured in standard deviations of the scores, because their scale is the model's own affair (logits of one
    model spread twice as far as those of another, the fallbacks count): one discovery has to mean the same for all of them.
    """
    fame = np.log1p(traits.popularity[numbers].astype(np.float64))
    heard = set(traits.artists[sequence].tolist())
    is_heard = [artist >= FIRST_NUMBER and artist in heard for artist in traits.artists[numbers].tolist()]
    novelty = -(fame - fame.mean()) / (fame.std() or 1.0) - HEARD_ARTIST * np.array(is_heard, np.float64)
    return DISCOVERY_STRENGTH * (scores.std() or 1.0) * 2 * (discovery - 0.5) * novelty


@dataclass(kw_only=True)
class _Line:
    """An answer in the making: songs in the order in which they will be heard, behind the end of the sequence."""

    artists: list[int]  # (n,) by rank
    before: list[int]  # artists of the newest songs of the sequence, oldest first
    spacing: int
    count: int
    ranks: list[int] = field(default_factory=list)
    is_stretched: bool = False  # some song came too soon
    is_over_bound: bool = False  # some artist came too often
    _heard_at: dict[int, int] = field(default_factory=dict)  # artist -> place in the line of the newest song, below 0 before it

    @classmethod
    def after(cls, sequence: np.ndarray, artists: list[int], traits: SongTraits, rules: Rules) -> "_Line":
        """Nothing but the end of the sequence; `artists` (n,) are those of the songs that may come, by rank."""
        before = traits.artists[sequence[max(0, len(sequence) - rules.artist_spacing) :]].tolist()
        heard_at = {artist: place for place, artist in enumerate(before, start=-len(before))}
        return cls(artists=artists, before=before, spacing=rules.artist_spacing, count=rules.count, _heard_at=heard_at)

    def extend(self, songs: Iterable[int], *, may_stretch: bool) -> None:
        """Put songs (ranks, best first) into the line until it is full or they end; what comes too soon waits.

        Few artists ever wait: the song of one that has waited long enough is the next one, unless a better one has, too.
        """
        waiting: dict[int, deque[int]] = {}
        coming = iter(songs)
        while len(self.ranks) < self.count:
            rank = self._that_waited(waiting) if waiting else None
            rank = self._that_comes(coming, waiting) if rank is None else rank
            if rank is None and waiting and may_stretch:
                self.is_stretched = True
                rank = waiting[min(waiting, key=self._heard_at.__getitem__)][0]
            if rank is None:
                return
            self._put(rank, waiting)

    def _that_waited(self, waiting: dict[int, deque[int]]) -> int | None:
        return min((ranks[0] for artist, ranks in waiting.items() if self._is_far_enough(artist)), default=None)

    def _that_comes(self, coming: Iterator[int], waiting: dict[int, deque[int]]) -> int | None:
        for rank in coming:
            artist = self.artists[rank]
            if self._is_far_enough(artist):
                return rank
            waiting.setdefault(artist, deque()).append(rank)
        return None

    def _put(self, rank: int, waiting: dict[int, deque[int]]) -> None:
        artist = self.artists[rank]
        if artist in waiting:
            waiting[artist].popleft()
            if not waiting[artist]:
                del waiting[artist]
        self._heard_at[artist] = len(self.ranks)
        self.ranks.append(rank)

    def _is_far_enough(self, artist: int) -> bool:
        heard_at = self._heard_at.get(artist)
        return heard_at is None or len(self.ranks) - heard_at > self.spacing or artist < FIRST_NUMBER

    def keeps_spacing(self, ranks: np.ndarray) -> bool:
        """Whether these songs, in this order, are all far enough from those of the same artist."""
        heard = self.before + [self.artists[rank] for rank in ranks.tolist()]
        return all(
            artist < FIRST_NUMBER or artist not in heard[max(0, place - self.spacing) : place]
            for place, artist in enumerate(heard)
            if place >= len(self.before)
        )


def _fill(
    line: _Line,
    numbers: np.ndarray,
    sequence: np.ndarray,
    newest: np.ndarray,
    traits: SongTraits,
    rules: Rules,
    *,
    may_relax: bool,
) -> None:
    """Put the ranked songs `numbers` into a line: first those within the bound per artist, then, if need be, those over it.

    `newest` are the songs of the sequence whose artists count as one towards the bound, however often they stand there: counted
    song by song, a list by one artist could not go on with a single song of theirs.
    """
    songs: Iterator[int] = iter(range(len(numbers)))
    if rules.one_per_recording:
        songs = _one_per_recording(traits.recordings[numbers].tolist(), traits.recordings[sequence[sequence >= FIRST_NUMBER]])
    over: dict[int, list[int]] = {}
    if rules.max_per_artist:
        counted = Counter(set(traits.artists[newest].tolist()))
        songs = _within_bound(songs, line.artists, counted, rules.max_per_artist, over)
    line.extend(songs, may_stretch=may_relax)
    for excess in sorted(over) if may_relax else ():
        if len(line.ranks) < line.count:
            line.is_over_bound = True
            line.extend(over[excess], may_stretch=True)


def _one_per_recording(recordings: list[int], heard: np.ndarray) -> Iterator[int]:
    """Ranks of the best-ranked song of each recording that is not among the heard ones."""
    seen = set(heard.tolist())
    for rank, recording in enumerate(recordings):
        if recording not in seen:
            seen.add(recording)
            yield rank


def _within_bound(
    songs: Iterable[int], artists: list[int], counted: Counter[int], bound: int, over: dict[int, list[int]]
) -> Iterator[int]:
    """Those songs that are their artist's first `bound`; the others are kept in `over`, by how far they go beyond it."""
    for rank in songs:
        artist = artists[rank]
        if artist < FIRST_NUMBER:
            yield rank
            continue
        counted[artist] += 1
        if counted[artist] <= bound:
            yield rank
        else:
            over.setdefault(counted[artist] - bound, []).append(rank)


def _flow(numbers: np.ndarray, sequence: np.ndarray, traits: SongTraits, line: _Line) -> np.ndarray:
    """The order (k,) in which the chosen songs go over into each other, from the last song of the sequence on."""
    tempo, key, mode = _sound(traits, numbers)
    start = _sound(traits, sequence[-1]) if len(sequence) and sequence[-1] >= FIRST_NUMBER else None
    artists = [line.artists[rank] for rank in line.ranks]
    return in_flow_order(tempo, key, mode, start=start, artists=artists, spacing=line.spacing, artists_before=line.before)


def _sound(traits: SongTraits, songs: np.ndarray) -> Sound:
    """Tempo, key and mode of songs, or of one; NaN where the catalogue has no such column."""
    columns = [traits.features.get(name) for name in FLOW_FEATURES]
    tempo, key, mode = (np.full(np.shape(songs), np.nan) if column is None else column[songs] for column in columns)
    return tempo, key, mode
