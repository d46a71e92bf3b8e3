"""What the service and its checking process say to each other over two pipes; neither end is known here.

The service sends a Task, then whatever bytes of the file are asked for. The process sends messages of a kind, a
length and a content: a place it wants to READ, how many rows it has looked at (TICK), a PART, rows put ASIDE, and at
last DONE or BROKE.
"""

import struct
from typing import NamedTuple

from msgspec import Struct, json

from sluice.rows import Violation

HEAD = struct.Struct(">cQ")
PLACE = struct.Struct(">QQ")
COUNT = struct.Struct(">Q")
READ, TICK, PART, ASIDE, DONE, BROKE = b"R", b"T", b"P", b"A", b"D", b"X"


class Task(Struct):
    """What is to be checked: a file of `size` bytes, by the rules of a row schema."""

    file_name: str
    row_schema: str
    size: int
    columns: dict[str, str] = {}
    fix: bool = False
    quarantine: bool = False


class Part(NamedTuple):
    """A Parquet file of canonical rows, and how many rows of each split are in it."""

    content: bytes
    split_rows: dict[str, int]


class Aside(NamedTuple):
    """Rows that were put aside, as JSON lines."""

    content: bytes


class Outcome(Struct):
    """What became of the file; `accepted` says whether the parts make a version."""

    accepted: bool
    row_count: int
    violations: list[Violation]
    counts: dict[str, int]
    put_aside: int = 0
    fixed: dict[str, int] = {}


class Broke(Struct):
    """A fault of ours: its class and place, never its words, which may hold content."""

    cause: str
    file: str
    line: int


encode = json.encode
decode = json.decode
