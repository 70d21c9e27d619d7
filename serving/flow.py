"""An order in which songs go over into each other: tempo and key of neighbours go together.

Tempo goes together within 8 %, double and half allowed (what beets calls a match for mixing).  Keys are compared on the Camelot
wheel, on which harmonic neighbours stand side by side: of 24 keys four go with any one, so chance alone makes one pair of six.
The best order is a shortest open path through the songs; nearest neighbour and 2-opt find a good one (Croes, "A Method for
Solving Traveling-Salesman Problems", Operations Research 6(6) 1958; Johnson and McGeoch, "The Traveling Salesman Problem: A Case
Study in Local Optimization", 1997).

Letters: n songs.  Tempo is in beats a minute, key 0 (C) to 11 (B), mode 1 (major) or 0 (minor); anything else is unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from config import FIRST_NUMBER

Sound = tuple[ArrayLike, ArrayLike, ArrayLike]  # tempo, key and mode; of one song or of many

CLOSE_TEMPO = np.log2(1.08)  # octaves of tempo, 8 %
ROUNDING = 1e-6  # octaves, and costs: 86.4 beats, as a float32 has them, are 8 % above 80
# What a transition costs, tempo and key alike: up to 0.25 what goes together, from 0.6 what does not, unknown in between.
UNKNOWN_COST = 0.5
CLOSE_COST, FAR_COST = 0.25, 0.6
KEY_COSTS = np.array([0.0, 0.1, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, UNKNOWN_COST])  # by steps on the wheel, 0 to 7; unknown last
# So few songs are also improved from the given order, which finds the cheapest order of 7 more often (86 % instead of 78 %).
FEW_SONGS = 20
# Each step towards a better order looks at about 2 n² changes, and this many of them are looked at: 0.3 s for 1,000 songs.
MOST_CHANGES = 20_000_000


def camelot(key: ArrayLike, mode: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Places on the Camelot wheel: numbers 1 to 12, and letters "B" for major and "A" for minor; 0 and "" where unknown.

    A minor key has the number of the major key with the same notes, whose root is three semitones higher.

    >>> number, letter = camelot([0, 9, -1], [1, 0, 1])  # C major, A minor, unknown
    >>> number.tolist(), letter.tolist()
    ([8, 8, 0], ['B', 'A', ''])
    """
    number, is_major = _on_the_wheel(key, mode)
    return number, np.where(number > 0, np.where(is_major, "B", "A"), "")


