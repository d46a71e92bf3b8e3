"""Public datasets of the field, as data: what each is, how a copy is laid out, how its rows become ours.

It downloads nothing and knows no suite. Nothing is read before it is asked for.
"""

from __future__ import annotations

from sluice.catalogue.entry import Entry
from sluice.catalogue.listing import entries, find, read, search

__all__ = ["Entry", "entries", "find", "read", "search"]
