"""What the registry is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping

from kit.settings import Settings


def load(environ: Mapping[str, str]) -> Settings:
    """The settings every service has; this one needs no more. Raises ValueError naming the wrong variable."""
    return Settings.from_env("registry", environ)
