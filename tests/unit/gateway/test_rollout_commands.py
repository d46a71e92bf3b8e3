"""What happens to rollouts and routes, whoever comes first: real commands on a database in memory."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from sqlmodel import col, select

from kit.rpc.errors import Fault, Invalid, Stale, StateConflict
from kit.store import Database, OutboxRow, Unit
from services.gateway import commands, domain, loading, routing, store
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway
from tests.control_parts import ENDPOINT, PROJECT, digest, new_database, plan, version
from tests.seed import SEED

ROLLBACK, PROMOTE = gateway.RollbackRolloutRequest, gateway.PromoteRolloutRequest


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = await new_database()
    yield opened
    await opened.close()


class Story:
    """A gateway whose engines all answer, told step by step."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def do(self, command: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return await self.database.transact(lambda unit: command(unit, *args))

    async def load(self, number: int) -> None:
        async with self.database.read() as session:
            found = await loading.deployment_of(session, version(number))
        assert found is not None
        if found.state != loading.READY:
            await self.do(loading.load, found.name)
            await self.do(loading.ready, found.name, gateway.LoadedModel(digest=digest(number), host="h"))

    async def prepared(self, number: int) -> str:
        """An approved version whose turn it is and whose engine answers."""
        await self.do(commands.let_in, version(number), "m")
        name = domain.rollout_name(ENDPOINT, version(number))
        await self.do(commands.begin_rollout, name, "sft")
        await self.load(number)
        return name

    async def started(self, number: int) -> str:
        name = await self.prepared(number)
        await self.do(commands.start_rollout, name)
        return name

    async def rollout(self, name: str) -> gateway.Rollout:
        async with self.database.read() as session:
            return await store.ROLLOUTS.get(session, name)

    async def endpoint(self) -> gateway.Endpoint:
        async with self.database.read() as session:
            return await store.ENDPOINTS.get(session, ENDPOINT)

    async def weights(self) -> dict[str, int]:
        return {arm.model_version[-1]: arm.weight_percent for arm in (await self.endpoint()).route}

    async def events(self) -> list[str]:
        async with self.database.read() as session:
            rows = await session.exec(select(OutboxRow.type).order_by(col(OutboxRow.sequence)))
            return [each.removeprefix("sluice.gateway.v1.") for each in rows.all()]


@pytest.fixture
def story(database: Database) -> Story:
    return Story(database)


def looked(weight: int = 10) -> gateway.AnalysisRun:
    return gateway.AnalysisRun(weight_percent=weight, reason="because")


async def test_an_approval_makes_one_rollout_however_often_it_is_told(story: Story) -> None:
    for _ in range(3):
        await story.do(commands.let_in, version(1), "m")
    async with story.database.read() as session:
        rollouts = await store.ROLLOUTS.find(session)
    assert [each.state for each in rollouts] == [domain.PENDING]
    assert await story.events() == ["endpoint.created", "rollout.created"]


async def test_the_first_version_gets_everything_and_the_second_climbs(story: Story) -> None:
    first = await story.started(1)
    assert (await story.rollout(first)).state == domain.PROMOTED
    assert await story.weights() == {"1": 100}
    second = await story.started(2)
    assert await story.weights() == {"1": 90, "2": 10}
    revision = (await story.endpoint()).route_revision
    await story.do(commands.advance_rollout, second, 0, looked())
    assert await story.weights() == {"1": 50, "2": 50}
    assert (await story.endpoint()).route_revision > revision
    await story.do(commands.advance_rollout, second, 1, looked(50))
    assert await story.weights() == {"2": 100}
    done = await story.rollout(second)
    assert (done.state, done.incumbent, len(done.analysis_runs)) == (domain.PROMOTED, version(1), 2)
    assert (await story.endpoint()).active_rollout == ""


async def test_every_change_of_a_route_is_told_with_it(story: Story) -> None:
    await story.started(1)
    second = await story.started(2)
    await story.do(commands.rollback_rollout, ROLLBACK(name=second), "op")
    async with story.database.read() as session:
        rows = (await session.exec(select(OutboxRow).order_by(col(OutboxRow.sequence)))).all()
    told = [Parse(row.data_json, gateway.EndpointRerouted()) for row in rows if row.type.endswith("endpoint.rerouted")]
    assert [[arm.weight_percent for arm in each.route] for each in told] == [[100], [90, 10], [100]]
    assert told[-1].route_revision == (await story.endpoint()).route_revision
    assert [row.type.rsplit(".", 1)[1] for row in rows if ".rollout." in row.type] == [
        "created", "promoted", "created", "advanced", "reverted",
    ]  # fmt: skip


