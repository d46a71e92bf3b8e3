"""A measured figure with all that is needed to believe it; how it was measured is another's work."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """``low`` and ``high`` are bounds that the true value keeps with 95 percent each; infinite: nothing is known."""

    name: str
    #: Such as "p95"; of ``n`` values.
    statistic: str
    value: float
    low: float
    high: float
    n: int
    #: What the issue asks for, met by lying below it; None for a figure that is reported only.
    target: float | None
    start: str
    end: str
    #: What else ran meanwhile.
    beside: str
    #: Met by lying above the target.
    at_least: bool = False
    #: Other figures of the same runs, by name.
    details: dict[str, float] = field(default_factory=dict)
    note: str = ""
    #: Load average of the last minute, before and after; set by who calls.
    load: tuple[float, float] = (math.nan, math.nan)

    @property
    def verdict(self) -> str:
        """`holds` when the bound keeps the target, `value only` when the value does and the bound does not."""
        if self.target is None:
            return "reported"
        value, bound, target = self.value, self.high, self.target
        if self.at_least:
            value, bound, target = -self.value, -self.low, -self.target
        return "holds" if bound <= target else "value only" if value <= target else "NOT MET"

    @property
    def goal(self) -> str:
        """The target with its direction."""
        return "-" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"

    def as_json(self) -> dict[str, Any]:
        """Plain data; a bound that is infinite is null."""
        plain = {key: _finite(value) for key, value in asdict(self).items()}
        return {**plain, "verdict": self.verdict}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
