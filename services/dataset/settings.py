"""What the dataset service is told by its environment beyond what every process is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from kit.settings import Settings


@dataclass(frozen=True)
class DatasetSettings(Settings):
    """The settings of the dataset service; every field has an environment variable, named beside it."""

    #: Bytes a second that the look through all stored blobs reads; 0 for none (``SLUICE_SCRUB_BYTES_PER_S``).
    scrub_bytes_per_s: float = 16 * 2**20
    #: Seconds from the begin of one look to that of the next (``SLUICE_SCRUB_EVERY_S``); 7 days.
    scrub_every_s: float = 604_800.0
    #: Seconds that a blob is kept of which nobody has a part any more (``SLUICE_DATASET_DOOMED_S``).
    doomed_s: float = 3600.0


def load(environ: Mapping[str, str]) -> DatasetSettings:
    """The settings of the service. Raises ValueError naming the wrong variable and what it should be."""
    shared = Settings.from_env("dataset", environ)
    return DatasetSettings(
        **{each.name: getattr(shared, each.name) for each in fields(shared)},
        scrub_bytes_per_s=_number(environ, "SLUICE_SCRUB_BYTES_PER_S", DatasetSettings.scrub_bytes_per_s),
        scrub_every_s=_number(environ, "SLUICE_SCRUB_EVERY_S", DatasetSettings.scrub_every_s, above=True),
        doomed_s=_number(environ, "SLUICE_DATASET_DOOMED_S", DatasetSettings.doomed_s, above=True),
    )


def _number(environ: Mapping[str, str], variable: str, default: float, *, above: bool = False) -> float:
    try:
        value = float(environ.get(variable) or default)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf or (value == 0 and not above)):
        least = "above 0" if above else "from 0"
        raise ValueError(f"{variable} is `{environ[variable]}`; it takes a number {least}")
    return value
