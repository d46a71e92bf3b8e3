"""Whether a text is written in characters that need no spaces; it knows no language."""

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
