"""What a model looks up instead of learning it: a memory of counts and copies, weighed by the encoder.

A transformer of this size neither counts nor copies well, while next songs mostly follow fixed pairs, stand in lists like this
one, or repeat.  Each source (`sources`, `newcomers`) finds songs that speak for themselves, with several signals each; the
encoder decides, by gates from its output, how much each signal weighs at this place, and the best by that sum are judged by all
signals at once (`judgement`).  Its closest relatives are the pointer of See et al. 2017
(https://arxiv.org/abs/1704.04368, section 2.2) and the nearest neighbours of Khandelwal et al. 2020 (kNN-LM,
https://arxiv.org/abs/1911.00172, section 2).

Shape letters: B rows of a batch, L places of a row, M places to predict, W songs of context, C songs found at a place (with
doubles), U distinct ones, R relations, S signals, V songs of the catalogue, E editions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, PAD
from judgement import Evidence, Judgement, n_signals_of
from newcomers import Newcomers
from sources import Origin, Place, Source, of_edition, twin
from sums import Found, added_up, distinct, rows_of, split_in

# Numbers that describe a place beside the query, from so many songs before it.
OF_CONTEXT, LOOKED_OVER = 3, 50
# Tables whose first dimension is the edition.
EDITED = frozenset({"song_plays", "totals"})


class LookedUp(NamedTuple):
    """Sparse additions to the scores of M places: U songs each, none of them twice; PAD stands for none."""

    songs: Tensor  # (M, U) int64
    bonus: Tensor  # (M, U) 0 and above


class Memory(nn.Module):
    """All sources together: adds to the scores of the songs that they find."""

    song_plays: Tensor

    def __init__(
        self, d_model: int, sources: Sequence[Source], song_plays: Tensor, judged: int = 0, newcomers: Newcomers | None = None
    ):
        """`song_plays` (E, V): training lists that hold each song, in each edition; `judged` songs are judged, 0: none.

        `newcomers` find more by what the `sources` found; None: nothing does.
        """
        super().__init__()
        self.register_buffer("song_plays", song_plays.float())
        self.sources = nn.ModuleList(sources)
        self.newcomers = newcomers
        self.n_signals = [len(source.initial_weights) for source in self.all_sources]
        initial = torch.tensor([weight for source in self.all_sources for weight in source.initial_weights])
        self.gate = nn.Linear(d_model + OF_CONTEXT, len(initial))
        nn.init.zeros_(self.gate.weight)
        with torch.no_grad():
            self.gate.bias.copy_(initial.expm1().log())  # softplus(gate) begins at the initial weights
        self.popularity = nn.Parameter(torch.tensor(-1.0))
        n_signals = sum(n_signals_of(source.WEIGHING) * len(source.names) for source in self.all_sources)
        self.judgement = Judgement(d_model + OF_CONTEXT, n_signals, judged) if judged else None

    def forward(self, songs: Tensor, places: Tensor, queries: Tensor, origin: Origin | None = None) -> LookedUp:
        """Look up the songs before each place: `songs` (B, L), `places` (M,) in B * L, `queries` (M, D) from the encoder.

        `origin` (B,) says in training which lists the rows are; None looks everything up.
        """
        place = Place(songs, places // songs.shape[1], places % songs.shape[1])
        of_place = None if origin is None else origin.at(place.row)
        context = torch.cat([queries.float(), self._described(place, of_place)], dim=1)
        gates = split_in(F.softplus(self.gate(context)).float(), self.n_signals, 1)  # (M, R * S) of each source
        evidence: list[Evidence] = [source(place, of_place, self.song_plays) for source in self.sources]
        bonuses = [one.weighed(gate) for one, gate in zip(evidence, gates, strict=False)]  # that of the newcomers is left
        found = distinct(torch.cat([one.songs for one in evidence], dim=1), self.song_plays.shape[1])
        (bonus,) = added_up(torch.cat(bonuses, dim=1).float()[None], None, found)  # (M, U)
        bonus = bonus * (found.keys != PAD)
        if self.newcomers is not None:
            evidence.append(self.newcomers(place, of_place, found, bonus, self.song_plays))
            found, bonus = self._with_more(found, bonus, evidence[-1].songs, evidence[-1].weighed(gates[-1]).float())
        if self.judgement is not None:
            log_plays = of_edition(self.song_plays, of_place, found.keys).log1p()
            bonus = self.judgement(evidence, found, bonus, log_plays, context) * (found.keys != PAD)
        return LookedUp(found.keys, bonus)

    def _with_more(self, found: Found, bonus: Tensor, songs: Tensor, more: Tensor) -> tuple[Found, Tensor]:
        """What was found with its bonus (M, U), and further songs (M, C) with `more` for each, PAD for none."""
        U = found.keys.shape[1]
        both = distinct(torch.cat([found.keys, songs], dim=1), self.song_plays.shape[1])
        (total,) = added_up(torch.cat([bonus, more], dim=1)[None], None, both)
        slots = torch.cat([both.slots[:, :U].gather(1, found.slots), both.slots[:, U:]], dim=1)
        return Found(both.keys, slots, both.widths), total * (both.keys != PAD)

    def _described(self, place: Place, origin: Origin | None) -> Tensor:
        """What gates and judgement know of a place beside the query, (M, OF_CONTEXT).

        The share of songs that nobody has played, whether the last one is such a song, and the length of the context.
        """
        context = place.context(LOOKED_OVER)  # (M, W)
        is_song = context >= FIRST_NUMBER
        n_songs = is_song.sum(1).clamp(min=1).float()
        unheard = is_song & (of_edition(self.song_plays, origin, context) == 0)
        return torch.stack([unheard.sum(1) / n_songs, unheard[:, 0].float(), n_songs.log() / 4], dim=1)

    @property
    def reach(self) -> int:
        """How many songs before a place are looked at."""
        return max(LOOKED_OVER, *(source.looks_back for source in self.all_sources))

    @property
    def all_sources(self) -> "list[Source | Newcomers]":
        """Those that read the context alone, and last the one that reads what they found."""
        return [*self.sources, *([] if self.newcomers is None else [self.newcomers])]

    def learned(self) -> dict[str, list[Tensor]]:
        """What was learned of each relation, by its name, as views: gate weights (S, D), biases (S,), parameters of its own."""
        gates = zip(split_in(self.gate.weight, self.n_signals, 0), split_in(self.gate.bias, self.n_signals, 0), strict=True)
        learned = {}
        for source, of_source in zip(self.all_sources, gates, strict=True):
            n = len(source.names)
            for (name, own), *gate in zip(source.learned().items(), *(part.chunk(n) for part in of_source), strict=True):
                learned[name] = [*gate, *own]
        return learned

    def prior(self) -> Tensor:
        """What a song gets for being popular, in each edition: (E, V)."""
        return F.softplus(self.popularity) * self.song_plays.log1p()

    def prior_at(self, editions: Tensor | None, songs: Tensor) -> Tensor:
        """What some songs (M, C) get for being popular, in the edition (M,) of their place, None for the full one: (M, C)."""
        V = self.song_plays.shape[1]
        edited = songs if editions is None else songs + (editions * V)[:, None]
        return F.softplus(self.popularity) * rows_of(self.song_plays.view(-1), edited).log1p()

    def grown(self, song_artist: Tensor, song_album: Tensor) -> "Memory":
        """A memory with N more songs, which nobody has played, of these artists and albums (N,); parameters are shared.

        So are the tables of what was counted; those of songs that nobody has played are made anew, with the new ones in them.
        """
        n_songs = self.song_plays.shape[1]
        larger = twin(self)
        larger.register_buffer("song_plays", F.pad(self.song_plays, (0, len(song_artist))))
        groups = {"artist": song_artist, "album": song_album}
        larger.sources = nn.ModuleList(source.grown(n_songs, groups) for source in self.sources)  # type: ignore[operator]
        larger.newcomers = None if self.newcomers is None else self.newcomers.grown(n_songs, groups)
        return larger
