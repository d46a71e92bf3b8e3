"""Puts what a recipe needs into its folder: spec, rows and base model; it does not look at a row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict

from kit.blobs import BlobStore, fetch_artifact
from kit.rpc.errors import Corrupt, Unavailable, from_driver_error, from_rpc_error
from kit.rpc.names import id_of, project_of
from kit.telemetry import get_log
from services.trainer.folders import AttemptFolder
from services.trainer.spec import check_known
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer

log = get_log(__name__)
TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 5.0
SPLITS = ("train", "validation")
T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """Where inputs come from."""

    datasets: dataset.DatasetVersionServiceAsyncStub
    models: registry.ModelVersionServiceAsyncStub
    blobs: BlobStore


@dataclass(frozen=True)
class Staged:
    """The digests of what was put in place; ``base`` is empty where there was none."""

    rows: str
    base: str


async def stage(sources: Sources, job: trainer.TrainingJob, epoch: int, folder: AttemptFolder) -> Staged:
    """Fills the folder, ``spec.json`` last. Waits for peers that are away.

    Raises NotFound, Corrupt, Exhausted and whatever else a peer refuses with.
    """
    rows = await patiently(lambda: _rows(sources.datasets, job.spec.dataset_version, folder))
    base = ""
    if job.spec.base_model_version:
        base = await patiently(lambda: _base(sources, job.spec.base_model_version, folder))
    text = json.dumps(recipe_spec(job, epoch), indent=1)
    (folder.path / "spec.json").write_text(text, "utf-8")
    return Staged(rows, base)


def recipe_spec(job: trainer.TrainingJob, epoch: int) -> dict[str, Any]:
    """What stands in ``spec.json``; scalars that were not given are zero, which means the recipe's default.

    Raises Invalid for a job of another version of Sluice that asked for more than this one knows.
    """
    check_known(job.spec)
    recipe, tuner = str(job.spec.WhichOneof("recipe")), job.spec.WhichOneof("tuner")
    said = MessageToDict(job.spec, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    shared = ("optimization", "max_length", "precision", "checkpoint_every_steps", *([tuner] if tuner else []))
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


async def _rows(datasets: dataset.DatasetVersionServiceAsyncStub, name: str, folder: AttemptFolder) -> str:
    answer = await datasets.GetDatasetVersion(dataset.GetDatasetVersionRequest(name=name), timeout=TIMEOUT_S)
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


async def _base(sources: Sources, name: str, folder: AttemptFolder) -> str:
    request = registry.GetModelVersionRequest(name=name)
    answer = await sources.models.GetModelVersion(request, timeout=TIMEOUT_S)
    artifact = answer.model_version.artifact
    folder.wipe("in/base")  # of a try before this one
    await fetch_artifact(sources.blobs, project_of(name), artifact, folder.base)
    return artifact.digest
