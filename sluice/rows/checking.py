"""One frame against the rules: columns first, and row by row where columns do not vouch."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from sluice.rows.assets import without_empty
from sluice.rows.columns import ASSETS, CANONICAL, MOST_BYTES, Vouched, bytes_of, vouch, with_assets
from sluice.rows.columns.arrays import Mask
from sluice.rows.demands import NO_DEMANDS, Demands, Step
from sluice.rows.demands.labels import labelable_columns, labelable_row, unlabeled
from sluice.rows.frames import Frame, Numbers
from sluice.rows.mentions import own_field
from sluice.rows.recall import Forgotten
from sluice.rows.repairs import renamed, repaired
from sluice.rows.schemas import SCHEMAS
from sluice.rows.sources import Sources, sources
from sluice.rows.violations import MAX_ROW_BYTES, RefusedError, Rename, Violation, too_large

#: Repairs that one row may need before it is left as it is.
MAX_REPAIRS = 8


@dataclass(frozen=True)
class Rules:
    """What is asked of a file's rows: their schema, and what is done about rows that do not follow it.

    `columns` gives names of the file their meaning, such as {"findings": "prompt"}. They are `loose` where they were
    given for other files: this one need not have the names, and a row without one is known by its own. With `fix` the
    repairs that violations propose are made. With `quarantine` rows that are wrong are put aside and the others are
    taken. `demands` are what is asked beyond the schema. Rows that were `forgotten` are left out.
    """

    row_schema: str
    columns: Mapping[str, str] = field(default_factory=dict)
    fix: bool = False
    quarantine: bool = False
    demands: Demands = NO_DEMANDS
    forgotten: Forgotten = field(default_factory=Forgotten)
    loose: bool = False


@dataclass
class Checked:
    """The canonical rows of a frame, what is wrong with the others, and those others where they are put aside.

    `places` says where in the frame each of the rows was, shape (rows,). `filtered` rows were not wanted; `identified`
    counts what identifies people, by kind and path. `file` is that of the archive which the rows are in, if any.
    `renamed` are fields that had another name before --fix, `sources` the names that columns were read from.
    """

    frame: Frame
    rows: pa.Table
    places: Numbers
    violations: list[Violation]
    aside: list[bytes] = field(default_factory=list)
    fixed: Counter[str] = field(default_factory=Counter)
    filtered: int = 0
    identified: Counter[tuple[str, str]] = field(default_factory=Counter)
    file: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)

    @property
    def numbers(self) -> Numbers:
        """The number of each of the rows in the file."""
        return self.frame.numbers[self.places]

    def refuse(self, wrong: Mapping[int, RefusedError], *, quarantine: bool) -> None:
        """Take rows out that are wrong, by their place among the rows."""
        for place in sorted(wrong):
            self.note(int(self.places[place]), wrong[place], quarantine=quarantine)
        self.keep(~np.isin(np.arange(len(self.rows)), list(wrong)))

    def note(self, index: int, error: RefusedError, *, quarantine: bool) -> None:
        """Put down what is wrong with a row of the frame."""
        field = own_field(error.field, lambda: self.frame.row(index))
        violation = replace(error.at(int(self.frame.numbers[index])), field=field, file=self.file)
        self.violations.append(violation)
        if quarantine:
            self.aside.append(_aside(violation, self.frame.row(index)))

    def keep(self, mask: Mask) -> None:
        """Drop the rows that are not marked."""
        if not mask.all():
            self.rows, self.places = self.rows.filter(pa.array(mask)), self.places[mask]


def check_frame(frame: Frame, rules: Rules, steps: Sequence[Step] = ()) -> Checked:
    """Check the rows of a frame; the good ones keep their order. `steps` do what is demanded beyond the schema."""
    vouched = _vouched(frame, rules)
    violations = [violation for violation, _ in frame.refused]
    checked = Checked(frame, vouched.rows, np.flatnonzero(vouched.mask), violations, fixed=Counter(frame.fixed))
    if rules.quarantine:
        checked.aside += [_aside(violation, raw) for violation, raw in frame.refused if violation.row]
    _add_others(checked, ~vouched.mask, rules)
    renamed = checked.renamed
    checked.sources = sources(frame, rules.row_schema, rules.columns, loose=rules.loose, fixed=renamed)
    for step in steps:
        _demand(checked, step, rules)
    if steps:
        checked.violations.sort(key=lambda each: each.row)
    return checked


def _add_others(checked: Checked, others: Mask, rules: Rules) -> None:
    """Look at the rows that columns do not vouch for one by one."""
    good, lines, bare = [], [], []
    for index in map(int, np.flatnonzero(others)):
        raw = checked.frame.row(index)
        try:
            meant = _as_meant(raw, rules)
            room = labelable_row(meant, rules.row_schema) if rules.demands.labels else meant
            line = _canonical(room, rules, checked)
            if len(line) > MAX_ROW_BYTES:
                raise too_large()
            lines.append(line)
            good.append(index)
            bare.append(room is not meant)
        except RefusedError as error:
            checked.note(index, error, quarantine=rules.quarantine)
    if good:
        places = np.concatenate([checked.places, np.array(good, np.int64)])
        order = np.argsort(places, kind="stable")
        added = _table(lines, rules.row_schema)
        added = unlabeled(added, bare) if any(bare) else added
        rows = pa.concat_tables([checked.rows, added], promote_options="default")
        checked.rows, checked.places = rows.take(pa.array(order)), places[order]


def _demand(checked: Checked, step: Step, rules: Rules) -> None:
    if not len(checked.rows):
        return
    before, looked = checked.rows, step(checked.rows)
    checked.rows = looked.rows
    checked.identified.update(looked.identified)
    kept = np.ones(len(looked.rows), np.bool_) if looked.kept is None else looked.kept
    checked.filtered += int((~kept).sum())
    outgrown = {} if looked.rows is before else _outgrown(looked.rows)
    wrong = {place: error for place, error in {**outgrown, **looked.refused}.items() if kept[place]}
    checked.refuse(wrong, quarantine=rules.quarantine)
    checked.keep(np.delete(kept, list(wrong)))


def _outgrown(rows: pa.Table) -> dict[int, RefusedError]:
    """Rows that were changed and do not fit into a message any more, by place."""
    said = [rows.column(name).combine_chunks() for name in rows.column_names if name not in ASSETS]
    long = np.flatnonzero(sum(bytes_of(each) for each in said) > MOST_BYTES)
    size = {int(place): len(msgspec.json.encode(rows.slice(place, 1).to_pylist()[0])) for place in long}
    return {place: too_large() for place in size if size[place] > MAX_ROW_BYTES}


def _as_meant(raw: bytes, rules: Rules) -> bytes:
    """The row with its fields under the names that people gave them."""
    return renamed(raw, dict(rules.columns), loose=rules.loose) if rules.columns else raw


def _vouched(frame: Frame, rules: Rules) -> Vouched:
    given, meaning = frame.columns, rules.columns
    if given is not None and rules.loose:
        there = [name for name in given.column_names if given.column(name).null_count < len(given)]
        meaning = {name: meaning[name] for name in there if name in meaning}
    if given is None or (rules.loose and _is_mixed(given, meaning)):
        return Vouched(CANONICAL[rules.row_schema].empty_table(), np.zeros(len(frame), np.bool_))
    if meaning:  # a name that another column is given hides the column that had it
        kept = [name for name in given.column_names if name in meaning or name not in meaning.values()]
        given = given.select(kept).rename_columns([meaning.get(name, name) for name in kept])
    if not rules.demands.labels:
        return vouch(given, rules.row_schema)
    room = labelable_columns(given, rules.row_schema)
    vouched = vouch(room, rules.row_schema)
    return vouched if room is given else vouched._replace(rows=unlabeled(vouched.rows, [True] * len(vouched.rows)))


def _is_mixed(given: pa.Table, meaning: Mapping[str, str]) -> bool:
    """Whether some row has nothing under a name, and something under what that means."""
    pairs = [(name, means) for name, means in meaning.items() if means in given.column_names and means not in meaning]
    return any(
        pc.any(pc.and_(given.column(name).is_null(), given.column(means).is_valid())).as_py() for name, means in pairs
    )


def _canonical(raw: bytes, rules: Rules, checked: Checked) -> bytes:
    made: list[RefusedError] = []
    while True:
        try:
            line = SCHEMAS[rules.row_schema](raw)
        except RefusedError as error:
            better = repaired(raw, error) if rules.fix and len(made) < MAX_REPAIRS else None
            if better is None:
                raise
            raw = better
            made.append(error)
        else:
            checked.fixed.update(each.kind for each in made)
            names = [each.fix for each in made if isinstance(each.fix, Rename) and not {".", "["} & set(each.field)]
            checked.renamed.update({each.old: each.new for each in names})
            return line


def _aside(violation: Violation, raw: bytes) -> bytes:
    about = {name: getattr(violation, name) for name in ("row", "field", "kind", "expected", "found", "repair")}
    return msgspec.json.encode({**about, "content": raw.decode(errors="replace")}) + b"\n"


def _table(canonical: list[bytes], row_schema: str) -> pa.Table:
    content = b"\n".join([*canonical, b""])
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1)
    schema = with_assets(CANONICAL[row_schema])
    strict = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    return without_empty(pyarrow.json.read_json(io.BytesIO(content), read, strict))
