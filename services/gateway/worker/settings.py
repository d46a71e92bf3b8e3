"""What a data-path worker is told by its environment beyond what every process is; read once and passed on by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kit.settings import Settings


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of a data-path worker; every field has an environment variable, named beside it."""

    #: The settings that every process has; the worker is part of the gateway.
    process: Settings
    #: The share of the requests that get a span though their caller has no trace, 0 to 1 (``SLUICE_HTTP_TRACE_RATIO``).
    trace_ratio: float = 0.01

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> WorkerSettings:
        """Reads the environment; raises ValueError naming the variable that is wrong and what it should be."""
        return cls(Settings.from_env("gateway", environ), _share(environ, "SLUICE_HTTP_TRACE_RATIO", cls.trace_ratio))


def _share(environ: Mapping[str, str], variable: str, default: float) -> float:
    try:
        value = float(environ.get(variable) or default)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # so does NaN
        raise ValueError(f"{variable} is `{environ[variable]}`; it takes a number from 0 to 1")
    return value
