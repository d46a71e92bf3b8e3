"""First tables."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "dataset_0001"
down_revision = None
branch_labels = ("dataset",)
depends_on = "kit_0001"


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "dataset_dataset",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("task_type", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_dataset_dataset_create_time"), "dataset_dataset", ["create_time"], unique=False)
    op.create_index(op.f("ix_dataset_dataset_display_name"), "dataset_dataset", ["display_name"], unique=False)
    op.create_index(op.f("ix_dataset_dataset_parent"), "dataset_dataset", ["parent"], unique=False)
    op.create_index(op.f("ix_dataset_dataset_state"), "dataset_dataset", ["state"], unique=False)
    op.create_index(op.f("ix_dataset_dataset_task_type"), "dataset_dataset", ["task_type"], unique=False)
    op.create_table(
        "dataset_piece",
        sa.Column("upload", sa.String(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("upload", "start"),
    )
    op.create_table(
        "dataset_upload",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_dataset_upload_create_time"), "dataset_upload", ["create_time"], unique=False)
    op.create_index(op.f("ix_dataset_upload_parent"), "dataset_upload", ["parent"], unique=False)
    op.create_index(op.f("ix_dataset_upload_state"), "dataset_upload", ["state"], unique=False)
    op.create_table(
        "dataset_version",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("upload", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("upload"),
    )
    op.create_index(op.f("ix_dataset_version_create_time"), "dataset_version", ["create_time"], unique=False)
    op.create_index(op.f("ix_dataset_version_digest"), "dataset_version", ["digest"], unique=False)
    op.create_index(op.f("ix_dataset_version_parent"), "dataset_version", ["parent"], unique=False)
    op.create_index(op.f("ix_dataset_version_state"), "dataset_version", ["state"], unique=False)
    op.create_index(op.f("ix_dataset_version_version"), "dataset_version", ["version"], unique=False)
