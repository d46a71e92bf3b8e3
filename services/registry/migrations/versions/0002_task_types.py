"""Task types of projects."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "registry_0002"
down_revision = "registry_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "registry_task_type",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_registry_task_type_create_time"), "registry_task_type", ["create_time"], unique=False)
    op.create_index(op.f("ix_registry_task_type_parent"), "registry_task_type", ["parent"], unique=False)
    op.create_index(op.f("ix_registry_task_type_state"), "registry_task_type", ["state"], unique=False)
