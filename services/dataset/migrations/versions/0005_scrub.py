"""Damaged blobs, and how far the look through all of them is."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "dataset_0005"
down_revision = "dataset_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "dataset_damaged_blob",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    for column in ("parent", "state", "create_time"):
        op.create_index(op.f(f"ix_dataset_damaged_blob_{column}"), "dataset_damaged_blob", [column], unique=False)
    op.create_table(
        "dataset_scrub",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("begun", UtcTime(), nullable=False),
        sa.Column("ended", UtcTime(), nullable=True),
        sa.Column("blobs", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("damaged", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
