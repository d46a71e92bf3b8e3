"""Parts read back by tests."""

import io
from typing import Any

import pyarrow.parquet

from sluice.rows.parts import Part


def rows_of(parts: list[Part]) -> list[tuple[dict[str, Any], tuple[str, bytes]]]:
    """Each row as it was stored, with its split and its key."""
    found = []
    for part in parts:
        for row in pyarrow.parquet.ParquetFile(io.BytesIO(part.content)).read(use_threads=False).to_pylist():
            beside = row.pop("split"), row.pop("key")
            found.append(({name: value for name, value in row.items() if value is not None}, beside))
    return found


def contents(parts: list[Part]) -> list[dict[str, Any]]:
    """Each row as it was stored."""
    return [row for row, _ in rows_of(parts)]
