"""What the resources of one table are found by: columns, facts and full text; it knows no resource by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import ColumnElement, Table

from kit.rpc import filters
from kit.store.conditions import Conditions, Enums
from kit.store.terms import document, fact
from kit.store.text_index import INDEXES, TextIndex, microseconds

M = TypeVar("M", bound=Message)
Texts = Callable[[M], Sequence[str]]


class Search(Generic[M]):
    """A table without ``texts`` is searched by its indexed columns and both times.

    One with them has the columns of a SearchedRow. It is searched by words of those texts too, and by ``facts``, which
    the index finds as fast as words: columns, and fields of the message without one, of one value, a list or a map.
    Who changes texts or facts has a migration write the terms of all rows anew.
    """

    def __init__(
        self, table: Table, message: type[M], enums: Enums, texts: Texts[M] | None = None, facts: Sequence[str] = ()
    ) -> None:
        self.table = table
        self.enums = enums
        self.texts = texts
        columns = {column.name for column in table.columns if column.index} - {"parent", "create_time"}
        self.facts = facts
        repeated = [name for name in facts if name not in columns and _field(message, name).is_repeated]
        maps = [name for name in repeated if _is_map(message, name)]
        lists = [name for name in repeated if name not in maps]
        plain = {*columns, *facts, "create_time", "update_time"} - {*repeated}
        self.fields = filters.Fields(plain, maps, lists, text=texts is not None)

    def index(self, dialect: str) -> TextIndex | None:
        """The table's text index, if it has one."""
        return INDEXES[dialect](self.table) if self.texts else None

    def terms(self, message: M, values: Mapping[str, Any]) -> list[str]:
        """What a message is found by, given the columns of its row."""
        assert self.texts is not None
        facts = {name: values[name] if name in values else getattr(message, name) for name in self.facts}
        return document(self.texts(message), _facts({"parent": values["parent"], **facts}))

    def select(self, query: Any, parent: str, filter: str, dialect: str) -> tuple[Any, list[ColumnElement[Any]]]:
        """The query for what is below ``parent`` and passes the filter, and the columns that put it in order.

        Those are two, or one whose values differ. Raises Invalid (INVALID_FILTER).
        """
        index, columns = self.index(dialect), self.table.c
        conditions = Conditions(self.table, self.enums, self.facts, index, dialect)
        tree = filters.parse(filter, self.fields)
        found, rest = conditions.split(tree)
        query = query.where(*_below(columns.parent, parent), *rest)
        if index is None:
            return query, [columns.create_time, columns.name]
        places: list[ColumnElement[Any]] = [columns.position, columns.name]
        if found:
            under = [index.phrase([fact("parent=", parent)])] if parent and not _spans(parent) else []
            query, places = index.narrow(query, index.all([*under, *found]))
        since = conditions.since(tree)
        # No row has a place before the time of its making, so that reading can begin there.
        return query.where(places[0] >= microseconds(since)) if since else query, places


def _facts(values: Mapping[str, Any]) -> list[str]:
    """The terms by which ``Conditions`` finds a field of one value, of several and of a map."""
    made: list[str] = []
    for field, value in values.items():
        if isinstance(value, str | int):
            made.append(fact(f"{field}=", value))
            continue
        if isinstance(value, Mapping):
            made += [fact(f"{field}.{key}=", value[key]) for key in value]
            made += [fact(f"{field}.{key}", "") for key in value]
        else:
            made += [fact(f"{field}=", each) for each in value]
        if value:
            made.append(fact(field, ""))
    return made


def _field(message: type[Message], name: str) -> Any:
    return message.DESCRIPTOR.fields_by_name[name]


def _is_map(message: type[Message], name: str) -> bool:
    entry = _field(message, name).message_type
    return entry is not None and bool(entry.GetOptions().map_entry)


def _spans(parent: str) -> bool:
    return "-" in parent.split("/")


def _below(column: ColumnElement[str], parent: str) -> list[ColumnElement[bool]]:
    if not parent:
        return []
    if not _spans(parent):
        return [column == parent]
    pattern = "/".join("%" if part == "-" else _literal(part) for part in parent.split("/"))
    return [column.like(pattern, escape="\\")]


def _literal(part: str) -> str:
    return part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
