"""What an agent is told by its environment: which attempt it is, and where everything lies."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from kit.settings import Settings
from sluice.trainer import v1 as trainer

#: The job (name, spec) as base64 of its bytes.
JOB = "SLUICE_JOB"
#: The number of the attempt.
EPOCH = "SLUICE_EPOCH"
#: `<uuid>/<epoch>`: the mark by which every process of an attempt is known.
ATTEMPT = "SLUICE_ATTEMPT"


@dataclass(frozen=True)
class Assignment:
    """One attempt of one job."""

    settings: Settings
    job: trainer.TrainingJob
    epoch: int
    #: The W3C trace context of the job.
    traceparent: str
    #: The environment that it came with.
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Assignment:
        """Reads the environment; raises ValueError when a backend did not start this process."""
        try:
            job = trainer.TrainingJob.FromString(b64decode(environ[JOB]))
            epoch = int(environ[EPOCH])
        except (KeyError, ValueError, Base64Error, DecodeError):
            raise ValueError(f"{JOB} and {EPOCH} name no attempt; agents are started by the trainer") from None
        settings = Settings.from_env("trainer", environ)
        return cls(settings, job, epoch, environ.get("TRACEPARENT", ""), environ)
