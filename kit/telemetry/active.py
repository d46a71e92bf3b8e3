"""What ``configure`` has put in place, read by spans, figures and logs; it starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from kit.telemetry.metrics import Meters


@dataclass
class Active:
    """The parts in place; all empty before ``configure`` and after ``shutdown``."""

    service: str = ""
    tracer: Tracer | None = None
    meters: Meters | None = None


active = Active()
