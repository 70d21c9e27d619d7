"""What a load client noted, read back, and the few figures that are taken from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serve.client import HAS_RETRY_AFTER, IS_RIGHT

RECORD_TYPE = np.dtype([("due", "<f8"), ("took", "<f8"), ("status", "<u2"), ("kind", "u1"), ("flags", "u1")])


@dataclass(frozen=True)
class Records:
    """One record a request, in the order in which they were answered."""

    rows: np.ndarray  # (n,) of RECORD_TYPE

    @classmethod
    def read(cls, path: Path) -> "Records":
        """All whole records of a file, which may still be growing."""
        return cls.of(path.read_bytes())

    @classmethod
    def of(cls, content: bytes) -> "Records":
        """All whole records of some bytes."""
        return cls(np.frombuffer(content[: len(content) - len(content) % RECORD_TYPE.itemsize], RECORD_TYPE))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_right(self) -> np.ndarray:
        """(n,) a wanted status, with as many songs as were asked for."""
        return (self.rows["flags"] & IS_RIGHT) > 0

    @property
    def has_retry_after(self) -> np.ndarray:
        """(n,) refused, with a Retry-After."""
        return (self.rows["flags"] & HAS_RETRY_AFTER) > 0

    @property
    def failed(self) -> int:
        """Requests without a right answer."""
        return int((~self.is_right).sum())

    @property
    def longest_ms(self) -> float:
        """The slowest answer; 0 where there is none."""
        return float(1000 * self.rows["took"].max(initial=0.0))

    def due_within(self, begin: float, end: float) -> "Records":
        """Requests that were due from `begin` (included) to `end` (not), on the monotonic clock."""
        return Records(self.rows[(self.rows["due"] >= begin) & (self.rows["due"] < end)])

    def of_kind(self, *kinds: int) -> "Records":
        """Requests of some kinds."""
        return Records(self.rows[np.isin(self.rows["kind"], kinds)])

    def answers_per_second(self, begin: float, end: float) -> float:
        """Right answers that came from `begin` to `end`, a second."""
        answered = (self.rows["due"] + self.rows["took"])[self.is_right]
        return float(((answered >= begin) & (answered < end)).sum() / (end - begin))

    def quantile_ms(self, share: float) -> float:
        """See `quantile`, in milliseconds; a request that failed counts with the time until it was given up."""
        return 1000 * quantile(self.rows["took"], share)


def quantile(values: np.ndarray, share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; an observed one, nothing is interpolated.

    >>> quantile(np.arange(1.0, 101.0), 0.99), quantile(np.array([3.0, 1.0, 2.0]), 0.5)
    (99.0, 2.0)
    """
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else float("nan")


def slope_per_hour(seconds: np.ndarray, values: np.ndarray) -> float:
    """The slope of the least-squares line through values at times, in units of the values an hour.

    >>> slope_per_hour(np.array([0.0, 1800.0, 3600.0]), np.array([100.0, 101.0, 102.0]))
    2.0
    """
    if len(seconds) < 2:
        return float("nan")
    from_mean = seconds - seconds.mean()
    return float(3600 * (from_mean @ (values - values.mean())) / (from_mean @ from_mean))
