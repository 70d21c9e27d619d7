"""Recommenders that count: what a model has to beat, and what answers when there is no model.  Rests on scipy.sparse.

Each is fitted on the training part and scores batches of prefixes:

    markov = Markov().fit(sequences, offsets, n_songs)
    evaluate(markov.score, tasks, n_songs=n_songs, allow_repeats=False)

What all of them promise: a row of scores depends on its prefix alone, not on the batch around it; PAD, MASK and UNKNOWN are
neither counted nor used nor recommended (their score is -inf); an empty or unknown prefix is answered with what is popular.

Letters: B prefixes in a batch, V song numbers with the specials, P parts of a blend, K weightings tried.
"""

import functools
import itertools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from config import FIRST_NUMBER, PAD
from errors import DataError
from evaluation.metrics import Numbers, ndcg_at, rank_of_target
from evaluation.protocols import NextSongTask, Score, answerable, candidates_of, sequence_means
from evaluation.sequences import Offsets, Prefix, Songs, lengths_of, sequence_of_each

Scores = NDArray[np.float32]

KNN_BLOCK = 2048  # songs whose neighbours are found at once: bounds the unpruned similarities in memory


class Baseline(Protocol):
    """What every recommender of this module can do."""

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Count the training part: sequence s is `sequences[offsets[s]:offsets[s + 1]]`, song numbers lie below `n_songs` (V)."""

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Score every song as the next one of each prefix: (B, V), higher is better."""


