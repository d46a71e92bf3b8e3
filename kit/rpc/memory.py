"""Where a process that handles large messages has its memory from; what the messages are is not known here."""

from __future__ import annotations

import ctypes

#: Parameters of mallopt(3), as glibc numbers them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def share_memory(large_bytes: int) -> None:
    """From now on all threads take memory from one place, where what was freed is there for the next that comes.

    Else each thread that has once seen a piece of 8 MiB keeps as much, and what is given back to the system comes
    again as new pages, which are dear. Pieces of up to ``large_bytes`` are kept, and twice as much in all. Does
    nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, large_bytes)
        mallopt(_M_TRIM_THRESHOLD, 2 * large_bytes)
