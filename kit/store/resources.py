"""Resources as rows: a proto's bytes beside the few columns that are searched; it knows no resource by name."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import ColumnElement, LargeBinary, Table, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc import paging
from kit.rpc.errors import AlreadyExists, NotFound, Stale
from kit.rpc.names import parent_of
from kit.store.conditions import Enums
from kit.store.faults import as_fault
from kit.store.search import Search, Texts
from kit.store.tables import UtcTime
from kit.store.unit import Unit

M = TypeVar("M", bound=Message)


class ResourceRow(SQLModel):
    """The columns every resource has; a table adds those it is searched by: `task_type: str = Field(index=True)`."""

    name: str = Field(primary_key=True)
    parent: str = Field(index=True)
    state: int = Field(default=0, index=True)
    revision: int
    create_time: datetime = Field(index=True, sa_type=UtcTime)
    update_time: datetime = Field(sa_type=UtcTime)
    body: bytes = Field(sa_type=LargeBinary)


class Resources(Generic[M]):
    """The resources of one table. Messages come back with etag, create_time and update_time, where they have them."""

    def __init__(
        self,
        row: type[ResourceRow],
        message: type[M],
        columns: Callable[[M], Mapping[str, Any]] = lambda message: {},
        enums: Enums | None = None,
        kind: str = "",
        texts: Texts[M] | None = None,
        facts: Sequence[str] = (),
    ) -> None:
        """``columns`` gives the table's own columns of a message (and may override parent and state).

        ``enums`` says which fields a filter names by enum value: {"state": JobState}. Every indexed column can be
        filtered by, and both times. ``kind`` is the noun in error sentences; the message's name when empty.
        ``texts`` and ``facts`` are for a SearchedRow: see Search.
        """
        self.table: Table = row.__table__  # type: ignore[attr-defined]
        self.message = message
        self.columns = columns
        self.enums = dict(enums or {})
        self.kind = kind or message.DESCRIPTOR.name
        self._own = {field.name for field in message.DESCRIPTOR.fields}
        self.search = Search(self.table, message, self.enums, texts, facts)

    async def get(self, session: AsyncSession, name: str) -> M:
        """The resource of that name. Raises NotFound."""
        found = await self.find(session, name=name)
        if not found:
            raise self._missing(name)
        return found[0]

    async def find(self, session: AsyncSession, **columns: Any) -> list[M]:
        """All resources with these column values, oldest first; a list stands for any of its values."""
        query: Any = self._select().order_by(self.table.c.create_time, self.table.c.name)
        query = query.where(*self._having(columns))
        return [self._message(row) for row in (await session.exec(query)).all()]

    async def insert(self, unit: Unit, message: M) -> M:
        """Stores a new resource under ``message.name``. Raises AlreadyExists."""
        self._stamp(message, 1, unit.now, unit.now)
        values = self._values(message) | {"revision": 1, "create_time": unit.now, "update_time": unit.now}
        index = self.search.index(unit.session.get_bind().dialect.name)
        if index is not None:
            values["position"] = index.position(unit.now)
        try:
            async with unit.session.begin_nested():
                await unit.session.exec(insert(self.table).values(values))
        except IntegrityError as error:
            if not isinstance(as_fault(error), AlreadyExists):
                raise
            name = values["name"]
            raise AlreadyExists(
                f"{self.kind} `{name}` exists; choose another id", resource=(self.kind, name)
            ) from error
        return message

    async def update(self, unit: Unit, message: M, etag: str = "") -> M:
        """Replaces a resource by a message that was read in this unit, or later than any other write.

        ``etag`` is the one the caller sent, if any. Raises Stale when it, or the message's own, is not the present
        one, and NotFound.
        """
        name = str(getattr(message, "name"))  # noqa: B009 - M is any message with a name
        query: Any = select(self.table.c.revision, self.table.c.create_time).where(self.table.c.name == name)
        row = (await unit.session.exec(query)).one_or_none()
        if row is None:
            raise self._missing(name)
        own = str(getattr(message, "etag", ""))
        if any(tag and tag != _etag(row.revision) for tag in (etag, own)):
            raise self._stale(name)
        values = self._values(message) | {"revision": row.revision + 1, "update_time": unit.now}
        change = update(self.table).where(self.table.c.name == name, self.table.c.revision == row.revision)
        if (await unit.session.exec(change.values(values))).rowcount != 1:
            raise self._stale(name)
        self._stamp(message, row.revision + 1, row.create_time, unit.now)
        return message

    async def delete(self, unit: Unit, name: str, etag: str = "") -> None:
        """Removes a resource. Raises NotFound, and Stale when ``etag`` is given and not the present one."""
        if etag and _etag_of(await self.get(unit.session, name)) not in ("", etag):
            raise self._stale(name)
        if (await unit.session.exec(delete(self.table).where(self.table.c.name == name))).rowcount != 1:
            raise self._missing(name)

    async def count(self, session: AsyncSession, **columns: Any) -> int:
        """How many resources have these column values; a list stands for any of its values."""
        query: Any = select(func.count()).select_from(self.table).where(*self._having(columns))
        return int((await session.exec(query)).scalar_one())

    def _having(self, columns: dict[str, Any]) -> list[ColumnElement[bool]]:
        return [
            self.table.c[column].in_(value)
            if isinstance(value, list | tuple | set | frozenset)
            else self.table.c[column] == value
            for column, value in columns.items()
        ]

    async def page(
        self,
        session: AsyncSession,
        *,
        parent: str = "",
        page_size: int = 0,
        page_token: str = "",
        filter: str = "",
        newest_first: bool = False,
        where: Sequence[ColumnElement[bool]] = (),
    ) -> tuple[list[M], str]:
        """One page and the token of the next (empty at the end), by (create_time, name).

        Where there is a text index, rows of one instant come by name on PostgreSQL and as they were made on SQLite.
        An empty parent, or one with `-` for an id (AIP-159), spans several. ``where`` adds conditions of the service.
        Rows that come or go meanwhile never make another row appear twice or be left out.
        Raises Invalid (INVALID_PAGE_TOKEN, INVALID_FILTER).
        """
        query = (self.table.name, parent, filter, str(newest_first))
        dialect = session.get_bind().dialect.name
        selection, places = self.search.select(self._select(), parent, filter, dialect)
        after = paging.decode(page_token, *query, of=(int if self.search.texts else str, str))
        if after is not None:
            selection = selection.where(self._after(places, after, newest_first))
        size = paging.page_size(page_size)
        ordered = [place.desc() if newest_first else place.asc() for place in places]
        rows = (await session.exec(selection.where(*where).order_by(*ordered).limit(size + 1))).all()
        token = ""
        if len(rows) > size:
            last = rows[size - 1]
            place = last.position if self.search.texts else last.create_time.isoformat()
            token = paging.encode([place, last.name], *query)
        return [self._message(row) for row in rows[:size]], token

    def _after(
        self, places: Sequence[ColumnElement[Any]], cursor: paging.Cursor, newest_first: bool
    ) -> ColumnElement[bool]:
        """What comes after the last row of a page."""
        first: Any = cursor[0]
        if not self.search.texts:
            try:
                first = datetime.fromisoformat(str(first)).astimezone(UTC)
            except (ValueError, OverflowError):
                raise paging.wrong_token() from None
        last = [literal(value, place.type) for place, value in zip(places, (first, cursor[1]), strict=False)]
        row: Any = tuple_(*places)
        after: ColumnElement[bool] = row < tuple_(*last) if newest_first else row > tuple_(*last)
        return after

    def _select(self) -> Any:
        c = self.table.c
        place = [c.position] if self.search.texts else []
        return select(c.name, c.body, c.revision, c.create_time, c.update_time, *place)

    def _values(self, message: M) -> dict[str, Any]:
        name = str(getattr(message, "name"))  # noqa: B009
        values: dict[str, Any] = {"name": name, "parent": parent_of(name)}
        if "state" in self._own:
            values["state"] = int(getattr(message, "state"))  # noqa: B009
        body = type(message)()
        body.CopyFrom(message)
        for column in {"etag", "create_time", "update_time"} & self._own:
            body.ClearField(column)
        values |= dict(self.columns(message)) | {"body": body.SerializeToString(deterministic=True)}
        return values | {"terms": self.search.terms(message, values)} if self.search.texts else values

    def _message(self, row: Any) -> M:
        message = self.message.FromString(row.body)
        self._stamp(message, row.revision, row.create_time, row.update_time)
        return message

    def _stamp(self, message: M, revision: int, create_time: datetime, update_time: datetime) -> None:
        resource: Any = message
        if "etag" in self._own:
            resource.etag = _etag(revision)
        for field, time in (("create_time", create_time), ("update_time", update_time)):
            if field in self._own:
                getattr(resource, field).FromDatetime(time)

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"{self.kind} `{name}` does not exist", resource=(self.kind, name))

    def _stale(self, name: str) -> Stale:
        return Stale(
            f"{self.kind} `{name}` was changed meanwhile; read it again, then repeat", resource=(self.kind, name)
        )


def _etag(revision: int) -> str:
    return str(revision)


def _etag_of(message: Message) -> str:
    return str(getattr(message, "etag", ""))
