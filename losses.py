"""Cross-entropy over many songs: exact without ever holding all scores, or over shared negatives that are drawn.

The scores of M places over T songs are the largest thing in a step: 500 places and 100,000 songs make 200 MB, and autograd
keeps several copies.  `linear_cross_entropy` therefore makes them a few places at a time and turns each piece into gradients at
once, as Wijmans et al. 2024 do (Cut Your Losses, https://arxiv.org/abs/2411.09009): a step costs one piece of memory, and no
score is computed twice.  Beyond what even so is affordable, `sampled_cross_entropy` compares with K songs that are drawn.

Shape letters: M places to predict, T songs that can stand there, D width, K sampled negatives.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from config import FIRST_NUMBER

# Scores that are held at once: a piece should stay in the caches of a processor; a GPU has to be kept busy.
SCORES_AT_ONCE = {"cpu": 2**22, "cuda": 2**27}
# With fewer places at a time matrix products slow down, however many songs there are: 733 against 543 ms for 32 and 240 of them.
FEWEST_PLACES = 128
# From here on a step costs seconds of one core, while few songs of a catalogue are candidates for any one place.
MOST_SONGS_IN_FULL, NEGATIVES = 100_000, 8_192
SMALLEST = 1e-38  # a probability whose logarithm float32 still knows
OUT = -1e4  # the score of what cannot stand at a place: finite, so that 0 times it is 0


def linear_cross_entropy(queries: Tensor, songs: Tensor, bias: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy (nats) of `targets` (M,) under scores queries @ songs.T + bias: (M, D), (T, D), (T,).

    The same as `F.cross_entropy(queries @ songs.T + bias, targets)`, in as much memory as a few places need.  A bias of OUT takes
    a song out of the comparison; `label_smoothing` is then the others' alone.
    """
    loss: Tensor = _LinearCrossEntropy.apply(queries, songs, bias, targets, label_smoothing)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass, piece by piece, while the scores are at hand; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, songs: Tensor, bias: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        device = queries.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else songs.dtype
        with torch.autocast(device, enabled=False):
            pieces = _Pieces(queries.to(dtype), songs.to(dtype), bias.to(dtype), targets, label_smoothing)
            loss = pieces.loss(with_gradients=any(ctx.needs_input_grad[:3]))
        ctx.save_for_backward(*pieces.gradients)
        ctx.dtypes = queries.dtype, songs.dtype, bias.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        scaled = (gradient * grad_outputs[0] for gradient in ctx.saved_tensors)
        return *(gradient.to(dtype) for gradient, dtype in zip(scaled, ctx.dtypes, strict=True)), None, None


