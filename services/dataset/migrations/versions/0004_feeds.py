"""Feeds, and pieces that lie elsewhere than the upload they are of."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "dataset_0004"
down_revision = "dataset_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "dataset_feed",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("due", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    for column in ("create_time", "due", "parent", "state"):
        op.create_index(op.f(f"ix_dataset_feed_{column}"), "dataset_feed", [column], unique=False)
    op.add_column("dataset_piece", sa.Column("space", sa.String(), nullable=False, server_default=""))
    op.add_column("dataset_piece", sa.Column("row_count", sa.Integer(), nullable=False, server_default="0"))
