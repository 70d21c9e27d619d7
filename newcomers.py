"""Songs that no training list holds, found by what speaks for their artist and album.

Nothing that counts can find such a song.  But where songs of an artist or album are likely to come next, so is a song of theirs
that nobody has played, if not as likely: what the other sources found is added up by artist and by album, together with the
songs of the context, and the songs of the first few that no list holds are put before the judgement.  How far they deserve it is
learned from the songs that an edition lacks or withholds (see `sources`).

Shape letters: M places to predict, N songs found so far, W songs of context, G artists (or albums) looked up, K songs of one
without a play at most, A amounts, U songs found, V songs of the catalogue, E editions, n entries of a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, PAD
from judgement import Evidence
from sources import SHARPNESS_OF_LOG, Origin, Place, of_edition, twin
from sums import Found, Weighing, added_up, distinct, padded, places_of_best, rows_of, take

# New songs that an artist (or album) may have beyond its longest row, when a memory grows by them.
ROOM_FOR_NEW = 16
# What a song of the context counts beside the whole of what was found, where the first few artists are chosen.
CONTEXT_WEIGHT = 0.02


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The songs of each artist (or album) that the lists of some edition lack; those that no list at all holds come first."""

    row_of_song: Tensor  # (V,) int32 the row of each song's artist; 0 for none
    starts: Tensor  # (rows + 1,) int64
    songs: Tensor  # (n,) int32
    n_unheard: Tensor  # (rows,) int64 how many of a row, its first, no list at all holds
    lacking: Tensor | None = None  # (E - 1, n) bool whether each edition but the full one lacks them; only where one trains

    @property
    def row(self) -> Tensor:
        """The row of each entry, (n,)."""
        return torch.repeat_interleave(torch.arange(len(self.n_unheard), device=self.starts.device), self.starts.diff())


