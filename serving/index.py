"""The best songs for a batch of contexts, out of the whole catalogue.

A score is the product of query and output embedding, plus the song's bias, plus what the model looks up, which concerns a few
songs only.  `score` of one pair is computed in float64 and rounded to float32 once, so it does not depend on who else is in the
batch, nor on which index is asked.

The index does not compute that for the whole catalogue.  It bounds every score from above with one fast product, scores a few
promising songs exactly, and then every song whose bound reaches the worst of those: no other can be among the best, whatever the
data.  A loose bound costs time and never changes an answer.  Two products are to choose from (`choose_index`):

- `Fp32Bounds`: the product in fp32; the bound is as wide as its rounding.
- `Int8Bounds`: a product of whole numbers from -127 to 127, which reads a quarter of the memory.  With q^ and e^ for what they
  stand for, |q e - q^ e^| <= |q| |e - e^| + |q - q^| |e^| (Cauchy-Schwarz).  Where too many songs are left, fp32 bounds again.

Shape letters: B contexts, L songs of a row, V songs (the three specials included), D width of the network, C songs looked up,
k songs asked for, P pairs of a context and a song.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from config import FIRST_NUMBER
from dataset import inference_batch
from errors import ConfigError
from memory import LookedUp
from model import BERT4Rec

log = logging.getLogger(__name__)

BLOCK = 64  # songs whose bounds are first looked at as one
MOST_BOUNDS = 2**23  # bounds that are held at once, 32 MB: a larger batch is answered in parts
CACHED_PRODUCTS = 2**19  # int32 products at a time: 2 MB, which are still in the cache when they become bounds
FEWEST_SHARING_THE_CACHE = (
    8  # of a few contexts only as many songs are looked at a time, whose five columns are to stay there, too
)
EXACT_AT_ONCE = 2**14  # pairs that are scored in float64 at a time: 16 MB at width 128
MOST_CANDIDATES = 4_000  # songs of one context that int8 may leave to be scored exactly, beside 8 for each one asked for
LARGEST_CODE = 127
# So many contexts are multiplied one by one: for several at a time the codes are rearranged first (4 contexts, 100,000 songs:
# 1.8 ms together, 1.0 ms one by one).
MULTIPLIED_ONE_BY_ONE = 4
TIMED_BATCH, TIMED_REPEATS = 8, 3
NONE = np.array([], np.int64)
ROUNDING = 2.0**-18  # share by which a norm is rounded up; rounding to float32 takes 2^-24


class ContextEncoder(Protocol):
    """The part of a model that reads sequences."""

    def encode_last(self, songs: Tensor) -> Tensor:
        """Left-padded rows (B, L) ending in MASK -> queries (B, D)."""
        ...

    def look_up(self, songs: Tensor, queries: Tensor) -> LookedUp | None:
        """What is added to the scores of a few songs of each row."""
        ...


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """B sequences as the index compares them with songs."""

    queries: Tensor  # (B, D)
    looked_up: LookedUp | None = None  # songs and bonuses (B, C) each; no bonus is below 0

    def part(self, rows: slice) -> "Contexts":
        """Some of the contexts."""
        looked_up = None if self.looked_up is None else LookedUp(*(column[rows] for column in self.looked_up))
        return Contexts(queries=self.queries[rows], looked_up=looked_up)


def read_contexts(model: ContextEncoder, prefixes: Sequence[np.ndarray], row_len: int) -> Contexts:
    """Run the encoder over song numbers, oldest first; only the newest `row_len` - 1 of each prefix are read."""
    with torch.inference_mode():
        songs = inference_batch(prefixes, row_len)  # (B, L)
        queries = model.encode_last(songs)
        return Contexts(queries=queries, looked_up=model.look_up(songs, queries))


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """The best songs for one context, best first; fewer than asked for where the catalogue ends."""

    numbers: np.ndarray  # (k,) int64 song numbers
    scores: np.ndarray  # (k,) float32


class Pairs(NamedTuple):
    """Contexts and songs to be scored together."""

    rows: Tensor  # (P,) int64
    songs: Tensor  # (P,) int64

    def keys(self, V: int) -> Tensor:
        """One number for each pair."""
        return self.rows * V + self.songs


class Bounds(Protocol):
    """A fast product of contexts with the whole catalogue."""

    def write(self, queries: Tensor, bounds: Tensor, rounding: float) -> None:
        """Write what product plus bias do not exceed into `bounds` (B, V), given `queries` (B, D).

        A bound is raised by the share `rounding` of the terms behind it, which what is added later may lose by rounding.
        """
        ...


class Songs:
    """The songs of a catalogue as contexts are compared with them."""

    def __init__(self, embeddings: Tensor, bias: Tensor) -> None:
        """Of output embeddings (V, D) and biases (V,); a song with a bias of minus infinity is never recommended."""
        self.embeddings = embeddings.detach().float().contiguous()
        self.bias = bias.detach().float()
        barred = ~self.bias.isfinite()
        barred[:FIRST_NUMBER] = True
        self.barred = barred.nonzero()[:, 0]
        self._finite_bias = self.bias.masked_fill(barred, 0.0)
        self._bias_sizes = self._finite_bias.abs() + torch.finfo(torch.float32).tiny

    def __len__(self) -> int:
        """V, the specials included."""
        return len(self.bias)

    @cached_property
    def norms(self) -> Tensor:
        """The Euclidean norms of the embeddings, (V,) float32, above 0 also for an embedding of 0."""
        return torch.linalg.vector_norm(self.embeddings, dim=1).clamp(min=torch.finfo(torch.float32).tiny)

    def raised_bias(self, rounding: float, part: slice = slice(None)) -> Tensor:
        """The bias and the share `rounding` of its size, 0 where it is not finite: (V,), or a part of it."""
        return torch.add(self._finite_bias[part], self._bias_sizes[part], alpha=rounding)


class Fp32Bounds:
    """The product in fp32.

    Of D terms, added up in any order, it is wrong by D / 2^24 of |q| |e| at most, to first order (Higham 2002, section 3.1).
    """

    def __init__(self, songs: Songs) -> None:
        self._songs = songs
        self._norms = torch.cat([_norms(part) for part in torch.split(songs.embeddings, EXACT_AT_ONCE)])  # (V,)

    def write(self, queries: Tensor, bounds: Tensor, rounding: float) -> None:
        """The queries of a batch share the width of the longest of them."""
        width = (queries.shape[1] * 2.0**-23 + rounding) * float(_norms(queries).max())
        base = self._songs.raised_bias(rounding).add_(self._norms, alpha=width)
        torch.addmm(base, queries, self._songs.embeddings.T, out=bounds)


class Int8Bounds:
    """The product of whole numbers; each song counts in steps of its own size."""

    def __init__(self, songs: Songs) -> None:
        V = len(songs)
        self._songs = songs
        self._codes = torch.empty(songs.embeddings.shape, dtype=torch.int8)
        self._steps, self._code_norms, self._residuals = torch.empty(V), torch.empty(V), torch.empty(V)
        for first in range(0, V, EXACT_AT_ONCE):
            part = slice(first, first + EXACT_AT_ONCE)
            self._steps[part], self._codes[part], stands_for = _encode(songs.embeddings[part])
            self._code_norms[part] = _norms(stands_for)
            self._residuals[part] = _norms(songs.embeddings[part].double() - stands_for)

    def write(self, queries: Tensor, bounds: Tensor, rounding: float) -> None:
        """The queries of a batch share one step, and the width of the worst of them."""
        step, flat_codes, stands_for = _encode(queries.reshape(1, -1))
        norm, residual = (float(_norms(part).max()) for part in (queries, queries.double() - stands_for.view(queries.shape)))
        of_residuals, of_codes = norm * (1 + rounding), residual + rounding * (norm + residual)
        codes = flat_codes.view(queries.shape)
        rows = torch.split(codes, 1) if len(codes) <= MULTIPLIED_ONE_BY_ONE else [codes]
        at_once = max(BLOCK, CACHED_PRODUCTS // max(len(queries), FEWEST_SHARING_THE_CACHE))
        for first in range(0, len(self._codes), at_once):
            part = slice(first, first + at_once)
            base = self._songs.raised_bias(rounding, part).add_(self._residuals[part], alpha=of_residuals)
            base.add_(self._code_norms[part], alpha=of_codes)
            products = torch.cat([int8_product(some, self._codes[part]) for some in rows])
            torch.addcmul(base, products, step * self._steps[part], out=bounds[:, part])


def int8_product(left: Tensor, right: Tensor) -> Tensor:
    """Of int8 codes (B, D) and (V, D), added up in int32: (B, V).

    torch's own product for it is private, so `choose_index` looks whether it is there and right before it is used.  On one thread
    with AVX-512 VNNI it takes half the time of fbgemm's dynamic linear layer, and from a tenth (B = 1) to half of bfloat16's.
    """
    # It writes nothing where a single row has a stride of its own (PyTorch issue 195066), which a new tensor has not.
    return torch._int_mm(torch.empty(left.shape, dtype=torch.int8).copy_(left), right.T)


def _encode(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (n, D) as whole numbers: the step of each (n,), the numbers in int8, and what they stand for in float64."""
    step = vectors.abs().amax(dim=1) / LARGEST_CODE
    step = torch.where(step > torch.finfo(torch.float32).tiny, step, 1.0)
    codes = (vectors / step[:, None]).round_().clamp_(-LARGEST_CODE, LARGEST_CODE).to(torch.int8)
    return step, codes, step[:, None].double() * codes


