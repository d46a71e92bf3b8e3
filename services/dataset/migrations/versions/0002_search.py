"""Datasets are found by words, tags and classification."""

from datetime import UTC

import sqlalchemy as sa
from alembic import op

from kit.store import text_index
from kit.store.tables import UtcTime
from kit.store.text_index import Terms, microseconds
from services.dataset import store
from sluice.dataset import v1 as dataset

revision = "dataset_0002"
down_revision = "dataset_0001"
branch_labels = None
depends_on = None

AT_A_TIME = 500
TABLE = sa.table(
    "dataset_dataset",
    sa.column("name", sa.String),
    sa.column("parent", sa.String),
    sa.column("task_type", sa.String),
    sa.column("display_name", sa.String),
    sa.column("create_time", UtcTime),
    sa.column("body", sa.LargeBinary),
    sa.column("position", sa.BigInteger),
    sa.column("terms", Terms),
)


def upgrade() -> None:
    """Adds the columns, fills them for the datasets that are there, and makes the index."""
    op.add_column("dataset_dataset", sa.Column("position", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("dataset_dataset", sa.Column("terms", Terms(), nullable=False, server_default=""))
    fill(op.get_bind())
    op.create_index("ix_dataset_dataset_page", "dataset_dataset", ["parent", "position", "name"])
    op.create_index("ix_dataset_dataset_position", "dataset_dataset", ["position", "name"])
    text_index.install(op.get_bind(), "dataset_dataset")


def fill(connection: sa.Connection) -> None:
    """Terms, places in the order of making, and a classification, which was not there before."""
    names = connection.scalars(sa.select(TABLE.c.name).order_by(TABLE.c.create_time, TABLE.c.name)).all()
    columns = [each for each in TABLE.c if each.name not in ("position", "terms")]
    change, last = sa.update(TABLE).where(TABLE.c.name == sa.bindparam("row_name")), 0
    for begin in range(0, len(names), AT_A_TIME):
        some = names[begin : begin + AT_A_TIME]
        rows = {row.name: row for row in connection.execute(sa.select(*columns).where(TABLE.c.name.in_(some)))}
        filled = []
        for row in (rows[name] for name in some):
            message = dataset.Dataset.FromString(row.body)
            message.classification = message.classification or dataset.CLASSIFICATION_INTERNAL
            last = max(last + 1, microseconds(row.create_time.astimezone(UTC)))
            values = {"parent": row.parent, "task_type": row.task_type, "display_name": row.display_name}
            terms = store.DATASETS.search.terms(message, values)
            body = message.SerializeToString(deterministic=True)
            filled.append({"row_name": row.name, "position": last, "terms": terms, "body": body})
        connection.execute(change, filled)
