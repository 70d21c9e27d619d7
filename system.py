"""How this process is kept by the system: on which cores, and with how much memory that it does not need.

Nothing here changes what is answered, and where the system lacks a call nothing happens.
"""

import ctypes
import ctypes.util
import gc
import os
import sys
from typing import Any

_M_ARENA_MAX = -8  # of glibc's malloc.h
ARENAS = 2
TURN_SECONDS = 0.0005


def cores() -> list[int]:
    """The cores that this process may run on, in rising order; where the system does not tell, as many as there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(core: int) -> None:
    """Stay on one core from now on, with all threads that are started later.

    The threads of one interpreter take turns, so they gain little from a second core, and on some machines they lose much by
    moving between two: one process answered 327 requests a second on one core and 232 on both.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def take_short_turns() -> None:
    """Let a thread that computes in Python give way after half a millisecond instead of five.

    Scoring takes the interpreter's lock some hundred times for a batch, and each time may wait that long for another thread.
    """
    sys.setswitchinterval(TURN_SECONDS)


def share_memory_among_threads() -> None:
    """Let all threads allocate from the same two arenas: with one for each thread the service held 25 MB more.

    To be called before the first thread is started.
    """
    if (set_option := _of_libc("mallopt")) is not None:
        set_option(_M_ARENA_MAX, ARENAS)


def settle_memory() -> None:
    """Once, after loading and before the first request: return to the system what was freed, 64 to 80 MB at 100,000 songs.

    What is there then will stay, so the collector need not look through it again and again.  It holds all threads up for as long
    as it takes (0.1 to 0.2 s), so this is not for a process that answers.
    """
    gc.collect()
    gc.freeze()
    if (trim := _of_libc("malloc_trim")) is not None:
        trim(0)


def _of_libc(name: str) -> Any:
    libc = ctypes.util.find_library("c")
    return None if libc is None else getattr(ctypes.CDLL(libc), name, None)
