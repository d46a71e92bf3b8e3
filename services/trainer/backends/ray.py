"""Agents as jobs of a Ray cluster, by its Jobs REST API (docs.ray.io); knows no task, and imports no ray.

Every host of the cluster has Sluice installed at the same path, with Ray in it, and sees the same `SLUICE_HOME`,
identities and key-encryption key: an agent is the same command wherever it runs.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kit.rpc.errors import Unavailable
from services.trainer.backends.attempts import AGENT, agent_environ, agent_log, mark_of
from services.trainer.folders import JobFolder
from sluice.trainer import v1 as trainer

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0
STOP_S = 30.0
LOOK_S = 0.2
#: States of Ray's jobs in which an agent runs or is about to.
LIVE = frozenset({"PENDING", "RUNNING"})
#: What agents inherit; the rest, such as PATH and the credentials of a cloud, is the host's own.
PREFIXES = ("SLUICE_", "OTEL_", "OMP_", "ENABLE_AUTH", "LOG_LEVEL")


class RayBackend:
    """A handle is the id that an attempt was submitted under: the same for the same attempt, so Ray starts it once.

    An attempt that waits for room in the cluster says nothing and is lost after the heartbeat limit, so let the trainer
    run no more jobs at a time than the cluster has room for.
    """

    def __init__(
        self,
        jobs: Path,
        environ: Mapping[str, str],
        address: str,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        command: Sequence[str] = AGENT,
    ) -> None:
        """``jobs`` is where the folders of jobs are, on all hosts; each agent gets ``cpus`` and ``gpus``."""
        self.host = address
        self._jobs = jobs
        self._environ = {name: value for name, value in environ.items() if name.startswith(PREFIXES)}
        self._resources = {"entrypoint_num_cpus": cpus, "entrypoint_num_gpus": gpus}
        self._command = list(command)
        self._opened: httpx.AsyncClient | None = None

    async def start(self, job: trainer.TrainingJob, epoch: int) -> str:
        submission = f"sluice-{mark_of(job, epoch)}".replace("/", "-")
        if await self._state(submission) is None:
            log = agent_log(self._jobs, job, epoch)
            wanted = {
                "submission_id": submission,
                "entrypoint": f"exec {shlex.join(self._command)} >> {shlex.quote(str(log))} 2>&1",
                "runtime_env": {"env_vars": agent_environ(self._environ, job, epoch)},
                "metadata": {"training_job": job.name},
                **self._resources,
            }
            answer = await self._call("POST", "/api/jobs/", wanted)
            if answer.status_code != 200 and await self._state(submission) is None:
                raise self._refused(answer)
        return json.dumps({"submission": submission})

    async def alive(self, handle: str) -> bool:
        try:
            return await self._state(json.loads(handle)["submission"]) in LIVE
        except Unavailable:
            return True

    async def stop(self, handle: str) -> None:
        submission = json.loads(handle)["submission"]
        deadline = time.monotonic() + STOP_S
        while await self._state(submission) in LIVE:
            if time.monotonic() > deadline:
                raise Unavailable(f"Ray does not end job `{submission}`, though it was asked to; `ray job stop` may")
            await self._call("POST", f"/api/jobs/{submission}/stop")
            await asyncio.sleep(LOOK_S)

    async def wipe(self, job: str, *, keep_checkpoints: bool) -> None:
        folder = JobFolder.of(self._jobs, job)
        await asyncio.to_thread(folder.wipe, keep_checkpoints=keep_checkpoints)

    async def close(self) -> None:
        """Closes the connections to the cluster."""
        if self._opened is not None:
            await self._opened.aclose()

    async def _state(self, submission: str) -> str | None:
        """What Ray says of a job; None when it knows none of that id. Raises Unavailable."""
        answer = await self._call("GET", f"/api/jobs/{submission}")
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise self._refused(answer)
        return str(answer.json()["status"])

    async def _call(self, method: str, path: str, body: object = None) -> httpx.Response:
        import httpx

        if self._opened is None:
            self._opened = httpx.AsyncClient(base_url=self.host, timeout=TIMEOUT_S, trust_env=False)
        try:
            return await self._opened.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Ray does not answer at {self.host} ({type(error).__name__}); `ray start --head` starts it, "
                "SLUICE_RAY_ADDRESS says where it is"
            ) from error

    def _refused(self, answer: httpx.Response) -> Unavailable:
        return Unavailable(f"Ray at {self.host} answered {answer.status_code}; its dashboard's log has the cause")
