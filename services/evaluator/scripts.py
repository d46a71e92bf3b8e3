"""Texts in words, or in characters where words have no spaces; it knows no language."""

from __future__ import annotations

import re

#: Han (with extensions and compatibility forms), kana. Hangul has spaces.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CJK = re.compile(f"[{CJK}]")
_LETTER = re.compile(r"\w")


def is_mostly_cjk(text: str) -> bool:
    """Whether at least half of the letters and digits of ``text`` are Chinese or Japanese characters."""
    letters = len(_LETTER.findall(text))
    return bool(letters) and 2 * len(_CJK.findall(text)) >= letters


def starts(text: str, by_character: bool) -> list[int]:
    """Where each word, or each character that is not white space, starts."""
    inside, found = False, []
    for place, char in enumerate(text):
        if not char.isspace() and (by_character or not inside):
            found.append(place)
        inside = not char.isspace()
    return found


def head(text: str, pieces: int, by_character: bool) -> str:
    """The first ``pieces`` words or characters of a text."""
    text = text.strip()
    found = starts(text, by_character)
    return text[: found[pieces]].rstrip() if len(found) > pieces else text
