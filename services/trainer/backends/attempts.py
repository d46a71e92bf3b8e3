"""What every backend starts for an attempt: the agent's command, its folder, and what it is told by its environment."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from kit.rpc.names import id_of
from services.trainer.agent.assignment import ATTEMPT, EPOCH, JOB
from services.trainer.folders import JobFolder
from sluice.trainer import v1 as trainer

AGENT = (sys.executable, "-m", "services.trainer.agent")
#: What of a job its agent needs; the rest, such as its history, may grow.
PASSED_ON = ("name", "spec", "traceparent", "reproduces")
#: What the trainer knows and an agent has no use for.
KEPT_BACK = ("SLUICE_NATS_PASSWORD", "SLUICE_DATABASE_URL", "SLUICE_FIRST_KEY")


def mark_of(job: trainer.TrainingJob, epoch: int) -> str:
    """`<uuid>/<epoch>`: by it every process of an attempt is known."""
    return f"{id_of(job.name)}/{epoch}"


def agent_log(jobs: Path, job: trainer.TrainingJob, epoch: int) -> Path:
    """The file that takes the agent's output; makes the folder of the attempt, which nobody else may read."""
    folder = JobFolder.of(jobs, job.name).attempt(epoch).path
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "agent.log"


def agent_environ(environ: Mapping[str, str], job: trainer.TrainingJob, epoch: int) -> dict[str, str]:
    """``environ`` without the trainer's own secrets, with the attempt in it."""
    told = trainer.TrainingJob(**{field: getattr(job, field) for field in PASSED_ON})
    return {
        **{name: value for name, value in environ.items() if not name.startswith(KEPT_BACK)},
        JOB: b64encode(told.SerializeToString()).decode(),
        EPOCH: str(epoch),
        ATTEMPT: mark_of(job, epoch),
        "TRACEPARENT": job.traceparent,
    }
