"""What of an expression is refused before it is parsed; what it means is not known here.

sqlglot tries what stands in brackets after some words in several ways, and each of them again for what is inside: each
`struct(struct(struct(…` more takes it twice the time. So there may be only a few words that expressions do not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlglot import Token, TokenType

from sluice.rows.demands.operators import FUNCTIONS

MOST_BRACKETS, MOST_STRANGERS = 40, 3
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE}
#: Words that may stand before a bracket, with other names of functions that sqlglot knows.
_KNOWN = {
    *FUNCTIONS,
    *["and", "or", "not", "in", "like", "ilike", "rlike", "regexp", "between", "is", "case", "when", "then", "else"],
    *["ifnull", "nvl", "len", "char_length", "lcase", "ucase", "startswith", "endswith"],
}


class Nested(NamedTuple):
    """What is wrong, and where it begins in the text, from 0."""

    place: int
    what: str


def nested(tokens: Sequence[Token]) -> Nested | None:
    """What is nested too deeply, or too much of what expressions do not know; None where nothing is."""
    depth = strangers = 0
    before = None
    for token in tokens:
        if token.token_type in _OPENING:
            depth += 1
            if before is not None and before.text[-1:].isalnum() and before.text.lower() not in _KNOWN:
                strangers += 1
                if strangers > MOST_STRANGERS:
                    return Nested(before.start, f"may not use `{before.text[:40]}{token.text}`")
        elif token.token_type in _CLOSING:
            depth -= 1
        if depth > MOST_BRACKETS:
            return Nested(token.start, "is nested too deeply")
        before = token
    return None
