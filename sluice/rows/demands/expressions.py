"""Expressions over columns, such as `length(answer) > 20 AND answer LIKE '%发热%'`, as Polars evaluates them.

The syntax is that of SQL, and sqlglot reads it; what may be said is what is in the tables below, so nothing here opens
a file, asks a query or looks at other rows. An unknown value (null) is neither true nor false, as in SQL. Numbers are
doubles; what is none of them (a division by zero, a product too large) is null.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import polars as pl
import sqlglot
from sqlglot import exp

from kit.rpc.errors import Invalid
from sluice.rows.demands.nesting import nested
from sluice.rows.demands.operators import CHAINS, COMPARISONS, FUNCTIONS, MAY, NUMBER, READ, RULES, TEXT, TRUTH, Rule
from sluice.rows.demands.views import Kind

MOST_CHARACTERS = 2000
#: Parts inside each other, and parts in all: one that is needed twice counts twice, as it does for who evaluates it.
MOST_LEVELS, MOST_PARTS = 100, 4000
#: What sqlglot raises for words that it takes up wrongly, beside errors of its own.
_STUMBLES = (KeyError, TypeError, ValueError, AttributeError, IndexError)
#: A column by its name: what it holds, and how it is read.
Columns = Mapping[str, tuple[Kind, pl.Expr]]


class Value(NamedTuple):
    """What a part of an expression is, and how Polars makes it."""

    kind: Kind
    made: pl.Expr


def compiled(text: str, columns: Columns, name: str) -> Value:
    """The expression over these columns. Raises Invalid, which names ``name``, the column and the position."""
    return _Reading(text, columns, name).value()


class _Reading:
    """One expression being read."""

    def __init__(self, text: str, columns: Columns, name: str) -> None:
        self._text = text
        self._columns = columns
        self._name = name
        self._level = self._parts = 0

    def value(self) -> Value:
        if len(self._text) > MOST_CHARACTERS:
            raise self._wrong(None, f"has more than {MOST_CHARACTERS} characters")
        logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it tells what it reads
        try:
            if (deep := nested(sqlglot.tokenize(self._text))) is not None:
                raise self._wrong(deep.place, deep.what)
            trees = self._parsed()
            if len(trees) != 1 or trees[0] is None:
                raise self._wrong(None, "is no single expression")
            return self._read(trees[0])
        except sqlglot.errors.ParseError as error:
            found = error.errors[0] if error.errors else {}
            word = found.get("highlight") or ""
            place = self._place(found.get("line"), found.get("col"), len(word))
            raise self._wrong(place, f"cannot be read from `{word}` on" if word else "cannot be read") from None
        except sqlglot.errors.SqlglotError:
            raise self._wrong(None, "cannot be read; is a quote open?") from None
        except RecursionError:
            raise self._wrong(None, "is nested too deeply") from None

    def _parsed(self) -> Sequence[exp.Expr | None]:
        try:
            return sqlglot.parse(self._text)
        except _STUMBLES:
            raise self._wrong(None, "cannot be read") from None

    def _read(self, node: exp.Expr) -> Value:
        self._level, self._parts = self._level + 1, self._parts + 1
        if self._level > MOST_LEVELS or self._parts > MOST_PARTS:
            raise self._wrong(None, "is nested too deeply, or has too many parts")
        value = self._known(node)
        self._level -= 1
        return Value(TRUTH, ~value.made) if node.args.get("negate") else value

    def _known(self, node: exp.Expr) -> Value:
        given = [name for name, value in node.args.items() if value not in (None, False, [])]
        if unread := [name for name in given if name not in READ.get(type(node), given)]:
            raise self._wrong(_start(node), f"may not use `{self._shown(node)}` with `{unread[0]}`")
        if isinstance(node, exp.Paren):
            return self._read(node.this)
        if type(node) in CHAINS:
            return Value(TRUTH, CHAINS[type(node)]([self._of(each, TRUTH) for each in node.flatten()]))
        if type(node) in RULES:
            return self._ruled(node, RULES[type(node)])
        if type(node) in COMPARISONS:
            return self._compared(node, COMPARISONS[type(node)])
        reader = _READERS.get(type(node))
        if reader is None:
            near = get_close_matches(node.name.lower(), FUNCTIONS, 1) if isinstance(node, exp.Anonymous) else []
            known = f"perhaps `{near[0]}`?" if near else f"there are {MAY}"
            raise self._wrong(_start(node), f"may not use `{self._shown(node)}`; {known}")
        return reader(self, node)

    def _ruled(self, node: exp.Expr, rule: Rule) -> Value:
        operands = [node.this] if len(rule.takes) == 1 else [node.this, node.expression]
        return Value(
            rule.gives, rule.make(*(self._of(each, kind) for each, kind in zip(operands, rule.takes, strict=True)))
        )

    def _compared(self, node: exp.Expr, make: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Value:
        left, right = self._read(node.this), self._read(node.expression)
        if left.kind != right.kind:
            raise self._wrong(_start(node), f"compares {left.kind.value} with {right.kind.value}")
        return Value(TRUTH, make(left.made, right.made))

    def _of(self, node: exp.Expr, kind: Kind) -> pl.Expr:
        """The value of a part that has to be of a kind."""
        value = self._read(node)
        if value.kind != kind:
            raise self._wrong(
                _start(node), f"needs {kind.value} where `{self._shown(node)}` is, which is {value.kind.value}"
            )
        return value.made

    def column(self, node: exp.Column) -> Value:
        name = self._shown(node) if node.table else node.name
        if name not in self._columns:
            known = ", ".join(self._columns)
            raise self._wrong(_start(node), f"has no column `{name}`; there are {known}")
        kind, made = self._columns[name]
        return Value(kind, made.cast(pl.Float64) if kind is NUMBER else made)

    def literal(self, node: exp.Literal) -> Value:
        if node.is_string:
            return Value(TEXT, pl.lit(node.this))
        try:
            number = float(node.this)
        except ValueError:
            number = math.nan
        if math.isfinite(number) and (set(node.this) & set(".eE") or number < 1 << 53):
            return Value(NUMBER, pl.lit(number))
        raise self._wrong(None, f"has `{node.this}`, which is no number here")

    def like(self, node: exp.Like | exp.ILike) -> Value:
        folded = "(?si)" if isinstance(node, exp.ILike) else "(?s)"
        jokers = {"%": ".*", "_": "."}
        pattern = "".join(jokers.get(each) or pl.escape_regex(each) for each in self._plain(node.expression))
        return self._searched(node, f"{folded}^{pattern}$")

    def regexp(self, node: exp.RegexpLike) -> Value:
        return self._searched(node, self._plain(node.expression))

    def _searched(self, node: exp.Expr, pattern: str) -> Value:
        text = self._of(node.this, TEXT)
        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.ComputeError:
            raise self._wrong(_start(node), "has a pattern that is no regular expression (of Rust)") from None
        return Value(TRUTH, text.str.contains(pattern))

    def _plain(self, node: exp.Expr) -> str:
        if not isinstance(node, exp.Literal) or not node.is_string:
            raise self._wrong(_start(node), f"needs a text in quotes where `{self._shown(node)}` is")
        return str(node.this)

    def among(self, node: exp.In) -> Value:
        value = self._read(node.this)
        if not node.expressions or value.kind is TRUTH:
            raise self._wrong(_start(node), "needs texts or numbers in `in (…)`")
        made = [self._read(node.this).made == self._of(each, value.kind) for each in node.expressions]
        return Value(TRUTH, pl.any_horizontal(made))

    def between(self, node: exp.Between) -> Value:
        value = self._read(node.this)
        low, high = (self._of(node.args[end], value.kind) for end in ("low", "high"))
        return Value(TRUTH, (value.made >= low) & (self._read(node.this).made <= high))

    def unknown(self, node: exp.Is) -> Value:
        if not isinstance(node.expression, exp.Null):
            raise self._wrong(_start(node), "may only ask `is null`")
        return Value(TRUTH, self._read(node.this).made.is_null())

    def case(self, node: exp.Case | exp.If) -> Value:
        if isinstance(node, exp.Case) and node.this is not None:
            raise self._wrong(_start(node), "needs a condition after `when`, and nothing after `case`")
        branches = node.args["ifs"] if isinstance(node, exp.Case) else [node]
        otherwise = node.args.get("default" if isinstance(node, exp.Case) else "false")
        first = self._read(branches[0].args["true"])
        made = [first.made, *(self._of(each.args["true"], first.kind) for each in branches[1:])]
        last = self._of(otherwise, first.kind) if otherwise is not None else pl.lit(None)
        for branch, then in reversed(list(zip(branches, made, strict=True))):
            last = pl.when(self._of(branch.this, TRUTH)).then(then).otherwise(last)
        return Value(first.kind, last)

    def coalesce(self, node: exp.Coalesce) -> Value:
        first = self._read(node.this)
        return Value(first.kind, pl.coalesce(first.made, *(self._of(each, first.kind) for each in node.expressions)))

    def concat(self, node: exp.Concat) -> Value:
        return Value(TEXT, pl.concat_str([self._of(each, TEXT) for each in node.expressions]))

    def truth(self, node: exp.Boolean) -> Value:
        return Value(TRUTH, pl.lit(bool(node.this)))

    def _shown(self, node: exp.Expr) -> str:
        try:
            said = node.sql()
        except _STUMBLES:
            said = node.key
        return said if len(said) <= 40 else f"{said[:39]}…"

    def _place(self, line: int | None, end: int | None, length: int) -> int | None:
        """The place of a word in the text, from 0, out of its line and the column of its last character."""
        if line is None or end is None:
            return None
        before = sum(len(each) + 1 for each in self._text.split("\n")[: line - 1])
        return max(0, before + end - length)

    def _wrong(self, place: int | None, what: str) -> Invalid:
        where = f" (at character {place + 1})" if place is not None else ""
        return Invalid(f"the expression of {self._name} {what}{where}")


def _start(node: exp.Expr) -> int | None:
    """Where the first word of a part stands, as far as sqlglot tells."""
    places = [each.meta["start"] for each in node.walk() if "start" in each.meta]
    return min(places) if places else None


_READERS: dict[type[exp.Expr], Callable[[_Reading, Any], Value]] = {
    exp.Column: _Reading.column,
    exp.Literal: _Reading.literal,
    exp.Boolean: _Reading.truth,
    exp.Like: _Reading.like,
    exp.ILike: _Reading.like,
    exp.RegexpLike: _Reading.regexp,
    exp.In: _Reading.among,
    exp.Between: _Reading.between,
    exp.Is: _Reading.unknown,
    exp.Case: _Reading.case,
    exp.If: _Reading.case,
    exp.Coalesce: _Reading.coalesce,
    exp.Concat: _Reading.concat,
}
