"""First tables."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "registry_0001"
down_revision = None
branch_labels = ("registry",)
depends_on = "kit_0001"


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "registry_api_key",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("secret_sha256"),
    )
    op.create_index(op.f("ix_registry_api_key_create_time"), "registry_api_key", ["create_time"], unique=False)
    op.create_index(op.f("ix_registry_api_key_parent"), "registry_api_key", ["parent"], unique=False)
    op.create_index(op.f("ix_registry_api_key_state"), "registry_api_key", ["state"], unique=False)
    op.create_table(
        "registry_gate_policy",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_registry_gate_policy_create_time"), "registry_gate_policy", ["create_time"], unique=False)
    op.create_index(op.f("ix_registry_gate_policy_parent"), "registry_gate_policy", ["parent"], unique=False)
    op.create_index(op.f("ix_registry_gate_policy_state"), "registry_gate_policy", ["state"], unique=False)
    op.create_table(
        "registry_model",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("task_type", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_registry_model_create_time"), "registry_model", ["create_time"], unique=False)
    op.create_index(op.f("ix_registry_model_endpoint"), "registry_model", ["endpoint"], unique=False)
    op.create_index(op.f("ix_registry_model_parent"), "registry_model", ["parent"], unique=False)
    op.create_index(op.f("ix_registry_model_state"), "registry_model", ["state"], unique=False)
    op.create_index(op.f("ix_registry_model_task_type"), "registry_model", ["task_type"], unique=False)
    op.create_table(
        "registry_model_version",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("training_job", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("parent", "source"),
    )
    op.create_index(
        op.f("ix_registry_model_version_create_time"), "registry_model_version", ["create_time"], unique=False
    )
    op.create_index(op.f("ix_registry_model_version_digest"), "registry_model_version", ["digest"], unique=False)
    op.create_index(op.f("ix_registry_model_version_endpoint"), "registry_model_version", ["endpoint"], unique=False)
    op.create_index(op.f("ix_registry_model_version_parent"), "registry_model_version", ["parent"], unique=False)
    op.create_index(op.f("ix_registry_model_version_state"), "registry_model_version", ["state"], unique=False)
    op.create_index(
        op.f("ix_registry_model_version_training_job"), "registry_model_version", ["training_job"], unique=False
    )
    op.create_table(
        "registry_project",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_registry_project_create_time"), "registry_project", ["create_time"], unique=False)
    op.create_index(op.f("ix_registry_project_parent"), "registry_project", ["parent"], unique=False)
    op.create_index(op.f("ix_registry_project_state"), "registry_project", ["state"], unique=False)
