"""Writes a service's next migration from its models: `python -m kit.store.revise trainer "add a priority"`."""

import argparse
import asyncio
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations.ops import MigrationScript
from alembic.util import rev_id
from sqlalchemy import Connection, MetaData
from sqlmodel import SQLModel

from kit.store.database import Database
from kit.store.migrate import context, migrate, only, scripts
from kit.store.tables import UtcTime
from kit.store.text_index import Terms

TEMPLATE = '''"""{message}"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

from kit.store.tables import UtcTime{more}

revision = "{revision}"
down_revision = {down_revision!r}
branch_labels = {labels!r}
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    {body}
'''


async def revise(service: str, message: str, folder: Path, metadata: MetaData) -> Path | None:
    """Writes the revision that brings the tables `<service>_*` from the last revision to the models.

    None when they agree already. Read the file before it is committed: a renamed column looks like two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    database = await Database.open("sqlite://", service=service)
    try:
        await migrate(database, folder)
        async with database.engine.connect() as connection:
            script = await connection.run_sync(_compare, metadata, f"{service}_")
    finally:
        await database.close()
    if script.upgrade_ops is None or script.upgrade_ops.is_empty():
        return None
    own = [each for each in scripts(folder).walk_revisions() if Path(each.path).parent == folder.resolve()]
    revision = f"{service}_{len(own) + 1:04}"
    body = render_python_code(script.upgrade_ops, render_as_batch=True, render_item=_render)
    path = folder / f"{len(own) + 1:04}_{_words(message)}.py"
    path.write_text(
        TEMPLATE.format(
            message=message if message.endswith(".") else f"{message}.",
            revision=revision,
            down_revision=own[0].revision if own else None,
            labels=None if own else (service,),
            body=body,
            more="\nfrom kit.store.text_index import Terms" if "Terms()" in body else "",
        )
    )
    return path


def _compare(connection: Connection, metadata: MetaData, prefix: str) -> MigrationScript:
    return produce_migrations(context(connection, include_object=only(metadata, prefix)), metadata)


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    own = kind == "type" and isinstance(item, UtcTime | Terms)
    return f"{type(item).__name__}()" if own else False


def _words(message: str) -> str:
    return "_".join("".join(char if char.isalnum() else " " for char in message.lower()).split())[:40] or rev_id()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m kit.store.revise", description=__doc__)
    parser.add_argument("service")
    parser.add_argument("message", help="what changes, such as `add a priority to jobs`")
    arguments = parser.parse_args()
    found = importlib.util.find_spec(f"services.{arguments.service}")
    if found is None or found.origin is None:
        parser.error(f"there is no service `{arguments.service}` under services/")
    importlib.import_module(f"services.{arguments.service}.app")  # which has all that has tables
    folder = Path(found.origin).parent / "migrations" / "versions"
    path = asyncio.run(revise(arguments.service, arguments.message, folder, SQLModel.metadata))
    sys.stdout.write(f"wrote {path}\n" if path else "models and migrations agree; nothing was written\n")


if __name__ == "__main__":
    main()
