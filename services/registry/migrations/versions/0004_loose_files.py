"""Weights that imports brought which broke off, so that they can go."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "registry_0004"
down_revision = "registry_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "registry_loose_file",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("project", "digest"),
    )
    op.create_index(op.f("ix_registry_loose_file_time"), "registry_loose_file", ["time"], unique=False)
