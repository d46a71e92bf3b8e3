"""The first rows as people read them; these are content, so who asks must be allowed to read rows."""

import polars as pl
import pyarrow as pa

from sluice.rows.profile.texts import assets_of, frame_of, joined, texts_of


def preview(batch: pa.RecordBatch | pa.Table, *, rows: int = 5, characters: int = 400) -> list[str]:
    """Return the first rows, one string each: a line a text with its field or role, cut after so many characters."""
    frame = frame_of(batch).head(rows)
    cut = pl.col("text").str.head(characters)
    shown = pl.when(pl.col("text") == cut).then(pl.col("text")).otherwise(cut + "…")
    lines = [
        each.table.select("row", text=pl.coalesce("role", pl.lit(each.field)) + ": " + shown)
        for each in (*texts_of(frame), *assets_of(frame))
    ]
    return joined(lines, frame.height).to_list()
