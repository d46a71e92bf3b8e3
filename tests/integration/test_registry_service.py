"""The registry as it runs beside another service: keys arrive there, versions are imported, pages are told."""

import asyncio
import hashlib
import json
import struct

import grpc
import pytest

import tasks
from kit.blobs import manifest_digest
from kit.rpc.errors import Denied, Invalid, NotFound, StateConflict
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.integration.uploads import Uploads, chunks, fault_of, jsonl


@pytest.fixture
async def channel(running):
    async with running.channel("registry") as opened:
        yield opened


async def code_of(running, secret, project):
    """What the dataset service says to a key."""
    async with running.channel("dataset", secret) as opened:
        try:
            await dataset.DatasetServiceStub(opened).ListDatasets(dataset.ListDatasetsRequest(parent=project))
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def until(running, secret, project, code):
    async with asyncio.timeout(20):
        while await code_of(running, secret, project) != code:
            pass


async def test_a_key_works_elsewhere_soon_and_is_refused_as_soon(running, channel, project, keys):
    name, secret = await keys(types.ROLE_AUDITOR)
    await until(running, secret, project, grpc.StatusCode.OK)
    stub = registry.ApiKeyServiceStub(channel)
    await stub.RevokeApiKey(registry.RevokeApiKeyRequest(name=name))
    await until(running, secret, project, grpc.StatusCode.UNAUTHENTICATED)
    listed = await stub.ListApiKeys(registry.ListApiKeysRequest(parent=project))
    assert secret not in str(listed) and listed.api_keys[0].HasField("revoke_time")


async def test_no_key_and_a_wrong_key_are_told_apart(running, project):
    async with grpc.aio.insecure_channel(running.address("dataset")) as bare:
        call = dataset.DatasetServiceStub(bare).ListDatasets(dataset.ListDatasetsRequest(parent=project))
        assert (await fault_of(call)).reason == errors.ERROR_REASON_MISSING_CREDENTIALS
    async with running.channel("dataset", "sk-sluice-guessed") as other:
        call = dataset.DatasetServiceStub(other).ListDatasets(dataset.ListDatasetsRequest(parent=project))
        assert (await fault_of(call)).reason == errors.ERROR_REASON_INVALID_CREDENTIALS


async def test_an_administrator_of_a_project_gives_keys_there_and_sees_no_other(running, project, keys):
    _, secret = await keys(types.ROLE_ADMIN)
    async with running.channel("registry", secret) as mine:
        stub = registry.ApiKeyServiceStub(mine)
        for where, may in ((project, True), ("projects/-", False), ("projects/default", False)):
            key = registry.ApiKey(display_name=f"for {where}")
            key.role_bindings.add(project=where, role=types.ROLE_INFERENCE)
            call = stub.CreateApiKey(registry.CreateApiKeyRequest(parent=project, api_key=key))
            assert (await call).secret if may else isinstance(await fault_of(call), Denied)
        projects = registry.ProjectServiceStub(mine)
        listed = (await projects.ListProjects(registry.ListProjectsRequest())).projects
        assert [each.name for each in listed] == [project]
        # The second names the caller's project where it decides nothing.
        for named in ({"display_name": "mine too"}, {"name": project, "display_name": "mine too"}):
            wanted = registry.CreateProjectRequest(project=registry.Project(**named))
            assert isinstance(await fault_of(projects.CreateProject(wanted)), Denied)
        assert isinstance(
            await fault_of(projects.GetProject(registry.GetProjectRequest(name="projects/default"))), Denied
        )
        me = await stub.WhoAmI(registry.WhoAmIRequest())
        assert me.role_bindings[0].project == project and me.role_bindings[0].role == types.ROLE_ADMIN


async def test_the_hashes_of_all_keys_are_not_for_the_administrator_of_one_project(running, keys):
    _, secret = await keys(types.ROLE_ADMIN)
    async with running.channel("registry", secret) as mine:
        call = registry.AccessServiceStub(mine).WatchAccess(registry.WatchAccessRequest())
        assert isinstance(await fault_of(call.read()), Denied)


@pytest.mark.parametrize("size", [1, 2, 50])
async def test_pages_of_policies_hold_no_more_than_was_asked(channel, project, size):
    stub = registry.GatePolicyServiceStub(channel)
    policy = registry.GatePolicy(criteria=[registry.Criterion(metric="f1", at_least=0.5)])
    await stub.CreateGatePolicy(
        registry.CreateGatePolicyRequest(parent=project, gate_policy_id="mine", gate_policy=policy)
    )
    names, token = [], ""
    while True:
        request = registry.ListGatePoliciesRequest(parent=project, page_size=size, page_token=token)
        answer = await stub.ListGatePolicies(request)
        assert len(answer.gate_policies) <= size
        names += [each.name.rsplit("/", 1)[-1] for each in answer.gate_policies]
        if not (token := answer.next_page_token):
            break
    assert names == sorted(["mine", *tasks.gate_policies()])


async def test_a_mistyped_task_type_gets_the_nearest(channel):
    call = registry.TaskTypeServiceStub(channel).GetTaskType(registry.GetTaskTypeRequest(name="taskTypes/pretain"))
    fault = await fault_of(call)
    assert isinstance(fault, NotFound) and "did you mean `pretrain`?" in fault.message


def weights(mark=0):
    text = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes([mark] * 4)


def importing(project, content, kind=types.ARTIFACT_KIND_FULL):
    file = types.ArtifactFile(
        path="model.safetensors", digest=f"sha256:{hashlib.sha256(content).hexdigest()}", size_bytes=len(content)
    )
    artifact = types.Artifact(kind=kind, files=[file], digest=manifest_digest([file]))
    header = registry.ImportHeader(
        parent=f"{project}/models/m", artifact=artifact, dataset_version=f"{project}/datasets/d/versions/1"
    )
    return [registry.ImportModelVersionRequest(header=header), registry.ImportModelVersionRequest(chunk=content)]