class _Pieces:
    """The loss and its gradients, a few places at a time; sums are kept in float32."""

    def __init__(self, queries: Tensor, songs: Tensor, bias: Tensor, targets: Tensor, label_smoothing: float):
        self.queries, self.songs, self.bias, self.targets = queries, songs, bias, targets
        self.label_smoothing = label_smoothing
        is_candidate = bias > OUT / 2
        self.smoothed = label_smoothing * is_candidate.float() / is_candidate.sum()  # (T,)
        self.gradients = tuple(torch.zeros(part.shape, device=part.device) for part in (queries, songs, bias))

    def loss(self, *, with_gradients: bool) -> Tensor:
        """The mean over all places; the gradients are those of this mean."""
        (M, _), T, device = self.queries.shape, len(self.songs), self.queries.device
        step = max(FEWEST_PLACES, SCORES_AT_ONCE.get(device.type, SCORES_AT_ONCE["cuda"]) // T)
        room = torch.empty(min(step, M), T, dtype=self.queries.dtype, device=device)
        total = torch.zeros((), device=device)
        for first in range(0, M, step):
            piece = slice(first, min(first + step, M))
            scores = torch.addmm(self.bias, self.queries[piece], self.songs.T, out=room[: piece.stop - first])  # (m, T)
            target = self.targets[piece, None]  # (m, 1)
            if self.label_smoothing:
                total += self.label_smoothing * scores.gather(1, target).sum() - (scores.float() @ self.smoothed).sum()
            # In place where the scores are float32 already; row by row, so that a row is read from the cache.
            softmax = torch.softmax(scores, 1, out=scores) if scores.dtype == torch.float32 else scores.softmax(1, torch.float32)
            total -= softmax.gather(1, target).clamp(min=SMALLEST).log().sum()
            if with_gradients:
                self._add_gradients(piece, softmax, target)
        return total / M

    def _add_gradients(self, piece: slice, softmax: Tensor, target: Tensor) -> None:
        """Those of the places of a piece, from their softmax (m, T), which is used up."""
        of_queries, of_songs, of_bias = self.gradients
        queries = self.queries[piece] / len(self.queries)  # what makes a mean of the sum
        softmax.scatter_add_(1, target, softmax.new_full(target.shape, self.label_smoothing - 1))
        if self.label_smoothing:
            softmax -= self.smoothed
        of_scores = softmax.to(self.songs.dtype)
        of_bias += softmax.new_full((1, len(softmax)), 1 / len(self.queries)).mm(softmax)[0]
        of_queries[piece] = (of_scores @ self.songs) / len(self.queries)
        if of_scores.dtype == torch.float32:
            of_songs.addmm_(of_scores.T, queries)
        else:
            of_songs += of_scores.T @ queries


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """A sample of distinct songs shared by all places of a step."""

    songs: Tensor  # (K,) int64
    log_expected_count: Tensor  # (K,) log of the probability that the sample holds that song


def negatives_of(asked: int | None, n_songs: int) -> int:
    """How many negatives a step draws for a catalogue of so many songs, 0 for none; `asked` None leaves the choice to us.

    >>> negatives_of(None, 50_000), negatives_of(None, 1_000_000), negatives_of(512, 50_000)
    (0, 8192, 512)
    """
    if asked is not None:
        return asked
    return 0 if n_songs <= MOST_SONGS_IN_FULL else NEGATIVES


class NegativeSampler:
    """Draws negatives by training frequency to the power 0.75 (Mikolov et al. 2013, section 2.2); doubles are drawn once."""

    def __init__(self, frequencies: Tensor, power: float = 0.75):
        """`frequencies` (T,): plays of each fitted song in training; the specials and songs without a play are never drawn."""
        weights = frequencies.double().pow(power)
        weights[:FIRST_NUMBER] = 0
        self.probabilities = weights / weights.sum()
        self.cumulative = self.probabilities.cumsum(0)

    def draw(self, n_draws: int, generator: torch.Generator) -> Negatives:
        """Draw `n_draws` times, K distinct songs; `generator` lives on the frequencies' device."""
        uniform = torch.rand(n_draws, generator=generator, device=self.cumulative.device, dtype=torch.float64)
        # Right of equal sums, so that a song of no probability, whose sum is that of the one before, is passed over.
        songs = torch.searchsorted(self.cumulative, uniform * self.cumulative[-1], right=True)
        songs = songs.clamp(FIRST_NUMBER, len(self.cumulative) - 1).unique()  # type: ignore[no-untyped-call]
        # A song is in the sample unless all draws miss it: 1 - (1 - p)^n.
        expected_count = -torch.expm1(n_draws * torch.log1p(-self.probabilities[songs].clamp(max=1 - 1e-9)))
        return Negatives(songs=songs, log_expected_count=expected_count.log().float())


def sampled_cross_entropy(positive: Tensor, shared: Tensor, targets: Tensor, negatives: Negatives) -> Tensor:
    """Mean cross-entropy of targets with scores (M,) among K negatives with scores (M, K), corrected by how often each is drawn.

    Bengio and Senécal 2008; Yi et al., RecSys 2019, section 4 (logQ): without the correction popular songs are pushed down.
    """
    corrected = shared - negatives.log_expected_count
    corrected = corrected.masked_fill(targets[:, None] == negatives.songs, -torch.inf)  # a target is no negative of its own
    logits = torch.cat([positive[:, None], corrected], dim=1)  # (M, 1 + K)
    return F.cross_entropy(logits, torch.zeros_like(targets))
