"""Agents as processes of this machine, in sessions of their own so that they outlive the trainer; knows no task."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

import services
from kit.rpc.errors import Unavailable, from_driver_error
from services.trainer.agent.assignment import ATTEMPT
from services.trainer.backends.attempts import AGENT, agent_environ, agent_log, mark_of
from services.trainer.folders import JobFolder
from sluice.trainer import v1 as trainer

STOP_S = 10.0


class LocalBackend:
    """A handle says pid and start time of the agent, and the mark that all processes of the attempt carry.

    The mark is an environment variable, which is inherited: it also finds what took itself out of the process group.
    """

    def __init__(self, jobs: Path, environ: Mapping[str, str], command: Sequence[str] = AGENT) -> None:
        """``jobs`` is where the folders of jobs are, ``environ`` what agents inherit, ``command`` what they run."""
        self.host = socket.gethostname()
        self._jobs = jobs
        self._environ = dict(environ)
        self._command = list(command)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def start(self, job: trainer.TrainingJob, epoch: int) -> str:
        mark = mark_of(job, epoch)
        pid = await asyncio.to_thread(_agent_of, mark)
        if pid is None:
            try:
                pid = self._spawn(job, epoch)
            except OSError as error:
                cause = error.strerror or type(error).__name__
                raise from_driver_error(error) or Unavailable(f"the agent cannot be started: {cause}") from error
        return json.dumps({"pid": pid, "started": started(pid), "mark": mark})

    def _spawn(self, job: trainer.TrainingJob, epoch: int) -> int:
        with agent_log(self._jobs, job, epoch).open("ab") as log:
            process = subprocess.Popen(
                self._command,
                cwd=Path(services.__file__).parents[1],
                env=agent_environ(self._environ, job, epoch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[process.pid] = process
        return process.pid

    async def alive(self, handle: str) -> bool:
        known = json.loads(handle)
        if (child := self._children.get(known["pid"])) is not None and child.poll() is not None:
            del self._children[known["pid"]]
        return bool(known["started"]) and started(known["pid"]) == known["started"]

    async def stop(self, handle: str) -> None:
        await asyncio.to_thread(_kill_all, json.loads(handle)["mark"])
        await self.alive(handle)  # collects it where it was a child of this process

    async def wipe(self, job: str, *, keep_checkpoints: bool) -> None:
        folder = JobFolder.of(self._jobs, job)
        await asyncio.to_thread(folder.wipe, keep_checkpoints=keep_checkpoints)

    async def close(self) -> None:
        """Nothing is held."""


def started(pid: int) -> str:
    """When the process started, in a form that no other process of the same id has; empty when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # clock ticks after boot: no clock that is set moves it
    except (FileNotFoundError, ProcessLookupError):
        pass
    if sys.platform == "linux":
        return ""
    with suppress(psutil.Error):
        return str(psutil.Process(pid).create_time())
    return ""


def _agent_of(mark: str) -> int | None:
    """The leader of the session that an earlier trainer started for the attempt."""
    for process in _marked(mark):
        with suppress(ProcessLookupError):  # it ended this very moment
            if os.getsid(process.pid) == process.pid:
                return process.pid
    return None


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(ATTEMPT) == mark:
                yield process


def _kill_all(mark: str) -> None:
    deadline = time.monotonic() + STOP_S
    while found := list(_marked(mark)):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        if time.monotonic() > deadline:
            raise Unavailable(f"{len(found)} processes of attempt {mark} do not end, though they were killed")
        time.sleep(0.02)
