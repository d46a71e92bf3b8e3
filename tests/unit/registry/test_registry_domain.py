"""Versions, approvals, aliases and keys as tables; no database."""

from datetime import UTC, datetime, timedelta

import pytest

from kit.auth import Principal
from kit.rpc.errors import Denied, Invalid, StateConflict
from services.registry import domain
from sluice import lifecycle
from sluice.registry import v1 as registry
from sluice.types import v1 as types

NOW = datetime(2026, 11, 21, tzinfo=UTC)
V = registry
STATES = [value for value in registry.ModelVersionState.values() if value]
PENDING, AWAITING = V.MODEL_VERSION_STATE_PENDING, V.MODEL_VERSION_STATE_AWAITING_APPROVAL
APPROVED, REJECTED = V.MODEL_VERSION_STATE_APPROVED, V.MODEL_VERSION_STATE_REJECTED
INCONCLUSIVE, REVOKED = V.MODEL_VERSION_STATE_INCONCLUSIVE, V.MODEL_VERSION_STATE_REVOKED


def version(state=PENDING, wanted=0, verdict=V.VERDICT_PASS, approved_by=()):
    made = registry.ModelVersion(name="projects/p/models/m/versions/1", state=state)
    made.lineage.creator = "author"
    made.gate_decision.verdict = verdict
    made.gate_decision.policy.approvals_required = wanted
    for who in approved_by:
        made.approvals.add(principal=who)
    return made


@pytest.mark.parametrize("old", STATES)
@pytest.mark.parametrize("new", STATES)
def test_a_version_moves_as_its_table_says(old, new):
    moving = version(old)
    if lifecycle.can(lifecycle.MODEL_VERSION, old, new):
        domain.enter(moving, new)
        assert moving.state == new
    else:
        with pytest.raises(StateConflict):
            domain.enter(moving, new)


@pytest.mark.parametrize(
    ("old", "verdict", "wanted", "new"),
    [
        (PENDING, V.VERDICT_PASS, 0, APPROVED),
        (PENDING, V.VERDICT_PASS, 1, AWAITING),
        (PENDING, V.VERDICT_FAIL, 1, REJECTED),
        (PENDING, V.VERDICT_INCONCLUSIVE, 0, INCONCLUSIVE),
        (INCONCLUSIVE, V.VERDICT_PASS, 0, APPROVED),
        (INCONCLUSIVE, V.VERDICT_INCONCLUSIVE, 0, INCONCLUSIVE),
        (INCONCLUSIVE, V.VERDICT_FAIL, 0, REJECTED),
    ],
)
def test_what_the_gate_says_takes_effect(old, verdict, wanted, new):
    judged = version(old)
    policy = registry.GatePolicy(approvals_required=wanted)
    decision = registry.GateDecision(verdict=verdict, policy=policy, evaluation="e")
    domain.apply_decision(judged, decision, NOW)
    assert (judged.state, judged.lineage.evaluation) == (new, "e")
    assert judged.gate_decision.time.ToDatetime(UTC) == NOW


def test_two_people_are_two_people():
    awaiting = version(AWAITING, wanted=2)
    domain.approve(awaiting, "one", "", False, NOW)
    domain.approve(awaiting, "one", "", False, NOW)
    assert awaiting.state == AWAITING and len(awaiting.approvals) == 1
    domain.approve(awaiting, "two", "fine", False, NOW)
    assert awaiting.state == APPROVED and [each.principal for each in awaiting.approvals] == ["one", "two"]


@pytest.mark.parametrize("waiver", [False, True])
@pytest.mark.parametrize("state", [AWAITING, REJECTED])
def test_the_author_never_approves(state, waiver):
    with pytest.raises(Denied, match="another approver"):
        domain.approve(version(state, wanted=1), "author", "please", waiver, NOW)


@pytest.mark.parametrize("state", [PENDING, APPROVED, REJECTED, INCONCLUSIVE, REVOKED])
def test_only_what_awaits_approval_is_approved(state):
    with pytest.raises(StateConflict, match="awaits no approval"):
        domain.approve(version(state, wanted=1), "one", "", False, NOW)


