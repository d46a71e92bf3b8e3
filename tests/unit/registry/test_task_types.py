"""Task types of a project: what they have by extension, who approves them, and what they let happen."""

import pytest
from sqlmodel import col, select

from kit.auth import Principal
from kit.rpc.errors import AlreadyExists, Denied, Invalid, NotFound, Stale, StateConflict
from kit.store import OutboxRow
from services.registry import commands, extending, store, task_types
from sluice.labels import check_submitter, over
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PROJECT = "projects/default"
REPORT = f"{PROJECT}/taskTypes/radiology-report"
ANA, BEN = f"{PROJECT}/apiKeys/ana", f"{PROJECT}/apiKeys/ben"
PROPOSED, APPROVED = registry.TASK_TYPE_STATE_PROPOSED, registry.TASK_TYPE_STATE_APPROVED
DECLINED, RETIRED = registry.TASK_TYPE_STATE_DECLINED, registry.TASK_TYPE_STATE_RETIRED


class Desk:
    """The registry as people use it, one call a unit."""

    def __init__(self, database, catalog):
        self.database, self.catalog = database, catalog

    async def new(self, id_="radiology-report", by=ANA, extends="sft", **fields):
        wanted = registry.TaskType(extends=extends, **fields)
        request = registry.CreateTaskTypeRequest(parent=PROJECT, task_type_id=id_, task_type=wanted)
        return await self.database.transact(lambda unit: task_types.propose(unit, self.catalog, request, by))

    async def approve(self, id_="radiology-report", by=BEN, **fields):
        request = registry.ApproveTaskTypeRequest(name=f"{PROJECT}/taskTypes/{id_}", **fields)
        return await self.database.transact(lambda unit: task_types.approve(unit, self.catalog, request, by))

    async def retire(self, id_="radiology-report", **fields):
        request = registry.RetireTaskTypeRequest(name=f"{PROJECT}/taskTypes/{id_}", reason="over", **fields)
        return await self.database.transact(lambda unit: task_types.retire(unit, self.catalog, request))

    async def find(self, id_):
        async with self.database.read() as session:
            return await task_types.find_task_type(session, self.catalog, PROJECT, id_)

    async def model(self, task_type="radiology-report"):
        wanted = registry.Model(display_name="chest", task_type=task_type)
        return await self.database.transact(lambda unit: commands.create_model(unit, self.catalog, PROJECT, wanted))

    async def told(self):
        async with self.database.read() as session:
            rows = (await session.exec(select(OutboxRow.type).order_by(col(OutboxRow.sequence)))).all()
        return [name for row in rows if (name := row.removeprefix("sluice.registry.v1.")).startswith("task_type")]


@pytest.fixture
async def desk(database, catalog):
    await database.transact(lambda unit: commands.first_start(unit, ""))
    return Desk(database, catalog)


async def test_it_is_used_once_another_person_has_approved_it(desk):
    made = await desk.new(description="Findings to impression", suite_max_tokens=96)
    assert (made.name, made.state, made.creator, made.extends) == (REPORT, PROPOSED, ANA, "sft")
    with pytest.raises(StateConflict, match="waits for another person's approval: `sluice tasks approve radiology-rep"):
        await desk.model()
    with pytest.raises(Denied, match=r"`projects/default/apiKeys/ana` made .* and cannot approve it"):
        await desk.approve(by=ANA)
    with pytest.raises(Stale):
        await desk.approve(etag="9")
    approved = await desk.approve(reason="reviewed", etag=made.etag)
    assert (approved.state, approved.approval.principal, approved.approval.reason) == (APPROVED, BEN, "reviewed")
    assert await desk.approve() == approved
    with pytest.raises(StateConflict, match="is APPROVED and cannot become APPROVED"):
        await desk.approve(by=f"{PROJECT}/apiKeys/chen")
    assert (await desk.model()).task_type == "radiology-report"
    assert await desk.told() == ["task_type.proposed", "task_type.approved"]


