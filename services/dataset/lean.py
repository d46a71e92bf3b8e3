"""Keeps a process small: no pandas, and its memory in one place; what the process does is not known here."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Parameters of mallopt(3), as glibc numbers them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
#: Larger than the pieces of an upload and the parts of a version: these come again and again, and new pages are dear.
_LARGE_BYTES = 64 << 20


class _Absent(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process", name=fullname)
        return None


def without_pandas() -> None:
    """From now on nothing in this process finds pandas, which Arrow loads where it is.

    That takes a third of a second and 50 MB, and nobody here uses it.
    """
    if not any(isinstance(each, _Absent) for each in sys.meta_path):
        sys.meta_path.insert(0, _Absent())


def share_memory() -> None:
    """From now on all threads take memory from one place, where what was freed is there for the next that comes.

    Else each thread that has once seen a piece of 8 MiB keeps as much. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)
