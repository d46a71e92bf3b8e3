"""What a step makes of canonical rows; which steps there are is not known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sluice.rows.violations import RefusedError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Looked:
    """As many rows as were given, perhaps others; which of them are wrong, by place, and which are not wanted.

    `kept` is a mask of shape (rows,), None for all. `identified` counts by kind and path.
    """

    rows: pa.Table
    refused: Mapping[int, RefusedError] = field(default_factory=dict)
    kept: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    identified: Counter[tuple[str, str]] = field(default_factory=Counter)


#: Called from several threads at a time; never raises for what rows hold.
Step = Callable[["pa.Table"], Looked]
