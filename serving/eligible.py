"""Which songs may be recommended at all: what a query excludes, what its listener has blocked, and what its bounds let through.

Some of it gives way when too few songs would be left (`RELAXED_IN_ORDER`); the rest holds.

Shape letter: V songs by number, the specials included.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from config import FIRST_NUMBER
from errors import InvalidSequence
from serving.controls import Range, Rules

NO_SONGS = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Eligible:
    """The songs that one answer may hold."""

    hard: np.ndarray | None  # (V,) bool; None: all
    excluded: np.ndarray  # (n,) song numbers that never come back
    skipped: np.ndarray = field(default_factory=lambda: NO_SONGS)
    played: np.ndarray = field(default_factory=lambda: NO_SONGS)
    in_ranges: np.ndarray | None = None  # (V,) bool: known to be within all bounds; None: there are no bounds
    maybe_in_ranges: np.ndarray | None = None  # (V,) bool: within those bounds whose feature is known

    def softened(self) -> list[tuple[str, ...]]:
        """The rules given up, step by step: none at first, then those that could let in more songs, in their order."""
        soft = [
            name
            for name, is_there in (
                ("skipped", bool(self.skipped.size)),
                ("exclude_played_days", bool(self.played.size)),
                ("ranges", self.in_ranges is not None),
            )
            if is_there
        ]
        return [tuple(soft[:n]) for n in range(len(soft) + 1)]

    def without(self, given_up: Collection[str]) -> tuple[np.ndarray | None, np.ndarray]:
        """The mask (V,), None for all songs, and the excluded numbers while some rules are given up."""
        excluded = [
            self.excluded,
            NO_SONGS if "skipped" in given_up else self.skipped,
            NO_SONGS if "exclude_played_days" in given_up else self.played,
        ]
        ranges = self.maybe_in_ranges if "ranges" in given_up else self.in_ranges
        masks = [mask for mask in (self.hard, ranges) if mask is not None]
        return (np.logical_and.reduce(masks) if masks else None), np.concatenate(excluded)


@dataclass(frozen=True, kw_only=True)
class Editions:
    """The songs that share their recording with another one."""

    recordings: np.ndarray  # (V,)
    songs: np.ndarray  # (e,) song numbers

    @classmethod
    def of(cls, recordings: np.ndarray) -> "Editions":
        """Out of the recording of each song, (V,)."""
        return cls(recordings=recordings, songs=np.flatnonzero(np.bincount(recordings)[recordings] > 1))

    def of_songs(self, numbers: np.ndarray) -> np.ndarray:
        """Song numbers and all other editions of their recordings, each once."""
        if not self.songs.size or not numbers.size:
            return np.unique(numbers)
        others = self.songs[np.isin(self.recordings[self.songs], self.recordings[numbers])]
        return np.union1d(numbers, others)


def within(ranges: Mapping[str, Range], features: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Songs known to be within all bounds, and those within the bounds whose feature is known: (V,) bool each, None without any.

    Raises InvalidSequence for a feature that no song has.
    """
    known_inside = maybe_inside = None
    for name, bounds in ranges.items():
        if name not in features:
            known = ", ".join(sorted(features)) or "none, since the songs have no features"
            raise InvalidSequence(f"ranges.{name}: there is no such feature: known are {known}")
        values = features[name]
        inside = np.ones(len(values), bool)
        with np.errstate(invalid="ignore"):  # an unknown value is NaN and within no bound
            if bounds.min is not None:
                inside &= values >= bounds.min
            if bounds.max is not None:
                inside &= values <= bounds.max
        unknown = np.isnan(values)
        known_inside = inside & ~unknown if known_inside is None else known_inside & inside & ~unknown
        maybe_inside = inside | unknown if maybe_inside is None else maybe_inside & (inside | unknown)
    return known_inside, maybe_inside


def allowed_songs(
    n_songs: int,
    rules: Rules,
    *,
    available: np.ndarray,
    explicit: np.ndarray | None,
    artists: np.ndarray,
    only: Sequence[np.ndarray],
    blocked_artists: np.ndarray,
) -> np.ndarray | None:
    """The hard mask, (V,) bool or None for all songs.

    `available` (V,) are songs that can be had, `explicit` (V,) is above 0 for marked ones (NaN: not known), `only` are lists of
    song numbers of which each must hold a song, `blocked_artists` are artist numbers.
    """
    masks = []
    if not available[FIRST_NUMBER:].all():
        masks.append(available)
    if not rules.allow_explicit and explicit is not None:
        masks.append(~(np.nan_to_num(explicit) > 0))
    if blocked_artists.size:
        masks.append(~np.isin(artists, blocked_artists))
    for numbers in only:
        listed = np.zeros(n_songs, bool)
        listed[numbers] = True
        masks.append(listed)
    return np.logical_and.reduce(masks) if masks else None
