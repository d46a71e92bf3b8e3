"""Datasets of a task type that the project has beside the built-in ones: the registry is asked, and once."""

import uuid
from functools import partial

import pytest

from kit.blobs import FileKek, open_store
from kit.rpc.errors import Invalid, StateConflict
from services.dataset import checks
from services.dataset.labels import Labels
from services.dataset.servicer import DatasetServicer, FeedServicer, UploadServicer
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry

PROJECT = "projects/p"
DATASET = f"{PROJECT}/datasets/chest"


class Registry:
    """What the registry says of `radiology-report`; it is asked of nothing else."""

    def __init__(self):
        self.label = registry.TaskType(
            name="radiology-report", row_schema="sft", state=registry.TASK_TYPE_STATE_APPROVED
        )

    async def GetTaskType(self, request, timeout):
        assert request.name == f"{PROJECT}/taskTypes/radiology-report"
        return registry.GetTaskTypeResponse(task_type=self.label)


@pytest.fixture
def asked():
    return Registry()


@pytest.fixture
def blobs(tmp_path):
    return open_store(f"file://{tmp_path / 'blobs'}", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))


@pytest.fixture
def datasets(database, asked):
    return DatasetServicer(database, Labels(asked))


async def create(datasets, task_type="radiology-report", **fields):
    wanted = dataset.Dataset(display_name="chest", task_type=task_type)
    request = dataset.CreateDatasetRequest(parent=PROJECT, dataset=wanted, **fields)
    return (await datasets.CreateDataset(request, None)).dataset


async def test_a_dataset_has_the_rows_of_what_its_task_type_extends(datasets, asked):
    made = await create(datasets)
    assert (made.task_type, made.row_schema) == ("radiology-report", "sft")
    plain = dataset.Dataset(display_name="plain", task_type="dpo")
    request = dataset.CreateDatasetRequest(parent=PROJECT, dataset=plain)
    assert not (await datasets.CreateDataset(request, None)).dataset.row_schema


async def test_what_is_not_approved_takes_no_rows_but_an_answer_of_before_stands(database, blobs, datasets, asked):
    asked.label.state = registry.TASK_TYPE_STATE_PROPOSED
    with pytest.raises(StateConflict, match="`radiology-report` waits for another person's approval"):
        await create(datasets)
    asked.label.state = registry.TASK_TYPE_STATE_APPROVED
    await create(datasets)
    uploads = UploadServicer(database, blobs, checks.Spare(), Recent(), labels=Labels(asked))
    feeds = FeedServicer(database, blobs, Labels(asked))
    named = dataset.CreateUploadRequest(parent=DATASET, file_name="a.jsonl", size_bytes=5)
    of_before = dataset.CreateUploadRequest(parent=DATASET, file_name="b.jsonl", size_bytes=5)
    of_before.request_id = str(uuid.uuid4())
    first = await uploads.CreateUpload(of_before, None)
    asked.label.state = registry.TASK_TYPE_STATE_RETIRED
    feed = dataset.CreateFeedRequest(parent=DATASET, feed=dataset.Feed(display_name="f"))
    for call in (partial(uploads.CreateUpload, named), partial(feeds.CreateFeed, feed)):
        with pytest.raises(StateConflict, match="was retired and takes nothing new"):
            await call(None)
    assert await uploads.CreateUpload(of_before, None) == first


async def test_the_task_type_of_an_empty_dataset_changes_with_its_rows(datasets):
    await create(datasets, "sft")

    async def change(task_type):
        wanted = dataset.Dataset(name=DATASET, task_type=task_type)
        request = dataset.UpdateDatasetRequest(dataset=wanted)
        request.update_mask.paths.append("task_type")
        return (await datasets.UpdateDataset(request, None)).dataset

    assert (await change("radiology-report")).row_schema == "sft"
    assert (await change("dpo")).row_schema == ""


async def test_without_a_registry_there_are_the_built_in_ones_alone(database):
    with pytest.raises(Invalid, match=r"`radiology-report` is not known; it is one of .* `sluice tasks list`"):
        await create(DatasetServicer(database))
