"""A gRPC server that says what a test tells it to: generated servicers over messages in dicts, no suite behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_status import rpc_status

from kit.rpc.errors import Corrupt, Fault, Invalid, NotFound, StateConflict, to_status
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer


@dataclass
class Script:
    """What the server knows, and what it was asked."""

    datasets: dict[str, dataset.Dataset] = field(default_factory=dict)
    versions: dict[str, dataset.DatasetVersion] = field(default_factory=dict)
    uploads: dict[str, dataset.Upload] = field(default_factory=dict)
    upload_of_request: dict[str, str] = field(default_factory=dict)
    received: dict[str, bytearray] = field(default_factory=dict)
    rows: bytes = b""
    #: A WriteUpload breaks with UNAVAILABLE after so many chunks, once for each entry.
    breaks: list[int] = field(default_factory=list)
    feed: dataset.Feed = field(default_factory=dataset.Feed)
    #: Called before each answer about the feed.
    looked_at_feed: Callable[[], None] = lambda: None
    #: The offset of the first chunk of each WriteUpload.
    starts: list[int] = field(default_factory=list)
    #: How many bytes of an upload a watch has told of, by name, and how many more than that had come, at most.
    told_bytes: dict[str, int] = field(default_factory=dict)
    most_untold: int = 0
    #: The bytes of assets, by digest, and how often each came.
    assets: dict[str, bytes] = field(default_factory=dict)
    asset_counts: dict[str, int] = field(default_factory=dict)
    #: The sizes of the pieces that each WriteAssets brought.
    asset_streams: list[list[int]] = field(default_factory=list)
    #: A WriteAssets breaks with UNAVAILABLE after so many pieces, once for each entry.
    asset_breaks: list[int] = field(default_factory=list)
    #: How the checks of the next uploads end; empty means a version is made.
    refusals: list[dataset.Upload] = field(default_factory=list)
    jobs: dict[str, trainer.TrainingJob] = field(default_factory=dict)
    plan: trainer.TrainingPlan = field(default_factory=trainer.TrainingPlan)
    job_snapshots: list[trainer.TrainingJob] = field(default_factory=list)
    #: A watch breaks with UNAVAILABLE after so many snapshots, once for each entry.
    watch_breaks: list[int] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    #: What a job left, by path.
    files: dict[str, bytes] = field(default_factory=dict)
    #: By the name of a job.
    steps: dict[str, list[trainer.TrainingStep]] = field(default_factory=dict)
    models: dict[str, registry.Model] = field(default_factory=dict)
    model_versions: dict[str, registry.ModelVersion] = field(default_factory=dict)
    imported: list[Any] = field(default_factory=list)
    #: The projects that were asked which files they have.
    asked_for_files: list[str] = field(default_factory=list)
    evaluations: dict[str, evaluator.Evaluation] = field(default_factory=dict)
    evaluation_rows: list[evaluator.EvaluationRow] = field(default_factory=list)
    endpoints: dict[str, gateway.Endpoint] = field(default_factory=dict)
    rollouts: dict[str, gateway.Rollout] = field(default_factory=dict)
    rollout_snapshots: list[gateway.Rollout] = field(default_factory=list)
    deployments: list[gateway.Deployment] = field(default_factory=list)
    #: Reads of model versions, and lists of rollouts, that come too early to find one.
    too_early: int = 0
    events: dict[str, list[events.Event]] = field(default_factory=dict)
    dead_letters: list[events.DeadLetter] = field(default_factory=list)
    damaged: list[dataset.DamagedBlob] = field(default_factory=list)
    scrub: dataset.Scrub = field(default_factory=dataset.Scrub)
    policies: dict[str, registry.GatePolicy] = field(default_factory=dict)
    task_types: dict[str, registry.TaskType] = field(default_factory=dict)
    keys: dict[str, registry.ApiKey] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    #: Raised by the rpcs named here.
    faults: dict[str, Fault] = field(default_factory=dict)


async def refuse(context: Any, fault: Fault) -> None:
    await context.abort_with_status(rpc_status.to_status(to_status(fault)))


async def found(context: Any, known: dict[str, Any], name: str, kind: str) -> Any:
    if name not in known:
        await refuse(context, NotFound(f"{kind} `{name}` does not exist", resource=(kind, name)))
    return known[name]


def page(known: dict[str, Any], request: Any) -> tuple[list[Any], str]:
    begin = int(request.page_token or 0)
    end = begin + (request.page_size or 50)
    items = list(known.values())
    return items[begin:end], str(end) if end < len(items) else ""


class Datasets(dataset.DatasetServiceServicer, dataset.DatasetVersionServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateDataset(self, request: Any, context: Any) -> Any:
        made = dataset.Dataset()
        made.CopyFrom(request.dataset)
        made.name = f"{request.parent}/datasets/{request.dataset.display_name.replace('_', '-')}"
        self.script.datasets[made.name] = made
        return dataset.CreateDatasetResponse(dataset=made)

    async def GetDataset(self, request: Any, context: Any) -> Any:
        return dataset.GetDatasetResponse(dataset=await found(context, self.script.datasets, request.name, "dataset"))

    async def ListDatasets(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        items, token = page(self.script.datasets, request)
        return dataset.ListDatasetsResponse(datasets=items, next_page_token=token)

    async def UpdateDataset(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        known = self.script.datasets[request.dataset.name]
        request.update_mask.MergeMessage(request.dataset, known, True, True)
        return dataset.UpdateDatasetResponse(dataset=known)

    async def GetDatasetVersion(self, request: Any, context: Any) -> Any:
        name = request.name
        if name.endswith("/latest"):
            name = max((each for each in self.script.versions if each.startswith(name[:-6])), default=name)
        version = await found(context, self.script.versions, name, "dataset version")
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def ListDatasetVersions(self, request: Any, context: Any) -> Any:
        known = {name: each for name, each in self.script.versions.items() if name.startswith(f"{request.parent}/")}
        return dataset.ListDatasetVersionsResponse(dataset_versions=list(known.values())[::-1])

    async def ReadDatasetVersion(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for line in self.script.rows.splitlines(keepends=True):
            yield dataset.ReadDatasetVersionResponse(rows=line)


class Assets(dataset.AssetServiceServicer):
    """Every piece is a whole asset."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def NameAssets(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        missing = {each.digest for each in request.assets} - set(self.script.assets)
        return dataset.NameAssetsResponse(missing_digests=sorted(missing))

    async def WriteAssets(self, requests: Any, context: Any) -> Any:
        script, count = self.script, 0
        limit = script.asset_breaks.pop(0) if script.asset_breaks else None
        script.asset_streams.append(brought := [])
        async for request in requests:
            if limit == count:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            brought.append(len(request.data))
            script.assets[request.digest] = request.data
            script.asset_counts[request.digest] = script.asset_counts.get(request.digest, 0) + 1
            count += 1
        return dataset.WriteAssetsResponse(asset_count=count)


