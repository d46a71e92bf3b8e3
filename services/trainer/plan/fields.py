"""Numbers out of a config.json, and the matrices that they make; knows no architecture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class UnplannableError(ValueError):
    """The figures cannot be computed; ``field`` misses or is not known, and the text says what about it."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field} {what}")
        self.field = field
        self.what = what


@dataclass(frozen=True)
class Linear:
    """A matrix of ``inputs`` × ``outputs``; a model has ``count`` of that name."""

    name: str
    inputs: int
    outputs: int
    count: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Numbers in all of them, without biases."""
        return self.inputs * self.outputs * self.count


def numbers(linears: Iterable[Linear]) -> int:
    """Those of all matrices, with their biases."""
    return sum((each.inputs * each.outputs + (each.outputs if each.bias else 0)) * each.count for each in linears)


def count(config: Mapping[str, Any], name: str) -> int:
    """The positive whole number of that name; 0 where it is none."""
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
