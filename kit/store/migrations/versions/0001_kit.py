"""The event log, the inbox, the kept answers and the bookmarks."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "kit_0001"
down_revision = None
branch_labels = ("kit",)
depends_on = None


def upgrade() -> None:
    """Creates the four tables."""
    unpublished = sa.text("published_at IS NULL")
    op.create_table(
        "outbox",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.Column("traceparent", sa.String(), nullable=False),
        sa.Column("data_json", sa.Text(), nullable=False),
        sa.Column("published_at", UtcTime(), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_subject", "outbox", ["subject"])
    op.create_index("ix_outbox_time", "outbox", ["time"])
    op.create_index(
        "outbox_unpublished", "outbox", ["sequence"], sqlite_where=unpublished, postgresql_where=unpublished
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(), primary_key=True),
        sa.Column("event_id", sa.String(), primary_key=True),
        sa.Column("time", UtcTime(), nullable=False),
    )
    op.create_table(
        "request",
        sa.Column("principal", sa.String(), primary_key=True),
        sa.Column("method", sa.String(), primary_key=True),
        sa.Column("request_id", sa.String(), primary_key=True),
        sa.Column("request_sha", sa.String(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("response_type", sa.String(), nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
    )
    op.create_index("ix_request_time", "request", ["time"])
    op.create_table(
        "bookmark",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
    )
