"""What counts as a play: long enough to have been heard, left early by the listener's own choice, or neither.

Spotify counts a stream after 30 seconds; ListenBrainz and Last.fm take half of a song or some minutes.  What the listener left
before that is a skip, which says something; what a crash or a logout ended before that says nothing.
"""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What became of a play."""

    HEARD = "heard"
    SKIPPED = "skipped"  # begun and left: kept, and never taken for a song that was wanted
    TOO_SHORT = "too short"  # ended early by something else than the listener: says nothing


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings of `[imports]` that readers ask."""

    min_play_seconds: float = 30.0
    """A song that played for so long was heard."""
    min_play_share: float = 0.5
    """So was one that played for this share of its length, where the length is known."""
    keep_incognito: bool = False
    """Whether plays of private sessions are imported."""

    def judge(self, ms_played: int, duration_ms: int | None, *, by_listener: bool) -> Verdict:
        """What a play of `ms_played` milliseconds was; `by_listener`: its end was the listener's own doing.

        >>> Policy().judge(12_000, 20_000, by_listener=False)
        <Verdict.HEARD: 'heard'>
        >>> Policy().judge(12_000, None, by_listener=True)
        <Verdict.SKIPPED: 'skipped'>
        """
        if ms_played >= 1000 * self.min_play_seconds:
            return Verdict.HEARD
        if duration_ms and ms_played >= self.min_play_share * duration_ms:
            return Verdict.HEARD
        return Verdict.SKIPPED if by_listener else Verdict.TOO_SHORT

    @property
    def too_short(self) -> str:
        """The reason by which a TOO_SHORT play is left out."""
        return f"played for less than {self.min_play_seconds:g} s, and nothing says that the listener left it"
