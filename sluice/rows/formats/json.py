"""JSON lines, and arrays of JSON, as frames."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json

from sluice.rows.columns import EXPECTED
from sluice.rows.frames import FRAME_BYTES, Cut, Frame, refusal, wrong_file
from sluice.rows.violations import MAX_ROW_BYTES, RefusedError, Violation, too_large

MAX_ARRAY_BYTES = 512 << 20

_OPTIONS = pyarrow.json.ParseOptions(explicit_schema=pa.schema(list(EXPECTED.items())))


def frames(chunks: Iterator[bytes]) -> Iterator[Cut]:
    """An array of objects, or lines: JSON lines are often called .json."""
    first = next(chunks, b"")
    whole = chain([first], chunks)
    return line_frames(whole) if first.lstrip()[:1] == b"{" else _array_frames(whole)


def line_frames(chunks: Iterator[bytes]) -> Iterator[Cut]:
    """JSON lines; blank lines are skipped but counted. Memory stays at some MiB for a file of any size."""
    number, rest, skipping = 1, b"", False
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if not end:  # still the same row
            rest = b"" if skipping else rest + chunk
        else:
            whole, rest = rest + chunk[:end], chunk[end:]
            if skipping:  # the end of a row that was too long: what is left of it is a blank line
                whole, skipping = whole[whole.index(b"\n") :], False
            yield _lines(whole, number)
            number += whole.count(b"\n")
        if len(rest) > MAX_ROW_BYTES:
            yield refusal((too_large().at(number), b""))
            rest, skipping = b"", True
    if rest:
        yield _lines(rest + b"\n", number)


def _array_frames(chunks: Iterator[bytes]) -> Iterator[Cut]:
    """An array of objects, held once, up to 512 MiB."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_ARRAY_BYTES:
            limit = f"at most {MAX_ARRAY_BYTES >> 20} MiB of JSON array"
            yield wrong_file("file-too-large", limit, "more", "write JSONL, one row a line: no limit")
            return
    try:
        rows = msgspec.json.decode(content, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield refusal((_broken_array(content), b""))
        return
    held, size, first = [], 0, 1
    for number, row in enumerate(rows, 1):
        held.append(bytes(row).replace(b"\n", b" ").replace(b"\r", b" "))  # in JSON a text holds no bare newline
        size += len(row)
        if size >= FRAME_BYTES:
            yield _lines(b"\n".join([*held, b""]), first)
            held, size, first = [], 0, number + 1
    yield _lines(b"\n".join([*held, b""]), first)


def _lines(content: bytes, first: int) -> Cut:
    return partial(_frame, content, first)


def _frame(content: bytes, first: int) -> Frame:
    """Whole lines as a frame: with columns where they are all alike, else line by line."""
    count = content.count(b"\n")
    if count == len(content) or not content.strip():
        return Frame(np.empty(0, np.int64), None, lambda _: b"")
    if not _may_be_too_large(content):
        table = _table(content)
        if table is not None and len(table) == count:
            return Frame(np.arange(first, first + count), table, _Lines(content).row)
    refused, numbers, lines = [], [], []
    for number, line in enumerate(content.split(b"\n"), first):
        if len(line) > MAX_ROW_BYTES:
            refused.append((too_large().at(number), b""))
        elif line.strip(b" \t\r"):
            numbers.append(number)
            lines.append(line)
    content = b"\n".join([*lines, b""])
    table = _table(content) if len(lines) < count else None  # else it has been tried
    fits = table is not None and len(table) == len(lines)
    return Frame(np.array(numbers, np.int64), table if fits else None, lines.__getitem__, refused)


def _table(content: bytes) -> pa.Table | None:
    """Lines as columns; None when they are not alike enough, or one is not JSON."""
    if content[:1] != b"{" or content.count(b"\n{") + 1 != content.count(b"\n"):
        return None  # Arrow 26 dies of a line that is `null`
    try:
        content.decode()  # the parser takes any bytes
        options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1)
        return pyarrow.json.read_json(pa.BufferReader(content), options, _OPTIONS)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None


def _may_be_too_large(content: bytes) -> bool:
    """Whether there is a stretch without a line break that is half as long as a line may be."""
    step = MAX_ROW_BYTES // 2
    return any(content.find(b"\n", at, at + step) < 0 for at in range(0, len(content) - step, step))


class _Lines:
    """Lines that are cut apart only if somebody wants to see one."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._cut: list[bytes] = []

    def row(self, index: int) -> bytes:
        self._cut = self._cut or self._content.split(b"\n")
        return self._cut[index]


def _broken_array(content: bytearray) -> Violation:
    """Walk the array with the slow parser to find the row that breaks it."""
    row, place = 1, 0
    try:
        text = content.decode()
        place = text.index("[") + 1
        while True:
            place += len(text[place : place + 4096]) - len(text[place : place + 4096].lstrip(" \t\r\n,"))
            _, place = json.JSONDecoder().raw_decode(text, place)
            row += 1
    except UnicodeDecodeError:
        return RefusedError("", "wrong-encoding", "UTF-8", "other bytes", "save the file as UTF-8").at(0)
    except (ValueError, RecursionError):
        found = f"no JSON in line {text.count(chr(10), 0, place) + 1} of the file"
        return Violation(row, "", "malformed-json", "an array of objects", found, "write the file with a JSON library")
