"""Text in the encodings that files come in besides UTF-8, found and turned into it; no row is known here.

Known are GB18030, which Windows writes in China (GBK and GB2312 are parts of it), and UTF-16 with a byte order mark,
which Excel writes as "Unicode text". Most bytes can be read as GB18030, so they are taken for that only where they
read like running Chinese; text in EUC-KR, EUC-JP, Latin-1 or Windows-1251 is of no encoding that is known here.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import numpy as np

GB18030, UTF_16 = "GB18030", "UTF-16"
#: Bytes that are looked at, and how many of the characters in them have to be of the common ones.
SAMPLE_BYTES = 1 << 20
LEAST_SHARE = 0.9
#: Of the hanzi, so many at least stand in either half of what is spread evenly in Chinese. Level 1 of GB/T 2312-1980 is
#: in the order of pinyin: four in ten begin with 0xC9 or more, where EUC-KR has no Hangul; three in ten end below 0xC0,
#: where Latin-1, Windows-1251 and KOI8-R have no letter.
LEAST_SPREAD = 0.1
_LATE, _EARLY = 0xC9, 0xC0
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_FOREIGN = re.compile(r"[^\x00-\x7f]+")


class ForeignTextError(ValueError):
    """The text is in this other encoding, and perhaps damaged."""

    def __init__(self, encoding: str, *, damaged: bool = False) -> None:
        super().__init__(encoding)
        self.encoding = encoding
        self.damaged = damaged


class Recoding:
    """The bytes of a text in UTF-8, whatever they come in; `of` says in which other encoding they came, if in one."""

    def __init__(self, chunks: Iterator[bytes], *, fix: bool) -> None:
        self.of = ""
        self._chunks = chunks
        self._fix = fix

    def __iter__(self) -> Iterator[bytes]:
        """Raises ForeignTextError where another encoding is found, unless it is to be turned into UTF-8.

        What the first piece tells that is not all ASCII goes for all; bytes that are of no known encoding stay as
        they are.
        """
        for place, chunk in enumerate(self._chunks):
            if place and chunk.isascii():
                yield chunk
                continue
            self.of = encoding_of(chunk, first=place == 0)
            if self.of and not self._fix:
                raise ForeignTextError(self.of)
            if self.of:
                yield from self._recoded(chunk)
                return
            yield chunk
            if not chunk.isascii():
                break
        yield from self._chunks

    def _recoded(self, chunk: bytes) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.of)(errors="strict")
        try:
            yield decoder.decode(chunk).encode()
            for later in self._chunks:
                yield decoder.decode(later).encode()
            decoder.decode(b"", final=True)
        except UnicodeError:  # a lone surrogate among them
            raise ForeignTextError(self.of, damaged=True) from None


def encoding_of(data: bytes, *, first: bool = False) -> str:
    """The encoding that the beginning of a text is in, if it is one of those known here and not UTF-8; else empty.

    With `first` a byte order mark counts.
    """
    if first and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return UTF_16
    begun = _NOT_ASCII.search(data)
    sample = data[begun.start() : begun.start() + SAMPLE_BYTES] if begun else b""
    if _is_utf8(sample):
        return ""
    text = codecs.getincrementaldecoder(GB18030)("replace").decode(sample)
    return GB18030 if _is_chinese("".join(_FOREIGN.findall(text))) else ""


def _is_chinese(text: str) -> bool:
    """Whether nearly all of it are common hanzi and the signs that stand among them, and the hanzi are of all kinds."""
    pairs = np.frombuffer(text.encode("gb2312", "ignore"), np.uint8).reshape(-1, 2)
    row = pairs[:, 0]
    hanzi = pairs[(row >= 0xB0) & (row <= 0xD7)]
    signs = np.count_nonzero((row >= 0xA1) & (row <= 0xA3))  # full-width forms among them; kana have the rows after
    if not len(hanzi) or len(hanzi) + signs < LEAST_SHARE * len(text):
        return False
    spread = (np.mean(hanzi[:, 0] >= _LATE), np.mean(hanzi[:, 1] < _EARLY))
    return bool(min(spread) >= LEAST_SPREAD)


def recoded(raw: bytes) -> bytes | None:
    """One row in UTF-8; None where it is in no other encoding that is known."""
    encoding = encoding_of(raw)
    try:
        return raw.decode(encoding).encode() if encoding else None
    except UnicodeError:
        return None


def _is_utf8(data: bytes) -> bool:
    """Whether it is, but for a last character that may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeError:
        return False
    return True
