"""Checks what a job wants to read with the services that own it, and finds the numbers behind aliases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc

from kit.rpc.call import current_call
from kit.rpc.errors import Invalid, StateConflict, Unavailable, from_rpc_error
from kit.rpc.names import project_of
from services.trainer import judging
from services.trainer.exporting import QUANTIZATION_PYTHON
from services.trainer.refusals import READ
from services.trainer.spec import (
    check_export,
    check_known,
    check_possible,
    check_shape,
    model_field,
    models_of,
    rename_model,
    with_defaults,
    with_recipe,
    with_task_defaults,
)
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.fewbits import HELD, UNREAD
from sluice.gateway import v1 as gateway
from sluice.labels import check_submitter, check_usable
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PEER_TIMEOUT_S = 5.0
#: What a version beside the base may be for whose files hold weights in few bits.
PACKED_ROLES = ("teacher",)
T = TypeVar("T")
#: Gives the spec as it will be run, or raises the fault that stands in its way.
Resolve = Callable[[trainer.TrainingJobSpec], Awaitable[trainer.TrainingJobSpec]]
#: Raises the fault that keeps the caller from setting a job of the spec going again.
Admit = Callable[[trainer.TrainingJobSpec], Awaitable[None]]


class Inputs:
    """What the dataset service and the registry say of a spec."""

    def __init__(
        self,
        datasets: dataset.DatasetVersionServiceAsyncStub,
        models: registry.ModelVersionServiceAsyncStub,
        task_types: registry.TaskTypeServiceAsyncStub,
        policies: registry.GatePolicyServiceAsyncStub,
        device: str = "cpu",
        quantization: Path = QUANTIZATION_PYTHON,
        devices: int = 0,
        endpoints: gateway.EndpointServiceAsyncStub | None = None,
    ) -> None:
        """``device`` is what recipes compute on, and ``devices`` how many, as in TrainerSettings; ``quantization`` is
        Python with llmcompressor. Without ``endpoints`` no job can have a judge.
        """
        self._datasets = datasets
        self._models = models
        self._task_types = task_types
        self._policies = policies
        self._device, self._devices = device, devices
        self._quantization = quantization
        self._endpoints = endpoints

    async def resolve(self, spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
        """The spec with numbers for `latest` and aliases and with defaults filled in; again gives the same.

        Raises NotFound, Invalid (also TASK_TYPE_MISMATCH, and for what the pool cannot do), StateConflict
        (INVALID_ROWS), Denied where the task type is for others to submit, and Unavailable while a peer is away.
        """
        filled = await self.resolve_unjudged(spec)
        await self._find_judges(filled)
        return filled

    async def resolve_unjudged(self, spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
        """The same without looking who grades: what a plan needs, which asks no gateway."""
        check_known(spec)
        task_type = await self._task_type(spec)
        spec = with_task_defaults(spec, task_type)
        found = with_recipe(spec, task_type)
        if spec.gate_policy:
            await self._check_policy(spec)
        found.dataset_version = await self._dataset_version(spec, task_type)
        models = {role: await self._model(found, role, name) for role, name in models_of(found).items()}
        for role, version in models.items():
            rename_model(found, role, version.name)
        if not spec.base_model_version and not found.HasField("pretrain"):
            raise _invalid("base_model_version", "is empty; name the model version to start from")
        if found.HasField("gkd") and not found.gkd.teacher_model_version:
            raise _invalid("gkd.teacher_model_version", "is empty; name the model version to learn from")
        if spec.pretrain.HasField("shape"):
            check_shape(spec.pretrain.shape)
        filled = with_defaults(found, task_type.gate_policy)
        if filled.HasField("export"):
            below = await self._below(models["base"])
            check_export(filled, models["base"], below, self._device, self._quantization)
        else:
            held = models["base"].lineage.environment.get(HELD, "") if "base" in models else ""
            check_possible(filled, self._device, self._devices, held)
        return filled

    async def admit(self, spec: trainer.TrainingJobSpec) -> None:
        """Lets the caller set a job of this spec going again. Raises what `resolve` does of its task type."""
        await self._task_type(spec)

    async def _find_judges(self, spec: trainer.TrainingJobSpec) -> None:
        """Writes the version into each judge of the spec that is to grade the whole job."""
        judging.check_apart(spec)
        for judge in judging.judges_of(spec):
            if self._endpoints is None:
                raise Unavailable("the gateway is not known to this trainer, so nobody can grade answers")
            request = gateway.GetEndpointRequest(name=f"{project_of(spec.dataset_version)}/endpoints/{judge.endpoint}")
            answer = await _asked("the gateway", self._endpoints.GetEndpoint(request, timeout=PEER_TIMEOUT_S))
            judge.model_version = judging.version_of(spec, judge, answer.endpoint)
        judging.check_one_each(spec)

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

    async def _model(self, spec: trainer.TrainingJobSpec, role: str, name: str) -> registry.ModelVersion:
        """The model version for ``role``. An adapter is staged with its base, which does where nothing is trained."""
        request = registry.GetModelVersionRequest(name=name)
        answer = await _asked("the registry", self._models.GetModelVersion(request, timeout=PEER_TIMEOUT_S))
        version = answer.model_version
        if spec.HasField("export"):
            return version
        if version.artifact.kind != types.ARTIFACT_KIND_FULL and role == "base":
            raise _invalid(
                model_field(spec, role),
                f"`{version.name}` is an adapter, which must be merged into its base first (sluice models export); "
                f"or start from its base `{version.base_model_version}`",
            )
        if role == "reward" and version.interface != "classify":
            raise _invalid(
                model_field(spec, role),
                f"`{version.name}` serves `{version.interface or 'chat'}` and gives no scores; "
                "name a version of task type rm",
            )
        if role != "base":
            await self._check_held(version, role, model_field(spec, role))
        return version

    async def _check_held(self, version: registry.ModelVersion, role: str, field: str) -> None:
        """Raises Invalid for a version beside the base whose weights, or an adapter's base's, cannot be read for it."""
        adapter = version.artifact.kind == types.ARTIFACT_KIND_ADAPTER
        held = await self._below(version) if adapter else version.lineage.environment.get(HELD, "")
        if not held or (role in PACKED_ROLES and not held.endswith(UNREAD)):
            return
        whose = "is an adapter on weights held as" if adapter else "holds its weights as"
        why = "" if held.endswith(UNREAD) else ", which no recipe reads for that"
        fix = "take one on a base of floats" if adapter else "take the version that it was made from"
        told = READ if held.endswith(UNREAD) and not adapter else f"{fix}: sluice lineage tells it"
        raise _invalid(field, f"`{version.name}` {whose} {held}{why}; {told}")

    async def _below(self, version: registry.ModelVersion) -> str:
        """How the base of an adapter holds its weights where that is in few bits; empty for floats and whole models."""
        if not version.base_model_version:
            return ""
        request = registry.GetModelVersionRequest(name=version.base_model_version)
        answer = await _asked("the registry", self._models.GetModelVersion(request, timeout=PEER_TIMEOUT_S))
        return answer.model_version.lineage.environment.get(HELD, "")


async def _asked(peer: str, call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error, peer) from error


def _invalid(field: str, what: str, reason: int = errors.ERROR_REASON_UNSPECIFIED) -> Invalid:
    return Invalid(f"spec.{field} {what}", reason=reason, violations=[(f"training_job.spec.{field}", what)])
