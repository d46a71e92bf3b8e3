"""Owners, grants and the record of reads; erasures and their tombstones; which models saw which rows."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "dataset_0006"
down_revision = "dataset_0005"
branch_labels = None
depends_on = None

RESOURCE = (
    ("name", sa.String),
    ("parent", sa.String),
    ("state", sa.Integer),
    ("revision", sa.Integer),
    ("create_time", UtcTime),
    ("update_time", UtcTime),
    ("body", sa.LargeBinary),
)


def upgrade() -> None:
    """Changes the tables."""
    for name, kind, default in (("owner", sa.String(), ""), ("access", sa.Integer(), "0")):
        op.add_column("dataset_dataset", sa.Column(name, kind, nullable=False, server_default=default))
        op.create_index(f"ix_dataset_dataset_{name}", "dataset_dataset", [name])
    op.add_column("dataset_dataset", sa.Column("retention_days", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_dataset_dataset_retention_days", "dataset_dataset", ["retention_days"])
    resource("dataset_erasure", ("dry_run", sa.Boolean))
    index("dataset_erasure", "dry_run")
    resource("dataset_grant", ("grantee", sa.String), ("right", sa.Integer))
    index("dataset_grant", "grantee")
    table("dataset_salt", 1, ("dataset", sa.String), ("salt", sa.String))
    table("dataset_forgotten", 3, ("dataset", sa.String), ("digest", sa.String), ("erasure", sa.String))
    table("dataset_model", 1, ("model_version", sa.String), ("base", sa.String), ("time", UtcTime))
    index("dataset_model", "base")
    keys = (("model_version", sa.String), ("dataset_version", sa.String), ("source", sa.String))
    told = (("dataset", sa.String), ("seen", sa.Integer), ("dataset_digest", sa.String), ("time", UtcTime))
    table("dataset_use", 3, *keys, *told)
    index("dataset_use", "dataset")
    table("dataset_job", 1, ("job", sa.String), ("dataset_version", sa.String))
    index("dataset_job", "dataset_version")
    who = (("principal", sa.String), ("action", sa.String), ("traceparent", sa.String), ("time", UtcTime))
    table("dataset_read", 1, ("id", sa.String), ("dataset", sa.String), ("resource", sa.String), *who)
    for name in ("dataset", "resource", "time"):
        index("dataset_read", name)
    much = (("outcome", sa.Integer), ("rows", sa.BigInteger), ("size_bytes", sa.BigInteger), ("time", UtcTime))
    table("dataset_read_end", 1, ("id", sa.String), *much)
    only_append(op.get_bind(), "dataset_read", "dataset_read_end")


def resource(name: str, *own: tuple[str, type[sa.types.TypeEngine[Any]]]) -> None:
    """A table of resources."""
    table(name, 1, *RESOURCE, *own)
    for column in ("create_time", "parent", "state"):
        index(name, column)


def table(name: str, keys: int, *columns: tuple[str, type[sa.types.TypeEngine[Any]]]) -> None:
    """A table whose first ``keys`` columns are its key."""
    made = [sa.Column(column, kind(), nullable=False) for column, kind in columns]
    op.create_table(name, *made, sa.PrimaryKeyConstraint(*(column for column, _ in columns[:keys])))


def index(name: str, column: str) -> None:
    """What the models call an index."""
    op.create_index(op.f(f"ix_{name}_{column}"), name, [column], unique=False)


def only_append(connection: sa.Connection, *tables: str) -> None:
    """What stands in the record is neither changed nor deleted."""
    postgres = connection.dialect.name == "postgresql"
    if postgres:
        op.execute(
            "CREATE FUNCTION dataset_only_append() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the record of reads is append-only'; END $$"
        )
    for name in tables:
        for change in ("UPDATE", "DELETE"):
            trigger = f"CREATE TRIGGER {name}_no_{change.lower()} BEFORE {change} ON {name}"
            if postgres:
                op.execute(f"{trigger} FOR EACH ROW EXECUTE FUNCTION dataset_only_append()")
            else:
                op.execute(f"{trigger} BEGIN SELECT RAISE(ABORT, 'the record of reads is append-only'); END")
