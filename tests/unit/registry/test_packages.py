"""What an export leads to: whole weights become a version that names its source, a package none."""

import pytest
from test_registry_commands import PROJECT, artifact, finished

import services.registry
from kit.rpc.errors import Invalid, NotFound
from services.registry import commands, store
from services.registry.catalog import Catalog
from services.registry.imports import check_header
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.migrated import migrated

SOURCE = f"{PROJECT}/models/adapter/versions/1"


@pytest.fixture
async def database():
    opened = await migrated(services.registry)
    await opened.transact(lambda unit: commands.first_start(unit, "00" * 32))
    yield opened
    await opened.close()


async def exported(database, kind, mark):
    event = finished(job=mark, mark=mark)
    event.spec.base_model_version = SOURCE
    event.spec.export.CopyFrom(trainer.ExportRecipe(format=trainer.EXPORT_FORMAT_ONNX))
    event.result.artifact.CopyFrom(artifact(mark, kind))
    event.result.artifact.files.add(path="a", digest=event.result.artifact.digest, size_bytes=1)
    await database.transact(lambda unit: commands.register_training(unit, Catalog.built_in(), event))


async def test_a_package_becomes_no_version_and_weights_become_one_that_names_its_source(database):
    await exported(database, types.ARTIFACT_KIND_PACKAGE, "p")
    async with database.read() as session:
        with pytest.raises(NotFound):
            await store.get_version(session, f"{PROJECT}/models/bank/versions/1")
    await exported(database, types.ARTIFACT_KIND_FULL, "w")
    async with database.read() as session:
        version = await store.get_version(session, f"{PROJECT}/models/bank/versions/1")
    assert version.lineage.source_model_version == SOURCE and version.lineage.recipe == "export"
    assert not version.base_model_version and version.state == registry.MODEL_VERSION_STATE_PENDING


def test_a_package_cannot_be_imported():
    header = registry.ImportHeader(artifact=types.Artifact(kind=types.ARTIFACT_KIND_PACKAGE))
    with pytest.raises(Invalid, match="is no version of a model"):
        check_header(header)
