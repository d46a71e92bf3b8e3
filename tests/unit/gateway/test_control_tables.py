"""Route tables, figures and waiting for workers: what holds without a network."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway import domain
from services.gateway.figures import Figures, quantile
from services.gateway.settings import GatewaySettings
from services.gateway.tables import route_of, table_of
from services.gateway.workers import Workers
from sluice.gateway import v1 as gateway
from tests.control_parts import ENDPOINT, version, weights_of

PLACES = {version(number): gateway.Upstream(url="http://127.0.0.1:1", model=str(number)) for number in (1, 2)}


@pytest.mark.parametrize(
    ("why", "known", "weights"),
    [
        ("both answer", (1, 2), {"1": 75, "2": 25}),
        ("the candidate does not answer: unknown means stable", (1,), {"1": 100}),
        ("the stable arm does not answer: nobody is promoted by a loss", (2,), {}),
        ("nobody answers", (), {}),
    ],
)
def test_a_share_goes_to_who_answers(why: str, known: tuple[int, ...], weights: dict[str, int]) -> None:
    endpoint = gateway.Endpoint(name=ENDPOINT, route=domain.split(version(1), version(2), 25))
    places = {version(number): PLACES[version(number)] for number in known}
    assert weights_of(table_of(7, [endpoint], [], places)) == weights, why
    assert sum(arm.weight_percent for arm in endpoint.route) == 100  # the endpoint itself is not touched


def test_an_endpoint_without_traffic_is_in_the_table_without_arms() -> None:
    route = route_of(gateway.Endpoint(name=ENDPOINT, interface="chat"), PLACES)
    assert (route.endpoint, route.interface, list(route.arms)) == (ENDPOINT, "chat", [])


def test_candidates_are_in_the_table_once_they_answer() -> None:
    routes = [
        gateway.CandidateRoute(name=f"c{number}", model=f"candidate-{number}", model_version=version(number))
        for number in (1, 9)
    ]
    table = table_of(7, [], routes, PLACES)
    assert [(each.model, each.upstream.model) for each in table.candidates] == [("candidate-1", "1")]


def sample(requests: int, errors: int = 0, revision: int = 5, bucket: int = 8) -> gateway.ArmSample:
    counts = [0] * 12
    counts[bucket] = requests - errors
    return gateway.ArmSample(
        endpoint=ENDPOINT,
        model_version=version(1),
        requests=requests,
        errors=errors,
        duration_buckets=counts,
        revision=revision,
    )


def test_a_step_is_judged_by_what_its_tables_admitted() -> None:
    figures = Figures()
    assert figures.of(ENDPOINT, version(1)) is None
    figures.add([sample(10, 1), sample(99, revision=4), sample(5, revision=6)])
    figures.since(ENDPOINT, 5)
    found = figures.of(ENDPOINT, version(1))
    assert found is not None and (found.requests, found.errors, found.p95_ms) == (15, 1, 4.0)
    assert not found.HasField("ttft_p50_ms")
    figures.since(ENDPOINT, 7)
    assert figures.of(ENDPOINT, version(1)) is None
    figures.add([sample(10, revision=7)])
    figures.keep({"another"})
    assert figures.of(ENDPOINT, version(1)) is None


def test_quantiles_are_upper_bounds_of_their_bucket() -> None:
    assert quantile([], 0.95) is None and quantile([0, 0], 0.5) is None
    assert quantile([10, 0, 0, 0, 0], 0.95) == 1.0
    assert quantile([95, 0, 0, 0, 5, 0], 0.95) == 1.0
    assert quantile([94, 0, 0, 0, 6, 0], 0.95) == 2.0
    assert quantile([0, 1], 0.95) == float("inf")


async def test_a_route_is_followed_when_all_workers_have_it_or_are_gone() -> None:
    workers = Workers()
    first, second = workers.join("a"), workers.join("b")
    workers.confirm(first, 4)
    assert await workers.follow(4, timeout_s=0.02) == ["b"]
    waiting = asyncio.create_task(workers.follow(4, timeout_s=10))
    await asyncio.sleep(0)
    workers.confirm(second, 5)
    assert await waiting == []
    waiting = asyncio.create_task(workers.follow(6, timeout_s=10))
    await asyncio.sleep(0)
    workers.leave(second)
    workers.confirm(first, 6)
    assert await waiting == []


def test_settings_name_the_variable_that_is_wrong() -> None:
    assert GatewaySettings.from_env({"SLUICE_GATEWAY_GRACE_S": "3"}).timing.grace_s == 3.0
    with pytest.raises(ValueError, match="SLUICE_GATEWAY_LEASE_S is `soon`"):
        GatewaySettings.from_env({"SLUICE_GATEWAY_LEASE_S": "soon"})