def _norms(vectors: Tensor) -> Tensor:
    """The Euclidean norms of (n, D), rounded up: (n,) float32."""
    return (torch.linalg.vector_norm(vectors.double(), dim=1) * (1 + ROUNDING)).float()


class ScoringIndex:
    """Finds the best songs of a catalogue.  `name` says by which product; the answer is the same."""

    def __init__(self, embeddings: Tensor, bias: Tensor, name: Literal["fp32", "int8"] = "fp32") -> None:
        self.name = name
        self._songs = Songs(embeddings, bias)
        fp32 = Fp32Bounds(self._songs)
        self._tries: tuple[Bounds, ...] = (fp32,) if name == "fp32" else (Int8Bounds(self._songs), fp32)
        self._mean_embedding = self._songs.embeddings[FIRST_NUMBER:].mean(dim=0)
        self._mean_bias = self._songs.bias[FIRST_NUMBER:].mean()

    def __len__(self) -> int:
        """V, the specials included."""
        return len(self._songs)

    @property
    def width(self) -> int:
        """D, the width of queries."""
        return self._songs.embeddings.shape[1]

    def top(
        self,
        contexts: Contexts,
        counts: Sequence[int],
        excluded: Sequence[np.ndarray],
        allowed: Sequence[np.ndarray | None] | None = None,
    ) -> list[Ranked]:
        """The `counts[b]` best songs for each of B contexts, without specials and without the numbers in `excluded[b]`.

        `allowed[b]` (V,) bool is false at more songs that are not to be recommended; None allows all.  Songs of equal score come
        by rising song number.
        """
        masks = [None] * len(counts) if allowed is None else allowed
        ranked: list[Ranked] = []
        for rows in self._parts(len(counts)):
            ranked += self._top(Wanted(contexts.part(rows), counts[rows], excluded[rows], masks[rows]), self._tries)
        return ranked

    def confidences(self, contexts: Contexts, ranked: Sequence[Ranked]) -> list[np.ndarray]:
        """The probability that the model gives each ranked song of B contexts, (k,) float32 each: softmax over the catalogue.

        What a request excludes has its share all the same, so that a probability does not depend on it.  It takes a product
        with the whole catalogue in fp32.
        """
        confidences: list[np.ndarray] = []
        for rows in self._parts(len(ranked)):
            part = contexts.part(rows)
            scores = BERT4Rec.add_looked_up(torch.addmm(self._songs.bias, part.queries, self._songs.embeddings.T), part.looked_up)
            scores[:, :FIRST_NUMBER] = -torch.inf
            totals = torch.logsumexp(scores, dim=1).numpy()
            confidences += [np.exp(best.scores - total) for best, total in zip(ranked[rows], totals, strict=True)]
        return confidences

    def cosines(self, number: int) -> np.ndarray:
        """How nearly each embedding points where that of one song does, (V,) float32 from -1 to 1; 0 for embeddings of 0."""
        embeddings, norms = self._songs.embeddings, self._songs.norms
        cosines: np.ndarray = ((embeddings @ (embeddings[number] / norms[number])) / norms).numpy()
        return cosines

    def leads(self, contexts: Contexts, numbers: np.ndarray) -> np.ndarray:
        """By how much the songs `numbers` (k,) lead over the average song of the catalogue in each of B contexts: (B, k).

        Scores of two contexts differ by a constant that changes no ranking; leads can be compared.
        """
        songs = torch.from_numpy(numbers.astype(np.int64))
        scores = torch.addmm(self._songs.bias[songs], contexts.queries, self._songs.embeddings[songs].T)  # (B, k)
        average = contexts.queries @ self._mean_embedding + self._mean_bias  # (B,)
        if contexts.looked_up is not None:
            scores += self._bonuses(contexts.looked_up, songs)
            average += contexts.looked_up.bonus.sum(dim=1) / max(1, len(self) - FIRST_NUMBER)
        return (scores - average[:, None]).numpy()

    def _bonuses(self, looked_up: LookedUp, songs: Tensor) -> Tensor:
        """What was looked up for `songs` (k,) only, (B, k)."""
        k = len(songs)
        place_of_song = torch.full((len(self),), k)  # one more column takes the bonuses of all other songs
        place_of_song[songs] = torch.arange(k)
        bonuses = torch.zeros(len(looked_up.songs), k + 1)
        return bonuses.scatter_add_(1, place_of_song[looked_up.songs], looked_up.bonus.float())[:, :k]

    def _parts(self, B: int) -> list[slice]:
        """The rows of a batch in as many parts as keep their scores below MOST_BOUNDS."""
        at_once = max(1, MOST_BOUNDS // len(self))
        return [slice(first, first + at_once) for first in range(0, B, at_once)]

    def _top(self, wanted: "Wanted", tries: Sequence[Bounds]) -> list[Ranked]:
        bounds = self._bounds(wanted, tries[0])  # (B, blocks, BLOCK)
        best = bounds.amax(dim=2)  # (B, blocks)
        of_looked_up = _bounds_of(wanted.contexts.looked_up, bounds)
        floors = self._floors(wanted, bounds, best, of_looked_up)  # (B,)
        candidates = _reaching(bounds, best, floors)
        crowded = torch.bincount(candidates.rows, minlength=len(floors)) > MOST_CANDIDATES + 8 * wanted.most(len(self))  # (B,)
        if len(tries) > 1 and crowded.any():
            candidates = Pairs(*(column[~crowded[candidates.rows]] for column in candidates))
        ranked = _ranked(candidates, self._scores(wanted.contexts, of_looked_up, floors, candidates), wanted.counts)
        for row in crowded.nonzero()[:, 0].tolist() if len(tries) > 1 else ():
            ranked[row : row + 1] = self._top(wanted.part(slice(row, row + 1)), tries[1:])
        return ranked

    def _bounds(self, wanted: "Wanted", product: Bounds) -> Tensor:
        """What no song's score exceeds, minus infinity for songs that cannot be recommended: (B, blocks, BLOCK)."""
        B, V = len(wanted.counts), len(self)
        padded = torch.empty(B, -(-V // BLOCK) * BLOCK)
        padded[:, V:] = -torch.inf
        bounds = padded[:, :V]
        looked_up = wanted.contexts.looked_up
        # Each of C additions may lose 2^-24 of a sum, which is less than three times the terms behind the bound.
        rounding = (64 + 4 * (0 if looked_up is None else looked_up.songs.shape[1])) * 2.0**-24
        product.write(wanted.contexts.queries.float(), bounds, rounding)
        if looked_up is not None:
            bounds.scatter_add_(1, looked_up.songs, looked_up.bonus.float() * (1 + rounding))
        bounds.index_fill_(1, self._songs.barred, -torch.inf)
        for row, numbers, mask in zip(bounds, wanted.excluded, wanted.allowed, strict=True):
            row[torch.from_numpy(numbers.astype(np.int64))] = -torch.inf
            if mask is not None:
                row.masked_fill_(torch.from_numpy(~mask), -torch.inf)
        return padded.view(B, -1, BLOCK)

    def _floors(self, wanted: "Wanted", bounds: Tensor, best: Tensor, of_looked_up: Tensor | None) -> Tensor:
        """A score that at least `counts[b]` songs of each context reach, (B,); minus infinity where there are fewer songs."""
        B, blocks = best.shape
        most = wanted.most(len(self))  # (B,)
        k = int(most.max())
        if 4 * k <= blocks:  # one song of each of the best blocks: 100 times faster than the best of all songs
            found = best.topk(k).indices  # (B, k)
            songs = found * BLOCK + bounds[torch.arange(B)[:, None], found].argmax(dim=2)
        else:
            songs = bounds.view(B, -1).topk(k).indices
        rows, places = torch.nonzero(torch.arange(k) < most[:, None], as_tuple=True)
        bound = bounds.view(B, -1)[rows, songs[rows, places]]
        lowest = torch.full((B,), torch.inf).scatter_reduce_(0, rows, bound, "amin")
        rows, places = rows[bound > -torch.inf], places[bound > -torch.inf]
        exact = self._scores(wanted.contexts, of_looked_up, lowest, Pairs(rows, songs[rows, places]))
        floors = torch.full((B,), torch.inf).scatter_reduce_(0, rows, exact, "amin")
        return torch.where(lowest > -torch.inf, floors, -torch.inf)

    def _scores(self, contexts: Contexts, of_looked_up: Tensor | None, floors: Tensor, pairs: Pairs) -> Tensor:
        """The scores of pairs whose bounds reach the floor of their context, (P,) float32."""
        queries = contexts.queries.double()
        parts = zip(*(torch.split(column, EXACT_AT_ONCE) for column in pairs), strict=True)
        products = [(self._songs.embeddings[songs].double() * queries[rows]).sum(dim=1) for rows, songs in parts]
        scores = torch.cat(products) + self._songs.bias[pairs.songs]
        if contexts.looked_up is not None and of_looked_up is not None and len(scores):
            scores += self._exact_bonuses(contexts.looked_up, of_looked_up >= floors[:, None], pairs)
        return scores.float()

    def _exact_bonuses(self, looked_up: LookedUp, near: Tensor, pairs: Pairs) -> Tensor:
        """What was looked up for pairs, (P,) float64.  Only songs looked up that are `near` (B, C) are compared with them."""
        rows, columns = torch.nonzero(near, as_tuple=True)
        keys, order = pairs.keys(len(self)).sort()
        sought = Pairs(rows, looked_up.songs[rows, columns]).keys(len(self))
        place = torch.searchsorted(keys, sought).clamp_(max=len(keys) - 1)
        is_pair = keys[place] == sought
        bonus = looked_up.bonus[rows, columns][is_pair].double()
        return torch.zeros(len(keys), dtype=torch.float64).index_add_(0, order[place[is_pair]], bonus)


@dataclass(frozen=True)
class Wanted:
    """What `ScoringIndex.top` was asked for, B entries each."""

    contexts: Contexts
    counts: Sequence[int]
    excluded: Sequence[np.ndarray]
    allowed: Sequence[np.ndarray | None]

    def part(self, rows: slice) -> "Wanted":
        """Some of the contexts."""
        return Wanted(self.contexts.part(rows), self.counts[rows], self.excluded[rows], self.allowed[rows])

    def most(self, V: int) -> Tensor:
        """The number of songs that each context asks for, no more than there are: (B,)."""
        return torch.tensor(self.counts).clamp(max=V)


def _bounds_of(looked_up: LookedUp | None, bounds: Tensor) -> Tensor | None:
    """The bounds of the songs looked up, (B, C)."""
    return None if looked_up is None else bounds.view(len(bounds), -1).gather(1, looked_up.songs)


def _reaching(bounds: Tensor, best: Tensor, floors: Tensor) -> Pairs:
    """The songs whose bounds reach the floor (B,) of their context, by row and rising number; `best` is that of each block."""
    rows, blocks = torch.nonzero((best >= floors[:, None]) & (best > -torch.inf), as_tuple=True)
    near = bounds[rows, blocks]  # (blocks reached, BLOCK)
    places, offsets = torch.nonzero((near >= floors[rows, None]) & (near > -torch.inf), as_tuple=True)
    return Pairs(rows[places], blocks[places] * BLOCK + offsets)


def _ranked(candidates: Pairs, scores: Tensor, counts: Sequence[int]) -> list[Ranked]:
    """The best candidates of each context, whose songs rise by number within it."""
    starts = torch.searchsorted(candidates.rows, torch.arange(len(counts) + 1)).tolist()
    ranked = []
    for first, after, count in zip(starts, starts[1:], counts, strict=False):
        songs, of_songs = candidates.songs[first:after].numpy(), scores[first:after].numpy()
        order = np.argsort(-of_songs, kind="stable")[:count]
        ranked.append(Ranked(numbers=songs[order], scores=of_songs[order]))
    return ranked


# --- which product


def choose_index(
    embeddings: Tensor, bias: Tensor, which: Literal["auto", "fp32", "int8"] = "auto", *, seed: int = 0
) -> ScoringIndex:
    """An index over output embeddings (V, D) and bias (V,); "auto" takes the product that is faster on this machine.

    Both are timed on random queries from `seed`, a few milliseconds for 100,000 songs, and must find the same.  Raises
    ConfigError for "int8" where torch has no such product.
    """
    if which == "fp32":
        return ScoringIndex(embeddings, bias)
    if (fault := fault_of_int8(embeddings.shape[1])) is not None:
        if which == "int8":
            raise ConfigError(f"index int8 is not possible here, {fault}: choose auto or fp32")
        log.debug("songs are found by products in fp32: %s", fault)
        return ScoringIndex(embeddings, bias)
    int8 = ScoringIndex(embeddings, bias, "int8")
    return int8 if which == "int8" else _faster(ScoringIndex(embeddings, bias), int8, seed)


def fault_of_int8(width: int) -> str | None:
    """Why torch's product of int8 codes of this width cannot be used, None where it can: it must be right at its extremes.

    Without VNNI sums of two products can overflow 16 bits on the way (PyTorch issue 136746).
    """
    if not hasattr(torch, "_int_mm"):
        return "this torch has no int8 product"
    generator = torch.Generator().manual_seed(0)
    right = torch.cat([torch.full((8, width), sign * LARGEST_CODE) for sign in (1, -1)])
    right = torch.cat([right, torch.randint(-LARGEST_CODE, LARGEST_CODE + 1, (64, width), generator=generator)])
    for left in (right[4:5], right[4:12], right[::3]):
        try:
            product = int8_product(left.to(torch.int8), right.to(torch.int8))
        except RuntimeError as exc:
            return f"torch's int8 product fails ({exc})"
        if not torch.equal(product.long(), left @ right.T):
            return "torch's int8 product is not exact on this processor"
    return None


def _faster(fp32: ScoringIndex, int8: ScoringIndex, seed: int) -> ScoringIndex:
    """The faster of two indexes for one query and for eight; fp32 where they do not find the same."""
    generator = torch.Generator().manual_seed(seed)
    D = fp32.width
    queries = torch.randn(TIMED_BATCH, D, generator=generator)
    contexts = [Contexts(queries=queries[:1]), Contexts(queries=queries)]
    (found, fp32_ms), (found_by_int8, int8_ms) = (_timed(index, contexts) for index in (fp32, int8))
    if not all(np.array_equal(a.numbers, b.numbers) for a, b in zip(found, found_by_int8, strict=True)):
        log.warning("songs are found by products in fp32: those in int8 found others on this machine")
        return fp32
    faster = int8 if int8_ms < fp32_ms else fp32
    log.debug(
        "songs are found by products in %s: %.2f ms in int8, %.2f ms in fp32",
        *(faster.name, int8_ms, fp32_ms),
        extra={"fields": {"index": faster.name, "int8_ms": int8_ms, "fp32_ms": fp32_ms}},
    )
    return faster


def _timed(index: ScoringIndex, batches: Sequence[Contexts]) -> tuple[list[Ranked], float]:
    """What an index finds for some batches, and the milliseconds of this thread that they take together at best."""
    milliseconds = []
    for _ in range(TIMED_REPEATS):
        began = time.thread_time()
        found = [best for batch in batches for best in index.top(batch, [10] * len(batch.queries), [NONE] * len(batch.queries))]
        milliseconds.append(1000 * (time.thread_time() - began))
    return found, min(milliseconds)
