"""Two control processes on one PostgreSQL: one leads, and the other takes over when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

import services.gateway
from kit.rpc.errors import Fault
from kit.store import Database, migrate
from services.gateway import commands, domain
from sluice.gateway import v1 as gateway
from tests.control_parts import Host, Registry, control, plan, until, with_plan, worker
from tests.servers import new_database, postgres_server

pytestmark = pytest.mark.postgres
MIGRATIONS = Path(services.gateway.__file__).parent / "migrations" / "versions"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
async def replicas(server: str) -> AsyncIterator[list[Database]]:
    url = await new_database(server)
    opened = [await Database.open(url, service="gateway") for _ in range(2)]
    await migrate(opened[0], MIGRATIONS)
    yield opened
    for each in opened:
        await each.close()


async def test_another_replica_takes_over_with_the_weights_that_were(replicas: list[Database]) -> None:
    versions, host = Registry(), Host()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(control(replicas[0], versions, host))
        await until(lambda: first.supervisor.leads)
        async with control(replicas[1], versions, host) as second:
            await first.reaches(await first.approve(1), domain.PROMOTED)
            name = await first.approve(2)
            await second.reaches(name, domain.PROGRESSING)
            assert not second.supervisor.leads
            await stack.aclose()
            await until(lambda: second.supervisor.leads)
            async with worker(second) as one:
                await until(lambda: one.weights() == {"1": 90, "2": 10})


async def test_commands_of_two_replicas_have_one_winner(replicas: list[Database]) -> None:
    await with_plan(replicas[0], plan(10, 100))
    async with control(replicas[0]) as around:
        await around.reaches(await around.approve(1), domain.PROMOTED)
        for number in range(2, 6):
            name = await around.approve(number)
            await around.reaches(name, domain.PROGRESSING)
            promote, back = gateway.PromoteRolloutRequest(name=name), gateway.RollbackRolloutRequest(name=name)
            outcomes = await asyncio.gather(
                replicas[1].transact(lambda unit, r=promote: commands.promote_rollout(unit, r, "op")),
                replicas[0].transact(lambda unit, r=back: commands.rollback_rollout(unit, r, "op")),
                return_exceptions=True,
            )
            assert all(isinstance(each, Fault) for each in outcomes if isinstance(each, BaseException)), outcomes
            assert (await around.rollout(name)).state == domain.ROLLED_BACK
            assert [arm.model_version[-1] for arm in (await around.endpoint()).route] == ["1"]


async def test_a_replica_that_does_not_lead_sends_workers_away(replicas: list[Database]) -> None:
    async with control(replicas[0], leads=lambda: False) as around:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            request = gateway.RollbackRolloutRequest(name="projects/p/endpoints/e/rollouts/r")
            await gateway.RolloutServiceStub(around.channel).RollbackRollout(request)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
