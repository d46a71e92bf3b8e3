"""Request ids: the first answer to a mutation is kept beside its effect and given again; it knows no rpc by name."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from sqlalchemy import delete
from sqlmodel import col
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


async def _first_answer(
    session: AsyncSession, call: Call, request_id: str, request: Message, database: Database
) -> Message | None:
    row = await session.get(RequestRow, (call.principal.name, call.method, request_id))
    if row is None or row.time < database.clock() - KEPT_FOR:
        return None
    if row.request_sha != _sha(request):
        raise Invalid(
            f"request_id `{request_id}` was used before with another body; send a new one for a new request",
            reason=errors.ERROR_REASON_REQUEST_ID_REUSED,
            violations=[("request_id", "was used before with another body")],
        )
    descriptor = descriptor_pool.Default().FindMessageTypeByName(row.response_type)
    return message_factory.GetMessageClass(descriptor).FromString(row.response)


async def _keep(unit: Unit, call: Call, request_id: str, request: Message, response: Message) -> None:
    await unit.session.exec(delete(RequestRow).where(col(RequestRow.time) < unit.now - KEPT_FOR))
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
    await unit.session.flush()


def _sha(request: Message) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
