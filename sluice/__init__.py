"""What a client of the suite imports: the contract, Client, CLI, row formats; it loads nothing at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module `sluice` has no attribute `{name}`")
    import sluice.client

    return getattr(sluice.client, name)
