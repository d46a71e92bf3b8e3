"""JSON lines, and arrays of JSON, as frames."""

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json

from sluice.rows.columns import EXPECTED
from sluice.rows.frames import FRAME_BYTES, Cut, Frame, refusal, wrong_file
from sluice.rows.violations import MAX_DEPTH, MAX_ROW_BYTES, SAVE_AS_UTF_8, RefusedError, Violation, too_deep, too_large

MAX_ARRAY_BYTES = 512 << 20

Places = np.ndarray[Any, np.dtype[np.int64]]
_LINE_END, _BRACE = b"\n{"
_LIST, _END_OF_LIST, _END_OF_OBJECT = b"[]}"
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
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
            ends = _line_ends(whole)
            yield partial(_frame, whole, number, ends)
            number += len(ends)
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
    return partial(_frame, content, first, _line_ends(content))


def _line_ends(content: bytes) -> Places:
    """Where each line ends, shape (lines,)."""
    return np.flatnonzero(np.frombuffer(content, np.uint8) == _LINE_END)


def _frame(content: bytes, first: int, ends: Places) -> Frame:
    """Whole lines as a frame: with columns where they are all alike, else line by line."""
    count = len(ends)
    if count == len(content) or content.isspace():
        return Frame(np.empty(0, np.int64), None, lambda _: b"")
    deep = _too_deep(content, ends)
    if not deep and int(np.diff(ends, prepend=-1).max()) <= MAX_ROW_BYTES:
        table = _table(content, ends)
        if table is not None and len(table) == count:
            return Frame(np.arange(first, first + count), table, _Lines(content).row)
    refused, numbers, lines = [], [], []
    for number, line in enumerate(content.split(b"\n"), first):
        if len(line) > MAX_ROW_BYTES:
            refused.append((too_large().at(number), b""))
        elif number - first in deep:
            refused.append((too_deep().at(number), b""))  # put aside whole, it would break whoever reads it
        elif line.strip(b" \t\r"):
            numbers.append(number)
            lines.append(line)
    content = b"\n".join([*lines, b""])
    table = _table(content, _line_ends(content)) if len(lines) < count else None  # else it has been tried
    fits = table is not None and len(table) == len(lines)
    return Frame(np.array(numbers, np.int64), table if fits else None, lines.__getitem__, refused)


def _table(content: bytes, ends: Places) -> pa.Table | None:
    """Lines as columns; None when they are not alike enough, or one is not JSON."""
    begun = np.frombuffer(content, np.uint8)[ends[:-1] + 1]
    if content[:1] != b"{" or content[-1:] != b"\n" or (begun != _BRACE).any():
        return None  # Arrow 26 dies of a line that is `null`
    try:
        _check_utf8(content)  # the parser takes any bytes
        options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1)
        return pyarrow.json.read_json(pa.BufferReader(content), options, _OPTIONS)
    except pa.ArrowInvalid:
        return None


def _check_utf8(content: bytes) -> None:
    """Raises ArrowInvalid for other bytes; four times as fast as decoding, and others may work meanwhile."""
    ends = pa.py_buffer(np.array([0, len(content)], np.int32))
    pa.StringArray.from_buffers(1, ends, pa.py_buffer(content)).validate(full=True)


def _too_deep(content: bytes, ends: Places) -> set[int]:
    """The lines, from 0, whose lists and objects stand too deep in one another; only lines of many are looked at."""
    begun = np.flatnonzero((np.frombuffer(content, np.uint8) | (_LIST ^ _BRACE)) == _BRACE)  # one bit tells them apart
    many = np.flatnonzero(np.diff(np.searchsorted(begun, ends), prepend=0) > MAX_DEPTH)
    starts = np.concatenate([[0], ends + 1])
    return {int(line) for line in many if _depth(content[starts[line] : ends[line]]) > MAX_DEPTH}


def _depth(line: bytes) -> int:
    bare = np.frombuffer(_TEXT.sub(b"", line), np.uint8)
    steps = ((bare == _LIST) | (bare == _BRACE)).astype(np.int64)
    steps -= (bare == _END_OF_LIST) | (bare == _END_OF_OBJECT)
    return int(steps.cumsum().max(initial=0))


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
        return RefusedError("", "wrong-encoding", "UTF-8", "other bytes", SAVE_AS_UTF_8).at(0)
    except RecursionError:
        return too_deep().at(row)
    except ValueError:
        found = f"no JSON in line {text.count(chr(10), 0, place) + 1} of the file"
        return Violation(row, "", "malformed-json", "an array of objects", found, "write the file with a JSON library")
