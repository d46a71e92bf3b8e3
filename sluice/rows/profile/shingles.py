"""Texts into hashed character n-grams, many texts at a time; what they are compared for is not known here."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
#: Characters of a row that are looked at; a row may hold 3 MiB.
MAX_CHARACTERS = 100_000
#: Characters hashed at once: each takes some 40 bytes meanwhile.
_AT_ONCE = 1 << 20
_IDEOGRAPHIC_SPACE, _NO_BREAK_SPACE = 0x3000, 0xA0


def pieces(texts: pl.Series) -> Iterator[pl.Series]:
    """Cut a column of texts so that each piece has at most a mebi of characters, or is one text."""
    ends = texts.str.len_chars().clip(upper_bound=MAX_CHARACTERS).cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _AT_ONCE, "right")), start + 1)
        yield texts[start:stop]
        start = stop


def shingles(texts: pl.Series, salts: Hashes, size: int, seed: int) -> tuple[Hashes, Offsets]:
    """Hash the n-grams of `size` characters of each text: (hashes, where each text's begin and the last one's end).

    Case and white space do not count. A text that is shorter than `size` is one shingle, an empty one none. The salt of
    a text enters all its hashes, so that texts of different salts have none in common. Hashes are multilinear (Lemire
    and Kaser, The Computer Journal 57, 2014), mixed as in MurmurHash3, and the same for the same seed everywhere.
    """
    codes, offsets = _codes(texts)
    lengths = np.diff(offsets)
    keys = np.random.default_rng(seed).integers(1, 1 << 63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    padded = np.concatenate([codes, np.zeros(size, np.uint64)])
    hashes = np.zeros(len(codes), np.uint64)
    for place, key in enumerate(keys):
        hashes += padded[place : place + len(codes)] * key
    short = np.flatnonzero((lengths > 0) & (lengths < size))
    places = offsets[short, None] + np.arange(size)
    inside = np.arange(size) < lengths[short, None]
    hashes[offsets[short]] = (np.where(inside, padded[places], np.uint64(0)) * keys).sum(axis=1, dtype=np.uint64)
    counts = np.where(lengths >= size, lengths - size + 1, np.minimum(lengths, 1))
    first_unused = np.repeat(offsets[:-1] + counts, lengths)
    used = np.arange(len(codes)) < first_unused
    salted = (hashes ^ np.repeat(salts, lengths))[used]
    return _mixed(salted), np.concatenate([[0], np.cumsum(counts)])


def _codes(texts: pl.Series) -> tuple[Hashes, Offsets]:
    """The code points of all texts in a row, counted from 1, without white space, and the offsets of the texts."""
    texts = texts.str.head(MAX_CHARACTERS).str.to_lowercase()
    whole = texts.str.join("")[0] or ""
    codes = np.frombuffer(whole.encode("utf-32-le"), np.uint32)
    kept = (codes > 0x20) & (codes != _IDEOGRAPHIC_SPACE) & (codes != _NO_BREAK_SPACE)
    ends = np.concatenate([[0], np.cumsum(texts.str.len_chars().to_numpy(), dtype=np.int64)])
    return codes[kept].astype(np.uint64) + np.uint64(1), np.concatenate([[0], np.cumsum(kept)])[ends]


def _mixed(hashes: Hashes) -> Hashes:
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    return hashes
