"""A file of rows into parts, or what is wrong with it; where either goes is not known here."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, TypeVar

import pyarrow as pa

from sluice.rows.assets import Shelf, settling
from sluice.rows.checking import Checked, Rules, check_frame
from sluice.rows.columns import WITHOUT_ASSETS
from sluice.rows.demands import steps
from sluice.rows.demands.lengths import BadTokenizer
from sluice.rows.demands.step import Step
from sluice.rows.frames import Cut, Frame
from sluice.rows.ids import SeenIds, Twins
from sluice.rows.inline import inlined
from sluice.rows.meanings import Unmet
from sluice.rows.mentions import EVERY_NAME
from sluice.rows.names import SPLITS
from sluice.rows.parts import Gathering, Part, encode
from sluice.rows.recall import Recall
from sluice.rows.schemas import SCHEMAS
from sluice.rows.sources import Sources
from sluice.rows.stacks import ALONE, Beside, Stack, stacks
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
    number of rows in quarantine, `filtered` that of rows which were not wanted, and `file_wrong` whether the file as a
    whole is wrong; `forgotten` rows were left out. `identified` counts what identifies people, by kind and path;
    `sources` are the names that columns were read from.
    """

    quarantine: bool = False
    row_count: int = 0
    split_rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    fixed: Counter[str] = field(default_factory=Counter)
    put_aside: int = 0
    filtered: int = 0
    forgotten: int = 0
    identified: Counter[tuple[str, str]] = field(default_factory=Counter)
    file_wrong: bool = False
    sources: Sources = field(default_factory=Sources)

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

    def take(self, found: Checked) -> None:
        """Count what came of a frame, but for its rows."""
        self.add(found.violations)
        self.fixed.update(found.fixed)
        self.identified.update(found.identified)
        self.filtered += found.filtered
        self.sources.add(found.sources)

    def close(self) -> None:
        """See to it that a file without any rows is none that is right."""
        if not self.row_count and not self.counts:
            found = "none that is kept" if self.filtered else "none"
            repair = "keep more of them" if self.filtered else "give a file with rows in it"
            self.add([Violation(0, "", "no-rows", "at least one row", found, repair)])


def convert(
    file: BinaryIO,
    file_name: str,
    rules: Rules,
    sink: Callable[[Part], None] = lambda part: None,
    progress: Callable[[int], None] = lambda rows: None,
    aside: Callable[[bytes], None] = lambda lines: None,
    beside: Beside = ALONE,
    before: Callable[[], SeenIds] = SeenIds,
) -> Outcome:
    """Give the canonical rows of a file to the sink, part by part, in the order of the file.

    `progress` gets the number of rows checked so far, after each frame; `aside` gets rows that are put aside, as JSON
    lines with what is wrong; `beside` has the images and the like that rows name; `before` gives the ids of the
    version that the rows are appended to. Blocks: call it in a thread.
    Raises UnknownFormatError for the file's name, KeyError for the schema's and Invalid for demands that cannot be
    met, all before reading.
    """
    SCHEMAS[rules.row_schema]
    outcome, gathering, twins = Outcome(rules.quarantine), Gathering(), Twins(before)
    recall = Recall(rules.forgotten)
    unmet = Unmet([] if rules.loose else list(rules.columns))
    try:
        demanded = steps(rules.demands, rules.row_schema, *([recall.after] if rules.forgotten else []))
    except BadTokenizer:
        repair = "give the tokenizer.json of the model"
        outcome.add(
            [Violation(0, "", "unusable-tokenizer", "a tokenizer.json", "a file that is none, or fails", repair)]
        )
        return outcome
    reading = stacks(file, file_name, rules.row_schema, beside, fix=rules.fix)

    def tables(found_stacks: Iterator[Stack]) -> Iterator[pa.Table]:
        checked = 0
        work = _checks(found_stacks, rules, [recall] if rules.forgotten else [], demanded)
        for found in _in_order(lambda check: check(), work, CHECKERS, ahead=1):
            unmet.look(found.frame)
            if rules.forgotten:
                recall.unsaid(found)
            _refuse_twins(found, twins, rules)
            outcome.take(found)
            checked += len(found.frame)
            progress(checked)
            if found.aside and rules.forgotten:
                found.aside = recall.put_aside(found.aside, rules.columns)
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

    with reading as found_stacks:
        for part in _in_order(encode, tables(found_stacks), ENCODERS, ahead=0):
            outcome.row_count += part.row_count
            for split, rows in part.split_rows.items():
                outcome.split_rows[split] += rows
            sink(part)
    outcome.forgotten, outcome.filtered = recall.rows + recall.aside, outcome.filtered - recall.rows
    if not outcome.file_wrong:
        outcome.add(unmet.violations())
    outcome.close()
    return outcome


def _checks(
    found: Iterator[Stack], rules: Rules, first: Sequence[Step], demanded: Sequence[Step]
) -> Iterator[Callable[[], Checked]]:
    """What is to be done for each frame, in the order of the file."""
    for stack in found:
        mine = replace(rules, columns={**stack.columns, **rules.columns}) if stack.columns else rules
        bare = rules.row_schema in WITHOUT_ASSETS
        assets = [] if bare else [settling(stack.shelf)]
        todo = [*first, *assets, *demanded]  # of rows that are forgotten no asset is kept either
        for cut in stack.cuts:
            yield partial(_check, cut if bare else partial(_inlined, cut, stack.shelf, mine), mine, todo, stack.file)


def _inlined(cut: Cut, shelf: Shelf, rules: Rules) -> Frame:
    return inlined(cut(), shelf.take, [name for name, meaning in rules.columns.items() if meaning in EVERY_NAME])


def _check(cut: Cut, rules: Rules, todo: Sequence[Step], file: str) -> Checked:
    checked = check_frame(cut(), rules, todo)
    if file:
        checked.file = file
        checked.violations = [replace(violation, file=file) for violation in checked.violations]
    return checked


def _refuse_twins(found: Checked, twins: Twins, rules: Rules) -> None:
    """Take out the rows whose id another row had before."""
    if not len(found.rows):
        return
    if wrong := twins.find(found.rows.column("id"), found.numbers, found.file):
        found.refuse(wrong, quarantine=rules.quarantine)
        found.violations.sort(key=lambda each: each.row)


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
