"""The rpcs of the trainer: each opens a unit or a session, calls one command, and wraps the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kit.store import Database, watch
from services.trainer import commands, store
from services.trainer.figures import read_steps
from services.trainer.inputs import Resolve
from services.trainer.logs import follow, read_once
from services.trainer.planning import Planning
from sluice.lifecycle import JOB, is_over
from sluice.trainer import v1 as trainer

Context = Any


class TrainingJobServicer(trainer.TrainingJobServiceServicer):
    """Training jobs by name."""

    def __init__(self, database: Database, resolve: Resolve, jobs: Path, planning: Planning) -> None:
        """``resolve`` checks a spec; ``jobs`` is the folder with the logs; ``planning`` predicts."""
        self.database = database
        self.resolve = resolve
        self.jobs = jobs
        self.planning = planning

    async def CreateTrainingJob(
        self, request: trainer.CreateTrainingJobRequest, context: Context
    ) -> trainer.CreateTrainingJobResponse:
        # Peers are asked before the unit opens, so that nobody waits for them with the database locked; what they
        # refuse is raised inside it, so that a repeated request gets its first answer all the same.
        checked = asyncio.ensure_future(self.resolve(request.training_job.spec))
        await asyncio.wait([checked])
        return await self.database.answer(request, lambda unit: commands.create(unit, request, checked.result()))

    async def PlanTrainingJob(
        self, request: trainer.PlanTrainingJobRequest, context: Context
    ) -> trainer.PlanTrainingJobResponse:
        return trainer.PlanTrainingJobResponse(plan=await self.planning.plan(request))

    async def GetTrainingJob(
        self, request: trainer.GetTrainingJobRequest, context: Context
    ) -> trainer.GetTrainingJobResponse:
        return trainer.GetTrainingJobResponse(training_job=await self._get(request.name))

    async def ListTrainingJobs(
        self, request: trainer.ListTrainingJobsRequest, context: Context
    ) -> trainer.ListTrainingJobsResponse:
        async with self.database.read() as session:
            found, token = await store.JOBS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
                newest_first=True,
            )
        for job in found:
            if job.HasField("result"):
                job.result.ClearField("packages")  # of many jobs more than a message carries
        return trainer.ListTrainingJobsResponse(training_jobs=found, next_page_token=token)

    async def WatchTrainingJob(
        self, request: trainer.WatchTrainingJobRequest, context: Context
    ) -> AsyncIterator[trainer.WatchTrainingJobResponse]:
        async for job in watch(lambda: self._get(request.name), self.database.changed):
            yield trainer.WatchTrainingJobResponse(training_job=job)
            if is_over(JOB, job.state):
                return

    async def CancelTrainingJob(
        self, request: trainer.CancelTrainingJobRequest, context: Context
    ) -> trainer.CancelTrainingJobResponse:
        return await self.database.answer(request, lambda unit: commands.cancel(unit, request))

    async def PauseTrainingJob(
        self, request: trainer.PauseTrainingJobRequest, context: Context
    ) -> trainer.PauseTrainingJobResponse:
        return await self.database.answer(request, lambda unit: commands.pause(unit, request))

    async def ResumeTrainingJob(
        self, request: trainer.ResumeTrainingJobRequest, context: Context
    ) -> trainer.ResumeTrainingJobResponse:
        return await self.database.answer(request, lambda unit: commands.resume(unit, request))

    async def RetryTrainingJob(
        self, request: trainer.RetryTrainingJobRequest, context: Context
    ) -> trainer.RetryTrainingJobResponse:
        return await self.database.answer(request, lambda unit: commands.retry(unit, request))

    async def ReadTrainingJobSteps(
        self, request: trainer.ReadTrainingJobStepsRequest, context: Context
    ) -> AsyncIterator[trainer.ReadTrainingJobStepsResponse]:
        for steps in read_steps(self.jobs, await self._get(request.name)):
            yield trainer.ReadTrainingJobStepsResponse(steps=steps)

    async def ReadTrainingJobLogs(
        self, request: trainer.ReadTrainingJobLogsRequest, context: Context
    ) -> AsyncIterator[trainer.ReadTrainingJobLogsResponse]:
        async def read() -> trainer.TrainingJob:
            return await self._get(request.name)

        pieces = follow(self.jobs, read) if request.follow else read_once(self.jobs, await read())
        async for epoch, text in pieces:
            yield trainer.ReadTrainingJobLogsResponse(epoch=epoch, text=text)

    async def _get(self, name: str) -> trainer.TrainingJob:
        async with self.database.read() as session:
            return await store.JOBS.get(session, name)


class AttemptServicer(trainer.AttemptServiceServicer):
    """The side that agents speak to."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def ReportAttempt(
        self, request: trainer.ReportAttemptRequest, context: Context
    ) -> trainer.ReportAttemptResponse:
        return await self.database.answer(request, lambda unit: commands.report(unit, request))
