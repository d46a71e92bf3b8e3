"""MinHash signatures of texts, their bands, and how similar two are; which are to be compared is not known here."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sluice.rows.profile.shingles import pieces, shingles

#: The standard error of a similarity is sqrt(s (1 - s) / PERMUTATIONS), 0.035 at 0.8.
PERMUTATIONS = 128
#: The share of pairs at the threshold that the bands may miss.
_MISSED = 0.005
#: Pairs compared at once: each takes 2 × PERMUTATIONS bytes.
_AT_ONCE = 1 << 16
Places = npt.NDArray[np.int64]


class Signatures(NamedTuple):
    """Of each text: the low bytes of its minima, shape (texts, PERMUTATIONS), and hashes of their bands."""

    low: npt.NDArray[np.uint8]
    bands: npt.NDArray[np.uint32]

    def chosen(self, which: Places | npt.NDArray[np.bool_]) -> "Signatures":
        """Those of some of the texts."""
        return Signatures(self.low[which], self.bands[which])

    @classmethod
    def room(cls, texts: int, bands: int) -> "Signatures":
        """Room for those of so many texts."""
        return cls(np.empty((texts, PERMUTATIONS), np.uint8), np.empty((texts, bands), np.uint32))


def banding(threshold: float) -> tuple[int, int]:
    """Return (bands, minima in a band): the longest bands that miss at most 0.5 % of pairs at the threshold.

    A pair of similarity s meets in a band with 1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive
    Datasets, section 3.4.2).
    """
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= _MISSED:
            return bands, rows
    return PERMUTATIONS, 1


def signatures(
    texts: pl.Series, salts: npt.NDArray[np.uint64], *, threshold: float, shingle: int, seed: int
) -> Signatures:
    """Sign each text by its n-grams of `shingle` characters; texts without any, the empty ones, are all alike."""
    from rensa import RMinHash

    bands, rows = banding(threshold)
    weights = np.random.default_rng(seed + 1).integers(1, 1 << 63, rows, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signed, start = Signatures.room(len(texts), bands), 0
    for piece in pieces(texts):
        hashes, offsets = shingles(piece, salts[start : start + len(piece)], shingle, seed)
        here = slice(start, start + len(piece))
        start = here.stop
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, seed)
        minima = np.array(matrix.to_rows(), np.uint32).reshape(-1, PERMUTATIONS)
        banded = minima[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
        signed.bands[here] = (banded * weights).sum(axis=2, dtype=np.uint64) >> np.uint64(32)
        signed.low[here] = minima & 0xFF
    return signed


def similarity(low: npt.NDArray[np.uint8], left: Places, right: Places) -> npt.NDArray[np.float64]:
    """Estimate the Jaccard similarity of pairs from bytes, which also agree by chance (Li and König, WWW 2010)."""
    parts = [
        (low[left[start : start + _AT_ONCE]] == low[right[start : start + _AT_ONCE]]).mean(axis=1)
        for start in range(0, len(left), _AT_ONCE)
    ]
    agreeing = np.concatenate([*parts, np.zeros(0)])
    corrected: npt.NDArray[np.float64] = (agreeing - 1 / 256) / (1 - 1 / 256)
    return corrected