async def test_it_has_what_it_extends_has_and_what_is_its_own(desk, catalog):
    sft = catalog.task_types["sft"]
    plain = await desk.new("plain")
    for field in ("row_schema", "recipe", "interface", "metrics", "suite_max_rows", "suite_max_tokens", "gate_policy"):
        assert getattr(plain, field) == getattr(sft, field), field
    assert not plain.HasField("defaults") and not plain.submit_roles
    rate = registry.TrainingDefaults(optimization=trainer.Optimization(learning_rate=0.5, epochs=2), max_length=9)
    rule = {"submit_roles": [types.ROLE_APPROVER], "submit_principals": ["projects/other/apiKeys/chen"]}
    await desk.new(metrics=["rouge_l"], gate_policy="baseline", suite_max_rows=7, defaults=rate, **rule)
    await desk.approve()
    steps = registry.TrainingDefaults(optimization=trainer.Optimization(max_steps=3))
    child = await desk.new("chest-report", extends="radiology-report", suite_max_tokens=5, defaults=steps)
    assert (child.metrics, child.gate_policy, child.suite_max_rows) == (["rouge_l"], "baseline", 7)
    assert (child.suite_max_tokens, child.defaults.max_length) == (5, 9)
    assert child.defaults.optimization == trainer.Optimization(learning_rate=0.5, max_steps=3)
    assert child.submit_roles == [types.ROLE_APPROVER] and child.submit_principals == rule["submit_principals"]
    other = await desk.new("leg-report", extends="radiology-report", submit_roles=[types.ROLE_OPERATIONS])
    assert other.submit_roles == [types.ROLE_OPERATIONS] and not other.submit_principals


WRONG = [
    ({"row_schema": "preference"}, Invalid, "row_schema is `preference`, but that of what it extends is `sft`"),
    ({"recipe": "dpo"}, Invalid, "recipe is `dpo`"),
    ({"interface": "rerank"}, Invalid, "interface is `rerank`"),
    ({"metrics": ["rogue_l"]}, Invalid, "did you mean `rouge_l`"),
    ({"metrics": ["rouge_l"]}, Invalid, "lacks `exact_match`, which its gate policy `no-regression` asks for"),
    ({"gate_policy": "none"}, NotFound, "gate policy `projects/default/gatePolicies/none` does not exist"),
    ({"extends": ""}, Invalid, "extends is empty"),
    ({"extends": "stf"}, NotFound, "did you mean `sft`"),
    ({"id_": "sft"}, AlreadyExists, "`sft` is built in"),
    ({"submit_principals": [f"{PROJECT}/apiKeys/nobody"]}, NotFound, "apiKeys/nobody"),
]


@pytest.mark.parametrize(("wanted", "kind", "words"), WRONG)
async def test_what_cannot_be_approved_is_not_proposed(desk, wanted, kind, words):
    with pytest.raises(kind, match=words):
        await desk.new(**wanted)
    assert await desk.told() == []


async def test_what_it_says_of_what_it_extends_may_be_said_again(desk):
    assert (await desk.new(row_schema="sft", recipe="sft", interface="chat")).recipe == "sft"


async def test_only_what_is_approved_is_extended_even_when_that_ends_meanwhile(desk):
    await desk.new()
    with pytest.raises(StateConflict, match="waits for"):
        await desk.new("chest-report", extends="radiology-report")
    await desk.approve()
    await desk.new("chest-report", extends="radiology-report")
    await desk.retire()
    with pytest.raises(StateConflict, match="`radiology-report` was retired"):
        await desk.approve("chest-report")


async def test_what_is_retired_takes_nothing_new_and_what_exists_goes_on(desk, catalog):
    await desk.new()
    await desk.approve()
    model = await desk.model()
    assert (await desk.retire()).state == RETIRED
    assert (await desk.retire()).reason == "over"
    with pytest.raises(StateConflict, match="was retired and takes nothing new"):
        await desk.model()
    with pytest.raises(AlreadyExists):
        await desk.new()
    spec = trainer.TrainingJobSpec(task_type="radiology-report", model="chest", dataset_version="d", gate_policy="")
    event = trainer.TrainingJobSucceeded(training_job=f"{PROJECT}/trainingJobs/j", spec=spec, creator=ANA)
    await desk.database.transact(lambda unit: commands.register_training(unit, catalog, event))
    async with desk.database.read() as session:
        version = await store.get_version(session, f"{model.name}/versions/1")
    assert (version.task_type, version.gate_policy, version.interface) == ("radiology-report", "no-regression", "chat")
    assert await desk.told() == ["task_type.proposed", "task_type.approved", "task_type.retired"]


