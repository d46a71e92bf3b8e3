"""Brings a database to the newest revision, and says where models and migrations differ; it writes no revision."""

from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from kit.rpc.errors import Invalid
from kit.store.database import Database
from kit.store.faults import sanitized
from kit.store.tables import KIT

KIT_VERSIONS = Path(__file__).parent / "migrations" / "versions"


async def migrate(database: Database, folder: Path | str | None = None) -> None:
    """Runs the kit's revisions and those in ``folder`` (a service's `migrations/versions`) that did not run yet.

    Replicas that start together wait for each other. Raises Invalid when the database is another service's, or was
    written by a newer release.
    """
    with sanitized():
        async with database.engine.execution_options(writes=True).begin() as connection:
            if database.postgres:
                await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('sluice.migrate'))"))
            await connection.run_sync(_upgrade, scripts(folder))
            await connection.run_sync(_claim, database.service)


def scripts(folder: Path | str | None) -> ScriptDirectory:
    """The revisions of the kit and of one service."""
    folders = [KIT_VERSIONS, *([Path(folder)] if folder else [])]
    return ScriptDirectory(str(KIT_VERSIONS.parent), version_locations=[str(each) for each in folders])


def context(connection: Connection, **options: Any) -> MigrationContext:
    """Alembic's view of the database; tables are altered by copying where SQLite cannot alter them."""
    return MigrationContext.configure(connection, opts={"render_as_batch": True, "compare_type": True, **options})


def _upgrade(connection: Connection, directory: ScriptDirectory) -> None:
    known = {script.revision for script in directory.walk_revisions()}
    unknown = set(context(connection).get_current_heads()) - known
    if unknown:
        raise Invalid(
            f"the database has revision {', '.join(sorted(unknown))}, which this release does not know; "
            "start the release that wrote it, or restore a backup"
        )
    with EnvironmentContext(
        Config(), directory, fn=lambda rev, _: directory._upgrade_revs("heads", rev)
    ) as environment:
        environment.configure(connection=connection, render_as_batch=True, transaction_per_migration=False)
        environment.run_migrations()


def _claim(connection: Connection, service: str) -> None:
    """Two services in one database would send each other's events; the first to come owns it."""
    owner = connection.scalar(text("SELECT value FROM bookmark WHERE key = 'service'"))
    if owner is None:
        connection.execute(text("INSERT INTO bookmark (key, value) VALUES ('service', :s)"), {"s": service})
    elif owner != service:
        raise Invalid(f"the database belongs to the service `{owner}`; give `{service}` a database of its own")


async def check(database: Database, metadata: MetaData) -> list[str]:
    """What a migrated database lacks of the models with the service's prefix and the kit's; empty when they agree."""
    async with database.engine.connect() as connection:
        own = await connection.run_sync(differences, metadata, f"{database.service}_")
        return own + await connection.run_sync(differences, KIT, "")


def differences(connection: Connection, metadata: MetaData, prefix: str) -> list[str]:
    """One line for each difference between the tables of a metadata and those in the database."""
    found = compare_metadata(context(connection, include_object=only(metadata, prefix)), metadata)
    return [str(each) for each in found]


def only(metadata: MetaData, prefix: str) -> Any:
    """Alembic's filter: tables with the prefix, with a model or left over; without one, the metadata's tables.

    Indexes `search_…` are made by ``text_index.install`` and stand in no model.
    """

    def include(_object: object, name: str | None, kind: str, reflected: bool, _other: object) -> bool:
        if kind != "table":
            return not (kind == "index" and str(name).startswith("search_"))
        return bool(name) and str(name).startswith(prefix) and (bool(prefix) or str(name) in metadata.tables)

    return include
