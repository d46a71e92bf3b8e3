"""Which model versions learned from which others, beside those that they start from."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "dataset_0010"
down_revision = "dataset_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "dataset_taught",
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("teacher", sa.String(), nullable=False),
        sa.Column("time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("model_version", "teacher"),
    )
    op.create_index(op.f("ix_dataset_taught_teacher"), "dataset_taught", ["teacher"], unique=False)
