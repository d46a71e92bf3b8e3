"""How a recipe ended, read from what it left, and its outputs put into the blob store."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from kit.blobs import BlobStore, store_artifact
from kit.rpc.errors import Fault
from services.trainer.agent.staging import Staged
from services.trainer.folders import AttemptFolder
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
KINDS = {"full": types.ARTIFACT_KIND_FULL, "adapter": types.ARTIFACT_KIND_ADAPTER}


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


async def upload(
    blobs: BlobStore, project: str, folder: AttemptFolder, said: dict[str, Any], staged: Staged
) -> trainer.TrainingResult:
    """Stores the artifact and the parity file. Raises Invalid (MODEL_REJECTED), Exhausted, Unavailable."""
    kind = KINDS[said["artifact"]["kind"]]
    result = trainer.TrainingResult(dataset_digest=staged.rows, base_digest=staged.base)
    # The place is the contract's, not the recipe's to choose: nothing outside of it is ever uploaded.
    result.artifact.CopyFrom(await store_artifact(blobs, project, folder.path / "out" / "model", kind))
    parity = folder.path / "parity.jsonl"
    if parity.is_file() and not parity.is_symlink():
        blob = await blobs.put(project, parity)
        result.parity.CopyFrom(types.ArtifactFile(path=parity.name, digest=blob.digest, size_bytes=blob.size))
    for name, value in (said.get("metrics") or {}).items():
        if isinstance(value, int | float) and math.isfinite(value):
            result.metrics[name] = float(value)
    for name, text in (said.get("environment") or {}).items():
        result.environment[name] = str(text)
    for name, value in (said.get("settings") or {}).items():
        result.settings[name] = str(value)
    result.packages.extend(map(str, said.get("packages") or ()))
    return result
