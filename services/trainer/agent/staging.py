"""Puts what a recipe needs into its folder: spec, rows, their images and models; of rows it looks at nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict

from kit.blobs import BlobStore, fetch_artifact
from kit.rpc.errors import Corrupt, NotFound, Unavailable, from_driver_error, from_rpc_error
from kit.rpc.names import id_of, project_of
from kit.telemetry import get_log
from services.trainer.agent import assets
from services.trainer.folders import AttemptFolder
from services.trainer.spec import check_known, models_of, read_models
from services.trainer.token_cache import TokenCache
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

log = get_log(__name__)
TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 5.0
SPLITS = ("train", "validation")
#: Recipes whose models are given the images and sounds that rows name.
SEEING = ("vision", "fusion", "audio")
T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """Where inputs come from."""

    datasets: dataset.DatasetVersionServiceAsyncStub
    models: registry.ModelVersionServiceAsyncStub
    blobs: BlobStore
    assets: dataset.AssetServiceAsyncStub
    tokens: TokenCache | None = None


@dataclass(frozen=True)
class Staged:
    """The digests of what was put in place: of the rows, and of each model by what it is for, such as `base`; `read`
    names the versions that are learned from beside the base.
    """

    rows: str
    models: Mapping[str, str]
    read: Mapping[str, str] = field(default_factory=dict)


async def stage(sources: Sources, job: trainer.TrainingJob, epoch: int, folder: AttemptFolder) -> Staged:
    """Fills the folder, ``spec.json`` last. Waits for peers that are away.

    Raises NotFound, Corrupt, Exhausted and whatever else a peer refuses with.
    """
    sees = job.spec.WhichOneof("recipe") in SEEING
    rows = await patiently(lambda: _data(sources, job.spec.dataset_version, folder, sees))
    models = {}
    for role, name in models_of(job.spec).items():
        models[role] = await patiently(partial(_model, sources, name, folder, role))
    text = json.dumps(recipe_spec(job, epoch), indent=1)
    (folder.path / "spec.json").write_text(text, "utf-8")
    return Staged(rows, models, read_models(job.spec))


def recipe_spec(job: trainer.TrainingJob, epoch: int) -> dict[str, Any]:
    """What stands in ``spec.json``; scalars that were not given are zero, which means the recipe's default.

    Raises Invalid for a job of another version of Sluice that asked for more than this one knows.
    """
    check_known(job.spec)
    recipe, tuner = str(job.spec.WhichOneof("recipe")), job.spec.WhichOneof("tuner")
    said = MessageToDict(job.spec, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    common = ("optimization", "max_length", "precision", "checkpoint_every_steps", "performance", "distribution")
    shared = (*common, *([tuner] if tuner else []))
    parameters = {**said[recipe], **{name: said[name] for name in shared if name in said}}
    about = {"job": id_of(job.name), "attempt": epoch, "task_type": job.spec.task_type, "recipe": recipe}
    return {**about, "seed": job.spec.seed, "parameters": parameters}


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Does the work again, ever more slowly, while something it needs is away; other faults pass.

    Also when rows were forgotten while they were read: then it is done with what is left.
    """
    pause_s = 0.1
    while True:
        try:
            return await work()
        except grpc.RpcError as error:
            fault = from_rpc_error(error)
            if not isinstance(fault, Unavailable) and fault.reason != errors.ERROR_REASON_ROWS_FORGOTTEN:
                raise fault from error
        except Unavailable as unavailable:
            fault = unavailable
        except OSError as error:
            raise from_driver_error(error) or error from error
        log.warning("waiting", reason=fault.reason_name, message=fault.message)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def _data(sources: Sources, name: str, folder: AttemptFolder, sees: bool) -> str:
    """The rows, and the images that they name where the recipe sees; the digest of the rows."""
    digest = await _rows(sources.datasets, name, folder)
    if sees:
        try:
            await assets.fetch(sources.assets, name, folder.path / "in", SPLITS)
        except grpc.RpcError as error:
            answer = await sources.datasets.GetDatasetVersion(_named(name), timeout=TIMEOUT_S)
            if not isinstance(from_rpc_error(error), NotFound) or answer.dataset_version.digest == digest:
                raise
            return await _data(sources, name, folder, sees)  # rows were forgotten meanwhile, and images with them
    return digest


def _named(name: str) -> dataset.GetDatasetVersionRequest:
    return dataset.GetDatasetVersionRequest(name=name)


async def _rows(datasets: dataset.DatasetVersionServiceAsyncStub, name: str, folder: AttemptFolder) -> str:
    answer = await datasets.GetDatasetVersion(_named(name), timeout=TIMEOUT_S)
    version = answer.dataset_version
    for split in SPLITS:
        expected = version.split_rows[split]
        target = folder.path / "in" / f"{split}.jsonl"
        found = await _split(datasets, version, split, target) if expected else 0
        if found != expected:
            raise Corrupt(
                f"`{name}` has {found} rows in its split `{split}` and should have {expected}; upload it again"
            )
    return version.digest


async def _split(
    datasets: dataset.DatasetVersionServiceAsyncStub, version: dataset.DatasetVersion, split: str, target: Path
) -> int:
    rows = 0
    request = dataset.ReadDatasetVersionRequest(name=version.name, split=split, digest=version.digest)
    with target.open("wb") as file:
        async for piece in datasets.ReadDatasetVersion(request):
            rows += piece.rows.count(b"\n")
            file.write(piece.rows)
    return rows


async def _model(sources: Sources, name: str, folder: AttemptFolder, role: str) -> str:
    """Fills `in/<role>/` with a model; where that is an adapter, with its base, and `in/<role>-adapter/` with it."""
    version = await _version(sources.models, name)
    base = version
    if version.artifact.kind == types.ARTIFACT_KIND_ADAPTER:
        await _artifact(sources.blobs, version, folder, f"{role}-adapter")
        base = await _version(sources.models, version.base_model_version)
    await _artifact(sources.blobs, base, folder, role)
    return version.artifact.digest


async def _version(models: registry.ModelVersionServiceAsyncStub, name: str) -> registry.ModelVersion:
    answer = await models.GetModelVersion(registry.GetModelVersionRequest(name=name), timeout=TIMEOUT_S)
    return answer.model_version


async def _artifact(blobs: BlobStore, version: registry.ModelVersion, folder: AttemptFolder, name: str) -> None:
    folder.wipe(f"in/{name}")  # of a try before this one
    await fetch_artifact(blobs, project_of(version.name), version.artifact, folder.path / "in" / name)
