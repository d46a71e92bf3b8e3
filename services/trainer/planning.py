"""Plans a job that is asked about: finds its model's config.json and its rows with the services that own them."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
from google.protobuf.json_format import MessageToDict

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.errors import Invalid, from_rpc_error
from kit.rpc.names import project_of
from services.trainer.inputs import PEER_TIMEOUT_S, Resolve
from services.trainer.plan.answer import SHARDINGS, Place, plan
from services.trainer.plan.devices import ACCELERATORS, Device, accelerator
from services.trainer.plan.fields import UnplannableError
from services.trainer.plan.memory import IMPORTS
from services.trainer.plan.work import shape_config
from services.trainer.spec import check_possible, check_project, models_of
from sluice.dataset import v1 as dataset
from sluice.fewbits import HELD
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

CONFIG = "config.json"
#: A config.json is a page or two; what is longer is something else.
MOST_BYTES = 1 << 20
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
T = TypeVar("T")


class Planning:
    """What the trainer needs to know to plan; it changes nothing."""

    def __init__(
        self,
        resolve: Resolve,
        datasets: dataset.DatasetVersionServiceAsyncStub,
        models: registry.ModelVersionServiceAsyncStub,
        blobs: BlobStore,
        device: str = "cpu",
        host_bytes: int = 0,
    ) -> None:
        """``device`` is what recipes compute on, as in TrainerSettings; ``host_bytes`` what a job may take here, 0
        where jobs run on other hosts.
        """
        self._resolve = resolve
        self._datasets = datasets
        self._models = models
        self._blobs = blobs
        self._device = device
        self._host_bytes = host_bytes

    async def plan(self, request: trainer.PlanTrainingJobRequest) -> trainer.TrainingPlan:
        """The plan. Raises Invalid naming what is not known, and what the resolution of a spec raises."""
        check_project(request.parent, request.spec)
        if request.spec.HasField("export"):
            raise Invalid("an export trains nothing, so there is nothing to plan; submit it without a plan")
        asked = trainer.TrainingJobSpec()
        asked.CopyFrom(request.spec)
        asked.ClearField("distribution")  # a plan may be for more devices than there are here
        spec = await self._resolve(asked)
        spec.distribution.CopyFrom(_shared_out(request))
        recipe = str(spec.WhichOneof("recipe"))
        said = MessageToDict(spec, preserving_proto_field_name=True)
        try:
            place = self._place(request)
            check_possible(spec, place.device.kind, held=await self._held(spec))
            config, staged = await self._base(spec, said)
            others = {role: await self._config(name) for role, name in models_of(spec).items() if role != "base"}
            return plan(
                config,
                said,
                recipe,
                place,
                rows=await self._rows(spec.dataset_version),
                staged_bytes=staged + sum(size for _, size in others.values()),
                checkpointing=request.gradient_checkpointing if request.HasField("gradient_checkpointing") else None,
                beside={role: config for role, (config, _) in others.items()},
            )
        except UnplannableError as error:
            of_the_job = error.field not in ("device", "sharding")  # these are for the plan alone
            fix = "; submit it without a plan, or change what is named" if of_the_job else ""
            raise Invalid(
                f"this job cannot be planned: {error}{fix}",
                violations=[(error.field, error.what)],
            ) from error
        except (OverflowError, ValueError) as error:
            raise Invalid(
                "this job cannot be planned: a number of the request, or of the base's config.json, is too large or "
                "too small to count with; correct it"
            ) from error

    def _place(self, request: trainer.PlanTrainingJobRequest) -> Place:
        name = request.device or self._device
        if name == "cpu":
            known = self._host_bytes if self._device == "cpu" else 0
            processes = request.devices or request.spec.distribution.devices or 1
            device = Device("cpu", "cpu", max(1, known // processes - IMPORTS) if known else 0)
        elif name in ACCELERATORS or request.device:
            device = accelerator(name)
        else:
            what = f"is not named, and the trainer does not know which {name} it has; name one of "
            raise UnplannableError("device", what + ", ".join(ACCELERATORS))
        told = request.spec.distribution
        if told.tensor_parallel_size > 1:
            what = "is above 1, and which of a model's matrices are shared so the planner does not know"
            raise UnplannableError("distribution.tensor_parallel_size", what)
        devices = request.devices or told.devices or 1
        usual = trainer.SHARDING_UNSPECIFIED if request.devices else told.sharding
        if devices > 1 and devices == told.devices and not (usual or request.sharding):
            usual = trainer.SHARDING_DDP
        sharding = SHARDINGS.get(request.sharding or usual, "single")
        return Place(device, devices, sharding, request.tokens_per_s, request.tflops)

    async def _base(self, spec: trainer.TrainingJobSpec, said: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The config.json of what the job starts from, and the bytes of all its files."""
        if not spec.base_model_version:
            return shape_config(said.get("pretrain", {}).get("shape", {})), 0
        return await self._config(spec.base_model_version)

    async def _held(self, spec: trainer.TrainingJobSpec) -> str:
        """How the base's files hold its weights where that is in few bits; empty for floats and without a base."""
        if not spec.base_model_version:
            return ""
        return (await self._version(spec.base_model_version)).lineage.environment.get(HELD, "")

    async def _config(self, name: str) -> tuple[dict[str, Any], int]:
        """The config.json of a model version, of an adapter that of its base, and the bytes of all files it takes."""
        version = await self._version(name)
        staged = sum(file.size_bytes for file in version.artifact.files)
        if version.artifact.kind == types.ARTIFACT_KIND_ADAPTER:
            version = await self._version(version.base_model_version)
            staged += sum(file.size_bytes for file in version.artifact.files)
        found = next((file for file in version.artifact.files if file.path == CONFIG), None)
        if found is None or found.size_bytes > MOST_BYTES:
            raise UnplannableError(CONFIG, f"is not among the files of `{version.name}`, or is no page of text")
        pieces = [piece async for piece in self._blobs.open(project_of(version.name), found.digest)]
        try:
            config = json.loads(b"".join(pieces))
        except (ValueError, RecursionError) as error:
            raise UnplannableError(CONFIG, f"of `{version.name}` is not JSON") from error
        if not isinstance(config, dict):
            raise UnplannableError(CONFIG, f"of `{version.name}` is not an object")
        return config, staged

    async def _version(self, name: str) -> registry.ModelVersion:
        asked = registry.GetModelVersionRequest(name=name)
        answer = await _asked("the registry", self._models.GetModelVersion(asked, timeout=PEER_TIMEOUT_S))
        return answer.model_version

    async def _rows(self, name: str) -> int:
        asked = dataset.GetDatasetVersionRequest(name=name, on_behalf_of=current_call().principal.name)
        answer = await _asked("the dataset service", self._datasets.GetDatasetVersion(asked, timeout=PEER_TIMEOUT_S))
        return int(answer.dataset_version.split_rows["train"])


def _shared_out(request: trainer.PlanTrainingJobRequest) -> trainer.Distribution:
    """What the spec says of it, with the devices that are asked about where it says anything."""
    found = trainer.Distribution()
    found.CopyFrom(request.spec.distribution)
    if request.devices and found.ListFields():
        found.devices = request.devices
        found.sharding = request.sharding or found.sharding
    return found


def host_bytes(jobs: int) -> int:
    """The memory that each of ``jobs`` jobs at the same time may take on this host, or in its container."""
    total = psutil.virtual_memory().total
    if CGROUP_LIMIT.exists() and (told := CGROUP_LIMIT.read_text("ascii").strip()).isdigit():
        total = min(total, int(told))
    return total // max(1, jobs)


async def _asked(peer: str, call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error, peer) from error
