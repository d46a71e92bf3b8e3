"""An asset is one of the datasets to which its bytes came, and lies in a space of assets.

What was stored before lies elsewhere and is not carried over: no release had images.
"""

import sqlalchemy as sa
from alembic import op

revision = "dataset_0008"
down_revision = "dataset_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.drop_table("dataset_asset")
    op.create_table(
        "dataset_asset",
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("parent", "digest"),
    )
    op.create_index(op.f("ix_dataset_asset_digest"), "dataset_asset", ["digest"], unique=False)
