"""Training jobs: submitted, followed, stopped and taken up again."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from pathlib import Path

from kit.rpc.errors import Invalid
from sluice import lifecycle
from sluice.client import exports, resolve
from sluice.client.connection import Connection, gather
from sluice.client.reproduction import TOLERANCE, Comparison, compare
from sluice.client.uploads import OnProgress
from sluice.dataset import v1 as dataset
from sluice.trainer import v1 as trainer


def is_over(job: trainer.TrainingJob) -> bool:
    """Whether nothing more happens to the job by itself."""
    return lifecycle.is_over(lifecycle.JOB, job.state)


class Jobs:
    """``client.jobs``. A job is named by its UUID, the beginning of it, or its resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs = trainer.TrainingJobServiceStub(connection.channel)

    async def create(
        self, spec: trainer.TrainingJobSpec, display_name: str = "", reproduces: str = ""
    ) -> trainer.TrainingJob:
        """Submits a job; ``client.train`` makes the spec from a handful of words."""
        job = trainer.TrainingJob(spec=spec, display_name=display_name, reproduces=reproduces)
        request = trainer.CreateTrainingJobRequest(parent=self._connection.project, training_job=job)
        answer: trainer.CreateTrainingJobResponse = await self._connection.call(self._jobs.CreateTrainingJob, request)
        return answer.training_job

    async def plan(
        self,
        spec: trainer.TrainingJobSpec,
        *,
        device: str = "",
        devices: int = 0,
        sharding: str = "",
        tokens_per_s: float = 0.0,
        tflops: float = 0.0,
    ) -> trainer.TrainingPlan:
        """What a job would take: on ``device``, `cpu` or an accelerator such as `a100-80gb`, at the speed that is told.

        ``sharding`` is ddp, zero1, zero2, zero3 or fsdp. Raises Invalid naming what is not known.
        """
        word = f"SHARDING_{(sharding or 'unspecified').upper()}"
        if word not in dict(trainer.Sharding.items()):
            raise Invalid(f"sharding is `{sharding}`; take one of ddp, zero1, zero2, zero3, fsdp")
        request = trainer.PlanTrainingJobRequest(
            parent=self._connection.project,
            spec=spec,
            device=device,
            devices=devices,
            sharding=word,
            tokens_per_s=tokens_per_s,
            tflops=tflops,
        )
        answer: trainer.PlanTrainingJobResponse = await self._connection.call(self._jobs.PlanTrainingJob, request)
        return answer.plan

    async def pull(self, job: str, output: str | Path, progress: OnProgress | None = None) -> Path:
        """Fetches what a job left below ``output``, with a manifest; returns the folder `task-type=<type>/<job>`.

        Raises StateConflict where it has left nothing, Denied without the role `downloader`.
        """
        return await exports.pull_job(self._connection, await self.get(job), Path(output), progress)

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

    async def steps(self, job: str) -> builtins.list[trainer.TrainingStep]:
        """The figures of each step and each evaluation so far; of a step that was taken again, by the last attempt."""
        request = trainer.ReadTrainingJobStepsRequest(name=await self._name(job))
        found: dict[tuple[int, bool], trainer.TrainingStep] = {}
        async for answer in self._connection.stream(self._jobs.ReadTrainingJobSteps, request):
            found |= {(step.step, step.evaluation): step for step in answer.steps}
        return [found[at] for at in sorted(found)]

    async def reproduce(self, job: str) -> trainer.TrainingJob:
        """Submits a job again as it was; what comes of it becomes no version of a model. See ``compare``.

        Raises StateConflict for a job that has not succeeded, Invalid where rows of its dataset were forgotten since.
        """
        first = await self.get(job)
        if first.result.dataset_digest:
            await self._check_rows(first)
        return await self.create(first.spec, first.display_name, first.name)

    async def compare(self, job: str, tolerance: float = TOLERANCE) -> Comparison:
        """How a job that reproduces another came out beside it, once it is over. Raises Invalid for one that does not.

        ``tolerance`` is how far the losses of a step may lie apart where the weights are not the same.
        """
        again = await self.get(await self._name(job))
        if not again.reproduces:
            raise Invalid(f"`{again.name}` reproduces no job; `sluice jobs reproduce` submits one that does")
        again = await self.wait(again.name)
        first = await self.get(again.reproduces)
        return compare(first, again, await self.steps(first.name), await self.steps(again.name), tolerance)

    async def _check_rows(self, job: trainer.TrainingJob) -> None:
        versions = dataset.DatasetVersionServiceStub(self._connection.channel)
        request = dataset.GetDatasetVersionRequest(name=job.spec.dataset_version)
        answer: dataset.GetDatasetVersionResponse = await self._connection.call(versions.GetDatasetVersion, request)
        if answer.dataset_version.digest != job.result.dataset_digest:
            raise Invalid(
                f"rows of `{job.spec.dataset_version}` were forgotten since `{job.name}` read them, so it cannot be "
                "run again as it was; train anew on the rows that are left"
            )

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
