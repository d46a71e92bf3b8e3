"""The formats that rows come in, one file a kind: each turns a file into frames and judges no row."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from sluice.rows.formats import delimited, excel, json, tables
from sluice.rows.formats.compression import MAX_RATIO, BombError, DamagedError, unpacked
from sluice.rows.frames import Cut, wrong_file
from sluice.rows.names import check_file_name

STREAMED: dict[str, Callable[[Iterator[bytes]], Iterator[Cut]]] = {
    "jsonl": json.line_frames,
    "ndjson": json.line_frames,
    "json": json.frames,
    "csv": delimited.csv_frames,
    "tsv": delimited.tsv_frames,
}
SEEKABLE: dict[str, Callable[[BinaryIO], Iterator[Cut]]] = {
    "parquet": tables.parquet_frames,
    "arrow": tables.arrow_frames,
    "feather": tables.arrow_frames,
    "xlsx": excel.frames,
    "xls": excel.frames,
}


def read_frames(file: BinaryIO, file_name: str) -> Iterator[Cut]:
    """Yield the rows of a file in order. What cannot be cut into rows is refused in a frame.

    Memory stays at some MiB for a file of any size, but for a JSON array and a sheet, which are held once.
    Raises UnknownFormatError before reading.
    """
    form, compression = check_file_name(file_name)
    return _read(file, form, compression)


def _read(file: BinaryIO, form: str, compression: str) -> Iterator[Cut]:
    try:
        if form in SEEKABLE:
            yield from SEEKABLE[form](file)
        else:
            yield from STREAMED[form](unpacked(file, compression))
    except DamagedError:
        expected = f"a whole .{compression or form} file"
        repair = "compress it again" if compression else "write the file again"
        yield wrong_file("damaged-file", expected, "a damaged or cut one", repair)
    except BombError:
        expected = f"at most {MAX_RATIO} times the size of the .{compression} file"
        yield wrong_file("file-too-large", expected, "more", "upload it as it is, or in parts")
