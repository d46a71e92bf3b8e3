"""Blobs that go: those that nobody names, and those with something of rows that were forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "evaluator_0002"
down_revision = "evaluator_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "evaluator_doomed",
        sa.Column("space", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("evaluation", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("space", "digest"),
    )
