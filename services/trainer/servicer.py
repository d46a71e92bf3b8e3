"""The rpcs of the trainer: each opens a unit or a session, calls one command, and wraps the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.names import project_of
from kit.store import Database, watch
from services.trainer import commands, domain, store
from services.trainer.figures import read_steps
from services.trainer.inputs import Admit, Resolve
from services.trainer.logs import follow, read_once
from services.trainer.planning import Planning
from services.trainer.spec import check_project
from sluice.lifecycle import JOB, is_over
from sluice.trainer import v1 as trainer

Context = Any


class TrainingJobServicer(trainer.TrainingJobServiceServicer):
    """Training jobs by name."""

    def __init__(
        self, database: Database, resolve: Resolve, admit: Admit, jobs: Path, planning: Planning, blobs: BlobStore
    ) -> None:
        """``resolve`` checks a spec, ``admit`` who resumes; ``jobs`` has the logs; ``planning`` predicts."""
        self.database = database
        self.resolve = resolve
        self.admit = admit
        self.jobs = jobs
        self.planning = planning
        self.blobs = blobs

    async def CreateTrainingJob(
        self, request: trainer.CreateTrainingJobRequest, context: Context
    ) -> trainer.CreateTrainingJobResponse:
        # Before a peer is asked for what is of another project: its answer would tell that it is there.
        check_project(request.parent, request.training_job.spec)
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
        admitted = await self._admitted(request.name)
        return await self.database.answer(request, lambda unit: commands.resume(unit, request, admitted))

    async def RetryTrainingJob(
        self, request: trainer.RetryTrainingJobRequest, context: Context
    ) -> trainer.RetryTrainingJobResponse:
        admitted = await self._admitted(request.name)
        return await self.database.answer(request, lambda unit: commands.retry(unit, request, admitted))

    async def ReadTrainingJobSteps(
        self, request: trainer.ReadTrainingJobStepsRequest, context: Context
    ) -> AsyncIterator[trainer.ReadTrainingJobStepsResponse]:
        for steps in read_steps(self.jobs, await self._get(request.name)):
            yield trainer.ReadTrainingJobStepsResponse(steps=steps)

    async def ReadTrainingJobFile(
        self, request: trainer.ReadTrainingJobFileRequest, context: Context
    ) -> AsyncIterator[trainer.ReadTrainingJobFileResponse]:
        job = await self._get(request.name)
        file = domain.file_of(job, request.path, request.offset)
        await self.database.transact(lambda unit: commands.note_download(unit, job, file, request.offset))
        async for piece in self.blobs.open(project_of(job.name), file.digest, request.offset):
            yield trainer.ReadTrainingJobFileResponse(data=piece)

    async def ReadTrainingJobLogs(
        self, request: trainer.ReadTrainingJobLogsRequest, context: Context
    ) -> AsyncIterator[trainer.ReadTrainingJobLogsResponse]:
        async def read() -> trainer.TrainingJob:
            return await self._get(request.name)

        pieces = follow(self.jobs, read) if request.follow else read_once(self.jobs, await read())
        async for epoch, text in pieces:
            yield trainer.ReadTrainingJobLogsResponse(epoch=epoch, text=text)

    async def _admitted(self, name: str) -> asyncio.Future[None]:
        """Asked before the unit opens and told inside it, as in `CreateTrainingJob`."""
        admitted = asyncio.ensure_future(self.admit((await self._get(name)).spec))
        await asyncio.wait([admitted])
        return admitted

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
