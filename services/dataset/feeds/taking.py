"""Rows that several callers hand to one feed at a time: stored together, and answered each; of rows nothing is known.

To store a batch takes the same time for one row as for thousands. So whoever comes while one is being stored waits, and
goes into the next with all others of the same caller that came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass

from kit.blobs import BlobStore
from kit.rpc.call import Call, acting, current_call
from kit.store import Database, Unit
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds import domain as feeds
from sluice.dataset import v1 as dataset

#: What goes into one batch of several callers.
TOGETHER_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class _Asked:
    """One call and what it brings; ``answer`` comes when its rows are stored."""

    call: Call
    request: dataset.AppendRowsRequest
    lines: list[bytes]
    answer: asyncio.Future[dataset.AppendRowsResponse]


class Taking:
    """Takes rows for all feeds; what one feed waits for keeps no other waiting here."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._waiting: dict[str, list[_Asked]] = {}
        self._work: set[asyncio.Task[None]] = set()

    async def append(self, request: dataset.AppendRowsRequest, lines: list[bytes]) -> dataset.AppendRowsResponse:
        """Returns when the rows are stored. Raises what ``commands.append_rows`` does."""
        asked = _Asked(current_call(), request, lines, asyncio.get_running_loop().create_future())
        if request.name in self._waiting:
            self._waiting[request.name].append(asked)
        else:
            self._waiting[request.name] = [asked]
            # Of nobody's call: the task goes on for those who come after this one.
            task = asyncio.create_task(self._take_all(request.name), context=Context())
            self._work.add(task)
            task.add_done_callback(self._work.discard)
        return await asked.answer

    async def _take_all(self, name: str) -> None:
        waiting = self._waiting[name]
        try:
            while waiting:
                batch = _batch(waiting)
                taken = set(batch)
                waiting[:] = [asked for asked in waiting if asked not in taken]
                await self._take(batch)
        finally:
            del self._waiting[name]
            for asked in waiting:  # the service ends
                asked.answer.cancel()

    async def _take(self, batch: Sequence[_Asked]) -> None:
        try:
            answers = await self._together(batch)
        except Exception as error:
            if len(batch) > 1:  # it may be the fault of one of them
                for asked in batch:
                    await self._take([asked])
                return
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        except BaseException:
            for asked in batch:
                asked.answer.cancel()
            raise
        for asked, answer in zip(batch, answers, strict=True):
            if not asked.answer.done():  # its caller may have gone
                asked.answer.set_result(answer)

    async def _together(self, batch: Sequence[_Asked]) -> list[dataset.AppendRowsResponse]:
        name = batch[0].request.name

        async def work(unit: Unit, places: Sequence[int]) -> list[dataset.AppendRowsResponse]:
            lines = [line for place in places for line in batch[place].lines]
            feed = await feeds_commands.append_rows(unit, self._blobs, name, lines)
            return [dataset.AppendRowsResponse(row_count=len(batch[place].lines), feed=feed) for place in places]

        async def alone(unit: Unit) -> dataset.AppendRowsResponse:
            return (await work(unit, [0]))[0]

        with acting(batch[0].call):
            if len(batch) == 1:
                return [await self._database.answer(batch[0].request, alone)]
            return await self._database.answers([asked.request for asked in batch], work)


def _batch(waiting: Sequence[_Asked]) -> list[_Asked]:
    """The first and what fits to it: of the same caller, in order, few enough, and no request that was sent twice.

    Other callers are passed over, so that those who alternate are not stored one by one; who has waited longest is
    the first of the next batch, so that nobody is passed over for ever.
    """
    batch: list[_Asked] = []
    size, rows, ids = 0, 0, set[str]()
    for asked in waiting:
        if asked.call.principal != waiting[0].call.principal:
            continue
        size += len(asked.request.rows)
        rows += len(asked.lines)
        full = size > TOGETHER_BYTES or rows > feeds.MAX_BATCH_ROWS
        if batch and (full or asked.request.request_id in ids):
            break
        batch.append(asked)
        ids.update(filter(None, [asked.request.request_id]))
    return batch