async def test_a_step_is_taken_once(story: Story) -> None:
    await story.started(1)
    second = await story.started(2)
    await story.do(commands.advance_rollout, second, 0, looked())
    with pytest.raises(StateConflict, match="not in step 0 any more"):
        await story.do(commands.advance_rollout, second, 0, looked())
    assert await story.weights() == {"1": 50, "2": 50}


async def test_a_second_rollout_waits_for_the_first(story: Story) -> None:
    await story.started(1)
    await story.started(2)
    await story.do(commands.let_in, version(3), "m")
    with pytest.raises(Stale, match="under way"):
        await story.do(commands.begin_rollout, domain.rollout_name(ENDPOINT, version(3)), "sft")


async def test_without_a_way_back_nobody_sets_out(story: Story) -> None:
    await story.started(1)
    second = await story.prepared(2)
    async with story.database.read() as session:
        stable = await loading.deployment_of(session, version(1))
    assert stable is not None
    await story.do(loading.lose, stable.name)
    with pytest.raises(StateConflict, match="versions/1` is not loaded"):
        await story.do(commands.start_rollout, second)
    assert await story.weights() == {"1": 100}


async def test_a_promoted_version_gives_way_to_the_one_before(story: Story) -> None:
    await story.started(1)
    second = await story.started(2)
    await story.do(commands.promote_rollout, PROMOTE(name=second, reason="now"), "op")
    assert await story.weights() == {"2": 100}
    for _ in range(2):  # a repeat changes nothing
        done = await story.do(commands.rollback_rollout, ROLLBACK(name=second), "op")
        assert done.state == domain.ROLLED_BACK
        assert await story.weights() == {"1": 100}
    with pytest.raises(StateConflict, match="cannot be promoted"):
        await story.do(commands.promote_rollout, PROMOTE(name=second), "op")


async def test_a_rollback_names_what_stands_in_its_way(story: Story) -> None:
    first, second = await story.started(1), await story.started(2)
    with pytest.raises(StateConflict, match="on top of"):
        await story.do(commands.rollback_rollout, ROLLBACK(name=first), "op")
    await story.do(commands.promote_rollout, PROMOTE(name=second), "op")
    with pytest.raises(StateConflict, match="no traffic"):
        await story.do(commands.rollback_rollout, ROLLBACK(name=first), "op")
    with pytest.raises(Stale):
        await story.do(commands.rollback_rollout, ROLLBACK(name=second, etag="1"), "op")
    async with story.database.read() as session:
        stable = await loading.deployment_of(session, version(1))
    assert stable is not None
    await story.do(loading.lose, stable.name)
    with pytest.raises(StateConflict, match="not loaded"):
        await story.do(commands.rollback_rollout, ROLLBACK(name=second), "op")
    assert await story.weights() == {"2": 100}


async def test_a_rollback_before_the_first_share_ends_the_rollout(story: Story) -> None:
    name = await story.prepared(1)
    done = await story.do(commands.rollback_rollout, ROLLBACK(name=name, reason="not today"), "op")
    assert (done.state, done.reason) == (domain.FAILED, "not today")
    assert (await story.endpoint()).active_rollout == ""


async def test_a_revoked_canary_gives_its_share_back_at_once(story: Story) -> None:
    await story.started(1)
    second = await story.started(2)
    for _ in range(2):
        await story.do(commands.revoke_version, version(2))
    assert await story.weights() == {"1": 100}
    assert (await story.rollout(second)).state == domain.ROLLED_BACK


async def test_a_revoked_stable_version_leaves_nobody_and_what_comes_next_is_read_back(story: Story) -> None:
    await story.started(1)
    second = await story.started(2)
    await story.do(commands.promote_rollout, PROMOTE(name=second), "op")
    third = await story.started(3)
    await story.do(commands.revoke_version, version(2))
    assert await story.weights() == {}
    assert (await story.rollout(second)).state == domain.ROLLED_BACK
    assert (await story.rollout(third)).state == domain.ROLLED_BACK
    await story.do(commands.fall_back, ENDPOINT, version(1))
    assert await story.weights() == {"1": 100}


