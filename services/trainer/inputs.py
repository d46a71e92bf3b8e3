"""Checks what a job wants to read with the services that own it, and finds the numbers behind aliases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from kit.rpc.call import current_call
from kit.rpc.errors import Invalid, StateConflict, from_rpc_error
from kit.rpc.names import project_of
from services.trainer.spec import (
    check_known,
    check_possible,
    check_shape,
    with_defaults,
    with_recipe,
    with_task_defaults,
)
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.labels import check_submitter, check_usable
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PEER_TIMEOUT_S = 5.0
T = TypeVar("T")
#: Gives the spec as it will be run, or raises the fault that stands in its way.
Resolve = Callable[[trainer.TrainingJobSpec], Awaitable[trainer.TrainingJobSpec]]


class Inputs:
    """What the dataset service and the registry say of a spec."""

    def __init__(
        self,
        datasets: dataset.DatasetVersionServiceAsyncStub,
        models: registry.ModelVersionServiceAsyncStub,
        task_types: registry.TaskTypeServiceAsyncStub,
        policies: registry.GatePolicyServiceAsyncStub,
        device: str = "cpu",
    ) -> None:
        """``device`` is what recipes compute on, as in TrainerSettings."""
        self._datasets = datasets
        self._models = models
        self._task_types = task_types
        self._policies = policies
        self._device = device

    async def resolve(self, spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
        """The spec with numbers for `latest` and aliases and with defaults filled in; again gives the same.

        Raises NotFound, Invalid (also TASK_TYPE_MISMATCH, and for what the pool cannot do), StateConflict
        (INVALID_ROWS), Denied where the task type is for others to submit, and Unavailable while a peer is away.
        """
        check_known(spec)
        task_type = await self._task_type(spec)
        spec = with_task_defaults(spec, task_type)
        found = with_recipe(spec, task_type)
        if spec.gate_policy:
            await self._check_policy(spec)
        found.dataset_version = await self._dataset_version(spec, task_type)
        if spec.base_model_version:
            found.base_model_version = await self._base(spec.base_model_version)
        elif not found.HasField("pretrain"):
            raise _invalid("base_model_version", "is empty; name the model version to start from")
        elif spec.pretrain.HasField("shape"):
            check_shape(spec.pretrain.shape)
        filled = with_defaults(found, task_type.gate_policy)
        check_possible(filled, self._device)
        return filled

    async def _task_type(self, spec: trainer.TrainingJobSpec) -> registry.TaskType:
        project, by = project_of(spec.dataset_version), current_call().principal
        request = registry.GetTaskTypeRequest(name=f"{project}/taskTypes/{spec.task_type}")
        answer = await _asked("the registry", self._task_types.GetTaskType(request, timeout=PEER_TIMEOUT_S))
        if not by.service:  # else it is a job that was submitted before
            check_usable(answer.task_type)
            check_submitter(answer.task_type, project, by)
        return answer.task_type

    async def _check_policy(self, spec: trainer.TrainingJobSpec) -> None:
        """Its own version would wait for ever at a gate that does not exist."""
        name = f"{project_of(spec.dataset_version)}/gatePolicies/{spec.gate_policy}"
        request = registry.GetGatePolicyRequest(name=name)
        await _asked("the registry", self._policies.GetGatePolicy(request, timeout=PEER_TIMEOUT_S))

    async def _dataset_version(self, spec: trainer.TrainingJobSpec, task_type: registry.TaskType) -> str:
        asking = current_call().principal.name
        request = dataset.GetDatasetVersionRequest(name=spec.dataset_version, on_behalf_of=asking)
        answer = await _asked("the dataset service", self._datasets.GetDatasetVersion(request, timeout=PEER_TIMEOUT_S))
        version = answer.dataset_version
        if version.task_type != spec.task_type and not await self._alike(version, task_type):
            raise _invalid(
                "task_type",
                f"is `{spec.task_type}`, but `{version.name}` has rows for `{version.task_type}`",
                reason=errors.ERROR_REASON_TASK_TYPE_MISMATCH,
            )
        if not version.split_rows["train"]:
            raise StateConflict(
                f"dataset version `{version.name}` has no rows in its split `train`; upload more rows",
                reason=errors.ERROR_REASON_INVALID_ROWS,
                resource=("DatasetVersion", version.name),
            )
        return version.name

    async def _alike(self, version: dataset.DatasetVersion, wanted: registry.TaskType) -> bool:
        """Whether rows of one built-in task type do for another, as pairs for `dpo` do for `orpo`.

        Those of a label are for its jobs alone: who may submit these is a rule that another task type does not have.
        """
        request = registry.GetTaskTypeRequest(name=f"{project_of(version.name)}/taskTypes/{version.task_type}")
        answer = await _asked("the registry", self._task_types.GetTaskType(request, timeout=PEER_TIMEOUT_S))
        built_in = all(each.name.startswith("taskTypes/") for each in (answer.task_type, wanted))
        return built_in and answer.task_type.row_schema == wanted.row_schema

    async def _base(self, name: str) -> str:
        request = registry.GetModelVersionRequest(name=name)
        answer = await _asked("the registry", self._models.GetModelVersion(request, timeout=PEER_TIMEOUT_S))
        version = answer.model_version
        if version.artifact.kind != types.ARTIFACT_KIND_FULL:
            raise _invalid(
                "base_model_version",
                f"`{version.name}` is an adapter, which must be merged into its base first; "
                f"start from its base `{version.base_model_version}`",
            )
        return version.name


async def _asked(peer: str, call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error, peer) from error


def _invalid(field: str, what: str, reason: int = errors.ERROR_REASON_UNSPECIFIED) -> Invalid:
    return Invalid(f"spec.{field} {what}", reason=reason, violations=[(f"training_job.spec.{field}", what)])
