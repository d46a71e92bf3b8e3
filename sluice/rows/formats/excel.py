"""The first sheet of an Excel workbook as frames, every cell as text; it is held once."""

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import pyarrow as pa

from sluice.rows.formats.compression import DamagedError
from sluice.rows.frames import Cut, of_table, wrong_file

MAX_BYTES = 64 << 20


def frames(file: BinaryIO) -> Iterator[Cut]:
    """The rows below the line of names; DamagedError where it is no workbook."""
    import fastexcel  # loaded for those only who have a workbook

    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        limit = f"a workbook of at most {MAX_BYTES >> 20} MiB"
        yield wrong_file("file-too-large", limit, "more", "save it as CSV: no limit")
        return
    try:
        workbook = fastexcel.read_excel(content)
        batch = workbook.load_sheet(0, dtypes="string", eager=True)
    except fastexcel.FastExcelError as error:
        raise DamagedError("xlsx") from error
    table, others = pa.Table.from_batches([batch]), len(workbook.sheet_names) - 1
    yield lambda: replace(of_table(table, 1), sheets_unread=others)
