"""The parts that the rows of a version lie in."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "dataset_0003"
down_revision = "dataset_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "dataset_part",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("train", sa.Integer(), nullable=False),
        sa.Column("validation", sa.Integer(), nullable=False),
        sa.Column("test", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "place"),
    )
    op.create_index(op.f("ix_dataset_part_digest"), "dataset_part", ["digest"], unique=False)
    op.create_table(
        "dataset_doomed",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("project", "digest"),
    )
