"""Endpoints made and changed by people: real commands on a database in memory."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import Parse
from sqlmodel import col, select

from kit.rpc.errors import Invalid, NotFound, Stale
from kit.store import OutboxRow
from services.gateway import commands, store
from sluice.gateway import v1 as gateway
from tests.control_parts import ENDPOINT, PROJECT, new_database, plan


async def test_a_changed_plan_is_held_to_the_rules_and_told():
    database, mask = await new_database(), FieldMask(paths=["rollout_plan"])

    async def change(wanted: gateway.RolloutPlan | None, etag: str = "", name: str = ENDPOINT) -> gateway.Endpoint:
        endpoint = gateway.Endpoint(name=name, rollout_plan=wanted, etag=etag)
        return await database.transact(lambda unit: commands.update_endpoint(unit, endpoint, mask))

    made = await database.transact(lambda unit: commands.create_endpoint(unit, PROJECT, ENDPOINT.rsplit("/", 1)[-1]))
    changed = await change(plan(20, 100), made.etag)
    assert [step.weight_percent for step in changed.rollout_plan.steps] == [20, 100]
    for wanted, etag, name, kind in (
        (plan(50, 20), "", ENDPOINT, Invalid),
        (plan(), "", ENDPOINT, Invalid),
        (plan(100), made.etag, ENDPOINT, Stale),
        (plan(100), "", f"{ENDPOINT}-not", NotFound),
    ):
        with pytest.raises(kind):
            await change(wanted, etag, name)
    assert not (await change(None)).HasField("rollout_plan")
    async with database.read() as session:
        rows = (await session.exec(select(OutboxRow).order_by(col(OutboxRow.sequence)))).all()
        assert await store.ENDPOINTS.get(session, ENDPOINT)
    assert [row.type.rpartition(".")[2] for row in rows] == ["created", "updated", "updated"]
    assert Parse(rows[1].data_json, gateway.EndpointUpdated()).endpoint.rollout_plan == changed.rollout_plan
    await database.close()