async def test_weights_are_imported_once_and_watched(running, channel, project):
    model = registry.Model(display_name="m", task_type="sft")
    await registry.ModelServiceStub(channel).CreateModel(registry.CreateModelRequest(parent=project, model=model))
    stub = registry.ModelVersionServiceStub(channel)
    first, again, other = [
        (await stub.ImportModelVersion(iter(importing(project, weights(mark))))).model_version for mark in (1, 1, 2)
    ]
    assert first == again and (first.version, other.version) == (1, 2)
    assert first.lineage.recipe == "import" and first.gate_policy == "no-regression"
    watching = stub.WatchModelVersion(registry.WatchModelVersionRequest(name=first.name))
    assert (await watching.read()).model_version.state == registry.MODEL_VERSION_STATE_PENDING
    revoke = registry.RevokeModelVersionRequest(name=first.name, reason="wrong file")
    await stub.RevokeModelVersion(revoke)
    seen = await asyncio.wait_for(watching.read(), 20)
    assert seen.model_version.state == registry.MODEL_VERSION_STATE_REVOKED
    watching.cancel()
    assert list((running.home / "run" / "imports").iterdir()) == []
    page = await stub.ListModelVersions(registry.ListModelVersionsRequest(parent=f"{project}/models/-"))
    assert [each.version for each in page.model_versions] == [2, 1]


async def test_an_import_names_no_rows_and_no_base_of_another_project(channel, project):
    for field in ("dataset_version", "base_model_version"):
        messages = importing(project, weights())
        kind = {"dataset_version": "datasets/d", "base_model_version": "models/b"}[field]
        setattr(messages[0].header, field, f"projects/default/{kind}/versions/1")
        fault = await fault_of(registry.ModelVersionServiceStub(channel).ImportModelVersion(iter(messages)))
        assert isinstance(fault, Invalid) and fault.violations[0][0] == f"header.{field}"


async def test_pickles_and_headless_imports_are_refused(channel, project):
    model = registry.Model(display_name="m", task_type="sft")
    await registry.ModelServiceStub(channel).CreateModel(registry.CreateModelRequest(parent=project, model=model))
    stub = registry.ModelVersionServiceStub(channel)
    parts = importing(project, weights())
    fault = await fault_of(stub.ImportModelVersion(iter(importing(project, b"\x80\x04K\x01."))))
    assert fault.reason == errors.ERROR_REASON_MODEL_REJECTED
    assert isinstance(await fault_of(stub.ImportModelVersion(iter(parts[1:]))), Denied | Invalid)
    parts[0].header.artifact.files[0].path = "../../etc/model.safetensors"
    assert isinstance(await fault_of(stub.ImportModelVersion(iter(parts))), Invalid)


async def test_rows_come_in_under_a_label_that_another_person_approved_until_it_is_retired(running, project, keys):
    label = f"{project}/taskTypes/radiology-report"
    (_, ana), (ben, approver) = await keys(types.ROLE_ALGORITHM), await keys(types.ROLE_APPROVER)
    await until(running, ana, project, grpc.StatusCode.OK)
    wanted = registry.TaskType(extends="sft", metrics=["rouge_l", "exact_match"], suite_max_rows=9)
    propose = registry.CreateTaskTypeRequest(parent=project, task_type_id="radiology-report", task_type=wanted)
    async with running.channel("registry", ana) as mine, running.channel("registry", approver) as other:
        desk, theirs = registry.TaskTypeServiceStub(mine), registry.TaskTypeServiceStub(other)
        assert isinstance(await fault_of(theirs.CreateTaskType(propose)), Denied)
        proposed = (await desk.CreateTaskType(propose)).task_type
        assert proposed.state == registry.TASK_TYPE_STATE_PROPOSED
        assert isinstance(await fault_of(theirs.ApproveTaskType(registry.ApproveTaskTypeRequest(name=label))), Invalid)
        approve = registry.ApproveTaskTypeRequest(name=label, etag=proposed.etag)
        assert isinstance(await fault_of(desk.ApproveTaskType(approve)), Denied)
        async with running.channel("dataset", ana) as channel:
            sets = dataset.DatasetServiceStub(channel)
            rows = dataset.Dataset(display_name="d", task_type="radiology-report")
            create = dataset.CreateDatasetRequest(parent=project, dataset=rows)
            assert isinstance(await fault_of(sets.CreateDataset(create)), StateConflict)
            assert (await theirs.ApproveTaskType(approve)).task_type.approval.principal == ben
            assert (await sets.CreateDataset(create)).dataset.row_schema == "sft"
            sending, content = Uploads(channel, project), jsonl(3)
            upload = await sending.open(content)
            await sending.write(*chunks(upload.name, content))
            await theirs.RetireTaskType(registry.RetireTaskTypeRequest(name=label, reason="over"))
            done = await sending.commit(upload.name)
            assert done.state == dataset.UPLOAD_STATE_COMMITTED, done
            assert isinstance(await fault_of(sending.open(jsonl(4))), StateConflict)
        listed = await desk.ListTaskTypes(registry.ListTaskTypesRequest(parent=project))
        assert label in [each.name for each in listed.task_types] and len(listed.task_types) > 2
        bare = registry.ListTaskTypesRequest()
        assert label not in [each.name for each in (await desk.ListTaskTypes(bare)).task_types]
        stranger = registry.GetTaskTypeRequest(name="projects/default/taskTypes/sft")
        assert isinstance(await fault_of(desk.GetTaskType(stranger)), Denied)
