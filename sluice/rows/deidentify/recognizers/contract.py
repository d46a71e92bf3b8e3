"""What every recognizer of identifying text promises; which there are is not known here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Span(NamedTuple):
    """A piece of a text that identifies: ``text[start:end]``, in characters. It never holds the piece itself."""

    kind: str
    start: int
    end: int


class Recognizer(Protocol):
    """Finds what identifies people in text. Deterministic; holds no text between calls, logs none, asks no network."""

    def hints(self) -> Sequence[str]:
        """One pattern a search (syntax of Rust's `regex`, as Polars takes it); cheap, and wider than the search.

        A text that matches none of them is not handed to ``find``. They see texts with ASCII letters and digits, but
        with signs and spaces as they came, full-width ones among them.
        """

    def find(self, text: str, hint: int) -> list[Span]:
        """What the search behind hint number ``hint`` finds; spans may overlap, the earlier hint has precedence.

        ``text`` is folded: full-width letters, digits and signs are ASCII, at the same places.
        """