@pytest.mark.parametrize("state", [REJECTED, INCONCLUSIVE])
def test_a_waiver_lets_through_what_the_gate_refused_and_stays_visible(state):
    for wanted, state_after in ((0, APPROVED), (1, APPROVED), (2, AWAITING)):
        refused = version(state, wanted=wanted, verdict=V.VERDICT_FAIL)
        domain.approve(refused, "one", "the metric is wrong for this task", True, NOW)
        assert refused.state == state_after
        assert refused.approvals[0].waiver and refused.approvals[0].reason
    refused.state = state  # judged and refused once more
    domain.approve(refused, "one", "as before", True, NOW)
    assert refused.state == AWAITING  # the same person is no second one
    domain.approve(refused, "two", "I agree", False, NOW)
    assert refused.state == APPROVED


@pytest.mark.parametrize("state", [PENDING, AWAITING, APPROVED, REVOKED])
def test_a_waiver_stands_in_for_neither_gate_nor_second_person(state):
    with pytest.raises(StateConflict, match="for what the gate refused"):
        domain.approve(version(state, wanted=2), "one", "hurry", True, NOW)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_waiver_needs_a_reason(reason):
    with pytest.raises(Invalid, match="reason"):
        domain.approve(version(REJECTED), "one", reason, True, NOW)


@pytest.mark.parametrize(
    ("before", "serving", "after", "changed"),
    [
        (0, "projects/p/models/m/versions/3", 3, True),
        (3, "projects/p/models/m/versions/3", 3, False),
        (2, "projects/p/models/m/versions/3", 3, True),
        (3, "projects/p/models/other/versions/1", 0, True),
        (0, "projects/p/models/other/versions/1", 0, False),
        (0, "projects/q/models/m/versions/1", 0, False),
        (3, "", 0, True),
    ],
)
def test_stable_is_the_version_with_all_the_traffic(before, serving, after, changed):
    model = registry.Model(name="projects/p/models/m", aliases={"canary": 9} | ({"stable": before} if before else {}))
    assert domain.realias(model, serving) is changed
    assert dict(model.aliases) == {"canary": 9} | ({"stable": after} if after else {})


def giver(*bindings):
    return Principal("projects/p/apiKeys/giver", frozenset((project, int(role)) for project, role in bindings))


@pytest.mark.parametrize(
    ("has", "gives", "may"),
    [
        (("projects/p", types.ROLE_ADMIN), ("projects/p", types.ROLE_ADMIN), True),
        (("projects/-", types.ROLE_ADMIN), ("projects/q", types.ROLE_INFERENCE), True),
        (("projects/-", types.ROLE_ADMIN), ("projects/-", types.ROLE_ADMIN), True),
        (("projects/p", types.ROLE_ADMIN), ("projects/q", types.ROLE_INFERENCE), False),
        (("projects/p", types.ROLE_ADMIN), ("projects/-", types.ROLE_AUDITOR), False),
        (("projects/p", types.ROLE_ENGINEERING), ("projects/p", types.ROLE_ENGINEERING), False),
    ],
)
def test_nobody_gives_what_they_do_not_have(has, gives, may):
    wanted = registry.ApiKey(
        display_name="CI key", role_bindings=[registry.RoleBinding(project=gives[0], role=gives[1])]
    )
    if may:
        assert domain.new_key("projects/p", wanted, "sk-", giver(has), NOW).name == "projects/p/apiKeys/ci-key"
    else:
        with pytest.raises(Denied, match="administrator"):
            domain.new_key("projects/p", wanted, "sk-", giver(has), NOW)


def test_a_key_that_could_never_work_is_refused():
    wanted = registry.ApiKey(display_name="old")
    wanted.expire_time.FromDatetime(NOW - timedelta(seconds=1))
    with pytest.raises(Invalid, match="expire_time"):
        domain.new_key("projects/p", wanted, "sk-", giver(), NOW)
