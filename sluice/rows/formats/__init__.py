"""The formats that rows come in, one file a kind: each turns a file into frames and judges no row."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import BinaryIO

from sluice.rows.formats import delimited, excel, json, tables
from sluice.rows.formats.compression import MAX_RATIO, BombError, DamagedError, unpacked
from sluice.rows.formats.encodings import ForeignTextError, Recoding
from sluice.rows.frames import Cut, refusal, wrong_file
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


#: Of a format that is read here and there, inside an archive that is read forward.
MAX_HELD_BYTES = 256 << 20
#: What a Parquet file begins with.
_PARQUET = b"PAR1"


def read_frames(file: BinaryIO, file_name: str, *, fix: bool = False) -> Iterator[Cut]:
    """Yield the rows of a file in order. What cannot be cut into rows is refused in a frame.

    With `fix` text in another encoding that is known is turned into UTF-8.

    Memory stays at some MiB for a file of any size, but for a JSON array and a sheet, which are held once.
    Raises UnknownFormatError before reading.
    """
    form, compression = check_file_name(file_name)
    return _read(file, form, compression, fix)


def read_member(file: BinaryIO, file_name: str, size: int, *, fix: bool = False) -> Iterator[Cut]:
    """The same of a file of so many bytes in an archive, which is read forward from where it is."""
    form, compression = check_file_name(file_name)
    if form not in SEEKABLE:
        yield from _read(file, form, compression, fix, size)
    elif size > MAX_HELD_BYTES:
        limit = f"at most {MAX_HELD_BYTES >> 20} MiB of .{form} in an archive"
        yield wrong_file("file-too-large", limit, "more", "write JSONL: no limit")
    else:
        yield from _read(io.BytesIO(file.read(size)), form, compression, fix)


def _read(file: BinaryIO, form: str, compression: str, fix: bool, size: int | None = None) -> Iterator[Cut]:
    try:
        if form in SEEKABLE:
            yield from SEEKABLE[form](file)
        else:
            pieces = unpacked(file, compression, size=size)
            first = next(pieces, b"")
            if first[:4] == _PARQUET:
                yield wrong_file("other-format", f"text as .{form}", "a Parquet file", "name it .parquet")
                return
            text = Recoding(chain([first] if first else [], pieces), fix=fix)
            yield from STREAMED[form](iter(text))
            if text.of:
                yield lambda: replace(refusal()(), fixed=("wrong-encoding",))
    except ForeignTextError as error:
        found = f"text in {error.encoding}" + (", with damaged characters" if error.damaged else "")
        repair = (
            "save the file as UTF-8" if error.damaged else "save the file as UTF-8, or turn it into that with --fix"
        )
        yield wrong_file("wrong-encoding", "text in UTF-8", found, repair)
    except DamagedError:
        expected = f"a whole .{compression or form} file"
        repair = "compress it again" if compression else "write the file again"
        yield wrong_file("damaged-file", expected, "a damaged or cut one", repair)
    except BombError:
        expected = f"at most {MAX_RATIO} times the size of the .{compression} file"
        yield wrong_file("file-too-large", expected, "more", "upload it as it is, or in parts")
