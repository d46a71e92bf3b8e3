"""Where rows are found by terms: FTS5 in SQLite, a GIN index in PostgreSQL; it knows no resource and no filter.

A table has its terms in a column of its own, written with the row. In PostgreSQL an index on that column is all. In
SQLite triggers copy them to a table of FTS5, whose `rowid` is the row's ``position``: as positions are in the order of
pages, a page of a search is read in that order and no further than it goes, whether ten rows match or all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Index,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

from kit.store.terms import EVERYTHING

#: PostgreSQL counts positions in a text up to here. Of a longer one they begin again: its phrases are found, and so,
#: hardly ever, is one whose words only stand so far apart that it seems to be there.
MAX_POSITION = 16383
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Terms(TypeDecorator[list[str]]):
    """Terms in their order: a line of words in SQLite, a tsvector in PostgreSQL; it is written and searched only."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type of the column."""
        return dialect.type_descriptor(TSVECTOR() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> str:
        """Terms have neither blanks nor quotes in them."""
        if dialect.name != "postgresql":
            return " ".join(value or [])
        return " ".join(f"'{term}':{at % MAX_POSITION + 1}" for at, term in enumerate(value or []))


class SearchedRow(SQLModel):
    """What a table of resources has beside the columns of all: `class DatasetRow(SearchedRow, ResourceRow, …)`.

    Give it ``indexes`` as `__table_args__` and, in its migration, ``install``.
    """

    #: Microseconds from the epoch to its making, and on SQLite higher than that of any row before.
    position: int = Field(sa_type=BigInteger)
    terms: list[str] = Field(sa_type=Terms)


def indexes(name: str) -> tuple[Index, Index]:
    """The indexes by which pages are read in order: of one parent, and of all."""
    return Index(f"ix_{name}_page", "parent", "position", "name"), Index(f"ix_{name}_position", "position", "name")


def install(connection: Connection, name: str) -> None:
    """Makes the index of the table ``name`` and fills it from the terms that are there.

    For migrations, and again in one that has SQLite copy the table, which drops its triggers.
    """
    index = f"search_{name}"
    if connection.dialect.name == "postgresql":
        # Without fastupdate no search has to read through a list of what came lately.
        sql = [f"CREATE INDEX IF NOT EXISTS {index} ON {name} USING gin (terms) WITH (fastupdate = off)"]
    else:
        put = f"INSERT INTO {index} (rowid, terms) VALUES (new.position, new.terms);"
        drop = f"INSERT INTO {index} ({index}, rowid, terms) VALUES ('delete', old.position, old.terms);"
        changed = f"AFTER UPDATE OF terms ON {name} WHEN old.terms <> new.terms"
        sql = [
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {index} USING fts5"
            f"(terms, content='{name}', content_rowid='position', tokenize='ascii', columnsize=0)",
            f"CREATE TRIGGER IF NOT EXISTS {index}_insert AFTER INSERT ON {name} BEGIN {put} END",
            f"CREATE TRIGGER IF NOT EXISTS {index}_delete AFTER DELETE ON {name} BEGIN {drop} END",
            f"CREATE TRIGGER IF NOT EXISTS {index}_update {changed} BEGIN {drop} {put} END",
            f"INSERT INTO {index} ({index}) VALUES ('rebuild')",
        ]
    for statement in sql:
        connection.exec_driver_sql(statement)


class TextIndex(Protocol):
    """What is asked of an index, in words of its own: expressions over terms, which are made of nothing but terms."""

    def phrase(self, terms: Sequence[str], prefix: bool = False) -> str:
        """The terms in a row; ``prefix``: the last is the beginning of one."""
        ...

    def all(self, parts: Sequence[str]) -> str:
        """Where all of the expressions hold."""
        ...

    def any(self, parts: Sequence[str]) -> str:
        """Where one of them holds."""
        ...

    def but(self, part: str) -> str:
        """Where it does not hold."""
        ...

    def holds(self, expression: str) -> ColumnElement[bool]:
        """The expression as a condition on a row of the table."""
        ...

    def narrow(self, query: Any, expression: str) -> tuple[Any, list[ColumnElement[Any]]]:
        """A query of the table for the rows where the expression holds, and the columns to order and to page it by."""
        ...

    def position(self, time: datetime) -> Any:
        """The position of a row that is made at that time."""
        ...


class Fts5:
    """SQLite's. An expression has every term in quotes, so that none is an operator."""

    def __init__(self, rows: Table) -> None:
        self.rows = rows
        name = f"search_{rows.name}"
        self.found = table(name, column("rowid", BigInteger), column(name, Text))

    def phrase(self, terms: Sequence[str], prefix: bool = False) -> str:
        """``"a b" *``."""
        return f'"{" ".join(terms)}"' + (" *" if prefix else "")

    def all(self, parts: Sequence[str]) -> str:
        """With AND."""
        return f"({' AND '.join(parts)})"

    def any(self, parts: Sequence[str]) -> str:
        """With OR."""
        return f"({' OR '.join(parts)})"

    def but(self, part: str) -> str:
        """FTS5 can only take away from something."""
        return f'("{EVERYTHING}" NOT {part})'

    def holds(self, expression: str) -> ColumnElement[bool]:
        """By a subquery that is answered once."""
        return self.rows.c.position.in_(select(self.found.c.rowid).where(self._match(expression)))

    def narrow(self, query: Any, expression: str) -> tuple[Any, list[ColumnElement[Any]]]:
        """In the order of `rowid`, which is how FTS5 keeps what it finds.

        The 0 keeps SQLite from taking a bound of one side for the other's: it would look for all rows above it.
        """
        joined = query.join(self.found, self.rows.c.position == self.found.c.rowid + 0)
        return joined.where(self._match(expression)), [self.found.c.rowid]

    def position(self, time: datetime) -> Any:
        """Unique, as SQLite has one writer, and never below one that was given before, whatever the clock does."""
        highest = select(func.coalesce(func.max(self.rows.c.position), 0) + 1).scalar_subquery()
        return func.max(literal(microseconds(time), BigInteger), highest)

    def _match(self, expression: str) -> ColumnElement[bool]:
        return self.found.c[self.found.name].op("MATCH", is_comparison=True)(literal(expression, Text))


class Gin:
    """PostgreSQL's. The planner, which counts terms, decides whether the index or the order of pages leads."""

    def __init__(self, rows: Table) -> None:
        self.rows = rows

    def phrase(self, terms: Sequence[str], prefix: bool = False) -> str:
        """``('a' <-> 'b':*)``."""
        row = " <-> ".join(f"'{term}'" for term in terms)
        return f"({row}{':*' if prefix else ''})"

    def all(self, parts: Sequence[str]) -> str:
        """With &."""
        return f"({' & '.join(parts)})"

    def any(self, parts: Sequence[str]) -> str:
        """With |."""
        return f"({' | '.join(parts)})"

    def but(self, part: str) -> str:
        """With !."""
        return f"!{part}"

    def holds(self, expression: str) -> ColumnElement[bool]:
        """On the row's own column. The expression stands in the statement, as terms can, and is no parameter of it.

        PostgreSQL plans a statement that comes often without looking at its parameters, as if every search found as
        much as any other.
        """
        query = bindparam(None, expression, Text, literal_execute=True)
        matches: ColumnElement[bool] = self.rows.c.terms.op("@@", is_comparison=True)(cast(query, TSQUERY))
        return matches

    def narrow(self, query: Any, expression: str) -> tuple[Any, list[ColumnElement[Any]]]:
        """In the order of pages."""
        return query.where(self.holds(expression)), [self.rows.c.position, self.rows.c.name]

    def position(self, time: datetime) -> Any:
        """Not unique; rows of one microsecond are in the order of their names."""
        return microseconds(time)


#: By SQLAlchemy's name of the dialect.
INDEXES: dict[str, type[Fts5] | type[Gin]] = {"sqlite": Fts5, "postgresql": Gin}


def microseconds(time: datetime) -> int:
    """From the epoch; exact, as a float would not be."""
    return (time - EPOCH) // timedelta(microseconds=1)
