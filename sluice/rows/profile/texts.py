"""The texts of a batch of canonical rows, found by the names and types of its columns; no task type is known here."""

from typing import NamedTuple

import polars as pl
import pyarrow as pa

#: What tells of a row and is not said by it.
ABOUT = frozenset({"split", "key", "id", "group", "tags", "label", "entities"})
#: Columns that name assets, by path or digest.
ASSETS = frozenset({"image", "images", "audio", "audios", "video", "videos", "frames"})
#: Where the answer of a row stands; of messages the last one of the assistant.
ANSWERS = ("messages", "completion", "chosen", "response", "output", "answer")
_PLAIN = (pl.String, pl.Categorical, pl.Enum)


class Texts(NamedTuple):
    """All texts under one field of a batch.

    `table` has the columns `row` (UInt32, place in the batch, ascending), `role` (String, null where there is none)
    and `text` (String, never null), in the order of the batch. `several` tells a list from a single text.
    """

    field: str
    table: pl.DataFrame
    several: bool


def frame_of(batch: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    """The batch in Polars, without a copy where the types allow it."""
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame


def texts_of(frame: pl.DataFrame) -> list[Texts]:
    """The texts of every column that is one, in the order of the columns; numbers and assets are none."""
    return [found for name in frame.columns if name not in ABOUT | ASSETS for found in _column(name, frame[name])]


def assets_of(frame: pl.DataFrame) -> list[Texts]:
    """The same for the names of assets."""
    return [found for name in frame.columns if name in ASSETS for found in _column(name, frame[name])]


def labels_of(frame: pl.DataFrame) -> pl.Series | None:
    """The labels of each row, List(String), null for a row without; None where no column holds such."""
    if "entities" in frame.columns:
        return frame["entities"].list.eval(pl.element().struct.field("label").unique(maintain_order=True))
    if "label" not in frame.columns:
        return None
    labels = frame["label"]
    if isinstance(labels.dtype, pl.Array):
        labels = labels.arr.to_list()
    if isinstance(labels.dtype, pl.List):
        nested = labels.explode().dtype.is_nested()
        return None if nested else labels.cast(pl.List(pl.String))
    if labels.dtype.is_nested():
        return None
    return frame.select(pl.when(labels.is_not_null()).then(pl.concat_list(labels.cast(pl.String)))).to_series()


def answers_of(found: list[Texts]) -> pl.DataFrame | None:
    """`row` and `text` of the last answer of each row that has one; None where no field holds answers."""
    by_field = {each.field: each.table for each in found}
    for field in ANSWERS:
        if field in by_field:
            said = by_field[field].filter((pl.col("role") == "assistant") | pl.col("role").is_null())
            return said.group_by("row", maintain_order=True).agg(pl.col("text").last())
    return None


def joined(tables: list[pl.DataFrame], rows: int) -> pl.Series:
    """One String for each of the rows: its texts in the order of the tables, a line each; empty where it has none."""
    if not tables:
        return pl.Series("text", [""], dtype=pl.String).new_from_index(0, rows)
    every = pl.concat([table.select("row", "text") for table in tables])
    if len(tables) > 1:
        every = every.sort("row", maintain_order=True)
    lines = every.group_by("row", maintain_order=True).agg(pl.col("text").str.join("\n"))
    whole = pl.DataFrame({"row": pl.int_range(rows, dtype=pl.UInt32, eager=True)})
    return whole.join(lines, on="row", how="left", maintain_order="left")["text"].fill_null("")


def _column(name: str, values: pl.Series) -> list[Texts]:
    rows = pl.int_range(len(values), dtype=pl.UInt32, eager=True)
    none = pl.lit(None, dtype=pl.String)
    return _leaves(name, pl.DataFrame({"row": rows, "value": values}).with_columns(role=none), False)


def _leaves(field: str, table: pl.DataFrame, several: bool) -> list[Texts]:
    """Go down to the texts: through lists, and through structs, whose member `role` says who speaks."""
    table = table.drop_nulls("value")
    kind = table.schema["value"]
    if isinstance(kind, pl.List | pl.Array):
        return _leaves(field, table.explode("value"), True)
    if isinstance(kind, pl.Struct):
        names = [member.name for member in kind.fields]
        role = pl.col("value").struct.field("role").cast(pl.String) if "role" in names else pl.col("role")
        return [
            found
            for name in names
            if name != "role"
            for found in _leaves(
                field if name == "content" else f"{field}.{name}",
                table.select("row", role.alias("role"), pl.col("value").struct.field(name).alias("value")),
                several,
            )
        ]
    if isinstance(kind, _PLAIN):
        return [Texts(field, table.select("row", "role", text=pl.col("value").cast(pl.String)), several)]
    return []
