"""Comma- and tab-separated values (RFC 4180) with a line of names, as frames; every cell is text."""

import codecs
import csv
import io
from collections.abc import Iterator
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.csv

from sluice.rows.frames import FRAME_BYTES, Cut, Frame, Numbers, of_table, refusal, wrong_file
from sluice.rows.streams import Stream
from sluice.rows.violations import SAVE_AS_UTF_8, Violation

_NAMES_BYTES = 1 << 16


def csv_frames(chunks: Iterator[bytes]) -> Iterator[Cut]:
    """Cells parted by commas."""
    return _frames(chunks, ",")


def tsv_frames(chunks: Iterator[bytes]) -> Iterator[Cut]:
    """Cells parted by tabs."""
    return _frames(chunks, "\t")


def _frames(chunks: Iterator[bytes], delimiter: str) -> Iterator[Cut]:
    first = next(chunks, b"")
    head = first[:_NAMES_BYTES].decode(errors="replace")
    names = next(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), [])
    rows = _Rows()
    try:
        reader = pyarrow.csv.open_csv(
            io.BufferedReader(Stream(_utf_8(chain([first], chunks))), FRAME_BYTES),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=FRAME_BYTES),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=rows.skip),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
        for batch in reader:
            yield partial(_numbered, batch, rows.numbers(len(batch)))
            yield refusal(*rows.taken())
    except UnicodeDecodeError:
        yield wrong_file("wrong-encoding", "UTF-8", "other bytes", SAVE_AS_UTF_8)
    except pa.ArrowInvalid:
        if names:
            yield _unclosed()
    yield refusal(*rows.taken())
    if rows.unclosed:
        yield _unclosed()


def _utf_8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, or UnicodeDecodeError: of rows to skip, Arrow prints a traceback where they are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for chunk in chunks:
        decoder.decode(chunk)
        yield chunk
    decoder.decode(b"", final=True)


def _numbered(batch: pa.RecordBatch, numbers: Numbers) -> Frame:
    frame = of_table(pa.Table.from_batches([batch]), 1)
    return Frame(numbers, frame.columns, frame.row) if frame.columns is not None else frame


def _unclosed() -> Cut:
    return wrong_file("malformed-csv", "quotes that are closed", "one that is not", "write the file with a CSV library")


class _Rows:
    """The numbers of the rows below the names, which Arrow does not tell; it does those of the rows it skips."""

    def __init__(self) -> None:
        self.unclosed = False
        self._skipped: list[tuple[Violation, bytes]] = []
        self._gaps: set[int] = set()
        self._next = 1

    def skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """A row with too many or too few cells."""
        self.unclosed |= row.text.count('"') % 2 == 1  # it may go on for the rest of the file
        number = row.number - 1
        self._gaps.add(number)
        wanted, found = f"{row.expected_columns} cells", f"{row.actual_columns} cells"
        repair = "put cells that hold a delimiter or a line break in quotes"
        self._skipped.append((Violation(number, "", "wrong-cell-count", wanted, found, repair), row.text.encode()))
        return "skip"

    def taken(self) -> list[tuple[Violation, bytes]]:
        """What was skipped since the last time."""
        taken, self._skipped = self._skipped, []
        return taken

    def numbers(self, count: int) -> Numbers:
        """Those of the next `count` rows that were not skipped."""
        numbers: list[int] = []
        while len(numbers) < count:
            if self._next not in self._gaps:
                numbers.append(self._next)
            self._next += 1
        return np.array(numbers, np.int64)
