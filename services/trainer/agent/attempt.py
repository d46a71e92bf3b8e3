"""One attempt from its start to its acknowledged end: stage, train, upload. It never imports a recipe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kit.rpc.errors import Fault
from kit.rpc.names import project_of
from kit.telemetry import get_log, span
from services.trainer.agent import recipe, results, tokens
from services.trainer.agent.judge import Judges
from services.trainer.agent.progress import ProgressFile
from services.trainer.agent.reporter import Pace, Reporter, Superseded
from services.trainer.agent.results import Ending
from services.trainer.agent.staging import Sources, Staged, patiently, stage
from services.trainer.folders import INPUTS, OUTPUTS, JobFolder
from services.trainer.spec import command_name
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

log = get_log(__name__)
LOCK_LOOK_S = 0.2


class Attempt:
    """The work of one agent; ``run`` is all there is to do with it."""

    def __init__(
        self,
        job: trainer.TrainingJob,
        epoch: int,
        *,
        folder: JobFolder,
        attempts: trainer.AttemptServiceAsyncStub,
        sources: Sources,
        environ: Mapping[str, str],
        recipes: Mapping[str, Sequence[str]],
        judges: Judges,
        pace: Pace,
    ) -> None:
        self.job, self.epoch = job, epoch
        self.job_folder, self.folder = folder, folder.attempt(epoch)
        self.sources, self.environ, self.recipes, self.pace = sources, environ, recipes, pace
        self.judges = judges
        self.reporter = Reporter(attempts, job.name, epoch, self._obey, pace)
        self.cancelled = asyncio.Event()

    async def run(self) -> None:
        """Returns when the trainer knows the outcome, or has another attempt; no decrypted file is left then."""
        self.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # a command may come before the work begins
        working = asyncio.create_task(self._work())
        try:
            await self.reporter.run()
        except Superseded:
            log.warning("superseded", job=self.job.name, epoch=self.epoch)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            self.folder.wipe(*INPUTS, *OUTPUTS)

    async def _work(self) -> None:
        try:
            ending = await self._stage_train_upload()
        except Fault as fault:
            ending = results.refused(fault)
        except Exception as error:
            log.error("attempt_failed", job=self.job.name, epoch=self.epoch, exc_info=error)
            message = "the agent failed in a way it did not foresee; its log has the cause"
            ending = results.failed(errors.ERROR_REASON_INTERNAL, message)
        self.reporter.end(ending)

    async def _stage_train_upload(self) -> Ending:
        lock = await self._lock()
        try:
            # What an attempt before this one was killed over.
            self.job_folder.wipe(keep_checkpoints=True)
            self.folder.create()
            self._say("staging")
            with span("stage"):
                staged = await self._unless_cancelled()
            if staged is None:
                return results.CANCELLED
            key = await tokens.lend(self.sources, self.job, staged, self.folder)
            with span("train"):
                async with self.judges.line() as judge:
                    status = await self._train(lock, judge)
            self.folder.wipe(*INPUTS)
            if status == 0:
                await tokens.keep(self.sources, self.job, staged, self.folder, key)
            if status is None:
                return results.CANCELLED
            ending, said = results.read_ending(self.folder, status)
            if ending.outcome == trainer.ATTEMPT_OUTCOME_SUCCEEDED:
                return await self._upload(said, staged)
            return ending
        finally:
            os.close(lock)  # not before the upload is done: whoever gets it next wipes what is there

    async def _lock(self) -> int:
        """Waits for the processes of an earlier attempt to end; the trainer has killed them."""
        while (lock := self.job_folder.try_lock()) is None:
            self._say("waiting")
            await asyncio.sleep(LOCK_LOOK_S)
        return lock

    async def _unless_cancelled(self) -> Staged | None:
        staging = asyncio.create_task(stage(self.sources, self.job, self.epoch, self.folder))
        cancelled = asyncio.create_task(self.cancelled.wait())
        try:
            await asyncio.wait({staging, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            return await staging if staging.done() else None
        finally:
            for task in (staging, cancelled):
                task.cancel()
            await asyncio.gather(staging, cancelled, return_exceptions=True)

    async def _train(self, lock: int, judge: int | None) -> int | None:
        """Runs the recipe to its end; its exit status, None when it was ended because it would not cancel."""
        command = recipe.shared_out(self.recipes[command_name(self.job.spec)], self.job.spec)
        process = await recipe.start(command, self.folder, self.environ, lock, judge)
        told = ProgressFile(self.folder.path / "progress.jsonl")
        self.reporter.said.state = types.JOB_STATE_RUNNING
        self._say("starting")
        patience_s = self.pace.cancel_s
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), self.pace.look_s)
                self._pass_on(told)
                if process.returncode is not None:
                    return process.returncode
                patience_s -= self.pace.look_s if self.cancelled.is_set() else 0.0
                if patience_s < 0:
                    return None
        finally:
            told.close()
            await recipe.end(process)

    def _pass_on(self, told: ProgressFile) -> None:
        if told.read_on():
            self.reporter.said.progress.CopyFrom(told.progress)
            self.reporter.said.resumed_from_step = told.resumed_from_step
            self.reporter.news()

    async def _upload(self, said: dict[str, Any], staged: Staged) -> Ending:
        self._say("uploading")
        project = project_of(self.job.name)
        blobs = results.Unkept() if self.job.reproduces else self.sources.blobs  # only how it compares is of use
        with span("upload"):
            result = await patiently(lambda: results.upload(blobs, project, self.folder, said, staged))
        self.folder.wipe(*OUTPUTS)
        return Ending(trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=result)

    def _say(self, phase: str) -> None:
        if self.reporter.said.progress.phase != phase:
            self.reporter.said.progress.phase = phase
            self.reporter.news()

    def _obey(self, command: trainer.AttemptCommand) -> None:
        if command == trainer.ATTEMPT_COMMAND_CANCEL and not self.cancelled.is_set():
            self.cancelled.set()
            recipe.tell(self.folder, "cancel")
        elif command == trainer.ATTEMPT_COMMAND_PAUSE:
            recipe.tell(self.folder, "pause")
