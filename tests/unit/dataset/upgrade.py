"""A database of the first release, with datasets in it, that is brought up to date."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from google.protobuf.field_mask_pb2 import FieldMask

from kit.store import Database, UtcTime, check, migrate
from services import dataset as service
from services.dataset import app, commands, store
from sluice.dataset import v1 as dataset

PROJECT = "projects/p"
VERSIONS = Path(service.__file__).parent / "migrations" / "versions"
FIRST = sa.table(
    "dataset_dataset",
    *(sa.column(name, sa.String) for name in ("name", "parent", "task_type", "display_name")),
    *(sa.column(name, sa.Integer) for name in ("state", "revision")),
    *(sa.column(name, UtcTime) for name in ("create_time", "update_time")),
    sa.column("body", sa.LargeBinary),
)
#: By id; the last two were made in one instant.
SHOWN = {"c": "胸片诊断", "a": "same", "b": "same too"}


async def upgraded(url: str, folder: Path) -> Database:
    """The open database; ``folder`` is an empty one."""
    shutil.copy(VERSIONS / "0001_first_tables.py", folder)
    database = await Database.open(url, service="dataset")
    await migrate(database, folder)
    async with database.engine.execution_options(writes=True).begin() as connection:
        for number, (id_, shown) in enumerate(SHOWN.items()):
            old = dataset.Dataset(
                name=f"{PROJECT}/datasets/{id_}", display_name=shown, task_type="sft", tags={"language": "zh"}
            )
            at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=min(number, 1))
            row = {"name": old.name, "parent": PROJECT, "task_type": "sft", "display_name": shown}
            row |= {"state": 0, "revision": 3, "create_time": at, "update_time": at, "body": old.SerializeToString()}
            await connection.execute(sa.insert(FIRST), row)
    await migrate(database, VERSIONS)
    return database


async def found(database: Database, filter: str) -> list[str]:
    """The display names of what a filter finds, in order."""
    async with database.read() as session:
        page, _ = await store.DATASETS.page(session, parent=PROJECT, filter=filter)
    return [each.display_name for each in page]


async def check_upgraded(database: Database) -> None:
    """Everything is found, in its order, and stays so when it changes."""
    assert app.application  # which brings in every module that has tables
    assert await check(database, store.DatasetRow.metadata) == []
    assert await found(database, "诊断 classification = INTERNAL") == ["胸片诊断"]
    assert await found(database, "tags.language = zh") == await found(database, "") == list(SHOWN.values())
    new = dataset.Dataset(display_name="newest", task_type="sft", tags={"language": "zh"})
    await database.transact(lambda unit: commands.create_dataset(unit, PROJECT, new))
    changed = dataset.Dataset(name=f"{PROJECT}/datasets/a", tags={"language": "en"})
    await database.transact(lambda unit: commands.update_dataset(unit, changed, FieldMask(paths=["tags"])))
    assert await found(database, "tags.language = zh") == ["胸片诊断", "same too", "newest"]
    async with database.read() as session:
        assert (await store.DATASETS.get(session, f"{PROJECT}/datasets/c")).etag == "3"
