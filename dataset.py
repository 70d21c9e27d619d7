"""The rows that training learns from, what is asked for in them, and the batches made from both.

A batch is song numbers only, (B, L); what is known of a song stands once, in the snapshot, and is looked up by its number.

Shape letters: S sequences, R rows of all sequences together, G lists, W windows, B batch, L length of a row, M places asked for
in a batch.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from config import MASK, PAD, TrainingConfig
from errors import DataError
from sources import Origin
from splits import fold_of_lists, numbered_lists

# Rows of similar length share a batch: rows are shuffled, then sorted by length within pools of this many batches.
BATCHES_PER_POOL = 32


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A training batch: rows, the places that are asked for, and what stands there, which in cloze rows is hidden by MASK."""

    songs: Tensor  # (B, L) int64, left-padded with PAD
    places: Tensor  # (M,) int64 indices into the B * L flattened places
    targets: Tensor  # (M,) int64 song numbers
    origin: Origin  # the list of each row
    remembered: Tensor | None = None  # (m,) int64 indices into `places` at which the memory is asked; None: everywhere


class Windows(NamedTuple):
    """Rows to be made into a batch, as places in the flat array of songs, each (B,) int64 and on the host."""

    firsts: Tensor  # where the window's sequence begins, or the history before it
    ends: Tensor  # where the window ends; it reaches back up to row_len songs, but not before `firsts`
    lists: Tensor  # the list that the window's sequence is a version of
    only_last: Tensor  # bool: only the last song is hidden
    own: Tensor  # songs before its end that belong to the window's sequence, and may be hidden

    def take(self, rows: Tensor | slice) -> "Windows":
        """Some of the windows."""
        return Windows(*(column[rows] for column in self))


