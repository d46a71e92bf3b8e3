"""The rpcs of the evaluator: each opens a unit or a session, calls one command, and wraps the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

from kit.blobs import BlobStore
from kit.rpc import paging
from kit.rpc.names import project_of
from kit.store import Database, watch
from services.evaluator import commands, domain, store
from services.evaluator.answers import read_whole
from services.evaluator.peers import Peers
from services.evaluator.report import read_rows
from sluice.evaluator import v1 as evaluator
from sluice.lifecycle import JOB, is_over

Context = Any


class EvaluationServicer(evaluator.EvaluationServiceServicer):
    """Evaluations by name."""

    def __init__(self, database: Database, blobs: BlobStore, peers: Peers) -> None:
        self.database = database
        self.blobs = blobs
        self.peers = peers

    async def CreateEvaluation(
        self, request: evaluator.CreateEvaluationRequest, context: Context
    ) -> evaluator.CreateEvaluationResponse:
        # Peers are asked before the unit opens, so that nobody waits for them with the database locked; what they
        # refuse is raised inside it, so that a repeated request gets its first answer all the same.
        checked = asyncio.ensure_future(self._plan(request))
        await asyncio.wait([checked])
        return await self.database.answer(
            request, lambda unit: commands.create_by_hand(unit, request, checked.result())
        )

    async def GetEvaluation(
        self, request: evaluator.GetEvaluationRequest, context: Context
    ) -> evaluator.GetEvaluationResponse:
        return evaluator.GetEvaluationResponse(evaluation=await self._get(request.name))

    async def ListEvaluations(
        self, request: evaluator.ListEvaluationsRequest, context: Context
    ) -> evaluator.ListEvaluationsResponse:
        async with self.database.read() as session:
            found, token = await store.EVALUATIONS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
                newest_first=True,
            )
        return evaluator.ListEvaluationsResponse(evaluations=found, next_page_token=token)

    async def WatchEvaluation(
        self, request: evaluator.WatchEvaluationRequest, context: Context
    ) -> AsyncIterator[evaluator.WatchEvaluationResponse]:
        async for evaluation in watch(lambda: self._get(request.name), self.database.changed):
            yield evaluator.WatchEvaluationResponse(evaluation=evaluation)
            if is_over(JOB, evaluation.state):
                return

    async def CancelEvaluation(
        self, request: evaluator.CancelEvaluationRequest, context: Context
    ) -> evaluator.CancelEvaluationResponse:
        return await self.database.answer(request, lambda unit: commands.cancel(unit, request))

    async def RetryEvaluation(
        self, request: evaluator.RetryEvaluationRequest, context: Context
    ) -> evaluator.RetryEvaluationResponse:
        return await self.database.answer(request, lambda unit: commands.retry(unit, request))

    async def ListEvaluationRows(
        self, request: evaluator.ListEvaluationRowsRequest, context: Context
    ) -> evaluator.ListEvaluationRowsResponse:
        evaluation = await self._get(request.parent)
        digest = evaluation.report.rows_digest
        if not digest:
            return evaluator.ListEvaluationRowsResponse()
        await self.peers.dataset_version(evaluation.suite.dataset_version)  # may the caller know of it?
        domain.check_kept(evaluation)
        cursor = paging.decode(request.page_token, request.parent, digest, of=(int,)) or [0]
        content = await read_whole(self.blobs, project_of(request.parent), digest)
        start, size = int(cursor[0]), paging.page_size(request.page_size)
        found = list(islice(read_rows(content), start, start + size + 1))
        token = paging.encode([start + size], request.parent, digest) if len(found) > size else ""
        return evaluator.ListEvaluationRowsResponse(rows=found[:size], next_page_token=token)

    async def _plan(self, request: evaluator.CreateEvaluationRequest) -> domain.Plan:
        wanted = request.evaluation
        domain.check_request(request.parent, wanted)
        return await self.peers.plan(wanted, wanted.suite if wanted.HasField("suite") else None)

    async def _get(self, name: str) -> evaluator.Evaluation:
        async with self.database.read() as session:
            return await store.EVALUATIONS.get(session, name)
