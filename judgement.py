"""What everything that a memory found says together: a small network over all signals of a song at once.

The memory weighs each signal by itself, and a sum cannot say that a song is likely because two sources agree on it, or unlikely
although one of them shouts.  So the songs that the sum ranks first are judged once more, by a perceptron that reads every signal
of a song side by side and what is known of the place: the second stage of recommenders in two stages (Covington, Adams and Sargin
2016, section 4), trained with the first, on counts that leave the list at hand out.

Shape letters: M places to predict, U distinct songs found at a place, C those with doubles, K songs judged, R relations of a
source, S signals of all relations, A amounts, W columns of one relation.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sums import LEAST_BEST, Found, Weighing, places_of_best, split_in, weighed

HIDDEN = 32
# What brings signals to a spread of about 1 on public playlists and on listening histories; nothing is fitted to one of them.
OF_PLAIN, OF_LOG, OF_BEST, OF_PLAYS, OF_SUM = 10.0, 1.5, 8.0, 0.5, 0.25
LARGEST = 8.0  # of a plain signal: a share beyond it says no more


class Evidence(NamedTuple):
    """Songs found at each place, each once in each relation, PAD for none, and what speaks for them."""

    songs: Tensor  # (M, U) int64
    amounts: Tensor  # (A, M, U) 0 and above
    weighing: Weighing
    widths: Sequence[int] | None = None  # how many of the U columns belong to each relation of the source; None: there is one
    scale: Tensor | None = None  # (M, U) of the amount that is to be scaled

    def weighed(self, gates: Tensor) -> Tensor:
        """The sum of the signals times the gates of their relation, (M, R * S): a bonus (M, U)."""
        widths = [self.songs.shape[1]] if self.widths is None else self.widths
        return weighed(self.amounts, gates, self.scale, widths, self.weighing)

    def relations(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """Which columns belong to each relation, and their amounts, (M, W) each."""
        begin = 0
        for width in [self.songs.shape[1]] if self.widths is None else self.widths:
            columns = slice(begin, begin + width)
            amounts = [amount[:, columns] for amount in self.amounts]
            if self.scale is not None and self.weighing.scaled is not None:
                amounts[self.weighing.scaled] = amounts[self.weighing.scaled] * self.scale[:, columns]
            yield columns, amounts
            begin += width


class Judgement(nn.Module):
    """A perceptron that adds to the bonus of the songs which the weighed sum ranks first."""

    def __init__(self, d_context: int, n_signals: int, most: int):
        """`d_context` numbers describe a place, `n_signals` a song (S); `most` songs of a place are judged."""
        super().__init__()
        self.most = most
        self.signals = nn.Linear(n_signals + 2, HIDDEN)  # and plays, and the weighed sum
        self.context = nn.Linear(d_context, HIDDEN, bias=False)
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        for weight in (self.context.weight, self.out.weight, self.out.bias):  # begins in the order of the weighed sum
            nn.init.zeros_(weight)

    def forward(self, evidence: Sequence[Evidence], found: Found, bonus: Tensor, log_plays: Tensor, context: Tensor) -> Tensor:
        """The bonus (M, U) of the songs `found`, 0 and above, given the weighed sum and `log_plays` (M, U).

        `found` are the distinct songs of all the evidence, `context` (M, d_context) describes the places.
        """
        best = places_of_best(bonus, found.keys, self.most)  # (M, K)
        K = best.shape[1]
        of_best = bonus.gather(1, best)
        signals = [OF_PLAYS * log_plays.gather(1, best), OF_SUM * of_best.detach()]
        rank = torch.full_like(found.keys, K).scatter_(1, best, torch.arange(K, device=best.device).expand_as(best))
        ranks = split_in(rank.gather(1, found.slots), [one.songs.shape[1] for one in evidence], 1)  # (M, C)
        for one, of_songs in zip(evidence, ranks, strict=True):
            signals += _signals(one, of_songs, K)
        hidden = self.signals(torch.stack(signals, dim=-1)) + self.context(context)[:, None]  # (M, K, HIDDEN)
        verdict = self.out(F.gelu(self.hidden(F.gelu(hidden)))).squeeze(-1)
        return bonus.scatter(1, best, F.softplus(of_best + verdict))


def n_signals_of(weighing: Weighing) -> int:
    """How many numbers a relation tells of a song."""
    return len(weighing.logs) + sum(plain is not None for plain in weighing.plain) + (weighing.best is not None)


def _signals(evidence: Evidence, ranks: Tensor, K: int) -> list[Tensor]:
    """What each relation tells of the K judged songs, (M, K) each; `ranks` (M, U) are theirs, K stands for the others."""
    weighing, signals = evidence.weighing, []
    for columns, amounts in evidence.relations():
        for number, amount in enumerate(amounts):
            of_song = amount.new_zeros(len(amount), K + 1).scatter(1, ranks[:, columns], amount)[:, :K]
            signals.append(OF_LOG * (weighing.sharpness[number] * of_song).log1p())
            if weighing.plain[number] is not None:
                signals.append((OF_PLAIN * of_song).clamp(max=LARGEST))
            if number == 0 and weighing.best is not None:
                most = amount.amax(1, keepdim=True) if amount.shape[1] else amount.new_zeros(len(amount), 1)
                signals.append(OF_BEST * of_song / most.clamp(min=LEAST_BEST))
    return signals
