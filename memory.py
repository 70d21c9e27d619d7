"""What a model looks up instead of learning it: a memory of counts and copies, weighed by the encoder.

A transformer of this size neither counts nor copies well, while next songs mostly follow fixed pairs, stand in lists like this
one, or repeat.  Each `Source` here finds songs that speak for themselves, with several signals each; the encoder decides, by
gates from its output, how much each signal weighs at this place.  Its closest relatives are the pointer of See et al. 2017
(https://arxiv.org/abs/1704.04368, section 2.2) and the nearest neighbours of Khandelwal et al. 2020 (kNN-LM,
https://arxiv.org/abs/1911.00172, section 2).

In training, the list at hand has supported the very pairs that it would look up, so the gates would learn to trust counts that no
new list has.  Tables therefore come in editions: 0 counts all training lists, e > 0 all but those of fold e, and a training row
looks up the edition that leaves its own fold out (cross-fitting, as in the stacking of Wolpert 1992).

Shape letters: B rows of a batch, L places of a row, M places to predict, W songs of context, K neighbours of a song, C songs
found at a place (with doubles), U distinct ones, S signals, V songs of the catalogue, E editions, Q pieces of training lists.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, PAD, UNKNOWN

# Logarithms are taken of so many times a share: at 1,000 the many weak songs outvote the few strong ones at the top.
SHARPNESS_OF_LOG = 30.0
# How much relations count at first beside "after" and "next": with little data training does not get far from it.
INITIAL_STRENGTH = {"before": 0.5, "near": 0.3, "artist": 0.1, "album": 0.2, "same": 0.1, "track": 0.5}
# The relation of a song to itself.
ITSELF = "same"
# New songs that an artist (or album) may have beyond the width of the table, when a memory grows by them.
ROOM_FOR_NEW = 16
# Entries that a table of places may have for `added_up`: 16 MB, which an allocator hands out again without clearing them.
LARGEST_TABLE = 2**22
# Tables whose first dimension is the edition.
EDITED = frozenset({"song_plays", "songs", "counts", "totals"})


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Which songs stand in one relation to a song (or to its artist, or album), and how strongly training supports it."""

    name: str
    songs: Tensor  # (E, rows, K) int32, strongest first, PAD where there are fewer
    counts: Tensor  # (E, rows, K) float32 support of the pair
    totals: Tensor  # (E, rows) float32 training lists that hold the row's song (artist, album)
    reach: int  # how many songs back from the place to predict it is looked up
    key_of_song: Tensor | None = None  # (V,) the row of each song; None: its number


@dataclass(frozen=True, kw_only=True)
class ListIndex:
    """The training lists, cut into pieces, and where each song stands in them."""

    pieces: Tensor  # (Q, songs of a piece) int32, PAD at the end; piece 0 is empty
    list_of_piece: Tensor  # (Q,) int64 number of the training list; -1 for piece 0
    pieces_of_song: Tensor  # (V, any) int32 pieces that hold each song, the newest; 0 where there are fewer
    rarity: Tensor  # (V,) float32 log of pieces over pieces with this song; 0 for songs in none


class Origin(NamedTuple):
    """Where the rows of a training batch come from, so that nothing is looked up that they have put there themselves."""

    lists: Tensor  # (B,) int64 number of the training list
    editions: Tensor  # (B,) int64 the edition that leaves the list out

    def at(self, row: Tensor) -> "Origin":
        """Of some rows, (M,) each."""
        return Origin(self.lists[row], self.editions[row])


class Evidence(NamedTuple):
    """Songs found at each place, each once, PAD for none, and what speaks for them."""

    songs: Tensor  # (M, U) int64
    signals: Tensor  # (S, M, U) 0 and above


class LookedUp(NamedTuple):
    """Sparse additions to the scores of M places: C songs each, which may occur more than once; PAD stands for none."""

    songs: Tensor  # (M, C) int64
    bonus: Tensor  # (M, C)


