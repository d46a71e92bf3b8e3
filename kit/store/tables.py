"""The tables that every service's database has beside its own: event log, inbox, answers and bookmarks."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Dialect, Index, Integer, LargeBinary, MetaData, Text, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime to the microsecond; SQLite, which has no zones, holds it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses naive times, which would mean another instant on another machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times in the database are aware; give the datetime a zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Gives UTC back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


KIT = MetaData()  # its own: the services' models are compared with SQLModel.metadata, which these are no part of


UNPUBLISHED = text("published_at IS NULL")


class OutboxRow(SQLModel, table=True):
    """One event of this service; ``published_at`` is absent until the bus has acknowledged it."""

    metadata = KIT
    __tablename__ = "outbox"
    __table_args__ = (
        Index("outbox_unpublished", "sequence", sqlite_where=UNPUBLISHED, postgresql_where=UNPUBLISHED),
        {"sqlite_autoincrement": True},
    )
    # SQLite autoincrements INTEGER only; AUTOINCREMENT keeps a number from ever being used twice.
    sequence: int | None = Field(default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite"))
    id: str = Field(unique=True)
    type: str
    subject: str = Field(index=True)
    time: datetime = Field(index=True, sa_type=UtcTime)
    traceparent: str = ""
    principal: str = ""  # who caused it; empty in rows from before there was this column
    data_json: str = Field(sa_type=Text)
    published_at: datetime | None = Field(default=None, sa_type=UtcTime)


class InboxRow(SQLModel, table=True):
    """An event whose effect is in this database, or (consumer ``<service>.dead``) in the dead letters."""

    metadata = KIT
    __tablename__ = "inbox"
    consumer: str = Field(primary_key=True)
    event_id: str = Field(primary_key=True)
    time: datetime = Field(sa_type=UtcTime)


class RequestRow(SQLModel, table=True):
    """The first answer to a mutation that carried a request id."""

    metadata = KIT
    __tablename__ = "request"
    principal: str = Field(primary_key=True)
    method: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    request_sha: str
    response: bytes = Field(sa_type=LargeBinary)
    response_type: str
    time: datetime = Field(index=True, sa_type=UtcTime)


class BookmarkRow(SQLModel, table=True):
    """A place that the bus keeps: when a stream was made, how far a reconciler has come, whose database this is."""

    metadata = KIT
    __tablename__ = "bookmark"
    key: str = Field(primary_key=True)
    value: str
