"""Files of models that need not be sent again, and the ids that imported weights have elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "registry_0003"
down_revision = "registry_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "registry_file",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("project", "digest"),
    )
    op.add_column("registry_model_version", sa.Column("source_id", sa.String(), nullable=False, server_default=""))
    op.create_index(op.f("ix_registry_model_version_source_id"), "registry_model_version", ["source_id"], unique=False)
