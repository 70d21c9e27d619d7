"""What a model looks up instead of learning it: a memory of counts and copies, weighed by the encoder.

A transformer of this size neither counts nor copies well, while next songs mostly follow fixed pairs, stand in lists like this
one, or repeat.  Each `Source` here finds songs that speak for themselves, with several signals each; the encoder decides, by
gates from its output, how much each signal weighs at this place.  Its closest relatives are the pointer of See et al. 2017
(https://arxiv.org/abs/1704.04368, section 2.2) and the nearest neighbours of Khandelwal et al. 2020 (kNN-LM,
https://arxiv.org/abs/1911.00172, section 2).

In training, the list at hand has supported the very pairs that it would look up, so the gates would learn to trust counts that no
new list has.  Counts therefore come in editions: 0 counts all training lists, e > 0 all but those of fold e, and a training row
looks up the edition that leaves its own fold out (cross-fitting, as in the stacking of Wolpert 1992).  All editions choose from
the same neighbours; a fold's own counts stand beside those of the whole, and only where a model is trained.

Rows of a table are as long as they need to be and stand one behind the other, with where each begins; `take` copies rows of one
width from such a table as fast as from one with rows of equal length.

Shape letters: B rows of a batch, L places of a row, M places to predict, W songs of context, K neighbours of a song at most, C
songs found at a place (with doubles), U distinct ones, R relations, A amounts that are added up, S signals, V songs of the
catalogue, E editions, Q pieces of training lists, n entries of a table.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, PAD

# Logarithms are taken of so many times a share: at 1,000 the many weak songs outvote the few strong ones at the top.
SHARPNESS_OF_LOG = 30.0
# How much relations count at first beside "after" and "next": with little data training does not get far from it.
INITIAL_STRENGTH = {"before": 0.5, "near": 0.3, "artist": 0.1, "album": 0.2, "same": 0.1, "track": 0.5}
# The relation of a song to itself.
ITSELF = "same"
# Support below this is what floating point left over.
NOTHING = 1e-6
# New songs that an artist (or album) may have beyond its longest row, when a memory grows by them.
ROOM_FOR_NEW = 16
# Entries of a table of places in `distinct`, for several rows at a time: 2 MB, which stay in the cache.
LARGEST_TABLE = 2**19
LEAST_ROWS = 4  # that are looked at together, however large their table
# Keys up to which a table of gaps is cheaper than its few more operations.
FEW_KEYS, MOST_GAPS = 2**13, 2**22
# A best amount below this counts as this, so that nothing is divided by 0.
LEAST_BEST = 1e-9
# Tables whose first dimension is the edition.
EDITED = frozenset({"song_plays", "totals"})


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


class Origin(NamedTuple):
    """Where the rows of a training batch come from, so that nothing is looked up that they have put there themselves."""

    lists: Tensor  # (B,) int64 number of the training list
    editions: Tensor  # (B,) int64 the edition that leaves the list out, 1 and above

    def at(self, row: Tensor) -> "Origin":
        """Of some rows, (M,) each."""
        return Origin(self.lists[row], self.editions[row])


class Weighing(NamedTuple):
    """Which signals are made of A amounts: each as it is, its logarithm, and the first beside the best one of its relation.

    Signals are numbered 0..S-1, as the gates are.
    """

    plain: tuple[int | None, ...]  # (A,) the signal that an amount is by itself; None: it is none
    logs: tuple[int, ...]  # (A,) the signal log(1 + sharpness * amount)
    sharpness: tuple[float, ...]  # (A,)
    best: int | None = None  # the signal that is the first amount over the largest one
    scaled: int | None = None  # the amount that is multiplied by `Evidence.scale` first

    @property
    def n_signals(self) -> int:
        """S."""
        return 1 + max(number for number in (*self.plain, *self.logs, self.best) if number is not None)


class Evidence(NamedTuple):
    """Songs found at each place, each once in each relation, PAD for none, and what speaks for them."""

    songs: Tensor  # (M, U) int64
    amounts: Tensor  # (A, M, U) 0 and above
    widths: Sequence[int] | None = None  # how many of the U columns belong to each relation of the source; None: there is one
    weighing: Weighing | None = None  # None: each amount is a signal
    scale: Tensor | None = None  # (M, U) of the amount that is to be scaled

    def weighed(self, gates: Tensor) -> Tensor:
        """The sum of the signals times the gates of their relation, (M, R * S): a bonus (M, U)."""
        if self.weighing is None:
            return (self.amounts * gates.T[..., None]).sum(0)
        widths = [self.songs.shape[1]] if self.widths is None else self.widths
        given = self.amounts, gates, self.scale, widths, self.weighing
        bonus: Tensor = _Weighed.apply(*given) if torch.is_grad_enabled() else _bonus(*given)  # type: ignore[no-untyped-call]
        return bonus


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


class Source(nn.Module):
    """One way to find songs, or several alike.  `initial_weights` has what the gates begin with: S signals of each relation."""

    names: tuple[str, ...]
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
        self.register_buffer("songs", _padded(relations.songs, n, self.width))
        self.register_buffer("counts", _padded(relations.counts, n, self.width))
        folds = relations.fold_counts
        self.register_buffer("fold_counts", None if folds is None else _padded(folds, n, self.width), persistent=False)
        # What is kept of K entries by how many are the row's own: all bits of a song, and the whole count.
        self.register_buffer("kept_songs", -_first_ones(self.width).int(), persistent=False)
        self.register_buffer("kept_counts", _first_ones(self.width).float(), persistent=False)

    def forward(self, place: Place, origin: Origin | None, song_plays: Tensor) -> Evidence:
        """Share, cosine and count; see `WEIGHING`."""
        context = place.context(self.reach)
        columns = [context[:, :reach] for reach in self.reaches]
        widths = [column.shape[1] for column in columns]
        rows = self._rows_of(columns)  # (M, W)
        songs, counts, totals = self._look_up(rows, origin)
        found = distinct(songs.flatten(1), song_plays.shape[1], [songs.shape[2] * width for width in widths])
        per_list = 1 / (totals + 1)
        factors = torch.stack([per_list, per_list.sqrt(), torch.ones_like(totals)])  # (3, M, W)
        amounts = added_up(self._fading(widths)[:, None] * factors, counts, found)  # (3, M, U)
        per_song = (_of_edition(song_plays, origin, found.keys) + 1).rsqrt_()
        return Evidence(found.keys, amounts, found.widths, self.WEIGHING, per_song)

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
        first = _rows(self.starts, rows)
        length = (_rows(self.starts, rows + 1) - first).clamp_(max=width)
        songs = take(self.songs, first, width)
        songs &= _rows(self.kept_songs[:, :width], length)
        counts = take(self.counts, first, width)
        if origin is None or self.fold_counts is None:
            return songs.long(), counts.mul_(_rows(self.kept_counts[:, :width], length)), _rows(self.totals[0], rows)
        fold = (origin.editions - 1) * self.fold_counts.shape[1]
        counts -= take(self.fold_counts.view(-1), first + fold[:, None], width)
        counts = F.threshold(counts.mul_(_rows(self.kept_counts, length)), NOTHING, 0.0, inplace=True)
        return songs.long(), counts, _of_edition(self.totals, origin, rows)

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
        """New songs stand in the rows of their artist (or album), and in "same" for themselves; elsewhere nothing is counted."""
        n_new = len(next(iter(groups.values())))
        larger = twin(self)
        if not {ITSELF, *groups} & set(self.names):
            larger.register_buffer("row_of_song", F.pad(self.row_of_song, (0, n_new)))
            return larger
        itself = torch.arange(n_new)
        parts = []
        for number, name in enumerate(self.names):
            part = _relation_of(self.tables(), number)
            if name == ITSELF:
                part = _with_songs(part, itself + part.rows[0], n_songs)
            elif name in groups:
                part = _with_songs(part, torch.where(groups[name] >= FIRST_NUMBER, groups[name], PAD).cpu(), n_songs)
            else:
                part = replace(part, row_of_song=F.pad(part.row_of_song, (0, n_new)))
            parts.append(part)
        tables = Relations.joined(parts)
        larger.rows = tables.rows
        larger._take_over(tables)
        return larger.to(self.songs.device)


def _relation_of(relations: Relations, number: int) -> Relations:
    """One relation of several, without editions, on the CPU."""
    before = sum(relations.rows[:number])
    last = before + relations.rows[number]
    starts = relations.starts[before : last + 1].cpu()
    entries = slice(int(starts[0]), int(starts[-1]))
    return Relations(
        names=relations.names[number : number + 1],
        reaches=relations.reaches[number : number + 1],
        rows=relations.rows[number : number + 1],
        most=relations.most,
        row_of_song=_moved(relations.row_of_song[number : number + 1].cpu(), -before),
        starts=starts - starts[0],
        songs=relations.songs[entries].cpu(),
        counts=relations.counts[entries].cpu(),
        totals=relations.totals[:1, before:last].cpu(),
    )


def _with_songs(relation: Relations, rows: Tensor, n_songs: int) -> Relations:
    """One relation with the songs from `n_songs` on behind the others of their rows (N,), where they count as played once.

    Row 0 takes none, and a row takes at most ROOM_FOR_NEW beyond the longest there was; rows may be new.
    """
    n_old, n_rows = relation.rows[0], max(relation.rows[0], int(rows.max()) + 1)
    lengths = F.pad(relation.starts.diff(), (0, n_rows - n_old))
    longest = int(lengths.max())
    real = rows != PAD
    row, song = rows[real], torch.arange(n_songs, n_songs + len(rows))[real]
    order = row.argsort(stable=True)
    row, song = row[order], song[order]
    place = lengths[row] + torch.arange(len(row)) - torch.searchsorted(row, row)
    kept = place < longest + ROOM_FOR_NEW
    all_rows = torch.cat([torch.repeat_interleave(torch.arange(n_rows), lengths), row[kept]])
    order = all_rows.argsort(stable=True)
    songs = torch.cat([relation.songs, song[kept].to(relation.songs)])[order]
    counts = torch.cat([relation.counts, torch.ones(int(kept.sum()))])[order]
    starts = F.pad(torch.bincount(all_rows, minlength=n_rows).cumsum(0), (1, 0))
    return replace(
        relation,
        rows=(n_rows,),
        most=max(relation.most, longest + ROOM_FOR_NEW),
        row_of_song=torch.cat([relation.row_of_song, rows[None].to(relation.row_of_song)], dim=1),
        starts=starts,
        songs=songs,
        counts=counts,
        totals=F.pad(relation.totals, (0, n_rows - n_old), value=1.0),
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
        found = distinct(heard * (heard >= FIRST_NUMBER), song_plays.shape[1])
        total = added_up(match[None], None, found) * (found.keys != PAD)
        return Evidence(found.keys, total, weighing=self.WEIGHING)


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
        self.register_buffer("songs", _padded(index.songs, int((index.starts + index.lengths).max()), self.piece_width))
        self.register_buffer("pieces", _padded(index.pieces, int(index.pieces_of_song[-1]), self.most_pieces))
        self.register_buffer("kept_songs", -_first_ones(self.piece_width).int(), persistent=False)
        self.register_buffer("kept_pieces", -_first_ones(self.most_pieces).int(), persistent=False)
        self.register_buffer("column_of_offset", self._columns_of_offset(), persistent=False)
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
        songs &= _rows(self.kept_songs, self.lengths[nearest])  # (M, N, songs of a piece)
        is_like, log_similarity = similarity > 0, similarity.clamp(min=1e-6).log()
        weights = torch.softmax((self.sharpness[:, None, None] * log_similarity).masked_fill(~is_like, -1e4), dim=2) * is_like
        by_place = self.offset.exp()[:, self.column_of_offset]  # (2, piece_width + 1, piece_width)
        last = self._place_of_last(songs, context[:, 0])  # (M, N)
        factors = by_place.index_select(1, last.flatten()).view(-1, *songs.shape)  # (2, M, N, songs of a piece)
        found = distinct(songs.flatten(1).long(), song_plays.shape[1])
        added = added_up(weights, factors, found) * (found.keys != PAD)
        return Evidence(found.keys, added, weighing=self.WEIGHING)

    def _nearest(self, context: Tensor, origin: Origin | None) -> tuple[Tensor, Tensor]:
        """The most similar pieces (M, N) and their similarity, 0 for none; the row's own list is no neighbour."""
        known = torch.where(context < len(self.rarity), context, PAD)  # (M, W): of songs that came later nothing is known
        first = self.pieces_of_song[known]
        pieces = take(self.pieces, first, self.most_pieces)
        pieces &= _rows(self.kept_pieces, self.pieces_of_song[known + 1] - first)
        weight = self.fading[: context.shape[1]].exp() * self.rarity[known] * (known >= FIRST_NUMBER)  # (M, W)
        found = distinct(pieces.flatten(1).long(), len(self.starts))
        is_other = found.keys > 0
        if origin is not None:
            is_other &= self.list_of_piece[found.keys] != origin.lists[:, None]
        (common,) = added_up(weight[None], None, found)
        similarity = torch.where(is_other, common / self.size[found.keys].sqrt(), 0.0)
        # Of equally similar pieces the newest, whatever the batch: the bits of a float that is not negative rise with it.
        rank = (similarity.detach().float().view(torch.int32).long() << 32) + found.keys
        best = rank.topk(min(self.neighbours, rank.shape[1]), dim=1).indices
        return found.keys.gather(1, best), similarity.gather(1, best)

    def _place_of_last(self, songs: Tensor, last: Tensor) -> Tensor:
        """Where the context's last song first stands in each piece, `piece_width` for nowhere: (M, N)."""
        is_last = (songs == last[:, None, None]) & (last >= FIRST_NUMBER)[:, None, None]
        from_end = torch.arange(self.piece_width, 0, -1, dtype=torch.int32, device=songs.device)
        return self.piece_width - (is_last * from_end).amax(dim=2)