async def test_what_was_declined_may_be_proposed_again_by_anybody_who_then_cannot_approve_it(desk):
    await desk.new(suite_max_rows=3)
    assert (await desk.retire()).state == DECLINED
    with pytest.raises(StateConflict, match="is DECLINED and cannot become APPROVED"):
        await desk.approve()
    again = await desk.new(by=BEN)
    assert (again.state, again.creator, again.reason, again.suite_max_rows) == (PROPOSED, BEN, "", 200)
    with pytest.raises(Denied):
        await desk.approve(by=BEN)
    assert (await desk.approve(by=ANA)).state == APPROVED
    names = ["proposed", "declined", "proposed", "approved"]
    assert await desk.told() == [f"task_type.{name}" for name in names]


async def test_built_in_ones_stay_and_a_mistyped_one_is_told_the_nearest(desk):
    with pytest.raises(StateConflict, match="`sft` is built in and stays as it is"):
        await desk.retire("sft")
    await desk.new()
    assert (await desk.find("sft")).name == "taskTypes/sft" and (await desk.find("sft")).state == APPROVED
    assert (await desk.find("radiology-report")).name == REPORT
    with pytest.raises(NotFound, match="did you mean `radiology-report`"):
        await desk.find("radiology-reprot")


@pytest.mark.parametrize("name", ["dpo", "rm", "sequence-classification"])
def test_the_methods_of_the_field_keep_their_names(name):
    with pytest.raises(Invalid, match=f"`{name}` is what the field calls a method"):
        extending.check_id(name)
    extending.check_id(f"{name}-reports")


def test_every_built_in_task_type_can_be_extended(catalog):
    for name, base in catalog.task_types.items():
        made = extending.extended(f"{PROJECT}/taskTypes/mine", base, registry.TaskType(extends=name))
        extending.check_metrics(made, catalog.policies[made.gate_policy], catalog.task_types.values())


def holder(*roles, name=ANA):
    return Principal(name, frozenset((PROJECT, int(role)) for role in roles))


@pytest.mark.parametrize(
    ("rule", "by", "may"),
    [
        ({}, holder(types.ROLE_ALGORITHM), True),
        ({"submit_roles": [types.ROLE_OPERATIONS]}, holder(types.ROLE_ALGORITHM), False),
        ({"submit_roles": [types.ROLE_OPERATIONS]}, holder(types.ROLE_ALGORITHM, types.ROLE_OPERATIONS), True),
        ({"submit_roles": [types.ROLE_OPERATIONS]}, holder(types.ROLE_ADMIN), True),
        ({"submit_principals": [BEN]}, holder(types.ROLE_ALGORITHM), False),
        ({"submit_principals": [BEN]}, holder(types.ROLE_ALGORITHM, name=BEN), True),
        ({"submit_roles": [types.ROLE_OPERATIONS], "submit_principals": [ANA]}, holder(types.ROLE_ALGORITHM), True),
    ],
)
def test_who_may_submit_is_a_rule_on_the_task_type(rule, by, may):
    task_type = registry.TaskType(name=REPORT, **rule)
    if may:
        check_submitter(task_type, PROJECT, by)
    else:
        with pytest.raises(Denied, match="may not submit jobs of task type `radiology-report`; it is for"):
            check_submitter(task_type, PROJECT, by)


def test_steps_and_passes_are_never_mixed():
    base = registry.TrainingDefaults(optimization=trainer.Optimization(epochs=3, batch_size=4))
    own = registry.TrainingDefaults(optimization=trainer.Optimization(max_steps=2))
    found = over(base, own)
    assert found.optimization == trainer.Optimization(max_steps=2, batch_size=4)
    assert over(base, found) == found and base.optimization.epochs == 3
