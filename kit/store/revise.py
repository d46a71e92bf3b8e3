"""``python -m kit.store.revise SERVICE "message"``: writes the migration that models and revisions differ by."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel

from kit.rpc.names import slug
from kit.store.database import Database
from kit.store.migrate import context, migrate, only

TEMPLATE = '''"""{message}."""

import sqlalchemy as sa
from alembic import op

from kit.store.tables import UtcTime

revision = "{revision}"
down_revision = {down_revision}
branch_labels = {branch_labels}
depends_on = {depends_on}


def upgrade() -> None:
    """Changes the tables."""
{body}
'''


async def revise(service: str, message: str, folder: Path) -> Path | None:
    """Compares the models of ``services.<service>.store`` with its revisions; writes the next and returns its path."""
    importlib.import_module(f"services.{service}.store")
    before = sorted(path.stem for path in folder.glob("*.py"))
    database = await Database.open("sqlite://", service=service)
    await migrate(database, folder)
    async with database.engine.connect() as connection:
        body = await connection.run_sync(_render, f"{service}_")
    await database.close()
    if not body:
        return None
    number = f"{service}_{len(before) + 1:04d}"
    path = folder / f"{len(before) + 1:04d}_{slug(message).replace('-', '_')}.py"
    last = f"{service}_{len(before):04d}"
    path.write_text(
        TEMPLATE.format(
            message=message[0].upper() + message[1:],
            revision=number,
            down_revision=repr(last) if before else None,
            branch_labels=None if before else f'("{service}",)',
            depends_on=None if before else '"kit_0001"',
            body=body,
        )
    )
    return path


def _render(connection: Connection, prefix: str) -> str:
    """The code of the differences; empty when there are none."""
    migration: MigrationContext = context(connection, include_object=only(SQLModel.metadata, prefix))
    operations = produce_migrations(migration, SQLModel.metadata).upgrade_ops
    if operations is None or operations.is_empty():
        return ""
    code = render_python_code(operations, migration_context=migration, render_as_batch=False)
    lines = [line for line in code.splitlines() if not line.strip().startswith("# ###")]
    own = "\n".join(lines).replace("kit.store.tables.UtcTime(timezone=True)", "UtcTime()")
    return own.replace("UtcTime(timezone=True)", "UtcTime()").replace("sqlmodel.sql.sqltypes.AutoString", "sa.String")


async def _main(service: str, message: str) -> str:
    path = await revise(service, message, Path("services") / service / "migrations" / "versions")
    return f"wrote {path}; read it before you commit it" if path else "models and revisions agree"


if __name__ == "__main__":
    import asyncio

    if len(sys.argv) != 3:
        sys.exit('usage: python -m kit.store.revise SERVICE "what changes"')
    sys.stdout.write(asyncio.run(_main(*sys.argv[1:])) + "\n")