class Asked(NamedTuple):
    """Windows and the places that are asked for in them.  Lengths alone decide that, so no song has been read yet."""

    windows: Windows  # (B,)
    row: Tensor  # (M,) the row of each such place, rising
    back: Tensor  # (M,) songs between the place and the end of its row: 0 for the last one
    remembered: Tensor | None = None  # (M,) bool: the memory is asked as well; None: everywhere

    def width(self, row_len: int) -> int:
        """L, the longest row, at most `row_len`."""
        return min(row_len, int((self.windows.ends - self.windows.firsts).max()))

    def places(self, width: int) -> Tensor:
        """The places (M,) in rows that are laid out L wide."""
        return self.row * width + (width - 1) - self.back

    def share(self, rank: int, n_shares: int) -> "Asked":
        """Every n-th row, from row `rank` on."""
        mine = self.row % n_shares == rank
        remembered = None if self.remembered is None else self.remembered[mine]
        return Asked(self.windows.take(slice(rank, None, n_shares)), self.row[mine] // n_shares, self.back[mine], remembered)


class TrainingRows:
    """The training part as tensors; every batch is index arithmetic on them.

    A sequence longer than `seq_len` is cut into adjoining windows whose phase is drawn anew in every epoch, so that all of a long
    history is used and no place is favoured.  The songs are a view of the memory-mapped file, or a copy on `device`; the rest is
    on the host, where the shapes of batches are so known without asking a device for them.
    """

    def __init__(
        self,
        sequences: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        seq_len: int,
        device: torch.device | str = "cpu",
        lists: np.ndarray | None = None,
        *,
        history_starts: np.ndarray | None = None,
        row_len: int | None = None,
        folds: int = 2,
        hides: bool = True,
    ):
        """`lists` (S,) names the list that each sequence is a version of; None: each is its own.

        Rows reach back into the history before their sequence, to `history_starts` (S,); None: sequences have none.

        Rows are cut to `row_len` songs (None: `seq_len`), of which the last `seq_len` are predicted.  `folds` as in MemoryConfig.
        Where it `hides`, the songs that are asked for do not stand in the rows.
        """
        usable = ends - starts >= 2
        self.flat = _view_of(sequences).to(device)  # (R,) int32
        self.starts = torch.from_numpy(np.ascontiguousarray(starts[usable]))  # (S,)
        self.ends = torch.from_numpy(np.ascontiguousarray(ends[usable]))  # (S,)
        reached = starts if history_starts is None else history_starts
        self.firsts = torch.from_numpy(np.ascontiguousarray(reached[usable]))  # (S,)
        self.seq_len, self.hides = seq_len, hides
        self.row_len = max(seq_len, row_len or 0)
        if not len(self.starts):
            raise DataError("no training sequence has two songs: nothing can be learned from this snapshot")
        lists = np.arange(len(starts)) if lists is None else np.asarray(lists)
        number = numbered_lists(lists)
        self.lists = torch.from_numpy(number[usable])  # (S,) 0..G-1
        self.editions = torch.from_numpy(1 + fold_of_lists(int(number.max()) + 1, folds))  # (G,)

    def epoch(
        self, batch_size: int, generator: torch.Generator, *, last_item_probability: float = 0.0, first: int = 0
    ) -> Iterator[Windows]:
        """All windows once, in random order, B at a time; batches before number `first` are passed over unmade.

        In a share of `last_item_probability` of the windows the end is moved to a random earlier place, by less than one window,
        so that every window of a long history keeps its own targets; where songs are hidden, it will be the last one alone.
        """
        sequence, ends = self._cut(generator)
        firsts = self.firsts[sequence]
        only_last = torch.rand(len(ends), generator=generator) < last_item_probability
        earliest = torch.minimum(torch.maximum(self.starts[sequence] + 2, ends - self.seq_len + 1), ends)
        moved = earliest + (torch.rand(len(ends), generator=generator) * (ends - earliest + 1)).long()
        ends = torch.where(only_last, torch.minimum(moved, ends), ends)
        windows = Windows(firsts, ends, self.lists[sequence], only_last, ends - self.starts[sequence])
        order = torch.randperm(len(ends), generator=generator)
        order = self._sort_within_pools(order, (ends - firsts).clamp(max=self.row_len), batch_size * BATCHES_PER_POOL)
        numbers = torch.randperm(math.ceil(len(order) / batch_size), generator=generator)
        for number in numbers[first:].tolist():
            yield windows.take(order[number * batch_size : (number + 1) * batch_size])

    def n_batches(self, batch_size: int) -> int:
        """Batches in an epoch on average: how many windows a long sequence makes depends on its phase."""
        lengths = (self.ends - self.starts).double()
        windows = torch.where(lengths > self.seq_len, lengths / self.seq_len + 1, 1.0).sum()
        return max(1, math.ceil(float(windows) / batch_size))

    def _cut(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut every sequence into windows, long ones with a random phase: the sequence and the end of each window, (W,) both."""
        lengths = self.ends - self.starts
        phase = (torch.rand(len(lengths), generator=generator) * self.seq_len).long()
        phase = torch.where(lengths > self.seq_len, phase, torch.zeros_like(phase))
        # Ends are counted backwards from the sequence's end: end, end - L + phase, end - 2L + phase, ...
        n_windows = torch.div(lengths - phase + self.seq_len - 1, self.seq_len, rounding_mode="floor") + (phase > 0)
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), n_windows)
        nth = torch.arange(len(sequence)) - (torch.cumsum(n_windows, 0) - n_windows)[sequence]
        back = torch.where((nth > 0) & (phase[sequence] > 0), phase[sequence] + (nth - 1) * self.seq_len, nth * self.seq_len)
        ends = self.ends[sequence] - back
        long_enough = ends - self.starts[sequence] >= 2
        return sequence[long_enough], ends[long_enough]

    @staticmethod
    def _sort_within_pools(order: Tensor, lengths: Tensor, pool: int) -> Tensor:
        """Sort rows by length inside each pool of rows, so that a batch holds rows of like length and pads little."""
        pool_number = torch.div(torch.arange(len(order)), pool, rounding_mode="floor")
        key = pool_number * (lengths.max() + 1) + lengths[order]
        return order[torch.argsort(key, stable=True)]


def _view_of(array: np.ndarray) -> Tensor:
    """A tensor over the memory of an array, which may be a read-only map of a file: nothing may be written to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def ask(rows: TrainingRows, windows: Windows, config: TrainingConfig, generator: torch.Generator) -> Asked:
    """Choose the places to predict: some, which are hidden, or where nothing is hidden every one."""
    if rows.hides:
        return mask(windows, rows.seq_len, config, generator)
    return ask_everywhere(windows, rows.seq_len, rows.row_len, config.memory_places or 1, generator)


def ask_everywhere(windows: Windows, seq_len: int, row_len: int, memory_places: int, generator: torch.Generator) -> Asked:
    """All of the last `seq_len` places that have a song before them, for a causal encoder (SASRec, Kang and McAuley 2018, 3.5).

    The memory, which looks songs up at each place anew, is asked at `memory_places` of each row, drawn at random.
    """
    have_one_before = (windows.ends - windows.firsts).clamp(max=row_len) - 1
    n_asked = torch.minimum(windows.own.clamp(max=seq_len), have_one_before)  # (B,)
    back = torch.arange(int(n_asked.max()))
    is_asked = back < n_asked[:, None]
    chance = torch.rand(is_asked.shape, generator=generator)
    row, back = is_asked.nonzero(as_tuple=True)
    return Asked(windows, row, back, remembered=_least_of_each_row(chance, is_asked, memory_places)[row, back])


def mask(windows: Windows, seq_len: int, config: TrainingConfig, generator: torch.Generator) -> Asked:
    """Choose what to hide for the cloze objective (BERT4Rec, Sun et al. 2019, section 3.6).

    Where `only_last` says so it is the last song alone, as it is when the model is used; in the other rows each of the last
    `seq_len` places is hidden with `cloze_probability`, at least one.  What stands in the history is not hidden: the lists that
    it belongs to are not left out of what a memory looks up.
    """
    lengths = windows.own.clamp(max=seq_len)  # (B,)
    back = torch.arange(int(lengths.max()))
    chance = torch.rand(len(lengths), len(back), generator=generator).masked_fill(back >= lengths[:, None], 2.0)
    hidden = chance < config.cloze_probability
    hidden |= chance == chance.amin(dim=1, keepdim=True)  # at least one
    hidden = torch.where(windows.only_last[:, None], back == 0, hidden)
    row, back = hidden.nonzero(as_tuple=True)
    if config.memory_places is None:
        return Asked(windows, row, back)
    return Asked(windows, row, back, remembered=_least_of_each_row(chance, hidden, config.memory_places)[row, back])


def _least_of_each_row(chance: Tensor, candidates: Tensor, n: int) -> Tensor:
    """The candidates (B, L) with the `n` least chances of each row, or all where a row has fewer: (B, L) bool."""
    chance = chance.masked_fill(~candidates, torch.inf)
    return candidates & (chance <= chance.kthvalue(min(n, chance.shape[1]), dim=1, keepdim=True).values)


def training_batch(rows: TrainingRows, asked: Asked) -> Batch:
    """Gather the songs of the rows and hide those that are to be predicted; `rows` hold their songs on the host.

    Rows are cut on the left to the last `row_len` songs before their end and padded on the left.
    """
    width = asked.width(rows.row_len)
    places = asked.places(width)
    songs, targets = gather_songs(rows.flat, asked.windows.firsts, asked.windows.ends, places, width, hides=rows.hides)
    remembered = None if asked.remembered is None else asked.remembered.nonzero()[:, 0]
    return Batch(songs=songs, places=places, targets=targets, origin=origin_of_rows(rows, asked), remembered=remembered)


def origin_of_rows(rows: TrainingRows, asked: Asked) -> Origin:
    """The list of each row, and the edition of the memory that leaves it out."""
    lists = asked.windows.lists
    return Origin(lists=lists, editions=rows.editions[lists])


def gather_songs(
    flat: Tensor, firsts: Tensor, ends: Tensor, places: Tensor, width: int, *, hides: bool = True
) -> tuple[Tensor, Tensor]:
    """Rows (B, L), with MASK at the places (M,) where it `hides`, and what stood there (M,); all tensors are on one device."""
    songs = left_padded(flat, firsts, ends, width).flatten()
    shown = songs.index_fill(0, places, MASK) if hides else songs
    return shown.view(len(ends), width), songs[places]


def left_padded(flat: Tensor, firsts: Tensor, ends: Tensor, width: int) -> Tensor:
    """Gather flat[end - L : end] for each row, PAD where that reaches before the row's first: (B, L) int64."""
    index = ends[:, None] - width + torch.arange(width, device=flat.device)  # (B, L)
    inside = index >= firsts[:, None]
    return torch.where(inside, flat[index.clamp(min=0)].long(), PAD)


def inference_batch(prefixes: Sequence[np.ndarray], seq_len: int) -> Tensor:
    """Rows for validation and serving: the last seq_len - 1 songs, then MASK; padded on the left, (B, L) int64.

    >>> inference_batch([np.array([5, 6, 7]), np.array([8])], seq_len=3).tolist()
    [[6, 7, 1], [0, 8, 1]]
    """
    kept = [prefix[-(seq_len - 1) :] for prefix in prefixes]
    L = 1 + max((len(prefix) for prefix in kept), default=0)
    songs = np.full((len(kept), L), PAD, np.int64)
    songs[:, -1] = MASK
    lengths = np.array([len(prefix) for prefix in kept])
    inside = np.arange(L - 1) >= (L - 1 - lengths)[:, None]
    if inside.any():
        songs[:, :-1][inside] = np.concatenate(kept)
    return torch.from_numpy(songs)
