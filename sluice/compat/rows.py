"""Rows that a script holds, as a dataset of the suite: a file or rows in memory are uploaded, a name is looked up.

The same rows again are the same version, so a script that runs twice uploads once. What rows hold is not known here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kit.rpc.errors import Invalid
from sluice.client import Client
from sluice.client.rows import OpenedVersion
from sluice.rows.names import UnknownFormatError, check_file_name


def version_of(client: Client, given: Any, *, name: str, task_type: str, assets: str | Path = "") -> str:
    """The version of a dataset that holds what is given.

    ``given`` is the name of a dataset, a file here, rows that were opened, or rows in memory: dicts, a frame of Polars
    or pandas, a table of Arrow, a ``datasets.Dataset``. Rows in memory become the dataset ``name``. Raises NotFound,
    RowsRefused, Invalid.
    """
    if isinstance(given, OpenedVersion):
        return given.name
    if isinstance(given, str | Path):
        file = Path(given).expanduser()
        if file.is_file():
            return _uploaded(client, file.stem.split(".")[0], file, task_type, assets)
        if isinstance(given, Path) or _is_file_name(given):
            raise Invalid(f"there is no file `{given}`; give one, or the name of a dataset of the suite")
        return given
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        file = Path(folder) / "rows.jsonl"
        _write(given, file)
        return _uploaded(client, name, file, task_type, assets)


def _uploaded(client: Client, name: str, file: Path, task_type: str, assets: str | Path) -> str:
    return client.datasets.upload(name=name, path=file, task_type=task_type, assets=assets or None).name


def _is_file_name(text: str) -> bool:
    try:
        check_file_name(text)
    except UnknownFormatError:
        return text.startswith((".", "/", "~"))
    return True


def _write(rows: Any, file: Path) -> None:
    """Writes rows in memory as JSON lines, whole columns at a time where there are columns."""
    if hasattr(rows, "write_ndjson"):  # Polars
        rows.write_ndjson(file)
    elif hasattr(rows, "to_batches"):  # Arrow
        import polars

        _write(polars.from_arrow(rows), file)
    elif hasattr(rows, "to_json"):  # datasets, pandas
        rows.to_json(str(file), orient="records", lines=True, force_ascii=False)
    elif isinstance(rows, Iterable) and not isinstance(rows, Mapping | bytes):
        _write_lines(rows, file)
    else:
        raise Invalid(f"rows came as {type(rows).__name__}; give dicts, a frame, a table, a file or a dataset's name")


def _write_lines(rows: Iterable[Any], file: Path) -> None:
    with file.open("w", encoding="utf-8") as out:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise Invalid(
                    f"row {number} is of {type(row).__name__}, not a dict; the suite trains on rows, and makes tensors "
                    "of them itself"
                )
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