class Place:
    """M places to predict in rows of songs."""

    def __init__(self, songs: Tensor, row: Tensor, column: Tensor):
        """`songs` (B, L) int64, and the row and column (M,) of each place."""
        self.row = row
        back = column[:, None] - torch.arange(1, max(2, songs.shape[1]), device=songs.device)
        self._before = torch.where(back >= 0, songs[row[:, None], back.clamp(min=0)], PAD)  # (M, L - 1)

    def context(self, reach: int) -> Tensor:
        """The songs one, two, ... `reach` places before each place, PAD beyond the row: (M, W).

        W is less than `reach` where no row is so long.
        """
        return self._before[:, :reach]

    def of_songs_below(self, n_songs: int) -> "Place":
        """The same places, with every song from number `n_songs` on unknown."""
        other = copy.copy(self)
        other._before = torch.where(self._before < n_songs, self._before, UNKNOWN)
        return other


class Source(nn.Module):
    """One way to find songs.  `initial_weights` has an entry per signal: what the gates begin with."""

    name: str
    reach: int  # how many songs back from the place to predict it looks for others
    initial_weights: tuple[float, ...]

    @property
    def looks_back(self) -> int:
        """How many songs before a place it reads."""
        return self.reach

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """Songs and signals at M places; `origin` (M,) of training rows, None takes the full edition; `song_plays` (E, V)."""
        raise NotImplementedError

    def grown(self, n_songs: int, groups: Mapping[str, Tensor]) -> "Source":
        """The source after N songs were added to the V = `n_songs` there were, with the same parameters.

        `groups` has the (N,) numbers of their artists and albums, by the name of the relation.  What compares song numbers and
        looks nothing up by them may stay as it is.
        """
        return self


