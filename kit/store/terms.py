"""Text cut into the terms it is found by; it knows neither whose text it is nor where terms are kept.

A word is one term, without regard to case and width (NFKC, Unicode case folding); there are no stems and no synonyms.
Scripts that set no blanks (Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese) become pairs of neighbors, so that
`诊断` is found wherever it stands; the last character of a run is a term alone, so that every character begins one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

#: Longer words are cut; PostgreSQL takes terms of at most 2046 bytes.
MAX_TERM = 64
#: Terms that no text has, as they are of Unicode's private use: between two texts, in everything, before a fact.
BOUNDARY, EVERYTHING, FACT = "\ue000", "\ue001", "\ue002"
_SOUTHEAST = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_EAST = "\u1100-\u11ff\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
_RUN = rf"(?:[{_SOUTHEAST}]|(?=[^\W_])[{_EAST}])"
PIECE = re.compile(rf"(?P<run>{_RUN}+)|(?P<word>(?:(?!{_RUN})[^\W_])+)")


def document(texts: Iterable[str], facts: Iterable[str]) -> list[str]:
    """All terms of a resource in their order; a phrase cannot reach from one text into the next."""
    terms = [EVERYTHING, *facts]
    for text in texts:
        terms.append(BOUNDARY)
        for kind, piece in _pieces(text):
            terms += _pairs(piece) if kind == "run" else _cut(piece)
    return terms


def phrase(text: str) -> tuple[list[str], bool]:
    """The terms that must stand in a row where a text contains this one; True: the last is but the beginning of one.

    Empty for a text without a letter or digit. A single character is found wherever a term begins with it.
    """
    pieces = _pieces(text)
    terms: list[str] = []
    for kind, piece in pieces:
        terms += _pairs(piece) if kind == "run" else _cut(piece)
    if not pieces or pieces[-1][0] == "word":
        return terms, False
    alone = len(pieces[-1][1]) == 1
    return (terms, True) if alone else (terms[:-1], False)


def fact(name: str, value: object) -> str:
    """The term of an exact value, such as that of a tag; a hash of 80 bits, as values may hold anything."""
    digest = hashlib.blake2b(f"{name}\0{value}".encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return f"{FACT}{digest}"


def _pieces(text: str) -> list[tuple[str, str]]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return [(str(found.lastgroup), found.group()) for found in PIECE.finditer(folded)]


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run))]


def _cut(word: str) -> list[str]:
    return [word[at : at + MAX_TERM] for at in range(0, len(word), MAX_TERM)]
