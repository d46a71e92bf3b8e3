"""Datasets looked for over gRPC, as every client does it."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit.rpc.errors import Invalid
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from tests.integration.uploads import fault_of

SHELF = (
    dataset.Dataset(display_name="chest_xray", description="胸片诊断报告", task_type="sft", tags={"language": "zh"}),
    dataset.Dataset(display_name="bank", task_type="sft", classification=dataset.CLASSIFICATION_SENSITIVE),
    dataset.Dataset(display_name="corpus", task_type="pretrain", tags={"language": "zh", "domain": "medical"}),
)


@pytest.fixture
async def shelf(running, project):
    """Asks for datasets of the test's project by a filter."""
    async with running.channel("dataset") as channel:
        stub = dataset.DatasetServiceStub(channel)
        for each in SHELF:
            await stub.CreateDataset(dataset.CreateDatasetRequest(parent=project, dataset=each))

        def asked(filter, **more):
            return stub.ListDatasets(dataset.ListDatasetsRequest(parent=project, filter=filter, **more))

        yield stub, asked


async def test_datasets_are_found_and_kept_up_to_date(shelf, project):
    stub, asked = shelf

    async def found(filter):
        return [each.display_name for each in (await asked(filter)).datasets]

    assert await found("诊断") == ["chest_xray"]
    assert await found('tags.language = "zh" AND NOT chest') == ["corpus"]
    assert await found("classification = SENSITIVE") == ["bank"]
    assert await found("(task_type = sft OR tags:domain) create_time > 2026-01-01T00:00:00Z") == [
        each.display_name for each in SHELF
    ]
    changed = dataset.Dataset(name=f"{project}/datasets/bank", description="胸部诊断")
    request = dataset.UpdateDatasetRequest(dataset=changed, update_mask=FieldMask(paths=["description"]))
    assert (await stub.UpdateDataset(request)).dataset.classification == dataset.CLASSIFICATION_SENSITIVE
    assert await found("诊断") == ["chest_xray", "bank"]
    page = await asked("tags:language", page_size=1)
    assert [each.display_name for each in page.datasets] == ["chest_xray"]
    page = await asked("tags:language", page_size=1, page_token=page.next_page_token)
    assert [each.display_name for each in page.datasets] == ["corpus"] and not page.next_page_token


async def test_what_cannot_be_looked_for_is_refused_with_the_reason(shelf):
    _, asked = shelf
    for filter in ('" OR 1=1', "a\0b", "x" * 1001, "🚀", "((" * 300, "tags > a", "classification = SECRET", "name = x"):
        fault = await fault_of(asked(filter))
        assert (type(fault), fault.reason) == (Invalid, errors.ERROR_REASON_INVALID_FILTER), filter
