"""First tables."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "gateway_0001"
down_revision = None
branch_labels = ("gateway",)
depends_on = "kit_0001"


def upgrade() -> None:
    """Changes the tables."""
    op.create_table(
        "gateway_candidate_route",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(timezone=True), nullable=False),
        sa.Column("update_time", UtcTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(
        "gateway_candidate_route_live",
        "gateway_candidate_route",
        ["model_version"],
        unique=True,
        sqlite_where=sa.text("state IN (1, 2)"),
        postgresql_where=sa.text("state IN (1, 2)"),
    )
    op.create_index(
        op.f("ix_gateway_candidate_route_create_time"), "gateway_candidate_route", ["create_time"], unique=False
    )
    op.create_index(
        op.f("ix_gateway_candidate_route_model_version"), "gateway_candidate_route", ["model_version"], unique=False
    )
    op.create_index(op.f("ix_gateway_candidate_route_parent"), "gateway_candidate_route", ["parent"], unique=False)
    op.create_index(op.f("ix_gateway_candidate_route_state"), "gateway_candidate_route", ["state"], unique=False)

    op.create_table(
        "gateway_deployment",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(timezone=True), nullable=False),
        sa.Column("update_time", UtcTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(
        "gateway_deployment_live",
        "gateway_deployment",
        ["model_version"],
        unique=True,
        sqlite_where=sa.text("state IN (1, 2, 3, 4)"),
        postgresql_where=sa.text("state IN (1, 2, 3, 4)"),
    )
    op.create_index(op.f("ix_gateway_deployment_create_time"), "gateway_deployment", ["create_time"], unique=False)
    op.create_index(op.f("ix_gateway_deployment_model_version"), "gateway_deployment", ["model_version"], unique=False)
    op.create_index(op.f("ix_gateway_deployment_parent"), "gateway_deployment", ["parent"], unique=False)
    op.create_index(op.f("ix_gateway_deployment_state"), "gateway_deployment", ["state"], unique=False)

    op.create_table(
        "gateway_endpoint",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(timezone=True), nullable=False),
        sa.Column("update_time", UtcTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_gateway_endpoint_create_time"), "gateway_endpoint", ["create_time"], unique=False)
    op.create_index(op.f("ix_gateway_endpoint_parent"), "gateway_endpoint", ["parent"], unique=False)
    op.create_index(op.f("ix_gateway_endpoint_state"), "gateway_endpoint", ["state"], unique=False)

    op.create_table(
        "gateway_revoked",
        sa.Column("model_version", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model_version"),
    )
    op.create_table(
        "gateway_rollout",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(timezone=True), nullable=False),
        sa.Column("update_time", UtcTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(
        "gateway_rollout_active",
        "gateway_rollout",
        ["parent"],
        unique=True,
        sqlite_where=sa.text("state IN (2, 3)"),
        postgresql_where=sa.text("state IN (2, 3)"),
    )
    op.create_index(op.f("ix_gateway_rollout_create_time"), "gateway_rollout", ["create_time"], unique=False)
    op.create_index(op.f("ix_gateway_rollout_model_version"), "gateway_rollout", ["model_version"], unique=False)
    op.create_index(op.f("ix_gateway_rollout_parent"), "gateway_rollout", ["parent"], unique=False)
    op.create_index(op.f("ix_gateway_rollout_state"), "gateway_rollout", ["state"], unique=False)

    op.create_table(
        "gateway_table",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "gateway_weights",
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model_version"),
    )
    op.create_index(op.f("ix_gateway_weights_digest"), "gateway_weights", ["digest"], unique=False)
