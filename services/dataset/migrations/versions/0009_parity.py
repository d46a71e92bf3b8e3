"""The prompts of rows that were left with a model version, so that they go with the rows."""

import sqlalchemy as sa
from alembic import op

revision = "dataset_0009"
down_revision = "dataset_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.add_column("dataset_use", sa.Column("parity", sa.String(), nullable=False, server_default=""))
