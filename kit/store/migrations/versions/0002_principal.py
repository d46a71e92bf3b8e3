"""Who caused each event."""

import sqlalchemy as sa
from alembic import op

revision = "kit_0002"
down_revision = "kit_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; what is there already was caused by nobody known."""
    op.add_column("outbox", sa.Column("principal", sa.String(), nullable=False, server_default=""))
