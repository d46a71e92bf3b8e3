"""A 128-bit key of what each row of a batch says, equal where rows say the same; how rows are compared is not known."""

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash as plh

from sluice.rows.profile.texts import Texts, assets_of, joined, texts_of

_HIGH = 1 << 64


def content_keys(frame: pl.DataFrame) -> pl.Series:
    """Hash the texts and assets of each row with their fields and roles: XXH3-128 as UInt128, one for each row.

    The same content has the same key in every process and version. `id`, `tags`, `split` and `label` are not content.
    It is no cryptographic hash: who writes rows can make two of them collide.
    """
    said = _framed([*texts_of(frame), *assets_of(frame)], frame.height)
    return said.to_frame().select(plh.col("text").nchash.xxh3_128(seed=0)).to_series().alias("key")


def high_halves(keys: pl.Series) -> npt.NDArray[np.uint64]:
    """The upper 64 bits of keys, which NumPy can hold."""
    return (keys // _HIGH).cast(pl.UInt64).to_numpy()


def asset_keys(frame: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """Hash the assets of each row, 64 bits each; 0 for a row without."""
    found = assets_of(frame)
    if not found:
        return np.zeros(frame.height, np.uint64)
    said = _framed(found, frame.height).to_frame()
    return (
        said.select(
            pl.when(pl.col("text") == "").then(pl.lit(0, pl.UInt64)).otherwise(plh.col("text").nchash.xxh3_64(seed=0))
        )
        .to_series()
        .to_numpy()
    )


def _framed(found: list[Texts], rows: int) -> pl.Series:
    """All texts of each row, each with its length before it, so that no two lists of texts come to the same."""
    role, text = pl.col("role").fill_null(""), pl.col("text")
    tables = [
        each.table.select(
            "row", text=pl.format("{}\x1f{}\x1f{}\x1f{}", pl.lit(each.field), role, text.str.len_bytes(), text)
        )
        for each in found
    ]
    return joined(tables, rows)
