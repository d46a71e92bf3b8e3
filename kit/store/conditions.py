"""A filter as SQL over one table and, where it has one, its text index; it knows no resource by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from sqlalchemy import BigInteger, ColumnElement, Table, and_, not_, or_
from sqlalchemy import types as sql

from kit.rpc import filters
from kit.rpc.errors import Invalid
from kit.rpc.filters import And, Condition, Node, Not, Or, Text
from kit.store import terms
from kit.store.tables import UtcTime
from kit.store.text_index import TextIndex

Enums = Mapping[str, EnumTypeWrapper]
ORDERS: dict[str, Any] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


class Conditions:
    """Translates the filters of one table. Raises Invalid (INVALID_FILTER) for a value that a field cannot have."""

    def __init__(self, table: Table, enums: Enums, facts: Collection[str], index: TextIndex | None, dialect: str):
        """``facts`` are the fields whose values are terms of the index."""
        self.table = table
        self.enums = enums
        self.facts = facts
        self.index = index
        self.dialect = dialect

    def split(self, tree: Node | None) -> tuple[list[str], list[ColumnElement[bool]]]:
        """What must all hold: expressions for the index, which finds rows by them, and conditions on those rows."""
        found, rest = [], []
        for part in _parts(tree):
            expression = self._expression(part)
            if expression:
                found.append(expression)
            else:
                rest.append(self.clause(part))
        return found, rest

    def since(self, tree: Node | None) -> datetime | None:
        """A time before which nothing was made that passes the filter, if it says one."""
        bounds = [
            self.value(part.field, part.value)
            for part in _parts(tree)
            if isinstance(part, Condition) and part.field == "create_time" and part.op in ("=", ">=", ">")
        ]
        return max(bounds, default=None)

    def clause(self, tree: Node) -> ColumnElement[bool]:
        """The filter as one condition on a row."""
        match tree:
            case And(parts):
                return and_(*(self.clause(part) for part in parts))
            case Or(parts):
                return or_(*(self.clause(part) for part in parts))
            case Not(part):
                return not_(self.clause(part))
            case Condition() if tree.field in self.table.c:
                return self._compare(tree)
        expression = self._expression(tree)
        assert self.index is not None and expression, "the parser lets nothing else through"
        return self.index.holds(expression)

    def _expression(self, tree: Node) -> str:
        """The filter in the words of the index; empty when it cannot say it all."""
        if self.index is None:
            return ""
        match tree:
            case And(parts) | Or(parts):
                inner = [self._expression(part) for part in parts]
                join = self.index.all if isinstance(tree, And) else self.index.any
                return join(inner) if all(inner) else ""
            case Not(part):
                expression = self._expression(part)
                return self.index.but(expression) if expression else ""
            case Text(words, prefix):
                return self._text(self.index, words, prefix)
            case Condition():
                return self._fact(self.index, tree)

    def _text(self, index: TextIndex, words: str, prefix: bool) -> str:
        row, open_end = terms.phrase(words)
        if not row:
            raise filters.wrong(f"filter looks for `{words}`, which has neither letter nor digit", "give a word")
        return index.phrase(row, prefix or open_end)

    def _fact(self, index: TextIndex, condition: Condition) -> str:
        field, op, value, key = condition.field, condition.op, condition.value, condition.key
        if field not in self.facts:
            return ""
        if op not in ("=", "!=", ":", "*"):
            if field in self.table.c:
                return ""
            raise _unordered(condition)
        name = f"{field}.{key}" if key else field
        if op == "*":
            return index.phrase([terms.fact(name, "")])
        equal = index.phrase([terms.fact(f"{name}=", value if key else self.value(field, value))])
        if op != "!=":
            return equal
        return index.all([index.phrase([terms.fact(name, "")]), index.but(equal)]) if key else index.but(equal)

    def _compare(self, condition: Condition) -> ColumnElement[bool]:
        column: ColumnElement[Any] = self.table.c[condition.field]
        op = condition.op
        value = self.value(condition.field, condition.value)
        few = condition.field in self.enums or isinstance(value, bool)
        if few and op not in ("=", "!="):
            raise _unordered(condition)
        if isinstance(value, str) and op not in ("=", "!=") and self.dialect == "postgresql":
            column = column.collate("C")  # by code point, as SQLite does it, and not by the rules of a language
        clause: ColumnElement[bool] = ORDERS[op](column, value)
        return clause

    def value(self, field: str, text: str) -> Any:
        """`RUNNING`, or `running`, as the number of JOB_STATE_RUNNING, `7`, `true` or a time: as the column is."""
        cannot = f"filter compares `{field}` with `{text}`, which it can never be"
        if field in self.enums:
            names = self.enums[field].DESCRIPTOR.values_by_name
            prefix = next(iter(names)).removesuffix("UNSPECIFIED")
            known = names.get(text.upper()) or names.get(prefix + text.upper())
            if known is None:
                short = ", ".join(name.removeprefix(prefix) for name in list(names)[1:])
                raise filters.wrong(cannot, f"it is one of {short}")
            return known.number
        if field not in self.table.c:
            return text
        kind = self.table.c[field].type
        if isinstance(kind, sql.Boolean):
            if text.lower() not in ("true", "false"):
                raise filters.wrong(cannot, "it is true or false")
            return text.lower() == "true"
        if isinstance(kind, sql.Integer):
            return _number(text, 63 if isinstance(kind, BigInteger) else 31, cannot)
        return _time(text, cannot) if isinstance(kind, UtcTime) else text


def _parts(tree: Node | None) -> tuple[Node, ...]:
    """What must all hold."""
    return tree.parts if isinstance(tree, And) else (tree,) if tree is not None else ()


def _unordered(condition: Condition) -> Invalid:
    what = f"filter compares `{condition.field}` by `{condition.op}`, and it has no order"
    return filters.wrong(what, "compare it by `=` or `!=`")


def _number(text: str, bits: int, cannot: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not -(2**bits) <= int(text) < 2**bits:
        raise filters.wrong(cannot, f"it is a whole number of {bits + 1} bits")
    return int(text)


def _time(text: str, cannot: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        # A day alone is its first instant in UTC; a time of day without a zone could be any of 24.
        time = time.replace(tzinfo=UTC) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else time
        if time.tzinfo is None:
            raise ValueError
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise filters.wrong(cannot, "it is a time such as 2026-01-31T08:00:00Z (RFC 3339)") from None
