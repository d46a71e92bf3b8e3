"""The control process at work: real gRPC to a registry, an engine host and workers that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from kit import telemetry
from kit.rpc import errors as kinds
from kit.store import Database
from kit.telemetry.trace_files import read_traces
from services.gateway import commands, domain, store
from services.gateway.tables import RouteTables
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from tests.control_parts import (
    ENDPOINT,
    PROJECT,
    QUICK,
    Control,
    Host,
    Registry,
    control,
    digest,
    new_database,
    plan,
    until,
    version,
    weights_of,
    with_plan,
    worker,
)

READY, FAILED = gateway.DEPLOYMENT_STATE_READY, gateway.DEPLOYMENT_STATE_FAILED


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = await new_database()
    yield opened
    await opened.close()


async def on_canary(around: Control) -> str:
    """Version 1 serves, version 2 is on its first step."""
    await around.reaches(await around.approve(1), domain.PROMOTED)
    name = await around.approve(2)
    await around.reaches(name, domain.PROGRESSING)
    return name


async def test_a_version_climbs_on_its_figures_to_all_the_traffic(database: Database) -> None:
    await with_plan(database, plan(10, 50, 100))
    async with control(database) as around, worker(around) as one:
        await on_canary(around)
        await until(lambda: one.weights() == {"1": 90, "2": 10})
        await one.saw(1, 200)
        await one.saw(2, 20)
        await until(lambda: one.weights() == {"1": 50, "2": 50})
        await one.saw(1, 50)
        await one.saw(2, 20)
        await until(lambda: one.weights() == {"2": 100})
        assert (await around.endpoint()).active_rollout == ""
        assert one.table.routes[0].arms[0].upstream.key == "secret"
    async with database.read() as session:
        [deployed, *_] = await store.DEPLOYMENTS.find(session, model_version=version(2))
    assert (deployed.engine, deployed.host) == ("vllm", "here")
    assert b"secret" not in deployed.SerializeToString()


async def test_the_host_and_the_workers_are_told_what_a_version_serves(database: Database) -> None:
    versions = Registry()
    versions.interface = "embeddings"
    async with control(database, versions) as around, worker(around) as one:
        await around.reaches(await around.approve(1), domain.PROMOTED)
        await until(lambda: one.weights() == {"1": 100})
        assert around.host.interfaces == {"embeddings"}
        assert one.table.routes[0].interface == "embeddings"
    async with database.read() as session:  # kept, so that a load does not need the registry
        request = await store.weights_of(session, version(1))
    assert request is not None and request.interface == "embeddings"


async def test_an_arm_that_fails_every_request_is_rolled_back_within_a_few(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        name = await on_canary(around)
        await until(lambda: one.weights() == {"1": 90, "2": 10})
        await one.saw(1, 30)
        await one.saw(2, 5, errors=5)
        done = await around.reaches(name, domain.ROLLED_BACK)
        await until(lambda: one.weights() == {"1": 100})
        assert "5 of 5 requests failed" in done.reason
        assert done.analysis_runs[-1].decision == gateway.STEP_DECISION_ROLL_BACK


async def test_without_figures_nothing_moves(database: Database) -> None:
    await with_plan(database, plan(10, 100))
    async with control(database) as around, worker(around) as one:
        name = await on_canary(around)
        await until(lambda: one.weights() == {"1": 90, "2": 10})
        await one.saw(2, 19)
        looks = around.registry.asked
        await until(lambda: around.registry.asked > looks + 10)
        assert (await around.rollout(name)).state == domain.PROGRESSING
        assert one.weights() == {"1": 90, "2": 10}


async def test_who_is_not_approved_gets_nothing_whatever_an_event_says(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        around.registry.put(1, registry.MODEL_VERSION_STATE_REJECTED)
        await database.transact(lambda unit: commands.let_in(unit, version(1), "m"))
        done = await around.reaches(domain.rollout_name(ENDPOINT, version(1)), domain.FAILED)
        assert done.failure.reason == errors.ERROR_REASON_NOT_APPROVED
        assert one.weights() == {}


async def test_a_revocation_whose_event_is_late_is_found_by_asking(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        name = await on_canary(around)
        around.registry.put(2, registry.MODEL_VERSION_STATE_REVOKED)
        await around.reaches(name, domain.ROLLED_BACK)
        await until(lambda: one.weights() == {"1": 100})


async def test_a_revoked_stable_version_gives_way_to_the_last_that_may_serve(database: Database) -> None:
    await with_plan(database, plan(100))
    async with control(database) as around, worker(around) as one:
        for number in (1, 2, 3):
            await around.reaches(await around.approve(number), domain.PROMOTED)
        await around.revoke(2)
        await around.revoke(3)
        await until(lambda: one.weights() == {"1": 100})
        await around.revoke(1)
        await until(lambda: one.weights() == {})
        assert [route.endpoint for route in one.table.routes] == [ENDPOINT]


async def test_a_rollback_returns_when_every_worker_has_confirmed(database: Database) -> None:
    patient = replace(QUICK, confirm_s=3600)
    async with control(database, timing=patient) as around, worker(around) as one, worker(around, "w2") as two:
        name = await on_canary(around)
        await until(lambda: "2" in one.weights() and "2" in two.weights())
        rollouts = around.stub(gateway.RolloutServiceStub)
        async with asyncio.timeout(60):
            await rollouts.RollbackRollout(gateway.RollbackRolloutRequest(name=name))
        # No waiting here: that both have the route is what the answer promises.
        assert one.weights() == two.weights() == {"1": 100}


async def test_a_worker_that_does_not_follow_is_waited_for_and_no_longer(database: Database) -> None:
    async with control(database) as around, worker(around) as one, worker(around, "w2") as two:
        name = await on_canary(around)
        await until(lambda: "2" in one.weights() and "2" in two.weights())
        two.obeys = False
        rollouts = around.stub(gateway.RolloutServiceStub)
        began = time.monotonic()
        await rollouts.RollbackRollout(gateway.RollbackRolloutRequest(name=name))
        assert time.monotonic() - began > 0.8
        assert one.weights() == {"1": 100} and two.weights() == {"1": 90, "2": 10}


async def test_a_restart_in_mid_ramp_keeps_the_weights(database: Database) -> None:
    versions, host = Registry(), Host()
    async with control(database, versions, host) as around, worker(around) as one:
        name = await on_canary(around)
        await until(lambda: one.weights() == {"1": 90, "2": 10})
        before = one.table
    loads = list(host.loads)
    async with control(database, versions, host) as around:
        async with worker(around, table=before) as one, worker(around, "new") as two:
            await until(lambda: two.weights() == {"1": 90, "2": 10})
            assert all(weights == {"1": 90, "2": 10} for weights in map(weights_of, [*one.tables, *two.tables]))
            assert (await around.rollout(name)).state == domain.PROGRESSING
            assert host.loads == loads  # the engines went on, and were found again by their list


async def test_after_a_restart_with_a_silent_host_workers_keep_what_they_have(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        await on_canary(around)
        await until(lambda: one.weights() == {"1": 90, "2": 10})
        before = one.table
    tables = RouteTables(database, host_wait_s=0.01)
    await tables.refresh()
    assert tables.table is not None and tables.table.revision == before.revision


async def test_a_lost_engine_loses_its_traffic_and_is_started_again(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        await on_canary(around)
        await until(lambda: one.weights() == {"1": 90, "2": 10})
        seen = len(one.tables)
        del around.host.loaded[digest(2)]
        await until(lambda: around.host.loads.count(digest(2)) == 2)
        await until(lambda: one.weights() == {"1": 90, "2": 10} and len(one.tables) > seen)
        assert {"1": 100} in [weights_of(table) for table in one.tables[seen:]]
        async with database.read() as session:
            [deployment] = await store.DEPLOYMENTS.find(session, model_version=version(2))
        assert deployment.restarts == 1


async def test_weights_the_engine_refuses_fail_the_rollout_with_the_sentence(database: Database) -> None:
    async with control(database) as around:
        await around.reaches(await around.approve(1), domain.PROMOTED)
        around.host.refusals[digest(2)] = kinds.StateConflict(
            "the adapter has rank 64 and the engine takes 16; train one of lower rank",
            reason=errors.ERROR_REASON_MODEL_REJECTED,
        )
        done = await around.reaches(await around.approve(2), domain.FAILED)
        assert done.failure.reason == errors.ERROR_REASON_MODEL_REJECTED and "rank 64" in done.failure.message
        assert (await around.endpoint()).route[0].model_version == version(1)


async def test_a_rollout_is_refused_when_its_way_back_cannot_be_loaded(database: Database) -> None:
    async with control(database) as around:
        await around.reaches(await around.approve(1), domain.PROMOTED)
        around.host.refusals[digest(1)] = kinds.Corrupt("the weights have another digest")
        del around.host.loaded[digest(1)]
        await until(lambda: _is(around, 1, FAILED))
        done = await around.reaches(await around.approve(2), domain.FAILED)
        assert "no way back" in done.failure.message


async def _is(around: Control, number: int, state: int) -> bool:
    return await around.state_of(number) == state


async def test_a_broken_load_is_tried_again_and_then_fails(database: Database) -> None:
    async with control(database) as around:
        around.host.refusals[digest(1)] = kinds.Unavailable("the engine died", reason=errors.ERROR_REASON_ENGINE_FAILED)
        done = await around.reaches(await around.approve(1), domain.FAILED)
        assert done.failure.reason == errors.ERROR_REASON_ENGINE_FAILED
        assert around.host.loads.count(digest(1)) == 3


async def test_a_candidate_route_comes_is_found_again_and_goes(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        around.registry.put(1, registry.MODEL_VERSION_STATE_PENDING)
        routes = around.stub(gateway.CandidateRouteServiceStub)
        asked = gateway.CreateCandidateRouteRequest(parent=PROJECT, model_version=version(1))
        made = (await routes.CreateCandidateRoute(asked)).candidate_route
        again = (await routes.CreateCandidateRoute(asked)).candidate_route
        assert again.name == made.name and made.model == f"candidate-{made.name[-12:]}"
        await until(lambda: [each.model for each in one.table.candidates] == [made.model])
        found = await routes.GetCandidateRoute(gateway.GetCandidateRouteRequest(name=made.name))
        assert found.candidate_route.state == gateway.CANDIDATE_ROUTE_STATE_READY
        for _ in range(2):
            await routes.ReleaseCandidateRoute(gateway.ReleaseCandidateRouteRequest(name=made.name))
        await until(lambda: not one.table.candidates)
        # Its gate is open: the engine waits for it. When the gate has closed it goes.
        asked_before = around.registry.asked
        await until(lambda: around.registry.asked > asked_before + 2)
        assert await around.state_of(1) == READY and digest(1) in around.host.loaded
        around.registry.put(1, registry.MODEL_VERSION_STATE_REJECTED)
        await until(lambda: digest(1) not in around.host.loaded)
        assert await around.state_of(1) == gateway.DEPLOYMENT_STATE_RELEASED


async def test_a_load_is_part_of_the_trace_of_what_wanted_it_and_nothing_else_makes_one(
    database: Database, tmp_path: Path
) -> None:
    running = telemetry.configure("gateway", trace_folder=tmp_path / "traces", log_file=tmp_path / "log.jsonl")
    try:
        async with control(database) as around:
            around.registry.put(1, registry.MODEL_VERSION_STATE_PENDING)
            routes = around.stub(gateway.CandidateRouteServiceStub)
            asked = gateway.CreateCandidateRouteRequest(parent=PROJECT, model_version=version(1))
            with telemetry.with_traceparent(f"00-{'a' * 32}-{'b' * 16}-01"):
                await routes.CreateCandidateRoute(asked)
            await until(lambda: digest(1) in around.host.loaded)
            loaded = around.host.listed
            await until(lambda: around.host.listed > loaded + 2)
    finally:
        running.shutdown()
    spans = {each["name"]: each for each in read_traces(tmp_path / "traces")}
    assert {each["trace_id"] for each in spans.values()} == {"a" * 32}
    load, rpc = spans["load model"], spans["sluice.gateway.v1.EngineHostService/LoadModel"]
    assert load["parent_id"] == spans["sluice.gateway.v1.CandidateRouteService/CreateCandidateRoute"]["span_id"]
    assert rpc["parent_id"] == load["span_id"] and load["attributes"] == {"model_version": version(1)}


async def test_a_candidate_route_that_nobody_keeps_runs_out(database: Database) -> None:
    async with control(database, timing=replace(QUICK, lease_s=0.2)) as around, worker(around) as one:
        around.registry.put(1)
        routes = around.stub(gateway.CandidateRouteServiceStub)
        asked = gateway.CreateCandidateRouteRequest(parent=PROJECT, model_version=version(1))
        made = (await routes.CreateCandidateRoute(asked)).candidate_route
        released = gateway.CANDIDATE_ROUTE_STATE_RELEASED

        async def over() -> bool:
            async with database.read() as session:
                return (await store.CANDIDATES.get(session, made.name)).state == released

        await until(over)
        await until(lambda: not one.table.candidates)


async def test_by_hand_only_what_is_approved(database: Database) -> None:
    async with control(database) as around:
        await around.reaches(await around.approve(1), domain.PROMOTED)
        around.registry.put(2, registry.MODEL_VERSION_STATE_PENDING)
        rollouts = around.stub(gateway.RolloutServiceStub)
        request = gateway.CreateRolloutRequest(parent=ENDPOINT, model_version=version(2))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rollouts.CreateRollout(request)
        assert kinds.from_rpc_error(caught.value).reason == errors.ERROR_REASON_NOT_APPROVED
        around.registry.put(2)
        made = (await rollouts.CreateRollout(request)).rollout
        await around.reaches(made.name, domain.PROGRESSING)
        around.registry.put(2, registry.MODEL_VERSION_STATE_REVOKED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rollouts.PromoteRollout(gateway.PromoteRolloutRequest(name=made.name))
        assert kinds.from_rpc_error(caught.value).code is grpc.StatusCode.FAILED_PRECONDITION


async def test_promoting_and_rolling_back_by_hand_at_once_leaves_one_winner(database: Database) -> None:
    async with control(database) as around, worker(around) as one:
        name = await on_canary(around)
        rollouts = around.stub(gateway.RolloutServiceStub)
        await asyncio.gather(
            rollouts.PromoteRollout(gateway.PromoteRolloutRequest(name=name)),
            rollouts.RollbackRollout(gateway.RollbackRolloutRequest(name=name)),
            return_exceptions=True,
        )
        assert (await around.rollout(name)).state == domain.ROLLED_BACK
        await until(lambda: one.weights() == {"1": 100})
