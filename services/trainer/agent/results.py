"""How a recipe ended, read from what it left, and its outputs put into the blob store."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from kit.blobs import Blob, Taker, store_artifact
from kit.rpc.errors import Fault
from services.trainer.agent.staging import Staged
from services.trainer.folders import AttemptFolder
from services.trainer.told import figures_of
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

REASONS = {
    "BAD_INPUT": errors.ERROR_REASON_INVALID_FIELD,
    "OUT_OF_MEMORY": errors.ERROR_REASON_OUT_OF_MEMORY,
    "DIVERGED": errors.ERROR_REASON_DIVERGED,
}
OUTCOMES = {
    "succeeded": trainer.ATTEMPT_OUTCOME_SUCCEEDED,
    "paused": trainer.ATTEMPT_OUTCOME_PAUSED,
    "cancelled": trainer.ATTEMPT_OUTCOME_CANCELLED,
}
KINDS = {
    "full": types.ARTIFACT_KIND_FULL,
    "adapter": types.ARTIFACT_KIND_ADAPTER,
    "package": types.ARTIFACT_KIND_PACKAGE,
}


@dataclass(frozen=True)
class Ending:
    """The end of an attempt, as it is reported."""

    outcome: trainer.AttemptOutcome
    failure: types.Failure | None = None
    result: trainer.TrainingResult | None = None


LOST = Ending(trainer.ATTEMPT_OUTCOME_LOST)
CANCELLED = Ending(trainer.ATTEMPT_OUTCOME_CANCELLED)


def failed(reason: int, message: str) -> Ending:
    """An end for which somebody is told the reason."""
    failure = types.Failure(reason=reason, message=message)  # type: ignore[arg-type]
    return Ending(trainer.ATTEMPT_OUTCOME_FAILED, failure)


def refused(fault: Fault) -> Ending:
    """The end of an attempt that met a fault."""
    return failed(fault.reason, fault.message)


def read_ending(folder: AttemptFolder, status: int) -> tuple[Ending, dict[str, Any]]:
    """How the recipe says it ended, and its ``result.json``; ``status`` is its exit status, below 0 for a signal."""
    if status < 0:
        return LOST, {}
    try:
        said = json.loads((folder.path / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict):
        message = f"the recipe ended with status {status} and left no result; the job's log says more"
        return failed(errors.ERROR_REASON_INTERNAL, message), {}
    if status == 0 and said.get("outcome") in OUTCOMES:
        return Ending(OUTCOMES[said["outcome"]]), said
    error = said.get("error") or {}
    message = str(error.get("message") or f"the recipe ended with status {status}; the job's log says more")
    return failed(REASONS.get(error.get("reason", ""), errors.ERROR_REASON_INTERNAL), message), said


class Unkept:
    """Says of a file what the blob store would, and keeps nothing of it."""

    async def put(self, project: str, chunks: Path, /) -> Blob:
        """As of a `BlobStore`."""
        return await asyncio.to_thread(_address, chunks)


def _address(path: Path) -> Blob:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Blob(f"sha256:{digest}", file.tell())


async def upload(
    blobs: Taker, project: str, folder: AttemptFolder, said: dict[str, Any], staged: Staged
) -> trainer.TrainingResult:
    """Stores the artifact and the parity file. Raises Invalid (MODEL_REJECTED), Exhausted, Unavailable."""
    kind = KINDS[said["artifact"]["kind"]]
    result = trainer.TrainingResult(dataset_digest=staged.rows, base_digest=staged.models.get("base", ""))
    result.model_digests.update({role: digest for role, digest in staged.models.items() if role != "base"})
    result.read_model_versions.update(staged.read)
    # The place is the contract's, not the recipe's to choose: nothing outside of it is ever uploaded.
    result.artifact.CopyFrom(await store_artifact(blobs, project, folder.path / "out" / "model", kind))
    parity = folder.path / "parity.jsonl"
    if parity.is_file() and not parity.is_symlink():
        blob = await blobs.put(project, parity)
        result.parity.CopyFrom(types.ArtifactFile(path=parity.name, digest=blob.digest, size_bytes=blob.size))
    result.metrics.update(figures_of(said.get("metrics") or {}))
    for name, text in (said.get("environment") or {}).items():
        result.environment[name] = str(text)
    for name, value in (said.get("settings") or {}).items():
        result.settings[name] = str(value)
    result.packages.extend(map(str, said.get("packages") or ()))
    for held in said.get("ranks") or ():
        ParseDict(held, result.ranks.add(), ignore_unknown_fields=True)
    return result
