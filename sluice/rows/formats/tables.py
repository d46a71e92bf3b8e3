"""Parquet and Arrow files as frames; they bring their columns along."""

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from sluice.rows.formats.compression import DamagedError
from sluice.rows.frames import FRAME_BYTES, Cut, of_table

MOST_ROWS = 8192
_ARROW_FILE = b"ARROW1"
_BUFFER_BYTES = 1 << 20


def parquet_frames(file: BinaryIO) -> Iterator[Cut]:
    """The rows of a Parquet file, a batch at a time; DamagedError where it is none."""
    try:
        source = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        about = source.metadata
        size = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
        yield from _numbered(source.iter_batches(_rows_at_once(size, about.num_rows), use_threads=False))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError("parquet") from error


def arrow_frames(file: BinaryIO) -> Iterator[Cut]:
    """The rows of an Arrow IPC file (Feather 2 is one) or stream, such as `datasets` writes."""
    try:
        start = file.read(len(_ARROW_FILE))
        file.seek(0)
        if start == _ARROW_FILE:
            source = pa.ipc.open_file(file)
            yield from _numbered(source.get_batch(index) for index in range(source.num_record_batches))
        else:
            yield from _numbered(iter(pa.ipc.open_stream(file)))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError("arrow") from error


def _numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[Cut]:
    number = 1
    for batch in batches:
        step = _rows_at_once(batch.nbytes, len(batch))
        for start in range(0, len(batch), step):
            piece = batch.slice(start, step)
            yield partial(of_table, pa.Table.from_batches([piece]), number)
            number += len(piece)


def _rows_at_once(size: int, rows: int) -> int:
    """How many rows make a frame, when all of them have so many bytes."""
    return max(1, min(MOST_ROWS, FRAME_BYTES * rows // max(1, size)))
