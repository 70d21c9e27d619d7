"""What a memory looks songs up in: counted relations, the most similar training lists, what was heard before.

In training, the list at hand has supported the very pairs that it would look up, so whoever weighs them would learn to trust
counts that no new list has.  Counts therefore come in editions: 0 counts all training lists, e > 0 all but those of fold e, and a
training row looks up the edition that leaves its own fold out (cross-fitting, as in the stacking of Wolpert 1992).  Each of these
editions also takes some songs for unheard that other lists do hold (as item dropout does: Volkovs, Yu and Poutanen, DropoutNet,
NIPS 2017, section 4.2), so that what is said of songs that nobody has played can be learned from songs that somebody has.  All
editions choose from the same neighbours; a fold's own counts stand beside those of the whole, and only where a model is trained.

Rows of a table are as long as they need to be and stand one behind the other, with where each begins; `take` copies rows of one
width from such a table as fast as from one with rows of equal length.

Shape letters: B rows of a batch, L places of a row, M places to predict, W songs of context, K neighbours of a song at most, C
songs found at a place (with doubles), U distinct ones, R relations, A amounts that are added up, S signals, V songs of the
catalogue, E editions, Q pieces of training lists, n entries of a table.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, PAD
from judgement import Evidence
from sums import Weighing, added_up, distinct, first_ones, padded, places_of_best, rows_of, split_in, take

# Logarithms are taken of so many times a share: at 1,000 the many weak songs outvote the few strong ones at the top.
SHARPNESS_OF_LOG = 30.0
# How much relations count at first beside "after" and "next": with little data training does not get far from it.
INITIAL_STRENGTH = {"before": 0.5, "near": 0.3, "artist": 0.1, "album": 0.2, "same": 0.1, "track": 0.5}
# The relation of a song to itself.
ITSELF = "same"
# Support below this is what floating point left over.
NOTHING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Relations:
    """Which songs stand in some relations to a song (or to its artist, or album), and how strongly training supports it.

    Row r of the tables, which begins at `starts[r]`, lists the neighbours of one song in one relation; row 0 has none.
    """

    names: tuple[str, ...]  # R of them
    reaches: tuple[int, ...]  # how many songs back from the place to predict each is looked up
    rows: tuple[int, ...]  # how many rows of the tables belong to each
    most: int  # how many neighbours a row has in the full edition; those behind them stand in for some that an edition lacks
    row_of_song: Tensor  # (R, V) int32; 0 where a song has none
    starts: Tensor  # (rows + 1,) int64
    songs: Tensor  # (n,) int32
    counts: Tensor  # (n,) float32 support of the pair in all lists
    totals: Tensor  # (E, rows) float32 training lists that hold the row's song (artist, album)
    fold_counts: Tensor | None = None  # (E - 1, n) what each fold added to `counts`; None: nothing, it rests on no list

    @classmethod
    def joined(cls, parts: Sequence["Relations"]) -> "Relations":
        """All relations of several tables in one; all of them have editions, or none.

        The parts are used up, so that only one column at a time is held twice, and the tables are padded as a source pads them.
        """
        bases = list(accumulate((part.totals.shape[1] for part in parts), initial=0))
        ends = list(accumulate((int(part.starts[-1]) for part in parts), initial=0))
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        width = max(part.width for part in parts)

        def column(name: str) -> Tensor | None:
            tables = [part.__dict__.pop(name) for part in parts]
            sizes = [after - end for end, after in pairwise(ends)]
            columns = [table[..., :size] for table, size in zip(tables, sizes, strict=True) if table is not None]
            if not columns:
                return None
            return torch.cat([*columns, columns[0].new_zeros((*columns[0].shape[:-1], width))], dim=-1)

        songs, counts = column("songs"), column("counts")
        assert songs is not None
        assert counts is not None
        return cls(
            names=tuple(name for part in parts for name in part.names),
            reaches=tuple(reach for part in parts for reach in part.reaches),
            rows=tuple(rows for part in parts for rows in part.rows),
            most=max(part.most for part in parts),
            row_of_song=torch.cat([_moved(part.row_of_song, base) for part, base in zip(parts, bases, strict=False)]),
            starts=torch.cat([*starts, torch.tensor(ends[-1:])]),
            songs=songs,
            counts=counts,
            totals=torch.cat([part.totals for part in parts], dim=1),
            fold_counts=column("fold_counts"),
        )

    @property
    def width(self) -> int:
        """K: entries of the longest row, at least 1."""
        return max(1, int(self.starts.diff().max()))


@dataclass(frozen=True, kw_only=True)
class ListIndex:
    """The training lists, cut into pieces, and where each song stands in them.  Piece 0 is empty."""

    songs: Tensor  # (n,) int32 of all lists, PAD where one is unknown
    starts: Tensor  # (Q,) int64 where each piece begins in them; pieces may overlap
    lengths: Tensor  # (Q,) int64
    list_of_piece: Tensor  # (Q,) int64 number of the training list; -1 for piece 0
    pieces: Tensor  # (any,) int32 pieces that hold each song, the newest, song after song
    pieces_of_song: Tensor  # (V + 1,) int64 where those of each song begin
    rarity: Tensor  # (V,) float32 log of pieces over pieces with this song; 0 for songs in none
    unheard: Tensor | None = None  # (E, V) bool songs that an edition's lists do not hold; only where a model is trained


class Origin(NamedTuple):
    """Where the rows of a training batch come from, so that nothing is looked up that they have put there themselves."""

    lists: Tensor  # (B,) int64 number of the training list
    editions: Tensor  # (B,) int64 the edition that leaves the list out, 1 and above

    def at(self, row: Tensor) -> "Origin":
        """Of some rows, (M,) each."""
        return Origin(self.lists[row], self.editions[row])


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


class Source(nn.Module):
    """One way to find songs, or several alike.  `initial_weights` has what the gates begin with: S signals of each relation."""

    names: tuple[str, ...]
    WEIGHING: Weighing
    reach: int  # how many songs back from the place to predict it looks for others
    initial_weights: tuple[float, ...]

    @property
    def looks_back(self) -> int:
        """How many songs before a place it reads."""
        return self.reach

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """Songs and signals at M places; `origin` (M,) of training rows, None takes the full edition; `song_plays` (E, V)."""
        raise NotImplementedError  # each source finds songs in its own way; there is none to fall back on

    def learned(self) -> dict[str, list[Tensor]]:
        """The parameters of each relation, by its name; they may be views of a parameter."""
        return {self.names[0]: list(self.parameters())}

    def grown(self, n_songs: int, groups: Mapping[str, Tensor]) -> "Source":
        """The source after N songs were added to the V = `n_songs` there were, with the same parameters.

        `groups` has the (N,) numbers of their artists and albums, by the name of the relation.  What looks up no song by its
        number, or passes over numbers that it does not know, may stay as it is.
        """
        return self


class CountedRelations(Source):
    """Songs in a relation to those of the context, added up over the context with a fading that is learned."""

    AMOUNTS = 3  # share c / n of the key's lists, cosine c / sqrt(n m), count c
    # Signals: share, cosine, their logarithms, the logarithm of the count, and the share beside the best song's.
    WEIGHING = Weighing(plain=(0, 1, None), logs=(2, 3, 4), sharpness=(SHARPNESS_OF_LOG, SHARPNESS_OF_LOG, 1.0), best=5, scaled=1)
    WEIGHTS = (4.0, 2.0, 0.2, 0.2, 0.2, 1.0)
    row_of_song: Tensor
    starts: Tensor
    songs: Tensor
    counts: Tensor
    totals: Tensor
    fold_counts: Tensor | None
    kept_songs: Tensor
    kept_counts: Tensor

    def __init__(self, relations: Relations):
        super().__init__()
        self.names, self.reaches, self.rows = relations.names, relations.reaches, relations.rows
        self.reach = max(self.reaches)
        self.initial_weights = tuple(INITIAL_STRENGTH.get(name, 1.0) * weight for name in self.names for weight in self.WEIGHTS)
        self._take_over(relations)
        distances = torch.cat([torch.arange(1, reach + 1) for reach in self.reaches])
        self.fading = nn.Parameter((distances**-0.5).repeat(self.AMOUNTS, 1))  # (AMOUNTS, W) relation after relation

    def _take_over(self, relations: Relations) -> None:
        """Make the tables of `relations` this source's own."""
        self.width, self.most, n = relations.width, relations.most, int(relations.starts[-1])
        for name in ("row_of_song", "starts", "totals"):
            self.register_buffer(name, getattr(relations, name))
        self.register_buffer("songs", padded(relations.songs, n, self.width))
        self.register_buffer("counts", padded(relations.counts, n, self.width))
        folds = relations.fold_counts
        self.register_buffer("fold_counts", None if folds is None else padded(folds, n, self.width), persistent=False)
        # What is kept of K entries by how many are the row's own: all bits of a song, and the whole count.
        self.register_buffer("kept_songs", -first_ones(self.width).int(), persistent=False)
        self.register_buffer("kept_counts", first_ones(self.width).float(), persistent=False)

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """Share, cosine and count; see `WEIGHING`."""
        context = place.context(self.reach)
        columns = [context[:, :reach] for reach in self.reaches]
        widths = [column.shape[1] for column in columns]
        rows = self._rows_of(columns)  # (M, W)
        songs, counts, totals = self._look_up(rows, origin)
        # What an edition lacks is not found: that it is listed at all would tell a training row of its own fold.
        songs = songs.masked_fill_(counts == 0, PAD)
        found = distinct(songs.flatten(1), song_plays.shape[1], [songs.shape[2] * width for width in widths])
        per_list = 1 / (totals + 1)
        factors = torch.stack([per_list, per_list.sqrt(), torch.ones_like(totals)])  # (3, M, W)
        amounts = added_up(self._fading(widths)[:, None] * factors, counts, found)  # (3, M, U)
        per_song = (of_edition(song_plays, origin, found.keys) + 1).rsqrt_()
        return Evidence(found.keys, amounts, self.WEIGHING, found.widths, per_song)

    def learned(self) -> dict[str, list[Tensor]]:
        """The fading of each relation, (AMOUNTS, its reach)."""
        return {name: [fading] for name, fading in zip(self.names, split_in(self.fading, self.reaches, 1), strict=True)}

    def _rows_of(self, columns: Sequence[Tensor]) -> Tensor:
        """The table row of each context song in each relation, side by side: (M, W)."""
        V = self.row_of_song.shape[1]
        flat = torch.cat([column + number * V for number, column in enumerate(columns)], dim=1)
        return self.row_of_song.view(-1).index_select(0, flat.flatten()).view(flat.shape)

    def _fading(self, widths: Sequence[int]) -> Tensor:
        """The weight of each context song in each relation, as far as the context goes: (AMOUNTS, W)."""
        begins = accumulate(self.reaches, initial=0)
        parts = [self.fading[:, begin : begin + width] for begin, width in zip(begins, widths, strict=False)]
        return torch.cat(parts, dim=1).clamp(min=0)

    def _look_up(self, rows: Tensor, origin: Origin | None) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours (M, W, K) of table rows, PAD beyond the end of a row, and their counts; and totals (M, W)."""
        has_editions = origin is not None and self.fold_counts is not None
        width = self.width if has_editions else min(self.width, self.most)
        first = rows_of(self.starts, rows)
        length = (rows_of(self.starts, rows + 1) - first).clamp_(max=width)
        songs = take(self.songs, first, width)
        songs &= rows_of(self.kept_songs[:, :width], length)
        counts = take(self.counts, first, width)
        if origin is None or self.fold_counts is None:
            return songs.long(), counts.mul_(rows_of(self.kept_counts[:, :width], length)), rows_of(self.totals[0], rows)
        fold = (origin.editions - 1) * self.fold_counts.shape[1]
        counts -= take(self.fold_counts.view(-1), first + fold[:, None], width)
        counts = F.threshold(counts.mul_(rows_of(self.kept_counts, length)), NOTHING, 0.0, inplace=True)
        return songs.long(), counts, of_edition(self.totals, origin, rows)

    def tables(self) -> Relations:
        """The tables without what pads them."""
        n = int(self.starts[-1])
        return Relations(
            names=self.names,
            reaches=self.reaches,
            rows=self.rows,
            most=self.most,
            row_of_song=self.row_of_song,
            starts=self.starts,
            songs=self.songs[:n],
            counts=self.counts[:n],
            totals=self.totals,
            fold_counts=None if self.fold_counts is None else self.fold_counts[:, :n],
        )

    def grown(self, n_songs: int, groups: Mapping[str, Tensor]) -> Source:
        """A new song speaks for the songs of its artist and album and, in "same", for itself; elsewhere nothing is counted."""
        n_new = len(next(iter(groups.values())))
        larger = twin(self)
        rows = [self._rows_of_new(number, n_new, groups) for number in range(len(self.names))]
        row_of_song = torch.cat([self.row_of_song, torch.stack(rows).to(self.row_of_song)], dim=1)
        if ITSELF in self.names:
            larger._take_over(replace(self._with_rows(torch.arange(n_songs, n_songs + n_new)), row_of_song=row_of_song))
        else:
            larger.register_buffer("row_of_song", row_of_song)
        return larger

    def _rows_of_new(self, number: int, n_new: int, groups: Mapping[str, Tensor]) -> Tensor:
        """The row of each new song in one relation, (N,), PAD for none; its own stand behind all others."""
        if self.names[number] == ITSELF:
            return self.totals.shape[1] + torch.arange(n_new)
        if self.names[number] not in groups:
            return torch.full((n_new,), PAD)
        keys = groups[self.names[number]].cpu()
        is_counted = (keys >= FIRST_NUMBER) & (keys < self.rows[number])
        return torch.where(is_counted, keys + sum(self.rows[:number]), PAD)

    def _with_rows(self, songs: Tensor) -> Relations:
        """The tables, which rest on no count, with a row more for each song (N,), which stands in it alone."""
        tables, n_new = self.tables(), len(songs)
        return replace(
            tables,
            starts=torch.cat([tables.starts, tables.starts[-1] + torch.arange(1, n_new + 1).to(tables.starts)]),
            songs=torch.cat([tables.songs, songs.to(tables.songs)]),
            counts=F.pad(tables.counts, (0, n_new), value=1.0),
            totals=F.pad(tables.totals, (0, n_new), value=1.0),
        )


def _moved(row_of_song: Tensor, by: int) -> Tensor:
    """Row numbers moved by so much; 0 stays, for it stands for none."""
    return torch.where(row_of_song != PAD, row_of_song + by, PAD)


class HeardBefore(Source):
    """What came next when the last songs were heard earlier in the same sequence: copying by matching a suffix.

    A song of the past speaks for itself when the songs shortly before it were the last songs of the context, most of all in the
    same order.
    """

    names = ("again",)
    WEIGHING = Weighing(plain=(0,), logs=(1,), sharpness=(1.0,), best=2)
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
        """How well the songs before match; signals are that, its logarithm, and the match beside the best one."""
        past = F.pad(place.context(self.reach + self.BEFORE), (0, self.BEFORE), value=PAD)  # (M, W + BEFORE), the newest first
        W = min(self.reach, past.shape[1] - self.BEFORE)
        heard = past[:, :W]
        before = past[:, 1 : W + self.BEFORE].unfold(1, W, 1)  # (M, BEFORE, W): the songs one, two, ... places before each
        last = past[:, : self.LAST, None, None]  # (M, LAST, 1, 1)
        stands = (before[:, None] == last) & (last >= FIRST_NUMBER)  # (M, LAST, BEFORE, W)
        match = self.kernel.clamp(min=0).flatten() @ stands.flatten(1, 2).to(self.kernel.dtype)  # (M, W)
        distance = torch.arange(1, W + 1, device=heard.device)
        match = match * self.fading[distance.log2().long()].exp()
        found = distinct(heard * ((heard >= FIRST_NUMBER) & (match > 0)), song_plays.shape[1])
        total = added_up(match[None], None, found) * (found.keys != PAD)
        return Evidence(found.keys, total, self.WEIGHING)


class NearestLists(Source):
    """Songs of the training lists that are most like this one; those near the last song may count for more.

    Lists are compared by their rare common songs.  The votes of the `neighbours` most similar pieces are taken twice: nearly by
    similarity, and with most of the weight on the very nearest.
    """

    names = ("lists",)
    WEIGHING = Weighing(plain=(0, 1), logs=(2, 3), sharpness=(SHARPNESS_OF_LOG, SHARPNESS_OF_LOG))
    initial_weights = (2.0, 2.0, 0.2, 0.2)
    SHARPNESS = (1.0, 5.0)
    FURTHEST = 16  # places from the last song, in either direction, that are told apart
    songs: Tensor
    starts: Tensor
    lengths: Tensor
    list_of_piece: Tensor
    pieces: Tensor
    pieces_of_song: Tensor
    rarity: Tensor
    size: Tensor
    kept_songs: Tensor
    kept_pieces: Tensor
    column_of_offset: Tensor
    unheard: Tensor | None

    def __init__(self, index: ListIndex, neighbours: int, reach: int):
        super().__init__()
        self.neighbours, self.reach = neighbours, reach
        self.piece_width = max(1, int(index.lengths.max()))  # songs of a piece
        self.most_pieces = max(1, int(index.pieces_of_song.diff().max()))  # of a song
        for part in ("starts", "lengths", "list_of_piece", "pieces_of_song", "rarity"):
            self.register_buffer(part, getattr(index, part))
        known = F.pad((index.songs != PAD).cumsum(0), (1, 0))  # known songs before each place
        size = known[index.starts + index.lengths] - known[index.starts]
        self.register_buffer("size", size.clamp(min=1).float(), persistent=False)  # known songs of each piece
        self.register_buffer("songs", padded(index.songs, int((index.starts + index.lengths).max()), self.piece_width))
        self.register_buffer("pieces", padded(index.pieces, int(index.pieces_of_song[-1]), self.most_pieces))
        self.register_buffer("kept_songs", -first_ones(self.piece_width).int(), persistent=False)
        self.register_buffer("kept_pieces", -first_ones(self.most_pieces).int(), persistent=False)
        self.register_buffer("column_of_offset", self._columns_of_offset(), persistent=False)
        self.register_buffer("unheard", index.unheard, persistent=False)
        self.fading = nn.Parameter(torch.zeros(reach))  # log weight of the context song so far back
        self.sharpness = nn.Parameter(torch.tensor(self.SHARPNESS))
        self.offset = nn.Parameter(torch.zeros(len(self.SHARPNESS), 2 * self.FURTHEST + 2))  # log weight by place, last: unknown

    def _columns_of_offset(self) -> Tensor:
        """The column of `offset` for each song of a piece, by where the last song stands in it; last: it stands nowhere."""
        place = torch.arange(self.piece_width)
        known = (place - place[:, None]).clamp(-self.FURTHEST, self.FURTHEST) + self.FURTHEST
        return F.pad(known, (0, 0, 0, 1), value=2 * self.FURTHEST + 1)  # (piece_width + 1, piece_width)

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """The two votes; signals are they and their logarithms."""
        context = place.context(self.reach)  # (M, W)
        nearest, similarity = self._nearest(context, origin)  # (M, N) each
        songs = take(self.songs, self.starts[nearest], self.piece_width)
        songs &= rows_of(self.kept_songs, self.lengths[nearest])  # (M, N, songs of a piece)
        is_like, log_similarity = similarity > 0, similarity.clamp(min=1e-6).log()
        songs = songs * is_like[..., None]  # the others fill up the number of neighbours, with the row's own list among them
        weights = torch.softmax((self.sharpness[:, None, None] * log_similarity).masked_fill(~is_like, -1e4), dim=2) * is_like
        by_place = self.offset.exp()[:, self.column_of_offset]  # (2, piece_width + 1, piece_width)
        songs = self._without_unheard(songs, origin)
        last = self._place_of_last(songs, context[:, 0])  # (M, N)
        factors = by_place.index_select(1, last.flatten()).view(-1, *songs.shape)  # (2, M, N, songs of a piece)
        found = distinct(songs.flatten(1).long(), song_plays.shape[1])
        added = added_up(weights, factors, found) * (found.keys != PAD)
        return Evidence(found.keys, added, self.WEIGHING)

    def _nearest(self, context: Tensor, origin: Origin | None) -> tuple[Tensor, Tensor]:
        """The most similar pieces (M, N) and their similarity, 0 for none; the row's own list is no neighbour."""
        known = torch.where(context < len(self.rarity), context, PAD)  # (M, W): of songs that came later nothing is known
        known = self._without_unheard(known, origin)
        first = self.pieces_of_song[known]
        pieces = take(self.pieces, first, self.most_pieces)
        pieces &= rows_of(self.kept_pieces, self.pieces_of_song[known + 1] - first)
        weight = self.fading[: context.shape[1]].exp() * self.rarity[known] * (known >= FIRST_NUMBER)  # (M, W)
        found = distinct(pieces.flatten(1).long(), len(self.starts))
        is_other = found.keys > 0
        if origin is not None:
            is_other &= self.list_of_piece[found.keys] != origin.lists[:, None]
        (common,) = added_up(weight[None], None, found)
        similarity = torch.where(is_other, common / self.size[found.keys].sqrt(), 0.0)
        best = places_of_best(similarity, found.keys, self.neighbours)  # of equally similar pieces the newest
        return found.keys.gather(1, best), similarity.gather(1, best)

    def _without_unheard(self, songs: Tensor, origin: Origin | None) -> Tensor:
        """Songs (M, ...) with PAD for those that the edition of their place does not hold, although some list looked at does."""
        if origin is None or self.unheard is None:
            return songs
        return songs.masked_fill(of_edition(self.unheard, origin, songs), PAD)

    def _place_of_last(self, songs: Tensor, last: Tensor) -> Tensor:
        """Where the context's last song first stands in each piece, `piece_width` for nowhere: (M, N)."""
        is_last = (songs == last[:, None, None]) & (last >= FIRST_NUMBER)[:, None, None]
        from_end = torch.arange(self.piece_width, 0, -1, dtype=torch.int32, device=songs.device)
        return self.piece_width - (is_last * from_end).amax(dim=2)


Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module) -> Module:
    """A module with the very same parameters, buffers and parts, of which some can be replaced without touching the other."""
    other = copy.copy(module)
    for part in ("_parameters", "_buffers", "_modules"):
        other.__dict__[part] = module.__dict__[part].copy()
    return other


def of_edition(table: Tensor, origin: Origin | None, numbers: Tensor) -> Tensor:
    """Entries (M, ...) of a table (E, rows) in the edition of each place."""
    if origin is None:
        return rows_of(table[0], numbers)
    of_place = origin.editions.view(-1, *[1] * (numbers.dim() - 1))
    return rows_of(table.view(-1), numbers + of_place * table.shape[1])
