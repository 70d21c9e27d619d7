"""The learning rate over a run: a linear rise, then a cosine down to nothing at the end of the budget."""

import math
import time
from dataclasses import dataclass

from config import TrainingConfig

FINAL_SHARE = 0.01  # of the peak, at the very end


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rates by progress; progress is the larger of steps done and of minutes used.

    Without a budget in minutes the rate depends on the step alone, so a run can be repeated exactly.
    """

    lr: float
    warmup_steps: int
    total_steps: int
    minutes: float | None
    started: float  # time.monotonic() at the first step, moved back by the time that a resumed run had used

    @classmethod
    def of(cls, config: TrainingConfig, steps_per_epoch: int, seconds_used: float = 0.0) -> "Schedule":
        """The schedule of a run that begins now."""
        return cls(
            lr=config.lr,
            warmup_steps=config.warmup_steps,
            total_steps=config.num_epochs * steps_per_epoch,
            minutes=config.minutes,
            started=time.monotonic() - seconds_used,
        )

    def seconds_used(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self.started

    def time_share(self) -> float:
        """Share of the minutes that is used up, 1 or more when they are over; 0 without a budget."""
        return 0.0 if self.minutes is None else self.seconds_used() / (60 * self.minutes)

    def rate(self, step: int, time_share: float = 0.0) -> float:
        """The learning rate of a step counted from 0, when so much of the time is used up.

        The share of time is the caller's to say, since all processes of a group must go by the clock of one.
        """
        progress = min(1.0, max(step / self.total_steps, time_share))
        return learning_rate(self.lr, step, self.warmup_steps, progress)


def learning_rate(peak: float, step: int, warmup_steps: int, progress: float) -> float:
    """Linear warm-up to `peak`, cosine decay to FINAL_SHARE of it (SGDR, Loshchilov and Hutter 2017, without restarts).

    >>> [round(learning_rate(1.0, step, 10, step / 100), 3) for step in (0, 4, 50, 100)]
    [0.1, 0.498, 0.505, 0.01]
    """
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    fall = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
    return peak * rise * fall