class Memory(nn.Module):
    """All sources together: adds to the scores of the songs that they find."""

    song_plays: Tensor
    play_counts: Tensor
    songs_so_often: Tensor

    def __init__(self, d_model: int, sources: Sequence[Source], song_plays: Tensor, n_fitted_songs: int | None = None):
        """`song_plays` (E, V): training lists that hold each song, in each edition; `n_fitted_songs` None takes V."""
        super().__init__()
        self.register_buffer("song_plays", song_plays.float())
        play_counts, songs_so_often = _how_often(self.song_plays[:, FIRST_NUMBER:n_fitted_songs])
        self.register_buffer("play_counts", play_counts, persistent=False)  # (any,) those that there are
        self.register_buffer("songs_so_often", songs_so_often, persistent=False)  # (E, any) fitted songs with each of them
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
        gates = _split(F.softplus(self.gate(queries)).float(), self.n_signals, 1)  # (M, R * S) of each source
        found = []
        for source, gate in zip(self.sources, gates, strict=True):
            evidence: Evidence = source(place, of_place, self.song_plays)
            found.append((evidence.songs, evidence.weighed(gate)))
        return LookedUp(torch.cat([songs for songs, _ in found], dim=1), torch.cat([bonus for _, bonus in found], dim=1))

    @property
    def reach(self) -> int:
        """How many songs before a place are looked at."""
        return max(int(source.looks_back) for source in self.sources)  # type: ignore[arg-type]

    def prior(self) -> Tensor:
        """What a song gets for being popular, in each edition: (E, V)."""
        return F.softplus(self.popularity) * self.song_plays.log1p()

    def prior_at(self, editions: Tensor | None, songs: Tensor) -> Tensor:
        """What some songs (M, C) get for being popular, in the edition (M,) of their place, None for the full one: (M, C)."""
        V = self.song_plays.shape[1]
        edited = songs if editions is None else songs + (editions * V)[:, None]
        return F.softplus(self.popularity) * _rows(self.song_plays.view(-1), edited).log1p()

    def prior_normaliser(self) -> Tensor:
        """The logarithm of the sum over the fitted songs of the exponential of `prior`, in each edition: (E,).

        Songs that are played equally often are one term, so it costs the number of distinct counts.
        """
        by_count = F.softplus(self.popularity) * self.play_counts.log1p() + self.songs_so_often.log()  # (E, any)
        return by_count.logsumexp(dim=1)

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


