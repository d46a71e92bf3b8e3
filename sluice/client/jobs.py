"""Training jobs: submitted, followed, stopped and taken up again."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator

from sluice import lifecycle
from sluice.client import resolve
from sluice.client.connection import Connection, gather
from sluice.trainer import v1 as trainer


def is_over(job: trainer.TrainingJob) -> bool:
    """Whether nothing more happens to the job by itself."""
    return lifecycle.is_over(lifecycle.JOB, job.state)


class Jobs:
    """``client.jobs``. A job is named by its UUID, the beginning of it, or its resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs = trainer.TrainingJobServiceStub(connection.channel)

    async def create(self, spec: trainer.TrainingJobSpec, display_name: str = "") -> trainer.TrainingJob:
        """Submits a job; ``client.train`` makes the spec from a handful of words."""
        job = trainer.TrainingJob(spec=spec, display_name=display_name)
        request = trainer.CreateTrainingJobRequest(parent=self._connection.project, training_job=job)
        answer: trainer.CreateTrainingJobResponse = await self._connection.call(self._jobs.CreateTrainingJob, request)
        return answer.training_job

    async def get(self, job: str) -> trainer.TrainingJob:
        """One job; raises NotFound."""
        request = trainer.GetTrainingJobRequest(name=await self._name(job))
        answer: trainer.GetTrainingJobResponse = await self._connection.call(self._jobs.GetTrainingJob, request)
        return answer.training_job

    async def list(self, filter: str = "", limit: int = 0) -> builtins.list[trainer.TrainingJob]:
        """Jobs, newest first, such as those with ``filter='state = "RUNNING"'``."""
        request = trainer.ListTrainingJobsRequest(parent=self._connection.project, filter=filter)
        method = self._jobs.ListTrainingJobs
        return await gather(self._connection.pages(method, request, lambda page: page.training_jobs, limit=limit))

    async def watch(self, job: str) -> AsyncIterator[trainer.TrainingJob]:
        """The job as it stands and each time it changes, until it is over; survives restarts of the suite."""
        request = trainer.WatchTrainingJobRequest(name=await self._name(job))

        async def snapshots() -> AsyncIterator[trainer.TrainingJob]:
            async for answer in self._connection.stream(self._jobs.WatchTrainingJob, request):
                yield answer.training_job

        async for snapshot in self._connection.follow(snapshots, is_over):
            yield snapshot

    async def wait(self, job: str) -> trainer.TrainingJob:
        """The job once it is over, however it ended."""
        last = trainer.TrainingJob()
        async for snapshot in self.watch(job):
            last = snapshot
        return last

    async def cancel(self, job: str, etag: str = "") -> trainer.TrainingJob:
        """Asks the job to stop; raises StateConflict when it is over, Stale when ``etag`` is old."""
        request = trainer.CancelTrainingJobRequest(name=await self._name(job), etag=etag)
        answer: trainer.CancelTrainingJobResponse = await self._connection.call(self._jobs.CancelTrainingJob, request)
        return answer.training_job

    async def pause(self, job: str, etag: str = "") -> trainer.TrainingJob:
        """Asks the job to save a checkpoint and stop."""
        request = trainer.PauseTrainingJobRequest(name=await self._name(job), etag=etag)
        answer: trainer.PauseTrainingJobResponse = await self._connection.call(self._jobs.PauseTrainingJob, request)
        return answer.training_job

    async def resume(self, job: str, etag: str = "") -> trainer.TrainingJob:
        """Queues a paused job again."""
        request = trainer.ResumeTrainingJobRequest(name=await self._name(job), etag=etag)
        answer: trainer.ResumeTrainingJobResponse = await self._connection.call(self._jobs.ResumeTrainingJob, request)
        return answer.training_job

    async def retry(self, job: str, etag: str = "") -> trainer.TrainingJob:
        """Queues a failed job again, from its last checkpoint."""
        request = trainer.RetryTrainingJobRequest(name=await self._name(job), etag=etag)
        answer: trainer.RetryTrainingJobResponse = await self._connection.call(self._jobs.RetryTrainingJob, request)
        return answer.training_job

    async def logs(self, job: str, follow: bool = False) -> AsyncIterator[str]:
        """Pieces of the job's log; with ``follow`` until the job is over."""
        request = trainer.ReadTrainingJobLogsRequest(name=await self._name(job), follow=follow)
        async for piece in self._connection.stream(self._jobs.ReadTrainingJobLogs, request):
            yield piece.text

    async def _name(self, job: str) -> str:
        request = trainer.ListTrainingJobsRequest(parent=self._connection.project)
        method = self._jobs.ListTrainingJobs
        return await resolve.by_uuid(
            self._connection,
            "trainingJobs",
            job,
            "training job",
            method,
            request,
            lambda page: page.training_jobs,
        )
