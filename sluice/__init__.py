"""What a client of the suite imports: the contract, Client, CLI and row formats. It loads nothing until asked."""

from __future__ import annotations

from importlib import import_module

__all__ = ["AsyncClient", "Client"]  # their types stand in __init__.pyi, so that services import the contract alone


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module `sluice` has no attribute `{name}`")
    return getattr(import_module("sluice.client"), name)