# --- looking up and adding up ------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The distinct keys of each row, PAD for none, and where each key of the row stands among them."""

    keys: Tensor  # (M, U) int64
    slots: Tensor  # (M, C) int64
    widths: list[int]  # how many of the U columns belong to each block


def distinct(keys: Tensor, n_keys: int, block_widths: Sequence[int] | None = None) -> Found:
    """The distinct ones of `keys` (M, C), which are below `n_keys`; of several blocks of columns each by itself.

    They may have gaps between them, which are PAD.

    >>> distinct(torch.tensor([[7, 5, 7]]), 8)
    Found(keys=tensor([[0, 5, 7]]), slots=tensor([[2, 1, 2]]), widths=[3])
    """
    M, C = keys.shape
    block_widths = block_widths or [C]
    if keys.numel() <= FEW_KEYS and M * len(block_widths) * n_keys <= MOST_GAPS:
        return _distinct_with_gaps(keys, n_keys, block_widths)
    blocks = list(pairwise(accumulate(block_widths, initial=0)))
    by_order = keys.is_cuda and M * n_keys > MOST_GAPS
    winner = _winner_by_order(keys, blocks) if by_order else _winner_by_table(keys, n_keys, blocks)
    numbers = (winner == torch.arange(C, dtype=winner.dtype, device=keys.device)).cumsum(1)  # (M, C) from 1
    slots = numbers.gather(1, winner.long())
    before, widths = torch.zeros_like(numbers[:, :1]), list[int]()
    for left, right in blocks:
        slots[:, left:right] += sum(widths) - 1 - before
        # On a GPU to wait for the largest number would cost more than columns without a key.
        U = right - left if keys.is_cuda or left == right else int((numbers[:, right - 1 : right] - before).max()) if M else 0
        widths.append(U)
        before = numbers[:, right - 1 : right] if right else before
    found = torch.zeros(M, sum(widths), dtype=torch.int64, device=keys.device).scatter_(1, slots, keys)
    return Found(found, slots, widths)


