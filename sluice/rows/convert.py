"""A file of rows into parts, or what is wrong with it; where either goes is not known here."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

import pyarrow as pa

from sluice.rows.checking import Rules, check_frame
from sluice.rows.formats import read_frames
from sluice.rows.names import SPLITS
from sluice.rows.parts import Gathering, Part, encode
from sluice.rows.schemas import SCHEMAS
from sluice.rows.violations import Violation

A = TypeVar("A")
B = TypeVar("B")

MAX_VIOLATIONS = 100
#: Rows that are explained one by one before a file is given up: such a file is of another kind altogether.
MAX_REFUSED = 100_000
#: Threads that check frames, and that write parts: Arrow gives the interpreter's lock back while it works.
CHECKERS, ENCODERS = 2, 1


@dataclass
class Outcome:
    """What became of a file. Unless it is `accepted`, what the sink got is of no use.

    `violations` are the first 100, `counts` all of them by kind; `fixed` are repairs made, by kind; `put_aside` is the
    number of rows in quarantine, and `file_wrong` whether the file as a whole is.
    """

    quarantine: bool = False
    row_count: int = 0
    split_rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    fixed: Counter[str] = field(default_factory=Counter)
    put_aside: int = 0
    file_wrong: bool = False

    @property
    def accepted(self) -> bool:
        """Whether no row breaks a rule, or those that do are put aside and others are left."""
        return not self.counts or (self.quarantine and not self.file_wrong and self.row_count > 0)

    @property
    def refused(self) -> int:
        """How many things are wrong."""
        return sum(self.counts.values())

    def add(self, violations: Iterable[Violation]) -> None:
        """Count violations, and keep them while they are few."""
        for each in violations:
            self.counts[each.kind] += 1
            self.file_wrong |= each.row == 0
            if len(self.violations) < MAX_VIOLATIONS:
                self.violations.append(each)


def convert(
    file: BinaryIO,
    file_name: str,
    rules: Rules,
    sink: Callable[[Part], None] = lambda part: None,
    progress: Callable[[int], None] = lambda rows: None,
    aside: Callable[[bytes], None] = lambda lines: None,
) -> Outcome:
    """Give the canonical rows of a file to the sink, part by part, in the order of the file.

    `progress` gets the number of rows checked so far, after each frame; `aside` gets rows that are put aside, as JSON
    lines with what is wrong. Blocks: call it in a thread. Raises UnknownFormatError for the file's name and KeyError
    for the schema's, both before reading.
    """
    SCHEMAS[rules.row_schema]
    outcome, gathering = Outcome(rules.quarantine), Gathering()
    cuts = read_frames(file, file_name)

    def tables() -> Iterator[pa.Table]:
        checked = 0
        for found in _in_order(lambda cut: check_frame(cut(), rules), cuts, CHECKERS, ahead=1):
            outcome.add(found.violations)
            outcome.fixed.update(found.fixed)
            checked += found.looked_at
            progress(checked)
            if found.aside:
                outcome.put_aside += len(found.aside)
                aside(b"".join(found.aside))
            if outcome.refused > MAX_REFUSED:
                most, seen = f"at most {MAX_REFUSED} wrong rows", f"more, in the first {checked} rows"
                outcome.add([Violation(0, "", "too-many-violations", most, seen, "repair those shown, then try again")])
                return
            if len(found.rows):
                yield from gathering.add(found.rows)
        yield from gathering.rest()

    for part in _in_order(encode, tables(), ENCODERS, ahead=0):
        outcome.row_count += part.row_count
        for split, rows in part.split_rows.items():
            outcome.split_rows[split] += rows
        sink(part)
    if not outcome.row_count and not outcome.counts:
        outcome.add([Violation(0, "", "no-rows", "at least one row", "none", "upload a file with rows in it")])
    return outcome


def _in_order(work: Callable[[A], B], items: Iterator[A], threads: int, *, ahead: int) -> Iterator[B]:
    """Do the work on the items in threads, and yield what comes out in their order; `ahead` items may wait."""
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[Future[B]] = deque()
        for item in items:
            if len(under_way) == threads + ahead:
                yield under_way.popleft().result()
            under_way.append(pool.submit(work, item))
        while under_way:
            yield under_way.popleft().result()
