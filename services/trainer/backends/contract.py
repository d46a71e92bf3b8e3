"""What every backend promises; what an agent does is not known here."""

from __future__ import annotations

from typing import Protocol

from sluice.trainer import v1 as trainer


class Backend(Protocol):
    """Runs agents, one for each attempt, that outlive the trainer. All verbs may be repeated."""

    @property
    def host(self) -> str:
        """Where its agents run, for people to read."""

    async def start(self, job: trainer.TrainingJob, epoch: int) -> str:
        """Starts the agent of an attempt, or finds the one that runs already; returns its handle, never empty.

        Raises Unavailable or Exhausted when it cannot now.
        """

    async def alive(self, handle: str) -> bool:
        """Whether the agent still runs; True where it cannot be known."""

    async def stop(self, handle: str) -> None:
        """Ends the agent and every process of its attempt at once; returns when none is left.

        Raises Unavailable when one is.
        """

    async def wipe(self, job: str, *, keep_checkpoints: bool) -> None:
        """Removes decrypted inputs and outputs of a job without a running attempt, and the checkpoints if told."""

    async def close(self) -> None:
        """Lets go of what the backend holds for itself; its agents go on."""
