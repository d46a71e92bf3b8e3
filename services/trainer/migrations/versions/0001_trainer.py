"""Training jobs and the placements of their attempts."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "trainer_0001"
down_revision = None
branch_labels = ("trainer",)
depends_on = "kit_0001"


def upgrade() -> None:
    """Creates the two tables."""
    op.create_table(
        "trainer_job",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("task_type", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("creator", sa.String(), nullable=False),
        sa.Column("dataset_version", sa.String(), nullable=False),
    )
    for column in ("parent", "state", "create_time", "task_type", "model", "creator", "dataset_version"):
        op.create_index(f"ix_trainer_job_{column}", "trainer_job", [column])
    op.create_table(
        "trainer_placement",
        sa.Column("job", sa.String(), primary_key=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("handle", sa.String(), nullable=False),
        sa.Column("reports", sa.Integer(), nullable=False),
    )