class Uploads(dataset.UploadServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script
        self.moved = asyncio.Event()

    async def CreateUpload(self, request: Any, context: Any) -> Any:
        script = self.script
        if request.request_id not in script.upload_of_request:
            name = f"{request.parent}/uploads/u{len(script.uploads) + 1}"
            script.upload_of_request[request.request_id] = name
            script.uploads[name] = dataset.Upload(
                name=name, state=dataset.UPLOAD_STATE_OPEN, file_name=request.file_name,
                size_bytes=request.size_bytes, digest=request.digest, demands=request.demands,
            )  # fmt: skip
            script.received[name] = bytearray()
        first = dataset.Upload(name=script.upload_of_request[request.request_id], state=dataset.UPLOAD_STATE_OPEN)
        made = script.uploads[first.name].dataset_version
        if any(made in blob.dataset_versions for blob in script.damaged):
            await refuse(context, Corrupt(f"`{made}` is damaged; upload the file again"))
        return dataset.CreateUploadResponse(upload=first)

    async def GetUpload(self, request: Any, context: Any) -> Any:
        return dataset.GetUploadResponse(upload=await found(context, self.script.uploads, request.name, "upload"))

    async def WriteUpload(self, requests: Any, context: Any) -> Any:
        script, upload, count = self.script, dataset.Upload(), 0
        limit = script.breaks.pop(0) if script.breaks else None
        async for request in requests:
            if limit == count:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            upload = script.uploads[request.name] if request.name else upload
            stored = script.received[upload.name]
            if upload.state != dataset.UPLOAD_STATE_OPEN:
                await refuse(context, StateConflict("takes no bytes"))
            if request.offset != len(stored):
                wrong = StateConflict("wrong offset", reason=errors.ERROR_REASON_WRONG_OFFSET)
                await refuse(context, wrong)
            script.starts += [request.offset] * (count == 0)
            stored += request.data
            upload.committed_bytes = len(stored)
            script.most_untold = max(script.most_untold, len(stored) - script.told_bytes.get(upload.name, 0))
            self.moved.set()
            count += 1
        return dataset.WriteUploadResponse(upload=upload)

    async def CommitUpload(self, request: Any, context: Any) -> Any:
        script, upload = self.script, self.script.uploads[request.name]
        upload.state = dataset.UPLOAD_STATE_VALIDATING
        if script.refusals:
            upload.MergeFrom(script.refusals.pop(0))
            upload.state = dataset.UPLOAD_STATE_FAILED
        else:
            parent = request.name.partition("/uploads/")[0]
            number = 1 + sum(name.startswith(f"{parent}/versions/") for name in script.versions)
            version = dataset.DatasetVersion(
                name=f"{parent}/versions/{number}", version=number, source_digest=upload.digest,
                row_count=3, split_rows={"train": 2, "test": 1}, task_type="sft", digest=upload.digest,
            )  # fmt: skip
            script.versions[version.name] = version
            if parent in script.datasets:
                script.datasets[parent].latest_version = number
            upload.state, upload.dataset_version = dataset.UPLOAD_STATE_COMMITTED, version.name
        return dataset.CommitUploadResponse(upload=upload)

    async def WatchUpload(self, request: Any, context: Any) -> AsyncIterator[Any]:
        upload = await found(context, self.script.uploads, request.name, "upload")
        while upload.state == dataset.UPLOAD_STATE_OPEN:
            self.moved.clear()
            self.script.told_bytes[upload.name] = upload.committed_bytes
            yield dataset.WatchUploadResponse(upload=upload)
            await self.moved.wait()
        yield dataset.WatchUploadResponse(upload=upload)


class Jobs(trainer.TrainingJobServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateTrainingJob(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        job = trainer.TrainingJob(name=f"{request.parent}/trainingJobs/{UUID}", spec=request.training_job.spec, state=1)
        job.reproduces = request.training_job.reproduces
        self.script.jobs.setdefault(job.name, job)  # else as a test has it end
        return trainer.CreateTrainingJobResponse(training_job=job)

    async def PlanTrainingJob(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        return trainer.PlanTrainingJobResponse(plan=self.script.plan)

    async def GetTrainingJob(self, request: Any, context: Any) -> Any:
        return trainer.GetTrainingJobResponse(training_job=await found(context, self.script.jobs, request.name, "job"))

    async def ListTrainingJobs(self, request: Any, context: Any) -> Any:
        items, token = page(self.script.jobs, request)
        return trainer.ListTrainingJobsResponse(training_jobs=items, next_page_token=token)

    async def WatchTrainingJob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        limit = self.script.watch_breaks.pop(0) if self.script.watch_breaks else None
        for index, job in enumerate(self.script.job_snapshots):
            if index == limit:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            yield trainer.WatchTrainingJobResponse(training_job=job)

    async def _change(self, request: Any, context: Any, rpc: str, state: int) -> Any:
        if rpc in self.script.faults:
            await refuse(context, self.script.faults[rpc])
        self.script.requests.append(request)
        job = await found(context, self.script.jobs, request.name, "job")
        job.state = state
        return job

    async def CancelTrainingJob(self, request: Any, context: Any) -> Any:
        return trainer.CancelTrainingJobResponse(training_job=await self._change(request, context, "Cancel", 8))

    async def PauseTrainingJob(self, request: Any, context: Any) -> Any:
        return trainer.PauseTrainingJobResponse(training_job=await self._change(request, context, "Pause", 6))

    async def ResumeTrainingJob(self, request: Any, context: Any) -> Any:
        return trainer.ResumeTrainingJobResponse(training_job=await self._change(request, context, "Resume", 3))

    async def RetryTrainingJob(self, request: Any, context: Any) -> Any:
        return trainer.RetryTrainingJobResponse(training_job=await self._change(request, context, "Retry", 3))

    async def ReadTrainingJobSteps(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield trainer.ReadTrainingJobStepsResponse(steps=self.script.steps.get(request.name, []))

    async def ReadTrainingJobFile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.script.requests.append(request)
        data = self.script.files[request.path][request.offset :]
        for start in range(0, len(data), 1 << 20):
            yield trainer.ReadTrainingJobFileResponse(data=data[start : start + (1 << 20)])

    async def ReadTrainingJobLogs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for text in self.script.logs:
            yield trainer.ReadTrainingJobLogsResponse(epoch=1, text=text)


class Models(registry.ModelServiceServicer, registry.ModelVersionServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateModel(self, request: Any, context: Any) -> Any:
        model = registry.Model()
        model.CopyFrom(request.model)
        model.name = f"{request.parent}/models/{model.display_name}"
        self.script.models[model.name] = model
        return registry.CreateModelResponse(model=model)

    async def GetModel(self, request: Any, context: Any) -> Any:
        return registry.GetModelResponse(model=await found(context, self.script.models, request.name, "model"))

    async def ListModels(self, request: Any, context: Any) -> Any:
        items, token = page(self.script.models, request)
        return registry.ListModelsResponse(models=items, next_page_token=token)

    async def UpdateModel(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def ImportModelVersion(self, requests: Any, context: Any) -> Any:
        self.script.imported = [request async for request in requests]
        header = self.script.imported[0].header
        version = registry.ModelVersion(name=f"{header.parent}/versions/1", version=1, artifact=header.artifact)
        return registry.ImportModelVersionResponse(model_version=version)

    async def GetStoredModelFiles(self, request: Any, context: Any) -> Any:
        self.script.asked_for_files.append(request.parent)
        return registry.GetStoredModelFilesResponse()

    async def GetModelVersion(self, request: Any, context: Any) -> Any:
        name = request.name
        if self.script.too_early:
            self.script.too_early -= 1
            await found(context, {}, name, "model version")
        if not name.rsplit("/", 1)[-1].isdigit():
            name = max(
                (each for each in self.script.model_versions if each.startswith(name.rpartition("/")[0])), default=name
            )
        version = await found(context, self.script.model_versions, name, "model version")
        return registry.GetModelVersionResponse(model_version=version)

    async def ListModelVersions(self, request: Any, context: Any) -> Any:
        return registry.ListModelVersionsResponse(model_versions=list(self.script.model_versions.values())[::-1])

    async def WatchModelVersion(self, request: Any, context: Any) -> AsyncIterator[Any]:
        version = self.script.model_versions[request.name]
        yield registry.WatchModelVersionResponse(model_version=version)

    async def ApproveModelVersion(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        return registry.ApproveModelVersionResponse(model_version=self.script.model_versions[request.name])

    async def RevokeModelVersion(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        return registry.RevokeModelVersionResponse(model_version=self.script.model_versions[request.name])


class Evaluations(evaluator.EvaluationServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateEvaluation(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        made = evaluator.Evaluation(name=f"{request.parent}/evaluations/{UUID}", state=9)
        made.MergeFrom(request.evaluation)
        self.script.evaluations[made.name] = made
        return evaluator.CreateEvaluationResponse(evaluation=made)

    async def CancelEvaluation(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def RetryEvaluation(self, request: Any, context: Any) -> Any:
        known = await found(context, self.script.evaluations, request.name, "evaluation")
        return evaluator.RetryEvaluationResponse(evaluation=known)

    async def GetEvaluation(self, request: Any, context: Any) -> Any:
        known = await found(context, self.script.evaluations, request.name, "evaluation")
        return evaluator.GetEvaluationResponse(evaluation=known)

    async def ListEvaluations(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        wanted = request.filter.partition('"')[2].rstrip('"')
        known = {name: each for name, each in self.script.evaluations.items() if wanted in ("", each.model_version)}
        return evaluator.ListEvaluationsResponse(evaluations=page(known, request)[0])

    async def WatchEvaluation(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield evaluator.WatchEvaluationResponse(evaluation=self.script.evaluations[request.name])

    async def ListEvaluationRows(self, request: Any, context: Any) -> Any:
        items, token = page(dict(enumerate(self.script.evaluation_rows)), request)
        return evaluator.ListEvaluationRowsResponse(rows=items, next_page_token=token)


class Serving(gateway.EndpointServiceServicer, gateway.RolloutServiceServicer, gateway.DeploymentServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateEndpoint(self, request: Any, context: Any) -> Any:
        made = gateway.Endpoint(name=f"{request.parent}/endpoints/{request.endpoint_id}")
        made.MergeFrom(request.endpoint)
        self.script.endpoints[made.name] = made
        return gateway.CreateEndpointResponse(endpoint=made)

    async def UpdateEndpoint(self, request: Any, context: Any) -> Any:
        known = await found(context, self.script.endpoints, request.endpoint.name, "endpoint")
        request.update_mask.MergeMessage(request.endpoint, known, True, True)
        return gateway.UpdateEndpointResponse(endpoint=known)

    async def ListDeployments(self, request: Any, context: Any) -> Any:
        return gateway.ListDeploymentsResponse(deployments=self.script.deployments)

    async def CreateRollout(self, request: Any, context: Any) -> Any:
        name = f"{request.parent}/rollouts/{UUID}"
        return gateway.CreateRolloutResponse(rollout=gateway.Rollout(name=name, model_version=request.model_version))

    async def GetEndpoint(self, request: Any, context: Any) -> Any:
        return gateway.GetEndpointResponse(
            endpoint=await found(context, self.script.endpoints, request.name, "endpoint")
        )

    async def ListEndpoints(self, request: Any, context: Any) -> Any:
        return gateway.ListEndpointsResponse(endpoints=page(self.script.endpoints, request)[0])

    async def GetRollout(self, request: Any, context: Any) -> Any:
        return gateway.GetRolloutResponse(rollout=await found(context, self.script.rollouts, request.name, "rollout"))

    async def ListRollouts(self, request: Any, context: Any) -> Any:
        if self.script.too_early:
            self.script.too_early -= 1
            return gateway.ListRolloutsResponse()
        parent, version = request.parent.removesuffix("-"), request.filter.partition('"')[2].rstrip('"')
        known = {
            name: each
            for name, each in self.script.rollouts.items()
            if name.startswith(parent) and version in ("", each.model_version)
        }
        return gateway.ListRolloutsResponse(rollouts=list(known.values())[::-1])

    async def WatchRollout(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for rollout in self.script.rollout_snapshots:
            yield gateway.WatchRolloutResponse(rollout=rollout)

    async def PromoteRollout(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        return gateway.PromoteRolloutResponse(rollout=self.script.rollouts[request.name])

    async def RollbackRollout(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        return gateway.RollbackRolloutResponse(rollout=self.script.rollouts[request.name])


class Rules(registry.GatePolicyServiceServicer, registry.TaskTypeServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateGatePolicy(self, request: Any, context: Any) -> Any:
        made = registry.GatePolicy(name=f"{request.parent}/gatePolicies/{request.gate_policy_id}", etag="1")
        made.MergeFrom(request.gate_policy)
        self.script.policies[made.name] = made
        return registry.CreateGatePolicyResponse(gate_policy=made)

    async def GetGatePolicy(self, request: Any, context: Any) -> Any:
        known = await found(context, self.script.policies, request.name, "gate policy")
        return registry.GetGatePolicyResponse(gate_policy=known)

    async def ListGatePolicies(self, request: Any, context: Any) -> Any:
        return registry.ListGatePoliciesResponse(gate_policies=page(self.script.policies, request)[0])

    async def UpdateGatePolicy(self, request: Any, context: Any) -> Any:
        await found(context, self.script.policies, request.gate_policy.name, "gate policy")
        self.script.policies[request.gate_policy.name] = request.gate_policy
        return registry.UpdateGatePolicyResponse(gate_policy=request.gate_policy)

    async def GetTaskType(self, request: Any, context: Any) -> Any:
        if "GetTaskType" in self.script.faults:
            await refuse(context, self.script.faults["GetTaskType"])
        kind = registry.TaskType(name=request.name, metrics=["exact_match"], suite_max_rows=7, suite_max_tokens=9)
        return registry.GetTaskTypeResponse(task_type=self.script.task_types.get(request.name, kind))

    async def ListTaskTypes(self, request: Any, context: Any) -> Any:
        return registry.ListTaskTypesResponse(task_types=page(self.script.task_types, request)[0])

    async def CreateTaskType(self, request: Any, context: Any) -> Any:
        made = registry.TaskType(name=f"{request.parent}/taskTypes/{request.task_type_id}", state=1)
        made.MergeFrom(request.task_type)
        self.script.task_types[made.name] = made
        return registry.CreateTaskTypeResponse(task_type=made)

    async def ApproveTaskType(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        known = await found(context, self.script.task_types, request.name, "task type")
        return registry.ApproveTaskTypeResponse(task_type=known)

    async def RetireTaskType(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        known = await found(context, self.script.task_types, request.name, "task type")
        return registry.RetireTaskTypeResponse(task_type=known)


class Access(registry.ApiKeyServiceServicer, registry.ProjectServiceServicer, events.EventServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def CreateApiKey(self, request: Any, context: Any) -> Any:
        self.script.requests.append(request)
        key = registry.ApiKey()
        key.CopyFrom(request.api_key)
        key.name = f"{request.parent}/apiKeys/{key.display_name}"
        return registry.CreateApiKeyResponse(api_key=key, secret="sl_shown_once")

    async def ListApiKeys(self, request: Any, context: Any) -> Any:
        return registry.ListApiKeysResponse(api_keys=list(self.script.keys.values()))

    async def RevokeApiKey(self, request: Any, context: Any) -> Any:
        key = await found(context, self.script.keys, request.name, "key")
        key.revoke_time.GetCurrentTime()
        return registry.RevokeApiKeyResponse(api_key=key)

    async def WhoAmI(self, request: Any, context: Any) -> Any:
        self.script.metadata.append(dict(context.invocation_metadata()))
        return registry.WhoAmIResponse(principal="projects/default/apiKeys/test")

    async def CreateProject(self, request: Any, context: Any) -> Any:
        return registry.CreateProjectResponse(project=registry.Project(name="projects/new"))

    async def GetProject(self, request: Any, context: Any) -> Any:
        await refuse(context, Invalid("no", violations=[("name", "must be a name")]))

    async def ListProjects(self, request: Any, context: Any) -> Any:
        return registry.ListProjectsResponse(
            projects=[registry.Project(name="projects/default", display_name="default")]
        )

    async def ListEvents(self, request: Any, context: Any) -> Any:
        service = dict(context.invocation_metadata())["sluice-service"]
        return events.ListEventsResponse(events=self.script.events.get(service, []))

    async def ListDeadLetters(self, request: Any, context: Any) -> Any:
        if "ListDeadLetters" in self.script.faults:
            await refuse(context, self.script.faults["ListDeadLetters"])
        service = dict(context.invocation_metadata())["sluice-service"]
        mine = {each.id: each for each in self.script.dead_letters if each.service == service}
        items, token = page(mine, request)
        return events.ListDeadLettersResponse(dead_letters=items, next_page_token=token, total_size=len(mine))

    async def ReplayDeadLetters(self, request: Any, context: Any) -> Any:
        service = dict(context.invocation_metadata())["sluice-service"]
        self.script.requests.append(request)
        left = [each for each in self.script.dead_letters if each.service != service or each.id not in request.ids]
        self.script.dead_letters = left
        return events.ReplayDeadLettersResponse(ids=request.ids)

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        service = dict(context.invocation_metadata())["sluice-service"]
        for event in self.script.events.get(service, []):
            if not request.HasField("after_sequence") or event.sequence > request.after_sequence:
                yield events.WatchEventsResponse(event=event)
        await asyncio.Event().wait()


class Feeds(dataset.FeedServiceServicer):
    """One feed, which takes a batch once."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.feed = script.feed
        self.answers: dict[str, dataset.AppendRowsResponse] = {}

    async def GetFeed(self, request: Any, context: Any) -> Any:
        if not self.feed.name:
            await refuse(context, NotFound("no feed"))
        self.script.looked_at_feed()
        return dataset.GetFeedResponse(feed=self.feed)

    async def AppendRows(self, request: Any, context: Any) -> Any:
        if request.request_id not in self.answers:
            rows = request.rows.count(b"\n")
            self.feed.name = request.name
            self.feed.taken_rows += rows
            self.feed.waiting_rows += rows
            answer = dataset.AppendRowsResponse(row_count=rows)
            answer.feed.CopyFrom(self.feed)
            self.answers[request.request_id] = answer
        return self.answers[request.request_id]

    async def FlushFeed(self, request: Any, context: Any) -> Any:
        self.feed.waiting_rows = 0
        return dataset.FlushFeedResponse(feed=self.feed)


class DamagedBlobs:
    """What cannot be read."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def ListDamagedBlobs(self, request: Any, context: Any) -> Any:
        if "ListDamagedBlobs" in self.script.faults:
            await refuse(context, self.script.faults["ListDamagedBlobs"])
        self.script.requests.append(request)
        items, token = page({each.name: each for each in self.script.damaged}, request)
        return dataset.ListDamagedBlobsResponse(damaged_blobs=items, next_page_token=token, scrub=self.script.scrub)


UUID = "0193a5c2-7d1e-7abc-8def-0123456789ab"
PARTS = (
    (Datasets, (dataset.add_DatasetServiceServicer_to_server, dataset.add_DatasetVersionServiceServicer_to_server)),
    (Uploads, (dataset.add_UploadServiceServicer_to_server,)),
    (Assets, (dataset.add_AssetServiceServicer_to_server,)),
    (Feeds, (dataset.add_FeedServiceServicer_to_server,)),
    (DamagedBlobs, (dataset.add_DamagedBlobServiceServicer_to_server,)),
    (Jobs, (trainer.add_TrainingJobServiceServicer_to_server,)),
    (Models, (registry.add_ModelServiceServicer_to_server, registry.add_ModelVersionServiceServicer_to_server)),
    (Evaluations, (evaluator.add_EvaluationServiceServicer_to_server,)),
    (Serving, (
        gateway.add_EndpointServiceServicer_to_server, gateway.add_RolloutServiceServicer_to_server,
        gateway.add_DeploymentServiceServicer_to_server,
    )),
    (Rules, (registry.add_GatePolicyServiceServicer_to_server, registry.add_TaskTypeServiceServicer_to_server)),
    (Access, (
        registry.add_ApiKeyServiceServicer_to_server, registry.add_ProjectServiceServicer_to_server,
        events.add_EventServiceServicer_to_server,
    )),
)  # fmt: skip


class ScriptedSuite:
    """The server in a thread of its own, so that synchronous clients can wait for it."""

    def __init__(self, script: Script) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.address = self._run(self._start(script))

    async def _start(self, script: Script) -> str:
        self._server = grpc.aio.server()
        for make, adders in PARTS:
            servicer = make(script)
            for add in adders:
                add(servicer, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def stop(self) -> None:
        self._run(self._server.stop(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
