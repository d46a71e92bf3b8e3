"""What the service and its checking process say to each other over two pipes; neither end is known here.

The service sends a task, then whatever bytes are asked for: of the file to be checked, or of the parts of a version,
which count as one run of bytes, one after the other. The process sends messages of a kind, a length and a content: a
place it wants to READ, how many rows it has looked at (TICK), a PART, rows put ASIDE, and at last DONE or BROKE. Of
images and the like it asks which came beside the file (LIST), for the bytes of one (FETCH), and sends what it found to
be one (ASSET).
"""

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from msgspec import Struct, json

from sluice.rows import Violation
from sluice.rows.demands import NO_DEMANDS, Demands
from sluice.rows.recall import Forgotten

HEAD = struct.Struct(">cQ")
PLACE = struct.Struct(">QQ")
COUNT = struct.Struct(">Q")
READ, TICK, PART, ASIDE, DONE, BROKE = b"R", b"T", b"P", b"A", b"D", b"X"
LIST, FETCH, ASSET = b"L", b"F", b"S"
#: In place of a size: the bytes are gone.
GONE = (1 << 64) - 1


class Outcome(Struct):
    """What became of the file; `accepted` says whether the parts make a version."""

    accepted: bool
    row_count: int
    violations: list[Violation]
    counts: dict[str, int]
    put_aside: int = 0
    fixed: dict[str, int] = {}
    filtered: int = 0
    forgotten: int = 0
    #: What identifies people: kind, field, how often.
    identified: list[tuple[str, str, int]] = []
    #: Of each column the names in the file that it was read from; names that were not used; how many more of these.
    read: dict[str, list[str]] = {}
    unused: list[str] = []
    unused_more: int = 0
    #: Sheets of workbooks that were passed over.
    sheets_unread: int = 0


class Stretch(Struct):
    """A stored part: its bytes, and how many rows of its version come before it."""

    size: int
    rows_before: int


class Found(NamedTuple):
    """The figures of an analysis, as JSON."""

    figures: bytes


class Task(Struct, tag="check"):
    """What is to be checked: a file of `size` bytes, by the rules of a row schema."""

    #: For people: what the process does, and what helps when it is too much.
    what: ClassVar[str] = "its check"
    remedy: ClassVar[str] = "split the file"

    file_name: str
    row_schema: str
    size: int
    columns: dict[str, str] = {}
    #: Whether the columns were named for other files, and this one need not have them.
    loose: bool = False
    fix: bool = False
    quarantine: bool = False
    demands: Demands = NO_DEMANDS
    forgotten: Forgotten = Forgotten()
    #: The bytes of a tokenizer.json, which come after those of the file.
    tokenizer_bytes: int = 0
    #: The parts of the version that the rows are appended to; their bytes come after that.
    before: list[Stretch] = []
    #: Whether images and the like came beside the file.
    beside: bool = False
    #: What pseudonyms in DICOM files are made with, where these are to be cleaned.
    key: bytes = b""


class Describe(Struct, tag="describe"):
    """The statistics of a version are wanted.

    After the parts come so many bytes of JSON: width and height of the images that its rows name, by digest.
    """

    what: ClassVar[str] = "the counting"
    remedy: ClassVar[str] = "make versions of fewer rows"

    parts: list[Stretch]
    sizes: int = 0


class Repeats(Struct, tag="repeats"):
    """The rows of a version that repeat others are wanted."""

    what: ClassVar[str] = "the search"
    remedy: ClassVar[str] = "make versions of fewer rows"

    parts: list[Stretch]


class Compare(Struct, tag="compare"):
    """Which rows only one of two versions has is wanted, by their keys; parts that both have are left out.

    The bytes of the parts of `before` come first, then those of `after`; `rows` are in both together.
    """

    what: ClassVar[str] = "the comparison"
    remedy: ClassVar[str] = "compare versions of fewer rows"

    before: list[Stretch]
    after: list[Stretch]
    rows: int


class CountNew(Compare, tag="count-new"):
    """How many rows of `after` have a key that `before` has not is wanted."""


class SharedIds(Compare, tag="shared-ids"):
    """How many rows of `after` have an id that a row of `before` has is wanted."""


class Match(Struct, tag="match"):
    """Wanted is how many rows of each part have one of the values in a column, and how many have none at all."""

    what: ClassVar[str] = "the search"
    remedy: ClassVar[str] = "make versions of fewer rows"

    parts: list[Stretch]
    column: str
    values: list[str]


class Erase(Match, tag="erase"):
    """The parts that have such rows are wanted anew without them, in their order."""

    what: ClassVar[str] = "the erasure"


class Sift(Struct, tag="sift"):
    """Files of rows that were put aside are wanted anew, without those that have a value under one of the names."""

    what: ClassVar[str] = "the erasure"
    remedy: ClassVar[str] = "make versions of fewer rows"

    parts: list[Stretch]
    names: list[str]
    values: list[str]


class Show(Struct, tag="show"):
    """Images are wanted as PNG, one job after the other: its length, the Job, and the bytes of the image.

    To each comes the PNG (as ASIDE) or why there is none (as DONE, with a Refused).
    """

    what: ClassVar[str] = "the rendering"
    remedy: ClassVar[str] = "read the original"


class Job(Struct):
    """An image of `size` bytes, of which one frame is wanted."""

    size: int
    frame: int


class Refused(Struct):
    """What is wrong with an image."""

    found: str
    repair: str


AnyTask = Task | Describe | Repeats | Compare | CountNew | SharedIds | Match | Erase | Sift | Show


class PartHead(Struct):
    """What is said of a part: how many rows of each split are in it, and the digests of assets that they name."""

    split_rows: dict[str, int]
    assets: dict[str, list[str]] = {}


class Part(NamedTuple):
    """A Parquet file of canonical rows, how many rows of each split are in it, and which assets, by column."""

    content: bytes
    split_rows: dict[str, int]
    assets: Mapping[str, list[str]] = MappingProxyType({})


class Named(Struct, array_like=True):
    """An asset beside the file: its path, digest and size, and its type where it was looked at before."""

    path: str
    digest: str
    size: int
    type: str = ""


class AssetHead(Struct):
    """An asset that can be decoded: `sha256:<hex>`, a type such as `image/png`, and its size in pixels."""

    digest: str
    type: str
    width: int
    height: int


class Asset(NamedTuple):
    """An asset and its bytes; these are empty where the service has them."""

    head: AssetHead
    content: memoryview


class Aside(NamedTuple):
    """Rows that were put aside, as JSON lines."""

    content: bytes


class Broke(Struct):
    """A fault of ours: its class and place, never its words, which may hold content."""

    cause: str
    file: str
    line: int


encode = json.encode
decode = json.decode