def _distinct_with_gaps(keys: Tensor, n_keys: int, block_widths: Sequence[int]) -> Found:
    """The same with PAD for the doubles, C columns: fewer operations."""
    M, C = keys.shape
    told_apart = keys if len(block_widths) == 1 else keys + n_keys * _repeated(block_widths, keys.device)
    place = torch.arange(C, device=keys.device)
    table = torch.empty(M, len(block_widths) * n_keys, dtype=torch.int64, device=keys.device)
    slots = table.scatter_(1, told_apart, place.expand(M, C)).gather(1, told_apart)
    return Found(keys * (slots == place), slots, list(block_widths))


def _winner_by_table(keys: Tensor, n_keys: int, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """For each key the place of one like it in its block, the same for all of them: (M, C) int32.

    A table has an entry for every key there could be, of which only those are read that were written, as many rows at a time as
    stay in the cache: three to five times faster than sorting.
    """
    M, C = keys.shape
    at_once = min(M, max(LEAST_ROWS, LARGEST_TABLE // n_keys))
    place = torch.arange(C, dtype=torch.int32, device=keys.device).expand(at_once, C)
    table = torch.empty(at_once, n_keys, dtype=torch.int32, device=keys.device)
    winner = torch.empty(M, C, dtype=torch.int32, device=keys.device)
    for begin, (left, right) in product(range(0, M, max(1, at_once)), blocks):
        part = keys[begin : begin + at_once, left:right]
        written = table[: len(part)].scatter_(1, part, place[: len(part), left:right])
        winner[begin : begin + at_once, left:right] = written.gather(1, part)
    return winner


def _winner_by_order(keys: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """The same by sorting, (M, C) int64: without a table, for the many rows that a GPU sorts at once."""
    winner = torch.empty_like(keys)
    for left, right in blocks:
        ordered, order = keys[:, left:right].sort(dim=1, stable=True)
        is_new = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
        first = torch.where(is_new, torch.arange(right - left, device=keys.device), 0).cummax(1).values
        winner[:, left:right] = torch.empty_like(order).scatter_(1, order, order.gather(1, first)) + left
    return winner


def added_up(weights: Tensor, factors: Tensor | None, found: Found) -> Tensor:
    """Add up what belongs to the same key: amounts (A, M, C), which are `weights` times `factors`, to (A, M, U).

    `weights` (A, M, W) stand for K keys each; `factors` are (M, W, K), (A, M, W, K), or None for ones.

    >>> added_up(torch.tensor([[[1.0, 2.0, 3.0]]]), None, distinct(torch.tensor([[7, 5, 7]]), 8))
    tensor([[[0., 2., 4.]]])
    """
    _, M, W = weights.shape
    if factors is None:
        factors = torch.ones((), dtype=weights.dtype, device=weights.device).expand(1, M, W, found.slots.shape[1] // max(1, W))
    elif factors.dim() == 3:
        factors = factors[None]
    given = weights, factors, found.slots, found.keys.shape[1]
    # Beside one row that is answered, the bookkeeping for gradients would take a tenth of the time.
    sums: Tensor = _AddedUp.apply(*given) if torch.is_grad_enabled() else _sums(*given)  # type: ignore[no-untyped-call]
    return sums


def _sums(weights: Tensor, factors: Tensor, slots: Tensor, U: int) -> Tensor:
    """`weights` (A, M, W), `factors` (A or 1, M, W, K), `slots` (M, W * K) to (A, M, U)."""
    sums = torch.zeros(*weights.shape[:2], U, dtype=weights.dtype, device=weights.device)
    for amount, (of_amount, weight) in enumerate(zip(sums, weights, strict=True)):
        factor = factors[min(amount, len(factors) - 1)]
        of_amount.scatter_add_(1, slots, (weight[..., None] * factor).flatten(1))
    return sums


class _AddedUp(torch.autograd.Function):
    """What `added_up` does; nothing of the size of the amounts is kept for the gradients but factors and slots."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, factors: Tensor, slots: Tensor, U: int) -> Tensor:
        """See `_sums`."""
        ctx.save_for_backward(weights, factors, slots)
        return _sums(weights, factors, slots, U)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The gradients of weights and, where they have any, of factors."""
        weights, factors, slots = ctx.saved_tensors
        of_weights = torch.empty_like(weights)
        of_factors = torch.zeros_like(factors) if ctx.needs_input_grad[1] else None
        for amount, gradient in enumerate(gradients[0]):
            of_amounts = gradient.gather(1, slots).view(factors.shape[1:])
            which = min(amount, len(factors) - 1)
            if of_factors is not None:
                of_factors[which].addcmul_(of_amounts, weights[amount][..., None])
            of_weights[amount] = of_amounts.mul_(factors[which]).sum(-1)
        return of_weights, of_factors, None, None


class _Weighed(torch.autograd.Function):
    """What `Evidence.weighed` does, relation by relation, without keeping a single signal for the gradients."""

    @staticmethod
    def forward(
        ctx: Any, amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing
    ) -> Tensor:
        """See `_bonus`."""
        ctx.save_for_backward(amounts, gates, scale)
        ctx.widths, ctx.weighing = widths, weighing
        return _bonus(amounts, gates, scale, widths, weighing)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """The gradients of amounts and gates."""
        amounts, gates, scale = ctx.saved_tensors
        of_amounts = torch.empty_like(amounts)
        parts = _parts(amounts, gates, scale, ctx.widths, ctx.weighing)
        places = _split(gradients[0], ctx.widths, 1), _split(of_amounts, ctx.widths, 2)
        of_gates = [part.backward(gradient, of_part) for part, gradient, of_part in zip(parts, *places, strict=True)]
        return of_amounts, torch.cat(of_gates, dim=1), None, None, None


def _bonus(amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing) -> Tensor:
    """`amounts` (A, M, U), `gates` (M, R * S), `scale` (M, U) to (M, U)."""
    bonus = torch.empty_like(amounts[0])
    for part, of_part in zip(_parts(amounts, gates, scale, widths, weighing), _split(bonus, widths, 1), strict=True):
        for number, amount in enumerate(part.amounts):
            gate_of_log = part.gates[weighing.logs[number]]
            log = torch.mul(amount, weighing.sharpness[number]).log1p_()
            if number == 0:
                torch.mul(log, gate_of_log, out=of_part)
            else:
                of_part.addcmul_(log, gate_of_log)
            if (coefficient := part.coefficient(number)) is not None:
                of_part.addcmul_(amount, coefficient)
    return bonus


def _parts(amounts: Tensor, gates: Tensor, scale: Tensor | None, widths: Sequence[int], weighing: Weighing) -> "Iterator[_Part]":
    """What belongs to each relation."""
    by_relation = gates.T.reshape(len(widths), -1, len(gates), 1)  # (R, S, M, 1)
    scales = [None] * len(widths) if scale is None else _split(scale, widths, 1)
    for part, of_relation, of_part in zip(_split(amounts, widths, 2), by_relation, scales, strict=True):
        yield _Part(part, of_relation, of_part, weighing)


class _Part:
    """The amounts and gates of one relation."""

    def __init__(self, amounts: Tensor, gates: Tensor, scale: Tensor | None, weighing: Weighing):
        """`amounts` (A, M, U) of which one is to be multiplied by `scale` (M, U), `gates` (S, M, 1)."""
        self.amounts = [amount * scale if number == weighing.scaled else amount for number, amount in enumerate(amounts)]
        self.gates, self.scale, self.weighing = gates, scale, weighing
        self.best = None
        if weighing.best is not None and amounts.shape[2]:
            self.best = self.amounts[0].amax(dim=1, keepdim=True).clamp_(min=LEAST_BEST)  # (M, 1)

    def coefficient(self, number: int) -> Tensor | None:
        """What an amount is multiplied with, beside its logarithm: (M, 1)."""
        plain = self.weighing.plain[number]
        if number == 0 and self.best is not None:
            return self.gates[plain] + self.gates[self.weighing.best] / self.best
        return None if plain is None else self.gates[plain]

    def backward(self, gradient: Tensor, of_amounts: Tensor) -> Tensor:
        """Write the gradients of the amounts (A, M, U), and return those of the gates, (M, S)."""
        weighing, of_gates = self.weighing, torch.zeros_like(self.gates)
        for number, (amount, of_amount) in enumerate(zip(self.amounts, of_amounts, strict=True)):
            sharpness, log = weighing.sharpness[number], weighing.logs[number]
            sharpened = amount * sharpness
            of_gates[log] = (sharpened.log1p() * gradient).sum(1, keepdim=True)
            torch.div(self.gates[log] * sharpness, sharpened.add_(1), out=of_amount)
            if (coefficient := self.coefficient(number)) is not None:
                of_amount += coefficient
            of_amount *= gradient
            if (plain := weighing.plain[number]) is not None:
                of_gates[plain] = torch.mul(amount, gradient, out=sharpened).sum(1, keepdim=True)
            if number == weighing.scaled:
                of_amount *= self.scale
        if self.best is not None:
            self._through_best(of_amounts[0], of_gates)
        return of_gates[..., 0].T

    def _through_best(self, of_first: Tensor, of_gates: Tensor) -> None:
        """Add to the gradients what goes through the best amount, which those that reach it share."""
        assert self.best is not None
        total = of_gates[self.weighing.plain[0]]  # (M, 1) sum of gradient times amount
        of_gates[self.weighing.best] = total / self.best
        of_best = -total * self.gates[self.weighing.best] / self.best.square() * (self.best > LEAST_BEST)
        reaches = (self.amounts[0] == self.best).to(of_first.dtype)
        of_first.addcmul_(reaches, of_best / reaches.sum(1, keepdim=True).clamp(min=1))


def _split(table: Tensor, widths: Sequence[int], dim: int) -> Sequence[Tensor]:
    """Parts of so many columns each, which share the memory of the table."""
    parts: Sequence[Tensor] = table.split(list(widths), dim=dim)  # type: ignore[no-untyped-call]
    return parts


def _repeated(widths: Sequence[int], device: torch.device) -> Tensor:
    """0, 1, ... as often as each width says: (sum of widths,)."""
    numbers: Tensor = torch.repeat_interleave(torch.tensor(widths, device=device), output_size=sum(widths))
    return numbers


def take(flat: Tensor, first: Tensor, width: int) -> Tensor:
    """The `width` entries from each place (...) of a flat table on: (..., width).

    Nothing may begin within the last `width` entries of the table, which `_padded` puts there.
    """
    windows = flat.as_strided((len(flat) - width + 1, width), (1, 1))
    return windows.index_select(0, first.flatten()).view(*first.shape, width)


def _padded(table: Tensor, n: int, width: int) -> Tensor:
    """The n entries of a flat table (..., n or more) with `width` zeros behind them; the table itself where it has them."""
    if table.shape[-1] == n + width:
        return table.contiguous()
    return F.pad(table[..., :n], (0, width)).contiguous()


def _first_ones(width: int) -> Tensor:
    """Row r has r ones first: (width + 1, width) bool."""
    return torch.arange(width) < torch.arange(width + 1)[:, None]


def _rows(table: Tensor, numbers: Tensor) -> Tensor:
    """`table[numbers]`, copied row by row: (...) numbers of a table (rows, ...) that is not trained; three times faster."""
    return table.index_select(0, numbers.flatten()).view(*numbers.shape, *table.shape[1:])


def _of_edition(table: Tensor, origin: Origin | None, numbers: Tensor) -> Tensor:
    """Entries (M, ...) of a table (E, rows) in the edition of each place."""
    if origin is None:
        return _rows(table[0], numbers)
    of_place = origin.editions.view(-1, *[1] * (numbers.dim() - 1))
    return _rows(table.view(-1), numbers + of_place * table.shape[1])


def _how_often(song_plays: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct entries of `song_plays` (E, songs), and how often each edition has them, (E, any)."""
    play_counts, which = song_plays.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    E, n = len(song_plays), len(play_counts)
    numbers = torch.bincount((which + torch.arange(E, device=which.device)[:, None] * n).flatten(), minlength=E * n)
    return play_counts, numbers.view(E, n).to(song_plays.dtype)