class GroupTable(nn.Module):
    """`Groups`, to look songs up in."""

    row_of_song: Tensor
    starts: Tensor
    songs: Tensor
    n_unheard: Tensor
    lacking: Tensor | None
    totals: Tensor

    def __init__(self, groups: Groups):
        super().__init__()
        n = int(groups.starts[-1])
        self.width, self.most = max(1, int(groups.starts.diff().max())), max(1, int(groups.n_unheard.max()))
        for name in ("row_of_song", "starts", "n_unheard"):
            self.register_buffer(name, getattr(groups, name))
        self.register_buffer("songs", padded(groups.songs, n, self.width))
        lacking = None if groups.lacking is None else padded(groups.lacking, n, self.width)
        self.register_buffer("lacking", lacking, persistent=False)
        totals = [groups.n_unheard]
        if groups.lacking is not None:
            totals += [torch.bincount(groups.row[lacks[:n]], minlength=len(totals[0])) for lacks in groups.lacking]
        self.register_buffer("totals", torch.stack(totals).float(), persistent=False)

    def __len__(self) -> int:
        return len(self.n_unheard)

    def groups(self) -> Groups:
        """The tables without what pads them and without editions, on the CPU."""
        names = ("row_of_song", "starts", "n_unheard")
        columns = {name: getattr(self, name).cpu() for name in names}
        return Groups(songs=self.songs[: int(self.starts[-1])].cpu(), **columns)

    def songs_of(self, rows: Tensor, origin: Origin | None) -> tuple[Tensor, Tensor]:
        """The songs that nobody has played (M, G, K) of rows (M, G), PAD beyond them, and how many they are (M, G)."""
        first = rows_of(self.starts, rows)
        if origin is None or self.lacking is None:
            songs, length = take(self.songs, first, self.most), rows_of(self.n_unheard, rows)
            is_one = torch.arange(self.most, device=rows.device) < length[..., None]
            return songs * is_one, length.float()
        length = rows_of(self.starts, rows + 1) - first
        is_one = torch.arange(self.width, device=rows.device) < length[..., None]
        of_place = (origin.editions - 1) * self.lacking.shape[1]
        is_one &= take(self.lacking.view(-1), first + of_place[:, None], self.width)
        return take(self.songs, first, self.width) * is_one, of_edition(self.totals, origin, rows)

    def grown(self, n_songs: int, numbers: Tensor) -> "GroupTable":
        """The table with N songs more, of the artists (or albums) `numbers` (N,), behind the unheard ones of theirs.

        At most ROOM_FOR_NEW beyond the longest row; numbers may be new, and specials have no row.
        """
        old, rows = self.groups(), torch.where(numbers.cpu() >= FIRST_NUMBER, numbers.cpu(), PAD)
        n_rows = max(len(self), int(rows.max()) + 1)
        n_unheard = F.pad(old.n_unheard, (0, n_rows - len(self)))
        is_first = torch.arange(len(old.songs)) - old.starts[old.row] < old.n_unheard[old.row]
        order = rows.argsort(stable=True)
        row = rows[order]
        place = n_unheard[row] + torch.arange(len(row)) - torch.searchsorted(row, row)
        kept = (row != PAD) & (place < int(old.n_unheard.max()) + ROOM_FOR_NEW)
        row, song = row[kept], n_songs + order[kept]
        kinds = torch.cat([old.row * 3 + torch.where(is_first, 0, 2), row * 3 + 1])
        order = kinds.argsort(stable=True)
        groups = Groups(
            row_of_song=torch.cat([old.row_of_song, rows.to(old.row_of_song)]),
            starts=F.pad(torch.bincount(kinds // 3, minlength=n_rows).cumsum(0), (1, 0)),
            songs=torch.cat([old.songs, song.to(old.songs)])[order],
            n_unheard=n_unheard + torch.bincount(row, minlength=n_rows),
        )
        return GroupTable(groups).to(self.songs.device)


class Newcomers(nn.Module):
    """The source of songs without a play, which reads what the others have found."""

    names = ("unheard of artist", "unheard of album")
    # Amounts: the share of what was found that is of the song's artist (or album), the weight of the context's songs that are,
    # and both by each song of the artist that nobody has played.
    WEIGHING = Weighing(plain=(0, 1, 2, 3), logs=(4, 5, 6, 7), sharpness=(SHARPNESS_OF_LOG, SHARPNESS_OF_LOG, 3.0, 3.0))
    initial_weights = (0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05) * len(names)
    FOUND = 64  # of the songs found so far, the best
    GROUPS = 24  # artists (or albums) whose songs are looked up

    def __init__(self, tables: Sequence[Groups], reach: int):
        """`tables` by artist and by album; `reach` songs of the context are looked at."""
        super().__init__()
        self.reach = self.looks_back = reach
        self.tables = nn.ModuleList(GroupTable(table) for table in tables)
        self.fading = nn.Parameter((torch.arange(1, reach + 1) ** -0.5).repeat(len(self.names), 1))  # (2, reach)

    def forward(self, place: Place, origin: Origin | None, found: Found, bonus: Tensor, song_plays: Tensor) -> Evidence:
        """Songs and signals at M places, given what was `found` and its `bonus` (M, U); `song_plays` (E, V)."""
        heard = bonus.detach() * (of_edition(song_plays, origin, found.keys) > 0)
        best = places_of_best(heard, found.keys, self.FOUND)
        missing = (0, self.FOUND - best.shape[1])  # so that a softmax rounds alike however much was found
        likely, of_best = F.pad(found.keys.gather(1, best), missing), F.pad(heard.gather(1, best), missing)  # (M, N)
        share = of_best.masked_fill(of_best == 0, -torch.inf).softmax(1).nan_to_num(0.0)  # 0: padding, or not heard
        context = place.context(self.reach)  # (M, W)
        songs, amounts = [], []
        for fading, table in zip(self.fading.clamp(min=0), self.tables, strict=True):
            assert isinstance(table, GroupTable)
            rows, weights = self._added_up(table, likely, share, context, fading)
            of_group, many = table.songs_of(rows, origin)  # (M, G, K), (M, G)
            per_song = 1 / (many + 1)
            each = torch.stack([weights[0], weights[0] * per_song, weights[1], weights[1] * per_song])  # (A, M, G)
            amounts.append((each[..., None] * (of_group != PAD)).flatten(2))
            songs.append(of_group.flatten(1).long())
        widths = [part.shape[1] for part in songs]
        return Evidence(torch.cat(songs, dim=1), torch.cat(amounts, dim=2), self.WEIGHING, widths)

    def _added_up(
        self, table: GroupTable, likely: Tensor, share: Tensor, context: Tensor, fading: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first G artists (M, G), and what speaks for each (2, M, G): what was found, and what stands in the context."""
        groups = distinct(rows_of(table.row_of_song, torch.cat([likely, context], dim=1)).long(), len(table))
        of_found = F.pad(share, (0, context.shape[1]))
        of_context = F.pad(fading[: context.shape[1]].expand(context.shape), (likely.shape[1], 0))
        weights = added_up(torch.stack([of_found, of_context]), None, groups) * (groups.keys != PAD)  # (2, M, all of them)
        best = places_of_best(weights[0] + CONTEXT_WEIGHT * weights[1], groups.keys, self.GROUPS)
        return groups.keys.gather(1, best), weights.gather(2, best.expand(2, *best.shape))

    def learned(self) -> dict[str, list[Tensor]]:
        """The fading of each relation, (reach,)."""
        return {name: [fading] for name, fading in zip(self.names, self.fading, strict=True)}

    def grown(self, n_songs: int, groups: Mapping[str, Tensor]) -> "Newcomers":
        """With N songs more, whose artists and albums are `groups` (N,) by name; parameters are shared."""
        larger = twin(self)
        numbers = (groups["artist"], groups["album"])
        larger.tables = nn.ModuleList(
            table.grown(n_songs, of_table)  # type: ignore[operator]
            for table, of_table in zip(self.tables, numbers, strict=True)
        )
        return larger
