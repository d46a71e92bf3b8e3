"""Request ids: the first answer to a mutation is kept beside its effect and given again; it knows no rpc by name."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from sqlalchemy import delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.call import Call, current_call
from kit.rpc.errors import Fault, Invalid
from kit.store.tables import RequestRow
from kit.store.unit import Unit
from sluice.errors import v1 as errors

if TYPE_CHECKING:
    from kit.store.database import Database

ResponseT = TypeVar("ResponseT", bound=Message)
KEPT_FOR = timedelta(days=7)


async def answer(
    database: Database,
    request: Message,
    work: Callable[[Unit], Awaitable[ResponseT]],
    kept: Callable[[ResponseT], ResponseT] | None = None,
) -> ResponseT:
    """See ``Database.answer``."""
    request_id = str(getattr(request, "request_id", ""))
    if not request_id:
        return await database.transact(work)
    call = current_call()

    async def once(unit: Unit) -> ResponseT:
        first = await _first_answer(unit.session, call, request_id, request, database)
        if first is not None:
            return cast(ResponseT, first)
        response = await work(unit)
        await _keep(unit, call, request_id, request, kept(response) if kept else response)
        return response

    try:
        return await database.transact(once)
    except Fault:
        # The first call may have committed while this one ran; then its effect is what stood in the way.
        async with database.read() as session:
            first = await _first_answer(session, call, request_id, request, database)
        if first is None:
            raise
        return cast(ResponseT, first)


async def answers(
    database: Database,
    requests: Sequence[Message],
    work: Callable[[Unit, Sequence[int]], Awaitable[list[ResponseT]]],
) -> list[ResponseT]:
    """See ``Database.answers``."""

    call, ids = current_call(), [str(getattr(request, "request_id", "")) for request in requests]

    async def once(unit: Unit) -> list[ResponseT]:
        kept = {row.request_id: row for row in await _find(unit.session, call, ids)}
        given: dict[int, ResponseT] = {}
        for place, request_id in enumerate(ids):
            first = _given(kept.get(request_id), requests[place], database)
            if first is not None:
                given[place] = cast(ResponseT, first)
        fresh = [place for place in range(len(requests)) if place not in given]
        for place, response in zip(fresh, await work(unit, fresh) if fresh else [], strict=True):
            given[place] = response
            if ids[place]:
                _add(unit, call, ids[place], requests[place], response)
        await _forget_old(unit)
        await unit.session.flush()
        return [given[place] for place in range(len(requests))]

    return await database.transact(once)


async def _first_answer(
    session: AsyncSession, call: Call, request_id: str, request: Message, database: Database
) -> Message | None:
    return _given(await session.get(RequestRow, (call.principal.name, call.method, request_id)), request, database)


async def _find(session: AsyncSession, call: Call, ids: Sequence[str]) -> Sequence[RequestRow]:
    wanted = col(RequestRow.principal) == call.principal.name, col(RequestRow.method) == call.method
    query = select(RequestRow).where(*wanted, col(RequestRow.request_id).in_([each for each in ids if each]))
    return (await session.exec(query)).all()


def _given(row: RequestRow | None, request: Message, database: Database) -> Message | None:
    if row is None or row.time < database.clock() - KEPT_FOR:
        return None
    if row.request_sha != _sha(request):
        raise Invalid(
            f"request_id `{row.request_id}` was used before with another body; send a new one for a new request",
            reason=errors.ERROR_REASON_REQUEST_ID_REUSED,
            violations=[("request_id", "was used before with another body")],
        )
    descriptor = descriptor_pool.Default().FindMessageTypeByName(row.response_type)
    return message_factory.GetMessageClass(descriptor).FromString(row.response)


async def _keep(unit: Unit, call: Call, request_id: str, request: Message, response: Message) -> None:
    await _forget_old(unit)
    _add(unit, call, request_id, request, response)
    await unit.session.flush()


async def _forget_old(unit: Unit) -> None:
    await unit.session.exec(delete(RequestRow).where(col(RequestRow.time) < unit.now - KEPT_FOR))


def _add(unit: Unit, call: Call, request_id: str, request: Message, response: Message) -> None:
    unit.session.add(
        RequestRow(
            principal=call.principal.name,
            method=call.method,
            request_id=request_id,
            request_sha=_sha(request),
            response=response.SerializeToString(deterministic=True),
            response_type=response.DESCRIPTOR.full_name,
            time=unit.now,
        )
    )


def _sha(request: Message) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