class Random:
    """Scores drawn at random, from a seed and the prefix: the same prefix has the same scores in any batch."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Remember the size of the catalogue."""
        self._n_songs = n_songs
        return self

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Draw (B, V) scores between 0 and 1."""
        scores = np.empty((len(prefixes), self._n_songs), dtype=np.float32)
        for row, prefix in zip(scores, prefixes, strict=True):
            digest = zlib.crc32(np.asarray(prefix, dtype=np.int64).tobytes())
            np.random.default_rng([self.seed, digest]).random(dtype=np.float32, out=row)
        return _without_specials(scores)


class Popularity:
    """How often a song occurs in training, whatever the prefix."""

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Count every song."""
        self._counts = _song_counts(sequences, n_songs)
        return self

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Give every prefix the same (B, V) counts."""
        return _without_specials(_repeated(self._counts, len(prefixes)))


class RecentPopularity:
    """Popularity in which a sequence weighs half as much as one that is `half_life` of the training part younger.

    The sequences must come oldest first; in any other order this is a popularity with arbitrary weights.
    """

    def __init__(self, half_life: float = 0.1) -> None:
        if not half_life > 0:
            raise DataError(f"half_life must be above 0, a share of the training sequences (got {half_life})")
        self.half_life = half_life

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Count every song, weighted by how far from the end its sequence stands."""
        n_sequences = len(lengths_of(sequences, offsets))
        age = (n_sequences - 1 - sequence_of_each(sequences, offsets)) / max(n_sequences, 1)
        self._weights = _song_counts(sequences, n_songs, np.exp2(-age / self.half_life))
        return self

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Give every prefix the same (B, V) weighted counts."""
        return _without_specials(_repeated(self._weights, len(prefixes)))


class Markov:
    """First-order transitions: the share of the times that a song came right after the last song of the prefix.

    A transition within the prefix itself counts as `prefix_weight` of training; it matters only where repeats are allowed, and
    there much: who plays a list in a loop comes back to the same song.  0 counts training alone.

    Songs that never followed are ordered by popularity, scaled to stay below a single transition; so are songs with equally many.
    An unknown song at the end of the prefix is passed over for the one before it.
    """

    def __init__(self, prefix_weight: float = 1.0) -> None:
        if not (prefix_weight == 0 or prefix_weight >= 1):
            raise DataError(f"prefix_weight must be 0 or at least 1, a transition of training (got {prefix_weight})")
        self.prefix_weight = prefix_weight

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Count the pairs of neighbours within sequences."""
        sequence = sequence_of_each(sequences, offsets)
        before, after = sequences[:-1], sequences[1:]
        pairs = (sequence[:-1] == sequence[1:]) & (before >= FIRST_NUMBER) & (after >= FIRST_NUMBER)
        self._popularity = _below(1.0, _song_counts(sequences, n_songs))
        ones = np.ones(np.count_nonzero(pairs), dtype=np.float32)
        self._transitions = sparse.csr_array((ones, (before[pairs], after[pairs])), shape=(n_songs, n_songs))
        self._totals = self._transitions.sum(axis=1).astype(np.float32)
        return self

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Look up the (B, V) transitions from the last known song of each prefix."""
        known = map(_real, prefixes)
        last = [int(songs[-1]) if len(songs) else PAD for songs in known]  # nothing follows PAD
        scores: Scores = self._transitions[np.array(last, dtype=np.int64)].toarray()
        totals = self._totals[last]
        if self.prefix_weight:
            for row, (prefix, song) in enumerate(zip(prefixes, last, strict=True)):
                followers = _real(prefix[1:][prefix[:-1] == song])
                np.add.at(scores[row], followers, self.prefix_weight)
                totals[row] += self.prefix_weight * len(followers)
        scores += self._popularity
        scores /= np.maximum(totals, 1)[:, None]
        return _without_specials(scores)


class CoOccurrence:
    """Songs that share sequences with the last songs of the prefix.

    For each of the `last` newest songs i of the prefix, a song j gains the share of the pieces with i that hold j too, times
    `decay` to the power of how many songs ago i came.  A song goes with itself as often as it stands in a piece twice, so that
    lists that repeat songs recommend repeats.  Songs that nothing speaks for are ordered by popularity.

    Pieces are whole sequences up to `window` songs; a longer one is cut into equal consecutive pieces of at most that length,
    which bounds the pairs by rows · window: without it, one history of 10,000 plays would make 100 million pairs.
    """

    def __init__(self, last: int = 20, decay: float = 0.9, window: int = 50) -> None:
        if last < 1 or not 0 < decay <= 1:
            raise DataError(f"last must be at least 1 and decay above 0 and at most 1 (got {last} and {decay})")
        self.last = last
        self.decay = decay
        self.window = window

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Count for each two songs the pieces that hold both, as shares of the pieces with the first."""
        counts = _song_counts(sequences, n_songs)
        incidence = _incidence(sequences, offsets, n_songs, self.window)
        twice = np.bincount(incidence.indices[incidence.data > 1], minlength=n_songs).astype(np.float32)
        incidence.data[:] = 1
        together = (incidence.T.tocsr() @ incidence).tocsr()
        rows = _row_of_each(together)
        held = np.bincount(incidence.indices, minlength=n_songs).astype(np.float32)
        own = together.indices == rows
        together.data[own] = twice[rows[own]]
        together.data /= held[rows]
        together.eliminate_zeros()
        self._shares = together
        faintest = self.decay ** (self.last - 1) * together.data.min(initial=1.0)
        self._popularity = _below(faintest, counts)
        return self

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Add up the shares of the last songs of each prefix: (B, V)."""
        newest = [_real(prefix)[-self.last :] for prefix in prefixes]
        weights = [self.decay ** np.arange(len(songs))[::-1] for songs in newest]
        scores: Scores = (_as_rows(newest, weights, self._shares.shape[0]) @ self._shares).toarray()
        return _without_specials(_filled(scores, self._popularity))


class ItemKNN:
    """Nearest neighbours of the songs of the prefix by the cosine of the sequences that hold them.

    similarity(i, j) = both / (sqrt(with i · with j) + shrink), the `neighbours` best of each song kept; a song scores the sum
    over the distinct songs of the prefix.  Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 22(1) 2004,
    section 4; shrinkage as in Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019.  Long
    sequences are cut into pieces of at most `window` songs, as in CoOccurrence.
    """

    def __init__(self, neighbours: int = 200, shrink: float = 10.0, window: int = 100) -> None:
        if neighbours < 1 or shrink < 0:
            raise DataError(f"neighbours must be at least 1 and shrink 0 or more (got {neighbours} and {shrink})")
        self.neighbours = neighbours
        self.shrink = shrink
        self.window = window

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Find each song's neighbours, block by block of songs."""
        counts = _song_counts(sequences, n_songs)
        incidence = _incidence(sequences, offsets, n_songs, self.window)
        incidence.data[:] = 1
        length = np.sqrt(np.bincount(incidence.indices, minlength=n_songs)).astype(np.float32)
        by_song = incidence.T.tocsr()
        blocks = [self._block(by_song, incidence, length, start) for start in range(0, n_songs, KNN_BLOCK)]
        self._similarities = sparse.vstack(blocks, format="csr")
        self._popularity = _below(self._similarities.data.min(initial=1.0), counts)
        return self

    def _block(self, by_song: Any, incidence: Any, length: Scores, start: int) -> Any:
        block = (by_song[start : start + KNN_BLOCK] @ incidence).tocsr()
        rows = _row_of_each(block) + start
        block.data /= length[rows] * length[block.indices] + self.shrink
        block.data[block.indices == rows] = 0  # a song is no neighbour of its own
        block.eliminate_zeros()
        return _strongest(block, self.neighbours)

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Add up the similarities to the distinct songs of each prefix: (B, V)."""
        songs = [np.unique(_real(prefix)) for prefix in prefixes]
        ones = [np.ones(len(of_one)) for of_one in songs]
        scores: Scores = (_as_rows(songs, ones, self._similarities.shape[0]) @ self._similarities).toarray()
        return _without_specials(_filled(scores, self._popularity))


class Blend:
    """A weighted sum of the standardised scores of several recommenders.

    Each row of scores is brought to mean 0 and deviation 1 over the songs before it is weighted.  Weights are chosen on
    validation tasks by `choose_weights`; until then all parts weigh the same.
    """

    def __init__(self, parts: Mapping[str, Baseline]) -> None:
        if not parts:
            raise DataError("a blend needs at least one part")
        self.parts = dict(parts)
        self.weights = dict.fromkeys(self.parts, 1 / len(self.parts))

    def fit(self, sequences: Songs, offsets: Offsets, n_songs: int) -> Self:
        """Fit every part on the training part."""
        for part in self.parts.values():
            part.fit(sequences, offsets, n_songs)
        return self

    def choose_weights(
        self, tasks: NextSongTask, *, n_songs: int, allow_repeats: bool, steps: int = 5, max_tasks: int = 1000
    ) -> Self:
        """Take the weights with the best NDCG@10 on validation tasks; see `best_weights`."""
        scores = {name: part.score for name, part in self.parts.items()}
        self.weights = best_weights(scores, tasks, n_songs=n_songs, allow_repeats=allow_repeats, steps=steps, max_tasks=max_tasks)
        return self

    def score(self, prefixes: Sequence[Prefix]) -> Scores:
        """Add up the standardised scores of the parts that have weight: (B, V)."""
        weighted = (weight * standardised(self.parts[name].score(prefixes)) for name, weight in self.weights.items() if weight)
        return _without_specials(functools.reduce(np.add, weighted))


def best_weights(
    scores: Mapping[str, Score],
    tasks: NextSongTask,
    *,
    n_songs: int,
    allow_repeats: bool,
    steps: int = 5,
    max_tasks: int = 1000,
    batch_size: int = 64,
) -> dict[str, float]:
    """Find the weights of standardised scores with the best NDCG@10, averaged over sequences, among all multiples of 1 / steps.

    Every weighting whose parts add up to 1 is tried on the same tasks in one pass, so the outcome depends on nothing but them;
    the first of equal ones wins.  Of more than `max_tasks` tasks, evenly spaced ones are used.  Memory: P (batch_size, V) blocks.
    """
    asked = answerable(tasks, n_songs, allow_repeats)
    asked = asked.select(np.unique(np.linspace(0, len(asked) - 1, num=min(len(asked), max_tasks)).astype(np.int64)))
    weightings = _weightings(len(scores), steps)
    starts = range(0, len(asked), batch_size)
    batches = (asked.select(np.arange(start, min(start + batch_size, len(asked)))) for start in starts)
    ranks = [_ranks_of_blends(scores, weightings, batch, n_songs, allow_repeats) for batch in batches]
    gains = ndcg_at(np.concatenate(ranks), 10)  # (n, K)
    quality = [sequence_means(of_one, asked.sequence)[1].mean() for of_one in gains.T]
    return dict(zip(scores, weightings[int(np.argmax(quality))].tolist(), strict=True))


def _ranks_of_blends(
    scores: Mapping[str, Score], weightings: Numbers, tasks: NextSongTask, n_songs: int, allow_repeats: bool
) -> NDArray[np.int64]:
    """Rank of each target under each weighting: (B, K)."""
    prefixes = tasks.prefixes()
    parts = np.stack([standardised(score(prefixes)) for score in scores.values()], axis=1)  # (B, P, V)
    candidates = np.broadcast_to(candidates_of(prefixes, n_songs, allow_repeats), (len(tasks), n_songs))
    blends = (weightings.astype(np.float32) @ of_one for of_one in parts)  # (K, V) each
    targets = np.repeat(tasks.targets[:, None], len(weightings), axis=1)  # (B, K)
    return np.stack([rank_of_target(*question) for question in zip(blends, targets, candidates, strict=True)])


def standardised(scores: NDArray[Any]) -> Scores:
    """Bring each row to mean 0 and deviation 1 over the real songs; the specials, and a row without differences, are 0."""
    standard = np.zeros(scores.shape, dtype=np.float32)
    real = standard[:, FIRST_NUMBER:]
    real[:] = scores[:, FIRST_NUMBER:]
    real -= real.mean(axis=1, keepdims=True)
    deviation = np.linalg.norm(real, axis=1, keepdims=True) / np.sqrt(real.shape[1], dtype=np.float32)
    np.divide(real, deviation, out=real, where=deviation > 0)
    return standard


def _weightings(n_parts: int, steps: int) -> Numbers:
    """All weights that are multiples of 1 / steps and add up to 1: (K, P)."""
    shares = [parts for parts in itertools.product(range(steps + 1), repeat=n_parts) if sum(parts) == steps]
    return np.array(shares) / steps


def _song_counts(songs: Songs, n_songs: int, weights: Numbers | None = None) -> Scores:
    """How often each real song occurs, (V,); raises DataError for a song number outside the catalogue."""
    if len(songs) and not 0 <= songs.min() <= songs.max() < n_songs:
        raise DataError(f"song numbers {songs.min()} to {songs.max()} reach beyond the catalogue of {n_songs} numbers")
    counts = np.bincount(songs, weights=weights, minlength=n_songs).astype(np.float32)
    counts[:FIRST_NUMBER] = 0
    return counts


def _below(bound: float, counts: Scores) -> Scores:
    """Scale counts to lie between 0 and half of `bound`, in the same order."""
    return (counts * (0.5 * bound / max(float(counts.max()), 1.0))).astype(np.float32)


def _filled(scores: Scores, popularity: Scores) -> Scores:
    """Order the songs that nothing speaks for, those of score 0, by popularity."""
    np.copyto(scores, popularity, where=scores == 0)
    return scores


def _real(prefix: Prefix) -> Songs:
    """The songs of a prefix without the specials."""
    return prefix[prefix >= FIRST_NUMBER]


def _repeated(scores: Scores, n_rows: int) -> Scores:
    return np.tile(scores, (n_rows, 1))


def _without_specials(scores: Scores) -> Scores:
    scores[:, :FIRST_NUMBER] = -np.inf
    return scores


def _incidence(songs: Songs, offsets: Offsets, n_songs: int, window: int) -> Any:
    """How often each song stands in each piece: a sparse (pieces, V) array; specials are left out."""
    if window < 2:
        raise DataError(f"window must be at least 2 songs (got {window})")
    lengths = lengths_of(songs, offsets)
    pieces = -(-lengths // window)  # of each sequence
    size = np.maximum(-(-lengths // np.maximum(pieces, 1)), 1)
    within = np.arange(len(songs)) - np.repeat(np.asarray(offsets[:-1], dtype=np.int64), lengths)
    piece = np.repeat(np.cumsum(pieces) - pieces, lengths) + within // np.repeat(size, lengths)
    real = songs >= FIRST_NUMBER
    ones = np.ones(np.count_nonzero(real), dtype=np.float32)
    return sparse.csr_array((ones, (piece[real], songs[real])), shape=(int(pieces.sum()), n_songs))


def _as_rows(songs: Sequence[Songs], weights: Sequence[NDArray[Any]], n_songs: int) -> Any:
    """One sparse row a prefix: the weights of its songs, those of a song that comes twice added up."""
    starts = np.cumsum([0] + [len(of_one) for of_one in songs])
    flat = np.concatenate(songs) if songs else np.empty(0, dtype=np.int64)
    values = np.concatenate(weights) if weights else np.empty(0)
    return sparse.csr_array((values.astype(np.float32), flat, starts), shape=(len(songs), n_songs))


def _row_of_each(matrix: Any) -> NDArray[np.int64]:
    """Row of each stored value of a csr array."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _strongest(matrix: Any, count: int) -> Any:
    """Keep the `count` largest values of each row; of equal ones, the smaller column."""
    matrix.sort_indices()
    kept = np.ones(matrix.nnz, dtype=np.bool_)
    for row in np.flatnonzero(np.diff(matrix.indptr) > count):
        begin, end = matrix.indptr[row], matrix.indptr[row + 1]
        kept[begin + np.argsort(-matrix.data[begin:end], kind="stable")[count:]] = False
    matrix.data[~kept] = 0
    matrix.eliminate_zeros()
    return matrix
