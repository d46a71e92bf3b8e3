"""First tables."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "evaluator_0001"
down_revision = None
branch_labels = ("evaluator",)
depends_on = "kit_0001"


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "evaluator_batch",
        sa.Column("evaluation", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("evaluation", "model_version", "number"),
    )
    op.create_table(
        "evaluator_evaluation",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("effective_suite", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("model_version", "effective_suite"),
    )
    op.create_index(op.f("ix_evaluator_evaluation_automatic"), "evaluator_evaluation", ["automatic"], unique=False)
    op.create_index(op.f("ix_evaluator_evaluation_create_time"), "evaluator_evaluation", ["create_time"], unique=False)
    op.create_index(
        op.f("ix_evaluator_evaluation_model_version"), "evaluator_evaluation", ["model_version"], unique=False
    )
    op.create_index(op.f("ix_evaluator_evaluation_parent"), "evaluator_evaluation", ["parent"], unique=False)
    op.create_index(op.f("ix_evaluator_evaluation_state"), "evaluator_evaluation", ["state"], unique=False)
