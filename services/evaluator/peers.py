"""What the registry, the dataset service and the gateway say; it asks and decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import grpc

from kit.rpc.call import current_call
from kit.rpc.errors import NotFound, StateConflict, from_rpc_error
from kit.rpc.names import project_of
from services.evaluator import domain
from services.evaluator.metrics import check_metrics
from services.evaluator.questions import CHAT, check_suite, fits
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry

PEER_TIMEOUT_S = 5.0
DICOM = "application/dicom"
T = TypeVar("T")


class Peers:
    """The other services, as far as an evaluation needs them. Every method may raise NotFound or Unavailable."""

    def __init__(
        self,
        models: registry.ModelVersionServiceAsyncStub,
        task_types: registry.TaskTypeServiceAsyncStub,
        datasets: dataset.DatasetVersionServiceAsyncStub,
        endpoints: gateway.EndpointServiceAsyncStub,
        assets: dataset.AssetServiceAsyncStub,
        policies: registry.GatePolicyServiceAsyncStub,
    ) -> None:
        self._models = models
        self._task_types = task_types
        self._datasets = datasets
        self._endpoints = endpoints
        self._assets = assets
        self._policies = policies

    async def plan(self, evaluation: evaluator.Evaluation, wanted: evaluator.Suite | None) -> domain.Plan:
        """What an evaluation of this version will do under ``wanted``, or under the default suite of its task type.

        The default one also has what the version's gate asks for, as far as its rows can show that: the policy may be
        another than that of the task type, or of a later day than the metrics of a project's own.
        Raises Invalid for a suite that cannot be run, NotFound, and Unavailable while a peer is away.
        """
        version = await self.model_version(evaluation.model_version)
        told = wanted or domain.default_suite(version, await self.task_type(version.name, version.task_type))
        check_metrics(told.metrics)
        rows = await self.dataset_version(told.dataset_version)
        interface, schema = version.interface or CHAT, (await self.task_type(rows.name, rows.task_type)).row_schema
        if wanted is None:
            asked_for = [name for name in await self.gate_metrics(version) if fits(interface, schema, name)]
            told.metrics.extend(name for name in asked_for if name not in told.metrics)
        check_suite(interface, schema, told.metrics, rows.name)
        suite, note = domain.settle(told, rows)
        digest = domain.suite_digest(suite, rows.digest)
        incumbent = await self.incumbent(version)
        return domain.Plan(suite, digest, version.endpoint, incumbent, note)

    async def gate_metrics(self, version: registry.ModelVersion) -> list[str]:
        """What the gate policy of a version asks for, each once."""
        if not version.gate_policy:
            return []
        request = registry.GetGatePolicyRequest(name=f"{project_of(version.name)}/gatePolicies/{version.gate_policy}")
        answer = await asked("the registry", self._policies.GetGatePolicy(request, timeout=PEER_TIMEOUT_S))
        return list(dict.fromkeys(criterion.metric for criterion in answer.gate_policy.criteria))

    async def incumbent(self, version: registry.ModelVersion) -> str:
        """The version that serves where this one wants to; empty where none does, or this one itself."""
        if not version.endpoint:
            return ""
        name = f"{project_of(version.name)}/endpoints/{version.endpoint}"
        request = gateway.GetEndpointRequest(name=name)
        try:
            answer = await asked("the gateway", self._endpoints.GetEndpoint(request, timeout=PEER_TIMEOUT_S))
        except NotFound:
            return ""
        stable = [arm for arm in answer.endpoint.route if arm.role == gateway.ARM_ROLE_STABLE and arm.weight_percent]
        return next((arm.model_version for arm in stable if arm.model_version != version.name), "")

    async def model_version(self, name: str) -> registry.ModelVersion:
        """A model version as it stands."""
        request = registry.GetModelVersionRequest(name=name)
        answer = await asked("the registry", self._models.GetModelVersion(request, timeout=PEER_TIMEOUT_S))
        return answer.model_version

    async def task_type(self, of: str, task_type: str) -> registry.TaskType:
        """The task type, by its id, of a resource; whatever its state, as what exists goes on."""
        request = registry.GetTaskTypeRequest(name=f"{project_of(of)}/taskTypes/{task_type}")
        answer = await asked("the registry", self._task_types.GetTaskType(request, timeout=PEER_TIMEOUT_S))
        return answer.task_type

    async def dataset_version(self, name: str) -> dataset.DatasetVersion:
        """A dataset version, without its rows, if the caller may know of it."""
        request = dataset.GetDatasetVersionRequest(name=name, on_behalf_of=current_call().principal.name)
        call = self._datasets.GetDatasetVersion(request, timeout=PEER_TIMEOUT_S)
        return (await asked("the dataset service", call)).dataset_version

    async def row_schema(self, suite: evaluator.Suite) -> str:
        """How the rows of a suite look."""
        rows = await self.dataset_version(suite.dataset_version)
        return (await self.task_type(rows.name, rows.task_type)).row_schema

    async def read_rows(self, suite: evaluator.Suite) -> AsyncIterator[bytes]:
        """The rows of the suite's split, in pieces of whole JSON lines. Also raises Corrupt."""
        request = dataset.ReadDatasetVersionRequest(name=suite.dataset_version, split=suite.split)
        try:
            async for piece in self._datasets.ReadDatasetVersion(request):
                yield piece.rows
        except grpc.RpcError as error:
            raise from_rpc_error(error, "the dataset service") from error

    async def read_image(self, version: str, digest: str) -> tuple[str, bytes]:
        """The type and the bytes of an image that rows of a dataset version name; of DICOM, what a viewer shows.

        Raises StateConflict (ROWS_FORGOTTEN) where no row names it any more.
        """
        try:
            kind, content = await self._image(version, digest, dataset.RENDERING_ORIGINAL)
            if kind == DICOM:
                _, content = await self._image(version, digest, dataset.RENDERING_PNG)
                return "image/png", content
        except grpc.RpcError as error:
            fault = from_rpc_error(error, "the dataset service")
            if isinstance(fault, NotFound):
                reason = errors.ERROR_REASON_ROWS_FORGOTTEN
                raise StateConflict(f"an image of `{version}` was forgotten with its rows", reason=reason) from error
            raise fault from error
        return kind or "image/png", content

    async def _image(self, version: str, digest: str, rendering: dataset.Rendering) -> tuple[str, bytes]:
        request = dataset.ReadAssetsRequest(name=version, digests=[digest], rendering=rendering)
        kind, content = "", bytearray()
        async for piece in self._assets.ReadAssets(request):
            kind = piece.asset.type or kind
            content += piece.data
        return kind, bytes(content)


async def asked(peer: str, call: Awaitable[T]) -> T:
    """The answer of a peer, or the fault it sent."""
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error, peer) from error
