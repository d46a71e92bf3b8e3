"""Images and the like: which there are, which came with an upload, and which a part names."""

import sqlalchemy as sa
from alembic import op

revision = "dataset_0007"
down_revision = "dataset_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "dataset_asset",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "digest"),
    )
    op.create_table(
        "dataset_asset_beside",
        sa.Column("upload", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("upload", "path"),
    )
    op.create_index(op.f("ix_dataset_asset_beside_digest"), "dataset_asset_beside", ["digest"], unique=False)
    op.create_table(
        "dataset_asset_named",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("project", "part", "kind", "digest"),
    )
    op.create_index(op.f("ix_dataset_asset_named_digest"), "dataset_asset_named", ["digest"], unique=False)
