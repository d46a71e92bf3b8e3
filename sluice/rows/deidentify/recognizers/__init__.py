"""The recognizers by name. Each file holds one; its heavy imports are inside, so that an idle process stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kit.rpc.errors import Invalid
from sluice.rows.deidentify.recognizers.contract import Recognizer, Span
from sluice.rows.deidentify.recognizers.cued import cued
from sluice.rows.deidentify.recognizers.numbers import numbers
from sluice.rows.deidentify.recognizers.presidio import presidio

__all__ = ["RECOGNIZERS", "Recognizer", "Span", "recognizers"]

DEFAULT = ("cued", "numbers")
#: `presidio` needs the extra `deid`; the others need nothing.
RECOGNIZERS: dict[str, Callable[[], Recognizer]] = {"cued": cued, "numbers": numbers, "presidio": presidio}


def recognizers(names: Iterable[str] = DEFAULT) -> list[Recognizer]:
    """The recognizers of these names, and before `presidio` the default ones, to which it adds: it knows no Chinese.

    Raises Invalid for one that is not there or not installed.
    """
    named, found = list(names), []
    for name in dict.fromkeys([*DEFAULT, *named] if "presidio" in named else named):
        if name not in RECOGNIZERS:
            known = ", ".join(f"`{each}`" for each in sorted(RECOGNIZERS))
            raise Invalid(f"recognizer `{name}` is not known; it is one of {known}")
        found.append(RECOGNIZERS[name]())
    return found