class CountedRelation(Source):
    """Songs of one relation to those of the context, added up over the context with a fading that is learned."""

    AMOUNTS = 3  # share c / n of the key's lists, cosine c / sqrt(n m), count c
    initial_weights: tuple[float, ...] = (4.0, 2.0, 0.2, 0.2, 0.2, 1.0)
    songs: Tensor
    counts: Tensor
    totals: Tensor
    key_of_song: Tensor | None

    def __init__(self, relation: Relation):
        super().__init__()
        self.name, self.reach = relation.name, relation.reach
        strength = INITIAL_STRENGTH.get(self.name, 1.0)
        self.initial_weights = tuple(strength * weight for weight in type(self).initial_weights)
        for part in ("songs", "counts", "totals", "key_of_song"):
            self.register_buffer(part, getattr(relation, part))
        distance = torch.arange(1, self.reach + 1)
        self.fading = nn.Parameter((distance**-0.5).repeat(self.AMOUNTS, 1))  # (AMOUNTS, W)

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """Share, cosine, their logarithms, the logarithm of the count, and the share beside the best song's."""
        keys = self._keys(place.context(self.reach))  # (M, W)
        neighbours, counts, totals, plays = self._look_up(keys, origin, song_plays)
        amounts = torch.stack([counts / (totals + 1), counts / ((totals + 1) * (plays + 1)).sqrt(), counts])  # (3, M, W, K)
        faded = amounts * self.fading[:, None, : keys.shape[1], None].clamp(min=0)
        songs, (share, cosine, count) = added_up(neighbours.flatten(1), faded.flatten(2), song_plays.shape[1])
        logs = [(SHARPNESS_OF_LOG * share).log1p(), (SHARPNESS_OF_LOG * cosine).log1p(), count.log1p()]
        return Evidence(songs, torch.stack([share, cosine, *logs, _beside_best(share)]))

    def _keys(self, context: Tensor) -> Tensor:
        """The table row of each context song; row PAD, which is empty, for what is no song or has no artist or album."""
        keys = context if self.key_of_song is None else self.key_of_song[context]
        return torch.where((context >= FIRST_NUMBER) & (keys >= FIRST_NUMBER), keys, PAD)

    def _look_up(self, keys: Tensor, origin: Origin | None, song_plays: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Neighbours and, for each, its count, the lists with the key and those with the neighbour: (M, W, K) each."""
        if origin is None:
            neighbours, counts, totals = (_rows(table[0], keys) for table in (self.songs, self.counts, self.totals))
            return neighbours.long(), counts, totals[..., None], _rows(song_plays[0], neighbours)
        edition = origin.editions
        of_table = edition.clamp(max=len(self.songs) - 1)[:, None]  # what holds by itself has one edition
        neighbours = self.songs[of_table, keys].long()
        totals = self.totals[of_table, keys][..., None]
        return neighbours, self.counts[of_table, keys], totals, song_plays[edition[:, None, None], neighbours]

    def grown(self, n_songs: int, groups: Mapping[str, Tensor]) -> Source:
        """New songs stand in the rows of their artist (or album), and in "same" for themselves; elsewhere nothing is counted."""
        n_new = len(next(iter(groups.values())))
        if self.name == ITSELF:
            return self._with_rows(torch.arange(n_songs, n_songs + n_new), added=1.0)
        if self.key_of_song is None:
            return OfOldSongs(self, n_songs)
        keys = groups[self.name].to(self.key_of_song)
        n_rows = max(self.songs.shape[1], int(keys.max()) + 1)
        larger = self._with_rows(torch.full((n_rows - self.songs.shape[1],), PAD), added=0.0)
        larger.register_buffer("key_of_song", torch.cat([self.key_of_song, keys]))
        larger._append(keys, n_songs)
        return larger

    def _with_rows(self, songs: Tensor, added: float) -> "CountedRelation":
        """A relation with R more rows of one song each (PAD for none), of support `added`; as if one list held their key."""
        larger, E = twin(self), len(self.songs)
        first = F.pad(songs.to(self.songs)[:, None], (0, self.songs.shape[2] - 1)).expand(E, -1, -1)  # (E, R, K)
        larger.register_buffer("songs", torch.cat([self.songs, first], dim=1))
        larger.register_buffer("counts", torch.cat([self.counts, (first != PAD) * added], dim=1))
        larger.register_buffer("totals", F.pad(self.totals, (0, len(songs)), value=1.0))
        return larger

    def _append(self, keys: Tensor, n_songs: int) -> None:
        """Write the songs from `n_songs` on behind those of their rows (N,), where they count as played once.

        A row takes what has room in it and at most ROOM_FOR_NEW more, for which the table becomes wider.  The tables must be
        this relation's own.
        """
        real = keys >= FIRST_NUMBER
        rows, songs = keys[real], torch.arange(n_songs, n_songs + len(keys), device=keys.device)[real]
        order = rows.argsort(stable=True)
        rows, songs = rows[order], songs[order]
        before = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)  # new songs of the same row
        place = (self.songs[0] != PAD).sum(1)[rows] + before
        K = self.songs.shape[2]
        kept = place < K + ROOM_FOR_NEW
        rows, songs, place = rows[kept], songs[kept], place[kept]
        wider = (0, max(0, int(place.max()) + 1 - K) if len(place) else 0)
        self.songs, self.counts = F.pad(self.songs, wider), F.pad(self.counts, wider)
        self.songs[:, rows, place] = songs.to(self.songs)
        self.counts[:, rows, place] = 1.0


class HeardBefore(Source):
    """What came next when the last songs were heard earlier in the same sequence: copying by matching a suffix.

    A song of the past speaks for itself when the songs shortly before it were the last songs of the context, most of all in the
    same order.
    """

    name = "again"
    initial_weights = (6.0, 1.0, 0.1)
    LAST, BEFORE = 4, 6  # last songs of the context that are compared, and places before a song where they may stand

    def __init__(self, reach: int):
        super().__init__()
        self.reach = reach
        rank = torch.arange(1, self.LAST + 1, dtype=torch.float32)
        kernel = torch.full((self.LAST, self.BEFORE), 0.05)
        kernel[:, : self.LAST] += torch.diag(1 / rank)
        self.kernel = nn.Parameter(kernel)
        self.fading = nn.Parameter(torch.zeros(reach.bit_length()))  # log weight by the logarithm of the distance

    @property
    def looks_back(self) -> int:
        """The songs that may come again, and those before the furthest of them."""
        return self.reach + self.BEFORE

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """How well the songs before match, its logarithm, and the match beside the best one."""
        past = F.pad(place.context(self.reach + self.BEFORE), (0, self.BEFORE), value=PAD)  # (M, W + BEFORE), the newest first
        W = min(self.reach, past.shape[1] - self.BEFORE)
        heard = past[:, :W]
        before = past[:, 1 : W + self.BEFORE].unfold(1, W, 1)  # (M, BEFORE, W): the songs one, two, ... places before each
        last = past[:, : self.LAST, None, None]  # (M, LAST, 1, 1)
        stands = (before[:, None] == last) & (last >= FIRST_NUMBER)  # (M, LAST, BEFORE, W)
        match = self.kernel.clamp(min=0).flatten() @ stands.flatten(1, 2).float()  # (M, W)
        distance = torch.arange(1, W + 1, device=heard.device)
        match = match * self.fading[distance.log2().long()].exp()
        is_song = heard >= FIRST_NUMBER
        songs, (total,) = added_up(torch.where(is_song, heard, PAD), (match * is_song)[None], song_plays.shape[1])
        return Evidence(songs, torch.stack([total, total.log1p(), _beside_best(total)]))


class NearestLists(Source):
    """Songs of the training lists that are most like this one; those near the last song may count for more.

    Lists are compared by their rare common songs.  The votes of the `neighbours` most similar pieces are taken twice: nearly by
    similarity, and with most of the weight on the very nearest.
    """

    name = "lists"
    initial_weights = (2.0, 2.0, 0.2, 0.2)
    SHARPNESS = (1.0, 5.0)
    FURTHEST = 16  # places from the last song, in either direction, that are told apart
    pieces: Tensor
    list_of_piece: Tensor
    pieces_of_song: Tensor
    rarity: Tensor
    size: Tensor

    def __init__(self, index: ListIndex, neighbours: int, reach: int):
        super().__init__()
        self.neighbours, self.reach = neighbours, reach
        for part in ("pieces", "list_of_piece", "pieces_of_song", "rarity"):
            self.register_buffer(part, getattr(index, part))
        self.register_buffer("size", (index.pieces != PAD).sum(1).clamp(min=1).float(), persistent=False)
        self.fading = nn.Parameter(torch.zeros(reach))  # log weight of the context song so far back
        self.sharpness = nn.Parameter(torch.tensor(self.SHARPNESS))
        self.offset = nn.Parameter(torch.zeros(len(self.SHARPNESS), 2 * self.FURTHEST + 2))  # log weight by place, last: unknown

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """The two votes and their logarithms."""
        context = place.context(self.reach)  # (M, W)
        nearest, similarity = self._nearest(context, origin)  # (M, N) each
        songs = _rows(self.pieces, nearest).long()  # (M, N, songs of a piece)
        at = self._offsets(songs, context[:, 0])
        is_like, log_similarity = similarity > 0, similarity.clamp(min=1e-6).log()
        votes = []
        for sharpness, offset in zip(self.sharpness, self.offset, strict=True):
            weight = torch.softmax((sharpness * log_similarity).masked_fill(~is_like, -1e4), dim=1) * is_like  # (M, N)
            votes.append(weight[..., None] * offset.exp()[at] * (songs != PAD))
        found, added = added_up(songs.flatten(1), torch.stack(votes).flatten(2), song_plays.shape[1])
        return Evidence(found, torch.cat([added, (SHARPNESS_OF_LOG * added).log1p()]))

    def _nearest(self, context: Tensor, origin: Origin | None) -> tuple[Tensor, Tensor]:
        """The most similar pieces (M, N) and their similarity, 0 for none; the row's own list is no neighbour."""
        pieces = _rows(self.pieces_of_song, context).long()  # (M, W, any)
        if origin is not None:
            pieces = pieces.masked_fill(self.list_of_piece[pieces] == origin.lists[:, None, None], 0)
        weight = self.fading[: context.shape[1]].exp() * self.rarity[context] * (context >= FIRST_NUMBER)  # (M, W)
        found, (common,) = added_up(pieces.flatten(1), weight[..., None].expand(pieces.shape).flatten(1)[None], len(self.pieces))
        similarity = torch.where(found > 0, common / self.size[found].sqrt(), 0.0)
        # Of equally similar pieces the newest, whatever the batch: the bits of a float that is not negative rise with it.
        rank = (similarity.detach().view(torch.int32).long() << 32) + found
        best = rank.topk(min(self.neighbours, rank.shape[1]), dim=1).indices
        return found.gather(1, best), similarity.gather(1, best)

    def _offsets(self, songs: Tensor, last: Tensor) -> Tensor:
        """How far each song of a piece stands from the context's last song in it, as a column of `offset`: (M, N, any)."""
        is_last = (songs == last[:, None, None]) & (last >= FIRST_NUMBER)[:, None, None]
        anchor = is_last.int().argmax(dim=2, keepdim=True)  # (M, N, 1)
        distance = torch.arange(songs.shape[2], device=songs.device) - anchor
        known = distance.clamp(-self.FURTHEST, self.FURTHEST) + self.FURTHEST
        return torch.where(is_last.any(dim=2, keepdim=True), known, 2 * self.FURTHEST + 1)

    def grown(self, n_songs: int, groups: Mapping[str, Tensor]) -> Source:
        """No training list holds a new song."""
        return OfOldSongs(self, n_songs)


class OfOldSongs(Source):
    """A source whose tables end before the songs that a memory has grown by: in a context those are unknown to it."""

    def __init__(self, source: Source, n_songs: int):
        super().__init__()
        self.name, self.reach, self.initial_weights = source.name, source.reach, source.initial_weights
        self.source, self.n_songs = source, n_songs

    @property
    def looks_back(self) -> int:
        """As far as the source does."""
        return self.source.looks_back

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """What the source finds for the old songs."""
        return self.source(place.of_songs_below(self.n_songs), origin, song_plays)


class Memory(nn.Module):
    """All sources together: adds to the scores of the songs that they find."""

    song_plays: Tensor

    def __init__(self, d_model: int, sources: Sequence[Source], song_plays: Tensor):
        """`song_plays` (E, V): training lists that hold each song, in each edition."""
        super().__init__()
        self.register_buffer("song_plays", song_plays.float())
        self.sources = nn.ModuleList(sources)
        self.n_signals = [len(source.initial_weights) for source in sources]
        initial = torch.tensor([weight for source in sources for weight in source.initial_weights])
        self.gate = nn.Linear(d_model, len(initial))
        nn.init.zeros_(self.gate.weight)
        with torch.no_grad():
            self.gate.bias.copy_(initial.expm1().log())  # softplus(gate) begins at the initial weights
        self.popularity = nn.Parameter(torch.tensor(-1.0))

    def forward(self, songs: Tensor, places: Tensor, queries: Tensor, origin: Origin | None = None) -> LookedUp:
        """Look up the songs before each place: `songs` (B, L), `places` (M,) in B * L, `queries` (M, D) from the encoder.

        `origin` (B,) says in training which lists the rows are; None looks everything up.
        """
        place = Place(songs, places // songs.shape[1], places % songs.shape[1])
        of_place = None if origin is None else origin.at(place.row)
        gates = F.softplus(self.gate(queries)).T.split(self.n_signals)  # type: ignore[no-untyped-call]  # (S, M) of each source
        found = []
        for source, gate in zip(self.sources, gates, strict=True):
            evidence: Evidence = source(place, of_place, self.song_plays)
            found.append((evidence.songs, torch.einsum("sm,smu->mu", gate, evidence.signals)))
        return LookedUp(torch.cat([songs for songs, _ in found], dim=1), torch.cat([bonus for _, bonus in found], dim=1))

    @property
    def reach(self) -> int:
        """How many songs before a place are looked at."""
        return max(int(source.looks_back) for source in self.sources)  # type: ignore[arg-type]

    def prior(self) -> Tensor:
        """What a song gets for being popular, in each edition: (E, V)."""
        return F.softplus(self.popularity) * self.song_plays.log1p()

    def prior_at(self, editions: Tensor, songs: Tensor) -> Tensor:
        """The prior of songs (M, C) at places of these editions (M,): (M, C)."""
        return F.softplus(self.popularity) * self.song_plays[editions[:, None], songs].log1p()

    def prior_normaliser(self) -> Tensor:
        """Log of the prior's partition function over the songs of training, in each edition: (E,)."""
        fitted = (self.song_plays[0] > 0) & (
            torch.arange(self.song_plays.shape[1], device=self.song_plays.device) >= FIRST_NUMBER
        )
        return self.prior()[:, fitted].logsumexp(1)

    def grown(self, song_artist: Tensor, song_album: Tensor) -> "Memory":
        """A memory with N more songs, which nobody has played, of these artists and albums (N,); parameters are shared.

        Tables by song are shared too; those by artist and album are copied, to write the new songs into them.
        """
        n_songs = self.song_plays.shape[1]
        larger = twin(self)
        larger.register_buffer("song_plays", F.pad(self.song_plays, (0, len(song_artist))))
        groups = {"artist": song_artist, "album": song_album}
        larger.sources = nn.ModuleList(source.grown(n_songs, groups) for source in self.sources)  # type: ignore[operator]
        return larger


Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module) -> Module:
    """A module with the very same parameters, buffers and parts, of which some can be replaced without touching the other."""
    other = copy.copy(module)
    for part in ("_parameters", "_buffers", "_modules"):
        other.__dict__[part] = module.__dict__[part].copy()
    return other


def added_up(keys: Tensor, amounts: Tensor, n_keys: int) -> tuple[Tensor, Tensor]:
    """Add up what belongs to the same key: `keys` (M, C) below `n_keys`, `amounts` (A, M, C) to (M, U) and (A, M, U).

    Each key of a row comes once in U; what is left over is 0 in both.

    >>> added_up(torch.tensor([[7, 5, 7]]), torch.tensor([[[1.0, 2.0, 3.0]]]), 8)
    (tensor([[0, 5, 7]]), tensor([[[0., 2., 4.]]]))
    """
    distinct, slot = _slots_by_table(keys, n_keys) if len(keys) * n_keys <= LARGEST_TABLE else _slots_by_order(keys)
    sums = torch.zeros(*amounts.shape[:2], distinct.shape[1], dtype=amounts.dtype, device=keys.device)
    return distinct, sums.scatter_add(2, slot.expand(amounts.shape), amounts)


def _slots_by_table(keys: Tensor, n_keys: int) -> tuple[Tensor, Tensor]:
    """Distinct keys (M, C) with gaps, and the slot of each key in them: any place of a key stands for all of them.

    A table has an entry for every key there could be, of which only those are read that were written: ten times faster than
    sorting, for a few rows.
    """
    place = torch.arange(keys.shape[1], dtype=torch.int32, device=keys.device).expand(keys.shape)
    table = torch.empty(len(keys), n_keys, dtype=torch.int32, device=keys.device)
    slot = table.scatter_(1, keys, place).gather(1, keys)
    return keys * (slot == place), slot.long()


def _slots_by_order(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct keys (M, U) in rising order, and the slot of each key (M, C) in them: for the many rows of training."""
    ordered, order = keys.int().sort(dim=1)  # int32 sorts faster
    is_new = F.pad((ordered[:, 1:] != ordered[:, :-1]).long(), (1, 0))
    slot_in_order = is_new.cumsum(1)
    slot = torch.empty_like(slot_in_order).scatter_(1, order, slot_in_order)
    U = int(slot_in_order[:, -1].max()) + 1
    distinct = torch.zeros(len(keys), U, dtype=torch.int64, device=keys.device).scatter_(1, slot_in_order, ordered.long())
    return distinct, slot


def _rows(table: Tensor, numbers: Tensor) -> Tensor:
    """`table[numbers]`, copied row by row: (...) numbers of a table (rows, ...) that is not trained; three times faster."""
    return table.index_select(0, numbers.flatten()).view(*numbers.shape, *table.shape[1:])


def _beside_best(amounts: Tensor) -> Tensor:
    """Amounts (M, U) as shares of the largest of their place."""
    return amounts / amounts.amax(dim=1, keepdim=True).clamp(min=1e-9)
