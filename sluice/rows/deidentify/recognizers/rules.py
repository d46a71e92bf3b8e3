"""A recognizer that is a table of patterns with their checks; what they look for stands in the tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sluice.rows.deidentify.recognizers.contract import Span

#: What people put between digits, as it is before a text is folded.
GAP = "[ \u00a0\u2000-\u2015\u2060\u2212\u3000\ufeff()（）－-]"


def digits(least: int) -> str:
    """A hint for ``least`` digits and more, with at most two separators between any two."""
    return f"[0-9](?:{GAP}{{0,2}}[0-9]){{{least - 1}}}"


def pattern(source: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern for folded text: digits are ASCII, and a Chinese neighbor is no letter of the same word."""
    return re.compile(source, flags | re.ASCII)


def anything(_: re.Match[str]) -> bool:
    """The check of a pattern that needs none."""
    return True


@dataclass(frozen=True)
class Rule:
    """A kind, the hint of its texts, its pattern in folded text, and the check that a match must pass.

    What is found is the group ``v`` of the pattern, or the whole match where there is none.
    """

    kind: str
    hint: str
    pattern: re.Pattern[str]
    check: Callable[[re.Match[str]], bool] = anything


class Rules:
    """The recognizer of a table."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def hints(self) -> Sequence[str]:
        return [rule.hint for rule in self._rules]

    def find(self, text: str, hint: int) -> list[Span]:
        rule = self._rules[hint]
        group: str | int = "v" if "v" in rule.pattern.groupindex else 0
        return [Span(rule.kind, *match.span(group)) for match in rule.pattern.finditer(text) if rule.check(match)]


def bare(match: re.Match[str]) -> str:
    """What was matched, without separators and in upper case."""
    found = match["v"] if "v" in match.re.groupindex else match[0]
    return re.sub(r"[^0-9A-Za-z]", "", found).upper()


def after_cue(cue: re.Pattern[str], reach: int) -> Callable[[re.Match[str]], bool]:
    """A check that ``cue`` stands in the ``reach`` characters before the match."""
    return lambda match: cue.search(match.string, max(0, match.start() - reach), match.start()) is not None