def _on_the_wheel(key: ArrayLike, mode: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers 1 to 12, 0 where unknown, and whether the key is a major one."""
    keys, modes = np.asarray(key, np.float64), np.asarray(mode, np.float64)
    is_major = modes == 1
    known = (keys >= 0) & (keys <= 11) & (keys == np.floor(keys)) & (is_major | (modes == 0))
    root = np.where(known, keys, 0).astype(np.int64) + np.where(is_major, 0, 3)
    return np.where(known, (root * 7 + 7) % 12 + 1, 0), is_major


def tempo_goes_with(tempo: ArrayLike, other: ArrayLike) -> NDArray[np.bool_]:
    """Whether two tempos are within 8 % of each other, or one of the double or half of the other; False where one is unknown.

    >>> tempo_goes_with(120, [128, 131, 62, 250, np.nan]).tolist()
    [True, False, True, True, False]
    """
    return _octaves_apart(tempo, other) <= CLOSE_TEMPO + ROUNDING


def keys_go_together(key: ArrayLike, mode: ArrayLike, other_key: ArrayLike, other_mode: ArrayLike) -> NDArray[np.bool_]:
    """Whether two keys are one or neighbours: same code, next number with one letter, or one number with the other letter.

    False where one is unknown.

    >>> keys_go_together(0, 1, [0, 7, 9, 2], [1, 1, 0, 1]).tolist()  # C major: C major, G major, A minor, D major
    [True, True, True, False]
    """
    steps = _steps_apart(key, mode, other_key, other_mode)
    return (steps >= 0) & (steps <= 1)


def transition_cost(before: Sound, after: Sound) -> NDArray[np.float64]:
    """How badly one song follows another, 0 (same tempo and key) to 1: the mean of a cost for tempo and one for key.

    Within what goes together the cost rises with the distance, and jumps where that ends; unknown costs the middle, 0.5, so
    that such a song neither attracts nor repels.  The same in both directions.

    >>> transition_cost((120, 0, 1), ([120, 240, 170, np.nan], [0, 7, 6, -1], [1, 1, 1, 1])).round(2).tolist()
    [0.0, 0.05, 1.0, 0.5]
    """
    apart = _octaves_apart(before[0], after[0])
    far = FAR_COST + (1 - FAR_COST) * np.minimum(apart / 0.5, 1)  # half an octave: no tempo is further from same, double and half
    tempo = np.where(apart <= CLOSE_TEMPO + ROUNDING, CLOSE_COST * apart / CLOSE_TEMPO, far)
    steps = _steps_apart(before[1], before[2], after[1], after[2])
    key = KEY_COSTS[steps]  # the last one stands for unknown
    return (np.where(np.isnan(apart), UNKNOWN_COST, tempo) + key) / 2


def _octaves_apart(tempo: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Distance of two tempos in octaves, the nearest of same, double and half; NaN where one is unknown."""
    octaves = np.abs(_log_tempo(tempo) - _log_tempo(other))
    return np.minimum(octaves, np.abs(octaves - 1))


def _log_tempo(tempo: ArrayLike) -> NDArray[np.float64]:
    beats = np.asarray(tempo, np.float64)
    return np.log2(np.where((beats > 0) & np.isfinite(beats), beats, np.nan))


def _steps_apart(key: ArrayLike, mode: ArrayLike, other_key: ArrayLike, other_mode: ArrayLike) -> NDArray[np.int64]:
    """Steps between two keys on the Camelot wheel, 0 to 7, a change of letter being one; -1 where one is unknown."""
    number, is_major = _on_the_wheel(key, mode)
    other_number, is_other_major = _on_the_wheel(other_key, other_mode)
    around = np.abs(number - other_number)
    steps = np.minimum(around, 12 - around) + (is_major != is_other_major)
    return np.where((number > 0) & (other_number > 0), steps, -1)


def in_flow_order(
    tempo: ArrayLike,
    key: ArrayLike,
    mode: ArrayLike,
    *,
    start: Sound | None = None,
    artists: Sequence[int] | None = None,
    spacing: int = 0,
    artists_before: Sequence[int] = (),
) -> NDArray[np.int64]:
    """A permutation (n,) that puts n songs into an order of low cost, after the song `start` if there is one.

    The songs come best first, and that order is kept where none is found to be better.  With `artists` (n,), a song too close to
    one of the same artist, with fewer than `spacing` songs between them, weighs more than any cost: there are never more of them
    than in the given order.  `artists_before` are those of the songs played before, oldest first; unknown artists (below
    FIRST_NUMBER) are never too close.

    >>> in_flow_order([120, 90, 124, 94], [0, 0, 0, 0], [1, 1, 1, 1], start=(89, 0, 1)).tolist()
    [1, 3, 0, 2]
    """
    sounds = tuple(np.asarray(values, np.float64) for values in (tempo, key, mode))
    n = len(sounds[0])
    if n < 2:
        return np.arange(n)
    space = _Space(artists=[0] * n if artists is None else list(artists), before=list(artists_before), spacing=spacing)
    cost = _costs(sounds, start, space)
    given, nearest = list(range(n)), _nearest_neighbours(cost, space)
    found = [given, _improved(nearest, cost, space)]
    if n <= FEW_SONGS or space.count_too_close(nearest) > space.count_too_close(given):
        found.append(_improved(given, cost, space))
    return np.array(min(found, key=lambda order: (space.count_too_close(order), _total(order, cost))), np.int64)


@dataclass(frozen=True, kw_only=True)
class FlowFigures:
    """How well the songs of a list follow each other: shares of its neighbouring pairs, None where no pair is known."""

    tempo: float | None  # of the pairs with two known tempos, those that go together
    key: float | None  # of the pairs with two known keys, those that go together; chance alone: 1/6


def flow_figures(tempo: ArrayLike, key: ArrayLike, mode: ArrayLike) -> FlowFigures:
    """Look at all neighbouring pairs of a list.

    >>> flow_figures([100, 104, 150, np.nan], [0, 7, 1, 1], [1, 1, 1, 0])
    FlowFigures(tempo=0.5, key=0.3333333333333333)
    """
    tempos, keys, modes = (np.asarray(values, np.float64) for values in (tempo, key, mode))
    apart = _octaves_apart(tempos[:-1], tempos[1:])
    steps = _steps_apart(keys[:-1], modes[:-1], keys[1:], modes[1:])
    return FlowFigures(
        tempo=_share(tempo_goes_with(tempos[:-1], tempos[1:]), ~np.isnan(apart)), key=_share(steps <= 1, steps >= 0)
    )


def _share(is_so: NDArray[np.bool_], known: NDArray[np.bool_]) -> float | None:
    return float(is_so[known].mean()) if known.any() else None


@dataclass(frozen=True, kw_only=True)
class _Space:
    """Whose songs must not come too soon after each other."""

    artists: list[int]
    before: list[int]
    spacing: int

    @property
    def binds(self) -> bool:
        """Whether an order of these songs could break the rule at all."""
        known = [artist for artist in [*self.before[-self.spacing :], *self.artists] if artist >= FIRST_NUMBER]
        return self.spacing > 0 and len(set(known)) < len(known)

    def count_too_close(self, order: Sequence[int]) -> int:
        """Songs of the order with one of the same artist among the `spacing` songs before them."""
        if not self.spacing:
            return 0
        count, last = 0, {artist: place for place, artist in enumerate(self.before, start=-len(self.before))}
        for place, song in enumerate(order):
            artist = self.artists[song]
            if artist >= FIRST_NUMBER:
                count += place - last.get(artist, -self.spacing - 1) <= self.spacing
                last[artist] = place
        return count


def _costs(sounds: tuple[NDArray[Any], ...], start: Sound | None, space: _Space) -> NDArray[np.float64]:
    """Costs (n + 2, n + 2) between the songs, from what is before them (n, free without a start), to what is after them (n + 1).

    Neighbours of one artist, where that is not wanted, cost more than any order does.
    """
    n = len(sounds[0])
    cost = np.zeros((n + 2, n + 2))
    columns = tuple(values[:, None] for values in sounds)
    cost[:n, :n] = transition_cost(columns, sounds)  # type: ignore[arg-type]
    if start is not None:
        cost[n, :n] = cost[:n, n] = transition_cost(start, sounds)  # type: ignore[arg-type]
    if space.binds:
        whose = np.array([*space.artists, space.before[-1] if space.before else 0, 0])
        cost[(whose[:, None] == whose) & (whose >= FIRST_NUMBER)] += n + 2
    return cost


def _total(order: list[int], cost: NDArray[np.float64]) -> float:
    path = np.array([len(order), *order])
    return float(cost[path[:-1], path[1:]].sum())


def _nearest_neighbours(cost: NDArray[np.float64], space: _Space) -> list[int]:
    """From the start always to the cheapest song that is left, of equals the better-ranked one; too close only where all are."""
    rows = cost.tolist()
    left, order, here = list(range(len(rows) - 2)), list[int](), len(rows) - 2
    while left:
        recent, row = _recent(order, space), rows[here]
        here = min(left, key=lambda song: (space.artists[song] in recent, row[song]))
        left.remove(here)
        order.append(here)
    return order


def _recent(order: list[int], space: _Space) -> set[int]:
    """Known artists of the `spacing` songs before the next one."""
    if not space.spacing:
        return set()
    played = [*space.before, *(space.artists[song] for song in order[-space.spacing :])]
    return {artist for artist in played[-space.spacing :] if artist >= FIRST_NUMBER}


def _improved(order: list[int], cost: NDArray[np.float64], space: _Space) -> list[int]:
    """Reverse a stretch or move a song, always what saves most, until nothing saves; never at the price of songs too close."""
    n = len(order)
    looks_further = space.binds and space.spacing > 1  # the costs already know about direct neighbours
    too_close = space.count_too_close(order)
    for _ in range(1 + MOST_CHANGES // (2 * n * n + 1)):
        saved = _savings(order, cost)
        if not looks_further:
            best = int(saved.argmax())
            changes = [best] if saved[best] > ROUNDING else []
        else:
            saving = np.flatnonzero(saved > ROUNDING)
            changes = saving[np.argsort(-saved[saving], kind="stable")].tolist()
        for change in changes:
            changed = _changed(order, change)
            count = space.count_too_close(changed) if looks_further else too_close
            if count <= too_close:
                order, too_close = changed, count
                break
        else:
            break
    return order


def _savings(order: list[int], cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """What every change of an order of n songs saves: n x n reversals, then n x (n + 1) moves; see `_changed`."""
    n = len(order)
    path = np.array([n, *order, n + 1])
    along = cost[path[:, None], path]  # (n + 2, n + 2)
    step = along.diagonal(1)  # (n + 1,) between neighbours
    # Songs i to j turned round: the steps into i and out of j are replaced.
    turned = np.triu(step[:-1, None] + step[1:] - along[:-2, 1:-1] - along[1:-1, 2:], 1)  # (n, n)
    # Song i taken out and put before song k.
    gap = step[:-1] + step[1:] - along.diagonal(2)  # (n,)
    moved = gap[:, None] + step - along[1:-1, :-1] - along[1:-1, 1:]  # (n, n + 1)
    songs = np.arange(n)
    moved[songs, songs] = moved[songs, songs + 1] = 0
    return np.concatenate([turned.ravel(), moved.ravel()])


def _changed(order: list[int], change: int) -> list[int]:
    """The order after one of the changes that `_savings` counts."""
    n = len(order)
    if change < n * n:
        i, j = divmod(change, n)
        return order[:i] + order[i : j + 1][::-1] + order[j + 1 :]
    i, k = divmod(change - n * n, n + 1)
    rest = order[:i] + order[i + 1 :]
    k -= k > i
    return [*rest[:k], order[i], *rest[k:]]
