"""One frame against the rules: columns first, and row by row where columns do not vouch."""

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json

from sluice.rows.columns import CANONICAL, Vouched, vouch
from sluice.rows.frames import Frame
from sluice.rows.repairs import renamed, repaired
from sluice.rows.schemas import SCHEMAS
from sluice.rows.violations import MAX_ROW_BYTES, RefusedError, Violation, too_large

#: Repairs that one row may need before it is left as it is.
MAX_REPAIRS = 8


@dataclass(frozen=True)
class Rules:
    """What is asked of a file's rows: their schema, and what is done about rows that do not follow it.

    `columns` gives names of the file their meaning, such as {"findings": "prompt"}. With `fix` the repairs that
    violations propose are made. With `quarantine` rows that are wrong are put aside and the others are taken.
    """

    row_schema: str
    columns: Mapping[str, str] = field(default_factory=dict)
    fix: bool = False
    quarantine: bool = False


@dataclass
class Checked:
    """The canonical rows of a frame, what is wrong with the others, and those others where they are put aside."""

    rows: pa.Table
    looked_at: int
    violations: list[Violation]
    aside: list[bytes] = field(default_factory=list)
    fixed: Counter[str] = field(default_factory=Counter)


def check_frame(frame: Frame, rules: Rules) -> Checked:
    """Check the rows of a frame; the good ones keep their order."""
    vouched = _vouched(frame, rules)
    checked = Checked(vouched.rows, len(frame), [violation for violation, _ in frame.refused])
    if rules.quarantine:
        checked.aside += [_aside(violation, raw) for violation, raw in frame.refused if violation.row]
    good, lines = [], []
    for index in np.flatnonzero(~vouched.mask):
        raw = frame.row(int(index))
        try:
            line = _canonical(renamed(raw, dict(rules.columns)) if rules.columns else raw, rules, checked.fixed)
            if len(line) > MAX_ROW_BYTES:
                raise too_large()
            lines.append(line)
            good.append(index)
        except RefusedError as error:
            violation = error.at(int(frame.numbers[index]))
            checked.violations.append(violation)
            if rules.quarantine:
                checked.aside.append(_aside(violation, raw))
    if good:
        order = np.argsort(np.concatenate([np.flatnonzero(vouched.mask), good]), kind="stable")
        rows = pa.concat_tables([vouched.rows, _table(lines, rules.row_schema)])
        checked.rows = rows.take(pa.array(order))
    return checked


def _vouched(frame: Frame, rules: Rules) -> Vouched:
    given, meaning = frame.columns, rules.columns
    if given is None:
        return Vouched(CANONICAL[rules.row_schema].empty_table(), np.zeros(len(frame), np.bool_))
    if meaning:  # a name that another column is given hides the column that had it
        kept = [name for name in given.column_names if name in meaning or name not in meaning.values()]
        given = given.select(kept).rename_columns([meaning.get(name, name) for name in kept])
    return vouch(given, rules.row_schema)


def _canonical(raw: bytes, rules: Rules, fixed: Counter[str]) -> bytes:
    made: list[str] = []
    while True:
        try:
            line = SCHEMAS[rules.row_schema](raw)
        except RefusedError as error:
            better = repaired(raw, error) if rules.fix and len(made) < MAX_REPAIRS else None
            if better is None:
                raise
            raw = better
            made.append(error.kind)
        else:
            fixed.update(made)
            return line


def _aside(violation: Violation, raw: bytes) -> bytes:
    about = {name: getattr(violation, name) for name in ("row", "field", "kind", "expected", "found", "repair")}
    return msgspec.json.encode({**about, "content": raw.decode(errors="replace")}) + b"\n"


def _table(canonical: list[bytes], row_schema: str) -> pa.Table:
    content = b"\n".join([*canonical, b""])
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1)
    strict = pyarrow.json.ParseOptions(explicit_schema=CANONICAL[row_schema], unexpected_field_behavior="error")
    return pyarrow.json.read_json(io.BytesIO(content), read, strict)
