"""Evaluations: what a model version scored."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator

from sluice import lifecycle
from sluice.client import names, resolve
from sluice.client.connection import Connection, gather
from sluice.client.datasets import Datasets
from sluice.client.models import Models
from sluice.client.task_types import TaskTypes
from sluice.evaluator import v1 as evaluator


def is_over(evaluation: evaluator.Evaluation) -> bool:
    """Whether nothing more happens to the evaluation by itself."""
    return lifecycle.is_over(lifecycle.JOB, evaluation.state)


class Evaluations:
    """``client.evaluations``. One goes by its UUID, the beginning of it, or its model version (newest)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._evaluations = evaluator.EvaluationServiceStub(connection.channel)

    async def create(
        self, model_version: str, suite: evaluator.Suite | None = None, *, dataset: str = ""
    ) -> evaluator.Evaluation:
        """Starts an evaluation by hand, which no gate reads; the one for the same version and suite is returned.

        ``dataset`` is a version whose rows are asked in place of the model's own, in the way of the model's task type;
        ``suite`` says everything. Without either the suite is that of the task type.
        """
        models = Models(self._connection)
        version = await models.numbered(model_version)
        if dataset:
            suite = await self._suite((await models.version(version)).task_type, dataset)
        wanted = evaluator.Evaluation(model_version=version, suite=suite)
        request = evaluator.CreateEvaluationRequest(parent=self._connection.project, evaluation=wanted)
        answer: evaluator.CreateEvaluationResponse = await self._connection.call(
            self._evaluations.CreateEvaluation, request
        )
        return answer.evaluation

    async def get(self, evaluation: str) -> evaluator.Evaluation:
        """One evaluation; raises NotFound."""
        request = evaluator.GetEvaluationRequest(name=await self._name(evaluation))
        answer: evaluator.GetEvaluationResponse = await self._connection.call(self._evaluations.GetEvaluation, request)
        return answer.evaluation

    async def list(self, filter: str = "", limit: int = 0) -> builtins.list[evaluator.Evaluation]:
        """Evaluations, newest first."""
        return await gather(self._pages(filter, limit))

    async def watch(self, evaluation: str) -> AsyncIterator[evaluator.Evaluation]:
        """The evaluation as it stands and each time it changes, until it is over."""
        request = evaluator.WatchEvaluationRequest(name=await self._name(evaluation))

        async def snapshots() -> AsyncIterator[evaluator.Evaluation]:
            async for answer in self._connection.stream(self._evaluations.WatchEvaluation, request):
                yield answer.evaluation

        async for snapshot in self._connection.follow(snapshots, is_over):
            yield snapshot

    async def rows(self, evaluation: str, limit: int = 0) -> AsyncIterator[evaluator.EvaluationRow]:
        """What each row gave, in order; wants the role algorithm or auditor."""
        request = evaluator.ListEvaluationRowsRequest(parent=await self._name(evaluation))
        method = self._evaluations.ListEvaluationRows
        async for row in self._connection.pages(method, request, lambda page: page.rows, limit=limit):
            yield row

    async def cancel(self, evaluation: str, etag: str = "") -> evaluator.Evaluation:
        """Asks the evaluation to stop."""
        request = evaluator.CancelEvaluationRequest(name=await self._name(evaluation), etag=etag)
        answer: evaluator.CancelEvaluationResponse = await self._connection.call(
            self._evaluations.CancelEvaluation, request
        )
        return answer.evaluation

    async def retry(self, evaluation: str, etag: str = "") -> evaluator.Evaluation:
        """Runs a failed evaluation again; of one that was cancelled or expired, another in its place."""
        request = evaluator.RetryEvaluationRequest(name=await self._name(evaluation), etag=etag)
        answer: evaluator.RetryEvaluationResponse = await self._connection.call(
            self._evaluations.RetryEvaluation, request
        )
        return answer.evaluation

    async def _suite(self, task_type: str, dataset: str) -> evaluator.Suite:
        found = await TaskTypes(self._connection).get(task_type)
        return evaluator.Suite(
            dataset_version=await Datasets(self._connection).numbered(dataset),
            metrics=found.metrics,
            max_rows=found.suite_max_rows,
            max_tokens=found.suite_max_tokens,
        )

    def _pages(self, filter: str, limit: int) -> AsyncIterator[evaluator.Evaluation]:
        request = evaluator.ListEvaluationsRequest(parent=self._connection.project, filter=filter)
        method = self._evaluations.ListEvaluations
        return self._connection.pages(method, request, lambda page: page.evaluations, limit=limit)

    async def _name(self, evaluation: str) -> str:
        if "/models/" in evaluation or (not evaluation.startswith("projects/") and not names.is_uuid_start(evaluation)):
            version = await Models(self._connection).numbered(evaluation)
            short = names.short(version)
            missing = f"`{short}` has no evaluation yet; `sluice models show {short}` tells why"
            return await resolve.newest(self._pages(f'model_version = "{version}"', 1), missing)
        request = evaluator.ListEvaluationsRequest(parent=self._connection.project)
        method = self._evaluations.ListEvaluations
        return await resolve.by_uuid(
            self._connection,
            "evaluations",
            evaluation,
            "evaluation",
            method,
            request,
            lambda page: page.evaluations,
        )
