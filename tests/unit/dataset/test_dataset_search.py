"""How datasets are found, how secret they are, and what becomes of those that were there before there was a search."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit.rpc.errors import Invalid
from services.dataset import commands
from sluice.dataset import v1 as dataset
from tests.unit.dataset.upgrade import PROJECT, check_upgraded, found, upgraded


def create(name="d", **fields):
    wanted = dataset.Dataset(display_name=name, task_type="sft", **fields)
    return lambda unit: commands.create_dataset(unit, PROJECT, wanted)


def update(name, mask=(), **fields):
    wanted = dataset.Dataset(name=f"{PROJECT}/datasets/{name}", **fields)
    return lambda unit: commands.update_dataset(unit, wanted, FieldMask(paths=mask))


async def test_datasets_are_found_by_name_description_tags_and_schema(database):
    await database.transact(create("medical_chest_xray", description="胸片诊断报告", tags={"language": "zh"}))
    await database.transact(create("bank", modalities=["text", "image"], tags={"domain": "bank", "note": "chest"}))
    for filter, expected in {
        "诊断": ["medical_chest_xray"],
        "chest": ["medical_chest_xray", "bank"],
        "xray": ["medical_chest_xray"],
        '"medical chest xray"': ["medical_chest_xray"],
        "language": ["medical_chest_xray"],
        "image": ["bank"],
        "sft -诊断": ["bank"],
        "modalities:image AND tags.domain = bank": ["bank"],
        "display_name = bank": ["bank"],
        "pretrain": [],
    }.items():
        assert await found(database, filter) == expected, filter


async def test_a_dataset_is_internal_unless_it_is_said(database):
    created = await database.transact(create())
    secret = await database.transact(create("secret", classification=dataset.CLASSIFICATION_SENSITIVE))
    assert created.classification == dataset.CLASSIFICATION_INTERNAL
    for word in ("SENSITIVE", "sensitive", "classification_sensitive"):
        assert await found(database, f"classification = {word}") == ["secret"]
    assert await found(database, "classification != SENSITIVE") == ["d"]
    with pytest.raises(Invalid, match="one of PUBLIC, INTERNAL, SENSITIVE"):
        await found(database, "classification = SECRET")
    with pytest.raises(Invalid, match="has no order"):
        await found(database, "classification > PUBLIC")
    assert secret.classification > created.classification


async def test_who_does_not_know_of_classifications_changes_none(database):
    await database.transact(create(classification=dataset.CLASSIFICATION_SENSITIVE))
    changed = await database.transact(update("d", description="new", modalities=["text"]))
    assert (changed.description, changed.classification) == ("new", dataset.CLASSIFICATION_SENSITIVE)
    changed = await database.transact(update("d", classification=dataset.CLASSIFICATION_PUBLIC))
    assert (changed.description, changed.classification) == ("", dataset.CLASSIFICATION_PUBLIC)
    changed = await database.transact(update("d", ["classification"]))
    assert changed.classification == dataset.CLASSIFICATION_INTERNAL
    assert await found(database, "classification = INTERNAL") == ["d"]


async def test_datasets_from_before_are_found(tmp_path):
    database = await upgraded(f"sqlite:///{tmp_path / 'd.db'}", tmp_path)
    await check_upgraded(database)
    await database.close()
