"""One sheet of an Excel workbook as a file of rows of its own; it judges no row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kit.rpc.errors import Invalid

WORKBOOKS = (".xlsx", ".xls")
#: What of a sheet's name does not go into that of a file.
_OTHERS = re.compile(r"[^\w-]+")


@contextmanager
def alone(path: Path, sheet: str) -> Iterator[Path]:
    """A file with the rows of that sheet while the block runs; ``path`` itself where no sheet is named.

    It is Parquet with every cell as text, which is what a suite makes of a workbook's first sheet too. Raises Invalid
    for what is no workbook, and for a sheet that it has not, naming those it has.
    """
    if not sheet:
        yield path
        return
    with TemporaryDirectory(prefix="sluice-sheet-") as folder:
        target = Path(folder) / f"{path.name.partition('.')[0]}-{_OTHERS.sub('-', sheet)}.parquet"
        _write(path, sheet, target)
        yield target


def _write(path: Path, sheet: str, target: Path) -> None:
    import fastexcel
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() not in WORKBOOKS:
        raise Invalid(f"`{path}` has no sheets; name one of an Excel workbook, .xlsx or .xls")
    try:
        workbook = fastexcel.read_excel(path)
        if sheet not in workbook.sheet_names:
            known = ", ".join(f"`{each}`" for each in workbook.sheet_names)
            raise Invalid(f"`{path}` has no sheet `{sheet}`; it has {known}")
        batch = workbook.load_sheet(sheet, dtypes="string", eager=True)
    except fastexcel.FastExcelError as error:
        raise Invalid(f"`{path}` is damaged or cut; write the file again") from error
    pq.write_table(pa.Table.from_batches([batch]), target)