async def test_no_route_takes_a_revoked_version_in(story: Story) -> None:
    """The approval was read back before the revocation came, and acted on after it."""
    await story.started(1)
    second = await story.started(2)
    await story.do(commands.promote_rollout, PROMOTE(name=second), "op")
    await story.do(commands.revoke_version, version(1))
    assert await story.weights() == {"2": 100}
    with pytest.raises(StateConflict) as caught:
        await story.do(commands.rollback_rollout, ROLLBACK(name=second), "op")
    assert caught.value.reason == errors.ERROR_REASON_NOT_APPROVED
    await story.do(commands.revoke_version, version(2))
    with pytest.raises(StateConflict):
        await story.do(commands.fall_back, ENDPOINT, version(1))
    await story.do(commands.let_in, version(1), "m")
    assert await story.weights() == {}


async def test_a_version_serves_in_its_own_project_alone(story: Story, database: Database) -> None:
    await story.do(commands.create_endpoint, "projects/other", "m")
    name = f"projects/other/endpoints/m/rollouts/{uuid.uuid4()}"
    with pytest.raises(Invalid, match="own project"):
        await story.do(commands.create_rollout, name, version(1), "somebody")

    async def as_before_that_was_refused(unit: Unit) -> None:
        endpoint = await store.ENDPOINTS.get(unit.session, "projects/other/endpoints/m")
        await routing.reroute(unit, endpoint, domain.only(version(1)))

    await database.transact(as_before_that_was_refused)
    await story.do(commands.revoke_version, version(1))
    async with database.read() as session:
        assert not (await store.ENDPOINTS.get(session, "projects/other/endpoints/m")).route


async def test_an_interface_that_disagrees_is_refused(story: Story) -> None:
    await story.do(commands.create_endpoint, PROJECT, "m", gateway.Endpoint(interface="embeddings"))
    await story.do(commands.let_in, version(1), "m")
    with pytest.raises(StateConflict) as caught:
        await story.do(commands.begin_rollout, domain.rollout_name(ENDPOINT, version(1)), "sft")
    assert caught.value.reason == errors.ERROR_REASON_INTERFACE_MISMATCH


@pytest.mark.parametrize("weights", [(10, 50), (50, 10, 100), (10, 10, 100)])
async def test_a_plan_that_does_not_rise_to_100_is_refused(story: Story, weights: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="let the weights rise"):
        wanted = gateway.Endpoint(interface="chat", rollout_plan=plan(*weights))
        await story.do(commands.create_endpoint, PROJECT, "m", wanted)


@pytest.mark.parametrize("orders", [12, pytest.param(1000, marks=[pytest.mark.prove, pytest.mark.timeout(600)])])
async def test_whoever_comes_first_there_is_one_winner(story: Story, orders: int) -> None:
    """Fault 14: approval revoked during a canary, promote races rollback, steps come late; in many orders."""
    await story.started(1)
    dice = random.Random(SEED)
    for number in range(2, 2 + orders):
        name = await story.started(number)
        acts: list[tuple[Callable[..., Awaitable[Any]], Any]] = [
            (commands.promote_rollout, (PROMOTE(name=name), "op")),
            (commands.rollback_rollout, (ROLLBACK(name=name), "op")),
            (commands.advance_rollout, (name, 0, looked())),
            (commands.revert_rollout, (name, 0, looked())),
            (commands.revoke_version, (version(number),)),
            (commands.revoke_version, (version(number),)),
        ]
        dice.shuffle(acts)
        outcomes = await asyncio.gather(*(story.do(act, *args) for act, args in acts), return_exceptions=True)
        assert all(isinstance(each, Fault) for each in outcomes if isinstance(each, BaseException)), outcomes
        endpoint, rollout = await story.endpoint(), await story.rollout(name)
        assert rollout.state == domain.ROLLED_BACK
        assert version(number) not in {arm.model_version for arm in endpoint.route}
        assert endpoint.active_rollout == "" and sum(arm.weight_percent for arm in endpoint.route) in (0, 100)
        if not endpoint.route:
            await story.do(commands.fall_back, ENDPOINT, version(1))
